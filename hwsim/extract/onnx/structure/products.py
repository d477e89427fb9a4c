"""Products of matrices: with a constant weight, or of two computed values."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

from hwsim.extract.graph.nodes import NodeKind
from hwsim.extract.onnx.graph import Node
from hwsim.extract.onnx.structure.constant import Constant
from hwsim.extract.onnx.structure.draft import Draft, Ref
from hwsim.extract.onnx.structure.grids import float_format
from hwsim.extract.onnx.structure.types import swapped


def matmul(draft: Draft, node: Node) -> None:
    """MatMul and FusedMatMul."""
    attributes = node.attributes
    if attributes.get("transBatchA", 0) or attributes.get("transBatchB", 0):
        raise node.refuse("must have no transposed batch axes")
    if attributes.get("alpha", 1.0) != 1.0:
        draft.note(f"{node.name}: its factor {attributes['alpha']:g} is part of the product")
    flips = bool(attributes.get("transA", 0)), bool(attributes.get("transB", 0))
    operands(draft, node, 0, 1, flips, node.outputs[0])


def operands(draft: Draft, node: Node, a: int, b: int, flips: tuple[bool, bool], out: str, *, bias: str | None = None,
             codes: str | None = None, weight: Constant | None = None) -> None:  # fmt: skip
    """`a @ b`, each with its last axes exchanged if it `flips`; a constant one is a weight.

    `weight`: instead of the constant at `b`. `codes`: the format of a result that holds codes.
    """
    second = weight if weight is not None else draft.constant(node, b)
    if second is not None:
        x = _flipped(draft, node, a, flips[0])
        matrix = _swapped(second) if flips[1] else second
        linear(draft, node, x, float_format(draft, node, a), matrix, out, bias=bias, codes=codes)
        return
    first = draft.constant(node, a)
    if first is not None and len(first.shape) > 1:
        _weight_first(draft, node, b, first, flips, out)
        return
    shapes = swapped(draft.type(node, a).shape, flips[0]), swapped(draft.type(node, b).shape, flips[1])
    inputs = [_flipped(draft, node, a, flips[0]), _flipped(draft, node, b, flips[1])]
    product(draft, node, inputs, shapes, out, float_format(draft, node, a), codes)


def product(draft: Draft, node: Node, inputs: list[str], shapes: Any, out: str, input_format: str,
            codes: str | None = None, suffix: str = "") -> None:  # fmt: skip
    """A product of two computed values of `shapes`."""
    a, b = (
        ((1, *shapes[0]) if len(shapes[0]) == 1 else shapes[0]),
        ((*shapes[1], 1) if len(shapes[1]) == 1 else shapes[1]),
    )
    if out not in draft.values:
        draft.declare(out, codes=codes)
    batch = draft.values[out].elements // (a[-2] * b[-1]) if a[-2] * b[-1] else 0
    draft.emit(NodeKind.MATMUL, node, inputs, [out], input_format=input_format, codes=codes, suffix=suffix,
               m=a[-2], k=a[-1], n=b[-1], batch=batch)  # fmt: skip


def linear(draft: Draft, node: Node, x: str, input_format: str, matrix: Constant, out: str, *,
           bias: str | None = None, codes: str | None = None) -> None:  # fmt: skip
    """`x` by a constant (K, N), or several of them, one for each index of x's batch axes."""
    sizes = matrix.shape
    if len(sizes) == 1:
        matrix = matrix.reshaped((sizes[0], 1), matrix.name)
    if prod(matrix.shape[:-2]) > 1:
        _batched(draft, node, x, input_format, matrix, out)
        return
    depth, channel = len(matrix.shape) - 2, len(matrix.shape) - 1
    weight = draft.weight(node, matrix, matrix.shape[-2:], channel=channel, depth=depth)
    if bias is None and codes is None:
        out, bias = added_bias(draft, node, out, matrix.shape[-1])
    draft.emit(NodeKind.LINEAR, node, [x], [out], {"weight": weight, "bias": bias}, input_format=input_format,
               codes=codes)  # fmt: skip


def added_bias(draft: Draft, node: Node, out: str, channels: int, behind: int = 0) -> tuple[str, str | None]:
    """The constant that the only reader of a product adds to it, and the value after it.

    `behind`: axes of the result behind that of its channels.
    """
    reader = draft.sole_reader(out)
    if reader is None or reader.op != "Add":
        return out, None
    found = next((c for at in range(2) if (c := draft.constant(reader, at)) is not None), None)
    rank = len(draft.resolved.types[out].shape)
    if found is None or found.elements != channels or draft.out_type(reader).shape != draft.resolved.types[out].shape:
        return out, None
    axes = [len(found.shape) - at for at, size in enumerate(found.shape) if size > 1]
    if not found.is_real or len(found.shape) > rank or (axes and axes != [behind + 1]):
        return out, None
    draft.absorbed.add(reader.outputs[0])
    return reader.outputs[0], draft.weight(reader, found, (channels,))


def gemm(draft: Draft, node: Node) -> None:
    """Gemm: a product with an addend."""
    attributes = node.attributes
    flips = bool(attributes.get("transA", 0)), bool(attributes.get("transB", 0))
    factors = [attributes.get(name, 1.0) for name in ("alpha", "beta")]
    if any(factor not in (0.0, 1.0) for factor in factors):
        draft.note(f"{node.name}: its factors {factors[0]:g} and {factors[1]:g} are part of the product")
    addend, out = draft.constant(node, 2), node.outputs[0]
    shape = draft.out_type(node).shape
    weighted = draft.constant(node, 1) is not None
    if weighted and addend is not None and addend.elements == shape[-1] and addend.shape[-1:] == shape[-1:]:
        operands(draft, node, 0, 1, flips, out, bias=draft.weight(node, addend, shape[-1:]))
        return
    if not node.input(2):
        operands(draft, node, 0, 1, flips, out)
        return
    inner = draft.temporary(node, "product", shape, draft.out_type(node).dtype)
    operands(draft, node, 0, 1, flips, inner)
    held = None
    if addend is not None:
        held = draft.weight(node, addend, addend.shape) if addend.elements > 1 else None
        draft.spent.update(addend.sources if addend.elements == 1 else ())
    inputs = [inner] if addend is not None else [inner, draft.reference(node, 2).value]
    draft.emit(NodeKind.ELEMENTWISE, node, inputs, [out], {"constant": held}, suffix="add", function="add",
               width=shape[-1])  # fmt: skip


def einsum(draft: Draft, node: Node) -> None:
    """A product of two operands, each brought to batch, rows and columns by a view."""
    equation = str(node.attributes["equation"]).replace(" ", "")
    terms, _, result = equation.partition("->")
    parts = terms.split(",")
    if len(parts) != 2 or "." in equation or not result or any(len(set(part)) < len(part) for part in (*parts, result)):
        raise node.refuse(f"must be a product of two operands without repeated axes, got '{equation}'")
    sizes = {axis: size for at, part in enumerate(parts)
             for axis, size in zip(part, draft.type(node, at).shape, strict=True)}  # fmt: skip
    groups = _einsum_groups(node, equation, parts, result)
    counts = {key: prod(sizes[axis] for axis in axes) for key, axes in groups.items()}
    constant = next((at for at in (1, 0) if draft.constant(node, at) is not None), None)
    if constant is not None and not groups["batch"]:
        held, order = draft.need_constant(node, constant, "weight"), groups["k"] + groups["nm"[1 - constant]]
        part = parts[constant]
        matrix = held.transposed([part.index(axis) for axis in order]).reshaped(
            (counts["k"], counts["nm"[1 - constant]]), held.name
        )
        other = 1 - constant
        linear(draft, node, draft.reference(node, other).value, float_format(draft, node, other), matrix,
               node.outputs[0])  # fmt: skip
        return
    inputs = [draft.reference(node, at).value for at in range(2)]
    draft.emit(NodeKind.MATMUL, node, inputs, [node.outputs[0]], input_format=float_format(draft, node, 0),
               m=counts["m"], k=counts["k"], n=counts["n"], batch=counts["batch"])  # fmt: skip


def _einsum_groups(node: Node, equation: str, parts: list[str], result: str) -> dict[str, str]:
    both = set(parts[0]) & set(parts[1])
    groups = {
        "batch": "".join(axis for axis in result if axis in both),
        "k": "".join(axis for axis in parts[0] if axis in both and axis not in result),
        "m": "".join(axis for axis in result if axis in parts[0] and axis not in both),
        "n": "".join(axis for axis in result if axis in parts[1] and axis not in both),
    }
    if sum(map(len, groups.values())) != len(set(parts[0]) | set(parts[1])) or not groups["k"]:
        raise node.refuse(f"must sum over axes of both operands, got '{equation}'")
    return groups


def _weight_first(draft: Draft, node: Node, b: int, first: Constant, flips: tuple[bool, bool], out: str) -> None:
    """A constant in front: the product of the transposes, between two views."""
    x = _flipped(draft, node, b, not flips[1])
    result = draft.resolved.types[out]
    inner = draft.temporary(node, "transposed", swapped(result.shape, True), result.dtype)
    matrix = first if flips[0] else _swapped(first)
    linear(draft, node, x, float_format(draft, node, b), matrix, inner)
    draft.emit(NodeKind.VIEW, node, [inner], [out], suffix="transpose")


def _batched(draft: Draft, node: Node, x: str, input_format: str, matrix: Constant, out: str) -> None:
    """Several matrices: one matrix of all their columns if they read the same rows, else a grouped convolution."""
    count, (depth, columns) = prod(matrix.shape[:-2]), matrix.shape[-2:]
    rank = len(matrix.shape)
    own = draft.values[x].shape[:-2]
    rows = draft.values[x].elements // depth
    if prod(own) == 1:
        order = (rank - 2, *range(rank - 2), rank - 1)
        joined = matrix.transposed(order).reshaped((depth, count * columns), matrix.name)
        weight = draft.weight(node, joined, joined.shape, depth=0)
        draft.emit(NodeKind.LINEAR, node, [x], [out], {"weight": weight}, input_format=input_format)
        return
    if own[-(rank - 2) :] != matrix.shape[:-2]:
        raise node.refuse(f"must read one matrix for each index of its batch axes, got {matrix.shape} for {own}")
    order = (rank - 2, *range(rank - 2), rank - 1)
    weight = draft.weight(node, matrix.transposed(order), (1, depth, count * columns), depth=0)
    draft.note(f"{node.name}: {count} products of constants are one convolution of {count} groups and one tap")
    draft.emit(NodeKind.CONV, node, [x], [out], {"weight": weight}, input_format=input_format, positions=rows // count,
               taps=1, inputs=count * depth, outputs=count * columns, groups=count, dimensions=1, kernel=[1],
               stride=[1], dilation=[1], padding=[(0, 0)])  # fmt: skip


def _swapped(constant: Constant) -> Constant:
    rank = len(constant.shape)
    return constant.transposed((*range(rank - 2), rank - 1, rank - 2))


def _flipped(draft: Draft, node: Node, at: int, flip: bool) -> str:
    """A computed input, with its last two axes exchanged if asked."""
    ref = draft.reference(node, at)
    if not flip:
        return ref.value
    name, kind = f"{node.outputs[0]}:transposed{at}", draft.type(node, at)
    draft.declare(name, kind.dtype, swapped(kind.shape, True), ref.format if ref.codes else None)
    draft.refs[name] = replace(Ref(name), format=ref.format)
    draft.emit(NodeKind.VIEW, node, [ref.value], [name], suffix="transpose")
    return name
