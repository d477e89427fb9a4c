"""The section `speech` of a network file: what is said, by whom, in what noise, and what the network hears of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from hwsim.config import Frozen
from hwsim.errors import nearest
from hwsim.speech.grammar import check_grammar


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("two numbers, the smaller one first")
    return pair


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Range = Annotated[tuple[float, float], AfterValidator(_ordered)]
"""Lowest and highest value; what is drawn between them is uniform."""
Kind = Literal["white", "pink", "babble"]


class GrammarSpec(Frozen):
    """A small probabilistic grammar: a sentence begins as `<start>`, and every `<name>` becomes one of its texts."""

    start: Name = "sentence"
    """The name that a sentence begins as."""
    rules: dict[Name, Annotated[dict[str, Positive], Field(min_length=1)]]
    """Name to its texts, each with a weight. A text is words and `<names>`, separated by spaces."""
    source: str

    @model_validator(mode="after")
    def _is_a_grammar(self) -> GrammarSpec:
        check_grammar(self.rules, self.start)
        return self


class TextSpec(Frozen):
    """Sentences without audio, to train the external language model."""

    grammar: Name
    """Of `grammars`."""
    sentences: Count
    source: str


class NoiseSpec(Frozen):
    """What is added to the speech of a split."""

    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)]
    """One of these for each utterance, all equally often."""
    snr_db: Range
    """Power of the speech over the power of the noise, see `hwsim.speech.noise`."""
    clean_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of utterances without any noise."""


class SplitSpec(Frozen):
    """One file of the set."""

    utterances: Count
    grammar: Name
    """Of `grammars`."""
    voices: Name
    """Of `voices`; each of the list is equally likely."""
    speech_of: Name | None = None
    """Speaks the same sentences in the same voices as that split; only the noise differs."""
    noise: NoiseSpec | None = None
    """No noise when it is not given."""
    source: str


class SynthesisSpec(Frozen):
    """How a sentence is spoken."""

    words_per_minute: Range
    """Speed as espeak-ng counts it, in whole words."""
    pitch: Range
    """Pitch as espeak-ng counts it, 0 to 99, in whole steps."""
    level_dbfs: Range
    """Root mean square of the speech in decibels of full scale, without the padding."""
    padding_s: Range
    """Silence before the first and after the last word, drawn for each."""
    source: str


class BabbleSpec(Frozen):
    """The utterances of which babble is made, by the voices of the split that it disturbs."""

    utterances: Count
    """How many are spoken for each list of voices."""
    talkers: Count
    """How many of them sound at once, at equal power and played backwards, so that no word is in the noise."""
    source: str


class FeatureSpec(Frozen):
    """Log-mel filter bank energies with frames stacked, as Kaldi defines them, without dither."""

    sample_rate_hz: Count
    """Of the audio; another rate is refused."""
    bins: Count
    """Mel bins from `low_hz` to half the sample rate."""
    low_hz: Annotated[float, Field(ge=0)]
    """Lower edge of the first bin."""
    window_s: Positive
    """Length of a window; Kaldi's own shape of it."""
    shift_s: Positive
    """Time between windows."""
    stack: Count
    """Windows side by side in one frame of the network."""
    source: str

    @property
    def width(self) -> int:
        """Features of one frame of the network."""
        return self.bins * self.stack

    @property
    def shortest_samples(self) -> int:
        """Samples of the shortest audio that gives one frame."""
        return round((self.window_s + (self.stack - 1) * self.shift_s) * self.sample_rate_hz)


class SpeechSpec(Frozen):
    """A set of synthetic speech: labels are the words, from 1; label 0 is blank, and to a language model the end."""

    words: Annotated[tuple[str, ...], Field(min_length=1)]
    """Label i is word i - 1."""
    seed: Annotated[int, Field(ge=0)]
    """Of all random numbers, unless the user gives another."""
    grammars: dict[Name, GrammarSpec]
    """What is said."""
    text: TextSpec
    voices: dict[Name, Annotated[tuple[str, ...], Field(min_length=1)]]
    """Lists of espeak-ng voices, `language+variant`. No voice is in two lists."""
    voices_source: str
    synthesis: SynthesisSpec
    babble: BabbleSpec
    features: FeatureSpec
    splits: dict[Name, SplitSpec]
    """Name to what its file `NAME.npz` holds."""
    normalize_by: Name
    """The split over which the mean and the deviation of each mel bin are taken."""

    @model_validator(mode="after")
    def _names_exist(self) -> SpeechSpec:
        for name, split in self.splits.items():
            _known(f"splits.{name}.grammar", split.grammar, self.grammars)
            _known(f"splits.{name}.voices", split.voices, self.voices)
            if split.speech_of is not None:
                _known(f"splits.{name}.speech_of", split.speech_of, self.splits)
                _same_speech(name, split, self.splits[split.speech_of])
        _known("text.grammar", self.text.grammar, self.grammars)
        _known("normalize_by", self.normalize_by, self.splits)
        return self

    @model_validator(mode="after")
    def _each_once(self) -> SpeechSpec:
        _once("words", self.words)
        _once("voices", [voice for voices in self.voices.values() for voice in voices])
        for name, grammar in self.grammars.items():
            for text in (text for texts in grammar.rules.values() for text in texts):
                for word in text.split():
                    if not word.startswith("<"):
                        _known(f"grammars.{name}: '{text}'", word, self.words)
        return self


def _same_speech(name: str, split: SplitSpec, other: SplitSpec) -> None:
    alike = ("utterances", "grammar", "voices")
    if other.speech_of is not None or any(getattr(split, key) != getattr(other, key) for key in alike):
        raise ValueError(
            f"such that splits.{name} has the {', '.join(alike)} of splits.{split.speech_of}, which has no speech_of"
        )


def _known(what: str, name: str, known: object) -> None:
    names = list(known)  # type: ignore[call-overload]
    if name not in names:
        raise ValueError(f"such that {what} is known, not '{name}'{nearest(name, names)}")


def _once(what: str, values: list[str] | tuple[str, ...]) -> None:
    for value in values:
        if list(values).count(value) > 1:
            raise ValueError(f"such that {what} names '{value}' once")
