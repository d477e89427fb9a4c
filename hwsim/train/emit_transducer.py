"""Trained transducers and language models as executable traces: encoder, prediction step, joint step, LM step."""

from __future__ import annotations

from torch import Tensor

from hwsim.errors import HwsimError
from hwsim.execute.recurrence import LstmRules
from hwsim.extract.encoder import encoder_frames, subsample
from hwsim.extract.lstm import LstmLayer as Declared
from hwsim.trace import Function, Kind, Role, TraceBuilder
from hwsim.trace.builder import Operand
from hwsim.train.draft import Draft
from hwsim.train.emit_conformer import conformer_block
from hwsim.train.emit_layers import fill_linear
from hwsim.train.encoders import ConformerEncoder, LstmEncoder
from hwsim.train.export import Converted
from hwsim.train.language_model import QuantLanguageModel
from hwsim.train.lstm_layer import LstmLayer
from hwsim.train.modules import QuantLinear
from hwsim.train.transducer import LstmStack, QuantTransducer
from hwsim.train.weights import WeightGrid, weight_codes

ENCODER, PREDICTION, JOINT = "encoder", "prediction", "joint"


def convert_transducer(network: QuantTransducer, frames: int, rows: int = 64) -> dict[str, Converted]:
    """The traces, codes and grids of a transducer; convert `network.double()` for codes that are equal to its own.

    - `encoder`: reads `encoder.input.features` (frames, K), writes `joint.encoder_projection.out` (T', J).
    - `prediction`: one label of up to `rows` hypotheses. Reads `prediction.embedding.labels` (R,) and the states
      `prediction.layer0.h` and `.c` (R, H) of each layer, writes them anew, and
      `joint.prediction_projection.out` (R, J).
    - `joint`: reads rows (R, J) of both projections, writes log probabilities `joint.output.logits` (R, V).

    Raises HwsimError for grids that were never calibrated and for fewer than one frame or row.
    """
    _positive("frames", frames)
    _positive("rows", rows)
    return {ENCODER: _encoder(network, frames), PREDICTION: _prediction(network, rows), JOINT: _joint(network, rows)}


def convert_language_model(network: QuantLanguageModel, rows: int = 64, name: str = "external_lm") -> Converted:
    """One step of a language model for up to `rows` hypotheses.

    Reads `<name>.embedding.labels` (R,) and the states `<name>.layer0.h` and `.c` (R, H) of each layer, writes them
    anew, and log probabilities `<name>.output.logits` (R, V). Raises HwsimError as `convert_transducer`.
    """
    _positive("rows", rows)
    draft = _draft(name, rows)
    _stack(draft, network.stack, name)
    b, labels = draft.builder, network.output.weight.shape[0]
    logits = _product(draft, f"{name}.output", f"{name}.output", network.output, "logits")
    b.op(Kind.SOFTMAX, f"{name}.output", [Operand(logits, labels)], [Operand(logits, labels)], m=rows, n=labels)
    return _converted(draft)


def _encoder(network: QuantTransducer, frames: int) -> Converted:
    draft = _draft("encoder", frames)
    if isinstance(network.encoder, ConformerEncoder):
        _conformers(draft, network.encoder)
    else:
        _lstms(draft, network.encoder)
    _product(draft, "joint.encoder_projection", "encoder.projection", network.joint.encoder_projection, "out")
    return _converted(draft)


def _conformers(draft: Draft, encoder: ConformerEncoder) -> None:
    """Subsampling and blocks."""
    spec, layer = encoder.spec, "encoder.subsampling.linear"
    draft.start("encoder", layer, spec.input, encoder.input_grid)
    draft.x, draft.width = [subsample(draft.builder, spec, draft.x[0], draft.frames)], spec.width
    draft.frames = encoder_frames(spec, draft.frames)
    fill_linear(draft, layer, encoder.subsampling)
    for index, block in enumerate(encoder.layers):
        conformer_block(draft, f"encoder.layer{index}", block)


def _lstms(draft: Draft, encoder: LstmEncoder) -> None:
    """Layers of LSTMs."""
    spec = encoder.spec
    draft.start("encoder", "encoder.layer0", spec.input, encoder.input_grid)
    for index, layer in enumerate(encoder.layers):
        if index == spec.stack_before_layer:
            draft.frames = -(-draft.frames // spec.stack_factor)
        title = f"encoder.layer{index}"
        declared = Declared.declare(draft.builder, title, layer.inputs, layer.cells, draft.frames, steps=True)
        _fill_lstm(draft, title, layer)
        declared.project_input(draft.builder, draft.x, draft.frames)
        with draft.builder.loop(draft.frames):
            declared.step(draft.builder, 1)
        draft.x = [declared.h]


def _prediction(network: QuantTransducer, rows: int) -> Converted:
    draft = _draft("prediction", rows)
    _stack(draft, network.prediction, "prediction")
    _product(draft, "joint.prediction_projection", "prediction.projection", network.joint.prediction_projection, "out")
    return _converted(draft)


def _joint(network: QuantTransducer, rows: int) -> Converted:
    draft, joint = _draft("joint", rows), network.joint
    spec, b = joint.spec, draft.builder
    sides = [b.tensor(f"joint.{side}_projection.out", Role.STATE, (rows, spec.size)) for side in (ENCODER, PREDICTION)]
    hidden = b.tensor("joint.output.hidden", Role.ACTIVATION, (rows, spec.size))
    kind = "MULTIPLY" if spec.combine == "multiply" else "ADD"
    function = Function[f"{kind}_{spec.activation.upper()}"]
    b.op(Kind.ELEMENTWISE, "joint.output", [Operand(side, spec.size) for side in sides], [Operand(hidden, spec.size)],
         m=rows, n=spec.size, function=function)  # fmt: skip
    draft.activation("joint.output.hidden", joint.hidden_grid)
    draft.x = [hidden]
    logits, labels = _product(draft, "joint.output", "joint.output", joint.output, "logits"), spec.outputs
    b.op(Kind.SOFTMAX, "joint.output", [Operand(logits, labels)], [Operand(logits, labels)], m=rows, n=labels)
    return _converted(draft)


def _stack(draft: Draft, stack: LstmStack, name: str) -> None:
    """One step of an embedding and its LSTM layers."""
    b, rows, size = draft.builder, draft.frames, stack.spec.embedding
    layer = f"{name}.embedding"
    index = b.tensor(f"{layer}.labels", Role.STATE, (rows,), layer)
    table = b.tensor(f"{layer}.table", Role.WEIGHT, (stack.spec.vocabulary, size), layer)
    row = b.tensor(f"{layer}.row", Role.ACTIVATION, (rows, size), layer)
    _fill(draft, f"{layer}.table", stack.embedding.weight, stack.embedding.weight_grid)
    draft.activation(f"{layer}.row", draft.quantizers.get(f"{layer}.table"))
    b.op(Kind.LOOKUP, layer, [Operand(table, size), Operand(index, 1)], [Operand(row, size)], m=rows, n=size)
    draft.x = [row]
    for at, part in enumerate(stack.layers):
        title = f"{name}.layer{at}"
        declared = Declared.declare(b, title, part.inputs, part.cells, rows)
        _fill_lstm(draft, title, part)
        declared.project_input(b, draft.x, rows)
        declared.step(b, rows)
        draft.x = [row, declared.h] if stack.spec.dense_inputs else [declared.h]
    draft.x = draft.x[-1:]


def _product(draft: Draft, name: str, layer: str, part: QuantLinear, out: str) -> int:
    """A product of `draft.x` by the matrix `<name>.weight`; its reals are `<name>.<out>`."""
    outputs, inputs = part.weight.shape
    b = draft.builder
    weight = b.tensor(f"{name}.weight", Role.WEIGHT, (inputs, outputs))
    bias = None if part.bias is None else b.tensor(f"{name}.bias", Role.BIAS, (outputs,))
    sums = b.tensor(f"{name}.{out}", Role.STATE, (draft.frames, outputs))
    b.matmul(layer, draft.x, weight, sums, m=draft.frames, bias=bias)
    _fill(draft, f"{name}.weight", part.weight.T, part.weight_grid)
    draft.product_input(f"{name}.weight", part.input_grid)
    if part.bias is not None:
        draft.reals(f"{name}.bias", part.bias)
    return sums


def _fill_lstm(draft: Draft, name: str, layer: LstmLayer) -> None:
    _fill(draft, f"{name}.wx", layer.input_weight, layer.input_weight_grid)
    _fill(draft, f"{name}.wh", layer.hidden_weight, layer.hidden_weight_grid)
    draft.reals(f"{name}.bias_x", layer.bias_ih_l0)
    draft.reals(f"{name}.bias_h", layer.bias_hh_l0)
    draft.activation(f"{name}.h", layer.hidden_grid)
    draft.activation(f"{name}.c", layer.cell)


def _fill(draft: Draft, name: str, value: Tensor, grid: WeightGrid | None) -> None:
    draft.codes[name], quantizer = weight_codes(value, grid)
    if quantizer is not None:
        draft.quantizers[name] = quantizer


def _draft(name: str, frames: int) -> Draft:
    return Draft(TraceBuilder(name, {"frames": frames}), frames)


def _converted(draft: Draft) -> Converted:
    return Converted(draft.builder.build(), draft.codes, draft.quantizers, LstmRules())


def _positive(name: str, value: int) -> None:
    if value < 1:
        raise HwsimError(f"{name} must be at least 1, got {value}")
