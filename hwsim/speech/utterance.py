"""One utterance of a split: everything that is drawn for it, its audio, its features.

Each utterance has its own random numbers, by seed, split and index, so that it does not depend on who makes it or on
what was made before it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwsim.errors import HwsimError
from hwsim.speech.audio import FULL_SCALE, Samples, power, resample, to_pcm, trim
from hwsim.speech.features import Features, features
from hwsim.speech.grammar import sample_sentence
from hwsim.speech.noise import make_noise, scale_noise
from hwsim.speech.spec import Range, SpeechSpec
from hwsim.speech.synthesis import Synthesizer, Utterance

NO_NOISE = "none"


@dataclass(frozen=True)
class Spoken:
    """An utterance of the set."""

    text: str
    voice: str
    noise: str
    """white, pink, babble or none."""
    snr_db: float
    """Infinite without noise."""
    samples: int
    frames: Features
    """(T, bins x stack), not normalized."""


def generator(seed: int, *place: str | int) -> np.random.Generator:
    """The random numbers of one place, such as the noise of utterance 7 of a split."""
    return np.random.default_rng([seed, *(zlib.crc32(p.encode()) if isinstance(p, str) else p for p in place)])


def speak(spec: SpeechSpec, grammar: str, voices: str, synthesizer: Synthesizer,
          rng: np.random.Generator) -> tuple[Utterance, Samples]:  # fmt: skip
    """Draw a sentence, a voice, a speed and a pitch, and say it: samples (N,) at the rate of the features, trimmed.

    Raises HwsimError when the synthesizer says nothing.
    """
    names, ranges = spec.voices[voices], spec.synthesis
    utterance = Utterance(
        " ".join(sample_sentence(spec.grammars[grammar], rng)),
        names[int(rng.integers(len(names)))],
        _whole(ranges.words_per_minute, rng),
        _whole(ranges.pitch, rng),
    )
    sound, rate_hz = synthesizer.speak(utterance)
    speech = trim(resample(sound, rate_hz, spec.features.sample_rate_hz))
    if not speech.size:
        raise HwsimError(f"the voice '{utterance.voice}' must say '{utterance.text}', got silence")
    return utterance, speech


def audio_of(spec: SpeechSpec, split: str, index: int, seed: int, synthesizer: Synthesizer,
             pool: Sequence[Samples] = ()) -> tuple[Utterance, Samples, str, float]:  # fmt: skip
    """The utterance, its audio (N,) as 16-bit samples give it, its noise and its SNR in dB.

    `pool` is what babble is made of. The audio is made quieter as a whole where it would go beyond full scale.
    """
    described = spec.splits[split]
    rng = generator(seed, described.speech_of or split, "speech", index)
    utterance, speech = speak(spec, described.grammar, described.voices, synthesizer, rng)
    speech *= 10 ** (rng.uniform(*spec.synthesis.level_dbfs) / 20) / np.sqrt(power(speech))
    before, after = (round(rng.uniform(*spec.synthesis.padding_s) * spec.features.sample_rate_hz) for _ in range(2))
    audio = np.concatenate([np.zeros(before), speech, np.zeros(after)])
    kind, snr_db = NO_NOISE, np.inf
    rng = generator(seed, split, "noise", index)
    noise = described.noise
    if noise is not None and rng.random() >= noise.clean_share:
        kind = noise.kinds[int(rng.integers(len(noise.kinds)))]
        snr_db = rng.uniform(*noise.snr_db)
        sound = make_noise(kind, len(audio), rng, pool, spec.babble.talkers)
        audio += scale_noise(sound, power(speech), snr_db)
    audio /= max(1.0, float(np.abs(audio).max()) * FULL_SCALE / (FULL_SCALE - 1))
    return utterance, to_pcm(audio) / FULL_SCALE, kind, float(snr_db)


def make_utterance(spec: SpeechSpec, split: str, index: int, seed: int, synthesizer: Synthesizer,
                   pool: Sequence[Samples] = ()) -> Spoken:  # fmt: skip
    """Utterance `index` of a split with its features."""
    utterance, audio, kind, snr_db = audio_of(spec, split, index, seed, synthesizer, pool)
    frames = features(audio, spec.features)
    return Spoken(utterance.text, utterance.voice, kind, snr_db, len(audio), frames)


def make_pool(spec: SpeechSpec, split: str, seed: int, synthesizer: Synthesizer) -> list[Samples]:
    """The utterances of which babble is made for the voices of a split, each (N,) of power 1.

    Splits of the same voices and the same grammar have the same pool.
    """
    described = spec.splits[split]
    made = []
    for index in range(spec.babble.utterances):
        rng = generator(seed, described.voices, described.grammar, "babble", index)
        _, speech = speak(spec, described.grammar, described.voices, synthesizer, rng)
        made.append(speech / np.sqrt(power(speech)))
    return made


def _whole(between: Range, rng: np.random.Generator) -> int:
    return int(rng.integers(round(between[0]), round(between[1]), endpoint=True))
