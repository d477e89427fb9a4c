"""Costs of the distinct operations of a trace on one machine: cycles by cause, bytes, dynamic energy."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any

import numpy as np

from hwsim.arch import Architecture
from hwsim.cost.array import IntArray
from hwsim.cost.classes import OperationClasses, operand_formats, operation_classes
from hwsim.cost.mapping import AnalogMapping
from hwsim.cost.matmul import FloatArray, Products, memory_energy_pj, product_costs
from hwsim.cost.storage import weight_storage
from hwsim.cost.tiles import (
    beside_tiles,
    expansion_energy_pj,
    folded_lookups,
    gate_cycles,
    mvm_cycles,
    mvm_energy_pj,
    on_tiles,
    peak_macs_per_cycle,
)
from hwsim.cost.vector import function_counts, vector_cycles, vector_energy_pj
from hwsim.numerics.formats import NumberFormat, mac_format
from hwsim.trace import Kind, Trace

ARRAY_KINDS = (Kind.MATMUL, Kind.CONV1D, Kind.CONV2D)


class Unit(IntEnum):
    """Where an operation runs."""

    NONE = 0
    ARRAY = 1
    VECTOR = 2
    HOST = 3
    LINK_IN = 4
    LINK_OUT = 5
    DRAM_IN = 6
    DRAM_OUT = 7
    TILES = 8
    PERIPHERY = 9


@dataclass(frozen=True)
class ClassCosts:
    """One entry per operation class; energies in pJ at the selected operating point, without DRAM and leakage."""

    unit: IntArray
    cores: IntArray
    """Cores that work on it together."""
    cycles: IntArray
    """Time on its unit: the sum of the three below, or the vector unit's, host's or link's time."""
    stream_cycles: IntArray
    load_cycles: IntArray
    overhead_cycles: IntArray
    latency_cycles: IntArray
    """From the end of its time on the unit until its result may be used."""
    reduce_bytes: IntArray
    copied_bytes: IntArray
    """Moved by STATE_IN, STATE_OUT and SEND."""
    mac_pj: FloatArray
    """MACs and the decoding of their weights."""
    analog_pj: FloatArray
    """Products on analog tiles."""
    vector_pj: FloatArray
    scratchpad_pj: FloatArray
    host_pj: FloatArray
    link_pj: FloatArray
    peak_macs_per_cycle: FloatArray
    """Of all cores in the format of the operation; 0 for operations that no array computes."""
    multicast: IntArray
    """1 where every core needs all of the weights (m is split)."""

    @property
    def dynamic_pj(self) -> FloatArray:
        """Sum of the energies."""
        return self.mac_pj + self.analog_pj + self.vector_pj + self.scratchpad_pj + self.host_pj + self.link_pj


def class_costs(
    arch: Architecture, trace: Trace, resident: IntArray, mapping: AnalogMapping | None = None
) -> ClassCosts:
    """Cost every operation class of `trace` on `arch`; `resident` is 1 for each tensor that stays on chip.

    `mapping`: what lies on analog tiles. Raises HwsimError for a format that the machine cannot compute.
    """
    classes = operation_classes(trace)
    count = len(classes.kind)
    costs = _no_costs(count)
    cores = arch.cores.value
    costs.cores[:] = np.where(classes.halved == 1, max(1, cores // 2), cores)
    busy = classes.m > 0
    formats = [NumberFormat.parse(t.format) for t in trace.tensors]
    digital = np.isin(classes.kind, ARRAY_KINDS) & ~on_tiles(classes, mapping)
    _cost_products(arch, trace, classes, resident, costs, busy & digital)
    _cost_vector(arch, classes, formats, costs, busy)
    if mapping is not None:
        _cost_tiles(arch, trace, classes, mapping, costs, busy)
    control, launch = (np.flatnonzero(busy & (classes.kind == kind)) for kind in (Kind.HOST, Kind.LAUNCH))
    per_hypothesis = arch.host.per_hypothesis_s.value * classes.m[control].astype(np.float64)
    _cost_host(arch, costs, control, arch.host.per_step_s.value + per_hypothesis)
    if not arch.host.persistent_kernel:
        _cost_host(arch, costs, launch, np.full(len(launch), arch.host.per_launch_s.value))
        costs.latency_cycles[launch] = round(arch.host.link_latency_s.value * arch.clock_hz)
    else:
        costs.latency_cycles[control] = round(arch.host.link_latency_s.value * arch.clock_hz)
    _cost_copies(arch, trace, classes, formats, costs, busy)
    costs.cycles[:] += costs.stream_cycles + costs.load_cycles + costs.overhead_cycles
    return costs


def _no_costs(count: int) -> ClassCosts:
    columns: dict[str, Any] = {}
    for column in fields(ClassCosts):
        is_float = column.name.endswith("_pj") or column.name == "peak_macs_per_cycle"
        columns[column.name] = np.zeros(count, dtype=np.float64 if is_float else np.int64)
    return ClassCosts(**columns)


def _cost_products(arch: Architecture, trace: Trace, classes: OperationClasses, resident: IntArray,
                   costs: ClassCosts, chosen: np.ndarray) -> None:  # fmt: skip
    """Fill in the classes that multiply and accumulate, one number format at a time."""
    operands = operand_formats(trace)
    names = np.full(len(chosen), "", dtype=object)
    second: dict[int, NumberFormat] = {}
    bits = np.zeros((len(chosen), 2), dtype=np.int64)
    for i in np.flatnonzero(chosen).tolist():
        pair = operands[i]
        assert pair is not None
        names[i] = arch.compute_format(mac_format(*pair))
        bits[i] = pair[0].code_bits, pair[1].code_bits
        second[i] = pair[0]
    for name in sorted(set(names[chosen])):
        at = np.flatnonzero(names == name)
        weight = classes.weight[at]
        free = (weight < 0) | (resident[weight] == 0)
        products = Products(
            classes.m[at], classes.k[at], classes.n[at], classes.batch[at], costs.cores[at],
            bits[at, 0], bits[at, 1], free, weight_storage(arch, [second[i] for i in at.tolist()], name),
        )  # fmt: skip
        found = product_costs(arch, name, products)
        costs.unit[at] = Unit.ARRAY
        costs.stream_cycles[at] = found.stream_cycles
        costs.load_cycles[at] = found.load_cycles
        costs.overhead_cycles[at] = found.overhead_cycles
        costs.reduce_bytes[at] = found.reduce_bytes
        costs.multicast[at] = found.core_split == 2
        costs.mac_pj[at] = (found.mac_energy_pj + found.decode_energy_pj) * arch.logic_energy_scale
        costs.scratchpad_pj[at] = memory_energy_pj(arch, found)
        # MACs of a trace are dense ones: an array that skips zeros does more of them in a cycle.
        costs.peak_macs_per_cycle[at] = arch.macs_per_cycle(name) * (products.k / products.computed_k)


def _cost_vector(arch: Architecture, classes: OperationClasses, formats: list[NumberFormat], costs: ClassCosts,
                 busy: np.ndarray) -> None:  # fmt: skip
    counts = function_counts(classes)
    at = np.flatnonzero(busy & (counts.sum(axis=1) > 0))
    costs.unit[at] = Unit.VECTOR
    costs.cycles[at] = vector_cycles(arch.vector, counts[at], costs.cores[at])
    costs.overhead_cycles[at] = arch.vector.latency_cycles.value
    costs.vector_pj[at] = vector_energy_pj(arch.vector, counts[at]) * arch.logic_energy_scale
    bits = np.array([f.code_bits for f in formats] + [0], dtype=np.int64)[classes.activation[at]]
    moved = 2 * classes.m[at] * classes.n[at] * bits
    costs.scratchpad_pj[at] = moved * arch.memory.scratchpad.read_energy_pj_per_bit.value * arch.sram_energy_scale


def _cost_tiles(arch: Architecture, trace: Trace, classes: OperationClasses, mapping: AnalogMapping,
                costs: ClassCosts, busy: np.ndarray) -> None:  # fmt: skip
    """Products on tiles, a row after another; gate functions beside them, as much energy as in the vector unit."""
    for matrix in mapping.matrices:
        at = np.flatnonzero(busy & (classes.weight == matrix.tensor))
        costs.unit[at] = Unit.TILES
        costs.cycles[at] = classes.m[at] * mvm_cycles(arch, matrix)
        costs.analog_pj[at] = classes.m[at] * mvm_energy_pj(arch, mapping, matrix)
        costs.mac_pj[at] = classes.m[at] * expansion_energy_pj(arch, matrix)
        costs.peak_macs_per_cycle[at] = peak_macs_per_cycle(arch, matrix)
    looked_up = np.flatnonzero(busy & folded_lookups(classes, mapping))
    costs.unit[looked_up] = Unit.NONE
    for column in (costs.cycles, costs.overhead_cycles, costs.vector_pj, costs.scratchpad_pj):
        column[looked_up] = 0
    gates = np.flatnonzero(busy & beside_tiles(trace, classes, mapping))
    costs.unit[gates] = Unit.PERIPHERY
    costs.cycles[gates] = gate_cycles(arch, classes)[gates]
    costs.overhead_cycles[gates] = 0


def _cost_host(arch: Architecture, costs: ClassCosts, at: IntArray, seconds: FloatArray) -> None:
    costs.unit[at] = Unit.HOST
    costs.cycles[at] = np.ceil(seconds * arch.clock_hz).astype(np.int64)
    costs.host_pj[at] = seconds * arch.host.power_w.value * 1e12


def _copied_bits(trace: Trace, classes: OperationClasses, bits: IntArray, at: IntArray, write: bool) -> IntArray:
    """Bits of the tensors that the operations of some classes read, or write."""
    found = np.zeros(len(at), dtype=np.int64)
    for i, operation in enumerate(classes.example[at]):
        operands = slice(trace.operand_ptr[operation], trace.operand_ptr[operation + 1])
        chosen = trace.operand_write[operands] == int(write)
        found[i] = (trace.operand_elements[operands] * bits[trace.operand_tensor[operands]])[chosen].sum()
    return found


def _cost_copies(arch: Architecture, trace: Trace, classes: OperationClasses, formats: list[NumberFormat],
                 costs: ClassCosts, busy: np.ndarray) -> None:  # fmt: skip
    """State goes over the link when the host keeps it, else to DRAM; scores always go over the link."""
    on_host = arch.host.state_cache == "host"
    units = {
        Kind.STATE_IN: Unit.LINK_IN if on_host else Unit.DRAM_IN,
        Kind.STATE_OUT: Unit.LINK_OUT if on_host else Unit.DRAM_OUT,
        Kind.SEND: Unit.LINK_OUT,
    }
    bits_of = np.array([f.code_bits for f in formats], dtype=np.int64)
    cycles_per_byte = arch.clock_hz / arch.host.link_bandwidth_bytes_per_s.value
    for kind, unit in units.items():
        at = np.flatnonzero(busy & (classes.kind == kind))
        bits = _copied_bits(trace, classes, bits_of, at, write=kind == Kind.STATE_IN)
        costs.unit[at] = unit
        costs.copied_bytes[at] = -(-bits // 8)
        if unit in (Unit.LINK_IN, Unit.LINK_OUT):
            costs.cycles[at] = np.ceil(costs.copied_bytes[at] * cycles_per_byte).astype(np.int64)
            costs.latency_cycles[at] = round(arch.host.link_latency_s.value * arch.clock_hz)
            costs.link_pj[at] = bits * arch.host.link_energy_pj_per_bit.value
