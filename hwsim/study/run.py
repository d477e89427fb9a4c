"""Run a study on all cores, row by row onto the disk; run again, it does what is left."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hwsim.arch import load_arch
from hwsim.errors import HwsimError
from hwsim.extract import load_network
from hwsim.recognize.store import SUFFIX
from hwsim.study.request import StudyRequest
from hwsim.study.store import Row, RowStore
from hwsim.study.table import study_table
from hwsim.study.work import Chunk, check_speech, chunks_of, recognizer_of, run_chunk, split_of
from hwsim.workers import cores, in_workers

if TYPE_CHECKING:
    import pandas as pd

TABLE = "study.csv"
Progress = Callable[[int, int], None]


def run_study(
    request: StudyRequest, out: str | Path, on_row: Progress | None = None, jobs: int | None = None
) -> pd.DataFrame:
    """Decode and time what is missing, then write `out/study.csv`, one row a point (`study.table.study_table`).

    `on_row(done, total)` is told of progress in utterances; `jobs` is the number of worker processes, by default one
    for each core. Raises HwsimError for a wrong request before anything runs, and for a folder of another study.
    """
    store = RowStore(Path(out), request.digest(_check(request)), {"request": request.to_dict()})
    total = len(request.searches) * request.utterances
    left = chunks_of(request, store.done)
    done = total - sum(len(chunk.utterances) for chunk in left)
    tell = on_row or (lambda done, total: None)
    tell(done, total)
    try:
        for rows in _results(left, jobs or cores()):
            store.add(rows)
            done += len(rows)
            tell(done, total)
    finally:
        store.close()
    frame = study_table(request, store)
    partial = Path(out) / f".{TABLE}.{os.getpid()}"
    frame.to_csv(partial, index=False)
    partial.replace(Path(out) / TABLE)
    return frame


def _check(request: StudyRequest) -> dict[str, str]:
    """Load all that is named, so that mistakes are said before anything runs; the hash of each."""
    hashes = {f"arch {name}": load_arch(name).digest for name in request.archs}
    hashes["workload"] = load_network(request.workload).digest
    for precision in request.precisions:
        recognizer_of(request, precision)
    split = split_of(request)
    if request.utterances > len(split):
        raise HwsimError(f"utterances must be at most {len(split)}, those of {request.split} in {request.data}, got "
                         f"{request.utterances}")  # fmt: skip
    check_speech(request)
    files = [request.data / f"{request.split}.npz"]
    files += sorted(request.recognizers.glob(f"*{SUFFIX}"))
    return hashes | {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _results(chunks: list[Chunk], workers: int) -> Iterator[list[Row]]:
    """Rows of each chunk, as they are done."""
    if workers == 1 or len(chunks) < 2:
        yield from map(run_chunk, chunks)
        return
    yield run_chunk(chunks[0])  # compiles and loads here, for the workers to start with
    for _, rows in in_workers(run_chunk, chunks[1:], workers, "study"):
        yield rows
