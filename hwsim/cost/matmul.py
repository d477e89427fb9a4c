"""Matrix products on the MAC arrays of several cores: which dimension is split, cycles, scratchpad bits, energy."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.arch import Architecture
from hwsim.cost.array import IntArray, array_cycles, ceil_div
from hwsim.cost.transfer import gather_cycles

FloatArray = npt.NDArray[np.float64]

SPLITS = ("n", "k", "m", "batch")
"""Dimensions that may be split over cores or over the arrays of a core, in order of preference."""
PARTIAL_SUM_BYTES = 4


@dataclass(frozen=True)
class Products:
    """Matrix products `(batch, m, k) @ (k, n)`, one entry each."""

    m: IntArray
    k: IntArray
    n: IntArray
    batch: IntArray
    cores: IntArray
    """Cores that share the product."""
    weight_bits: IntArray
    """Code bits of an element of the second operand."""
    activation_bits: IntArray
    copies_allowed: npt.NDArray[np.bool_]
    """Whether each core may hold all of the second operand (it is not resident), so that m may be split."""
    storage: WeightStorage | None = None
    """How second operands are stored and what of them is computed; None: dense codes, every one of them computed."""

    @property
    def computed_k(self) -> IntArray:
        """MACs of an output along the inner dimension: k less the zeros that are skipped."""
        if self.storage is None:
            return self.k
        return ceil_div(self.k * self.storage.keep, self.storage.group)


@dataclass(frozen=True)
class WeightStorage:
    """How the second operands of products are stored, one entry each; see `hwsim.cost.storage`."""

    bits: FloatArray
    """Scratchpad bits for each element of the dense operand, with masks or positions."""
    keep: IntArray
    """MACs that an array does for each `group` elements along the inner dimension; 1 and 1 where it does all."""
    group: IntArray
    expanded_bits: IntArray
    """Bits of a weight that leaves the decoder, 0 where it is bypassed."""


@dataclass(frozen=True)
class ProductCosts:
    """Costs of products on the cores, one entry each; times are of the busiest array."""

    stream_cycles: IntArray
    load_cycles: IntArray
    overhead_cycles: IntArray
    reduce_bytes: IntArray
    """Partial sums that cross the interconnect when k is split over cores."""
    core_split: IntArray
    """Index into `SPLITS`."""
    scratchpad_read_bits: FloatArray
    scratchpad_write_bits: FloatArray
    buffer_bits: FloatArray
    """Through the operand buffers of all arrays."""
    mac_energy_pj: FloatArray
    """Of MACs that are done, with the selection of their activations, at the reference operating point."""
    decode_energy_pj: FloatArray
    """Of weights that leave the decoder, at the reference operating point."""


def product_costs(arch: Architecture, fmt: str, products: Products) -> ProductCosts:
    """Cost products that are computed in the native format `fmt`, each split the way that is fastest.

    Over the cores of a group and over the arrays of a core, n, k, m or the batch is split in equal parts (the largest
    part counts). Splitting k over cores adds partial sums of 4 bytes on the interconnect; arrays of one core
    add theirs on the way out. When the scratchpads or the operand buffers deliver operands, or the decoder weights,
    slower than the arrays take them, the difference is added to the load cycles. Of equally fast ways the first of n,
    k, m, batch is taken.
    """
    ways = [_way(arch, fmt, products, core_dim, array_dim) for core_dim in SPLITS for array_dim in SPLITS]
    way = _Way(**{column.name: np.stack([getattr(each, column.name) for each in ways]) for column in fields(_Way)})
    traffic = _traffic(arch, fmt, products, way)
    stall = _stall_cycles(arch, products, way, traffic)
    fastest = np.argmin(way.time_cycles + stall, axis=0)

    def chosen(column: Any) -> Any:
        return np.broadcast_to(column, stall.shape)[fastest, np.arange(len(fastest))]

    array_format, decoder, sparsity = arch.array.formats[fmt], arch.array.weight_decoder, arch.array.structured_sparsity
    macs = products.m * products.computed_k * products.n * products.batch
    skipped = products.computed_k < products.k
    select = sparsity.energy_pj_per_mac.value if sparsity else 0.0
    return ProductCosts(
        stream_cycles=chosen(way.stream_cycles),
        load_cycles=chosen(way.load_cycles) + chosen(stall),
        overhead_cycles=chosen(way.overhead_cycles),
        reduce_bytes=chosen(way.reduce_bytes),
        core_split=chosen(way.core_split),
        scratchpad_read_bits=chosen(traffic.read_bits),
        scratchpad_write_bits=chosen(traffic.write_bits),
        buffer_bits=chosen(traffic.buffer_bits),
        mac_energy_pj=macs * (array_format.energy_pj_per_mac.value + np.where(skipped, select, 0.0)),
        decode_energy_pj=chosen(traffic.decoded) * (decoder.energy_pj_per_weight.value if decoder else 0.0),
    )


def _stall_cycles(arch: Architecture, products: Products, way: _Way, traffic: _Traffic) -> IntArray:
    """Time by which memories and decoders are longer at work than the arrays."""
    decoder = arch.array.weight_decoder
    arrays = products.cores * arch.array.arrays_per_core.value
    need = np.maximum(
        (traffic.read_bits + traffic.write_bits) / (8 * _scratchpad_rate(arch) * products.cores),
        traffic.buffer_bits / (8 * _buffer_rate(arch) * arrays),
    )
    if decoder:
        need = np.maximum(need, traffic.decoded / (decoder.weights_per_cycle.value * products.cores))
    taken = way.stream_cycles + way.load_cycles + way.overhead_cycles
    return np.maximum(np.ceil(need).astype(np.int64) - taken, 0)


def memory_energy_pj(arch: Architecture, costs: ProductCosts) -> FloatArray:
    """Energy of the on-chip memories for products, pJ at the selected operating point."""
    scratchpad, buffer = arch.memory.scratchpad, arch.memory.operand_buffer
    energy = costs.scratchpad_read_bits * scratchpad.read_energy_pj_per_bit.value
    energy = energy + costs.scratchpad_write_bits * scratchpad.write_energy_pj_per_bit.value
    if buffer:
        energy = energy + costs.buffer_bits * buffer.energy_pj_per_bit.value
    return np.asarray(energy * arch.sram_energy_scale)


def _scratchpad_rate(arch: Architecture) -> float:
    """Scratchpad bytes per cycle and core."""
    rate = arch.memory.scratchpad.bandwidth_bytes_per_cycle.value
    return rate if arch.memory.scratchpad.scope == "core" else rate / arch.cores.value


def _buffer_rate(arch: Architecture) -> float:
    """Operand buffer bytes per cycle and array; unlimited where there is none."""
    buffer = arch.memory.operand_buffer
    return buffer.bandwidth_bytes_per_cycle.value if buffer else float("inf")


@dataclass(frozen=True)
class _Traffic:
    read_bits: FloatArray
    write_bits: FloatArray
    buffer_bits: FloatArray
    decoded: FloatArray
    """Weights that leave the decoders of all cores."""


def _traffic(arch: Architecture, fmt: str, p: Products, way: _Way) -> _Traffic:
    """Bits that a product moves from and to the scratchpads and through the operand buffers.

    Weights are read once for each core that needs them. Activations pass the array once for every tile of outputs:
    from the operand buffer when the part of an array fits there, else from the scratchpad each time. Partial sums
    of the accumulator's width are written once per block of the inner dimension, and read again by the next. Weights
    leave the decoder once for each read: those that are computed, in the format of the products.
    """
    copies = np.where(way.core_split == SPLITS.index("m"), p.cores, 1)
    columns = p.n * p.batch * copies
    stored_bits = p.weight_bits if p.storage is None else p.storage.bits
    weights = (p.k * columns * stored_bits).astype(np.float64)
    computed = (p.computed_k * columns).astype(np.float64)
    expanded_bits = np.zeros_like(p.k) if p.storage is None else p.storage.expanded_bits
    activations = (p.m * p.k * p.batch * p.activation_bits).astype(np.float64)
    passes = activations * way.output_tiles
    buffer = arch.memory.operand_buffer
    if buffer:
        fits = way.array_inputs * p.activation_bits <= 8 * buffer.capacity_bytes.value
        from_scratchpad = np.where(fits, activations * way.output_parts, passes)
    else:
        from_scratchpad = passes
    sums = (p.m * p.n * p.batch * arch.array.formats[fmt].accumulator_bits.value).astype(np.float64)
    blocks = way.inner_blocks
    return _Traffic(
        weights + from_scratchpad + sums * (blocks - 1),
        sums * blocks,
        np.where(expanded_bits > 0, computed * expanded_bits, weights) + passes,
        np.where(expanded_bits > 0, computed, 0.0),
    )


@dataclass(frozen=True)
class _Way:
    """One way to split products over cores and arrays, or several as rows of (ways, products)."""

    time_cycles: IntArray
    """What is compared: array time and the exchange of partial sums."""
    stream_cycles: IntArray
    load_cycles: IntArray
    overhead_cycles: IntArray
    reduce_bytes: IntArray
    core_split: IntArray
    output_tiles: IntArray
    """Passes of the activations over all arrays."""
    output_parts: IntArray
    """Arrays that need the same activations."""
    inner_blocks: IntArray
    """Blocks of the inner dimension whose partial sums are written."""
    array_inputs: IntArray
    """Activations that one array reads."""


def _way(arch: Architecture, fmt: str, p: Products, core_dim: str, array_dim: str) -> _Way:
    array, array_format = arch.array, arch.array.formats[fmt]
    arrays = array.arrays_per_core.value
    parts = {dim: np.where(core_dim == dim, p.cores, 1) * (arrays if array_dim == dim else 1) for dim in SPLITS}
    m, k, n, batch = (ceil_div(size, parts[dim]) for dim, size in
                      (("m", p.m), ("k", p.computed_k), ("n", p.n), ("batch", p.batch)))  # fmt: skip
    element_bits = np.maximum(p.weight_bits, 1)
    cycles = array_cycles(array, array_format, element_bits, m, k, n)
    depth = np.full_like(p.m, array_format.inner_per_cycle)
    if array.weight_blocks is not None:
        block_bits = 8 * array.weight_blocks.register_block_bytes.value
        depth = np.maximum(block_bits // (array_format.outputs_per_cycle * element_bits), depth)
    reduce_bytes = p.m * p.n * p.batch * PARTIAL_SUM_BYTES * ((p.cores > 1) & (core_dim == "k"))
    time = cycles.total * batch + gather_cycles(arch, reduce_bytes)
    if core_dim == "m":
        time = np.where((p.cores > 1) & ~p.copies_allowed, np.iinfo(np.int64).max // 2, time)
    return _Way(
        time_cycles=time,
        stream_cycles=cycles.stream * batch,
        load_cycles=cycles.load * batch,
        overhead_cycles=cycles.overhead * batch,
        reduce_bytes=reduce_bytes,
        core_split=np.full_like(p.m, SPLITS.index(core_dim)),
        output_tiles=ceil_div(n, array_format.outputs_per_cycle) * parts["n"],
        output_parts=parts["n"] * np.ones_like(p.m),
        inner_blocks=ceil_div(k, depth) * parts["k"],
        array_inputs=m * ceil_div(p.k, parts["k"]),
    )
