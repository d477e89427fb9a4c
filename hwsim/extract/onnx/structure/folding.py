"""Nodes whose inputs are all constants: what becomes of them without running the network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.extract.onnx.constants import code_type
from hwsim.extract.onnx.graph import Node
from hwsim.extract.onnx.structure.constant import SMALL, Constant, Grid
from hwsim.extract.onnx.structure.qonnx import QUANTIZERS, quant_grid, scale_axis
from hwsim.extract.onnx.structure.types import Type

Array = npt.NDArray[Any]
LAYOUT = ("Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Dropout")
FLOATS = ("float16", "float32", "float64", "bfloat16")


class Folder:
    """Computes nodes of constants by ONNX's reference, one evaluator for all nodes that differ in names only."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self._evaluators: dict[bytes, Any] = {}

    def fold(self, node: Node, proto: Any, inputs: list[Constant | None], types: list[Type | None]) -> list[Constant]:
        """The constants that a node gives, computed now if they are small. Raises HwsimError for a malformed node."""
        op, first = node.op.rpartition(".")[2], inputs[0] if inputs else None
        if op in LAYOUT and first is not None and types[0] is not None:
            return [first.reshaped(types[0].shape, node.outputs[0])]
        if op == "Transpose" and first is not None:
            order = node.attributes.get("perm") or range(len(first.shape))[::-1]
            return [first.transposed(tuple(int(at) for at in order), node.outputs[0])]
        if op == "Cast" and first is not None and types[0] is not None and _both_real(first, types[0]):
            return [first.cast(types[0].dtype, node.outputs[0])]
        if op == "DequantizeLinear" and first is not None:
            return [dequantized(node, first, inputs)]
        if node.op in QUANTIZERS and first is not None:
            return [on_grid(node, first, inputs)]
        if op == "Clip" and first is not None and first.grid is None and code_type(np.empty(0, first.dtype)):
            narrowed = _narrowed(node, first, inputs)
            if narrowed is not None:
                return [narrowed]
        return self._computed(node, proto, inputs, types)

    def _computed(self, node: Node, proto: Any, inputs: list[Constant | None],
                  types: list[Type | None]) -> list[Constant]:  # fmt: skip
        given = [constant for constant in inputs if constant is not None]
        made_of = given[:1] if node.op.endswith("QuantizeLinear") else given
        sources = frozenset().union(*(constant.sources for constant in made_of))
        found = []
        for at, (name, each) in enumerate(zip(node.outputs, types, strict=True)):
            if each is None:
                continue
            constant = Constant(name, each.shape, each.dtype, self._later(node, proto, given, at), sources,
                                axes=tuple(range(len(each.shape))), computed=True)  # fmt: skip
            if constant.elements <= SMALL:
                array = constant.file()
                constant = replace(constant, file=_holding(array), shape=array.shape, dtype=array.dtype)
            found.append(constant)
        return found

    def _later(self, node: Node, proto: Any, given: list[Constant], at: int) -> Any:
        return lambda: self._run(node, proto, [constant.reals() for constant in given])[at]

    def _run(self, node: Node, proto: Any, arrays: list[Array]) -> list[Array]:
        from onnx import helper
        from onnx.reference import ReferenceEvaluator

        plain = type(proto)()
        plain.CopyFrom(proto)
        plain.ClearField("name")
        plain.ClearField("metadata_props")
        plain.ClearField("doc_string")
        names = [f"i{at}" if name else "" for at, name in enumerate(node.inputs)]
        outputs = [f"o{at}" for at, _ in enumerate(node.outputs)]
        del plain.input[:], plain.output[:]
        plain.input.extend(names)
        plain.output.extend(outputs)
        key = plain.SerializeToString()
        try:
            if key not in self._evaluators:
                graph = helper.make_graph([plain], "fold", [helper.make_empty_tensor_value_info(n) for n in names if n],
                                          [helper.make_empty_tensor_value_info(n) for n in outputs])  # fmt: skip
                opset = helper.make_opsetid("", self.opset)
                self._evaluators[key] = ReferenceEvaluator(helper.make_model(graph, opset_imports=[opset]))
            feeds = dict(zip((name for name in names if name), arrays, strict=True))
            return [np.asarray(array) for array in self._evaluators[key].run(None, feeds)]
        except Exception as error:  # whatever the reference raises for a malformed node
            text = " ".join(str(error).split())[:160]
            raise node.refuse(f"must be computable from its constants, got {text}") from None


def dequantized(node: Node, codes: Constant, inputs: list[Constant | None]) -> Constant:
    """Codes of the file, or reals that are to be quantized, with the grid of the node's other inputs."""
    scale, zero = (inputs[at] if at < len(inputs) else None for at in (1, 2))
    if scale is None:
        raise node.refuse("must have a scale")
    kind = code_type(np.empty(0, codes.dtype))
    if codes.grid is not None:
        kind = codes.grid.bits, codes.grid.signed
    if kind is None:
        raise node.refuse(f"must have integer codes, got {codes.dtype.name}")
    return with_grid(node, codes, scale.reals(), None if zero is None else zero.read(), kind)


def on_grid(node: Node, reals: Constant, inputs: list[Constant | None]) -> Constant:
    """A constant of reals behind a QONNX quantizer: the file has the reals, not the codes."""
    grid = quant_grid(node, inputs)
    axis = scale_axis(node, reals.shape, grid.scale.shape)
    zero = grid.zero
    if zero is not None:
        zero = np.broadcast_to(zero, grid.scale.shape if zero.size == 1 or axis is not None else ()).reshape(-1)
    return with_grid(node, reals, grid.scale.reshape(-1), zero, (grid.bits, grid.signed), axis or 0)


def with_grid(node: Node, codes: Constant, scale: Array, zero: Array | None, kind: tuple[int, bool],
              axis: int | None = None) -> Constant:  # fmt: skip
    """A constant whose codes have this scale and zero point, along the axis that the node names unless one is given."""
    along = axis if axis is not None else int(node.attributes.get("axis", 1))
    block = int(node.attributes.get("block_size", 0)) or None
    if not np.isfinite(scale).all():
        raise node.refuse("must have finite scales")
    if scale.size == 1:
        grid = Grid(*kind, scale.reshape(()), None if zero is None else zero.reshape(()))
    else:
        along %= max(len(codes.shape), 1)
        grid = Grid(*kind, scale, zero, codes.axes[along], along, block)
    return replace(codes, name=node.outputs[0], grid=grid)


def _narrowed(node: Node, codes: Constant, inputs: list[Constant | None]) -> Constant | None:
    low, high = (inputs[at].read() if at < len(inputs) and inputs[at] is not None else None for at in (1, 2))  # type: ignore[union-attr]
    kind = code_type(np.empty(0, codes.dtype))
    if low is None or high is None or kind is None:
        return None
    bits = clipped_bits(int(low), int(high), kind)
    return replace(codes, name=node.outputs[0], grid=Grid(*bits, np.ones(()))) if bits else None


def clipped_bits(low: int, high: int, kind: tuple[int, bool]) -> tuple[int, bool] | None:
    """Bits and sign of codes that are clipped to low ... high, narrow ranges too; None when they are no such grid."""
    for bits in range(1, kind[0] + 1):
        top = (1 << (bits - 1)) - 1
        if kind[1] and high == top and low in (-top - 1, -top) and bits > 1:
            return bits, True
        if low == 0 and high in ((1 << bits) - 1, (1 << bits) - 2) and bits > 1:
            return bits, kind[1] and bits == kind[0]
    return None


def _both_real(first: Constant, to: Type) -> bool:
    return first.dtype.name in FLOATS and to.dtype.name in FLOATS and first.grid is None


def _holding(array: Array) -> Any:
    return lambda: array
