"""Runs of utterances, each kept in a file of its own until the set is whole, so that a build goes on where it ended."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.speech.audio import Samples
from hwsim.speech.spec import SpeechSpec
from hwsim.speech.synthesis import Synthesizer
from hwsim.speech.utterance import Spoken, make_pool, make_utterance
from hwsim.workers import in_workers

CHUNK = 50
"""Utterances of a chunk: about a second of work."""


@dataclass(frozen=True)
class Work:
    """What all chunks of a build share."""

    spec: SpeechSpec
    seed: int
    synthesizer: Synthesizer
    folder: Path


@dataclass(frozen=True)
class Chunk:
    """Utterances `start` to `stop` of a split; or the utterances for its babble, when `stop` is 0."""

    split: str
    start: int = 0
    stop: int = 0

    @property
    def file(self) -> str:
        """Its file in the folder of the build."""
        return f"{self.split}-{self.start:06d}.npz" if self.stop else f"{self.split}-babble.npz"


def chunks_of(split: str, utterances: int) -> list[Chunk]:
    """The chunks of so many utterances."""
    return [Chunk(split, at, min(at + CHUNK, utterances)) for at in range(0, utterances, CHUNK)]


def pool_of(spec: SpeechSpec, split: str) -> Chunk | None:
    """The babble of a split: the first split of the same voices and grammar stands for all of them."""
    noise = spec.splits[split].noise
    if noise is None or "babble" not in noise.kinds:
        return None

    def key(name: str) -> tuple[str, str]:
        return spec.splits[name].voices, spec.splits[name].grammar

    return Chunk(next(name for name in spec.splits if key(name) == key(split)))


def run_chunk(work: Work, chunk: Chunk) -> int:
    """Make a chunk and write its file; the number of utterances in it."""
    spec, path = work.spec, work.folder / chunk.file
    if not chunk.stop:
        pool = make_pool(spec, chunk.split, work.seed, work.synthesizer)
        _write(path, {f"{i:04d}": speech for i, speech in enumerate(pool)})
        return len(pool)
    needed = pool_of(spec, chunk.split)
    pool = [] if needed is None else _read_pool(work.folder / needed.file)
    made = [make_utterance(spec, chunk.split, i, work.seed, work.synthesizer, pool)
            for i in range(chunk.start, chunk.stop)]  # fmt: skip
    _write(path, {
        **{f"frames{i:04d}": u.frames for i, u in enumerate(made)},
        "texts": np.array([(u.text, u.voice, u.noise) for u in made], np.str_),
        "snr_db": np.array([u.snr_db for u in made], np.float64),
        "samples": np.array([u.samples for u in made], np.int64),
    })  # fmt: skip
    return len(made)


def read_chunk(path: Path) -> list[Spoken]:
    """The utterances of a chunk."""
    with np.load(path, allow_pickle=False) as archive:
        numbers = zip(archive["texts"].tolist(), archive["snr_db"].tolist(), archive["samples"].tolist(), strict=True)
        return [
            Spoken(text, voice, noise, snr_db, samples, archive[f"frames{i:04d}"])
            for i, ((text, voice, noise), snr_db, samples) in enumerate(numbers)
        ]


def is_whole(path: Path) -> bool:
    """Whether a chunk's file is there and can be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


def run_all(work: Work, chunks: Sequence[Chunk], workers: int, on_chunk: Callable[[int], None]) -> None:
    """Make all chunks, here or in worker processes; `on_chunk` is told how many utterances each one has.

    Raises HwsimError for the first that fails, and when a worker is killed; the others stop.
    """
    if workers == 1 or len(chunks) < 2:
        for chunk in chunks:
            on_chunk(run_chunk(work, chunk))
        return
    make = partial(run_chunk, work)
    for _, count in in_workers(make, chunks, workers, "speech build"):
        on_chunk(count)


def _read_pool(path: Path) -> list[Samples]:
    with np.load(path, allow_pickle=False) as archive:
        return [archive[name] for name in sorted(archive.files)]


def _write(path: Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with unfinished.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    unfinished.replace(path)
