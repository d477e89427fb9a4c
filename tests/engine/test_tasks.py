"""Small task graphs whose every event is known, and the graphs that are refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from hwsim.engine.critical import critical_path
from hwsim.engine.event import run_event
from hwsim.engine.fast import run_fast
from hwsim.engine.tasks import Schedule, TaskGraph
from hwsim.errors import HwsimError
from tests.engine.strategies import csr

ENGINES = pytest.mark.parametrize("engine", [run_fast, run_event])
Engine = Callable[[TaskGraph], Schedule]


@dataclass(frozen=True)
class Task:
    """One task, by names of units and tasks."""

    name: str
    on: Sequence[str] = ()
    cycles: int = 0
    latency: int = 0
    channel: str = ""
    after: Sequence[str] = ()
    takes: int = 0
    frees: Sequence[str] = ()


def graph(units: dict[str, int], *tasks: Task) -> TaskGraph:
    """A graph of tasks on units, each with the bytes of its ring buffer."""
    names, unit_names = [task.name for task in tasks], list(units)
    channels = sorted({task.channel for task in tasks if task.channel})

    def column(values: list[Any]) -> np.ndarray:
        return np.array(values, dtype=np.int64)

    return TaskGraph(
        tuple(units),
        column(list(units.values())),
        tuple(channels),
        duration=column([task.cycles for task in tasks]),
        latency=column([task.latency for task in tasks]),
        channel=column([channels.index(task.channel) if task.channel else -1 for task in tasks]),
        acquire=column([task.takes for task in tasks]),
        frees=column([([names.index(name) for name in task.frees] + [-1, -1])[:2] for task in tasks]),
        **dict(zip(("unit_ptr", "unit"), csr([[unit_names.index(u) for u in task.on] for task in tasks]), strict=True)),
        **dict(zip(("dep_ptr", "dep"), csr([[names.index(a) for a in task.after] for task in tasks]), strict=True)),
    )


def events(schedule: Schedule, tasks: Sequence[Task]) -> list[tuple[str, int]]:
    """Every start, release and (where it differs) end, in the order of time."""
    found = []
    for i, task in enumerate(tasks):
        found.append((f"{task.name} starts", int(schedule.start[i])))
        found.append((f"{task.name} releases", int(schedule.release[i])))
        if schedule.end[i] > schedule.release[i]:
            found.append((f"{task.name} ends", int(schedule.end[i])))
    return sorted(found, key=lambda event: event[1])


FIVE = (
    Task("load a", ["dma"], 4, 2, "dram", takes=5),
    Task("compute a", ["array"], 6, after=["load a"], frees=["load a"]),
    Task("load b", ["dma"], 3, 2, "dram", takes=4),
    Task("decide", ["host"], 5, 1),
    Task("compute b", ["array"], 2, after=["load b", "decide"], frees=["load b"]),
)


@ENGINES
def test_five_tasks_event_by_event(engine: Engine) -> None:
    """Of 8 ring bytes the first load takes 5, so the second one's 4 wait until `compute a` has used them."""
    five = graph({"dma": 8, "array": 0, "host": 0}, *FIVE)
    five.validate()
    schedule = engine(five)
    assert events(schedule, FIVE) == [
        ("load a starts", 0),
        ("decide starts", 0),
        ("load a releases", 4),
        ("decide releases", 5),
        ("load a ends", 6),
        ("compute a starts", 6),
        ("decide ends", 6),
        ("compute a releases", 12),
        ("load b starts", 12),
        ("load b releases", 15),
        ("load b ends", 17),
        ("compute b starts", 17),
        ("compute b releases", 19),
    ]
    assert schedule.ready.tolist() == [0, 6, 12, 0, 17]
    assert schedule.cycles == 19
    path = critical_path(five, schedule)
    assert path.task.tolist() == [0, 1, 2, 4]
    assert path.busy.tolist() == [4, 6, 3, 2]
    assert path.latency.tolist() == [2, 0, 2, 0]


@ENGINES
def test_with_room_for_both_the_second_load_is_hidden(engine: Engine) -> None:
    schedule = engine(graph({"dma": 9, "array": 0, "host": 0}, *FIVE))
    assert schedule.start.tolist() == [0, 6, 4, 0, 12]
    assert schedule.cycles == 14


@ENGINES
def test_a_channel_serves_first_what_was_ready_first_and_ties_in_program_order(engine: Engine) -> None:
    tasks = (
        Task("wait", [], 1),
        Task("late", ["a"], 2, channel="dram", after=["wait"]),
        Task("second", ["b"], 3, channel="dram"),
        Task("third", ["c"], 4, channel="dram"),
        Task("other", ["d"], 5, channel="link"),
    )
    schedule = engine(graph({"a": 0, "b": 0, "c": 0, "d": 0}, *tasks))
    assert schedule.ready.tolist() == [0, 1, 0, 0, 0]
    assert schedule.start.tolist() == [0, 7, 0, 3, 0]
    assert critical_path(graph({"a": 0, "b": 0, "c": 0, "d": 0}, *tasks), schedule).task.tolist() == [2, 3, 1]


@ENGINES
def test_a_unit_keeps_its_program_order_even_when_a_later_task_could_start(engine: Engine) -> None:
    tasks = (Task("slow", ["a"], 9), Task("needs slow", ["b"], 1, after=["slow"]), Task("free", ["b"], 1))
    assert engine(graph({"a": 0, "b": 0}, *tasks)).start.tolist() == [0, 9, 10]


@ENGINES
def test_a_task_on_two_units_waits_for_both_and_holds_both(engine: Engine) -> None:
    tasks = (Task("one", ["a"], 3), Task("both", ["a", "b"], 2), Task("two", ["b"], 4))
    assert engine(graph({"a": 0, "b": 0}, *tasks)).start.tolist() == [0, 3, 5]


@ENGINES
def test_units_stay_with_a_task_that_waits_for_its_channel(engine: Engine) -> None:
    tasks = (
        Task("first", ["a"], 6, channel="dram"),
        Task("waits", ["b"], 2, channel="dram"),
        Task("behind", ["b"], 1),
    )
    assert engine(graph({"a": 0, "b": 0}, *tasks)).start.tolist() == [0, 6, 8]


@ENGINES
def test_ring_bytes_come_free_oldest_first(engine: Engine) -> None:
    """The second tile is used up first, but its bytes lie behind the first one's."""
    tasks = (
        Task("load a", ["dma"], 1, takes=4),
        Task("load b", ["dma"], 1, takes=4),
        Task("use b", ["x"], 2, after=["load b"], frees=["load b"]),
        Task("use a", ["y"], 20, after=["load a"], frees=["load a"]),
        Task("load c", ["dma"], 1, takes=4),
    )
    assert engine(graph({"dma": 8, "x": 0, "y": 0}, *tasks)).start.tolist() == [0, 1, 2, 1, 21]


@ENGINES
def test_bytes_may_come_free_by_a_task_that_stands_later_in_the_program(engine: Engine) -> None:
    tasks = (
        Task("load a", ["dma"], 3, takes=5),
        Task("load b", ["dma"], 3, takes=5),
        Task("use a", ["array"], 4, after=["load a"], frees=["load a"]),
    )
    assert engine(graph({"dma": 8, "array": 0}, *tasks)).start.tolist() == [0, 7, 3]


@ENGINES
def test_a_ring_that_is_never_freed_is_one_line(engine: Engine) -> None:
    tasks = (
        Task("load a", ["dma"], 3, takes=5),
        Task("load b", ["dma"], 3, takes=5),
        Task("use b", ["array"], 4, after=["load b"], frees=["load b"]),
    )
    with pytest.raises(HwsimError) as raised:
        engine(graph({"dma": 8, "array": 0}, *tasks))
    assert str(raised.value) == "2 of 3 tasks wait for each other; a ring buffer is never freed"


@ENGINES
def test_tasks_that_take_no_time_still_wait(engine: Engine) -> None:
    tasks = (Task("work", ["a"], 5, 3), Task("join", after=["work"]), Task("next", ["a"], 2, after=["join"]))
    schedule = engine(graph({"a": 0}, *tasks))
    assert schedule.start.tolist() == [0, 8, 8]
    assert schedule.cycles == 10


BROKEN = [
    ({"dep": np.array([0, 4, 3, 2]), "dep_ptr": np.array([0, 0, 1, 1, 1, 4])},
     "tasks must depend on earlier tasks only"),
    ({"dep": np.array([-1, 2, 3])}, "tasks must depend on earlier tasks only"),
    ({"frees": np.array([[-1, -1], [2, -1], [-1, -1], [-1, -1], [2, -1]])},
     "tasks must free the buffer of earlier tasks only"),
    ({"duration": np.array([0, 6, 3, 5, 2])}, "tasks must last at least 0 cycles, and on a channel at least 1"),
    ({"duration": np.array([4, -6, 3, 5, 2])}, "tasks must last at least 0 cycles, and on a channel at least 1"),
    ({"latency": np.array([2, 0, 2, -1, 0])}, "tasks must last at least 0 cycles, and on a channel at least 1"),
    ({"acquire": np.array([5, 0, 9, 0, 0])}, "a tile of 9 bytes must fit the ring of dma (8 bytes)"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), BROKEN)
def test_a_broken_rule_is_refused(change: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(HwsimError) as raised:
        replace(graph({"dma": 8, "array": 0, "host": 0}, *FIVE), **change).validate()
    assert str(raised.value) == said
