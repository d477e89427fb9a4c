"""Filter bank features against a plain computation, streamed, stacked, normalized."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.speech.features import FeatureStream, Normalizer, features
from hwsim.speech.spec import FeatureSpec

pytest.importorskip("kaldi_native_fbank")

SPEC = FeatureSpec(sample_rate_hz=16000, bins=40, low_hz=20, window_s=0.025, shift_s=0.01, stack=3, source="test")


def mel(hertz: np.ndarray | float) -> np.ndarray:
    return 1127 * np.log(1 + np.asarray(hertz) / 700)


def plain(samples: np.ndarray) -> np.ndarray:
    """Log-mel energies (windows, 40) written down from the definition in float64."""
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)) ** 0.85
    edges = np.linspace(mel(20), mel(8000), 42)
    bins = mel(np.arange(256) * 16000 / 512)
    rise = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    fall = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    bank = np.clip(np.minimum(rise, fall), 0, None)
    rows = []
    for start in range(0, len(samples) - 399, 160):
        x = samples[start : start + 400] - samples[start : start + 400].mean()
        x = x - 0.97 * np.concatenate([x[:1], x[:-1]])
        spectrum = np.abs(np.fft.rfft(x * window, 512)) ** 2
        rows.append(np.log(np.maximum(bank @ spectrum[:256], 2.0**-23)))
    return np.array(rows)


def noise(count: int, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(count)


def test_features_are_those_of_the_definition() -> None:
    audio = noise(400 + 160 * 11)
    found = features(audio, SPEC)
    assert (found.shape, found.dtype) == ((4, 120), np.float32)
    np.testing.assert_allclose(found.reshape(12, 40), plain(audio), atol=2e-3)


@pytest.mark.parametrize("hertz", [200.0, 1000.0, 4000.0])
def test_a_sine_is_loudest_in_its_own_bin(hertz: float) -> None:
    audio = 0.5 * np.sin(2 * np.pi * hertz * np.arange(3200) / 16000)
    centres = np.linspace(mel(20), mel(8000), 42)[1:-1]
    loudest = features(audio, SPEC).reshape(-1, 40).argmax(axis=1)
    assert set(loudest) == {int(np.abs(centres - mel(hertz)).argmin())}


def test_digital_silence_lies_on_the_floor() -> None:
    audio = np.concatenate([noise(400), np.zeros(1000)])
    assert features(audio, SPEC)[-1] == pytest.approx(np.log(2.0**-23), abs=1e-4)


@pytest.mark.parametrize(("samples", "frames"), [(720, 1), (1199, 1), (1200, 2), (16000, 32)])
def test_windows_that_do_not_fill_a_frame_are_left_out(samples: int, frames: int) -> None:
    assert features(noise(samples), SPEC).shape == (frames, 120)


@settings(max_examples=25)
@given(st.lists(st.integers(0, 3000), max_size=6))
def test_pieces_give_what_the_whole_gives(cuts: list[int]) -> None:
    audio = noise(3000)
    stream = FeatureStream(SPEC)
    found = [stream.accept(piece) for piece in np.split(audio, sorted(cuts))]
    assert all(part.shape[1:] == (120,) for part in found)
    assert np.array_equal(np.concatenate(found), features(audio, SPEC))


def test_too_short_audio_is_refused() -> None:
    with pytest.raises(HwsimError, match=r"^audio must be at least 720 samples long, got 719$"):
        features(noise(719), SPEC)
    with pytest.raises(HwsimError, match=r"^audio: must not be silent"):
        features(np.zeros(16000), SPEC)


def test_normalized_features_have_mean_0_and_deviation_1() -> None:
    rng = np.random.default_rng(0)
    utterances = [(rng.standard_normal((t, 6)) * 3 + 7).astype(np.float32) for t in (5, 9)]
    normalizer = Normalizer.over(utterances, 2)
    rows = np.concatenate(utterances).astype(np.float64).reshape(-1, 2)
    np.testing.assert_allclose(normalizer.mean, rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(normalizer.deviation, rows.std(axis=0), rtol=1e-12)
    found = normalizer.apply(utterances[0])
    assert (found.shape, found.dtype) == ((5, 6), np.float16)
    wanted = (utterances[0].reshape(-1, 2).astype(np.float64) - normalizer.mean) / normalizer.deviation
    assert np.array_equal(found, wanted.astype(np.float16).reshape(5, 6))


def test_a_bin_that_never_changes_is_not_divided_by_0() -> None:
    assert Normalizer.over([np.ones((3, 2), np.float32)], 1) == Normalizer((1.0,), (1e-3,))


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kaldi_native_fbank", None)
    with pytest.raises(HwsimError) as raised:
        features(noise(16000), SPEC)
    said = "features need kaldi-native-fbank, which is not installed; try: pip install 'hwsim[speech]'"
    assert str(raised.value) == said
