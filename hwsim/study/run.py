"""Run a study on all cores, row by row onto the disk; run again, it does what is left."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hwsim.arch import load_arch
from hwsim.extract import load_network
from hwsim.recognize.store import SUFFIX
from hwsim.study.decoding import Progress, check_utterances, decode_missing, file_hashes, write_table
from hwsim.study.request import StudyRequest
from hwsim.study.store import RowStore
from hwsim.study.table import study_table
from hwsim.study.work import chunks_of, recognizer_of, run_chunk

if TYPE_CHECKING:
    import pandas as pd

TABLE = "study.csv"


def run_study(
    request: StudyRequest, out: str | Path, on_row: Progress | None = None, jobs: int | None = None
) -> pd.DataFrame:
    """Decode and time what is missing, then write `out/study.csv`, one row a point (`study.table.study_table`).

    `on_row(done, total)` is told of progress in utterances; `jobs` is the number of worker processes, by default one
    for each core. Raises HwsimError for a wrong request before anything runs, and for a folder of another study.
    """
    store = RowStore(Path(out), request.digest(_check(request)), {"request": request.to_dict()})
    total = len(request.searches) * request.utterances
    decode_missing(store, chunks_of(request, store.done), run_chunk, total, on_row, jobs)
    frame = study_table(request, store)
    write_table(frame, Path(out) / TABLE)
    return frame


def _check(request: StudyRequest) -> dict[str, str]:
    """Load all that is named, so that mistakes are said before anything runs; the hash of each."""
    hashes = {f"arch {name}": load_arch(name).digest for name in request.archs}
    hashes["workload"] = load_network(request.workload).digest
    for precision in request.precisions:
        recognizer_of(request, precision)
    check_utterances(request, request.utterances)
    files = [request.data / f"{request.split}.npz", *sorted(request.recognizers.glob(f"*{SUFFIX}"))]
    return hashes | file_hashes(files)
