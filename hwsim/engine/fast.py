"""The compiled engine: the rules of `TaskGraph` as a heap over ready times.

In-order units and ring buffers become edges between tasks before the run, so that only the order in which
channels serve their requests is decided in it.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from hwsim.engine.tasks import Schedule, TaskGraph
from hwsim.errors import HwsimError


def run_fast(graph: TaskGraph) -> Schedule:
    """Run a task graph. Raises HwsimError when tasks wait for each other for ever."""
    order_ptr, order = graph.order
    ready, start, done = _run(
        graph.duration,
        graph.latency,
        graph.channel,
        len(graph.channels),
        graph.dep_ptr,
        graph.dep,
        order_ptr,
        order,
    )
    if done != len(graph):
        raise HwsimError(f"{len(graph) - done} of {len(graph)} tasks wait for each other; a ring buffer is never freed")
    release = start + graph.duration
    return Schedule(ready, start, release, release + graph.latency)


@njit(cache=True)
def _successors(pointer, values, count):  # type: ignore[no-untyped-def]
    out_ptr = np.zeros(count + 1, np.int64)
    for value in values:
        out_ptr[value + 1] += 1
    for task in range(count):
        out_ptr[task + 1] += out_ptr[task]
    out = np.empty(len(values), np.int64)
    filled = out_ptr[:-1].copy()
    for task in range(count):
        for at in range(pointer[task], pointer[task + 1]):
            source = values[at]
            out[filled[source]] = task
            filled[source] += 1
    return out_ptr, out


@njit(cache=True)
def _push(heap, size, key):  # type: ignore[no-untyped-def]
    at = size
    while at > 0:
        parent = (at - 1) >> 1
        if heap[parent] <= key:
            break
        heap[at] = heap[parent]
        at = parent
    heap[at] = key
    return size + 1


@njit(cache=True)
def _pop(heap, size):  # type: ignore[no-untyped-def]
    top = heap[0]
    size -= 1
    key = heap[size]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = key
    return top, size


@njit(cache=True)
def _run(duration, latency, channel, channels, dep_ptr, dep, order_ptr, order):  # type: ignore[no-untyped-def]
    count = len(duration)
    after_end_ptr, after_end = _successors(dep_ptr, dep, count)
    after_release_ptr, after_release = _successors(order_ptr, order, count)
    missing = np.empty(count, np.int64)
    ready = np.zeros(count, np.int64)
    start = np.zeros(count, np.int64)
    free = np.zeros(max(channels, 1), np.int64)
    heap = np.empty(count, np.int64)
    size = 0
    for task in range(count):
        missing[task] = dep_ptr[task + 1] - dep_ptr[task] + order_ptr[task + 1] - order_ptr[task]
        if missing[task] == 0:
            size = _push(heap, size, np.int64(task))
    done = 0
    while size > 0:
        key, size = _pop(heap, size)
        task = key % count
        begin = ready[task]
        line = channel[task]
        if line >= 0:
            begin = max(begin, free[line])
            free[line] = begin + duration[task]
        start[task] = begin
        done += 1
        released = begin + duration[task]
        ended = released + latency[task]
        for at in range(after_release_ptr[task], after_release_ptr[task + 1]):
            other = after_release[at]
            ready[other] = max(ready[other], released)
            missing[other] -= 1
            if missing[other] == 0:
                size = _push(heap, size, ready[other] * count + other)
        for at in range(after_end_ptr[task], after_end_ptr[task + 1]):
            other = after_end[at]
            ready[other] = max(ready[other], ended)
            missing[other] -= 1
            if missing[other] == 0:
                size = _push(heap, size, ready[other] * count + other)
    return ready, start, done
