"""What both engines run: tasks on in-order units, shared channels, and ring buffers. No file formats, no costs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TaskGraph:
    """Tasks in program order, and the machine that they run on.

    Rules, which are the meaning of both engines:

    - A task occupies each of its *units* for `duration` cycles. A unit takes its tasks in program order, one at
      a time. A task without units only waits for its dependencies.
    - A task is *ready* when it is the next one of all its units, all its dependencies have ended, and its ring
      buffers have room. A task without a channel starts when it is ready.
    - A *channel* (DRAM, link, interconnect) serves one task at a time, first the one that was ready first, ties
      in program order. Its units stay with the task while it waits.
    - A task *releases* units and channel at start + duration, and *ends* (its result may be used) `latency`
      cycles later.
    - A unit may own a *ring buffer*: a task takes `acquire` bytes in the ring of each of its units when it is
      ready; they come free when the task that names it in `frees` releases, oldest first.
    """

    units: tuple[str, ...]
    ring_bytes: IntArray
    """Capacity of each unit's ring buffer, 0 for none."""
    channels: tuple[str, ...]
    duration: IntArray
    latency: IntArray
    channel: IntArray
    """Index of a channel or -1; a task on a channel lasts at least one cycle."""
    acquire: IntArray
    frees: IntArray
    """`(tasks, 2)`: up to two earlier tasks whose ring bytes this one frees, or -1."""
    unit_ptr: IntArray
    unit: IntArray
    dep_ptr: IntArray
    dep: IntArray

    def __len__(self) -> int:
        return len(self.duration)

    @cached_property
    def order(self) -> tuple[IntArray, IntArray]:
        """CSR lists of the tasks that must have *released* before each task may be ready (units and rings)."""
        from hwsim.engine.order import order_edges

        return order_edges(self.unit_ptr, self.unit, self.ring_bytes, self.acquire, self.frees)

    def validate(self) -> None:
        """Check the invariants. Raises HwsimError; a tile that is larger than its ring is named."""
        count = len(self)
        owner = np.repeat(np.arange(count), np.diff(self.dep_ptr))
        if np.any(self.dep >= owner) or np.any(self.dep < 0):
            raise HwsimError("tasks must depend on earlier tasks only")
        if np.any(self.frees >= np.arange(count)[:, None]):
            raise HwsimError("tasks must free the buffer of earlier tasks only")
        if np.any((self.channel >= 0) & (self.duration < 1)) or np.any(self.duration < 0) or np.any(self.latency < 0):
            raise HwsimError("tasks must last at least 0 cycles, and on a channel at least 1")
        on_unit = np.repeat(np.arange(count), np.diff(self.unit_ptr))
        capacity = self.ring_bytes[self.unit]
        large = (capacity > 0) & (self.acquire[on_unit] > capacity)
        if np.any(large):
            at = int(np.argmax(large))
            size, unit = int(self.acquire[on_unit[at]]), self.units[int(self.unit[at])]
            raise HwsimError(f"a tile of {size} bytes must fit the ring of {unit} ({int(capacity[at])} bytes)")


@dataclass(frozen=True)
class Schedule:
    """When each task ran, in cycles: ready <= start, release = start + duration, end = release + latency."""

    ready: IntArray
    start: IntArray
    release: IntArray
    end: IntArray

    @property
    def cycles(self) -> int:
        """End of the last task."""
        return int(self.end.max(initial=0))
