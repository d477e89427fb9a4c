"""The reference engine: the rules of `TaskGraph`, each unit, channel and ring buffer a thing of its own, in SimPy."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy

from hwsim.engine.tasks import Schedule, TaskGraph
from hwsim.errors import HwsimError

AFTER_ALL_OTHERS = 2
"""SimPy priority of a channel's decision: after everything else that happens at the same time."""


@dataclass
class RingBuffer:
    """Bytes are taken at the head and come free at the tail: a freed tile waits for the older ones."""

    capacity_bytes: int
    held_bytes: int = 0
    tiles: deque[list[int]] = field(default_factory=deque)

    def has_room(self, size_bytes: int) -> bool:
        """Whether a tile of this size fits now."""
        return self.held_bytes + size_bytes <= self.capacity_bytes

    def take(self, task: int, size_bytes: int) -> None:
        """Put a tile at the head."""
        self.held_bytes += size_bytes
        self.tiles.append([task, size_bytes, 0])

    def free(self, task: int) -> None:
        """Mark a tile as used up, and drop all used-up tiles from the tail."""
        for tile in self.tiles:
            if tile[0] == task:
                tile[2] = 1
        while self.tiles and self.tiles[0][2]:
            self.held_bytes -= self.tiles.popleft()[1]


@dataclass
class Unit:
    """A program of tasks, taken in order, one at a time."""

    name: str
    program: deque[int]
    ring: RingBuffer | None
    busy: bool = False


class Channel:
    """Serves requests one at a time: the one that was ready first, ties in program order."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.requests: list[tuple[int, int]] = []
        self.busy = False

    def request(self, task: int) -> None:
        """Queue a task; the choice is made when everything else of this instant has happened."""
        heapq.heappush(self.requests, (self.machine.now, task))
        self.decide_later()

    def decide_later(self) -> None:
        """Schedule a decision at the end of this instant."""
        event = self.machine.env.event()
        event._ok, event._value = True, None
        event.callbacks.append(self._decide)
        self.machine.env.schedule(event, priority=AFTER_ALL_OTHERS)  # type: ignore[arg-type]

    def _decide(self, _: simpy.Event) -> None:
        if not self.busy and self.requests:
            self.busy = True
            task = heapq.heappop(self.requests)[1]
            self.machine.env.process(self.machine.occupy(task, self))


class Machine:
    """The units, channels and rings of a task graph, and the processes that run on them."""

    def __init__(self, graph: TaskGraph) -> None:
        self.graph = graph
        self.env = simpy.Environment()
        self.units = [
            Unit(name, deque(), RingBuffer(int(size)) if size else None)
            for name, size in zip(graph.units, graph.ring_bytes, strict=True)
        ]
        self.channels = [Channel(self) for _ in graph.channels]
        count = len(graph)
        self.units_of = [graph.unit[graph.unit_ptr[i] : graph.unit_ptr[i + 1]].tolist() for i in range(count)]
        self.missing = np.diff(graph.dep_ptr).tolist()
        self.users: list[list[int]] = [[] for _ in range(count)]
        for task in range(count):
            for source in graph.dep[graph.dep_ptr[task] : graph.dep_ptr[task + 1]]:
                self.users[source].append(task)
            for unit in self.units_of[task]:
                self.units[unit].program.append(task)
        self.duration, self.latency = graph.duration.tolist(), graph.latency.tolist()
        self.acquire, self.frees, self.channel = (
            graph.acquire.tolist(),
            graph.frees.tolist(),
            graph.channel.tolist(),
        )
        self.ready = np.full(count, -1, np.int64)
        self.start = np.zeros(count, np.int64)

    @property
    def now(self) -> int:
        """Current cycle."""
        return int(self.env.now)

    def run(self) -> Schedule:
        """Run all tasks."""
        for task in range(len(self.graph)):
            self.offer(task)
        self.env.run()
        waiting = int((self.ready < 0).sum())
        if waiting:
            count = len(self.graph)
            raise HwsimError(f"{waiting} of {count} tasks wait for each other; a ring buffer is never freed")
        release = self.start + self.graph.duration
        return Schedule(self.ready, self.start, release, release + self.graph.latency)

    def offer(self, task: int) -> None:
        """Start a task, or hand it to its channel, if it is ready now."""
        if self.missing[task] or self.ready[task] >= 0:
            return
        units = [self.units[u] for u in self.units_of[task]]
        size_bytes = self.acquire[task]
        if any(unit.busy or unit.program[0] != task for unit in units):
            return
        rings = [unit.ring for unit in units if unit.ring and size_bytes]
        if not all(ring.has_room(size_bytes) for ring in rings):
            return
        self.ready[task] = self.now
        for unit in units:
            unit.busy = True
        for ring in rings:
            ring.take(task, size_bytes)
        if self.channel[task] >= 0:
            self.channels[self.channel[task]].request(task)
        else:
            self.env.process(self.occupy(task, None))

    def occupy(self, task: int, channel: Channel | None) -> Generator[simpy.Event, Any, None]:
        """Hold units (and channel) for the duration, then let users go after the latency."""
        self.start[task] = self.now
        yield self.env.timeout(self.duration[task])
        if channel:
            channel.busy = False
            channel.decide_later()
        units = [self.units[u] for u in self.units_of[task]]
        for unit in units:
            unit.busy = False
            unit.program.popleft()
        for source in self.frees[task]:
            self._free_ring(source)
        for unit in units:
            self._offer_next(unit)
        if self.latency[task]:
            yield self.env.timeout(self.latency[task])
        for user in self.users[task]:
            self.missing[user] -= 1
            self.offer(user)

    def _free_ring(self, task: int) -> None:
        if task < 0:
            return
        for u in self.units_of[task]:
            ring = self.units[u].ring
            if ring:
                ring.free(task)
                self._offer_next(self.units[u])

    def _offer_next(self, unit: Unit) -> None:
        if unit.program:
            self.offer(unit.program[0])


def run_event(graph: TaskGraph) -> Schedule:
    """Run a task graph in SimPy. Raises HwsimError when tasks wait for each other for ever."""
    return Machine(graph).run()
