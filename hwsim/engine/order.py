"""In-order units and ring buffers as edges between tasks, which the compiled engine and the critical path read."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def order_edges(unit_ptr, unit, units, ring_bytes, acquire, frees):  # type: ignore[no-untyped-def]
    """The task before on each unit, and the tasks that free the ring bytes which a task takes again.

    A task that needs ring bytes which nothing frees waits for itself, which the engines report.
    """
    count = len(acquire)
    freed_by = np.full(count, -1, np.int64)
    for task in range(count):
        for source in frees[task]:
            if source >= 0:
                freed_by[source] = task
    before = np.full(units, -1, np.int64)
    oldest = np.zeros(units, np.int64)
    filled = np.zeros(units, np.int64)
    held = np.zeros(units, np.int64)
    slots = np.zeros(units, np.int64)
    for task in range(count):
        if acquire[task] > 0:
            for at in range(unit_ptr[task], unit_ptr[task + 1]):
                slots[unit[at]] += 1
    first_slot = np.zeros(units + 1, np.int64)
    for u in range(units):
        first_slot[u + 1] = first_slot[u] + slots[u]
    ring = np.empty(first_slot[units], np.int64)
    pointer = np.zeros(count + 1, np.int64)
    values = np.empty(len(unit) + first_slot[units], np.int64)
    size = 0
    for task in range(count):
        begin = size
        for at in range(unit_ptr[task], unit_ptr[task + 1]):
            u = unit[at]
            if before[u] >= 0:
                size = _add(values, begin, size, before[u])
            before[u] = task
            if acquire[task] > 0 and ring_bytes[u] > 0:
                while held[u] + acquire[task] > ring_bytes[u]:
                    popped = ring[first_slot[u] + oldest[u]]
                    oldest[u] += 1
                    held[u] -= acquire[popped]
                    size = _add(values, begin, size, task if freed_by[popped] < 0 else freed_by[popped])
                ring[first_slot[u] + filled[u]] = task
                filled[u] += 1
                held[u] += acquire[task]
        pointer[task + 1] = size
    return pointer, values[:size].copy()


@njit(cache=True, inline="always")
def _add(values, begin, size, value):  # type: ignore[no-untyped-def]
    for i in range(begin, size):
        if values[i] == value:
            return size
    values[size] = value
    return size + 1
