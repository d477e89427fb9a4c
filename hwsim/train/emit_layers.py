"""Embedding, linear, norm, element-wise and convolution modules as operations."""

from __future__ import annotations

from hwsim.errors import HwsimError
from hwsim.extract import layers
from hwsim.trace import Function, Kind, Role
from hwsim.trace.builder import Operand
from hwsim.train.convolution import QuantConv1d
from hwsim.train.draft import Draft
from hwsim.train.modules import QuantActivation, QuantEmbedding, QuantLayerNorm, QuantLinear


def embedding(draft: Draft, name: str, part: QuantEmbedding) -> None:
    """A look-up of labels, the network's input."""
    labels, size = part.weight.shape
    b = draft.builder
    if draft.x:
        raise HwsimError(f"{name}: an embedding must be the first module")
    index = b.tensor(f"{name}.labels", Role.STATE, (draft.frames,), name)
    table = b.tensor(f"{name}.table", Role.WEIGHT, (labels, size), name)
    row = b.tensor(f"{name}.row", Role.ACTIVATION, (draft.frames, size), name)
    draft.weight(f"{name}.table", part.weight, part.weight_grid)
    draft.activation(f"{name}.row", draft.quantizers.get(f"{name}.table"))
    b.op(Kind.LOOKUP, name, [Operand(table, size), Operand(index, 1)], [Operand(row, size)], m=draft.frames, n=size)
    draft.x, draft.width = [row], size


def linear(draft: Draft, name: str, part: QuantLinear) -> None:
    """A product with a weight."""
    outputs, inputs = part.weight.shape
    draft.start(name, name, inputs, part.input_grid)
    draft.expect(name, inputs)
    role = Role.STATE if part.output_grid is None else Role.ACTIVATION
    out = layers.linear(draft.builder, name, draft.x, inputs, outputs, draft.frames, bias=part.bias is not None,
                        role=role)  # fmt: skip
    fill_linear(draft, name, part)
    draft.x, draft.width = [out], outputs


def layer_norm(draft: Draft, name: str, part: QuantLayerNorm) -> None:
    """A norm over each row."""
    width = len(part.weight)
    x = draft.single(name, width, part.input_grid)
    draft.x = [layers.norm(draft.builder, name, x, width, draft.frames, part.epsilon)]
    fill_norm(draft, name, part)


def activation(draft: Draft, name: str, part: QuantActivation) -> None:
    """An element-wise function of what the module before has written."""
    if not draft.x:
        raise HwsimError(f"{name}: a network must not begin with an element-wise function")
    read = draft.width
    x = draft.single(name, read, None)
    if part.function == "glu" and read % 2:
        raise HwsimError(f"{name}: glu must read an even number of channels, got {read}")
    width = read // 2 if part.function == "glu" else read
    function = Function[part.function.upper()]
    draft.x = [layers.pointwise(draft.builder, name, function, [x], width, draft.frames)]
    draft.activation(f"{name}.out", part.output_grid)
    draft.width = width


def conv1d(draft: Draft, name: str, part: QuantConv1d) -> None:
    """A convolution over time; its output has other frames where its stride is not 1."""
    if draft.x and part.input_grid is not None:
        x, input = draft.single(name, part.inputs, None), part.input_grid
    else:
        x, input = draft.single(name, part.inputs, part.input_grid), None
    out = layers.conv1d(
        draft.builder, name, x, part.inputs, part.outputs, draft.frames, kernel=part.kernel, stride=part.stride,
        padding=part.padding, depthwise=part.depthwise, bias=part.bias is not None,
    )  # fmt: skip
    fill_conv1d(draft, name, part)
    draft.product_input(f"{name}.weight", input)
    draft.frames = layers.conv_frames(draft.frames, part.kernel, part.stride, part.padding)
    draft.x, draft.width = [out], part.outputs


def fill_linear(draft: Draft, name: str, part: QuantLinear) -> None:
    """Codes and grids of a linear layer."""
    draft.weight(f"{name}.weight", part.weight.T, part.weight_grid)
    draft.product_input(f"{name}.weight", part.input_grid)
    if part.bias is not None:
        draft.reals(f"{name}.bias", part.bias)
    draft.activation(f"{name}.out", part.output_grid)


def fill_norm(draft: Draft, name: str, part: QuantLayerNorm) -> None:
    """Vectors and grid of a norm."""
    draft.reals(f"{name}.gamma", part.weight)
    draft.reals(f"{name}.beta", part.bias)
    draft.activation(f"{name}.out", part.output_grid)


def fill_conv1d(draft: Draft, name: str, part: QuantConv1d) -> None:
    """Codes and grids of a convolution."""
    shape = (part.kernel, part.inputs) if part.depthwise else (part.kernel, part.inputs, part.outputs)
    draft.weight(f"{name}.weight", part.matrix, part.weight_grid, shape)
    if part.bias is not None:
        draft.reals(f"{name}.bias", part.bias)
    draft.activation(f"{name}.out", part.output_grid)
