"""A network of the catalogue or of the user's, ready to be turned into operations."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from hwsim import catalogue
from hwsim.config import read_document, validate
from hwsim.extract.rnnt import declare_search, emit_encoder, encoder_frames
from hwsim.extract.spec import NetworkSpec
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

    def audio_seconds(self, frames: int) -> float:
        """Length of the audio behind a number of encoder input frames."""
        return frames * self.spec.frame_period_s

    def encoder_frames(self, frames: int) -> int:
        """Frames that the search sees for a number of encoder input frames."""
        return encoder_frames(self.spec.encoder, frames)

    @property
    def networks(self) -> Trace:
        """The networks alone (one frame, one hypothesis, all language models), to count their parameters."""
        return _networks(self)


@lru_cache(maxsize=32)
def _networks(workload: Workload) -> Trace:
    spec = workload.spec
    builder = TraceBuilder(workload.name)
    encoder_out = emit_encoder(builder, spec.encoder, spec.encoder.stack_factor)
    parts = declare_search(builder, spec, encoder_out, 1, 1, workload.language_models)
    parts.joint.project_encoder(builder, encoder_out, 1, "joint.encoder_projection")
    for stack in (parts.prediction, *parts.language_models):
        stack.step(builder, 1)
    parts.joint.project_prediction(builder, parts.prediction.layers[-1].h, 1, "joint.prediction_projection")
    parts.joint.step(builder, 1)
    return builder.build()


def parameter_counts(workload: Workload) -> dict[str, int]:
    """Parameters per component, with `acoustic` for encoder + prediction + joint."""
    networks = workload.networks
    names = [name for name in networks.components if networks.totals(name).parameters]
    counts = {name: networks.totals(name).parameters for name in names}
    counts["acoustic"] = sum(counts[name] for name in ("encoder", "prediction", "joint"))
    return counts


@lru_cache(maxsize=64)
def _load(path: Path, modified_ns: int) -> Workload:
    spec = validate(NetworkSpec, read_document(path))
    return Workload(spec, hashlib.sha256(spec.model_dump_json().encode()).hexdigest()[:12])


def load_workload(name_or_path: str | Path) -> Workload:
    """Load a network by catalogue name or by the path of a YAML file.

    Raises HwsimError for an unknown name (with the nearest ones) and ConfigError for a file that breaks the
    schema, naming file, line, key and rule.
    """
    path = catalogue.find("workloads", "workload", name_or_path)
    return _load(path, path.stat().st_mtime_ns)


def json_schema() -> dict[str, Any]:
    """JSON Schema of a file of `workloads/`, for editors."""
    return NetworkSpec.model_json_schema()
