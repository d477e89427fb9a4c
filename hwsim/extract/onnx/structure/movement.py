"""Nodes that move or select values, quantizers' pairs among them, and what is read of one that is constant."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from hwsim.extract.graph.nodes import NodeKind
from hwsim.extract.onnx.graph import Node
from hwsim.extract.onnx.structure.draft import Draft, Ref

Handler = Callable[[Draft, Node], None]


def view(draft: Draft, node: Node) -> None:
    """A value in another order, shape, type or selection; codes stay codes."""
    inputs = draft.computed_inputs(node)
    for at in range(len(node.inputs)):
        constant = draft.constant(node, at)
        if constant is not None and (at == 0 or constant.is_real):
            draft.fold(constant)
    refs = [draft.refs[name] for name in node.inputs if name in draft.refs and _is_data(draft, node, name)]
    same = len({(ref.format, ref.codes) for ref in refs}) == 1
    first = refs[0] if same else None
    codes = first.format if first is not None and first.codes and _stays(draft, node) else None
    draft.emit(NodeKind.VIEW, node, inputs, node.outputs, codes=codes)
    if first is not None and first.format is not None and codes is None and node.op not in ("Cast", "CastLike"):
        _keep_format(draft, node, first.format)


def noted_view(text: str) -> Handler:
    """A view whose selection depends on values: said in a note."""

    def read(draft: Draft, node: Node) -> None:
        draft.note(f"{node.name} ({node.op}): {text}")
        view(draft, node)

    return read


def gather(draft: Draft, node: Node) -> None:
    """Rows of a constant table, or a selection of a computed value."""
    table = draft.constant(node, 0)
    axis = int(node.attributes.get("axis", 0))
    if table is None:
        view(draft, node)
        return
    axis %= len(table.shape)
    if prod(table.shape[:axis]) != 1 or not table.is_real:
        if table.is_real:
            raise node.refuse(f"must select rows of its constant table, got axis {axis} of {table.shape}")
        draft.fold(table)
        draft.emit(NodeKind.VIEW, node, draft.computed_inputs(node), node.outputs)
        return
    shape = (table.shape[axis], prod(table.shape[axis + 1 :]))
    index = draft.reference(node, 1).value
    name = draft.weight(node, table, shape)
    draft.emit(NodeKind.LOOKUP, node, [index], node.outputs, {"table": name})


def resize(draft: Draft, node: Node) -> None:
    """Repeated values; interpolation is refused."""
    if node.attributes.get("mode", "nearest") != "nearest":
        raise node.refuse(f"must resize by mode nearest, got {node.attributes['mode']}")
    view(draft, node)


def _is_data(draft: Draft, node: Node, name: str) -> bool:
    """Whether an input is moved, and is no index or size."""
    return name == node.inputs[0] or draft.resolved.types[name].dtype == draft.type(node, 0).dtype


def _stays(draft: Draft, node: Node) -> bool:
    at = next(at for at, name in enumerate(node.outputs) if name)
    source = next(name for name in node.inputs if name in draft.refs)
    return draft.out_type(node, at).dtype == draft.resolved.types[source].dtype


def _keep_format(draft: Draft, node: Node, text: str) -> None:
    """Dequantized values that are moved are still on their grid."""
    for name in node.outputs:
        if name:
            draft.set_format(name, text)
            draft.refs[name] = Ref(name, text)
