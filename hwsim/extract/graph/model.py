"""A recognizer that was extracted from files or modules: its networks as graphs, ready to be simulated."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from hwsim.errors import HwsimError, nearest
from hwsim.extract.graph.emit import Formats, GraphEmitter
from hwsim.extract.graph.nodes import Graph
from hwsim.extract.graph.passes import simplified, split_by_side
from hwsim.extract.graph.search import ExtractedSearch, ExtractedStep, joint_sides, main_output
from hwsim.extract.spec import DecodeDefaults, NetworkSpec
from hwsim.numerics.policy import NATIVE, PrecisionPolicy
from hwsim.trace import Trace, TraceBuilder

MODELS = ("external_lm", "source_lm")
FULL = "fp32"
COMPONENTS = ("encoder", "prediction", "joint", *MODELS)


@dataclass(frozen=True, eq=False)
class ExtractedModel:
    """Networks by component, and what the files do not say: audio per frame and how words come out.

    `frames`: input frames that the encoder was bound to. Raises HwsimError for components that do not make a
    recognizer: an encoder alone, or encoder, prediction and joint, with or without language models.
    """

    name: str
    graphs: Mapping[str, Graph]
    frames: int
    frame_period_s: float
    decode: DecodeDefaults
    _formats: Formats = field(default_factory=Formats, repr=False)

    def __post_init__(self) -> None:
        for component in self.graphs:
            if component not in COMPONENTS:
                raise HwsimError(f"a component must be {', '.join(COMPONENTS)}, got '{component}'"
                                 f"{nearest(component, COMPONENTS)}")  # fmt: skip
        if "encoder" not in self.graphs:
            raise HwsimError(f"{self.name}: must have an encoder, got {', '.join(self.graphs) or 'nothing'}")
        if len(self.graphs) > 1:
            missing = [name for name in ("prediction", "joint") if name not in self.graphs]
            if missing:
                raise HwsimError(f"{self.name}: must have {' and '.join(missing)} beside {', '.join(self.graphs)}")
        if "source_lm" in self.graphs and "external_lm" not in self.graphs:
            raise HwsimError(f"{self.name}: must have an external_lm beside its source_lm")
        if "joint" in self.graphs:
            self._check_joint()

    def _check_joint(self) -> None:
        joint = self._networks["joint"]
        for side, network in zip(joint_sides(joint), ("encoder", "prediction"), strict=True):
            wanted, graph = joint.values[side].elements, self.graphs[network]
            made = graph.values[main_output(graph)]
            if made.elements % wanted or (network == "prediction" and made.elements != wanted):
                raise HwsimError(f"{self.name}: the joint's input '{side}' must be one row of the {network}'s output "
                                 f"'{made.name}' {made.shape}, got {joint.values[side].shape}: export the joint "
                                 "for one frame and one label, and the prediction network for one label")  # fmt: skip

    @cached_property
    def _networks(self) -> Mapping[str, Graph]:
        """The graphs as machines run them."""
        found = dict(self.graphs)
        if "joint" in found:
            found["joint"] = split_by_side(found["joint"], joint_sides(found["joint"]))
        return {name: simplified(graph) for name, graph in found.items()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ExtractedModel) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of structure, formats and decoding, without weights, 12 digits."""
        parts: list[Any] = [self.name, self.frames, self.frame_period_s, self.decode.model_dump(mode="json")]
        for component in COMPONENTS:
            if component in self.graphs:
                graph = self.graphs[component]
                values = [(one.name, one.shape, one.format) for one in graph.values.values()]
                held = [(one.name, one.shape, one.format) for one in graph.weights.values()]
                nodes = [(one.kind, one.layer, one.inputs, one.outputs, dict(one.weights), dict(one.attributes),
                          one.input_format) for one in graph.nodes]  # fmt: skip
                parts += [component, values, held, nodes]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def spec(self) -> NetworkSpec:
        """Raises HwsimError: only networks of the catalogue have one."""
        raise HwsimError(f"{self.name}: must be a network of the catalogue or a YAML file, got an extracted model")

    @property
    def language_models(self) -> tuple[str, ...]:
        """Components that are language models."""
        return tuple(name for name in MODELS if name in self.graphs)

    @property
    def transduces(self) -> bool:
        """Whether a search follows the encoder."""
        return "joint" in self.graphs

    @property
    def labels(self) -> int:
        """Scores of a row of the joint, blank included; 1 without a joint."""
        if not self.transduces:
            return 1
        joint = self._networks["joint"]
        return joint.values[main_output(joint)].elements

    def audio_seconds(self, frames: int) -> float:
        """Length of the audio behind a number of encoder input frames."""
        return frames * self.frame_period_s

    def encoder_frames(self, frames: int) -> int:
        """Frames that the search sees. Raises HwsimError for another length than the encoder's."""
        if frames != self.frames:
            raise HwsimError(f"frames must be {self.frames}, the length that {self.name} was extracted for, "
                             f"got {frames}")  # fmt: skip
        encoder = self._networks["encoder"]
        out = encoder.values[main_output(encoder)]
        if not self.transduces:
            return max(out.elements // out.shape[-1], 1)
        joint = self._networks["joint"]
        return out.elements // joint.values[joint_sides(joint)[0]].elements

    def emit_encoder(self, b: TraceBuilder, frames: int) -> list[int]:
        """Add the encoder; return the tensors of its output."""
        self.encoder_frames(frames)
        graph = self._networks["encoder"]
        emitter = GraphEmitter(b, graph, "encoder", formats=self._formats)
        emitter.emit()
        return list(emitter.sources[main_output(graph)])

    @property
    def passes(self) -> tuple[str, ...]:
        """One pass, without a name."""
        return ("",)

    def emit_passes(self, b: TraceBuilder, frames: int) -> Iterator[tuple[str, list[int]]]:
        """Add the encoder; yield the one pass and the tensors of its output."""
        yield "", self.emit_encoder(b, frames)

    def declare_search(self, b: TraceBuilder, encoder_out: Sequence[int], frames: int, rows: int,
                       models: Sequence[str], part: str = "") -> ExtractedSearch:  # fmt: skip
        """Declare prediction network, joint and the named language models for up to `rows` hypotheses."""
        prediction = ExtractedStep(b, self._networks["prediction"], "prediction", rows, self._formats)
        steps = []
        for name in models:
            graph = self._networks[name]
            labels = graph.values[main_output(graph)].elements
            steps.append(ExtractedStep(b, graph, name, rows, self._formats, labels))
        joint = self._networks["joint"]
        return ExtractedSearch(b, joint, prediction, steps, encoder_out, frames, rows, self._formats)

    def __reduce__(self) -> tuple[Any, ...]:
        """Workers are sent the structure without the content of weights."""
        graphs = {name: replace(graph, weights={key: replace(held, load=None) for key, held in graph.weights.items()})
                  for name, graph in self.graphs.items()}  # fmt: skip
        return ExtractedModel, (self.name, graphs, self.frames, self.frame_period_s, self.decode)

    @property
    def networks(self) -> Trace:
        """All networks once: the encoder over its frames, each other for one hypothesis."""
        return self.native(self._traced)

    @cached_property
    def _traced(self) -> Trace:
        b = TraceBuilder(self.name)
        encoder_out = self.emit_encoder(b, self.frames)
        if self.transduces:
            parts = self.declare_search(b, encoder_out, self.encoder_frames(self.frames), 1, self.language_models)
            parts.project_encoder(b, 1, False)
            for stack in (parts.prediction, *parts.language_models):
                stack.step(b, 1)
            parts.project_prediction(b, 1, False)
            parts.join(b, 1)
        return b.build()

    def native(self, trace: Trace, policy: PrecisionPolicy = NATIVE["native"]) -> Trace:
        """A trace of this model with the number formats of its files; what is fp32 there is the policy's default."""
        assert self._traced is not None  # fills the formats, by names that every trace of this model has
        wide = str(policy.default.weights)

        def told(known: Mapping[str, str], name: str) -> str:
            found = known.get(name, FULL)
            return wide if found == FULL else found

        tensors = tuple(replace(t, format=told(self._formats.tensors, t.name)) for t in trace.tensors)
        inputs = tuple(told(self._formats.inputs, layer) for layer in trace.layers)
        return replace(trace, tensors=tensors, input_formats=inputs, meta={**trace.meta, "precision": policy.name})
