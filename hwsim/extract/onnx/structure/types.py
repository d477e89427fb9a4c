"""Types of what a node computes: ONNX's own inference, and rules for operators of other domains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from hwsim.errors import HwsimError
from hwsim.extract.onnx.graph import Node

Shape = tuple[int, ...]
UNINFERRED = ("GroupNormalization",)
"""Operators of ONNX that have no rule for their sizes, which are those of the first input."""


@dataclass(frozen=True, slots=True)
class Type:
    """Sizes and NumPy's type of a value."""

    shape: Shape
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the inputs of a node, by position; None for an input that is left out."""

    types: tuple[Type | None, ...]
    arrays: tuple[Any, ...]
    """Contents of inputs that are small constants."""

    def need(self, at: int) -> Type:
        """The type of an input that must be there. Raises LookupError."""
        found = self.types[at] if at < len(self.types) else None
        if found is None:
            raise LookupError(f"input {at}")
        return found

    def array(self, at: int) -> Any:
        """The content of a small constant, else None."""
        return self.arrays[at] if at < len(self.arrays) else None


class Inference:
    """Types of outputs by ONNX's inference for one node, fed with the contents of its small constants."""

    def __init__(self, opsets: Mapping[str, int], bind: Mapping[str, int]) -> None:
        self.opsets = {("" if domain == "ai.onnx" else domain): version for domain, version in opsets.items()}
        self.bind = bind

    def schema(self, node: Node) -> Any:
        """ONNX's definition of an operator in this opset, None when it has none."""
        from onnx import defs

        domain, _, op = node.op.rpartition(".")
        if domain:
            return None
        try:
            return defs.get_schema(op, self.opsets.get("", 1), "")
        except defs.SchemaError:
            return None

    def outputs(self, node: Node, proto: Any, known: Known) -> list[Type | None]:
        """Type of each output, None for one that is left out. Raises HwsimError with the name of the node."""
        schema = self.schema(node)
        try:
            if schema is None:
                rule = RULES.get(node.op.rpartition(".")[2])
                if rule is None:
                    raise node.refuse("must be an operator whose output sizes are known")
                types = rule(node, known)
                found = [types[min(at, len(types) - 1)] if name else None for at, name in enumerate(node.outputs)]
            else:
                found = self._inferred(node, proto, known, schema)
        except LookupError as error:
            raise node.refuse(f"must have all its inputs, got none for {error}") from None
        return found

    def _inferred(self, node: Node, proto: Any, known: Known, schema: Any) -> list[Type | None]:
        from onnx import checker, helper, numpy_helper, shape_inference

        types, data = {}, {}
        for name, each, array in zip(node.inputs, known.types, known.arrays, strict=True):
            if not name or each is None:
                continue
            types[name] = helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(each.dtype), each.shape)
            if array is not None and each.dtype.kind in "iufb":
                data[name] = numpy_helper.from_array(np.asarray(array), name)
        opsets = [helper.make_opsetid(domain, version) for domain, version in self.opsets.items()]
        try:
            inferred = shape_inference.infer_node_outputs(schema, proto, types, data, opset_imports=opsets)
        except (shape_inference.InferenceError, checker.ValidationError) as error:
            raise self.misfit(node, known, str(error)) from None
        return [self._fixed(node, known, inferred.get(name)) if name else None for name in node.outputs]

    def _fixed(self, node: Node, known: Known, found: Any) -> Type:
        from onnx import helper

        tensor = found.tensor_type if found is not None and found.HasField("tensor_type") else None
        if tensor is None or not tensor.elem_type:
            raise node.refuse("must compute tensors, got another type or none")
        if not tensor.HasField("shape") and node.op in UNINFERRED:
            return Type(known.need(0).shape, np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
        if not tensor.HasField("shape"):
            raise node.refuse("must have output sizes that do not depend on values, got sizes that are computed")
        sizes = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
        if None in sizes:
            shown = ", ".join("?" if size is None else str(size) for size in sizes)
            raise node.refuse(f"must have output sizes that do not depend on values, got ({shown})")
        shape = tuple(int(size) for size in sizes if size is not None)
        if any(size < 0 for size in shape):
            raise self.misfit(node, known, f"sizes {shape}")
        return Type(shape, np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)))

    def check_length(self, node: Node, known: Known, outputs: list[Type | None]) -> None:
        """Raises HwsimError for a Reshape or Expand that keeps a length of the export."""
        found = outputs[0] if outputs else None
        if node.op == "Reshape" and found is not None and prod(found.shape) != prod(known.need(0).shape):
            raise self.misfit(node, known, "")

    def misfit(self, node: Node, known: Known, reason: str) -> HwsimError:
        """The error of a node whose inputs do not fit each other at the sizes that are bound."""
        shapes = " and ".join(str(each.shape) for each in known.types if each is not None)
        bound = ", ".join(f"{name}={size}" for name, size in self.bind.items())
        target = known.array(1)
        if node.op in ("Reshape", "Expand") and target is not None:
            held = tuple(int(size) for size in np.asarray(target).reshape(-1))
            given = known.need(0).shape
            return node.refuse(f"must keep the {prod(given)} elements of {given}: length frozen by the export: "
                               f"got {bound or 'other sizes'}, the file holds {held}")  # fmt: skip
        about = f": length frozen by the export, or sizes that do not belong together: got {bound}" if bound else ""
        detail = f" ({_first_line(reason)})" if reason and not bound else ""
        return node.refuse(f"must have inputs whose sizes fit, got {shapes}{about}{detail}")


def broadcast(*shapes: Shape) -> Shape:
    """The shape of an element-wise result. Raises LookupError for sizes that do not fit."""
    try:
        return tuple(np.broadcast_shapes(*shapes))
    except ValueError:
        raise LookupError(f"sizes that fit {' and '.join(map(str, shapes))}") from None


def product_shape(a: Shape, b: Shape) -> Shape:
    """The shape of `a @ b`. Raises LookupError for sizes that do not fit."""
    left, right = (1, *a) if len(a) == 1 else a, (*b, 1) if len(b) == 1 else b
    if left[-1] != right[-2]:
        raise LookupError(f"sizes that fit {a} and {b}")
    rows = () if len(a) == 1 else (left[-2],)
    columns = () if len(b) == 1 else (right[-1],)
    return (*broadcast(left[:-2], right[:-2]), *rows, *columns)


def swapped(shape: Shape, swap: Any) -> Shape:
    """With its last two sizes exchanged when asked."""
    return (*shape[:-2], shape[-1], shape[-2]) if swap else shape


def _first_line(text: str) -> str:
    return " ".join(text.split())[:160]


def _like(at: int = 0) -> Callable[[Node, Known], list[Type]]:
    return lambda node, known: [known.need(at)]


def _broadcast_of(*at: int) -> Callable[[Node, Known], list[Type]]:
    def rule(node: Node, known: Known) -> list[Type]:
        return [Type(broadcast(*(known.need(i).shape for i in at)), known.need(at[0]).dtype)]

    return rule


def _real(known: Known, at: int) -> np.dtype[Any]:
    return known.need(at).dtype


def _fused_product(node: Node, known: Known) -> list[Type]:
    a, b = known.need(0), known.need(1)
    sizes = node.attributes.get("transA", 0), node.attributes.get("transB", 0)
    return [Type(product_shape(swapped(a.shape, sizes[0]), swapped(b.shape, sizes[1])), a.dtype)]


def _product_to_float(node: Node, known: Known) -> list[Type]:
    return [Type(product_shape(known.need(0).shape, known.need(1).shape), _real(known, 2))]


def _dynamic_product(node: Node, known: Known) -> list[Type]:
    return [Type(product_shape(known.need(0).shape, known.need(1).shape), _real(known, 0))]


def _quantized_gemm(node: Node, known: Known) -> list[Type]:
    sizes = node.attributes.get("transA", 0), node.attributes.get("transB", 0)
    shape = product_shape(swapped(known.need(0).shape, sizes[0]), swapped(known.need(3).shape, sizes[1]))
    codes = known.need(0).dtype if len(known.types) > 7 and known.types[7] is not None else np.dtype(np.float32)
    return [Type(shape, codes)]


def _packed_product(node: Node, known: Known) -> list[Type]:
    x = known.need(0)
    return [Type((*x.shape[:-1], int(node.attributes["N"])), x.dtype)]


def _packed_gather(node: Node, known: Known) -> list[Type]:
    table, rows = known.need(0).shape, known.need(1).shape
    per_code = 8 // int(node.attributes.get("bits", 4)) if known.need(0).dtype == np.uint8 else 1
    axis = int(node.attributes.get("gather_axis", 0)) % len(table)
    sizes = (*table[:-1], table[-1] * per_code)
    return [Type((*sizes[:axis], *rows, *sizes[axis + 1 :]), _real(known, 2))]


def _recurrent(node: Node, known: Known) -> list[Type]:
    steps, batch, _ = known.need(0).shape
    directions, cells = known.need(1).shape[0], int(node.attributes["hidden_size"])
    state = Type((directions, batch, cells), _real(known, 0))
    return [Type((steps, directions, batch, cells), _real(known, 0)), state, state]


def _joined_codes(node: Node, known: Known) -> list[Type]:
    shapes = [known.need(at).shape for at in range(2, len(known.types), 3)]
    axis = int(node.attributes["axis"]) % len(shapes[0])
    sizes = list(shapes[0])
    sizes[axis] = sum(shape[axis] for shape in shapes)
    return [Type(tuple(sizes), known.need(2).dtype)]


def _pooled(node: Node, known: Known) -> list[Type]:
    x = known.need(0)
    if node.attributes.get("channels_last", 0):
        return [Type((x.shape[0], *(1 for _ in x.shape[1:-1]), x.shape[-1]), x.dtype)]
    return [Type((*x.shape[:2], *(1 for _ in x.shape[2:])), x.dtype)]


def _attention(node: Node, known: Known) -> list[Type]:
    x, packed = known.need(0), known.need(1).shape[1]
    return [Type((*x.shape[:2], packed // 3), _real(known, 3) if node.op.endswith("QAttention") else x.dtype)]


def _heads(node: Node, known: Known) -> list[Type]:
    query, value = known.need(0), known.need(2)
    width = value.shape[-1] if len(value.shape) == 3 else value.shape[1] * value.shape[3]
    return [Type((*query.shape[:2], width), query.dtype)]


def _quantize(node: Node, known: Known) -> list[Type]:
    zero = known.types[2] if len(known.types) > 2 else None
    return [Type(known.need(0).shape, np.dtype(np.uint8) if zero is None else zero.dtype)]


def _dequantize(node: Node, known: Known) -> list[Type]:
    return [Type(known.need(0).shape, known.need(1).dtype)]


def _skip_norm(node: Node, known: Known) -> list[Type]:
    x = known.need(0)
    statistics = Type((*x.shape[:-1], 1), np.dtype(np.float32))
    return [x, statistics, statistics, x]


def _cell(node: Node, known: Known) -> list[Type]:
    x, hidden = known.need(0), known.need(1)
    return [Type((*x.shape[:2], hidden.shape[-1]), x.dtype), hidden, known.need(2)]


RULES: dict[str, Callable[[Node, Known], list[Type]]] = {
    **dict.fromkeys(("QLinearAdd", "QLinearMul"), _broadcast_of(0, 3)),
    **dict.fromkeys(("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", "Gelu", "FastGelu", "QuickGelu",
                     "SimplifiedLayerNormalization", "Quant", "IntQuant", "BipolarQuant", "Trunc"), _like()),
    "BiasGelu": _broadcast_of(0, 1),
    **dict.fromkeys(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), _skip_norm),
    "FusedMatMul": _fused_product,
    "MatMulIntegerToFloat": _product_to_float,
    "DynamicQuantizeMatMul": _dynamic_product,
    "QGemm": _quantized_gemm,
    "MatMulNBits": _packed_product,
    "GatherBlockQuantized": _packed_gather,
    "DynamicQuantizeLSTM": _recurrent,
    "QuantLSTMCell": _cell,
    "QLinearConcat": _joined_codes,
    "QLinearGlobalAveragePool": _pooled,
    **dict.fromkeys(("Attention", "QAttention"), _attention),
    "MultiHeadAttention": _heads,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
}  # fmt: skip
"""Rules for operators that ONNX does not define, by name without the domain."""
