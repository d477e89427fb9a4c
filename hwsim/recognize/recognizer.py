"""A recognizer: the executables of one trained network at one precision, and how its labels are words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hwsim.decode.beam import Decoded, Search
from hwsim.decode.prefixes import Array
from hwsim.decode.rows import DecodeSchedule
from hwsim.decode.settings import DecodeSettings, Fusion
from hwsim.errors import HwsimError, nearest
from hwsim.execute.executor import Executable
from hwsim.recognize.networks import EncoderStream, JointNetwork, StepNetwork

PARTS = ("encoder", "prediction", "joint")
MODELS = {"none": (), "shallow": ("external_lm",), "density-ratio": ("external_lm", "source_lm")}
"""The language models of each kind of fusion, in the order in which a search takes them."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """Words of the best hypothesis, the n best with their scores, and what the search evaluated."""

    words: str
    n_best: tuple[tuple[str, float], ...]
    decoded: Decoded
    frames: int
    """Frames of features."""

    def schedule(self, settings: DecodeSettings) -> DecodeSchedule:
        """Rows and calls of each network at each step, for a decoder with these switches."""
        return self.decoded.schedule(settings)


@dataclass(frozen=True, slots=True, eq=False)
class Recognizer:
    """Encoder, prediction step, joint step and language model steps on integer codes, and the words of the labels.

    `networks`: by component name; `encoder`, `prediction` and `joint` must be there. `words`: word i is label i + 1;
    0 is blank, and begins and ends a sentence of a language model. `about`: JSON values, what made it: workload,
    precision, figures. Raises HwsimError for a missing network and for words that do not fit the joint's outputs.
    """

    networks: Mapping[str, Executable]
    words: tuple[str, ...]
    stack: int = 1
    """How many frames of features the encoder reads for each row that it gives."""
    fusions: Mapping[str, Fusion] = field(default_factory=dict)
    """Weights of language models by the kind of fusion, `shallow` and `density-ratio`; `Fusion()` where none are."""
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in PARTS:
            if name not in self.networks:
                raise HwsimError(f"a recognizer must hold {', '.join(PARTS)}, got no {name}")
        labels = self.networks["joint"].network.tensors["joint.output.logits"].shape[-1]
        if labels != len(self.words) + 1:
            raise HwsimError(f"a recognizer of {labels} outputs must have {labels - 1} words, got {len(self.words)}")

    @property
    def width(self) -> int:
        """Features of a frame."""
        return self.networks["encoder"].network.tensors["encoder.input.features"].shape[-1]

    def labels(self, text: str) -> tuple[int, ...]:
        """Labels of words. Raises HwsimError for a word that it does not know, with the nearest."""
        for word in text.split():
            if word not in self.words:
                raise HwsimError(f"unknown word '{word}'{nearest(word, self.words)}")
        return tuple(self.words.index(word) + 1 for word in text.split())

    def text(self, labels: tuple[int, ...]) -> str:
        """Words of labels."""
        return " ".join(self.words[label - 1] for label in labels)

    def search(self, settings: DecodeSettings, fusion: Fusion | None = None) -> Search:
        """A search over its networks. Raises HwsimError for a language model that it has not."""
        models = []
        for name in MODELS[settings.lm]:
            if name not in self.networks:
                raise HwsimError(f"lm {settings.lm} must have {name} in the recognizer, got {', '.join(self.networks)}")
            models.append(StepNetwork(self.networks[name], f"{name}.output.logits"))
        networks = JointNetwork(self.networks["prediction"], self.networks["joint"])
        return Search(networks, settings, fusion or self.fusions.get(settings.lm), models)

    def encode(self, features: Array) -> Array:
        """What the joint reads of a whole utterance (T, K): (T', J) reals."""
        return EncoderStream(self.networks["encoder"], self.stack).feed(features, last=True)

    def transcribe(
        self, features: Array, settings: DecodeSettings, fusion: Fusion | None = None, n_best: int = 1,
        encoded: Array | None = None,
    ) -> Transcript:  # fmt: skip
        """Decode an utterance of features (T, K), of at least one frame; `encoded` saves encoding it again."""
        search = self.search(settings, fusion)
        search.feed(self.encode(features) if encoded is None else encoded)
        return self._transcript(search.finish(n_best), len(features))

    def stream(self, settings: DecodeSettings, fusion: Fusion | None = None) -> Stream:
        """Decode an utterance that comes in pieces."""
        return Stream(self, self.search(settings, fusion))

    def _transcript(self, decoded: Decoded, frames: int) -> Transcript:
        n_best = tuple((self.text(one.labels), one.score) for one in decoded.n_best)
        return Transcript(n_best[0][0], n_best, decoded, frames)


class Stream:
    """An utterance in pieces: `feed` features, read the words so far, `finish`. The end is that of the whole."""

    def __init__(self, recognizer: Recognizer, search: Search) -> None:
        self._recognizer, self._search, self._frames = recognizer, search, 0
        self._encoder = EncoderStream(recognizer.networks["encoder"], recognizer.stack)

    def feed(self, features: Array) -> str:
        """The best words after more features (T, K)."""
        self._frames += len(features)
        rows = self._encoder.feed(features)
        if len(rows):
            self._search.feed(rows)
        return self._recognizer.text(self._search.partial().labels)

    def finish(self, n_best: int = 1) -> Transcript:
        """The transcript of all that was fed. Raises HwsimError without a frame."""
        rest = self._encoder.feed(self._encoder.nothing, last=True)
        if len(rest):
            self._search.feed(rest)
        return self._recognizer._transcript(self._search.finish(n_best), self._frames)
