"""Convolutions over time, dense or depthwise: Conv, QLinearConv, ConvInteger."""

from __future__ import annotations

import numpy as np

from hwsim.extract.onnx.constants import Constant, as_reals
from hwsim.extract.onnx.draft import Activation, Draft
from hwsim.extract.onnx.graph import Node
from hwsim.extract.onnx.grids import read_codes, read_grid
from hwsim.extract.onnx.layout import Layout
from hwsim.extract.onnx.linear import coded_weight, codes_of_sum, integer_tail, scaled_weight
from hwsim.extract.onnx.product import Array, added_bias, declare_bias, declare_out, declare_weight, finish
from hwsim.numerics.quantizers import Quantizer
from hwsim.trace import Kind
from hwsim.trace.builder import Operand


def conv(draft: Draft, node: Node) -> None:
    """A convolution of reals, with the bias that it has or that is added next."""
    weight, x = draft.need_constant(node, 1, "weight"), draft.activation(node, 0)
    bias = draft.constant(node, 2)
    if node.input(2) and bias is None:
        raise node.refuse(f"must have a constant bias, got '{node.input(2)}'")
    value, offsets = node.outputs[0], None if bias is None else as_reals(bias).reshape(-1)
    if bias is None:
        value, offsets = added_bias(draft, _output(node, x, weight), value)
    _convolve(draft, node, x, weight, offsets, value, None, not draft.exact_sums)


def qlinear_conv(draft: Draft, node: Node) -> None:
    """Codes of a convolution; its bias counts steps of the product's scale."""
    grid = read_grid(draft, node, 1, 2)
    x = read_codes(draft, node, 0, grid)
    weight = coded_weight(draft, node, 3, 4, 5, axis=0)
    steps = draft.constant(node, 8)
    assert weight.scale is not None
    scale = float(grid.scale) * weight.scale.astype(np.float64).reshape(-1)
    bias = None if steps is None else steps.array * np.broadcast_to(scale, steps.array.shape)
    _convolve(draft, node, x, weight, bias, node.outputs[0], read_grid(draft, node, 6, 7), False)


def conv_integer(draft: Draft, node: Node) -> None:
    """Integer sums of a convolution, with the scale and bias that turn them into reals next."""
    weight = draft.need_constant(node, 1, "weight")
    x = codes_of_sum(draft, node)
    value, scale, bias = integer_tail(draft, node, _output(node, x, weight))
    _convolve(draft, node, x, scaled_weight(draft, node, weight, x, scale, axis=0), bias, value, None, False)


def _convolve(draft: Draft, node: Node, x: Activation, weight: Constant, bias: Array | None, value: str,
              grid: Quantizer | None, open_: bool) -> None:  # fmt: skip
    layout = _output(node, x, weight)
    if len(x.parts) > 1:
        raise node.refuse(f"must read one tensor, got {len(x.parts)} that are concatenated")
    outputs, inputs, kernel = weight.array.shape
    depthwise = int(node.attributes.get("group", 1)) > 1
    columns = weight.transposed((2, 1, 0))
    depth = kernel * inputs
    matrix = columns.each(lambda part: part.reshape(-1, part.shape[-1]))
    shape = (kernel, outputs) if depthwise else (kernel, inputs, outputs)
    part = declare_weight(draft, node, f"{node.layer}.weight", matrix, shape, x)
    offsets = declare_bias(draft, node, bias, "fp32" if grid is None else "int32")
    out = declare_out(draft, node, layout.rows, outputs, grid)
    reads = [Operand(x.parts[0].index, fixed=x.rows * x.parts[0].columns), Operand(part.index, fixed=depth * outputs)]
    if offsets is not None:
        reads.append(Operand(offsets.index, fixed=outputs))
    left, right = _padding(node, x.rows, kernel)
    draft.builder.attributes(node.layer, padding=[left, right], stride=_one(node, "strides"))
    k, n, batch = (kernel, 1, outputs) if depthwise else (depth, outputs, 1)
    kind = Kind.DEPTHWISE if depthwise else Kind.CONV1D
    draft.builder.op(kind, node.layer, reads, [Operand(out.index, outputs)], m=layout.rows, k=k, n=n, batch=batch)
    finish(draft, value, layout, out, grid, open_)


def _output(node: Node, x: Activation, weight: Constant) -> Layout:
    """How the output (1, N, T') lies. Raises HwsimError for what is not a convolution over time of a batch of one."""
    shape, group = x.layout.shape, int(node.attributes.get("group", 1))
    if len(shape) != 3 or weight.array.ndim != 3:
        raise node.refuse(f"must be over one axis (1, C, T), got {shape}: convolutions over two are not read")
    if x.layout.column_axis != 1 or x.layout.row_axis not in (2, None):
        raise node.refuse(f"must have its channels in axis 1 and its frames in axis 2, got {shape}")
    outputs, inputs, kernel = weight.array.shape
    if group not in (1, outputs) or (group > 1 and (inputs, shape[1]) != (1, outputs)):
        raise node.refuse(f"must have one group or as many groups as inputs and outputs, got {group}")
    if shape[1] != inputs * group:
        raise node.refuse(f"must read {inputs * group} channels, got {shape[1]}")
    if _one(node, "dilations") != 1:
        raise node.refuse(f"must have no dilation, got {_one(node, 'dilations')}")
    padded = shape[2] + sum(_padding(node, shape[2], kernel))
    if padded < kernel:
        raise node.refuse(f"must have as many frames as its kernel of {kernel}, got {padded}")
    return Layout(((), (1,), (0,)), ((padded - kernel) // _one(node, "strides") + 1, outputs))


def _padding(node: Node, frames: int, kernel: int) -> tuple[int, int]:
    """Frames of padding before and after."""
    automatic = node.attributes.get("auto_pad", "NOTSET")
    if automatic == "NOTSET":
        before, after = node.attributes.get("pads", (0, 0))
        return int(before), int(after)
    if automatic == "VALID":
        return 0, 0
    stride = _one(node, "strides")
    total = max((-(-frames // stride) - 1) * stride + kernel - frames, 0)
    small = total // 2
    return (small, total - small) if automatic == "SAME_UPPER" else (total - small, small)


def _one(node: Node, name: str) -> int:
    return int(node.attributes.get(name, (1,))[0])
