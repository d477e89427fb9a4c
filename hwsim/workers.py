"""Work in worker processes: results as they come, and nobody left behind when it is interrupted or one is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from hwsim.errors import HwsimError

Task = TypeVar("Task")
Answer = TypeVar("Answer")


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_workers(
    function: Callable[[Task], Answer], tasks: Sequence[Task], workers: int, what: str
) -> Iterator[tuple[int, Answer]]:
    """The number of every task and its answer, in the order in which they are done.

    Workers are forked where that is possible, so that they start with what this process compiled and loaded. They end
    with this process. `what` stands in the message of the HwsimError when one is killed; whatever is raised, here or
    by the caller between two answers, ends them all.
    """
    ours_not = set(multiprocessing.active_children())
    forking = "fork" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if forking else None)
    with ProcessPoolExecutor(min(workers, len(tasks)), context, initializer=_start) as pool:
        try:
            running = {pool.submit(function, task): at for at, task in enumerate(tasks)}
            for finished in as_completed(running):
                yield running[finished], finished.result()
        except BaseException as error:
            for process in set(multiprocessing.active_children()) - ours_not:
                process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                raise HwsimError(
                    f"a worker of the {what} was killed, perhaps for want of memory; fewer workers need less"
                ) from None
            raise


def _start() -> None:
    """Leave interrupts to the parent process, and end when it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
