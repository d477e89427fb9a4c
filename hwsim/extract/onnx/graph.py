"""An ONNX graph as plain Python: nodes with safe names, constants, inputs of fixed sizes, who reads what."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError, nearest

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

Array = npt.NDArray[Any]
_STANDARD = ("", "ai.onnx")


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operation. `op` has its domain in front unless that is ONNX's own; `layer` is its name in the trace."""

    op: str
    name: str
    layer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def __str__(self) -> str:
        return f"node '{self.name}' ({self.op})"

    def refuse(self, rule: str) -> HwsimError:
        """The error of a node that is not read; `rule` ends the sentence."""
        return HwsimError(f"{self} {rule}")

    def input(self, at: int) -> str:
        """Name of an input, empty when it is left out."""
        return self.inputs[at] if at < len(self.inputs) else ""

    def output(self, at: int) -> str:
        """Name of an output, empty when it is left out."""
        return self.outputs[at] if at < len(self.outputs) else ""


@dataclass(frozen=True, slots=True)
class Input:
    """A graph input: shape without symbols, and NumPy's name of its type."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(slots=True)
class Graph:
    """Nodes that an output needs, in their order; constants by name; inputs; consumers and producers of values."""

    path: Path
    opset: int
    nodes: tuple[Node, ...]
    constants: dict[str, Array]
    inputs: dict[str, Input]
    outputs: tuple[str, ...]
    consumers: dict[str, list[Node]] = field(default_factory=dict)
    producers: dict[str, Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                self.consumers.setdefault(name, []).append(node)
            self.producers.update((name, node) for name in node.outputs if name)

    def sole_consumer(self, value: str) -> Node | None:
        """The one node that reads a value which nothing else shows, else None."""
        readers = self.consumers.get(value, [])
        return readers[0] if len(readers) == 1 and value not in self.outputs else None


def read_graph(path: Path, model: ModelProto, bind: Mapping[str, int]) -> Graph:
    """The graph of a checked model. Raises HwsimError for sizes that `bind` leaves open and names it does not know."""
    from onnx import numpy_helper

    graph = model.graph
    if graph.sparse_initializer:
        raise HwsimError(f"{path}: weights must be dense, got sparse initializer "
                         f"'{graph.sparse_initializer[0].values.name}'")  # fmt: skip
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    given = [value for value in graph.input if value.name not in constants]
    inputs = bound_inputs(path, given, bind)
    outputs = tuple(value.name for value in graph.output)
    nodes = needed_nodes(plain_nodes(graph.node), outputs)
    opset = next((o.version for o in model.opset_import if o.domain in _STANDARD), 1)
    return Graph(path, opset, nodes, constants, inputs, outputs)


def safe_name(name: str) -> str:
    """A name of layers and tensors: parts of letters, digits, `_` and `-`, joined by dots."""
    dotted = re.sub(r"[/\\:.]+", ".", name).strip(".")
    return re.sub(r"[^A-Za-z0-9_.-]", "_", dotted) or "unnamed"


def unique(name: str, taken: set[str]) -> str:
    """`name`, with a number behind it when it is taken; taken from now on."""
    found, count = name, 1
    while found in taken:
        count += 1
        found = f"{name}_{count}"
    taken.add(found)
    return found


def plain_nodes(protos: Sequence[Any]) -> list[Node]:
    """ONNX's nodes as plain Python, attributes too."""
    from onnx import helper

    taken: set[str] = set()
    counts: dict[str, int] = {}
    nodes = []
    for proto in protos:
        domain = proto.domain if proto.domain not in _STANDARD else ""
        counts[proto.op_type] = counts.get(proto.op_type, 0) + 1
        name = proto.name or f"{proto.op_type}_{counts[proto.op_type]}"
        attributes = {a.name: _plain(helper.get_attribute_value(a)) for a in proto.attribute}
        op = f"{domain}.{proto.op_type}" if domain else proto.op_type
        layer = unique(safe_name(name), taken)
        nodes.append(Node(op, name, layer, tuple(proto.input), tuple(proto.output), attributes))
    return nodes


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if type(value).__name__ == "TensorProto":
        from onnx import numpy_helper

        return numpy_helper.to_array(value)
    return value


def needed_nodes(nodes: list[Node], outputs: tuple[str, ...]) -> tuple[Node, ...]:
    """The nodes that an output needs, in their order."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            kept.append(node)
    return tuple(reversed(kept))


def bound_inputs(path: Path, values: Sequence[ValueInfoProto], bind: Mapping[str, int]) -> dict[str, Input]:
    """Inputs of fixed sizes. Raises HwsimError for sizes that `bind` leaves open and names it does not know."""
    from onnx import helper

    symbols = {d.dim_param for v in values for d in v.type.tensor_type.shape.dim if d.dim_param}
    for name, size in bind.items():
        if name not in symbols:
            raise HwsimError(f"{path}: bind must name a symbolic size, got '{name}'{nearest(name, symbols)}")
        if size < 1:
            raise HwsimError(f"{path}: bind must give sizes of at least 1, got {name}={size}")
    found = {}
    for value in values:
        kind = value.type.tensor_type
        if not kind.elem_type or not kind.HasField("shape"):
            raise HwsimError(f"{path}: input '{value.name}' must be a tensor of known rank, got neither")
        sizes = [bind.get(d.dim_param) if d.dim_param else d.dim_value or None for d in kind.shape.dim]
        if None in sizes:
            shown = ", ".join(str(d.dim_param or d.dim_value or "?") for d in kind.shape.dim)
            open_name = next((d.dim_param for d in kind.shape.dim if d.dim_param and d.dim_param not in bind), "")
            advice = f"bind {open_name}=<size>" if open_name else "export it with a name or a size for each"
            raise HwsimError(f"{path}: input '{value.name}' must have fixed sizes, got ({shown}): {advice}")
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)).name
        found[value.name] = Input(value.name, tuple(int(size) for size in sizes if size is not None), dtype)
    return found
