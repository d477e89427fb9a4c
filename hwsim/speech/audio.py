"""Audio as samples: WAV files in and out, another sample rate, levels. Samples are reals, full scale is 1."""

from __future__ import annotations

import math
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError

Samples = npt.NDArray[np.float64]

FULL_SCALE = 32768
SILENCE_DBFS = -80.0
"""Audio whose peak is below this is silent."""
PASS_BAND = 0.9
"""Share of the band that resampling leaves as it is; above it the gain falls to 0."""
GUARD = 512
"""Zeros after a signal, so that its end does not sound at its beginning when it is resampled."""


def read_wav(path: str | Path, rate_hz: int) -> Samples:
    """Samples (N,) of a WAV file of one channel in 16 bit at `rate_hz`.

    Raises HwsimError for a file of another kind, rate, width or number of channels, and for empty or silent audio.
    """
    path = Path(path)
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate, _, _, _ = file.getparams()
            content = file.readframes(file.getnframes())
    except OSError as error:
        raise HwsimError(f"{path}: must be a WAV file, got {(error.strerror or str(error)).lower()}") from None
    except (wave.Error, EOFError) as error:
        raise HwsimError(
            f"{path}: must be a WAV file of 16-bit PCM, got {str(error) or 'a file that ends early'}"
        ) from None
    for what, wanted, got in (("channel", 1, channels), ("bytes a sample", 2, width)):
        if got != wanted:
            raise HwsimError(f"{path}: must have {wanted} {what}, got {got}")
    if rate != rate_hz:
        raise HwsimError(f"{path}: must be sampled at {rate_hz} Hz, got {rate} Hz")
    samples = np.frombuffer(content[: len(content) // 2 * 2], "<i2").astype(np.float64) / FULL_SCALE
    return check_audio(samples, str(path))


def check_audio(samples: npt.ArrayLike, what: str = "audio") -> Samples:
    """The samples as (N,) reals. Raises HwsimError for empty or silent audio, another shape and wrong numbers."""
    array = np.asarray(samples, np.float64)
    if array.ndim != 1:
        raise HwsimError(f"{what}: must be samples of one channel, got an array of shape {array.shape}")
    if not array.size:
        raise HwsimError(f"{what}: must be longer than nothing, got 0 samples")
    if not np.isfinite(array).all():
        raise HwsimError(f"{what}: must be finite, got {array[~np.isfinite(array)][0]}")
    peak = float(np.abs(array).max())
    if decibels(peak**2) < SILENCE_DBFS:
        level = "only zeros" if peak == 0 else f"a peak of {decibels(peak**2):.0f} dB"
        raise HwsimError(f"{what}: must not be silent (peak at least {SILENCE_DBFS:g} dB of full scale), got {level}")
    return array


def write_wav(path: str | Path, samples: npt.ArrayLike, rate_hz: int) -> None:
    """Write one channel in 16 bit; what is beyond full scale is clipped. Raises HwsimError when it cannot."""
    path = Path(path)
    try:
        with path.open("wb") as raw, wave.open(raw, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate_hz)
            file.writeframes(to_pcm(samples).tobytes())
    except OSError as error:
        raise HwsimError(f"{path}: must be writable, got {(error.strerror or str(error)).lower()}") from None


def to_pcm(samples: npt.ArrayLike) -> npt.NDArray[np.int16]:
    """Samples as 16-bit integers: round(32768 x), ties to even, clipped."""
    scaled = np.rint(np.asarray(samples, np.float64) * FULL_SCALE)
    return np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype("<i2")


def power(samples: Samples) -> float:
    """Mean square of all samples."""
    return float(np.mean(np.square(samples)))


def decibels(ratio: float) -> float:
    """10 log10 of a ratio of powers."""
    return 10 * math.log10(ratio) if ratio > 0 else -math.inf


def trim(samples: Samples, threshold: float = 1e-3) -> Samples:
    """Without what is below `threshold` times the peak at both ends. Empty when all is zero."""
    loud = np.flatnonzero(np.abs(samples) > threshold * np.abs(samples).max(initial=0.0))
    return samples[loud[0] : loud[-1] + 1] if loud.size else samples[:0]


def resample(samples: Samples, from_hz: int, to_hz: int) -> Samples:
    """The signal (N,) at another rate, (ceil(N to_hz / from_hz),).

    Its spectrum is cut off at half the slower rate, behind a raised cosine that begins at `PASS_BAND` of that.
    Zeros are taken before the first and after the last sample.
    """
    divisor = math.gcd(from_hz, to_hz)
    up, down = to_hz // divisor, from_hz // divisor
    if up == down:
        return samples.copy()
    # Whole blocks keep the ratio of both lengths exact, a multiple of 16 blocks makes the transform quick.
    blocks = -(-(len(samples) + GUARD) // (16 * down)) * 16
    spectrum = np.fft.rfft(samples, blocks * down)
    bins = blocks * min(up, down) // 2 + 1
    place = np.arange(bins) / (bins - 1)
    taper = 0.5 + 0.5 * np.cos(np.pi * np.clip((place - PASS_BAND) / (1 - PASS_BAND), 0, 1))
    found: Samples = np.fft.irfft(spectrum[:bins] * taper, blocks * up) * (up / down)
    return found[: -(-len(samples) * up // down)]
