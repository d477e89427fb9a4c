"""A speech set of a user's own utterances, in the form of those that `hwsim data` builds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError, nearest
from hwsim.speech.dataset import TEXT, FileEntry, Manifest, pack, save_split, sha256, write_manifest
from hwsim.speech.features import Normalizer
from hwsim.speech.spec import FeatureSpec
from hwsim.speech.utterance import NO_NOISE, Spoken

OWN = "own"
"""Stands in the manifest where a built set names its synthesizer, its voices and its settings."""


def save_speech(folder: str | Path, workload: str, words: Sequence[str], spec: FeatureSpec,
                splits: Mapping[str, Sequence[tuple[npt.ArrayLike, str]]], normalizer: Normalizer | None = None,
                text: Sequence[str] = ()) -> Manifest:  # fmt: skip
    """Write features (T, K) and transcripts of each split to `folder/NAME.npz`, with a manifest; returns that.

    Of recordings, features are `hwsim.speech.features.features(read_wav(path, rate_hz), spec)`. `normalizer`: mean and
    deviation of each bin, as the network was trained with; by default features are taken as they are. They are stored
    as float16. `text`: sentences to train language models. Raises HwsimError for a word that is not in `words`,
    features of another width, not finite or of no frame, and for a folder that cannot be written.
    """
    folder, normalizer = Path(folder), normalizer or Normalizer((0.0,) * spec.bins, (1.0,) * spec.bins)
    if not splits or not all(splits.values()):
        raise HwsimError("a speech set must hold at least one utterance in each split, got none")
    spoken = {name: [_spoken(one, f"utterance {at} of {name}", words, spec) for at, one in enumerate(utterances)]
              for name, utterances in splits.items()}  # fmt: skip
    for at, sentence in enumerate(text):
        _check_words(sentence, f"sentence {at}", words)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        entries = {name: save_split(pack(name, part, words, normalizer, spec.sample_rate_hz), folder / f"{name}.npz")
                   for name, part in spoken.items()}  # fmt: skip
        (folder / TEXT).write_text("".join(f"{sentence}\n" for sentence in text), encoding="utf-8")
        manifest = Manifest(
            workload=workload, seed=0, utterances=None, settings_sha256=OWN, synthesizer=OWN, feature_library=OWN,
            words=tuple(words), features=spec, mean=normalizer.mean, deviation=normalizer.deviation, splits=entries,
            text=FileEntry(sha256=sha256(folder / TEXT), utterances=len(text), words=sum(len(s.split()) for s in text)),
        )  # fmt: skip
        write_manifest(manifest, folder)
    except OSError as error:
        raise HwsimError(f"{folder}: must be a folder to write to, got {error.strerror or error}") from None
    return manifest


def _spoken(utterance: tuple[npt.ArrayLike, str], what: str, words: Sequence[str], spec: FeatureSpec) -> Spoken:
    frames, transcript = np.asarray(utterance[0], np.float32), utterance[1]
    if frames.ndim != 2 or frames.shape[1] != spec.width or not len(frames):
        raise HwsimError(f"{what}: features must be of shape (T, {spec.width}), got {frames.shape}")
    if not np.isfinite(frames).all():
        raise HwsimError(f"{what}: features must be finite, got {frames[~np.isfinite(frames)][0]}")
    _check_words(transcript, what, words)
    samples = round(len(frames) * spec.stack * spec.shift_s * spec.sample_rate_hz)
    return Spoken(transcript, OWN, NO_NOISE, np.inf, samples, frames)


def _check_words(text: str, what: str, words: Sequence[str]) -> None:
    for word in text.split():
        if word not in words:
            raise HwsimError(f"{what}: unknown word '{word}'{nearest(word, words)}")
