"""Why a run took as long as it did: the chain of tasks, each of which the next one waited for, back to cycle 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from hwsim.engine.tasks import IntArray, Schedule, TaskGraph


@dataclass(frozen=True)
class CriticalPath:
    """Tasks of the chain in time order; `busy + latency` of all adds up to the length of the run."""

    task: IntArray
    busy: IntArray
    """Cycles on its units or channel."""
    latency: IntArray
    """Cycles after them, where the next task waited for the result."""


def critical_path(graph: TaskGraph, schedule: Schedule) -> CriticalPath:
    """Walk back from the task that ends last. The same for both engines: it reads only the schedule."""
    order_ptr, order = graph.order
    path, busy, latency, before = (np.full(len(graph), -1, dtype=np.int64) for _ in range(4))
    for channel in range(len(graph.channels)):
        served = np.flatnonzero(graph.channel == channel)
        served = served[np.argsort(schedule.start[served], kind="stable")]
        before[served[1:]] = served[:-1]
    size = _walk(
        path, busy, latency, int(np.argmax(schedule.end)), before, schedule.ready, schedule.start, schedule.release,
        schedule.end, graph.dep_ptr, graph.dep, order_ptr, order,
    )  # fmt: skip
    return CriticalPath(path[:size][::-1], busy[:size][::-1], latency[:size][::-1])


@njit(cache=True)
def _walk(path, busy, latency, task, before, ready, start, release, end, dep_ptr, dep, order_ptr, order):  # type: ignore[no-untyped-def]
    """Write the chain that ends with `task`, last task first; return its length."""
    until = end[task]
    size = 0
    while task >= 0:
        path[size] = task
        busy[size] = min(until, release[task]) - start[task]
        latency[size] = max(until - release[task], 0)
        size += 1
        until = start[task]
        following = -1
        if until > ready[task]:
            following = before[task]
        elif until > 0:
            for at in range(dep_ptr[task], dep_ptr[task + 1]):
                if end[dep[at]] == until:
                    following = dep[at]
            if following < 0:
                for at in range(order_ptr[task], order_ptr[task + 1]):
                    if release[order[at]] == until:
                        following = order[at]
        task = following
    return size
