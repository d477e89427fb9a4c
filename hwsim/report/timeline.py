"""A run as a Chrome trace (JSON), which Perfetto opens: one track for each unit and channel that is used.

Times are in microseconds. A second process of the trace holds the critical path: the chain of tasks, each of which
the next one waited for. Its events follow each other without a gap and are together as long as the latency.
Bytes and MACs of an event are those of its task on all units that work on it together.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from hwsim.cost.classes import operation_classes
from hwsim.engine.lower import TaskKind
from hwsim.engine.tasks import IntArray
from hwsim.report.files import written
from hwsim.simulation import Result

MACHINE, CRITICAL_PATH = 1, 2
_BATCH = 4096


def write_timeline(result: Result, path: str | Path) -> int:
    """Write the timeline of a run and return its number of events. Raises HwsimError when it cannot be written."""
    with written(path) as file:
        return _write(result, file)


def _write(result: Result, file: TextIO) -> int:
    """One event a line."""
    other = json.dumps({**result.provenance, "rtf": result.rtf, "latency_us": _microseconds(result, result.cycles)})
    file.write(f'{{"displayTimeUnit": "ns", "otherData": {other},\n"traceEvents": [\n')
    count, lines = 0, []
    for event in _events(result):
        lines.append(event)
        count += 1
        if len(lines) == _BATCH:
            file.write(",\n".join(lines) + ",\n")
            lines.clear()
    # The last line has no comma after it.
    lines.append(_metadata(CRITICAL_PATH, 1, "thread_name", "critical path"))
    file.write(",\n".join(lines) + "\n]}\n")
    return count + 1


@dataclass(frozen=True)
class _Tasks:
    """What the events of a task say, as text."""

    name: list[str]
    category: list[str]
    args: list[str]


def _events(result: Result) -> Iterator[str]:
    graph, schedule = result.run.lowered.graph, result.run.schedule
    tasks = _tasks(result)
    tracks = (*graph.units, *graph.channels)
    owner = np.repeat(np.arange(len(graph)), np.diff(graph.unit_ptr))
    on_channel = np.flatnonzero(graph.channel >= 0)
    task = np.concatenate([owner, on_channel])
    track = np.concatenate([graph.unit, len(graph.units) + graph.channel[on_channel]])
    yield _metadata(MACHINE, 1, "process_name", f"{result.arch.name}: {result.workload.name} at {result.policy.name}")
    yield _metadata(CRITICAL_PATH, 1, "process_name", "critical path")
    for used in np.unique(track).tolist():
        yield _metadata(MACHINE, used + 1, "thread_name", tracks[used])
        yield _metadata(MACHINE, used + 1, "thread_sort_index", used)
    order = np.lexsort((schedule.start[task], track))
    yield from _complete(result, tasks, task[order], MACHINE, track[order] + 1, graph.duration)
    path = result.run.path
    length = np.zeros(len(graph), dtype=np.int64)
    length[path.task] = path.busy + path.latency
    yield from _complete(result, tasks, path.task, CRITICAL_PATH, np.ones(len(path.task), np.int64), length)


def _complete(result: Result, tasks: _Tasks, task: IntArray, process: int, track: IntArray, length: IntArray
              ) -> Iterator[str]:  # fmt: skip
    """Complete events of some tasks, each from its start and as long as `length` says."""
    begin = result.run.schedule.start[task]
    # The length in time is a difference of rounded times, so that neighbours never overlap.
    begin_us, end_us = (np.round(cycles / result.arch.clock_hz * 1e6, 6) for cycles in (begin, begin + length[task]))
    duration_us = np.round(end_us - begin_us, 6)
    for i, where, ts, dur in zip(task.tolist(), track.tolist(), begin_us.tolist(), duration_us.tolist(), strict=True):
        yield (
            f'{{"ph": "X", "pid": {process}, "tid": {where}, "ts": {ts!r}, "dur": {dur!r},'
            f' "name": {tasks.name[i]}, "cat": {tasks.category[i]}, "args": {tasks.args[i]}}}'
        )


def _tasks(result: Result) -> _Tasks:
    trace, lowered = result.run.trace, result.run.lowered
    layer = trace.columns["layer"][lowered.operation]
    count = len(TaskKind)
    labels = [json.dumps(f"{name} {kind.name.lower()}") for name in trace.layers for kind in TaskKind]
    categories = [json.dumps(name.partition(".")[0]) for name in trace.layers]
    iteration = trace.columns["iteration"][lowered.operation].tolist()
    args = [
        f'{{"operation": {operation}, "iteration": {step}, "{unit}": {amount}}}' if unit
        else f'{{"operation": {operation}, "iteration": {step}}}'
        for operation, step, (unit, amount) in zip(lowered.operation.tolist(), iteration, _amounts(result), strict=True)
    ]  # fmt: skip
    label = (layer * count + lowered.kind).tolist()
    return _Tasks([labels[i] for i in label], [categories[i] for i in layer.tolist()], args)


def _amounts(result: Result) -> Iterator[tuple[str, int]]:
    """Unit and amount of each task's part of its operation: tiles share bytes and MACs equally."""
    trace, lowered, costs = result.run.trace, result.run.lowered, result.run.costs
    copied = costs.copied_bytes[operation_classes(trace).of_operation]
    by_kind = {
        TaskKind.WEIGHT_LOAD: ("bytes", lowered.weight_bytes),
        TaskKind.ACTIVATION_LOAD: ("bytes", lowered.load_bytes),
        TaskKind.STORE: ("bytes", lowered.store_bytes),
        TaskKind.EXCHANGE: ("bytes", lowered.exchange_bytes),
        TaskKind.LINK: ("bytes", copied),
        TaskKind.COMPUTE: ("macs", trace.macs),
        TaskKind.ANALOG: ("macs", trace.macs),
    }
    unit, amount = np.full(len(lowered.kind), "", dtype=object), np.zeros(len(lowered.kind), dtype=np.int64)
    for kind, (name, per_operation) in by_kind.items():
        chosen = np.flatnonzero(lowered.kind == kind)
        operation = lowered.operation[chosen]
        _, first, parts = np.unique(operation, return_index=True, return_counts=True)
        part = np.arange(len(chosen)) - np.repeat(first, parts)
        of, total = np.repeat(parts, parts), per_operation[operation]
        unit[chosen], amount[chosen] = name, (part + 1) * total // of - part * total // of
    return zip(unit.tolist(), amount.tolist(), strict=True)


def _metadata(process: int, track: int, what: str, value: str | int) -> str:
    key = "sort_index" if what.endswith("sort_index") else "name"
    return json.dumps({"ph": "M", "pid": process, "tid": track, "name": what, "args": {key: value}})


def _microseconds(result: Result, cycles: int) -> float:
    return cycles / result.arch.clock_hz * 1e6
