"""Two engines, one meaning: equal to the cycle on any task graph, and in what they refuse."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from hwsim.engine.critical import critical_path
from hwsim.engine.event import run_event
from hwsim.engine.fast import run_fast
from hwsim.engine.tasks import Schedule, TaskGraph
from hwsim.errors import HwsimError
from tests.engine.strategies import task_graphs

COLUMNS = ("ready", "start", "release", "end")


def outcome(engine, graph: TaskGraph) -> Schedule | str:
    try:
        return engine(graph)
    except HwsimError as error:
        return str(error)


def same(one: Schedule, other: Schedule) -> bool:
    return all(np.array_equal(getattr(one, column), getattr(other, column)) for column in COLUMNS)


@settings(max_examples=150, deadline=None)
@given(task_graphs())
def test_fast_equals_event(graph: TaskGraph) -> None:
    graph.validate()
    assert same(run_fast(graph), run_event(graph))


@settings(max_examples=150, deadline=None)
@given(task_graphs(max_tasks=25, orderly=False))
def test_both_finish_or_both_refuse_with_the_same_words(graph: TaskGraph) -> None:
    graph.validate()
    fast, event = outcome(run_fast, graph), outcome(run_event, graph)
    if isinstance(fast, Schedule) and isinstance(event, Schedule):
        assert same(fast, event)
    else:
        assert fast == event


@settings(max_examples=150, deadline=None)
@given(task_graphs())
def test_the_critical_path_leads_from_the_last_end_to_cycle_0(graph: TaskGraph) -> None:
    schedule = run_fast(graph)
    path = critical_path(graph, schedule)
    assert int(path.busy.sum() + path.latency.sum()) == schedule.cycles
    assert schedule.end[path.task[-1]] == schedule.cycles
    assert np.all(path.busy <= graph.duration[path.task])
    assert np.all(path.latency <= graph.latency[path.task])


@settings(max_examples=60, deadline=None)
@given(task_graphs())
def test_a_schedule_keeps_the_rules(graph: TaskGraph) -> None:
    """In order and one at a time on every unit and channel, nothing before what it waits for."""
    s = run_fast(graph)
    assert np.all(s.start >= s.ready)
    assert np.array_equal(s.release, s.start + graph.duration)
    assert np.array_equal(s.end, s.release + graph.latency)
    owner = np.repeat(np.arange(len(graph)), np.diff(graph.dep_ptr))
    assert np.all(s.ready[owner] >= s.end[graph.dep])
    on_unit = np.repeat(np.arange(len(graph)), np.diff(graph.unit_ptr))
    for unit in range(len(graph.units)):
        program = on_unit[graph.unit == unit]
        assert np.all(s.ready[program[1:]] >= s.release[program[:-1]])
        if graph.ring_bytes[unit]:
            assert _most_held(graph, s, program) <= graph.ring_bytes[unit]
    for channel in range(len(graph.channels)):
        served = np.flatnonzero(graph.channel == channel)
        served = served[np.argsort(s.start[served])]
        assert np.all(s.start[served[1:]] >= s.release[served[:-1]])
        assert np.array_equal(served, served[np.lexsort((served, s.ready[served]))])


def _most_held(graph: TaskGraph, s: Schedule, program: np.ndarray) -> int:
    """Most ring bytes held at once by the tasks of a unit; each from its ready time until it is freed."""
    taken = program[graph.acquire[program] > 0]
    freed = {int(source): int(s.release[task]) for task in range(len(graph)) for source in graph.frees[task]}
    events = [(int(s.ready[task]), 1, int(graph.acquire[task])) for task in taken]
    events += [(freed.get(int(task), 2**62), 0, -int(graph.acquire[task])) for task in taken]
    held = np.cumsum([size for _, _, size in sorted(events)])
    return int(held.max(initial=0))
