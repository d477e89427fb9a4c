"""An RNN transducer as operations: the encoder over an utterance, and the networks of one search step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hwsim.extract.bifocal import TwoProjections, emit_bifocal
from hwsim.extract.cascade import FIRST, SECOND, emit_cascade, named
from hwsim.extract.encoder import emit_conformer_encoder
from hwsim.extract.encoder_spec import (
    AnyEncoderSpec,
    BifocalEncoderSpec,
    CascadedEncoderSpec,
    ConformerEncoderSpec,
    TdnnfEncoderSpec,
)
from hwsim.extract.lstm import LstmLayer, LstmStack, emit_lstm_encoder
from hwsim.extract.spec import JointSpec, LstmStackSpec, NetworkSpec
from hwsim.extract.tdnnf import emit_tdnnf_encoder
from hwsim.trace import Function, Kind, Role, TraceBuilder
from hwsim.trace.builder import Operand, Rows


def emit_encoder(b: TraceBuilder, spec: AnyEncoderSpec, frames: int, *, whole: bool = False) -> list[int]:
    """Add the encoder over `frames` input frames; return the tensors `(T', outputs)` of its last layer.

    Of cascaded encoders that is the second one; of a bifocal encoder the output of each, with its own frames. `whole`:
    a streaming Conformer at once, as a whole utterance is executed, and not chunk by chunk.
    """
    if isinstance(spec, ConformerEncoderSpec):
        return [emit_conformer_encoder(b, spec, frames, whole)]
    if isinstance(spec, CascadedEncoderSpec):
        return dict(emit_cascade(b, spec, frames, whole))[SECOND]
    if isinstance(spec, BifocalEncoderSpec):
        return emit_bifocal(b, spec, frames)
    if isinstance(spec, TdnnfEncoderSpec):
        return [emit_tdnnf_encoder(b, spec, frames)]
    return emit_lstm_encoder(b, spec, frames)


def declare_stack(b: TraceBuilder, name: str, spec: LstmStackSpec, rows: int) -> LstmStack:
    """Declare the tensors of a prediction network or language model for up to `rows` hypotheses a step."""
    layers = tuple(
        LstmLayer.declare(b, f"{name}.layer{i}", spec.layer_input(i), spec.cells, rows) for i in range(spec.layers)
    )
    output = None
    if spec.outputs is not None:
        output = (
            b.tensor(f"{name}.output.weight", Role.WEIGHT, (spec.cells, spec.outputs)),
            b.tensor(f"{name}.output.bias", Role.BIAS, (spec.outputs,)),
            b.tensor(f"{name}.output.logits", Role.STATE, (rows, spec.outputs)),
            spec.outputs,
        )
    table = b.tensor(f"{name}.embedding.table", Role.WEIGHT, (spec.vocabulary, spec.embedding))
    embedded = b.tensor(f"{name}.embedding.row", Role.ACTIVATION, (rows, spec.embedding))
    cache = b.tensor(f"{name}.state.cache", Role.STATE, (1,))
    return LstmStack(name, table, embedded, spec.embedding, layers, spec.dense_inputs, output, cache)


@dataclass(frozen=True, slots=True)
class Joint:
    """Tensor indices of a joint network."""

    name: str
    spec: JointSpec
    encoder_weight: int
    prediction_weight: int
    encoder_bias: int | None
    prediction_bias: int
    encoder_side: int
    prediction_side: int
    hidden: int
    weight: int
    bias: int
    logits: int

    @classmethod
    def declare(cls, b: TraceBuilder, spec: JointSpec, encoder_width: int, prediction_width: int, frames: int,
                rows: int, name: str = "joint") -> Joint:  # fmt: skip
        """Declare the joint for encoder outputs `(frames, encoder_width)` and up to `rows` hypotheses."""
        size = spec.size
        first, second, last = f"{name}.encoder_projection", f"{name}.prediction_projection", f"{name}.output"
        two_biases = spec.combine != "concatenate"
        return cls(
            name,
            spec,
            encoder_weight=b.tensor(f"{first}.weight", Role.WEIGHT, (encoder_width, size)),
            prediction_weight=b.tensor(f"{second}.weight", Role.WEIGHT, (prediction_width, size)),
            encoder_bias=b.tensor(f"{first}.bias", Role.BIAS, (size,)) if two_biases else None,
            prediction_bias=b.tensor(f"{second}.bias", Role.BIAS, (size,)),
            encoder_side=b.tensor(f"{first}.out", Role.STATE, (max(frames, rows), size)),
            prediction_side=b.tensor(f"{second}.out", Role.STATE, (rows, size)),
            hidden=b.tensor(f"{last}.hidden", Role.ACTIVATION, (rows, size)),
            weight=b.tensor(f"{last}.weight", Role.WEIGHT, (size, spec.outputs)),
            bias=b.tensor(f"{last}.bias", Role.BIAS, (spec.outputs,)),
            logits=b.tensor(f"{last}.logits", Role.STATE, (rows, spec.outputs)),
        )

    def project_encoder(self, b: TraceBuilder, x: Sequence[int], m: Rows, layer: str,
                        needs: Sequence[int] = ()) -> None:  # fmt: skip
        """Project encoder frames: once for all frames, or again for the rows of a step.

        `layer` names the operation: a hoisted projection runs with the encoder and its time is the encoder's, while
        its weights are always the joint's.
        """
        b.matmul(layer, x, self.encoder_weight, self.encoder_side, m=m, bias=self.encoder_bias, needs=needs)

    def project_prediction(self, b: TraceBuilder, h: int, m: Rows, layer: str) -> None:
        """Project the prediction network's output for m rows; `layer` as in `project_encoder`."""
        b.matmul(layer, [h], self.prediction_weight, self.prediction_side, m=m, bias=self.prediction_bias)

    def step(self, b: TraceBuilder, m: Rows, needs: Sequence[int] = ()) -> None:
        """Combine m (frame, hypothesis) pairs, activate, project to labels, log-softmax."""
        size, labels, layer = self.spec.size, self.spec.outputs, f"{self.name}.output"
        product = self.spec.combine == "multiply"
        if self.spec.activation == "tanh":
            function = Function.MULTIPLY_TANH if product else Function.ADD_TANH
        else:
            function = Function.MULTIPLY_RELU if product else Function.ADD_RELU
        sides = [Operand(self.encoder_side, size), Operand(self.prediction_side, size), *map(Operand, needs)]
        b.op(Kind.ELEMENTWISE, layer, sides, [Operand(self.hidden, size)], m=m, n=size, function=function)
        b.matmul(layer, [self.hidden], self.weight, self.logits, m=m, bias=self.bias)
        b.op(Kind.SOFTMAX, layer, [Operand(self.logits, labels)], [Operand(self.logits, labels)], m=m, n=labels)


@dataclass(frozen=True, slots=True)
class SearchNetworks:
    """Everything that a search step evaluates, of one pass."""

    encoder_out: list[int]
    prediction: LstmStack
    joint: Joint
    language_models: tuple[LstmStack, ...]
    part: str = ""
    """The pass, empty where there is one."""
    two: TwoProjections | None = None
    """What a bifocal encoder has in place of one projection."""

    @property
    def labels(self) -> int:
        """Scores of a row of the joint."""
        return self.joint.spec.outputs

    @property
    def logits(self) -> int:
        """Tensor of those scores."""
        return self.joint.logits

    def project_encoder(self, b: TraceBuilder, m: Rows, hoisted: bool, needs: Sequence[int] = ()) -> None:
        """What the joint computes of encoder frames alone: with the encoder, or in each of its rows."""
        if self.two is not None:
            self.two.emit(b, self.encoder_out, self.joint.encoder_side, hoisted)
            return
        layer = f"{named('encoder', self.part)}.projection" if hoisted else f"{self.joint.name}.encoder_projection"
        self.joint.project_encoder(b, self.encoder_out, m, layer, needs)

    def project_prediction(self, b: TraceBuilder, m: Rows, hoisted: bool) -> None:
        """What the joint computes of the prediction network alone: with it, or in each of its rows."""
        layer = f"{self.prediction.name}.projection" if hoisted else f"{self.joint.name}.prediction_projection"
        self.joint.project_prediction(b, self.prediction.layers[-1].h, m, layer)

    def join(self, b: TraceBuilder, m: Rows, needs: Sequence[int] = ()) -> None:
        """The rest of the joint for m pairs of frame and hypothesis, and the log-softmax."""
        self.joint.step(b, m, needs)


def declare_search(b: TraceBuilder, spec: NetworkSpec, encoder_out: list[int], frames: int, rows: int,
                   language_models: Sequence[str], part: str = "") -> SearchNetworks:  # fmt: skip
    """Declare prediction network, joint and the named language models for up to `rows` hypotheses.

    `part`: the pass that they are of, each with its own prediction network and joint.
    """
    encoder = spec.encoder
    width = encoder.first.outputs if isinstance(encoder, CascadedEncoderSpec) and part == FIRST else encoder.outputs
    prediction = declare_stack(b, named("prediction", part), spec.prediction, rows)
    joint = Joint.declare(b, spec.joint, width, spec.prediction.cells, frames, rows, named("joint", part))
    two = None
    if isinstance(encoder, BifocalEncoderSpec):
        bias, size = joint.encoder_bias, spec.joint.size
        two = TwoProjections.declare(b, encoder, frames, joint.encoder_weight, bias, size)
    models = tuple(declare_stack(b, name, spec.language_models[name], rows) for name in language_models)  # type: ignore[index]
    return SearchNetworks(encoder_out, prediction, joint, models, part, two)
