"""The work of a sweep, here or in worker processes: points of one trace stay together, as a trace is built once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hwsim.arch import Architecture
from hwsim.decode.settings import DecodeSettings
from hwsim.engine.run import Engine
from hwsim.errors import HwsimError
from hwsim.extract import AnyWorkload
from hwsim.numerics import PrecisionPolicy
from hwsim.simulation import simulate
from hwsim.sweep.grid import SweepPoint
from hwsim.sweep.row import Row, figures
from hwsim.workers import in_workers

Progress = Callable[[int, int], None]

LARGEST_CHUNK = 16
CHUNKS_PER_WORKER = 8


@dataclass(frozen=True)
class Job:
    """A point with all that it names loaded."""

    point: SweepPoint
    arch: Architecture
    workload: AnyWorkload
    policy: PrecisionPolicy
    search: DecodeSettings
    engine: Engine


def run_job(job: Job) -> Row:
    """The figures of one point, or the reason why the machine cannot run it."""
    try:
        return figures(
            simulate(
                job.arch,
                job.workload,
                job.policy,
                frames=job.point.frames,
                engine=job.engine,
                settings=job.search,
            )
        )
    except HwsimError as error:
        return {"error": str(error)}


def run_chunk(jobs: Sequence[Job]) -> list[Row]:
    """Run some points in order."""
    return [run_job(job) for job in jobs]


def run_here(jobs: Sequence[Job], progress: Progress) -> list[Row]:
    """Run all points in this process."""
    rows = []
    for job in jobs:
        rows.append(run_job(job))
        progress(len(rows), len(jobs))
    return rows


def run_jobs(jobs: Sequence[Job], workers: int, progress: Progress) -> list[Row]:
    """Run all points in worker processes; rows are in the order of `jobs`, whoever ran them.

    The first point runs here, so that workers start with what it compiled and loaded. Workers end with this
    process, also when it is interrupted. Raises HwsimError when one of them is killed.
    """
    rows: list[Row] = [{} for _ in jobs]
    rows[0] = run_job(jobs[0])
    progress(1, len(jobs))
    chunks = _chunks(jobs, workers)
    done = 1
    for at, answers in in_workers(run_chunk, [[jobs[i] for i in chunk] for chunk in chunks], workers, "sweep"):
        for i, row in zip(chunks[at], answers, strict=True):
            rows[i] = row
        done += len(answers)
        progress(done, len(rows))
    return rows


def _chunks(jobs: Sequence[Job], workers: int) -> list[list[int]]:
    """Indices of all points but the first, in runs of one trace, widest beam first: the long ones start early."""
    traces: dict[tuple[DecodeSettings, int], list[int]] = {}
    for i, job in enumerate(jobs[1:], start=1):
        traces.setdefault((job.search, job.point.frames), []).append(i)
    size = max(1, min(LARGEST_CHUNK, len(jobs) // (CHUNKS_PER_WORKER * workers)))
    runs = sorted(traces.items(), key=lambda item: -item[0][0].beam)
    return [indices[at : at + size] for _, indices in runs for at in range(0, len(indices), size)]
