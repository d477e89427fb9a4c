"""Decoding and timing utterances: the work of a study, in this process or in workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from hwsim.arch import load_arch
from hwsim.decode.prefixes import Array
from hwsim.errors import HwsimError
from hwsim.extract import load_network
from hwsim.recognize import Recognizer, load_recognizer
from hwsim.recognize.errors import word_errors
from hwsim.recognize.policy import policy_of
from hwsim.recognize.store import SUFFIX, recognizer_file
from hwsim.simulation import simulate
from hwsim.speech.dataset import Split, load_split
from hwsim.study.request import Search, StudyRequest
from hwsim.study.store import Row

CHUNK = 10


class Asked(Protocol):
    """What any study is asked about recognizers and speech."""

    @property
    def workload(self) -> str:
        """Name or file."""

    @property
    def precisions(self) -> tuple[str, ...]:
        """Of the recognizers."""

    @property
    def data(self) -> Path:
        """Folder of the speech set."""

    @property
    def recognizers(self) -> Path:
        """Folder of `<precision>.recognizer` files."""

    @property
    def split(self) -> str:
        """Which part of the speech."""


@dataclass(frozen=True)
class Chunk:
    """Some utterances of one search."""

    request: StudyRequest
    search: Search
    utterances: tuple[int, ...]


def run_chunk(chunk: Chunk) -> list[Row]:
    """Decode each utterance, count its word errors, and time the decode on every machine."""
    request, search = chunk.request, chunk.search
    workload = load_network(request.workload)
    recognizer = recognizer_of(request, search.precision)
    split = split_of(request)
    settings = search.settings(request.decoder, workload.spec.decode.u_max_ratio)
    policy = policy_of(recognizer, search.precision)
    rows = []
    for index in chunk.utterances:
        features = np.asarray(split[index][0], np.float64)
        found = recognizer.transcribe(features, settings, encoded=_encoded(recognizer, split, index))
        errors = word_errors([split.transcripts[index]], [found.words])
        row: Row = {"precision": search.precision, "beam": search.beam, "lm": search.lm, "utterance": index,
                    "errors": int(errors.errors[0]), "words": int(errors.words[0]), "hypothesis": found.words,
                    "audio_s": workload.audio_seconds(len(features)), "latency_s": {}, "energy_j": {}}  # fmt: skip
        for name in request.archs:
            result = simulate(load_arch(name), workload, policy, frames=len(features), settings=settings,
                              plan=found.schedule(settings))  # fmt: skip
            row["latency_s"][name], row["energy_j"][name] = result.latency_s, result.energy_j
        rows.append(row)
    return rows


def _stamp(path: Path) -> int:
    """When a file was written: what is kept in memory is kept of that file."""
    return path.stat().st_mtime_ns if path.exists() else 0


@lru_cache(maxsize=8)
def _recognizer(path: Path, stamp: int) -> Recognizer:
    return load_recognizer(path)


def recognizer_of(request: Asked, precision: str) -> Recognizer:
    """The recognizer of a precision. Raises HwsimError when its file is not there, or another workload's."""
    path = request.recognizers / recognizer_file(precision)
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in request.recognizers.glob(f"*{SUFFIX}"))) or "none"
        raise HwsimError(f"precision {precision} must have a file {path.name} in {request.recognizers}, got {known}")
    found, name = _recognizer(path, _stamp(path)), load_network(request.workload).name
    if found.about.get("workload") != name:
        raise HwsimError(f"{path}: must be a recognizer of {name}, got {found.about.get('workload')}")
    return found


def check_speech(request: Asked) -> None:
    """Raise HwsimError unless every recognizer reads the features of the split and knows its words."""
    split = split_of(request)
    for precision in request.precisions:
        recognizer = recognizer_of(request, precision)
        if split.features.shape[1] != recognizer.width:
            raise HwsimError(f"{request.data}: must have {recognizer.width} features per frame, as recognizer "
                             f"{precision}, got {split.features.shape[1]}")  # fmt: skip
        for number, transcript in enumerate(split.transcripts.tolist()):
            try:
                recognizer.labels(transcript)
            except HwsimError as error:
                raise HwsimError(f"utterance {number} of {split.name}: {error}") from None


@lru_cache(maxsize=2)
def _split(path: Path, stamp: int) -> Split:
    return load_split(path)


def split_of(request: Asked) -> Split:
    """The speech that is decoded."""
    path = request.data / f"{request.split}.npz"
    return _split(path, _stamp(path))


@lru_cache(maxsize=4096)
def _encoded(recognizer: Recognizer, split: Split, index: int) -> Array:
    """The encoder's rows of an utterance: the same for every search of a precision."""
    return recognizer.encode(np.asarray(split[index][0], np.float64))


def chunks_of(
    request: StudyRequest, done: Sequence[tuple[str, int, str, int]] | set[tuple[str, int, str, int]]
) -> list[Chunk]:
    """What is left to do, a few utterances of one search at a time, the wide beams first."""
    found = []
    for search in sorted(request.searches, key=lambda each: -each.beam):
        own = (search.precision, search.beam, search.lm)
        left = [index for index in range(request.utterances) if (*own, index) not in done]
        found += [Chunk(request, search, tuple(left[at : at + CHUNK])) for at in range(0, len(left), CHUNK)]
    return found
