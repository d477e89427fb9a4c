"""What every study does: check its utterances, decode what is missing on all cores, write the table."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from hwsim.errors import HwsimError
from hwsim.study.store import Row, RowStore
from hwsim.study.work import Asked, check_speech, split_of
from hwsim.workers import cores, in_workers

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int], None]


class AnyChunk(Protocol):
    """Some utterances that are decoded alike."""

    @property
    def utterances(self) -> tuple[int, ...]:
        """Their numbers."""
        ...


ChunkT = TypeVar("ChunkT", bound=AnyChunk)


def check_utterances(request: Asked, utterances: int) -> None:
    """Raises HwsimError for more utterances than the split has, and as `check_speech`."""
    split = split_of(request)
    if utterances > len(split):
        raise HwsimError(f"utterances must be at most {len(split)}, those of {request.split} in {request.data}, got "
                         f"{utterances}")  # fmt: skip
    check_speech(request)


def file_hashes(files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of each file, by name."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def decode_missing(store: RowStore, left: Sequence[ChunkT], run_chunk: Callable[[ChunkT], list[Row]], total: int,
                   on_row: Progress | None, jobs: int | None) -> None:  # fmt: skip
    """Run the chunks and store their rows as they are done; `on_row(done, total)` counts utterances."""
    done = total - sum(len(chunk.utterances) for chunk in left)
    tell = on_row or (lambda done, total: None)
    tell(done, total)
    try:
        for rows in _results(left, run_chunk, jobs or cores()):
            store.add(rows)
            done += len(rows)
            tell(done, total)
    finally:
        store.close()


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """As CSV, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    frame.to_csv(partial, index=False)
    partial.replace(path)


def _results(chunks: Sequence[ChunkT], run_chunk: Callable[[ChunkT], list[Row]], workers: int) -> Iterator[list[Row]]:
    """Rows of each chunk, as they are done."""
    if workers == 1 or len(chunks) < 2:
        yield from map(run_chunk, chunks)
        return
    yield run_chunk(chunks[0])  # compiles and loads here, for the workers to start with
    for _, rows in in_workers(run_chunk, list(chunks[1:]), workers, "study"):
        yield rows
