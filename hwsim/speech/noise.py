"""Noise of three kinds, and how loud it is beside the speech.

The signal-to-noise ratio of an utterance is 10 log10(Ps / Pn). Ps is the mean square of the speech from its first to
its last sound, pauses between words included and padding not; Pn is the mean square of the noise, which lies under
the whole utterance, padding included.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwsim.errors import HwsimError
from hwsim.speech.audio import Samples, power

_BLOCK = 4096


def white(count: int, rng: np.random.Generator) -> Samples:
    """Independent normal samples (count,)."""
    return rng.standard_normal(count)


def pink(count: int, rng: np.random.Generator) -> Samples:
    """Noise (count,) whose power falls with 1 / frequency, about as the spectrum of speech does; nothing at 0 Hz."""
    # A multiple of a power of two, because transforms of other lengths are slow.
    size = -(-count // _BLOCK) * _BLOCK
    spectrum = np.fft.rfft(rng.standard_normal(size))
    index = np.arange(len(spectrum), dtype=np.float64)
    index[0] = np.inf
    return np.fft.irfft(spectrum / np.sqrt(index), size)[:count]


def babble(count: int, rng: np.random.Generator, pool: Sequence[Samples], talkers: int) -> Samples:
    """So many utterances of `pool` at once, (count,): each backwards, of power 1, repeated from a random place."""
    total = np.zeros(count)
    for chosen in rng.integers(len(pool), size=talkers):
        voice = pool[int(chosen)][::-1]
        start = int(rng.integers(len(voice)))
        total += np.resize(np.roll(voice, -start), count) / np.sqrt(power(voice))
    return total


def make_noise(kind: str, count: int, rng: np.random.Generator, pool: Sequence[Samples] = (),
               talkers: int = 1) -> Samples:  # fmt: skip
    """Noise (count,) of a kind: white, pink or babble. Babble needs a pool of utterances."""
    if kind == "babble":
        if not pool:
            raise HwsimError("babble must be made of at least one utterance, got none")
        return babble(count, rng, pool, talkers)
    return {"white": white, "pink": pink}[kind](count, rng)


def scale_noise(noise: Samples, speech_power: float, snr_db: float) -> Samples:
    """The noise, of the power speech_power / 10^(snr_db / 10)."""
    gain: float = np.sqrt(speech_power / (power(noise) * 10 ** (snr_db / 10)))
    return gain * noise
