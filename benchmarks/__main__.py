"""Measure and print one table; a missed target is shown, never an error."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.table import Table

from benchmarks import analog, engines, execute, executor, startup, sweeps, systolic
from benchmarks.measure import Measurement

Group = Callable[[], Iterator[Measurement]]
GROUPS: dict[str, Group] = {
    "engines": engines.measurements,
    "sweep": sweeps.measurements,
    "start": startup.measurements,
    "array": systolic.measurements,
    "execute": execute.measurements,
    "encoder": executor.measurements,
    "analog": analog.measurements,
}
STYLES = {"pass": "green", "miss": "red", "": ""}


def main() -> None:
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    table = Table("", "measured", "target", "", title="hwsim benchmarks")
    for name, group in GROUPS.items():
        with console.status(f"measuring {name}"):
            found = list(group())
        for one in found:
            table.add_row(one.name, one.shown, one.target, one.verdict, style=STYLES[one.verdict])
        table.add_section()
    console.print(table)


if __name__ == "__main__":
    main()
