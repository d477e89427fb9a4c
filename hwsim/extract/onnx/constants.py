"""Constants of a graph: weights, plain or quantized, and what is folded before the trace is made."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.extract.onnx.graph import Graph, Node
from hwsim.numerics.quantizers import Quantizer
from hwsim.numerics.rounding import Reals

Array = npt.NDArray[Any]
FOLDED = (
    "Identity", "Transpose", "Reshape", "Cast", "Squeeze", "Unsqueeze", "Flatten", "Concat", "Gather", "Slice", "Add",
    "Sub", "Mul", "Div", "Neg", "Sqrt", "Clip", "ConstantOfShape", "Expand", "Range", "Where", "Equal", "Shape",
)  # fmt: skip
"""What is computed when every input is a constant, by ONNX's own reference."""
QUANTIZE = ("QuantizeLinear", "com.microsoft.QuantizeLinear")
DEQUANTIZE = ("DequantizeLinear", "com.microsoft.DequantizeLinear")


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """An array of the file; with `scale` its integer codes, whose reals are (array - zero) scale.

    `scale` and `zero` have the rank of `array`, each axis of one, of its size, or of its number of blocks. `bits` and
    `signed` say the type of the codes. `source`: the name in the file.
    """

    array: Array
    source: str
    scale: Array | None = None
    zero: Array | None = None
    bits: int = 0
    signed: bool = True

    def reals(self) -> Array:
        """The array, dequantized in the precision of its scale."""
        if self.scale is None or self.zero is None:
            return self.array
        steps = self.array.astype(np.int64) - _spread(self.zero, self.array.shape)
        values: Array = steps.astype(self.scale.dtype) * _spread(self.scale, self.array.shape)
        return values

    def plain(self) -> Constant:
        """The same reals without codes."""
        return Constant(self.reals(), self.source)

    def transposed(self, order: tuple[int, ...] | None = None) -> Constant:
        """Another order of axes, the reverse unless told."""
        return self.each(lambda part: part.transpose(order))

    def at(self, index: int) -> Constant:
        """One entry of the first axis."""
        return self.each(lambda part: part[index if len(part) > 1 else 0])

    def columns(self, order: Array) -> Constant:
        """The columns of the last axis in another order."""
        return self.each(lambda part: part[..., order] if part.shape[-1] > 1 else part)

    def each(self, change: Callable[[Array], Array]) -> Constant:
        """The same change of axes for codes, scale and zero point."""
        scale, zero = (None if part is None else change(part) for part in (self.scale, self.zero))
        return replace(self, array=change(self.array), scale=scale, zero=zero)

    def grid(self) -> Quantizer | None:
        """The grid of a matrix (K, N) for a product: one scale, N, or groups along K; None when it has no such one."""
        if self.scale is None or self.zero is None:
            return None
        (depth, channels), (groups, columns) = self.array.shape, self.scale.shape
        zero = self.zero if self.zero.any() else np.zeros((), np.int64)
        precision = "float64" if self.scale.dtype == np.float64 else "float32"
        kind: dict[str, Any] = {"bits": self.bits, "signed": self.signed, "precision": precision}
        if groups == 1:
            shape: tuple[int, ...] = () if columns == 1 else (columns,)
            zero = zero if not zero.ndim else np.broadcast_to(zero, self.scale.shape).reshape(shape)
            return Quantizer(self.scale.reshape(shape), zero_point=zero, **kind)
        if groups == depth:
            return None
        shape = (groups, channels)
        zero = zero if not zero.ndim else np.broadcast_to(zero, shape)
        return Quantizer(np.broadcast_to(self.scale, shape), zero_point=zero, group_size=depth // groups, **kind)


def code_type(array: Array) -> tuple[int, bool] | None:
    """Bits and sign of an integer type, ONNX's narrow ones too; None for others."""
    found = re.fullmatch(r"(u?)int(\d+)", array.dtype.name)
    return (int(found[2]), not found[1]) if found else None


class Constants:
    """Constants by name, folded when they are asked for. `known` grows; `folded` counts what was computed, by op."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.known = {name: Constant(array, name) for name, array in graph.constants.items()}
        self.folded: dict[str, int] = {}

    def find(self, name: str) -> Constant | None:
        """The constant of a name, computed if all it needs are constants; None otherwise."""
        if name not in self.known and name in self.graph.producers:
            self._fold(self.graph.producers[name])
        return self.known.get(name)

    def _fold(self, node: Node) -> None:
        if node.op == "Constant":
            self.known[node.outputs[0]] = Constant(_constant(node), node.outputs[0])
            return
        if node.op not in (*FOLDED, *QUANTIZE, *DEQUANTIZE):
            return
        given = [self.find(name) if name else None for name in node.inputs]
        if any(constant is None for constant, name in zip(given, node.inputs, strict=True) if name):
            return
        inputs = [constant for constant in given if constant is not None]
        if node.op in DEQUANTIZE:
            result = _dequantize(node, inputs)
        elif node.op in QUANTIZE:
            result = _quantize(node, inputs)
        elif node.op == "Transpose":
            order = node.attributes.get("perm")
            result = inputs[0].transposed(None if order is None else tuple(order))
        elif node.op == "Identity":
            result = inputs[0]
        else:
            self._evaluate(node, inputs)
            return
        self._keep(node, result)

    def _keep(self, node: Node, constant: Constant) -> None:
        self.known[node.outputs[0]] = constant
        self.folded[node.op] = self.folded.get(node.op, 0) + 1

    def _evaluate(self, node: Node, inputs: list[Constant]) -> None:
        from onnx import helper
        from onnx.reference import ReferenceEvaluator

        names = [name for name in node.inputs if name]
        attributes = {name: _as_attribute(value) for name, value in node.attributes.items()}
        proto = helper.make_node(node.op, list(node.inputs), list(node.outputs), **attributes)
        values = [helper.make_empty_tensor_value_info(name) for name in names]
        outputs = [helper.make_empty_tensor_value_info(name) for name in node.outputs]
        model = helper.make_model(helper.make_graph([proto], "fold", values, outputs),
                                  opset_imports=[helper.make_opsetid("", self.graph.opset)])  # fmt: skip
        feeds = dict(zip(names, (constant.reals() for constant in inputs), strict=True))
        try:
            (result,) = ReferenceEvaluator(model).run(None, feeds)
        except Exception as error:  # whatever the reference raises for a malformed node
            raise node.refuse(f"must be computable from its constants, got {error}") from None
        self._keep(node, Constant(np.asarray(result), inputs[0].source))


def aligned(node: Node, array: Array, parameter: Array) -> Array:
    """A scale or zero point of codes `array` with their rank: one, along `axis`, or in blocks along it."""
    axis, block = int(node.attributes.get("axis", 1)), int(node.attributes.get("block_size", 0))
    if parameter.size == 1:
        return parameter.reshape((1,) * array.ndim)
    axis %= max(array.ndim, 1)
    wanted = list(array.shape)
    if block:
        wanted[axis] = -(-wanted[axis] // block)
        whole = array.shape[axis] % block == 0 and parameter.shape == tuple(wanted)
        if not whole:
            raise node.refuse(f"must have blocks of {block} that fill axis {axis} of {array.shape}, "
                              f"got scales {parameter.shape}")  # fmt: skip
        return parameter
    if parameter.shape != (array.shape[axis],):
        raise node.refuse(f"must have one scale or {array.shape[axis]} along axis {axis}, got {parameter.shape}")
    return parameter.reshape([-1 if at == axis else 1 for at in range(array.ndim)])


def quantized(node: Node, codes: Constant, scale: Array, zero: Array | None) -> Constant:
    """Integer codes of the file with their scale and zero point, arrays of the rank of the codes."""
    kind = code_type(codes.array)
    if codes.scale is not None or kind is None:
        raise node.refuse(f"must have integer codes, got {codes.array.dtype.name}")
    if not (np.isfinite(scale) & (scale > 0)).all():
        raise node.refuse("must have positive, finite scales")
    offset = np.zeros(scale.shape, np.int64) if zero is None else zero.astype(np.int64)
    return replace(codes, scale=scale, zero=offset, bits=kind[0], signed=kind[1])


def _dequantize(node: Node, inputs: list[Constant]) -> Constant:
    codes = inputs[0]
    zero = aligned(node, codes.array, inputs[2].array) if len(inputs) > 2 else None
    return quantized(node, codes, aligned(node, codes.array, inputs[1].reals()), zero)


def _quantize(node: Node, inputs: list[Constant]) -> Constant:
    values = inputs[0].reals()
    if len(inputs) < 3 or node.attributes.get("block_size"):
        raise node.refuse("of a constant must have a zero point, which says its type, and no blocks")
    kind = code_type(inputs[2].array)
    if kind is None:
        raise node.refuse(f"must give integer codes, got {inputs[2].array.dtype.name}")
    scale, zero = (aligned(node, values, inputs[at].array) for at in (1, 2))
    grid = Quantizer(scale, kind[0], zero.astype(np.int64), kind[1], precision="float32")
    return Constant(grid.quantize(values).astype(inputs[2].array.dtype), inputs[0].source)


def _constant(node: Node) -> Array:
    for name in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        if name in node.attributes:
            kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64,
                     "value_ints": np.int64}  # fmt: skip
            return np.asarray(node.attributes[name], kinds.get(name))
    raise node.refuse(f"must hold numbers, got {', '.join(node.attributes) or 'nothing'}")


def _as_attribute(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        from onnx import numpy_helper

        return numpy_helper.from_array(value)
    return value


def _spread(parameter: Array, shape: tuple[int, ...]) -> Array:
    """A scale or zero point with as many entries as the codes along every axis that has blocks."""
    for axis, (given, wanted) in enumerate(zip(parameter.shape, shape, strict=True)):
        if 1 < given < wanted:
            parameter = np.repeat(parameter, wanted // given, axis=axis)
    return parameter


def as_reals(constant: Constant) -> Reals:
    """float64 reals, finite. Raises HwsimError."""
    values = constant.reals().astype(np.float64)
    if not np.isfinite(values).all():
        raise HwsimError(f"constant '{constant.source}' must be finite, got NaN or an infinity")
    return values
