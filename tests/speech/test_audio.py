"""WAV files, resampling and levels; each kind of wrong audio is refused by its own message."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.speech.audio import check_audio, decibels, power, read_wav, resample, to_pcm, trim, write_wav


def message(path: Path, rate_hz: int = 16000) -> str:
    with pytest.raises(HwsimError) as raised:
        read_wav(path, rate_hz)
    return str(raised.value)


def sine(hertz: float, rate_hz: int, seconds: float = 0.5) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate_hz)) / rate_hz)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    codes = np.array([0, 1, -1, 32767, -32768, 1234], np.int16)
    write_wav(tmp_path / "a.wav", codes / 32768, 16000)
    assert np.array_equal(read_wav(tmp_path / "a.wav", 16000), codes / 32768)


def test_samples_are_rounded_to_even_and_clipped() -> None:
    assert to_pcm(np.array([0.5, 1.5, -2.5, 40000, -40000]) / 32768).tolist() == [0, 2, -2, 32767, -32768]


def test_another_rate_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, sine(440, 22050), 22050)
    assert message(path) == f"{path}: must be sampled at 16000 Hz, got 22050 Hz"


def test_empty_and_silent_audio_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, [], 16000)
    assert message(path) == f"{path}: must be longer than nothing, got 0 samples"
    write_wav(path, np.zeros(100), 16000)
    silent = f"{path}: must not be silent (peak at least -80 dB of full scale), got"
    assert message(path) == f"{silent} only zeros"
    write_wav(path, np.full(100, 2 / 32768), 16000)
    assert message(path) == f"{silent} a peak of -84 dB"
    write_wav(path, np.full(100, 4 / 32768), 16000)
    assert read_wav(path, 16000).tolist() == [4 / 32768] * 100


@pytest.mark.parametrize(
    ("channels", "width", "said"),
    [(2, 2, "must have 1 channel, got 2"), (1, 1, "must have 2 bytes a sample, got 1")],
)
def test_stereo_and_other_widths_are_refused(channels: int, width: int, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(16000)
        file.writeframes(b"\x01\x02" * 40)
    assert message(path) == f"{path}: {said}"


def test_what_is_no_wav_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    assert message(path) == f"{path}: must be a WAV file, got no such file or directory"
    path.write_bytes(b"ID3 and then some music")
    assert message(path) == f"{path}: must be a WAV file of 16-bit PCM, got file does not start with RIFF id"
    path.write_bytes(b"")
    assert message(path) == f"{path}: must be a WAV file of 16-bit PCM, got a file that ends early"


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "no" / "a.wav"
    with pytest.raises(HwsimError, match=r"a.wav: must be writable, got no such file or directory"):
        write_wav(path, [0.1], 16000)


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (np.ones((2, 3)), "audio: must be samples of one channel, got an array of shape (2, 3)"),
        ([0.1, np.nan], "audio: must be finite, got nan"),
        ([0.1, -np.inf], "audio: must be finite, got -inf"),
    ],
)
def test_arrays_that_are_no_audio_are_refused(samples: np.ndarray, said: str) -> None:
    with pytest.raises(HwsimError) as raised:
        check_audio(samples)
    assert str(raised.value) == said


@pytest.mark.parametrize("hertz", [50, 440, 3000, 7100])
def test_a_tone_keeps_its_phase_and_height_at_another_rate(hertz: float) -> None:
    found = resample(sine(hertz, 22050), 22050, 16000)
    assert found.shape == (8000,)
    middle = slice(200, -200)
    np.testing.assert_allclose(found[middle], sine(hertz, 16000)[middle], atol=2e-3)


def test_what_the_new_rate_cannot_carry_is_60_db_down() -> None:
    found = resample(sine(8100, 22050), 22050, 16000)[200:-200]
    assert decibels(power(found) / power(sine(8100, 22050))) < -60


def test_a_resampled_signal_is_the_sum_of_its_resampled_samples() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 300))
    np.testing.assert_allclose(
        resample(2 * a + b, 22050, 16000), 2 * resample(a, 22050, 16000) + resample(b, 22050, 16000), atol=1e-12
    )


@given(st.integers(0, 500), st.sampled_from([(22050, 16000), (8000, 16000), (16000, 16000)]))
def test_the_length_is_that_of_the_signal(count: int, rates: tuple[int, int]) -> None:
    assert len(resample(np.ones(count), *rates)) == -(-count * rates[1] // rates[0])


def test_the_same_rate_changes_nothing() -> None:
    signal = np.random.default_rng(0).standard_normal(50)
    assert np.array_equal(resample(signal, 8000, 8000), signal)


def test_quiet_ends_are_cut_off_and_quiet_middles_stay() -> None:
    assert trim(np.array([0, 1e-4, 0.5, 0, 0, -1, 9e-4, 0])).tolist() == [0.5, 0, 0, -1]
    assert trim(np.zeros(4)).size == 0
    assert trim(np.zeros(0)).size == 0
