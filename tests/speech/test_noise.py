"""Noise has the power that its SNR says, the spectrum of its kind, and babble its talkers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.speech.noise import babble, make_noise, pink, scale_noise, white


def snr_db(speech: np.ndarray, noise: np.ndarray) -> float:
    """The definition, in plain Python."""
    powers = [math.fsum(float(x) ** 2 for x in signal) / len(signal) for signal in (speech, noise)]
    return 10 * math.log10(powers[0] / powers[1])


@given(st.floats(-20, 40), st.sampled_from(["white", "pink", "babble"]), st.integers(50, 400))
def test_the_snr_is_the_one_asked_for(wanted_db: float, kind: str, count: int) -> None:
    rng = np.random.default_rng(count)
    speech = 0.1 * rng.standard_normal(200)
    pool = [rng.standard_normal(30), rng.standard_normal(70)]
    noise = scale_noise(make_noise(kind, count, rng, pool, 3), float(np.mean(speech**2)), wanted_db)
    assert noise.shape == (count,)
    assert snr_db(speech, noise) == pytest.approx(wanted_db, abs=1e-9)


def octaves_db(noise: np.ndarray) -> np.ndarray:
    """Power of six octaves, in dB relative to the first."""
    spectrum = np.abs(np.fft.rfft(noise)) ** 2
    bands = np.array([spectrum[len(spectrum) >> (k + 1) : len(spectrum) >> k].sum() for k in range(6)][::-1])
    found: np.ndarray = 10 * np.log10(bands / bands[0])
    return found


def test_white_noise_has_3_db_more_in_each_octave_and_pink_noise_as_much() -> None:
    rng = np.random.default_rng(0)
    np.testing.assert_allclose(octaves_db(white(2**16, rng)), 3.01 * np.arange(6), atol=0.5)
    np.testing.assert_allclose(octaves_db(pink(2**16, rng)), np.zeros(6), atol=0.5)
    assert abs(pink(8192, rng).mean()) < 1e-12


def test_babble_of_one_talker_is_the_utterance_backwards_again_and_again() -> None:
    voice = np.array([1.0, 2.0, 3.0, 4.0])
    found = babble(10, np.random.default_rng(3), [voice], 1) * np.sqrt(np.mean(voice**2))
    np.testing.assert_allclose(found[:4], found[4:8])
    at = int(np.argmax(found[:4]))
    np.testing.assert_allclose(found[at : at + 4], [4, 3, 2, 1])


def test_babble_adds_its_talkers_at_equal_power() -> None:
    rng = np.random.default_rng(0)
    loud, quiet = 100 * rng.standard_normal(5000), rng.standard_normal(5000)
    assert np.mean(babble(5000, rng, [loud, quiet], 8) ** 2) == pytest.approx(8, rel=0.5)


def test_babble_of_nobody_is_refused() -> None:
    with pytest.raises(HwsimError, match=r"^babble must be made of at least one utterance, got none$"):
        make_noise("babble", 10, np.random.default_rng(0))
