"""Element-wise functions, softmax and reductions."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from hwsim.extract.graph.nodes import NodeKind
from hwsim.extract.onnx.graph import Node
from hwsim.extract.onnx.structure.accounts import is_parameter
from hwsim.extract.onnx.structure.draft import Draft
from hwsim.extract.onnx.structure.grids import clip_of_codes
from hwsim.extract.onnx.structure.movement import view

Handler = Callable[[Draft, Node], None]

FUNCTION_OF = {
    **dict.fromkeys(("Add", "Sub", "Sum", "Mean", "CumSum"), "add"),
    **dict.fromkeys(("Mul", "Neg"), "multiply"),
    **dict.fromkeys(("Div", "Reciprocal", "Softsign", "Mod"), "divide"),
    "Tanh": "tanh", "Sigmoid": "sigmoid", "Sqrt": "sqrt",
    **dict.fromkeys(("Relu", "LeakyRelu", "PRelu", "ThresholdedRelu"), "relu"),
    **dict.fromkeys(("Swish", "HardSwish"), "swish"),
    **dict.fromkeys(("Gelu", "com.microsoft.Gelu", "com.microsoft.FastGelu", "com.microsoft.QuickGelu",
                     "com.microsoft.BiasGelu"), "gelu"),
    **dict.fromkeys(("Exp", "Log", "Erf", "Sin", "Cos", "Elu", "Selu", "Celu", "Softplus", "Mish", "Tan", "Sinh",
                     "Cosh", "Atan", "Asin", "Acos"), "exp"),
    **dict.fromkeys(("Abs", "Clip", "Max", "Min", "Where", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal",
                     "And", "Or", "Not", "Xor", "Sign", "Floor", "Ceil", "Round", "IsNaN", "IsInf", "HardSigmoid",
                     "OneHot", "BitwiseAnd", "BitwiseOr", "BitwiseNot"), "select"),
}  # fmt: skip
"""The function that stands for each operator."""

REDUCTION_OF = {
    **dict.fromkeys(("ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum",
                     "ReduceLogSumExp", "GlobalAveragePool"), "add"),
    "ReduceProd": "multiply",
    **dict.fromkeys(("ReduceMax", "ReduceMin", "ArgMax", "ArgMin", "TopK", "GlobalMaxPool"), "select"),
}  # fmt: skip


def elementwise(draft: Draft, node: Node) -> None:
    """A function of one element of each operand."""
    if node.op == "Clip" and clip_of_codes(draft, node):
        return
    apply(draft, node, FUNCTION_OF[node.op])


def apply(draft: Draft, node: Node, function: str, codes: str | None = None, operands: range | None = None) -> None:
    """An element-wise node: computed operands are read, a constant one is its weight or is written down."""
    held = None
    for at in operands if operands is not None else range(len(node.inputs)):
        constant = draft.constant(node, at)
        if constant is None:
            continue
        if held is None and is_parameter(draft.resolved, constant):
            held = draft.weight(node, constant, constant.shape)
        else:
            draft.fold(constant)
    shape = draft.out_type(node).shape
    draft.emit(NodeKind.ELEMENTWISE, node, draft.computed_inputs(node), node.outputs[:1], {"constant": held},
               codes=codes, function=function, width=shape[-1] if shape else 1)  # fmt: skip


def power(draft: Draft, node: Node) -> None:
    """Powers: whole ones are products."""
    exponent = draft.number(node, 1)
    if exponent is None or np.asarray(exponent).size != 1:
        apply(draft, node, "exp")
        return
    value = float(np.asarray(exponent).reshape(-1)[0])
    apply(draft, node, "multiply" if value == int(value) and value > 0 else "sqrt" if abs(value) == 0.5 else "exp")


def softmax(draft: Draft, node: Node) -> None:
    """Softmax and LogSoftmax over one axis, or over all axes from one on in old opsets."""
    kind = draft.out_type(node)
    axes = _softmax_axes(node, kind.shape, draft.resolved.opset)
    width = prod(kind.shape[axis] for axis in axes)
    rows = prod(kind.shape) // max(width, 1)
    draft.emit(NodeKind.SOFTMAX, node, draft.computed_inputs(node), node.outputs, rows=rows, width=width,
               log=node.op == "LogSoftmax")  # fmt: skip


def reduce(draft: Draft, node: Node) -> None:
    """A sum, mean or maximum over some axes; an index or the largest values too."""
    outputs = [name for name in node.outputs if name]
    draft.emit(NodeKind.REDUCE, node, draft.computed_inputs(node)[:1], outputs, function=REDUCTION_OF[node.op])


def pool(draft: Draft, node: Node) -> None:
    """Pooling by windows that do not overlap."""
    kernel = list(node.attributes["kernel_shape"])
    stride = list(node.attributes.get("strides") or [1] * len(kernel))
    if any(step < size for step, size in zip(stride, kernel, strict=True)):
        raise node.refuse(f"must have windows that do not overlap, got kernel {kernel} and strides {stride}")
    if all(size == 1 for size in kernel):
        view(draft, node)
        return
    function = "select" if node.op == "MaxPool" else "add"
    draft.emit(NodeKind.REDUCE, node, draft.computed_inputs(node), node.outputs[:1], function=function)


def _softmax_axes(node: Node, shape: tuple[int, ...], opset: int) -> list[int]:
    if opset >= 13:
        return [int(node.attributes.get("axis", -1)) % len(shape)]
    return list(range(int(node.attributes.get("axis", 1)) % len(shape), len(shape)))
