"""Matrix products on the MAC arrays of several cores: which dimension is split, cycles, scratchpad bits, energy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwsim.arch import Architecture
from hwsim.cost.array import IntArray, array_cycles, ceil_div
from hwsim.cost.transfer import gather_cycles

FloatArray = npt.NDArray[np.float64]

SPLITS = ("n", "k", "m")
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
    mac_energy_pj: FloatArray
    """At the reference operating point."""


def product_costs(arch: Architecture, fmt: str, products: Products) -> ProductCosts:
    """Cost products that are computed in the native format `fmt`, each split the way that is fastest.

    Over the cores of a group and over the arrays of a core, n, k or m is split in equal parts (the largest
    part counts). Splitting k over cores adds partial sums of 4 bytes on the interconnect; arrays of one core
    add theirs on the way out. Of equally fast ways the first of n, k, m is taken.
    """
    arrays = arch.array.arrays_per_core.value
    best: list[IntArray] | None = None
    for core_split, core_dim in enumerate(SPLITS):
        for array_dim in SPLITS:
            option = _option(arch, fmt, products, core_split, core_dim, array_dim, arrays)
            if best is None:
                best = option
            else:
                better = option[0] < best[0]
                best = [np.where(better, new, old) for new, old in zip(option, best, strict=True)]
    assert best is not None
    _, stream, load, overhead, reduce_bytes, core_split_index, tiles_n, blocks_k = best
    array_format = arch.array.formats[fmt]
    macs = products.m * products.k * products.n * products.batch
    outputs = products.m * products.n * products.batch
    copies = np.where(core_split_index == SPLITS.index("m"), products.cores, 1)
    weights = products.k * products.n * products.batch * products.weight_bits * copies
    activations = products.m * products.k * products.batch * products.activation_bits * tiles_n
    sums = outputs * array_format.accumulator_bits.value
    return ProductCosts(
        stream, load, overhead, reduce_bytes, core_split_index,
        scratchpad_read_bits=(weights + activations + sums * (blocks_k - 1)).astype(np.float64),
        scratchpad_write_bits=(sums * blocks_k).astype(np.float64),
        mac_energy_pj=macs.astype(np.float64) * array_format.energy_pj_per_mac.value,
    )  # fmt: skip


def _option(arch: Architecture, fmt: str, p: Products, core_split: int, core_dim: str, array_dim: str,
            arrays: int) -> list[IntArray]:  # fmt: skip
    """One way to split: time to compare, cycle parts, reduction bytes, split, passes over the operands."""
    array, array_format = arch.array, arch.array.formats[fmt]
    parts = {dim: np.where(core_dim == dim, p.cores, 1) * (arrays if array_dim == dim else 1) for dim in SPLITS}
    share = {dim: ceil_div(getattr(p, dim), parts[dim]) for dim in SPLITS}
    element_bits = np.maximum(p.weight_bits, 1)
    cycles = array_cycles(array, array_format, element_bits, share["m"], share["k"], share["n"])
    tiles_n = ceil_div(share["n"], array_format.outputs_per_cycle) * parts["n"]
    if array.weight_blocks is not None:
        block_bits = 8 * array.weight_blocks.register_block_bytes.value
        depth = np.maximum(block_bits // (array_format.outputs_per_cycle * element_bits), array_format.inner_per_cycle)
    else:
        depth = np.full_like(p.m, array_format.inner_per_cycle)
    blocks_k = ceil_div(share["k"], depth) * parts["k"]
    reduce_bytes = p.m * p.n * p.batch * PARTIAL_SUM_BYTES * (p.cores > 1) * int(core_dim == "k")
    time = cycles.total * p.batch + gather_cycles(arch, reduce_bytes)
    if core_dim == "m":
        time = np.where((p.cores > 1) & ~p.copies_allowed, np.iinfo(np.int64).max, time)
    split = np.full_like(p.m, core_split)
    return [time, cycles.stream * p.batch, cycles.load * p.batch, cycles.overhead * p.batch, reduce_bytes, split,
            tiles_n, blocks_k]  # fmt: skip
