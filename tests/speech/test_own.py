"""A speech set of a user's own utterances."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwsim.errors import HwsimError
from hwsim.speech.dataset import load_manifest, load_split, load_text
from hwsim.speech.features import Normalizer
from hwsim.speech.own import save_speech
from hwsim.speech.spec import FeatureSpec

SPEC = FeatureSpec(sample_rate_hz=16000, bins=4, low_hz=20, window_s=0.025, shift_s=0.01, stack=3, source="test")
WORDS = ("yes", "no")


def frames(count: int = 5, width: int = 12) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, width))


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    utterances = [(frames(5), "yes no"), (frames(2), "no")]
    normalizer = Normalizer((1.0,) * 4, (2.0,) * 4)
    manifest = save_speech(tmp_path / "a", "mine", WORDS, SPEC, {"test": utterances}, normalizer, ["no no"])
    assert load_manifest(tmp_path / "a") == manifest
    split = load_split(tmp_path / "a" / "test.npz")
    assert split.transcripts.tolist() == ["yes no", "no"]
    assert split[0][1].tolist() == [1, 2]
    for at, (x, _) in enumerate(utterances):
        assert np.array_equal(split[at][0], ((x.astype(np.float32).astype(np.float64) - 1) / 2).astype(np.float16))
    assert split.seconds.tolist() == [0.15, 0.06]
    assert load_text(tmp_path / "a") == ["no no"]


@pytest.mark.parametrize(
    ("splits", "changes", "message"),
    [
        ({"test": [(frames(), "yes"), (frames(), "yes mo")]}, {},
         "utterance 1 of test: unknown word 'mo'; nearest: no"),
        ({"test": [(frames(5, 11), "yes")]}, {}, "utterance 0 of test: features must be of shape (T, 12), got (5, 11)"),
        ({"test": [(frames()[:0], "yes")]}, {}, "utterance 0 of test: features must be of shape (T, 12), got (0, 12)"),
        ({"test": [(frames() * np.nan, "yes")]}, {}, "utterance 0 of test: features must be finite, got nan"),
        ({"test": []}, {}, "a speech set must hold at least one utterance in each split, got none"),
        ({}, {}, "a speech set must hold at least one utterance in each split, got none"),
        ({"test": [(frames(), "yes")]}, {"text": ["yes", "maybe"]}, "sentence 1: unknown word 'maybe'"),
    ],
)  # fmt: skip
def test_what_is_refused_leaves_nothing(splits: Any, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(HwsimError) as raised:
        save_speech(tmp_path / "a", "mine", WORDS, SPEC, splits, **changes)
    assert str(raised.value).startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(HwsimError, match=r"a: must be a folder to write to, got File exists$"):
        save_speech(tmp_path / "a", "mine", WORDS, SPEC, {"test": [(frames(), "yes")]})
