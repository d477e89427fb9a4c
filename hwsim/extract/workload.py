"""A network of the catalogue or of the user's, ready to be turned into operations."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from hwsim import catalogue
from hwsim.config import read_document, validate
from hwsim.errors import HwsimError
from hwsim.extract.encoder import encoder_frames
from hwsim.extract.graph import store
from hwsim.extract.graph.model import ExtractedModel
from hwsim.extract.interface import AnyWorkload
from hwsim.extract.rnnt import SearchNetworks, declare_search, emit_encoder
from hwsim.extract.spec import DecodeDefaults, NetworkSpec
from hwsim.numerics.policy import PrecisionPolicy
from hwsim.trace import Trace, TraceBuilder


@dataclass(frozen=True, eq=False)
class Workload:
    """A network and how it is decoded by default. Two of the same content are equal."""

    spec: NetworkSpec
    digest: str
    """SHA-256 of the specification, 12 digits."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Workload) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def name(self) -> str:
        """Name of the workload."""
        return self.spec.name

    @property
    def language_models(self) -> tuple[str, ...]:
        """Components that are language models: external_lm, source_lm."""
        return tuple(self.spec.language_models)

    @property
    def decode(self) -> DecodeDefaults:
        """How it is decoded when nothing else is said."""
        return self.spec.decode

    @property
    def frame_period_s(self) -> float:
        """Time between encoder input frames, s."""
        return self.spec.frame_period_s

    @property
    def transduces(self) -> bool:
        """Whether a search follows the encoder."""
        return True

    @property
    def labels(self) -> int:
        """Scores of a row of the joint, blank included."""
        return self.spec.joint.outputs

    def audio_seconds(self, frames: int) -> float:
        """Length of the audio behind a number of encoder input frames."""
        return frames * self.spec.frame_period_s

    def encoder_frames(self, frames: int) -> int:
        """Frames that the search sees for a number of encoder input frames."""
        return encoder_frames(self.spec.encoder, frames)

    def emit_encoder(self, b: TraceBuilder, frames: int) -> list[int]:
        """Add the encoder over an utterance; return the tensors of its output."""
        return emit_encoder(b, self.spec.encoder, frames)

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
    spec = workload.spec
    builder = TraceBuilder(workload.name)
    encoder_out = emit_encoder(builder, spec.encoder, spec.encoder.reduction, whole=True)
    parts = declare_search(builder, spec, encoder_out, 1, 1, workload.language_models)
    parts.joint.project_encoder(builder, encoder_out, 1, "joint.encoder_projection")
    for stack in (parts.prediction, *parts.language_models):
        stack.step(builder, 1)
    parts.joint.project_prediction(builder, parts.prediction.layers[-1].h, 1, "joint.prediction_projection")
    parts.joint.step(builder, 1)
    return builder.build()


def parameter_counts(workload: AnyWorkload) -> dict[str, int]:
    """Parameters per component, with `acoustic` for encoder + prediction + joint."""
    networks = workload.networks
    names = [name for name in networks.components if networks.totals(name).parameters]
    counts = {name: networks.totals(name).parameters for name in names}
    counts["acoustic"] = sum(counts.get(name, 0) for name in ("encoder", "prediction", "joint"))
    return counts


@lru_cache(maxsize=64)
def _load(path: Path, modified_ns: int) -> Workload:
    spec = validate(NetworkSpec, read_document(path))
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
    return NetworkSpec.model_json_schema()
