"""Cold starts: a new process each time, with compiled kernels in Numba's cache."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.measure import Measurement, median_s

COLD_TARGET_S, IMPORT_TARGET_S = 3.0, 0.2
REPEATS = 5


def measurements() -> Iterator[Measurement]:
    """The command, the import, and Python itself for comparison."""
    command = str(Path(sys.executable).with_name("hwsim"))
    cold = _process_s([command, "simulate", "rapid_4core", "rnnt_swb300"])
    yield Measurement("hwsim simulate rapid_4core rnnt_swb300, cold", cold, COLD_TARGET_S)
    imported, bare = (_process_s([sys.executable, "-c", code]) for code in ("import hwsim", "pass"))
    yield Measurement("python -c 'import hwsim'", imported, IMPORT_TARGET_S)
    yield Measurement("python -c pass", bare)
    if imported is not None and bare is not None:
        yield Measurement("import hwsim alone (difference)", imported - bare)


def _process_s(command: Sequence[str]) -> float | None:
    """Median wall time; None when the command fails."""

    def run() -> None:
        subprocess.run(command, capture_output=True, check=True)

    try:
        return median_s(run, REPEATS, None)
    except (OSError, subprocess.CalledProcessError):
        return None
