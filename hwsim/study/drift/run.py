"""Run a study of drift on all cores, row by row onto the disk; run again, it does what is left."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hwsim.arch import load_arch
from hwsim.extract import load_network
from hwsim.recognize.store import recognizer_file
from hwsim.study.decoding import Progress, check_utterances, decode_missing, file_hashes, write_table
from hwsim.study.drift.request import DriftRequest
from hwsim.study.drift.table import drift_frame
from hwsim.study.drift.work import chunks_of, key_of, run_chunk, tile_layers
from hwsim.study.store import RowStore

if TYPE_CHECKING:
    import pandas as pd

TABLE = "drift.csv"


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
    decode_missing(store, chunks_of(request, map(key_of, store.rows)), run_chunk, total, on_row, jobs)
    frame = drift_frame(request, store.rows, hashes)
    write_table(frame, Path(out) / TABLE)
    return frame


def _check(request: DriftRequest) -> dict[str, str]:
    """Load all that is named, so that mistakes are said before anything runs; the hash of each."""
    hashes = {f"arch {name}": load_arch(name).digest for name in (request.arch, request.digital_arch)}
    hashes["workload"] = load_network(request.workload).digest
    check_utterances(request, request.utterances)
    tile_layers(request.arch, request.workload)
    files = [request.data / f"{request.split}.npz"]
    files += [request.recognizers / recognizer_file(precision) for precision in request.precisions]
    return hashes | file_hashes(files)
