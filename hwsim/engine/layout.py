"""Where the tasks of each operation stand in program order, and what each of them waits for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwsim.cost.operation import Unit
from hwsim.engine.plan import Plan
from hwsim.engine.structure import IntArray, structure
from hwsim.engine.tiles import grouped
from hwsim.trace import Trace


@dataclass(frozen=True)
class Operations:
    """What lowering needs to know of each operation; one entry each."""

    unit: IntArray
    first_core: IntArray
    group: IntArray
    """Cores that work on the operation."""
    spread: IntArray
    """Cores over which its weights are spread: its group, or 1 where each needs all of them."""
    tiles: IntArray
    weight_bytes: IntArray
    load_bytes: IntArray
    store_bytes: IntArray
    resident_tiles: IntArray
    launch: IntArray
    """LAUNCH operation that its streamed weights wait for, or -1."""
    gathered_bytes: IntArray
    exchange_cycles: IntArray


def ranges(first: IntArray, count: IntArray) -> tuple[IntArray, IntArray]:
    """CSR lists of the integers `first[i] ... first[i] + count[i] - 1`."""
    pointer = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(count)])
    return pointer, np.repeat(first - pointer[:-1], count) + np.arange(pointer[-1])


@dataclass(frozen=True)
class Layout:
    """Where the tasks of each operation and of each group of tiles stand in program order.

    Operation: resident loads, groups, exchange. Group: activation load, weight load, computation, store; what an
    operation does not need is left out. A group is one tile, unless there are very many.
    """

    size: int
    resident: IntArray
    """Tasks that load resident weights, and ..."""
    resident_op: IntArray
    resident_part: IntArray
    op: IntArray
    """Operation of each group."""
    part: IntArray
    first_tile: IntArray
    """First tile of each group, and how many it has."""
    size_tiles: IntArray
    load: IntArray
    """Activation load of each group; where there is none, a task that is not one. The masks below tell."""
    weight: IntArray
    compute: IntArray
    store: IntArray
    has_load: npt.NDArray[np.bool_]
    has_weight: npt.NDArray[np.bool_]
    has_store: npt.NDArray[np.bool_]
    exchange: IntArray
    """Exchange tasks, and ..."""
    exchange_op: IntArray
    computed: IntArray
    """Task whose end gives each operation's result on chip."""
    stored: IntArray
    """Task whose end gives it in DRAM, or on chip where it is not stored."""
    last_resident: IntArray
    """Last resident load of each operation, or -1."""

    @classmethod
    def of(cls, ops: Operations, most_tiles: int | None) -> Layout:
        """Lay out the tasks of all operations; the tiles of one that has more than `most_tiles` are grouped."""
        loads, weights, stores = (column > 0 for column in (ops.load_bytes, ops.weight_bytes, ops.store_bytes))
        gathers = ops.exchange_cycles > 0
        stride = 1 + loads + weights + stores
        groups = grouped(ops.tiles, most_tiles)
        counts = ops.resident_tiles + groups.count * stride + gathers
        first = np.cumsum(counts) - counts
        first_group = first + ops.resident_tiles
        _, resident = ranges(first, ops.resident_tiles)
        resident_op = np.repeat(np.arange(len(first)), ops.resident_tiles)
        op, part = groups.operation, groups.part
        load = first_group[op] + part * stride[op]
        weight = load + loads[op]
        compute = weight + weights[op]
        exchange_op = np.flatnonzero(gathers)
        last_compute = first_group + (groups.count - 1) * stride + loads + weights
        computed = np.where(gathers, first + counts - 1, last_compute)
        return cls(
            size=int(counts.sum()), resident=resident, resident_op=resident_op,
            resident_part=resident - first[resident_op], op=op, part=part, first_tile=groups.begin,
            size_tiles=groups.size, load=load, weight=weight, compute=compute, store=compute + 1,
            has_load=loads[op], has_weight=weights[op], has_store=stores[op],
            exchange=computed[exchange_op], exchange_op=exchange_op, computed=computed,
            stored=last_compute + stores, last_resident=np.where(ops.resident_tiles > 0, first_group - 1, -1),
        )  # fmt: skip


class Edges:
    """Collects what each task waits for, and gives it back as CSR lists."""

    def __init__(self, tasks: int) -> None:
        self._counts = np.zeros(tasks, dtype=np.int64)
        self._groups: list[tuple[IntArray, IntArray | None, IntArray | None, IntArray]] = []

    def add(self, tasks: IntArray, sources: IntArray) -> None:
        """Each of the (distinct) tasks waits for its source."""
        self._counts[tasks] += 1
        self._groups.append((tasks, None, None, sources))

    def add_lists(self, tasks: IntArray, first: IntArray, count: IntArray, sources: IntArray) -> None:
        """Each of the (distinct) tasks waits for `count` sources from `sources[first]` on."""
        self._counts[tasks] += count
        self._groups.append((tasks, first, count, sources))

    def lists(self) -> tuple[IntArray, IntArray]:
        """Pointer and sources of all tasks."""
        pointer = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(self._counts)])
        filled = pointer[:-1].copy()
        result = np.empty(pointer[-1], dtype=np.int64)
        for tasks, first, count, sources in self._groups:
            if first is None or count is None:
                result[filled[tasks]] = sources
                filled[tasks] += 1
            else:
                result[ranges(filled[tasks], count)[1]] = sources[ranges(first, count)[1]]
                filled[tasks] += count
        return pointer, result


def task_dependencies(trace: Trace, plan: Plan, ops: Operations, layout: Layout) -> tuple[IntArray, IntArray]:
    """CSR lists of the tasks that each task waits for.

    Computation waits for results on chip (`computed`), loads of activations for results of other segments in DRAM
    (`stored`), loads of weights for the launch of their network, resident ones for the room that they take.
    """
    edges = Edges(layout.size)
    for wait in plan.resident_wait[layout.resident_op].T:
        edges.add(layout.resident[wait >= 0], layout.computed[wait[wait >= 0]])
    op, compute = layout.op, layout.compute
    far_ptr, far = _far_dependencies(trace, ops)
    loading = layout.has_load
    edges.add_lists(layout.load[loading], far_ptr[op[loading]], np.diff(far_ptr)[op[loading]], layout.stored[far])
    launched = layout.has_weight & (ops.launch[op] >= 0)
    edges.add(layout.weight[launched], layout.computed[ops.launch[op[launched]]])
    edges.add(compute[loading], layout.load[loading])
    edges.add(compute[layout.has_weight], layout.weight[layout.has_weight])
    first = layout.part == 0
    edges.add(compute[~first], compute[np.flatnonzero(~first) - 1])
    resident = first & (layout.last_resident[op] >= 0)
    edges.add(compute[resident], layout.last_resident[op[resident]])
    edges.add_lists(compute[first], trace.dep_ptr[:-1], np.diff(trace.dep_ptr), layout.computed[trace.dep])
    edges.add(layout.store[layout.has_store], compute[layout.has_store])
    last = np.concatenate([first[1:], np.ones(1, dtype=bool)])
    edges.add(layout.exchange, compute[last][layout.exchange_op])
    return edges.lists()


def _far_dependencies(trace: Trace, ops: Operations) -> tuple[IntArray, IntArray]:
    """Per operation: its dependencies in other segments (all of them for state that comes from DRAM)."""
    segment = structure(trace).segment
    owner = np.repeat(np.arange(len(trace)), np.diff(trace.dep_ptr))
    far = (segment[trace.dep] != segment[owner]) | (ops.unit[owner] == Unit.DRAM_IN)
    counts = np.bincount(owner[far], minlength=len(trace))
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)]), trace.dep[far]
