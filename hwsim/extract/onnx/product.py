"""Products with weights: the tensors that a layer needs, and on which grids they meet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.extract.onnx.constants import Constant, as_reals
from hwsim.extract.onnx.draft import Activation, Draft, Part
from hwsim.extract.onnx.graph import Node
from hwsim.extract.onnx.grids import common_grid
from hwsim.extract.onnx.layout import Layout
from hwsim.numerics import NumberFormat
from hwsim.numerics.quantizers import Quantizer
from hwsim.trace import Role

Array = npt.NDArray[Any]


def signed_codes(weight: Constant) -> Constant:
    """Unsigned codes as signed ones of as many bits: codes and zero point less 2^(bits - 1), the same reals."""
    if weight.signed or weight.zero is None:
        return weight
    offset = 1 << (weight.bits - 1)
    return replace(weight, array=weight.array.astype(np.int64) - offset, zero=weight.zero - offset, signed=True)


def declare_weight(draft: Draft, node: Node, name: str, weight: Constant, shape: tuple[int, ...],
                   x: Activation | None) -> Part:  # fmt: skip
    """The weight (K, N) of a product of `x` as a tensor of `shape`, with its codes, or its reals where x has no grid.

    A product of integers needs one grid for all of x, and one scale, N, or groups along K for the weight.
    """
    part = draft.tensor(name, Role.WEIGHT, shape, node.layer)
    draft.read_weight(weight.source, node)
    weight = signed_codes(weight)
    grid = weight.grid()
    if grid is not None:
        draft.formats[part.name] = number_format(grid)
    met = None if x is None else common_grid(draft, x)
    if grid is None or met is None:
        draft.codes[part.name] = as_reals(weight).reshape(shape)
        draft.input_formats[node.layer] = "fp32"
        _note_reals(draft, node, part, weight, grid)
        return part
    codes = weight.array.astype(np.int64).reshape(shape)
    draft.codes[part.name] = codes.astype(np.int8) if grid.bits <= 8 else codes
    draft.quantizers[part.name] = grid
    if grid.group_size and not met.signed:
        # Products with groups take signed codes: the same reals on a grid that is moved down.
        offset = 1 << (met.bits - 1)
        draft.quantizers[f"{part.name}.input"] = replace(met, signed=True, zero_point=met.zero_point - offset)
    draft.input_formats[node.layer] = f"int{met.bits}"
    return part


def number_format(grid: Quantizer) -> str:
    """The format of a grid, as policies write it."""
    zero = bool(grid.zero_point.any())
    if grid.group_size:
        return str(NumberFormat(f"int{grid.bits}", "group", grid.group_size, zero_point=zero))
    granularity = "channel" if grid.scale.size > 1 else "tensor"
    return str(NumberFormat(f"int{grid.bits}", granularity, zero_point=zero))  # type: ignore[arg-type]


def declare_bias(draft: Draft, node: Node, values: Array | None, stored: str = "fp32") -> Part | None:
    """A bias (N,) of reals."""
    if values is None:
        return None
    bias = draft.vector(f"{node.layer}.bias", values, node.layer)
    draft.formats[bias.name] = stored
    return bias


def product(draft: Draft, node: Node, x: Activation, weight: Constant, bias: Array | None, value: str,
            grid: Quantizer | None = None, open_: bool = True) -> None:  # fmt: skip
    """`value` = x @ weight (K, N) + bias, on `grid` when it holds codes. Raises HwsimError for other shapes."""
    columns = sum(part.columns for part in x.parts)
    if x.layout.column_axis != len(x.layout.axes) - 1 or weight.array.shape[0] != columns:
        raise node.refuse(f"must read rows of {weight.array.shape[0]} columns in the last axis, "
                          f"got {x.layout.shape}")  # fmt: skip
    outputs = weight.array.shape[1]
    matrix = declare_weight(draft, node, f"{node.layer}.weight", weight, weight.array.shape, x)
    offsets = declare_bias(draft, node, bias, "fp32" if grid is None else "int32")
    out = declare_out(draft, node, x.rows, outputs, grid)
    draft.builder.matmul(node.layer, x.tensors, matrix.index, out.index, m=x.rows,
                         bias=None if offsets is None else offsets.index)  # fmt: skip
    finish(draft, value, x.layout.with_columns(outputs), out, grid, open_)


def declare_out(draft: Draft, node: Node, rows: int, columns: int, grid: Quantizer | None = None) -> Part:
    """`<layer>.out` (rows, columns), on a grid when its value holds codes."""
    out = draft.tensor(f"{node.layer}.out", Role.ACTIVATION, (rows, columns), node.layer)
    if grid is not None:
        draft.quantizers[out.name] = grid
    return out


def finish(draft: Draft, value: str, layout: Layout, out: Part, grid: Quantizer | None, open_: bool = True) -> None:
    """The value that an operation has written to one tensor."""
    draft.computed(value, Activation(layout, (out,), codes=grid is not None, open=open_ and grid is None))


def added_bias(draft: Draft, layout: Layout, value: str) -> tuple[str, Array | None]:
    """The constant that the only reader of a product adds to it, as (N,), and the value after it."""
    reader = draft.graph.sole_consumer(value)
    if reader is None or reader.op != "Add":
        return value, None
    found = next((c for at in range(2) if (c := draft.constant(reader, at)) is not None), None)
    vector = None if found is None else layout.column_vector(as_reals(found))
    if vector is None:
        return value, None
    draft.absorb(reader)
    return reader.outputs[0], vector


def _note_reals(draft: Draft, node: Node, part: Part, weight: Constant, grid: Quantizer | None) -> None:
    if weight.scale is None:
        draft.note(f"{part.name}: computed in reals, because its weights are reals")
    elif grid is None:
        draft.note(f"{part.name}: computed in reals, because its scales lie along its inputs")
    else:
        draft.note(f"{part.name}: computed in reals from its {draft.formats[part.name]} weights, because what "
                   f"{node.layer} multiplies by them has no grid")  # fmt: skip
