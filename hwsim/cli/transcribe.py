"""`hwsim transcribe`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwsim import catalogue
from hwsim.cli.options import choice, integer
from hwsim.cli.printing import say
from hwsim.decode.settings import DecodeSettings
from hwsim.errors import HwsimError
from hwsim.recognize import Recognizer, Transcript, load_recognizer
from hwsim.recognize.frontend import Frontend
from hwsim.recognize.recognizer import MODELS
from hwsim.recognize.store import recognizer_file
from hwsim.speech.audio import Samples, read_wav
from hwsim.speech.dataset import load_manifest

DECODERS = ("greedy", "alsd", "tsd", "maes")
CATALOGUE = "workloads"
BEAM = 4


@dataclass(frozen=True)
class Words:
    """What the user typed."""

    recognizer: str
    audio: tuple[Path, ...]
    decoder: str
    beam: str | None
    lm: str
    n_best: str
    stream: str | None
    data: Path | None


def run_transcribe(given: Words) -> None:
    """Print the words of each file; with `--stream` also those of each piece, as they come."""
    choice("--decoder", given.decoder, DECODERS)
    choice("--lm", given.lm, tuple(MODELS))
    beam = integer("--beam", given.beam)
    if beam is None:
        beam = 1 if given.decoder == "greedy" else BEAM
    settings = DecodeSettings(given.decoder, beam, lm=given.lm)  # type: ignore[arg-type]
    n_best, piece_s = integer("--n-best", given.n_best) or 0, _seconds(given.stream)
    if n_best < 1:
        raise HwsimError(f"--n-best must be at least 1, got {n_best}")
    recognizer = load_recognizer(_file(given.recognizer))
    recognizer.search(settings)
    frontend = Frontend.of(recognizer) if given.data is None else _of_speech(given.data, recognizer)
    heard = [(path, read_wav(path, frontend.spec.sample_rate_hz)) for path in given.audio]
    for path, samples in heard:
        if len(samples) < frontend.spec.shortest_samples:
            raise HwsimError(f"{path}: must be at least {frontend.spec.shortest_samples} samples, got {len(samples)}")
    for path, samples in heard:
        say(f"{path}: {samples.size / frontend.spec.sample_rate_hz:.2f} s")
        if piece_s is None:
            x = np.asarray(frontend.features(samples), np.float64)
            found = recognizer.transcribe(x, settings, n_best=n_best)
        else:
            found = _streamed(recognizer, frontend, settings, samples, piece_s, n_best)
        for rank, (words, score) in enumerate(found.n_best, start=1):
            say(f"  {rank}  {words}  ({score:.2f})")


def _streamed(recognizer: Recognizer, frontend: Frontend, settings: DecodeSettings, samples: Samples, piece_s: float,
              n_best: int) -> Transcript:  # fmt: skip
    stream, audio, words = recognizer.stream(settings), frontend.stream(), ""
    for end_s, piece in _pieces(samples, piece_s, frontend.spec.sample_rate_hz):
        so_far = stream.feed(np.asarray(audio.accept(piece), np.float64))
        if so_far != words:
            words = so_far
            say(f"  {end_s:.2f} s  {words}")
    return stream.finish(n_best)


def _pieces(samples: Samples, piece_s: float, rate_hz: int) -> Iterator[tuple[float, Samples]]:
    size = max(1, round(piece_s * rate_hz))
    for at in range(0, len(samples), size):
        yield min(at + size, len(samples)) / rate_hz, samples[at : at + size]


def _seconds(text: str | None) -> float | None:
    try:
        found = None if text is None else float(text)
    except ValueError:
        found = 0.0
    if found is not None and not 0 < found < float("inf"):
        raise HwsimError(f"--stream must be seconds of audio, got '{text}'")
    return found


def _file(name: str) -> Path:
    """`digits/int4` is the recognizer that ships with the workload digits; anything else is a path."""
    workload, _, precision = name.rpartition("/")
    shipped = catalogue.data_folder(CATALOGUE) / workload / recognizer_file(precision)
    return shipped if workload in catalogue.names(CATALOGUE) and shipped.is_file() else Path(name)


def _of_speech(data: Path, recognizer: Recognizer) -> Frontend:
    manifest = load_manifest(data)
    if manifest.words != recognizer.words:
        raise HwsimError(f"{data}: must have the words of the recognizer, got others")
    return Frontend.of_speech(manifest).fitting(recognizer)
