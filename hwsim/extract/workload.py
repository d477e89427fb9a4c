"""A network of the catalogue or of the user's, ready to be turned into operations."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from hwsim import catalogue
from hwsim.config import read_document, validate
from hwsim.errors import ConfigError, HwsimError
from hwsim.extract.cascade import PASSES, emit_cascade
from hwsim.extract.ctc import emit_head
from hwsim.extract.encoder import encoder_frames
from hwsim.extract.encoder_spec import BifocalEncoderSpec, CascadedEncoderSpec
from hwsim.extract.graph import store
from hwsim.extract.graph.model import ExtractedModel
from hwsim.extract.hybrid import ALONE, RESCORING, emit_after_scores, emit_rescoring
from hwsim.extract.interface import AnyWorkload
from hwsim.extract.rnnt import SearchNetworks, declare_search, emit_encoder
from hwsim.extract.spec import (
    CtcSpec,
    DecodeDefaults,
    HybridSpec,
    LanguageModelSpec,
    NetworkSpec,
    RescoringDefaults,
)
from hwsim.numerics.policy import PrecisionPolicy
from hwsim.speech.spec import SpeechSpec
from hwsim.trace import Trace, TraceBuilder

Definition = NetworkSpec | CtcSpec | HybridSpec | LanguageModelSpec
ACOUSTIC = ("encoder", "prediction", "joint", "head")
"""Components of the acoustic model, of each pass or side; those of several have a suffix, as in `encoder_first`."""
FAMILIES: dict[str, type[Definition]] = {
    "rnnt": NetworkSpec, "ctc": CtcSpec, "hybrid": HybridSpec, "lm": LanguageModelSpec,
}  # fmt: skip
"""What a file may be, by its `family`."""


@dataclass(frozen=True, eq=False)
class Workload:
    """A network and how it is decoded by default. Two of the same content are equal."""

    definition: Definition
    digest: str
    """SHA-256 of the definition, 12 digits."""

    @classmethod
    def of(cls, definition: Definition) -> Workload:
        """A workload of a definition."""
        return cls(definition, hashlib.sha256(definition.model_dump_json().encode()).hexdigest()[:12])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Workload) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def name(self) -> str:
        """Name of the workload."""
        return self.definition.name

    @property
    def spec(self) -> NetworkSpec:
        """The definition of a transducer. Raises HwsimError for a network of another family."""
        if isinstance(self.definition, NetworkSpec):
            return self.definition
        raise HwsimError(f"{self.name}: must be a transducer, of family rnnt, got {self.definition.family}")

    @property
    def speech(self) -> SpeechSpec | None:
        """The synthetic speech that its file defines."""
        return self.spec.speech if self.transduces else None

    @property
    def language_models(self) -> tuple[str, ...]:
        """Components that are language models: external_lm, source_lm."""
        return tuple(self.spec.language_models) if self.transduces else ()

    @property
    def decode(self) -> DecodeDefaults:
        """How it is decoded when nothing else is said; without a search only frames and source are read."""
        own = self.definition.decode
        if isinstance(own, DecodeDefaults):
            return own
        frames = own.words if isinstance(own, RescoringDefaults) else own.frames
        return DecodeDefaults(algorithm="greedy", beam=1, frames=frames, labels_per_second=1.0, source=own.source)

    @property
    def n_best(self) -> int | None:
        """Hypotheses that a language model scores when nothing else is said; None where no graph is searched."""
        own = self.definition
        return own.decode.n_best if isinstance(own, HybridSpec | LanguageModelSpec) else None

    @property
    def frame_period_s(self) -> float:
        """Time between encoder input frames, s; between the words of a language model alone."""
        own = self.definition
        return 1 / own.decode.words_per_second if isinstance(own, LanguageModelSpec) else own.frame_period_s

    @property
    def transduces(self) -> bool:
        """Whether a search follows the encoder."""
        return isinstance(self.definition, NetworkSpec)

    @property
    def labels(self) -> int:
        """Scores of a row of the joint, or of a frame of the head, blank included; or words of a language model."""
        own = self.definition
        if isinstance(own, LanguageModelSpec):
            return own.model.vocabulary
        return own.joint.outputs if isinstance(own, NetworkSpec) else own.head.outputs

    def audio_seconds(self, frames: int) -> float:
        """Length of the audio behind a number of encoder input frames, or of words of a language model alone."""
        return frames * self.frame_period_s

    def encoder_frames(self, frames: int) -> int:
        """Frames that the encoder gives for a number of its input frames; words stay words."""
        own = self.definition
        return frames if isinstance(own, LanguageModelSpec) else encoder_frames(own.encoder, frames)

    def emit_encoder(self, b: TraceBuilder, frames: int) -> list[int]:
        """Add the encoder over an utterance, and the head if it has one; return the tensors of the output.

        Of a language model alone it is the model, over one hypothesis of `frames` words.
        """
        return self._emit(b, frames)

    def _emit(self, b: TraceBuilder, frames: int, whole: bool = False) -> list[int]:
        own = self.definition
        if isinstance(own, LanguageModelSpec):
            return [emit_rescoring(b, ALONE, own.model, frames, 1)]
        out = emit_encoder(b, own.encoder, frames, whole=whole)
        if isinstance(own, NetworkSpec):
            return out
        return [emit_head(b, own.head, out, own.encoder.outputs, self.encoder_frames(frames))]

    def emit_utterance(self, b: TraceBuilder, frames: int, n_best: int | None = None) -> None:
        """Add all that is timed of an utterance that no search here follows: scores, and the rescoring of `n_best`.

        `n_best` None is the workload's own.
        """
        own, count = self.definition, self.n_best if n_best is None else n_best
        if isinstance(own, LanguageModelSpec):
            emit_rescoring(b, ALONE, own.model, frames, count or 1)
            return
        (scores, *_) = self._emit(b, frames)
        if isinstance(own, HybridSpec):
            audio_s = self.audio_seconds(frames)
            emit_after_scores(b, own, scores, self.encoder_frames(frames), audio_s, count or 0)

    @property
    def passes(self) -> tuple[str, ...]:
        """Passes over an utterance, `first` and `second` of cascaded encoders; else one without a name."""
        own = self.definition
        return PASSES if isinstance(own, NetworkSpec) and isinstance(own.encoder, CascadedEncoderSpec) else ("",)

    def emit_passes(self, b: TraceBuilder, frames: int, whole: bool = False) -> Iterator[tuple[str, list[int]]]:
        """Add what each pass has of the encoder, when it is asked for; yield the pass and the tensors of its output."""
        encoder = self.spec.encoder
        if isinstance(encoder, CascadedEncoderSpec):
            yield from emit_cascade(b, encoder, frames, whole)
        else:
            yield "", self._emit(b, frames, whole)

    def declare_search(self, b: TraceBuilder, encoder_out: list[int], frames: int, rows: int,
                       models: Sequence[str], part: str = "") -> SearchNetworks:  # fmt: skip
        """Declare what the search of a pass evaluates, for up to `rows` hypotheses of `frames` encoder frames."""
        return declare_search(b, self.spec, encoder_out, frames, rows, models, part)

    def native(self, trace: Trace, policy: PrecisionPolicy) -> Trace:
        """Raises HwsimError: a network of the catalogue has no number formats of its own."""
        raise HwsimError(f"precision must be a policy or a format for {self.name}, got {policy.name}: only extracted "
                         "models have formats of their own")  # fmt: skip

    @property
    def networks(self) -> Trace:
        """The networks alone (one frame, one hypothesis, all language models), to count their parameters."""
        return _networks(self)


@lru_cache(maxsize=32)
def _networks(workload: Workload) -> Trace:
    builder = TraceBuilder(workload.name)
    own = workload.definition
    frames = 1 if isinstance(own, LanguageModelSpec) else own.encoder.reduction
    if isinstance(own, NetworkSpec):
        return _transducer(workload, builder, own)
    workload._emit(builder, frames, whole=True)
    if isinstance(own, HybridSpec) and own.rescoring_lm is not None:
        emit_rescoring(builder, RESCORING, own.rescoring_lm, 1, 1)
    return builder.build()


def _transducer(workload: Workload, builder: TraceBuilder, spec: NetworkSpec) -> Trace:
    two = isinstance(spec.encoder, BifocalEncoderSpec)
    frames = spec.encoder.left_frames + 1 if isinstance(spec.encoder, BifocalEncoderSpec) else spec.encoder.reduction
    for part, encoder_out in workload.emit_passes(builder, frames, whole=True):
        models = workload.language_models if part == workload.passes[-1] else ()
        parts = workload.declare_search(builder, encoder_out, workload.encoder_frames(frames), 1, models, part)
        parts.project_encoder(builder, 1, hoisted=two)
        for stack in (parts.prediction, *parts.language_models):
            stack.step(builder, 1)
        parts.project_prediction(builder, 1, hoisted=False)
        parts.join(builder, 1)
    return builder.build()


def parameter_counts(workload: AnyWorkload) -> dict[str, int]:
    """Parameters per component, with `acoustic` for encoder + prediction + joint, or encoder + head.

    `acoustic_training` is that with a branch which only training has, where the network has one. A language model
    alone has no `acoustic`.
    """
    networks = workload.networks
    names = [name for name in networks.components if networks.totals(name).parameters]
    counts = {name: networks.totals(name).parameters for name in names}
    definition = getattr(workload, "definition", None)
    if isinstance(definition, LanguageModelSpec):
        return counts
    counts["acoustic"] = sum(count for name, count in counts.items() if name.partition("_")[0] in ACOUSTIC)
    if isinstance(definition, HybridSpec) and definition.training_branch:
        counts["acoustic_training"] = counts["acoustic"] + definition.training_parameters
    return counts


@lru_cache(maxsize=64)
def _load(path: Path, modified_ns: int) -> Workload:
    document = read_document(path)
    family = document.data.get("family", "rnnt") if isinstance(document.data, dict) else "rnnt"
    if family not in FAMILIES:
        where = document.where(("family",))
        raise ConfigError(f"{where}: family must be one of 'rnnt', 'ctc', 'hybrid' or 'lm', got {family!r}")
    spec: Definition = validate(FAMILIES[family], document)
    return Workload.of(spec)


def load_workload(name_or_path: str | Path) -> AnyWorkload:
    """Load a network by catalogue name, by the path of a YAML file, or by that of an extracted model (`.hwsim`).

    Raises HwsimError for an unknown name (with the nearest ones), ConfigError for a file that breaks the schema,
    naming file, line, key and rule, and HwsimError for a damaged model.
    """
    if str(name_or_path).endswith(store.SUFFIX):
        path = Path(name_or_path)
        if not path.is_file():
            raise HwsimError(f"{path}: must be a file, got nothing there")
        return _load_model(path, path.stat().st_mtime_ns)
    return load_network(name_or_path)


def load_network(name_or_path: str | Path) -> Workload:
    """`load_workload` of the catalogue or of a YAML file only."""
    path = catalogue.find("workloads", "workload", name_or_path)
    return _load(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _load_model(path: Path, modified_ns: int) -> ExtractedModel:
    return store.load_model(path)


def json_schema() -> dict[str, Any]:
    """JSON Schema of a file of `workloads/`, for editors."""
    return TypeAdapter(Annotated[Definition, Field(discriminator="family")]).json_schema()
