"""Operators on codes: QLinear ones, integer products with the nodes behind them that give reals again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from hwsim.extract.graph.nodes import NodeKind
from hwsim.extract.onnx.graph import Node
from hwsim.extract.onnx.structure.constant import Constant, Grid
from hwsim.extract.onnx.structure.convolution import convolution
from hwsim.extract.onnx.structure.draft import Draft, Ref
from hwsim.extract.onnx.structure.folding import with_grid
from hwsim.extract.onnx.structure.formats import activation_format
from hwsim.extract.onnx.structure.grids import input_grid
from hwsim.extract.onnx.structure.movement import Handler
from hwsim.extract.onnx.structure.pointwise import apply
from hwsim.extract.onnx.structure.products import linear, operands, product

CODE_BITS = {"int8": (8, True), "uint8": (8, False), "int16": (16, True), "uint16": (16, False), "int4": (4, True),
             "uint4": (4, False), "int2": (2, True), "uint2": (2, False)}  # fmt: skip


def code_grid(draft: Draft, node: Node, at: int, scale: int, zero: int) -> str:
    """The format of an input that holds codes: its own, else by the scale and the zero point of the node."""
    if scale < 0:
        grid = Grid(*CODE_BITS[draft.type(node, at).dtype.name], np.ones(()), _zeros(draft, node, zero))
        draft.spend(node, zero)
    else:
        grid = input_grid(draft, node, scale, zero, draft.type(node, at).dtype)
    if draft.constant(node, at) is not None:
        return activation_format(node, grid)
    ref = draft.reference(node, at)
    if ref.format is not None:
        return ref.format
    text = activation_format(node, grid)
    draft.set_format(ref.value, text)
    draft.values[ref.value] = replace(draft.values[ref.value], integer=False)
    draft.refs[node.inputs[at]] = Ref(ref.value, text, True)
    return text


def weight_grid(draft: Draft, node: Node, codes: Constant, scale: int, zero: int, axis: int) -> Constant:
    """A constant of codes with the grid that the node names, along `axis` when there are several scales."""
    step = np.ones(()) if scale < 0 else draft.need_constant(node, scale, "weight scale").reals()
    draft.spend(node, *(each for each in (scale, zero) if each >= 0))
    return gridded(node, codes, step, _zeros(draft, node, zero), axis)


def gridded(node: Node, codes: Constant, scale: Any, zero: Any, axis: int) -> Constant:
    """A constant of codes on a grid; its name stays."""
    kind = CODE_BITS.get(codes.dtype.name)
    if kind is None:
        raise node.refuse(f"must have integer codes, got {codes.dtype.name}")
    if scale.size == 1 and zero is not None and zero.size > 1:
        scale = np.broadcast_to(scale, zero.shape)
    flat = scale.reshape(-1)
    return replace(with_grid(node, codes, flat, None if zero is None else zero.reshape(-1), kind, axis),
                   name=codes.name)  # fmt: skip


def result_format(draft: Draft, node: Node, scale: int, zero: int) -> str:
    """The format of the codes that a node writes."""
    return activation_format(node, input_grid(draft, node, scale, zero, draft.out_type(node).dtype))


def qlinear_matmul(draft: Draft, node: Node) -> None:
    """QLinearMatMul."""
    text, codes = code_grid(draft, node, 0, 1, 2), result_format(draft, node, 6, 7)
    _product(draft, node, (0, 3), (4, 5), text, node.outputs[0], codes)


def _product(draft: Draft, node: Node, at: tuple[int, int], grid: tuple[int, int], text: str, out: str,
             codes: str | None) -> None:  # fmt: skip
    second = draft.constant(node, at[1])
    if second is not None:
        weight = weight_grid(draft, node, second, *grid, axis=len(second.shape) - 1)
        linear(draft, node, draft.reference(node, at[0]).value, text, weight, out, codes=codes)
    elif draft.constant(node, at[0]) is not None:
        operands(draft, node, *at, (False, False), out, codes=codes)
    else:
        code_grid(draft, node, at[1], *grid)
        inputs = [draft.reference(node, each).value for each in at]
        shapes = [draft.type(node, each).shape for each in at]
        product(draft, node, inputs, shapes, out, text, codes)


def qgemm(draft: Draft, node: Node) -> None:
    """onnxruntime's QGemm: codes when it names the grid of its result, else reals."""
    text = code_grid(draft, node, 0, 1, 2)
    codes = result_format(draft, node, 7, 8) if node.input(7) else None
    matrix = draft.need_constant(node, 3, "weight")
    flips = [bool(node.attributes.get(name, 0)) for name in ("transA", "transB")]
    if flips[0]:
        raise node.refuse("must not transpose what it multiplies, got transA=1")
    matrix = weight_grid(draft, node, matrix, 4, 5, axis=0 if flips[1] else 1)
    bias = draft.constant(node, 6)
    held = None if bias is None else draft.weight(node, bias, (bias.elements,))
    linear(draft, node, draft.reference(node, 0).value, text, matrix.transposed((1, 0)) if flips[1] else matrix,
           node.outputs[0], bias=held, codes=codes)  # fmt: skip


def qlinear_conv(draft: Draft, node: Node) -> None:
    """QLinearConv."""
    code_grid(draft, node, 0, 1, 2)
    codes = result_format(draft, node, 6, 7)
    weight = weight_grid(draft, node, draft.need_constant(node, 3, "weight"), 4, 5, axis=0)
    bias = draft.constant(node, 8)
    held = None if bias is None else draft.weight(node, bias, bias.shape)
    convolution(draft, node, weight, node.outputs[0], held, codes=codes)


def qlinear_pointwise(function: str, operands_at: tuple[tuple[int, int, int], ...], result: tuple[int, int]) -> Handler:
    """A function of codes; `operands_at`: where operands stand, with their scales and zero points."""

    def read(draft: Draft, node: Node) -> None:
        for at in operands_at:
            code_grid(draft, node, *at)
            constant = draft.constant(node, at[0])
            if constant is not None:
                known = weight_grid(draft, node, constant, at[1], at[2], axis=0)
                draft.resolved.constants[node.inputs[at[0]]] = known
        codes = result_format(draft, node, *result)
        if function == "softmax":
            shape = draft.out_type(node).shape
            width = shape[int(node.attributes.get("axis", -1)) % len(shape)]
            draft.emit(NodeKind.SOFTMAX, node, [draft.reference(node, 0).value], node.outputs, codes=codes,
                       rows=int(np.prod(shape)) // width, width=width, log=False)  # fmt: skip
        elif function == "mean":
            draft.emit(NodeKind.REDUCE, node, [draft.reference(node, 0).value], node.outputs, codes=codes,
                       function="add")  # fmt: skip
        else:
            apply(draft, node, function, codes, range(0, 4, 3) if len(operands_at) > 1 else range(1))

    return read


def qlinear_concat(draft: Draft, node: Node) -> None:
    """QLinearConcat: values beside each other, each put on the grid of the result."""
    codes = result_format(draft, node, 0, 1)
    inputs = []
    for at in range(2, len(node.inputs), 3):
        code_grid(draft, node, at, at + 1, at + 2)
        constant = draft.constant(node, at)
        draft.fold(constant)
        inputs += [] if constant is not None else [draft.reference(node, at).value]
    draft.emit(NodeKind.VIEW, node, inputs, node.outputs, codes=codes)


def matmul_integer(draft: Draft, node: Node) -> None:
    """MatMulInteger, with the scales behind it if they are those of its operands."""
    draft.quantized = True
    text = code_grid(draft, node, 0, -1, 2)
    out, scale = draft.tails[node.outputs[0]]
    second = draft.constant(node, 1)
    if second is None:
        _product(draft, node, (0, 1), (-1, 3), text, out, None)
        return
    zero = _zeros(draft, node, 3)
    draft.spend(node, 3)
    weight = gridded(node, second, np.ones(()) if scale is None else scale, zero, len(second.shape) - 1)
    linear(draft, node, draft.reference(node, 0).value, text, weight, out)


def conv_integer(draft: Draft, node: Node) -> None:
    """ConvInteger, with the scales behind it."""
    from hwsim.extract.onnx.structure.products import added_bias

    draft.quantized = True
    code_grid(draft, node, 0, -1, 2)
    out, scale = draft.tails[node.outputs[0]]
    weight = draft.need_constant(node, 1, "weight")
    zero = _zeros(draft, node, 3)
    draft.spend(node, 3)
    weight = gridded(node, weight, np.ones(()) if scale is None else scale, zero, 0)
    out, bias = added_bias(draft, node, out, weight.shape[0], len(weight.shape) - 2)
    convolution(draft, node, weight, out, bias)


def find_tails(draft: Draft) -> None:
    """Find what follows integer products before anything is written: the scales stand in front of the products."""
    for node in draft.resolved.nodes:
        if node.op in ("MatMulInteger", "ConvInteger"):
            draft.tails[node.outputs[0]] = _scaled(draft, node)


def _scaled(draft: Draft, node: Node) -> tuple[str, Any]:
    """The value that holds the reals of an integer product, and the scale of its weight; itself if nothing follows."""
    cast = draft.sole_reader(node.outputs[0])
    if cast is None or cast.op != "Cast":
        return node.outputs[0], None
    times = draft.sole_reader(cast.outputs[0])
    if times is None or times.op != "Mul":
        return node.outputs[0], None
    other = next((name for name in times.inputs if name != cast.outputs[0]), "")
    scales = draft.producers.get(other)
    weight = None
    if scales is not None and scales.op == "Mul":
        weight = next((c for at in range(2) if (c := draft.constant(scales, at)) is not None), None)
        computed = next((name for at, name in enumerate(scales.inputs) if draft.constant(scales, at) is None), "")
        source = draft.producers.get(computed)
        if weight is None or not _is_scale(source, computed) or draft.sole_reader(other) is not times:
            return node.outputs[0], None
        draft.absorbed.add(scales.outputs[0])
    elif other in draft.resolved.constants:
        weight = draft.resolved.constants[other]
    elif not _is_scale(scales, other):
        return node.outputs[0], None
    draft.absorbed.update((cast.outputs[0], times.outputs[0]))
    if weight is not None:
        draft.spent.update(weight.sources)
    return times.outputs[0], None if weight is None else weight.reals()


def _is_scale(source: Node | None, name: str) -> bool:
    return source is not None and source.op == "DynamicQuantizeLinear" and source.output(1) == name


def _zeros(draft: Draft, node: Node, at: int) -> Any:
    zero = draft.constant(node, at) if at >= 0 else None
    return None if zero is None else zero.read()
