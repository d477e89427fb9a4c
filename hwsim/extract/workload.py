"""A network of the catalogue or of the user's, ready to be turned into operations."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from hwsim import catalogue
from hwsim.config import read_document, validate
from hwsim.errors import ConfigError, HwsimError
from hwsim.extract.ctc import emit_head
from hwsim.extract.encoder import encoder_frames
from hwsim.extract.graph import store
from hwsim.extract.graph.model import ExtractedModel
from hwsim.extract.interface import AnyWorkload
from hwsim.extract.rnnt import SearchNetworks, declare_search, emit_encoder
from hwsim.extract.spec import CtcSpec, DecodeDefaults, NetworkSpec
from hwsim.numerics.policy import PrecisionPolicy
from hwsim.speech.spec import SpeechSpec
from hwsim.trace import Trace, TraceBuilder

ACOUSTIC = ("encoder", "prediction", "joint", "head")
"""Components of the acoustic model."""


@dataclass(frozen=True, eq=False)
class Workload:
    """A network and how it is decoded by default. Two of the same content are equal."""

    definition: NetworkSpec | CtcSpec
    digest: str
    """SHA-256 of the definition, 12 digits."""

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
        """How it is decoded when nothing else is said; of a CTC network only frames and source are read."""
        own = self.definition.decode
        if isinstance(own, DecodeDefaults):
            return own
        return DecodeDefaults(algorithm="greedy", beam=1, frames=own.frames, labels_per_second=1.0, source=own.source)

    @property
    def frame_period_s(self) -> float:
        """Time between encoder input frames, s."""
        return self.definition.frame_period_s

    @property
    def transduces(self) -> bool:
        """Whether a search follows the encoder."""
        return isinstance(self.definition, NetworkSpec)

    @property
    def labels(self) -> int:
        """Scores of a row of the joint, or of a frame of the head, blank included."""
        own = self.definition
        return own.head.outputs if isinstance(own, CtcSpec) else own.joint.outputs

    def audio_seconds(self, frames: int) -> float:
        """Length of the audio behind a number of encoder input frames."""
        return frames * self.frame_period_s

    def encoder_frames(self, frames: int) -> int:
        """Frames that the encoder gives for a number of its input frames."""
        return encoder_frames(self.definition.encoder, frames)

    def emit_encoder(self, b: TraceBuilder, frames: int) -> list[int]:
        """Add the encoder over an utterance, and the head of a CTC network; return the tensors of the output."""
        return self._emit(b, frames)

    def _emit(self, b: TraceBuilder, frames: int, whole: bool = False) -> list[int]:
        own = self.definition
        out = emit_encoder(b, own.encoder, frames, whole=whole)
        if isinstance(own, CtcSpec):
            return [emit_head(b, own.head, out, own.encoder.outputs, self.encoder_frames(frames))]
        return out

    def declare_search(self, b: TraceBuilder, encoder_out: list[int], frames: int, rows: int,
                       models: Sequence[str]) -> SearchNetworks:  # fmt: skip
        """Declare what a search evaluates, for up to `rows` hypotheses of `frames` encoder frames."""
        return declare_search(b, self.spec, encoder_out, frames, rows, models)

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
    encoder_out = workload._emit(builder, workload.definition.encoder.reduction, whole=True)
    if not workload.transduces:
        return builder.build()
    parts = declare_search(builder, workload.spec, encoder_out, 1, 1, workload.language_models)
    parts.joint.project_encoder(builder, encoder_out, 1, "joint.encoder_projection")
    for stack in (parts.prediction, *parts.language_models):
        stack.step(builder, 1)
    parts.joint.project_prediction(builder, parts.prediction.layers[-1].h, 1, "joint.prediction_projection")
    parts.joint.step(builder, 1)
    return builder.build()


def parameter_counts(workload: AnyWorkload) -> dict[str, int]:
    """Parameters per component, with `acoustic` for encoder + prediction + joint, or encoder + head."""
    networks = workload.networks
    names = [name for name in networks.components if networks.totals(name).parameters]
    counts = {name: networks.totals(name).parameters for name in names}
    counts["acoustic"] = sum(counts.get(name, 0) for name in ACOUSTIC)
    return counts


@lru_cache(maxsize=64)
def _load(path: Path, modified_ns: int) -> Workload:
    document = read_document(path)
    family = document.data.get("family", "rnnt") if isinstance(document.data, dict) else "rnnt"
    if family not in ("rnnt", "ctc"):
        where = document.where(("family",))
        raise ConfigError(f"{where}: family must be one of 'rnnt' or 'ctc', got {family!r}")
    spec = validate(CtcSpec, document) if family == "ctc" else validate(NetworkSpec, document)
    return Workload(spec, hashlib.sha256(spec.model_dump_json().encode()).hexdigest()[:12])


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
    return TypeAdapter(Annotated[NetworkSpec | CtcSpec, Field(discriminator="family")]).json_schema()
