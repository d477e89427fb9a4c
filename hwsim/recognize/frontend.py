"""Audio to the features that a recognizer was trained on: the filter bank, and the mean and deviation of each bin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ValidationError

from hwsim.errors import HwsimError
from hwsim.recognize.recognizer import Recognizer
from hwsim.speech.audio import Samples
from hwsim.speech.dataset import Manifest
from hwsim.speech.features import Features, FeatureStream, Normalized, Normalizer, features
from hwsim.speech.spec import FeatureSpec

KEY = "features"
"""Of `Recognizer.about`."""


@dataclass(frozen=True)
class Frontend:
    """What a speech set does to audio before a network hears it."""

    spec: FeatureSpec
    normalizer: Normalizer

    @classmethod
    def of_speech(cls, manifest: Manifest) -> Frontend:
        """That of a speech set."""
        return cls(manifest.features, manifest.normalizer)

    @classmethod
    def of(cls, recognizer: Recognizer) -> Frontend:
        """What the recognizer's file says. Raises HwsimError when it says nothing, and for another width."""
        found = recognizer.about.get(KEY)
        try:
            given = dict(found or {})
            normalizer = Normalizer(tuple(given.pop("mean", ())), tuple(given.pop("deviation", ())))
            frontend = cls(FeatureSpec.model_validate(given), normalizer)
        except (ValidationError, TypeError, ValueError):
            raise HwsimError("a recognizer must say of which features it is, got one that does not: give the speech "
                             "set that it was trained on") from None  # fmt: skip
        return frontend.fitting(recognizer)

    def fitting(self, recognizer: Recognizer) -> Frontend:
        """Itself. Raises HwsimError unless its features are as wide as what the recognizer reads."""
        if self.spec.width != recognizer.width:
            raise HwsimError(f"features must be {recognizer.width} a frame, as the recognizer reads, got "
                             f"{self.spec.width}")  # fmt: skip
        for name in ("mean", "deviation"):
            got = len(getattr(self.normalizer, name))
            if got != self.spec.bins:
                raise HwsimError(f"{name} of features must be of {self.spec.bins} bins, got {got}")
        return self

    def to_dict(self) -> dict[str, Any]:
        """JSON values, for `Recognizer.about`."""
        statistics = {"mean": list(self.normalizer.mean), "deviation": list(self.normalizer.deviation)}
        return self.spec.model_dump(mode="json") | statistics

    def features(self, samples: Samples) -> Normalized:
        """Frames (T, K) of a whole utterance (N,). Raises HwsimError for empty, silent and too short audio."""
        return self.normalizer.apply(features(samples, self.spec))

    def stream(self) -> FrontendStream:
        """Features of an utterance that comes in pieces."""
        return FrontendStream(self)


class FrontendStream:
    """Frames of audio in pieces; all together they are those of the whole."""

    def __init__(self, frontend: Frontend) -> None:
        self._stream, self._normalizer = FeatureStream(frontend.spec), frontend.normalizer

    def accept(self, samples: Samples) -> Normalized:
        """Frames (T, K) that are complete after more samples (N,)."""
        frames: Features = self._stream.accept(samples)
        return self._normalizer.apply(frames) if len(frames) else frames.astype(np.float16)
