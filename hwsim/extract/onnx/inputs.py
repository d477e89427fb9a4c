"""Graph inputs as tensors: features (rows, columns), codes of them, or labels."""

from __future__ import annotations

from hwsim.errors import HwsimError
from hwsim.extract.onnx.draft import Activation, Draft
from hwsim.extract.onnx.graph import Graph, Input, Node, safe_name
from hwsim.extract.onnx.layout import Layout, View
from hwsim.trace import Role

_CONVOLUTIONS = ("Conv", "QLinearConv", "ConvInteger")
_SAME_AXES = ("QuantizeLinear", "DequantizeLinear", "Identity", "Cast", "Relu", "Sigmoid", "Tanh", "Add", "Mul",
              "Dropout", "com.microsoft.QuantizeLinear", "com.microsoft.DequantizeLinear")  # fmt: skip
LAYER = "input"


def declare_inputs(draft: Draft) -> dict[str, str]:
    """Declare a tensor for each input that a node reads: tensor by input. Raises HwsimError for a batch above one."""
    found = {}
    for value in draft.graph.inputs.values():
        if value.name not in draft.graph.consumers:
            draft.note(f"input '{value.name}' is read by no node that an output needs")
            continue
        labels = _is_labels(draft.graph, value)
        layout = _layout(draft.graph, value, labels)
        shape = (layout.rows,) if labels else (layout.rows, layout.columns)
        part = draft.tensor(f"{LAYER}.{safe_name(value.name)}", Role.STATE if labels else Role.ACTIVATION, shape, LAYER)
        codes = not labels and value.dtype.lstrip("u").startswith("int")
        draft.values[value.name] = Activation(layout, (part,), codes, open=not labels and not codes, labels=labels)
        draft.entries[value.name] = View(value.name, layout, shape, 0, layout.columns)
        found[value.name] = part.name
    return found


def _layout(graph: Graph, value: Input, labels: bool) -> Layout:
    shape = value.shape
    if labels:
        rows = [axis for axis, size in enumerate(shape) if size > 1]
        if len(rows) <= 1:
            axes = tuple((0,) if axis in rows else () for axis in range(len(shape)))
            return Layout(axes, (shape[rows[0]] if rows else 1,))
        found = None
    else:
        found = Layout.of(shape, column_axis(graph, value.name, len(shape))) if shape else None
    if found is None:
        raise HwsimError(f"input '{value.name}' must have a batch of one, and frames beside it, got {shape}")
    return found


def column_axis(graph: Graph, value: str, rank: int) -> int:
    """The axis of an input that holds features: what its first reader says, the last when none does."""
    found = _asked(graph, value, list(range(rank)))
    return rank - 1 if found is None else found


def _asked(graph: Graph, value: str, axes: list[int]) -> int | None:
    for node in graph.consumers.get(value, []):
        if node.op in _CONVOLUTIONS:
            return axes[1] if len(axes) > 1 else None
        if node.op == "Transpose":
            order = node.attributes.get("perm") or list(range(len(axes)))[::-1]
            found = _asked(graph, node.outputs[0], [axes[at] for at in order])
        elif node.op in _SAME_AXES:
            found = _asked(graph, node.outputs[0], axes)
        else:
            found = axes[-1]
        if found is not None:
            return found
    return None


def _is_labels(graph: Graph, value: Input) -> bool:
    """Whether an input is what a table is indexed with."""
    return value.dtype.lstrip("u").startswith("int") and _indexes(graph, value.name)


def _indexes(graph: Graph, value: str) -> bool:
    def found(node: Node) -> bool:
        moves = node.op in ("Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape", "Transpose")
        return (node.op == "Gather" and node.input(1) == value) or (moves and _indexes(graph, node.outputs[0]))

    return any(found(node) for node in graph.consumers.get(value, []))
