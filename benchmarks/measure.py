"""A measured time, its target, and the clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Measurement:
    """One line of the table. `text` replaces the time where the figure is a rate or a ratio.

    A ratio of two figures of the same run has its own target, which it must reach.
    """

    name: str
    seconds: float | None = None
    target_s: float | None = None
    text: str = ""
    ratio: float | None = None
    target_ratio: float | None = None

    @property
    def shown(self) -> str:
        """The figure with its unit."""
        if self.ratio is not None:
            return f"{self.ratio:.2f} ×"
        if self.seconds is None:
            return self.text or "could not be measured"
        return f"{self.seconds:.1f} s" if self.seconds >= 10 else f"{1000 * self.seconds:,.1f} ms"

    @property
    def verdict(self) -> str:
        """pass or miss against the target; empty without one."""
        if self.target_ratio is not None:
            return "pass" if self.ratio is not None and self.ratio >= self.target_ratio else "miss"
        if self.target_s is None:
            return ""
        return "pass" if self.seconds is not None and self.seconds < self.target_s else "miss"

    @property
    def target(self) -> str:
        """The target with its unit."""
        if self.target_ratio is not None:
            return f"≥ {self.target_ratio:g} ×"
        if self.target_s is None:
            return ""
        return f"< {self.target_s:g} s" if self.target_s >= 1 else f"< {1000 * self.target_s:g} ms"


def median_s(run: Callable[[], object], repeats: int, before: Callable[[], object] | None = None) -> float:
    """Median wall time of some runs; `before` is called ahead of each and not counted."""
    times = []
    for _ in range(repeats):
        if before:
            before()
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
