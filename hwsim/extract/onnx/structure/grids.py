"""Quantizers of activations: pairs of nodes that set formats and compute nothing that is recorded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from hwsim.errors import HwsimError
from hwsim.extract.graph.nodes import NodeKind
from hwsim.extract.onnx.constants import QUANTIZE, code_type
from hwsim.extract.onnx.graph import Node
from hwsim.extract.onnx.grids import CODE_TYPES
from hwsim.extract.onnx.structure import qonnx
from hwsim.extract.onnx.structure.constant import Grid
from hwsim.extract.onnx.structure.draft import Draft, Ref
from hwsim.extract.onnx.structure.folding import clipped_bits
from hwsim.extract.onnx.structure.formats import activation_format, integer_base
from hwsim.extract.onnx.structure.qonnx import quant_grid
from hwsim.numerics.formats import NumberFormat

QUANTIZERS = (*QUANTIZE, *qonnx.QUANTIZERS)
FLOATS = ("fp32", "fp16", "bf16")


def input_grid(draft: Draft, node: Node, scale: int, zero: int, dtype: np.dtype[Any] | None = None) -> Grid:
    """The grid that a node names by a scale and a zero point; `dtype`: of its codes when it names none."""
    step, offset = draft.number(node, scale), draft.constant(node, zero)
    draft.spend(node, scale, zero)
    if step is None:
        raise node.refuse(f"must have a constant scale, got '{node.input(scale) or 'none'}'")
    draft.quantized = True
    if offset is not None:
        kind = code_type(np.empty(0, offset.dtype))
    elif dtype is not None:
        kind = code_type(np.empty(0, dtype))
    else:
        kind = CODE_TYPES.get(int(node.attributes.get("output_dtype", 0)), (8, False))
    if kind is None:
        raise node.refuse(f"must give integer codes, got {(offset or step).dtype.name}")
    size = int(node.attributes.get("block_size", 0)) or None
    return Grid(*kind, step, None if offset is None else offset.read(), None, None, size)


def quantize_linear(draft: Draft, node: Node) -> None:
    """Codes of a value; they are how it is stored if nobody reads its reals."""
    grid = input_grid(draft, node, 1, 2, draft.out_type(node).dtype)
    bits = _clip_behind(draft, node, grid)
    _put_on_grid(draft, node, activation_format(node, grid if bits is None else replace(grid, bits=bits)), codes=True)


def dequantize_linear(draft: Draft, node: Node) -> None:
    """Reals of codes: the same value."""
    ref = draft.reference(node, 0)
    grid = input_grid(draft, node, 1, 2, draft.type(node, 0).dtype)
    if ref.format is None and draft.type(node, 0).dtype == np.int32:
        draft.alias(node.outputs[0], Ref(ref.value), node)
        return
    text = ref.format or activation_format(node, grid)
    if ref.format is None:
        draft.set_format(ref.value, text)
        draft.values[ref.value] = replace(draft.values[ref.value], integer=False)
    draft.alias(node.outputs[0], Ref(ref.value, text), node)


def clip_of_codes(draft: Draft, node: Node) -> bool:
    """Whether a Clip bounds codes, which is how a narrower type is written; then it is read."""
    ref = draft.refs.get(node.inputs[0])
    if ref is None or not ref.codes:
        return False
    for at in (1, 2):
        draft.fold(draft.constant(node, at))
    draft.alias(node.outputs[0], ref, node)
    return True


def dynamic_quantize(draft: Draft, node: Node) -> None:
    """Codes on a grid that is found when the network runs."""
    draft.quantized = True
    ref = draft.reference(node, 0)
    text = str(NumberFormat("int8", zero_point=True))
    draft.note("activations of DynamicQuantizeLinear: grids are found when the network runs, which is not counted")
    shown = [
        name
        for name in node.outputs[1:]
        if name
        and any(
            each.outputs[0] not in draft.absorbed and each.op in ("Mul", "Cast")
            for each in draft.consumers.get(name, [])
        )
    ]
    if shown:
        draft.emit(NodeKind.VIEW, node, [ref.value], shown, suffix="grid")
    draft.alias(node.outputs[0], Ref(ref.value, text, True), node)


def qonnx_quant(draft: Draft, node: Node) -> None:
    """A quantizer that gives reals on a grid."""
    grid = quant_grid(node, [draft.constant(node, at) for at in range(len(node.inputs))])
    draft.quantized = True
    draft.spend(node, *range(1, len(node.inputs)))
    _put_on_grid(draft, node, activation_format(node, grid), codes=False)


def trunc(draft: Draft, node: Node) -> None:
    """Codes without their last bits: a narrower format."""
    bits = draft.number(node, 4)
    if bits is None:
        raise node.refuse(f"must have a constant output width, got '{node.input(4) or 'none'}'")
    draft.spend(node, *range(1, len(node.inputs)))
    _put_on_grid(draft, node, integer_base(node, int(bits)), codes=False)


def _put_on_grid(draft: Draft, node: Node, text: str, codes: bool) -> None:
    ref = draft.reference(node, 0)
    name, readers = node.inputs[0], draft.consumers.get(node.inputs[0], [])
    only = all(reader.op in QUANTIZERS for reader in readers) and name not in draft.resolved.outputs
    if only and draft.values[ref.value].format in FLOATS and ref.value == name:
        draft.set_format(ref.value, text)
    draft.alias(node.outputs[0], Ref(ref.value, text, codes), node)


def _clip_behind(draft: Draft, node: Node, grid: Grid) -> int | None:
    """Bits of a type that is written as wider codes and a Clip."""
    reader = draft.sole_reader(node.outputs[0])
    if reader is None or reader.op != "Clip":
        return None
    low, high = draft.number(reader, 1), draft.number(reader, 2)
    if low is None or high is None:
        return None
    found = clipped_bits(int(low), int(high), (grid.bits, grid.signed))
    return found[0] if found else None


def float_format(draft: Draft, node: Node, at: int) -> str:
    """The format in which a product takes an input: of its quantizer, else of the value."""
    ref = draft.reference(node, at)
    return ref.format or draft.values[ref.value].format


def check_floats(draft: Draft, allow_float: bool) -> None:
    """A quantized model has no product with float weights. Raises HwsimError that names them, unless allowed."""
    if not draft.quantized:
        return
    activations = [
        each.node.name for each in draft.emitted if each.kind == NodeKind.MATMUL and each.input_format in FLOATS
    ]
    if activations:
        draft.note(f"products of two activations that stay in floats: {_listed(activations)}")
    left: list[str] = []
    convolutions: list[str] = []
    for each in draft.emitted:
        formats = [draft.weights[name].format for part, name in each.weights.items() if part in _PRODUCTS
                   or part.endswith(("_wx", "_wh"))]  # fmt: skip
        if any(text in FLOATS for text in formats):
            (convolutions if each.kind == NodeKind.CONV else left).append(f"{each.node.name} ({each.node.op})")
    if convolutions:
        draft.note(f"convolutions that stay in floats: {_listed(convolutions)}")
    if not left:
        return
    if not allow_float:
        raise HwsimError(f"a quantized model must have no product with float weights, got {len(left)}: "
                         f"{_listed(left)}: quantize them too, or allow floats")  # fmt: skip
    draft.note(f"products that stay in floats: {_listed(left)}")


_PRODUCTS = ("weight", "wx", "wh")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")
