"""A speech set on disk: one npz file a split, the text, and a manifest with the hash of each. Nothing is pickled."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from hwsim.config import Frozen
from hwsim.errors import HwsimError, nearest
from hwsim.speech.features import Normalized, Normalizer
from hwsim.speech.spec import FeatureSpec
from hwsim.speech.utterance import Spoken

MANIFEST = "manifest.json"
TEXT = "text.txt"
FORMAT = 1
BLANK = 0
_REBUILD = "build it again with: hwsim data"


class FileEntry(Frozen):
    """A file of the set and what it holds, in numbers."""

    sha256: str
    utterances: int
    words: int
    seconds: float = 0.0
    """Of audio; 0 for text."""
    frames: int = 0
    voices: int = 0
    snr_db: tuple[float, float] | None = None
    """Lowest and highest of the utterances with noise."""


class Manifest(Frozen):
    """What is in the folder, and what made it."""

    format: int = Field(default=FORMAT, ge=FORMAT, le=FORMAT)
    workload: str
    seed: int
    utterances: int | None
    """Most utterances of a split, when it was limited."""
    settings_sha256: str
    synthesizer: str
    feature_library: str
    words: tuple[str, ...]
    features: FeatureSpec
    mean: tuple[float, ...]
    """Of each mel bin over the training split."""
    deviation: tuple[float, ...]
    splits: dict[str, FileEntry]
    text: FileEntry

    @property
    def normalizer(self) -> Normalizer:
        """What turned features into those of the files."""
        return Normalizer(self.mean, self.deviation)

    def encode(self, text: str) -> npt.NDArray[np.int64]:
        """Labels (U,) of a sentence, words from 1. Raises HwsimError for an unknown word."""
        labels = {word: i for i, word in enumerate(self.words, start=1)}
        for word in text.split():
            if word not in labels:
                raise HwsimError(f"unknown word '{word}'{nearest(word, labels)}")
        return np.array([labels[word] for word in text.split()], np.int64)

    def decode(self, labels: Sequence[int] | npt.NDArray[Any]) -> str:
        """The sentence of some labels; blanks say nothing. Raises HwsimError for an unknown label."""
        for label in labels:
            if not 0 <= label <= len(self.words):
                raise HwsimError(f"label must be 0 to {len(self.words)}, got {label}")
        return " ".join(self.words[int(label) - 1] for label in labels if label != BLANK)


@dataclass(frozen=True, eq=False)
class Split:
    """The utterances of one file; arrays over all of them at once, and where each begins."""

    name: str
    features: Normalized
    """(all frames, bins x stack)."""
    feature_offsets: npt.NDArray[np.int64]
    """(N + 1,): utterance i has the frames from offset i to offset i + 1."""
    labels: npt.NDArray[np.int64]
    """(all labels,), without blanks."""
    label_offsets: npt.NDArray[np.int64]
    transcripts: npt.NDArray[np.str_]
    voices: npt.NDArray[np.str_]
    noises: npt.NDArray[np.str_]
    """white, pink, babble or none."""
    snr_db: npt.NDArray[np.float64]
    """(N,), infinite without noise."""
    samples: npt.NDArray[np.int64]
    """(N,) samples of the audio."""
    sample_rate_hz: int

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Normalized, npt.NDArray[np.int64]]:
        """Features (T, bins x stack) and labels (U,) of an utterance."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        i = index % len(self)
        frames, labels = self.feature_offsets, self.label_offsets
        return self.features[frames[i] : frames[i + 1]], self.labels[labels[i] : labels[i + 1]]

    def __iter__(self) -> Iterator[tuple[Normalized, npt.NDArray[np.int64]]]:
        return (self[i] for i in range(len(self)))

    @cached_property
    def seconds(self) -> npt.NDArray[np.float64]:
        """(N,) length of the audio."""
        return self.samples / self.sample_rate_hz


def _join(parts: Sequence[npt.NDArray[Any]]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    return np.concatenate(parts), np.cumsum([0, *map(len, parts)], dtype=np.int64)


def pack(name: str, utterances: Sequence[Spoken], manifest_words: Sequence[str], normalizer: Normalizer,
         sample_rate_hz: int) -> Split:  # fmt: skip
    """Utterances as one split, normalized."""
    numbers = {word: i for i, word in enumerate(manifest_words, start=1)}
    frames, frame_offsets = _join([normalizer.apply(u.frames) for u in utterances])
    labels, label_offsets = _join([np.array([numbers[w] for w in u.text.split()], np.int64) for u in utterances])
    return Split(
        name, frames, frame_offsets, labels, label_offsets,
        transcripts=np.array([u.text for u in utterances], np.str_),
        voices=np.array([u.voice for u in utterances], np.str_),
        noises=np.array([u.noise for u in utterances], np.str_),
        snr_db=np.array([u.snr_db for u in utterances], np.float64),
        samples=np.array([u.samples for u in utterances], np.int64),
        sample_rate_hz=sample_rate_hz,
    )  # fmt: skip


_ARRAYS = ("features", "feature_offsets", "labels", "label_offsets", "transcripts", "voices", "noises", "snr_db",
           "samples")  # fmt: skip


def save_split(split: Split, path: Path) -> FileEntry:
    """Write a split and say what is in it."""
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **{name: getattr(split, name) for name in _ARRAYS})
    noisy = split.snr_db[np.isfinite(split.snr_db)]
    return FileEntry(
        sha256=sha256(path),
        utterances=len(split),
        words=len(split.labels),
        seconds=float(split.seconds.sum()),
        frames=len(split.features),
        voices=len(set(split.voices.tolist())),
        snr_db=(float(noisy.min()), float(noisy.max())) if len(noisy) else None,
    )


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_manifest(folder: str | Path) -> Manifest:
    """The manifest of a set. Raises HwsimError when there is none, or one of another kind."""
    path = Path(folder) / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError:
        raise HwsimError(f"{folder}: must be a folder with a speech set, got no {MANIFEST}; {_REBUILD}") from None
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"])) or "the file"
        raise HwsimError(
            f"{path}: must be the manifest of a speech set, got a wrong {where}: {problem['msg']}"
        ) from None


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write the manifest, at once."""
    partial = folder / f".{MANIFEST}"
    text = json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False)
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(folder / MANIFEST)


def check_file(path: Path, entry: FileEntry) -> None:
    """Raise HwsimError unless the file is there and is the one of the manifest."""
    if not path.is_file():
        raise HwsimError(f"{path}: must be a file of the speech set, got nothing there; {_REBUILD}")
    if sha256(path) != entry.sha256:
        raise HwsimError(f"{path}: must be the file that the manifest describes, got an altered one; {_REBUILD}")


def load_split(path: str | Path) -> Split:
    """A split by its path, `DIR/NAME.npz`, checked against the manifest beside it.

    Raises HwsimError for a missing or altered file and for one that the manifest does not name.
    """
    path = Path(path)
    manifest = load_manifest(path.parent)
    known = [f"{name}.npz" for name in manifest.splits]
    if path.name not in known:
        raise HwsimError(f"{path}: must be a split of the speech set{nearest(path.name, known)}")
    check_file(path, manifest.splits[path.stem])
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in _ARRAYS}
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise HwsimError(f"{path}: must be a split of a speech set, got {error}") from None
    return Split(path.stem, **arrays, sample_rate_hz=manifest.features.sample_rate_hz)


def load_text(folder: str | Path) -> list[str]:
    """The sentences without audio, checked against the manifest. Raises HwsimError as `load_split`."""
    path = Path(folder) / TEXT
    check_file(path, load_manifest(folder).text)
    return path.read_text(encoding="utf-8").splitlines()


def save_part(folder: str | Path, out: Path, splits: Sequence[str], utterances: int) -> Manifest:
    """The first utterances of some splits as a set of their own, normalized as the whole set is; no text.

    Raises HwsimError as `load_split`, and for more utterances than a split has.
    """
    manifest = load_manifest(folder)
    out.mkdir(parents=True, exist_ok=True)
    entries = {}
    for name in splits:
        split = load_split(Path(folder) / f"{name}.npz")
        if not 1 <= utterances <= len(split):
            raise HwsimError(f"utterances must be 1 to {len(split)}, those of {name}, got {utterances}")
        frames, labels = split.feature_offsets[: utterances + 1], split.label_offsets[: utterances + 1]
        of_each = ("transcripts", "voices", "noises", "snr_db", "samples")
        whole = {field: getattr(split, field)[:utterances] for field in of_each}
        part = Split(
            name, split.features[: frames[-1]], frames, split.labels[: labels[-1]], labels, **whole,
            sample_rate_hz=split.sample_rate_hz,
        )  # fmt: skip
        entries[name] = save_split(part, out / f"{name}.npz")
    part_of = manifest.model_copy(update={"utterances": utterances, "splits": entries})
    write_manifest(part_of, out)
    return part_of
