"""The work of a sweep, here or in worker processes: points of one trace stay together, as a trace is built once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from hwsim.arch import Architecture
from hwsim.decode.settings import DecodeSettings
from hwsim.engine.run import Engine
from hwsim.errors import HwsimError
from hwsim.extract import Workload
from hwsim.numerics import PrecisionPolicy
from hwsim.simulation import simulate
from hwsim.sweep.grid import SweepPoint
from hwsim.sweep.row import Row, figures

Progress = Callable[[int, int], None]

LARGEST_CHUNK = 16
CHUNKS_PER_WORKER = 8


@dataclass(frozen=True)
class Job:
    """A point with all that it names loaded."""

    point: SweepPoint
    arch: Architecture
    workload: Workload
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
    ours_not = set(multiprocessing.active_children())
    forking = "fork" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if forking else None)
    with ProcessPoolExecutor(workers, context, initializer=start_worker) as pool:
        try:
            running = {pool.submit(run_chunk, [jobs[i] for i in chunk]): chunk for chunk in chunks}
            _collect(running, rows, progress)
        except BaseException as error:
            for process in set(multiprocessing.active_children()) - ours_not:
                process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                raise HwsimError(
                    "a worker of the sweep was killed, perhaps for want of memory; fewer jobs need less"
                ) from None
            raise
    return rows


def _collect(running: dict[Future[list[Row]], list[int]], rows: list[Row], progress: Progress) -> None:
    done = 1
    for finished in as_completed(running):
        for i, row in zip(running[finished], finished.result(), strict=True):
            rows[i] = row
        done += len(running[finished])
        progress(done, len(rows))


def _chunks(jobs: Sequence[Job], workers: int) -> list[list[int]]:
    """Indices of all points but the first, in runs of one trace, widest beam first: the long ones start early."""
    traces: dict[tuple[DecodeSettings, int], list[int]] = {}
    for i, job in enumerate(jobs[1:], start=1):
        traces.setdefault((job.search, job.point.frames), []).append(i)
    size = max(1, min(LARGEST_CHUNK, len(jobs) // (CHUNKS_PER_WORKER * workers)))
    runs = sorted(traces.items(), key=lambda item: -item[0][0].beam)
    return [indices[at : at + size] for _, indices in runs for at in range(0, len(indices), size)]


def start_worker() -> None:
    """Leave interrupts to the parent process, and end when it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
