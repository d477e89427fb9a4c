"""A small set of speech, and something quick that speaks it."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwsim.errors import HwsimError
from hwsim.speech.audio import Samples
from hwsim.speech.spec import SpeechSpec
from hwsim.speech.synthesis import Utterance

RATE_HZ = 22050
DIGITS = {"one": 1, "two": 1, "three": 2}


@dataclass(frozen=True)
class Tones:
    """Says each word as a tone of its own, 0.1 s long."""

    silent: str = ""
    """This voice says nothing."""

    def version(self) -> str:
        return "tones 1"

    def check_voices(self, voices: Iterable[str]) -> None:
        for voice in voices:
            if voice == "nobody":
                raise HwsimError("voice 'nobody' must exist")

    def speak(self, utterance: Utterance) -> tuple[Samples, int]:
        time_s = np.arange(round(0.1 * RATE_HZ)) / RATE_HZ
        hertz = [
            200 + 10 * utterance.pitch + zlib.crc32(f"{word}{utterance.voice}".encode()) % 3000
            for word in utterance.text.split()
        ]
        loud = 0.0 if utterance.voice == self.silent else 0.5
        said = np.concatenate([loud * np.sin(2 * np.pi * f * time_s) for f in hertz])
        return np.concatenate([np.zeros(500), said, np.zeros(300)]), RATE_HZ


def settings(**changes: Any) -> dict[str, Any]:
    """The section `speech` as a file would have it."""
    split = {"utterances": 7, "grammar": "digits", "voices": "a", "source": "test"}
    noise = {"kinds": ["white", "pink", "babble"], "snr_db": [5, 20]}
    return {
        "words": ["one", "two", "three", "stop"],
        "seed": 1,
        "grammars": {
            "digits": {
                "rules": {"sentence": {"<d>": 1, "<d> <d>": 2, "stop": 1}, "d": DIGITS},
                "source": "test",
            }
        },
        "text": {"grammar": "digits", "sentences": 30, "source": "test"},
        "voices": {"a": ["anna", "ben"], "b": ["carl", "dora", "emil"]},
        "voices_source": "test",
        "synthesis": {
            "words_per_minute": [120, 180],
            "pitch": [20, 80],
            "level_dbfs": [-30, -20],
            "padding_s": [0.05, 0.1],
            "source": "test",
        },
        "babble": {"utterances": 3, "talkers": 2, "source": "test"},
        "features": {
            "sample_rate_hz": 16000,
            "bins": 8,
            "low_hz": 20,
            "window_s": 0.025,
            "shift_s": 0.01,
            "stack": 3,
            "source": "test",
        },
        "splits": {
            "train": {**split, "utterances": 60, "noise": {**noise, "clean_share": 0.25}},
            "clean": {**split, "voices": "b"},
            "noisy": {**split, "voices": "b", "speech_of": "clean", "noise": {**noise, "snr_db": [10, 10]}},
        },
        "normalize_by": "train",
        **changes,
    }


def small(**changes: Any) -> SpeechSpec:
    return SpeechSpec.model_validate(settings(**changes))
