"""Nodes that move no numbers: axes in another order, other shapes, tensors beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np

from hwsim.extract.onnx.constants import Constant, as_reals
from hwsim.extract.onnx.draft import Draft
from hwsim.extract.onnx.graph import Node
from hwsim.extract.onnx.layout import Layout


def identity(draft: Draft, node: Node) -> None:
    """The same value: Identity, Dropout when it infers, Cast between floats."""
    _moved(draft, node, draft.activation(node, 0).layout)


def cast(draft: Draft, node: Node) -> None:
    """Labels to another integer type, or reals to another float. Raises HwsimError for reals to integers."""
    source = draft.activation(node, 0)
    floats = int(node.attributes["to"]) in (1, 10, 11, 16)
    if floats == (source.codes or source.labels):
        raise node.refuse("must not turn reals into integers or integers into reals")
    _moved(draft, node, source.layout)


def transpose(draft: Draft, node: Node) -> None:
    """Axes in another order."""
    layout = draft.activation(node, 0).layout
    rank = len(layout.axes)
    _moved(draft, node, layout.permuted(node.attributes.get("perm") or range(rank)[::-1]))


def reshape(draft: Draft, node: Node) -> None:
    """Another shape that joins axes or adds axes of one."""
    source = draft.activation(node, 0).layout.shape
    asked = [int(size) for size in draft.need_constant(node, 1, "shape").array.reshape(-1)]
    keep = not node.attributes.get("allowzero", 0)
    shape = [source[at] if size == 0 and keep else size for at, size in enumerate(asked)]
    if -1 in shape:
        known = prod(size for size in shape if size != -1)
        shape[shape.index(-1)] = prod(source) // max(known, 1)
    _reshaped(draft, node, shape)


def squeeze(draft: Draft, node: Node) -> None:
    """Without axes of one."""
    source = draft.activation(node, 0).layout.shape
    axes = _axes(draft, node, len(source))
    chosen = [at for at, size in enumerate(source) if size == 1] if axes is None else axes
    _reshaped(draft, node, [size for at, size in enumerate(source) if at not in chosen])


def unsqueeze(draft: Draft, node: Node) -> None:
    """With more axes of one."""
    source = draft.activation(node, 0).layout.shape
    count = _axes(draft, node, 1)
    axes = _axes(draft, node, len(source) + len(count or ()))
    if axes is None:
        raise node.refuse("must have constant axes, got none")
    sizes = iter(source)
    _reshaped(draft, node, [1 if at in axes else next(sizes) for at in range(len(source) + len(axes))])


def flatten(draft: Draft, node: Node) -> None:
    """Two axes, cut at `axis`."""
    source = draft.activation(node, 0).layout.shape
    at = int(node.attributes.get("axis", 1)) % (len(source) + 1)
    _reshaped(draft, node, [prod(source[:at]), prod(source[at:])])


def concat(draft: Draft, node: Node) -> None:
    """Tensors of the same rows beside each other: no operation, a product reads them all."""
    sources = [draft.activation(node, at) for at in range(len(node.inputs))]
    first = sources[0]
    axis = int(node.attributes["axis"]) % len(first.layout.axes)
    for source in sources:
        same = source.layout.row_axis == first.layout.row_axis and source.rows == first.rows
        if source.layout.column_axis != axis or not same or source.codes != first.codes:
            raise node.refuse(f"must join values of the same rows along their columns, got {source.layout.shape} "
                              f"beside {first.layout.shape}, axis {axis}")  # fmt: skip
    parts = tuple(part for source in sources for part in source.parts)
    layout = first.layout.with_columns(sum(source.layout.columns for source in sources))
    draft.values[node.outputs[0]] = replace(first, layout=layout, parts=parts, open=False)


def shape(draft: Draft, node: Node) -> None:
    """Sizes of a value, which are constants once every symbol is bound."""
    sizes = np.asarray(draft.activation(node, 0).layout.shape, np.int64)
    start, end = (int(node.attributes.get(name, default)) for name, default in (("start", 0), ("end", len(sizes))))
    draft.constants.known[node.outputs[0]] = Constant(sizes[start:end], node.outputs[0])


def _axes(draft: Draft, node: Node, rank: int) -> list[int] | None:
    found = draft.constant(node, 1)
    axes: Sequence[int] | None = node.attributes.get("axes")
    if found is not None:
        axes = [int(axis) for axis in as_reals(found).reshape(-1)]
    return None if axes is None else [axis % rank for axis in axes]


def _reshaped(draft: Draft, node: Node, shape: Sequence[int]) -> None:
    source = draft.activation(node, 0).layout
    found = source.reshaped(shape) if prod(shape) == prod(source.shape) else None
    if found is None:
        raise node.refuse(
            f"must only join axes or move axes of one, got {source.shape} to {tuple(shape)}: a length frozen by the "
            "export, a batch above one, or attention, which is not read"
        )
    _moved(draft, node, found)


def _moved(draft: Draft, node: Node, layout: Layout) -> None:
    source = draft.activation(node, 0)
    alone = draft.graph.sole_consumer(node.inputs[0]) is not None
    result = replace(source, layout=layout, open=source.open and alone)
    draft.values[node.outputs[0]] = result
