"""Run a study of drift on all cores, row by row onto the disk; run again, it does what is left."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hwsim.arch import load_arch
from hwsim.errors import HwsimError
from hwsim.extract import load_network
from hwsim.recognize.store import recognizer_file
from hwsim.study.drift.request import DriftRequest
from hwsim.study.drift.table import drift_frame
from hwsim.study.drift.work import Chunk, Row, chunks_of, key_of, run_chunk, tile_layers
from hwsim.study.store import RowStore
from hwsim.study.work import check_speech, split_of
from hwsim.workers import cores, in_workers

if TYPE_CHECKING:
    import pandas as pd

TABLE = "drift.csv"
Progress = Callable[[int, int], None]


def run_drift(
    request: DriftRequest, out: str | Path, on_row: Progress | None = None, jobs: int | None = None
) -> pd.DataFrame:
    """Decode what is missing, then write `out/drift.csv`, one row a condition (`drift.table.drift_frame`).

    `on_row(done, total)` is told of progress in decoded utterances; `jobs` is the number of worker processes, by
    default one for each core. Raises HwsimError for a wrong request before anything runs, and for a folder of another
    study.
    """
    hashes = _check(request)
    store = RowStore(Path(out), request.digest(hashes), {"request": request.to_dict()})
    total = len(request.conditions) * request.utterances
    left = chunks_of(request, map(key_of, store.rows))
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
    frame = drift_frame(request, store.rows, hashes)
    partial = Path(out) / f".{TABLE}.{os.getpid()}"
    frame.to_csv(partial, index=False)
    partial.replace(Path(out) / TABLE)
    return frame


def _check(request: DriftRequest) -> dict[str, str]:
    """Load all that is named, so that mistakes are said before anything runs; the hash of each."""
    hashes = {f"arch {name}": load_arch(name).digest for name in (request.arch, request.digital_arch)}
    hashes["workload"] = load_network(request.workload).digest
    split = split_of(request)
    if request.utterances > len(split):
        raise HwsimError(f"utterances must be at most {len(split)}, those of {request.split} in {request.data}, got "
                         f"{request.utterances}")  # fmt: skip
    check_speech(request)
    tile_layers(request.arch, request.workload)
    files = [request.data / f"{request.split}.npz"]
    files += [request.recognizers / recognizer_file(precision) for precision in request.precisions]
    return hashes | {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _results(chunks: list[Chunk], workers: int) -> Iterator[list[Row]]:
    """Rows of each chunk, as they are done."""
    if workers == 1 or len(chunks) < 2:
        yield from map(run_chunk, chunks)
        return
    yield run_chunk(chunks[0])  # compiles and loads here, for the workers to start with
    for _, rows in in_workers(run_chunk, chunks[1:], workers, "study"):
        yield rows
