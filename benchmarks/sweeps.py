"""A sweep of a little over 1,000 points with language model fusion, on all cores."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

from benchmarks.measure import Measurement, median_s
from hwsim.sweep import SweepRequest, points, run_sweep

TARGET_S = 60.0
REQUEST = SweepRequest(
    archs=("rapid_4core",),
    workload="rnnt_swb300",
    precisions=("fp16", "int8", "int4"),
    beams=(1, 2, 4, 8, 16, 32),
    lms=("density-ratio",),
    settings={
        "dram.bandwidth_bytes_per_s": ("25e9", "34e9", "50e9", "68.3e9", "100e9", "136e9", "200e9", "400e9"),
        "host.per_step_s": ("0", "0.5e-6", "1e-6", "2e-6", "4e-6", "8e-6", "16e-6"),
    },
)


def measurements() -> Iterator[Measurement]:
    """Wall time with the pool's start and the table's writing."""
    count = len(points(REQUEST))
    with tempfile.TemporaryDirectory() as out:
        seconds = median_s(lambda: run_sweep(REQUEST, out), 1)
    rate = f"{count / seconds:,.1f} points/s"
    yield Measurement(f"sweep of {count:,} points on {os.cpu_count()} cores", seconds, TARGET_S)
    yield Measurement("sweep, rate", text=rate)
