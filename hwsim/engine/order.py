"""In-order units and ring buffers as edges between tasks, which the compiled engine and the critical path read."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

IntArray = npt.NDArray[np.int64]


def order_edges(unit_ptr: IntArray, unit: IntArray, ring_bytes: IntArray, acquire: IntArray,
                frees: IntArray) -> tuple[IntArray, IntArray]:  # fmt: skip
    """The task before on each unit, and the tasks that free the ring bytes which a task takes again: CSR lists.

    A task that needs ring bytes which nothing frees waits for itself, which the engines report.
    """
    count, units = len(acquire), len(ring_bytes)
    freed_by = np.full(count, -1, dtype=np.int64)
    task, column = np.nonzero(frees >= 0)
    freed_by[frees[task, column]] = task
    taking = np.repeat(acquire > 0, np.diff(unit_ptr))
    slots = np.bincount(unit[taking], minlength=units)
    first_slot = np.cumsum(slots) - slots
    pointer = np.zeros(count + 1, dtype=np.int64)
    values = np.empty(len(unit) + int(slots.sum()), dtype=np.int64)
    ring = np.empty(int(slots.sum()), dtype=np.int64)
    state = np.zeros((4, units), dtype=np.int64)
    state[0] = -1
    _fill(pointer, values, ring, state, first_slot, unit_ptr, unit, ring_bytes, acquire, freed_by)
    return pointer, values[: pointer[-1]]


@njit(cache=True)
def _fill(pointer, values, ring, state, first_slot, unit_ptr, unit, ring_bytes, acquire, freed_by):  # type: ignore[no-untyped-def]
    before, oldest, filled, held = state[0], state[1], state[2], state[3]
    size = 0
    for task in range(len(acquire)):
        begin = size
        for at in range(unit_ptr[task], unit_ptr[task + 1]):
            u = unit[at]
            if before[u] >= 0:
                size = _add(values, begin, size, before[u])
            before[u] = task
            if acquire[task] == 0 or ring_bytes[u] == 0:
                continue
            while held[u] + acquire[task] > ring_bytes[u]:
                popped = ring[first_slot[u] + oldest[u]]
                oldest[u] += 1
                held[u] -= acquire[popped]
                size = _add(values, begin, size, task if freed_by[popped] < 0 else freed_by[popped])
            ring[first_slot[u] + filled[u]] = task
            filled[u] += 1
            held[u] += acquire[task]
        pointer[task + 1] = size


@njit(cache=True)
def _add(values, begin, size, value):  # type: ignore[no-untyped-def]
    for i in range(begin, size):
        if values[i] == value:
            return size
    values[size] = value
    return size + 1
