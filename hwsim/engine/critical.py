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
    served = np.flatnonzero(graph.channel >= 0)
    served = served[np.argsort(schedule.start[served], kind="stable")]
    task, busy, latency = _walk(
        served, schedule.ready, schedule.start, schedule.release, schedule.end, graph.channel, len(graph.channels),
        graph.dep_ptr, graph.dep, order_ptr, order,
    )  # fmt: skip
    return CriticalPath(task, busy, latency)


@njit(cache=True)
def _walk(served, ready, start, release, end, channel, channels, dep_ptr, dep, order_ptr, order):  # type: ignore[no-untyped-def]
    count = len(start)
    before = np.full(count, -1, np.int64)
    last = np.full(max(channels, 1), -1, np.int64)
    for task in served:
        before[task] = last[channel[task]]
        last[channel[task]] = task
    path = np.empty(count, np.int64)
    busy = np.empty(count, np.int64)
    latency = np.empty(count, np.int64)
    task = np.argmax(end)
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
    return path[:size][::-1].copy(), busy[:size][::-1].copy(), latency[:size][::-1].copy()
