"""Run a grid on all cores: check everything, run every point, write one table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from hwsim.arch import load_arch
from hwsim.decode.search import default_settings, split_changes
from hwsim.errors import HwsimError
from hwsim.extract import load_workload
from hwsim.numerics import load_policy
from hwsim.sweep.grid import SweepRequest, points
from hwsim.sweep.row import describe, table
from hwsim.sweep.store import output_folder, write_table
from hwsim.sweep.work import Job, Progress, run_here, run_jobs
from hwsim.workers import cores

FEW_POINTS = 8
"""A grid this small runs faster here than workers start."""


def run_sweep(
    request: SweepRequest,
    out: str | Path,
    on_point: Callable[[int, int], None] | None = None,
    jobs: int | None = None,
) -> pd.DataFrame:
    """Run every point of a request and write `out/sweep.csv`, one row a point in the order of `points`.

    `on_point(done, total)` is told of progress; `jobs` is the number of worker processes, by default one for each
    core, and none for a small grid. A point that a machine cannot run has the reason in its column `error`.
    Raises HwsimError for a wrong request, a folder that cannot be written (both before anything runs, and
    nothing is left there), and a grid of which no point can run.
    """
    if jobs is not None and jobs < 1:
        raise HwsimError(f"jobs must be at least 1, got {jobs}")
    work = prepare(request)
    few = len(work) <= FEW_POINTS and request.engine == "fast"
    workers = min(len(work), jobs or (1 if few else cores()))
    progress: Progress = on_point or (lambda done, total: None)
    with output_folder(Path(out)) as folder:
        found = run_here(work, progress) if workers == 1 else run_jobs(work, workers, progress)
        if all("error" in row for row in found):
            raise HwsimError(f"no point of the sweep can run: {found[0]['error']}")
        described = (describe(job.point, job.arch, job.workload, job.policy) for job in work)
        frame = table(described, found, request.settings)
        write_table(frame, folder)
    return frame


def prepare(request: SweepRequest) -> list[Job]:
    """Load and check all that the points name. Raises HwsimError for the first mistake."""
    grid = points(request)
    workload = load_workload(request.workload)
    policies = {name: load_policy(name) for name in request.precisions}
    changes = {point.settings: split_changes(dict(point.settings)) for point in grid}
    keys = dict.fromkeys((point.arch, point.settings) for point in grid)
    machines = {(arch, settings): load_arch(arch, changes[settings][0]) for arch, settings in keys}
    return [
        Job(
            point=point,
            arch=machines[point.arch, point.settings],
            workload=workload,
            policy=policies[point.precision],
            search=default_settings(
                workload,
                beam=point.beam,
                algorithm=point.decoder,
                lm=point.lm,
                changes=changes[point.settings][1],
            ),
            engine=request.engine,
        )
        for point in grid
    ]
