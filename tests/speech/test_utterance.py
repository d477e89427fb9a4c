"""What is drawn for an utterance: its speech, its noise, and that it depends on nothing else."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from hwsim.errors import HwsimError
from hwsim.speech.audio import decibels, power, resample
from hwsim.speech.spec import SpeechSpec
from hwsim.speech.utterance import audio_of, generator, make_pool, make_utterance
from tests.speech.fakes import Tones, settings, small

SPEC = small()


def loud(level_dbfs: float) -> SpeechSpec:
    synthesis = {**settings()["synthesis"], "level_dbfs": [level_dbfs, level_dbfs]}
    return small(synthesis=synthesis)


def test_generators_of_different_places_differ_and_of_one_place_agree() -> None:
    places = [(1, "a", 0), (1, "a", 1), (1, "b", 0), (2, "a", 0)]
    numbers = [generator(*place).random() for place in places]
    assert len(set(numbers)) == 4
    assert numbers == [generator(*place).random() for place in places]


def test_speech_has_its_level_and_its_padding() -> None:
    for index in range(5):
        utterance, audio, kind, snr_db = audio_of(loud(-24), "clean", index, 1, Tones())
        assert (kind, snr_db) == ("none", np.inf)
        heard = np.flatnonzero(audio)
        before, after = heard[0] / 16000, (len(audio) - 1 - heard[-1]) / 16000
        assert 0.049 <= before <= 0.101
        assert 0.049 <= after <= 0.101
        assert decibels(power(audio[heard[0] : heard[-1] + 1])) == pytest.approx(-24, abs=0.05)
        sound, rate_hz = Tones().speak(utterance)
        assert heard[-1] - heard[0] == pytest.approx(len(resample(sound, rate_hz, 16000)) - 800 * 16000 / 22050, abs=60)


def test_two_splits_of_the_same_speech_differ_by_noise_of_their_snr() -> None:
    for index in range(7):
        said, clean, _, _ = audio_of(SPEC, "clean", index, 1, Tones())
        again, noisy, kind, snr_db = audio_of(SPEC, "noisy", index, 1, Tones(), make_pool(SPEC, "noisy", 1, Tones()))
        assert said == again
        assert (kind in ("white", "pink", "babble"), snr_db) == (True, 10)
        heard = np.flatnonzero(clean)
        speech = clean[heard[0] : heard[-1] + 1]
        assert decibels(power(speech) / power(noisy - clean)) == pytest.approx(10, abs=0.05)


def test_audio_beyond_full_scale_is_made_quieter_and_its_snr_stays() -> None:
    _, audio, _, _ = audio_of(loud(3), "clean", 0, 1, Tones())
    _, quiet, _, _ = audio_of(loud(-20), "clean", 0, 1, Tones())
    assert np.abs(audio).max() == 32767 / 32768
    scale = float(audio @ quiet / (quiet @ quiet))
    np.testing.assert_allclose(audio, scale * quiet, atol=1e-3)


def test_samples_are_those_of_a_16_bit_file() -> None:
    _, audio, _, _ = audio_of(SPEC, "train", 3, 1, Tones(), make_pool(SPEC, "train", 1, Tones()))
    assert np.array_equal(audio * 32768, np.rint(audio * 32768))


def test_shares_of_noise_and_voices_are_those_of_the_settings() -> None:
    pool = make_pool(SPEC, "train", 1, Tones())
    found = [audio_of(SPEC, "train", i, 1, Tones(), pool) for i in range(400)]
    kinds = Counter(kind for _, _, kind, _ in found)
    assert set(kinds) == {"none", "white", "pink", "babble"}
    assert all(abs(count - 100) < 45 for count in kinds.values())
    voices = Counter(utterance.voice for utterance, _, _, _ in found)
    assert set(voices) == {"anna", "ben"}
    assert abs(voices["anna"] - 200) < 50
    noisy = [snr_db for _, _, kind, snr_db in found if kind != "none"]
    assert 5 <= min(noisy) < 6
    assert 19 < max(noisy) <= 20
    assert {120, 180} <= {utterance.words_per_minute for utterance, _, _, _ in found} <= set(range(120, 181))
    assert {utterance.pitch for utterance, _, _, _ in found} <= set(range(20, 81))


def test_a_pool_is_shared_by_splits_of_the_same_voices() -> None:
    noisy, clean, train = (make_pool(SPEC, name, 1, Tones()) for name in ("noisy", "clean", "train"))
    assert len(noisy) == 3
    assert all(np.array_equal(a, b) for a, b in zip(noisy, clean, strict=True))
    assert not np.array_equal(noisy[0], train[0])
    assert [power(speech) for speech in noisy] == pytest.approx([1, 1, 1])


def test_features_belong_to_the_audio() -> None:
    pytest.importorskip("kaldi_native_fbank")
    spoken = make_utterance(SPEC, "clean", 2, 1, Tones())
    utterance, audio, _, _ = audio_of(SPEC, "clean", 2, 1, Tones())
    assert (spoken.text, spoken.voice, spoken.samples) == (utterance.text, utterance.voice, len(audio))
    assert spoken.frames.shape == ((1 + (len(audio) - 400) // 160) // 3, 24)


def test_a_voice_that_says_nothing_is_named() -> None:
    only = small(voices={"a": ["anna"], "b": ["carl"]})
    with pytest.raises(HwsimError, match=r"^the voice 'anna' must say '[a-z ]+', got silence$"):
        audio_of(only, "train", 0, 1, Tones(silent="anna"), [np.ones(10)])
