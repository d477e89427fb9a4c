"""Operations become tasks: tiles that are loaded, computed and stored on the units of a machine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from hwsim.arch import Architecture
from hwsim.cost.classes import operation_classes
from hwsim.cost.operation import ClassCosts, Unit
from hwsim.cost.transfer import dram_rate, gather_cycles, gather_latency_cycles
from hwsim.engine.layout import Layout, Operations, ranges, task_dependencies
from hwsim.engine.plan import Plan, passes, ring_bytes_per_core
from hwsim.engine.stations import Stations
from hwsim.engine.structure import IntArray, structure
from hwsim.engine.tasks import TaskGraph
from hwsim.engine.tiles import MOST_TILES, held_tiles, share, sum_of_tiles
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
    ANALOG = 9


KIND_OF_UNIT = np.array([TaskKind.WAIT, TaskKind.COMPUTE, TaskKind.VECTOR, TaskKind.HOST, TaskKind.LINK,
                         TaskKind.LINK, TaskKind.WAIT, TaskKind.WAIT, TaskKind.ANALOG, TaskKind.VECTOR])  # fmt: skip
"""Kind of the task that does the work on each `Unit`; state in DRAM only waits for its transfer."""
CHANNELS = ("dram", "ring")
CORE_UNITS = ("array", "vector", "weight_dma", "activation_dma", "store_dma")
SHARED_UNITS = ("host", "link_in", "link_out")


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


def lower(arch: Architecture, trace: Trace, plan: Plan, costs: ClassCosts,
          most_tiles: int | None = MOST_TILES, stations: Stations | None = None) -> Lowered:  # fmt: skip
    """Lower every operation of a trace to tasks on the cores of its group.

    An operation first brings the weights that stay. It is computed in tiles: each waits for its part of the weights
    and activations that come from DRAM, frees their room in the ring buffers, and is followed by its part of the
    store. What a matrix product will contract is then gathered by all cores. An operation of more than `most_tiles`
    tiles is computed in groups of them (`hwsim.engine.tiles`), none with None.
    """
    ops = _operations(arch, trace, plan, costs)
    layout = Layout.of(ops, most_tiles)
    table = _TaskTable(layout.size)
    _write_transfers(arch, plan, ops, layout, table)
    _write_computation(arch, trace, costs, ops, layout, table)
    if stations is not None:
        _write_stations(arch, trace, costs, ops, layout, stations, table)
    dep_ptr, dep = task_dependencies(trace, plan, ops, layout)
    cores = arch.cores.value
    names = [f"core{core}.{name}" for name in CORE_UNITS for core in range(cores)] + list(SHARED_UNITS)
    names += stations.names if stations else ()
    rings = np.zeros(len(names), dtype=np.int64)
    for unit, size_bytes in zip(("weight_dma", "activation_dma"), ring_bytes_per_core(arch), strict=True):
        first = CORE_UNITS.index(unit) * cores
        rings[first : first + cores] = size_bytes
    unit_ptr, units = ranges(table.first_unit, table.units)
    graph = TaskGraph(
        tuple(names), rings, CHANNELS, table.duration, table.latency, table.channel, table.acquire, table.frees,
        unit_ptr, units, dep_ptr, dep,
    )  # fmt: skip
    weight_bytes = ops.weight_bytes + plan.resident_bytes
    return Lowered(
        graph, table.operation, table.kind, ops.gathered_bytes, weight_bytes, ops.load_bytes, ops.store_bytes
    )


def _operations(arch: Architecture, trace: Trace, plan: Plan, costs: ClassCosts) -> Operations:
    s = structure(trace)
    of = operation_classes(trace).of_operation
    cores = arch.cores.value
    unit = costs.unit[of]
    group = np.where(s.halved == 1, max(1, cores // 2), cores)
    second_half = (s.halved == 1) & (trace.columns["branch"] > 0) & (cores > 1)
    spread = np.where(costs.multicast[of] == 1, 1, group)
    weight_ring, load_ring = ring_bytes_per_core(arch)
    weight_bytes, load_bytes = passes(plan, weight_ring * spread, load_ring * group)
    load_bytes = load_bytes + np.where(unit == Unit.DRAM_IN, costs.copied_bytes[of], 0)
    weight_tiles = -(-weight_bytes // (max(weight_ring // 2, 1) * spread))
    load_tiles = -(-load_bytes // (max(load_ring // 2, 1) * group))
    gathered = _gathered_bytes(trace) + costs.reduce_bytes[of]
    return Operations(
        unit=unit,
        first_core=np.where(second_half, cores // 2, 0),
        group=group,
        spread=spread,
        tiles=np.maximum(np.maximum(weight_tiles, load_tiles), 1),
        weight_bytes=weight_bytes,
        load_bytes=load_bytes,
        store_bytes=plan.store_bytes + np.where(unit == Unit.DRAM_OUT, costs.copied_bytes[of], 0),
        resident_tiles=-(-plan.resident_bytes // (max(weight_ring // 2, 1) * group)),
        launch=np.full_like(s.launch, -1) if arch.host.persistent_kernel else s.launch,
        gathered_bytes=gathered,
        exchange_cycles=gather_cycles(arch, gathered),
    )


def _gathered_bytes(trace: Trace) -> IntArray:
    """Bytes that an operation writes to tensors which a matrix product contracts, so that all cores need them."""
    s = structure(trace)
    bits = np.array([NumberFormat.parse(t.format).code_bits for t in trace.tensors], dtype=np.int64)
    moved = trace.operand_elements[s.gathered] * bits[trace.operand_tensor[s.gathered]]
    total = np.zeros(len(trace), dtype=np.int64)
    np.add.at(total, s.gathered_owner, moved)
    return np.asarray(-(-total // 8))


class _TaskTable:
    """Columns of tasks that are still to be written: no units, no channel, nothing to free."""

    def __init__(self, size: int) -> None:
        self.duration, self.latency, self.acquire, self.operation, self.kind, self.first_unit, self.units = (
            np.zeros(size, dtype=np.int64) for _ in range(7)
        )
        self.channel = np.full(size, -1, dtype=np.int64)
        self.frees = np.full((size, 2), -1, dtype=np.int64)


def _write_transfers(arch: Architecture, plan: Plan, ops: Operations, layout: Layout, table: _TaskTable) -> None:
    """Loads and stores: DRAM time of their bytes, on the DMA units of the cores of the group."""
    clock, rate = dram_rate(arch)
    latency = round(arch.dram.latency_s.value * arch.clock_hz)

    def cycles(size_bytes: IntArray) -> IntArray:
        return np.asarray(-(-np.maximum(size_bytes, arch.dram.burst_bytes.value) * clock // rate))

    def write(task: IntArray, op: IntArray, kind: TaskKind, dma: str, duration: IntArray) -> None:
        table.duration[task], table.latency[task] = duration, latency
        table.channel[task] = CHANNELS.index("dram")
        table.operation[task], table.kind[task] = op, kind
        table.first_unit[task] = CORE_UNITS.index(dma) * arch.cores.value + ops.first_core[op]
        table.units[task] = ops.group[op]

    r = layout.resident_op
    size_bytes = share(plan.resident_bytes[r], layout.resident_part, np.ones_like(r), ops.resident_tiles[r])
    write(layout.resident, r, TaskKind.WEIGHT_LOAD, "weight_dma", cycles(size_bytes))
    for mask, tasks, kind, dma, column, spread in (
        (layout.has_load, layout.load, TaskKind.ACTIVATION_LOAD, "activation_dma", ops.load_bytes, ops.group),
        (layout.has_weight, layout.weight, TaskKind.WEIGHT_LOAD, "weight_dma", ops.weight_bytes, ops.spread),
        (layout.has_store, layout.store, TaskKind.STORE, "store_dma", ops.store_bytes, None),
    ):
        task, op = tasks[mask], layout.op[mask]
        begin, size, tiles = layout.first_tile[mask], layout.size_tiles[mask], ops.tiles[op]
        write(task, op, kind, dma, sum_of_tiles(cycles, column[op], begin, size, tiles))
        if spread is not None:
            ring_bytes = ring_bytes_per_core(arch)[int(kind == TaskKind.ACTIVATION_LOAD)]
            tile_bytes = -(-column[op] // (tiles * spread[op]))
            held = held_tiles(tile_bytes, ring_bytes, size)
            single_bytes = -(-share(column[op], begin, size, tiles) // spread[op])
            table.acquire[task] = np.where(size == 1, single_bytes, held * tile_bytes)
            table.latency[task] = latency * size // held
            table.frees[layout.compute[mask], int(kind == TaskKind.WEIGHT_LOAD)] = task


def _write_computation(arch: Architecture, trace: Trace, costs: ClassCosts, ops: Operations, layout: Layout,
                       table: _TaskTable) -> None:  # fmt: skip
    """The work of each tile on its unit, and the exchange of the result."""
    of = operation_classes(trace).of_operation
    op, task, cores = layout.op, layout.compute, arch.cores.value
    unit = ops.unit[op]
    table.operation[task] = op
    table.kind[task] = KIND_OF_UNIT[unit]
    cycles = costs.cycles[of][op]
    on_cores, on_shared = (unit == Unit.ARRAY) | (unit == Unit.VECTOR), (unit >= Unit.HOST) & (unit <= Unit.LINK_OUT)
    part = share(cycles, layout.first_tile, layout.size_tiles, ops.tiles[op])
    table.duration[task] = np.where(on_cores | on_shared, part, 0)
    table.latency[task] = np.where(on_shared, costs.latency_cycles[of][op] * layout.size_tiles, 0)
    core_unit = (unit - Unit.ARRAY) * cores + ops.first_core[op]
    shared_unit = len(CORE_UNITS) * cores + unit - Unit.HOST
    table.first_unit[task] = np.where(on_cores, core_unit, shared_unit)
    table.units[task] = np.where(on_cores, ops.group[op], on_shared)
    gather, owner = layout.exchange, layout.exchange_op
    table.duration[gather] = ops.exchange_cycles[owner]
    table.latency[gather] = gather_latency_cycles(arch)
    table.channel[gather] = CHANNELS.index("ring")
    table.operation[gather], table.kind[gather] = owner, TaskKind.EXCHANGE


def _write_stations(arch: Architecture, trace: Trace, costs: ClassCosts, ops: Operations, layout: Layout,
                    stations: Stations, table: _TaskTable) -> None:  # fmt: skip
    """The work of analog tiles and of the gates beside them, each on its own unit."""
    chosen = np.flatnonzero(stations.station[layout.op] >= 0)
    op, task = layout.op[chosen], layout.compute[chosen]
    cycles = costs.cycles[operation_classes(trace).of_operation][op]
    part = share(cycles, layout.first_tile[chosen], layout.size_tiles[chosen], ops.tiles[op])
    table.duration[task] = part + np.where(layout.part[chosen] == 0, stations.programming_cycles[op], 0)
    first = len(CORE_UNITS) * arch.cores.value + len(SHARED_UNITS)
    table.first_unit[task], table.units[task] = first + stations.station[op], 1
