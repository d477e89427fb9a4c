"""What a recognizer's file says of its features is what its speech set did."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwsim import catalogue
from hwsim.errors import HwsimError
from hwsim.recognize import Recognizer, load_recognizer
from hwsim.recognize.frontend import KEY, Frontend
from hwsim.recognize.store import SUFFIX
from hwsim.speech.dataset import load_manifest

DIGITS = catalogue.data_folder("workloads") / "digits"
FILES = sorted(DIGITS.glob(f"*{SUFFIX}"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_recognizers_that_ship_know_their_features(path: object) -> None:
    recognizer = load_recognizer(path)  # type: ignore[arg-type]
    assert Frontend.of(recognizer) == Frontend.of_speech(load_manifest(DIGITS))
    assert len(FILES) >= 6


def test_a_stream_gives_the_frames_of_the_whole() -> None:
    pytest.importorskip("kaldi_native_fbank")
    frontend = Frontend.of_speech(load_manifest(DIGITS))
    samples = np.random.default_rng(0).normal(0, 0.1, 16000)
    whole = frontend.features(samples)
    assert whole.dtype == np.float16
    for size in (37, 480, 5000):
        stream = frontend.stream()
        pieces = [stream.accept(samples[at : at + size]) for at in range(0, len(samples), size)]
        assert np.array_equal(np.concatenate(pieces), whole)


def test_other_features_are_refused() -> None:
    recognizer = load_recognizer(DIGITS / "int4.recognizer")
    about = recognizer.about

    def refused(features: object) -> str:
        changed = {**about, KEY: features} if features is not None else {k: v for k, v in about.items() if k != KEY}
        with pytest.raises(HwsimError) as raised:
            Frontend.of(Recognizer(recognizer.networks, recognizer.words, recognizer.stack, {}, changed))
        return str(raised.value)

    unknown = "a recognizer must say of which features it is, got one that does not: give the speech set that it was"
    for wrong in (None, {}, 3, {"bins": 40}):
        assert refused(wrong).startswith(unknown)
    assert refused(about[KEY] | {"stack": 2}) == "features must be 120 a frame, as the recognizer reads, got 80"
    assert refused(about[KEY] | {"mean": [0.0]}) == "mean of features must be of 40 bins, got 1"
    frontend = Frontend.of(recognizer)
    assert replace(frontend, normalizer=frontend.normalizer).to_dict() == dict(about[KEY])
