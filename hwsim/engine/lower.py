"""Operations become tasks: tiles that are loaded, computed and stored on the units of a machine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numba import njit

from hwsim.arch import Architecture
from hwsim.cost.classes import operation_classes
from hwsim.cost.operation import ClassCosts, Unit
from hwsim.cost.transfer import dram_rate, gather_cycles, gather_latency_cycles
from hwsim.engine.plan import Plan, passes, ring_bytes_per_core
from hwsim.engine.structure import IntArray, Structure, structure
from hwsim.engine.tasks import TaskGraph
from hwsim.numerics.formats import NumberFormat
from hwsim.trace import Trace


class TaskKind(IntEnum):
    """What a task does."""

    WAIT = 0
    WEIGHT_LOAD = 1
    ACTIVATION_LOAD = 2
    COMPUTE = 3
    VECTOR = 4
    HOST = 5
    LINK = 6
    EXCHANGE = 7
    STORE = 8


CORE_UNITS = ("array", "vector", "weight_dma", "activation_dma", "store_dma")
SHARED_UNITS = ("host", "link_in", "link_out")
DRAM, RING = 0, 1


@dataclass(frozen=True)
class Lowered:
    """A task graph, and for each task the operation and the kind of work."""

    graph: TaskGraph
    operation: IntArray
    kind: IntArray
    exchange_bytes: IntArray
    """Bytes that each operation puts on the interconnect."""
    weight_bytes: IntArray
    """DRAM reads of weights, per operation."""
    load_bytes: IntArray
    """DRAM reads of activations and state, per operation."""
    store_bytes: IntArray
    """DRAM writes, per operation."""


def lower(arch: Architecture, trace: Trace, plan: Plan, costs: ClassCosts) -> Lowered:
    """Lower every operation of a trace to tasks on the cores of its group."""
    s = structure(trace)
    of = operation_classes(trace).of_operation
    cores = arch.cores.value
    unit = costs.unit[of]
    group = np.where(s.halved == 1, max(1, cores // 2), cores)
    first_core = np.where((s.halved == 1) & (trace.columns["branch"] > 0) & (cores > 1), cores // 2, 0)
    spread = np.where(costs.multicast[of] == 1, 1, group)
    weight_ring, load_ring = ring_bytes_per_core(arch)
    weight_bytes, load_bytes = passes(plan, weight_ring * spread, load_ring * group)
    load_bytes = load_bytes + np.where(unit == Unit.DRAM_IN, costs.copied_bytes[of], 0)
    store_bytes = plan.store_bytes + np.where(unit == Unit.DRAM_OUT, costs.copied_bytes[of], 0)
    weight_tile, load_tile = np.maximum(weight_ring // 2, 1) * spread, np.maximum(load_ring // 2, 1) * group
    tiles = np.maximum(np.maximum(-(-weight_bytes // weight_tile), -(-load_bytes // load_tile)), 1)
    resident_tiles = -(-plan.resident_bytes // np.maximum(weight_ring // 2 * group, 1))
    gathered = _gathered_bytes(trace) + costs.reduce_bytes[of]
    exchange = gather_cycles(arch, gathered)
    per_tile = 1 + (weight_bytes > 0) + (load_bytes > 0) + (store_bytes > 0)
    size = int((tiles * per_tile + resident_tiles + (exchange > 0)).sum())
    clock, rate = dram_rate(arch)
    columns = _emit(
        size, cores, trace.dep_ptr, trace.dep, s.segment, unit, costs.cycles[of], costs.latency_cycles[of],
        first_core, group, spread, tiles, weight_bytes, load_bytes, store_bytes, plan.resident_bytes, resident_tiles,
        plan.resident_wait, _launches(arch, s), exchange, gather_latency_cycles(arch),
        np.array([clock, rate, arch.dram.burst_bytes.value, round(arch.dram.latency_s.value * arch.clock_hz)]),
    )  # fmt: skip
    duration, latency, channel, acquire, frees, operation, kind, unit_ptr, units, dep_ptr, deps = columns
    names = [f"core{c}.{name}" for name in CORE_UNITS for c in range(cores)] + list(SHARED_UNITS)
    rings = np.zeros(len(names), dtype=np.int64)
    rings[2 * cores : 3 * cores], rings[3 * cores : 4 * cores] = weight_ring, load_ring
    graph = TaskGraph(tuple(names), rings, ("dram", "ring"), duration, latency, channel, acquire, frees,
                      unit_ptr, units, dep_ptr, deps)  # fmt: skip
    return Lowered(graph, operation, kind, gathered, weight_bytes + plan.resident_bytes, load_bytes, store_bytes)


def _launches(arch: Architecture, s: Structure) -> IntArray:
    """The LAUNCH operation that each operation's weights wait for; -1 for none."""
    return np.full_like(s.launch, -1) if arch.host.persistent_kernel else s.launch


def _gathered_bytes(trace: Trace) -> IntArray:
    """Bytes that an operation writes to tensors which a matrix product contracts, so that all cores need them."""
    s = structure(trace)
    bits = np.array([NumberFormat.parse(t.format).code_bits for t in trace.tensors], dtype=np.int64)
    moved = trace.operand_elements[s.gathered] * bits[trace.operand_tensor[s.gathered]]
    total = np.zeros(len(trace), dtype=np.int64)
    np.add.at(total, s.gathered_owner, moved)
    return -(-total // 8)


@njit(cache=True)
def _share(total, part, parts):  # type: ignore[no-untyped-def]
    return (part + 1) * total // parts - part * total // parts


@njit(cache=True)
def _dram_cycles(size_bytes, dram):  # type: ignore[no-untyped-def]
    moved = max(size_bytes, dram[2])
    return max((moved * dram[0] + dram[1] - 1) // dram[1], 1)


@njit(cache=True)
def _emit(  # type: ignore[no-untyped-def]
          size, cores, op_dep_ptr, op_dep, segment, unit, cycles, op_latency, first_core, group, spread, tiles,
          weight_bytes, load_bytes, store_bytes, resident_bytes, resident_tiles, resident_wait, launch, exchange,
          exchange_latency, dram):  # fmt: skip
    count = len(unit)
    duration, latency = np.zeros(size, np.int64), np.zeros(size, np.int64)
    channel, acquire, frees = (
        np.full(size, -1, np.int64),
        np.zeros(size, np.int64),
        np.full((size, 2), -1, np.int64),
    )
    operation, kind = np.zeros(size, np.int64), np.zeros(size, np.int64)
    unit_ptr, dep_ptr = np.zeros(size + 1, np.int64), np.zeros(size + 1, np.int64)
    units = np.empty(size * max(cores, 1), np.int64)
    deps = np.empty(5 * size + 3 * len(op_dep), np.int64)
    computed, stored = np.zeros(count, np.int64), np.zeros(count, np.int64)
    t, nu, nd = 0, 0, 0
    for op in range(count):
        a, b = op_dep_ptr[op], op_dep_ptr[op + 1]
        for part in range(resident_tiles[op]):
            duration[t] = _dram_cycles(_share(resident_bytes[op], part, resident_tiles[op]), dram)
            latency[t], channel[t], operation[t], kind[t] = dram[3], 0, op, 1
            for c in range(first_core[op], first_core[op] + group[op]):
                units[nu] = 2 * cores + c
                nu += 1
            if resident_wait[op] >= 0:
                deps[nd] = computed[resident_wait[op]]
                nd += 1
            t += 1
            unit_ptr[t], dep_ptr[t] = nu, nd
        resident_end = t
        n = tiles[op]
        for part in range(n):
            load_task, weight_task = -1, -1
            if load_bytes[op] > 0:
                moved = _share(load_bytes[op], part, n)
                duration[t] = _dram_cycles(moved, dram)
                latency[t], channel[t], operation[t], kind[t] = dram[3], 0, op, 2
                acquire[t] = -(-moved // group[op])
                for c in range(first_core[op], first_core[op] + group[op]):
                    units[nu] = 3 * cores + c
                    nu += 1
                for i in range(a, b):
                    if segment[op_dep[i]] != segment[op] or unit[op] == 6:
                        deps[nd] = stored[op_dep[i]]
                        nd += 1
                load_task = t
                t += 1
                unit_ptr[t], dep_ptr[t] = nu, nd
            if weight_bytes[op] > 0:
                moved = _share(weight_bytes[op], part, n)
                duration[t] = _dram_cycles(moved, dram)
                latency[t], channel[t], operation[t], kind[t] = dram[3], 0, op, 1
                acquire[t] = -(-moved // spread[op])
                for c in range(first_core[op], first_core[op] + group[op]):
                    units[nu] = 2 * cores + c
                    nu += 1
                if launch[op] >= 0:
                    deps[nd] = computed[launch[op]]
                    nd += 1
                weight_task = t
                t += 1
                unit_ptr[t], dep_ptr[t] = nu, nd
            operation[t] = op
            where = unit[op]
            if where == 1 or where == 2:
                kind[t] = 3 if where == 1 else 4
                duration[t] = _share(cycles[op], part, n)
                for c in range(first_core[op], first_core[op] + group[op]):
                    units[nu] = (where - 1) * cores + c
                    nu += 1
            elif where >= 3 and where <= 5:
                kind[t] = 5 if where == 3 else 6
                duration[t] = cycles[op]
                latency[t] = op_latency[op]
                units[nu] = 5 * cores + where - 3
                nu += 1
            if part == 0:
                for i in range(a, b):
                    deps[nd] = computed[op_dep[i]]
                    nd += 1
                if resident_tiles[op] > 0:
                    deps[nd] = resident_end - 1
                    nd += 1
            else:
                deps[nd] = computed[op]
                nd += 1
            if load_task >= 0:
                deps[nd] = load_task
                nd += 1
                frees[t, 0] = load_task
            if weight_task >= 0:
                deps[nd] = weight_task
                nd += 1
                frees[t, 1] = weight_task
            computed[op] = t
            stored[op] = t
            t += 1
            unit_ptr[t], dep_ptr[t] = nu, nd
            if store_bytes[op] > 0:
                duration[t] = _dram_cycles(_share(store_bytes[op], part, n), dram)
                latency[t], channel[t], operation[t], kind[t] = dram[3], 0, op, 8
                for c in range(first_core[op], first_core[op] + group[op]):
                    units[nu] = 4 * cores + c
                    nu += 1
                deps[nd] = t - 1
                nd += 1
                stored[op] = t
                t += 1
                unit_ptr[t], dep_ptr[t] = nu, nd
        if exchange[op] > 0:
            duration[t], latency[t], channel[t], operation[t], kind[t] = (
                exchange[op],
                exchange_latency,
                1,
                op,
                7,
            )
            deps[nd] = computed[op]
            nd += 1
            computed[op] = t
            t += 1
            unit_ptr[t], dep_ptr[t] = nu, nd
    return (duration[:t], latency[:t], channel[:t], acquire[:t], frees[:t], operation[:t], kind[:t],
            unit_ptr[: t + 1], units[:nu], dep_ptr[: t + 1], deps[:nd])  # fmt: skip
