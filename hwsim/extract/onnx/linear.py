"""Matrix products: MatMul, Gemm, and their integer forms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.extract.onnx.constants import Constant, aligned, as_reals, code_type, quantized
from hwsim.extract.onnx.draft import Activation, Draft
from hwsim.extract.onnx.graph import Node
from hwsim.extract.onnx.grids import common_grid, read_codes, read_grid, set_grid
from hwsim.extract.onnx.layout import Layout
from hwsim.extract.onnx.product import added_bias, product
from hwsim.numerics.quantizers import Quantizer

Array = npt.NDArray[Any]


def matmul(draft: Draft, node: Node) -> None:
    """x @ weight, with the bias that is added next."""
    weight = _matrix(draft, node, 1)
    x = draft.activation(node, 0)
    value, bias = added_bias(draft, x.layout.with_columns(weight.array.shape[1]), node.outputs[0])
    product(draft, node, x, weight, bias, value, open_=not draft.exact_sums)


def gemm(draft: Draft, node: Node) -> None:
    """x @ weight + bias, the weight transposed or not."""
    _plain_gemm(node)
    weight = _matrix(draft, node, 1)
    weight = weight.transposed() if node.attributes.get("transB", 0) else weight
    x, bias = draft.activation(node, 0), draft.constant(node, 2)
    if node.input(2) and bias is None:
        raise node.refuse(f"must have a constant bias, got '{node.input(2)}'")
    offsets = None if bias is None else _bias(node, x.layout.with_columns(weight.array.shape[1]), bias)
    product(draft, node, x, weight, offsets, node.outputs[0], open_=not draft.exact_sums)


def qlinear_matmul(draft: Draft, node: Node) -> None:
    """Codes of x @ weight."""
    x = read_codes(draft, node, 0, read_grid(draft, node, 1, 2))
    weight = coded_weight(draft, node, 3, 4, 5)
    product(draft, node, x, weight, None, node.outputs[0], read_grid(draft, node, 6, 7))


def qgemm(draft: Draft, node: Node) -> None:
    """Codes of x @ weight + bias, or its reals when it has no output scale."""
    _plain_gemm(node)
    grid = read_grid(draft, node, 1, 2)
    x = read_codes(draft, node, 0, grid)
    transposed = bool(node.attributes.get("transB", 0))
    weight = coded_weight(draft, node, 3, 4, 5, axis=0 if transposed else 1)
    weight = weight.transposed() if transposed else weight
    steps, bias = draft.constant(node, 6), None
    if steps is not None:
        assert weight.scale is not None
        bias = steps.array.reshape(-1) * (float(grid.scale) * weight.scale.astype(np.float64).reshape(-1))
        bias = np.broadcast_to(bias, (weight.array.shape[1],))
    output = read_grid(draft, node, 7, 8) if node.input(7) else None
    product(draft, node, x, weight, bias, node.outputs[0], output, open_=False)


def matmul_integer(draft: Draft, node: Node) -> None:
    """Integer sums, with the scale and bias that turn them into reals next."""
    weight = _matrix(draft, node, 1)
    x = codes_of_sum(draft, node)
    layout = x.layout.with_columns(weight.array.shape[1])
    value, scale, bias = integer_tail(draft, node, layout)
    product(draft, node, x, scaled_weight(draft, node, weight, x, scale, axis=1), bias, value, open_=False)


def coded_weight(draft: Draft, node: Node, codes: int, scale: int, zero: int, axis: int | None = None) -> Constant:
    """The weight of a QLinear operator, whose scales lie along its `axis`, the last unless told."""
    weight = draft.need_constant(node, codes, "weight")
    step = draft.need_constant(node, scale, "scale of its weights").reals()
    point = draft.constant(node, zero)
    at = weight.array.ndim - 1 if axis is None else axis
    along = replace(node, attributes={"axis": at})
    step = step.reshape(-1) if step.size == max(step.shape, default=1) else step
    offset = None if point is None else aligned(along, weight.array, point.array.reshape(-1))
    return quantized(node, weight, aligned(along, weight.array, step), offset)


def codes_of_sum(draft: Draft, node: Node) -> Activation:
    """The codes that an integer sum reads, on the grid they have; on integers when nothing says their scale."""
    x, point = draft.activation(node, 0), draft.constant(node, 2)
    if node.input(2) and point is None:
        raise node.refuse(f"must have a constant zero point, got '{node.input(2)}'")
    if not x.codes:
        raise node.refuse(f"must read codes, got the reals '{node.input(0)}'")
    if point is not None and point.array.size != 1:
        raise node.refuse(f"must have one zero point for its activations, got {point.array.size}")
    zero = 0 if point is None else int(point.array.reshape(-1)[0])
    grid = common_grid(draft, x)
    if grid is None:
        known = None if point is None else code_type(point.array)
        given = draft.graph.inputs.get(node.inputs[0])
        kind = known or ((8, given.dtype != "uint8") if given else (8, False))
        grid = Quantizer(np.ones(()), kind[0], np.asarray(zero), kind[1])
        draft.note(f"{node.layer}: nothing in the file says the scale of '{node.input(0)}', so it is 1")
        for part in x.parts:
            set_grid(draft, part, grid)
    elif int(grid.zero_point) != zero:
        raise node.refuse(f"must have the zero point of '{node.input(0)}', {int(grid.zero_point)}, got {zero}")
    return x


def integer_tail(draft: Draft, node: Node, layout: Layout) -> tuple[str, Array, Array | None]:
    """What follows integer sums, Cast, Mul and Add: the value after it, scales (N,) float64, and the bias (N,)."""
    value, scale = node.outputs[0], np.ones(layout.columns)
    while (reader := draft.graph.sole_consumer(value)) is not None and reader.op in ("Cast", "Mul"):
        if reader.op == "Mul":
            found = next((c for at in range(2) if (c := draft.constant(reader, at)) is not None), None)
            factor = None if found is None else layout.column_vector(as_reals(found))
            if factor is None or not (factor > 0).all():
                break
            scale = scale * factor
        draft.absorb(reader)
        value = reader.outputs[0]
    value, bias = added_bias(draft, layout, value)
    return value, scale, bias


def scaled_weight(draft: Draft, node: Node, weight: Constant, x: Activation, scale: Array, axis: int) -> Constant:
    """Weight codes of an integer sum with the scales that, times that of x, are those of the sum."""
    grid, point = common_grid(draft, x), draft.constant(node, 3)
    if node.input(3) and point is None:
        raise node.refuse(f"must have a constant zero point of its weights, got '{node.input(3)}'")
    assert grid is not None
    along = replace(node, attributes={"axis": axis})
    step = scale / float(grid.scale)
    step = step[:1] if (step == step[0]).all() else step
    zero = None if point is None else aligned(along, weight.array, point.array.reshape(-1))
    if zero is not None and zero.size > 1 and step.size == 1:
        step = np.broadcast_to(step, (zero.size,))
    return quantized(node, weight, aligned(along, weight.array, step), zero)


def _matrix(draft: Draft, node: Node, at: int) -> Constant:
    weight = draft.constant(node, at)
    if weight is None:
        raise node.refuse("must multiply by a constant weight: products of two activations (attention) are not read")
    if weight.array.ndim != 2:
        raise node.refuse(f"must have a weight (K, N), got {weight.array.shape}")
    return weight


def _plain_gemm(node: Node) -> None:
    for name, wanted in (("alpha", 1), ("beta", 1), ("transA", 0)):
        if node.attributes.get(name, wanted) != wanted:
            raise node.refuse(f"must have {name}={wanted}, got {node.attributes[name]:g}")


def _bias(node: Node, layout: Layout, bias: Constant) -> Array:
    vector = layout.column_vector(as_reals(bias))
    if vector is None:
        raise node.refuse(f"must have a bias ({layout.columns},), got {bias.array.shape}")
    return vector
