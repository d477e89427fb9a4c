"""The timeline is the schedule: nothing overlaps, nothing is lost, and the critical path is the latency."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwsim.engine.lower import TaskKind
from hwsim.errors import HwsimError
from hwsim.report.timeline import CRITICAL_PATH, MACHINE, write_timeline
from hwsim.simulation import Result

Event = dict[str, Any]
RESOLUTION_US = 2e-6


@pytest.fixture(scope="module")
def written(int4: Result, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], int]:
    path = tmp_path_factory.mktemp("timeline") / "run.json"
    count = write_timeline(int4, path)
    assert [entry.name for entry in path.parent.iterdir()] == ["run.json"]
    return json.loads(path.read_text(encoding="utf-8")), count


@pytest.fixture(scope="module")
def tracks(written: tuple[dict[str, Any], int]) -> dict[tuple[int, str], list[Event]]:
    """Complete events by process and name of the track."""
    names, found = {}, defaultdict(list)
    for event in written[0]["traceEvents"]:
        if event["ph"] == "M" and event["name"] == "thread_name":
            names[event["pid"], event["tid"]] = event["args"]["name"]
    for event in written[0]["traceEvents"]:
        if event["ph"] == "X":
            found[event["pid"], names[event["pid"], event["tid"]]].append(event)
    return found


def test_the_file_is_a_chrome_trace(written: tuple[dict[str, Any], int], int4: Result) -> None:
    content, count = written
    assert len(content["traceEvents"]) == count
    assert {event["ph"] for event in content["traceEvents"]} == {"M", "X"}
    assert content["otherData"]["arch"] == int4.provenance["arch"]
    processes = {e["pid"]: e["args"]["name"] for e in content["traceEvents"] if e["name"] == "process_name"}
    assert processes == {MACHINE: "rapid_4core: rnnt_swb300 at int4", CRITICAL_PATH: "critical path"}


def test_each_used_unit_and_channel_has_a_track(tracks: dict[tuple[int, str], list[Event]], int4: Result) -> None:
    graph = int4.run.lowered.graph
    units = {graph.units[i] for i in np.unique(graph.unit)}
    channels = {graph.channels[i] for i in np.unique(graph.channel[graph.channel >= 0])}
    assert {name for process, name in tracks if process == MACHINE} == units | channels
    assert {name for process, name in tracks if process == CRITICAL_PATH} == {"critical path"}


def test_events_of_a_track_never_overlap(tracks: dict[tuple[int, str], list[Event]]) -> None:
    for events in tracks.values():
        starts = np.array([event["ts"] for event in events])
        ends = starts + np.array([event["dur"] for event in events])
        assert np.all(starts >= 0)
        assert np.all(starts[1:] >= ends[:-1] - 1e-9)


def test_busy_time_of_a_track_is_that_of_its_tasks(tracks: dict[tuple[int, str], list[Event]], int4: Result) -> None:
    graph = int4.run.lowered.graph
    owner = np.repeat(np.arange(len(graph)), np.diff(graph.unit_ptr))
    for i, name in enumerate(graph.units):
        events = tracks.get((MACHINE, name), [])
        tasks = owner[graph.unit == i]
        busy_us = graph.duration[tasks].sum() / int4.arch.clock_hz * 1e6
        assert len(events) == len(tasks)
        assert sum(event["dur"] for event in events) == pytest.approx(busy_us, abs=RESOLUTION_US * max(len(events), 1))


def test_the_critical_path_is_the_latency(tracks: dict[tuple[int, str], list[Event]], int4: Result) -> None:
    events = tracks[CRITICAL_PATH, "critical path"]
    latency_us = 1e6 * int4.latency_s
    assert events[0]["ts"] == 0
    assert events[-1]["ts"] + events[-1]["dur"] == pytest.approx(latency_us, abs=RESOLUTION_US)
    assert sum(event["dur"] for event in events) == pytest.approx(latency_us, abs=RESOLUTION_US * len(events))
    gaps = [b["ts"] - a["ts"] - a["dur"] for a, b in pairwise(events)]
    assert max(map(abs, gaps)) < RESOLUTION_US


def test_nothing_ends_after_the_run(tracks: dict[tuple[int, str], list[Event]], int4: Result) -> None:
    last_us = max(event["ts"] + event["dur"] for events in tracks.values() for event in events)
    assert last_us == pytest.approx(1e6 * int4.latency_s, abs=RESOLUTION_US)


def test_bytes_and_macs_of_the_events_are_those_of_the_run(
    tracks: dict[tuple[int, str], list[Event]], int4: Result
) -> None:
    moved = sum(event["args"]["bytes"] for event in tracks[MACHINE, "dram"])
    assert moved == int(int4.run.dram_bytes.sum())
    # A gang of arrays shows its task on each of them: count each task once.
    products = {
        (event["args"]["operation"], event["ts"]): event["args"]["macs"]
        for (process, name), events in tracks.items()
        if process == MACHINE and name.endswith(".array")
        for event in events
    }
    assert sum(products.values()) == int(int4.run.trace.macs.sum())


def test_an_event_says_what_it_is(tracks: dict[tuple[int, str], list[Event]], int4: Result) -> None:
    trace = int4.run.trace
    for event in tracks[MACHINE, "core0.array"][:50]:
        layer, kind = event["name"].split(" ")
        operation = event["args"]["operation"]
        assert layer == trace.layers[trace.columns["layer"][operation]]
        assert event["cat"] == layer.partition(".")[0]
        assert event["args"]["iteration"] == trace.columns["iteration"][operation]
        assert kind == TaskKind.COMPUTE.name.lower()


def test_an_unwritable_timeline_leaves_nothing(int4: Result, tmp_path: Path) -> None:
    below = tmp_path / "file.txt"
    below.write_text("", encoding="utf-8")
    with pytest.raises(HwsimError) as error:
        write_timeline(int4, below / "run.json")
    assert str(error.value) == f"{below / 'run.json'}: must be writable, got not a directory"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]
