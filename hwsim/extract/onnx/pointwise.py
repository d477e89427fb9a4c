"""Element-wise functions, softmax, layer norm and embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from hwsim.extract.onnx.constants import Constant, as_reals
from hwsim.extract.onnx.draft import Activation, Draft, Part
from hwsim.extract.onnx.graph import Node
from hwsim.extract.onnx.grids import read_codes, read_grid
from hwsim.extract.onnx.layout import Layout
from hwsim.extract.onnx.product import declare_out, finish, number_format
from hwsim.numerics.quantizers import Quantizer
from hwsim.trace import Function, Kind, Role
from hwsim.trace.builder import Operand

Handler = Callable[[Draft, Node], None]


def unary(function: Function) -> Handler:
    """The reader of a function of one operand, of tensors beside each other too."""

    def read(draft: Draft, node: Node) -> None:
        x = draft.activation(node, 0)
        parts = []
        for at, part in enumerate(x.parts):
            name = f"{node.layer}.out{at if len(x.parts) > 1 else ''}"
            out = draft.tensor(name, Role.ACTIVATION, (x.rows, part.columns), node.layer)
            _emit(draft, node, function, [Operand(part.index, part.columns)], out, x.rows)
            parts.append(out)
        draft.computed(node.outputs[0], replace(x, parts=tuple(parts), codes=False, open=True))

    return read


def binary(function: Function) -> Handler:
    """The reader of a function of two operands, of which one may be a constant vector over the columns."""

    def read(draft: Draft, node: Node) -> None:
        constants = [draft.constant(node, at) for at in range(2)]
        _two(draft, node, function, (0, 1), constants, None)

    return read


def qlinear_binary(function: Function) -> Handler:
    """The reader of QLinearAdd and QLinearMul, which add the zero point before they round."""

    def read(draft: Draft, node: Node) -> None:
        constants = []
        for at in (0, 3):
            grid, stored = read_grid(draft, node, at + 1, at + 2), draft.constant(node, at)
            constants.append(None if stored is None else Constant(grid.dequantize(stored.array), stored.source))
            if stored is None:
                read_codes(draft, node, at, grid)
        output = replace(read_grid(draft, node, 6, 7), zero_point_order="before")
        _two(draft, node, function, (0, 3), constants, output)

    return read


def qlinear_sigmoid(draft: Draft, node: Node) -> None:
    """Codes of the sigmoid of codes."""
    x = read_codes(draft, node, 0, read_grid(draft, node, 1, 2))
    x, grid = draft.single(node, 0), read_grid(draft, node, 3, 4)
    out = declare_out(draft, node, x.rows, x.layout.columns, grid)
    _emit(draft, node, Function.SIGMOID, [Operand(x.parts[0].index, x.parts[0].columns)], out, x.rows)
    finish(draft, node.outputs[0], x.layout, out, grid)


def softmax(function: Function) -> Handler:
    """The reader of Softmax and LogSoftmax over the columns."""

    def read(draft: Draft, node: Node) -> None:
        x = draft.single(node, 0)
        _over_columns(node, x, int(node.attributes.get("axis", -1)))
        width = x.layout.columns
        out = declare_out(draft, node, x.rows, width)
        draft.builder.op(Kind.SOFTMAX, node.layer, [Operand(x.parts[0].index, width)], [Operand(out.index, width)],
                         m=x.rows, n=width, function=function)  # fmt: skip
        finish(draft, node.outputs[0], x.layout, out, None)

    return read


def layer_norm(draft: Draft, node: Node) -> None:
    """(x - mean) / sqrt(variance + epsilon) gamma + beta, over the columns."""
    x = draft.single(node, 0)
    _over_columns(node, x, int(node.attributes.get("axis", -1)))
    width, found = x.layout.columns, draft.constant(node, 2)
    if node.input(2) and found is None:
        raise node.refuse(f"must have a constant beta, got '{node.input(2)}'")
    values = as_reals(draft.need_constant(node, 1, "gamma")), np.zeros(width) if found is None else as_reals(found)
    for vector in values:
        if vector.size != width:
            raise node.refuse(f"must have gamma and beta ({width},), got {vector.shape}")
    vectors = [draft.vector(f"{node.layer}.{name}", vector.reshape(-1), node.layer)
               for name, vector in zip(("gamma", "beta"), values, strict=True)]  # fmt: skip
    out = declare_out(draft, node, x.rows, width)
    draft.builder.attributes(node.layer, epsilon=float(node.attributes.get("epsilon", 1e-5)))
    reads = [Operand(x.parts[0].index, width), *(Operand(vector.index, fixed=width) for vector in vectors)]
    draft.builder.op(Kind.NORM, node.layer, reads, [Operand(out.index, width)], m=x.rows, n=width)
    finish(draft, node.outputs[0], x.layout, out, None)


def gather(draft: Draft, node: Node) -> None:
    """Rows of a constant table by labels: an embedding."""
    table, labels = draft.constant(node, 0), draft.single(node, 1)
    axis = int(node.attributes.get("axis", 0))
    if table is None or table.array.ndim != 2 or axis not in (0, -2) or not labels.labels:
        raise node.refuse("must look labels up in the rows of a constant table (V, D)")
    size = table.array.shape[1]
    part = draft.tensor(f"{node.layer}.table", Role.WEIGHT, table.array.shape, node.layer)
    row = draft.tensor(f"{node.layer}.out", Role.ACTIVATION, (labels.rows, size), node.layer)
    grid = table.grid()
    integers = table.array.dtype.kind in "iu" or table.scale is not None
    draft.codes[part.name] = table.array.astype(np.int64) if integers else as_reals(table)
    if grid is not None:
        draft.quantizers[part.name], draft.formats[part.name] = grid, number_format(grid)
    elif integers and table.scale is None:
        draft.tables[row.name] = part.name
    elif integers:
        draft.codes[part.name] = as_reals(table)
    reads = [Operand(part.index, size), Operand(labels.parts[0].index, 1)]
    draft.builder.op(Kind.LOOKUP, node.layer, reads, [Operand(row.index, size)], m=labels.rows, n=size)
    layout = Layout((*labels.layout.axes, (1,)), (labels.rows, size))
    codes = integers and table.scale is None
    draft.computed(node.outputs[0], Activation(layout, (row,), codes=codes, open=not codes))


def _two(draft: Draft, node: Node, function: Function, at: tuple[int, int], constants: Sequence[Constant | None],
         grid: Quantizer | None) -> None:  # fmt: skip
    """An operation of two tensors of one shape, or of a tensor and a vector."""
    x = draft.single(node, at[0] if constants[0] is None else at[1])
    width = x.layout.columns
    reads = [Operand(x.parts[0].index, width)]
    constant = constants[0] or constants[1]
    if constant is not None:
        vector = x.layout.column_vector(as_reals(constant))
        if vector is None:
            raise node.refuse(f"must have a constant of one number or {width} over the columns, "
                              f"got {constant.array.shape}")  # fmt: skip
        other = draft.vector(f"{node.layer}.operand", vector, node.layer)
        reads.append(Operand(other.index, fixed=width))
    else:
        y = draft.single(node, at[1])
        rank = max(len(x.layout.axes), len(y.layout.axes))
        if _from_the_right(x, rank) != _from_the_right(y, rank):
            raise node.refuse(f"must read two values of one shape, got {x.layout.shape} and {y.layout.shape}")
        x = y if len(y.layout.axes) == rank else x
        reads.append(Operand(y.parts[0].index, width))
    out = declare_out(draft, node, x.rows, width, grid)
    _emit(draft, node, function, reads, out, x.rows)
    finish(draft, node.outputs[0], x.layout, out, grid)


def _from_the_right(x: Activation, rank: int) -> tuple[object, ...]:
    """Shape, row and column axis, counted from the last."""
    layout = x.layout
    shape = (1,) * (rank - len(layout.axes)) + layout.shape
    return (shape, *(None if at is None else at - len(layout.axes) for at in (layout.row_axis, layout.column_axis)))


def _over_columns(node: Node, x: Activation, axis: int) -> None:
    rank = len(x.layout.axes)
    if axis % rank != x.layout.column_axis:
        raise node.refuse(f"must be over the columns, axis {x.layout.column_axis} of {x.layout.shape}, got {axis}")


def _emit(draft: Draft, node: Node, function: Function, reads: list[Operand], out: Part, rows: int) -> None:
    draft.builder.op(Kind.ELEMENTWISE, node.layer, reads, [Operand(out.index, out.columns)], m=rows, n=out.columns,
                     function=function)  # fmt: skip
