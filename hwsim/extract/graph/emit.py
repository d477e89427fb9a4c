"""A graph as operations of a trace: over whole inputs, or for the hypotheses of a search step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from hwsim.errors import HwsimError
from hwsim.extract.graph.nodes import Graph, Node, NodeKind, Value
from hwsim.extract.gru import GruLayer
from hwsim.extract.lstm import LstmLayer
from hwsim.trace import Function, Kind, Role, TraceBuilder
from hwsim.trace.builder import Operand, Rows

Cells = LstmLayer | GruLayer
REDUCTIONS = {"add": Function.ADD, "multiply": Function.ADD, "select": Function.RELU}


@dataclass(slots=True)
class Formats:
    """The number formats of a file, by the names that tensors and layers have in the trace."""

    tensors: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)


class GraphEmitter:
    """Declares the tensors of a graph in a builder, and emits its nodes, all or some, once or in a loop.

    `component` stands in front of every layer. `rows`: the most hypotheses of a step; None for a network that runs
    over whole inputs. `state_values`: values that take the state format of a policy; `frames`: how many rows the
    values `of_frames` have, if that is more. `given`: tensors of the builder that are inputs of the graph.
    """

    def __init__(self, b: TraceBuilder, graph: Graph, component: str, *, rows: int | None = None,
                 state_values: Iterable[str] = (), given: Mapping[str, Sequence[int]] | None = None,
                 formats: Formats | None = None, frames: int = 0, of_frames: Iterable[str] = ()) -> None:  # fmt: skip
        self.b, self.graph, self.component, self.rows = b, graph, component, rows
        self._heights = dict.fromkeys(of_frames, max(frames, rows or 1))
        self.formats = formats or Formats()
        self._states = set(state_values)
        self._names: set[str] = set()
        self._weights: dict[tuple[str, str], int] = {}
        self.cells: dict[int, list[Cells]] = {}
        """Recurrent layers by the position of their node, one per direction."""
        self.sources: dict[str, tuple[int, ...]] = {name: tuple(ids) for name, ids in (given or {}).items()}
        for name in (*graph.inputs, *(name for name in graph.folded if name in graph.values)):
            if name not in self.sources:
                self.sources[name] = (self._value_tensor(graph.values[name], f"{component}.input"),)
        for at, node in enumerate(graph.nodes):
            self._declare(at, node)

    def layer(self, node: Node) -> str:
        """The layer of a node in the trace."""
        return dotted(self.component, node.layer)

    def emit(self, m: Rows = 1, chosen: Iterable[int] | None = None, needs: Sequence[int] = (),
             where: str | None = None) -> None:  # fmt: skip
        """Emit nodes (their positions; all unless told) for `m` rows of hypotheses.

        An operation that reads nothing which is computed here waits for `needs`. `where`: the component in which the
        nodes run, if it is not their own.
        """
        computed: set[str] = set()
        for at in range(len(self.graph.nodes)) if chosen is None else chosen:
            node = self.graph.nodes[at]
            follows = not computed.isdisjoint(node.inputs)
            if node.kind != NodeKind.VIEW:
                layer = dotted(where or self.component, node.layer)
                for name in (layer, self.layer(node)):
                    self.formats.inputs.setdefault(name, node.input_format)
                _EMIT[node.kind](self, at, node, layer, m, [] if follows else [Operand(tensor) for tensor in needs])
                follows = True
            if follows:
                computed.update(node.outputs)

    def elements(self, name: str) -> int:
        """Elements of a value."""
        return self.graph.values[name].elements

    def _declare(self, at: int, node: Node) -> None:
        if node.kind == NodeKind.VIEW:
            found = tuple(dict.fromkeys(tensor for name in node.inputs for tensor in self.sources[name]))
            for name in node.outputs:
                self.sources[name] = found
            return
        if node.kind in (NodeKind.LSTM, NodeKind.GRU):
            self._declare_cells(at, node)
            return
        for part in node.weights:
            self._weight(node, part)
        for name in node.outputs:
            if name:
                self.sources[name] = (self._value_tensor(self.graph.values[name], self.layer(node)),)

    def _declare_cells(self, at: int, node: Node) -> None:
        layer, kind = self._free(self.layer(node)), LstmLayer if node.kind == NodeKind.LSTM else GruLayer
        if self.rows is not None and (node["steps"] != 1 or node["directions"] != 1):
            raise HwsimError(f"{layer}: must be one step in one direction to be part of a search, got {node['steps']} "
                             f"steps and {node['directions']} directions")  # fmt: skip
        prefixes = ("",) if node["directions"] == 1 else ("forward_", "backward_")
        rows = node["steps"] * node["batch"] if self.rows is None else self.rows
        made: list[Cells] = []
        for prefix in prefixes:
            made.append(kind.declare(self.b, layer, node["inputs"], node["cells"], rows, prefix=prefix,
                                     steps=self.rows is None, bias=f"{prefix}bias_x" in node.weights))  # fmt: skip
            tensor = f"{layer}.{prefix}"
            for part in ("wx", "wh", "bias_x", "bias_h"):
                if prefix + part in node.weights:
                    held = self.graph.weights[node.weights[prefix + part]]
                    self.formats.tensors[tensor + part] = held.format
            self.formats.tensors[f"{tensor}h"] = self.graph.values[node.outputs[0]].format
        self.formats.inputs[layer] = node.input_format
        self.cells[at] = made
        hidden = tuple(cells.h for cells in made)
        if node["projection"]:
            hidden = tuple(self._projection(node, layer, prefix, rows) for prefix in prefixes)
        memory = tuple(cells.c for cells in made if isinstance(cells, LstmLayer))
        for name, ids in zip(node.outputs, (hidden, hidden, memory), strict=False):
            if name:
                self.sources[name] = ids

    def _projection(self, node: Node, layer: str, prefix: str, rows: int) -> int:
        size, name = node["projection"], f"{prefix}projection"
        held = self.graph.weights[node.weights[name]]
        self._weights[node.layer, name] = self.b.tensor(f"{layer}.{name}", Role.WEIGHT, held.shape, layer)
        self.formats.tensors[f"{layer}.{name}"] = held.format
        return self.b.tensor(f"{layer}.{prefix}projected", Role.ACTIVATION, (rows, size), layer)

    def _free(self, name: str) -> str:
        found, count = name, 1
        while found in self._names:
            count += 1
            found = f"{name}_{count}"
        self._names.add(found)
        return found

    def _value_tensor(self, value: Value, layer: str) -> int:
        role = Role.STATE if value.name in self._states else Role.ACTIVATION
        name = self._free(dotted(self.component, value.name) + ".value")
        self.formats.tensors[name] = value.format
        rows = self._heights.get(value.name, self.rows)
        width = value.shape[-1] if value.shape and rows is None else max(value.elements, 1)
        return self.b.tensor(name, role, (rows or max(value.elements // width, 1), width), layer)

    def _weight(self, node: Node, part: str) -> int:
        """The tensor of a weight, or of the rows of it that a node reads; nodes that share it share the tensor."""
        held, rows = self.graph.weights[node.weights[part]], node.attributes.get("weight_rows")
        sliced = rows is not None and part == "weight"
        key = (held.name, f"{rows}" if sliced else "")
        if key not in self._weights:
            shape = (rows[1] - rows[0], *held.shape[1:]) if sliced and rows is not None else held.shape
            shape = shape if len(shape) <= 4 else (shape[0], prod(shape[1:-1]), shape[-1])
            role = Role.WEIGHT if part in ("weight", "table") else Role.BIAS
            name = self._free(f"{self.layer(node)}.{part}")
            self._weights[key] = self.b.tensor(name, role, shape or (1,), self.layer(node))
            self.formats.tensors[name] = held.format
        return self._weights[key]

    def weight(self, node: Node, part: str) -> int | None:
        """Tensor of a weight of a node, None when it has no such part."""
        return self._weight(node, part) if part in node.weights else None

    def operands(self, name: str, m: int, fixed: bool = False) -> list[Operand]:
        """The tensors of a value, read by an operation of m rows; `fixed`: all of it whatever the rows are."""
        ids = self.sources[name]
        count = max(self.elements(name), 1)
        shares = [count // len(ids)] * len(ids)
        shares[0] += count - sum(shares)
        if fixed and self.rows is None:
            return [Operand(tensor, fixed=share) for tensor, share in zip(ids, shares, strict=True)]
        return [Operand(tensor, per_row=-(-share // m)) for tensor, share in zip(ids, shares, strict=True)]

    def written(self, name: str, m: int) -> Operand:
        """The tensor of a value, written by an operation of m rows."""
        return Operand(self.sources[name][0], per_row=-(-max(self.elements(name), 1) // m))


def dotted(component: str, layer: str) -> str:
    """A layer behind its component, which may be there already."""
    return layer if layer.partition(".")[0] == component else f"{component}.{layer}"


def _linear(e: GraphEmitter, at: int, node: Node, layer: str, m: Rows, needs: list[Operand]) -> None:
    out, weight = e.graph.values[node.outputs[0]], e.weight(node, "weight")
    assert weight is not None
    rows = max(out.elements // out.shape[-1], 1)
    e.b.matmul(layer, e.sources[node.inputs[0]], weight, e.sources[out.name][0], m=rows * m,
               bias=e.weight(node, "bias"), needs=[one.tensor for one in needs])  # fmt: skip


def _matmul(e: GraphEmitter, at: int, node: Node, layer: str, m: Rows, needs: list[Operand]) -> None:
    rows = node["m"]
    reads = [*e.operands(node.inputs[0], rows), *e.operands(node.inputs[1], rows, fixed=True), *needs]
    e.b.op(Kind.MATMUL, layer, reads, [e.written(node.outputs[0], rows)], m=rows * m, k=node["k"], n=node["n"],
           batch=node["batch"])  # fmt: skip


def _conv(e: GraphEmitter, at: int, node: Node, layer: str, m: Rows, needs: list[Operand]) -> None:
    groups, rows = node["groups"], node["positions"]
    depthwise = groups == node["inputs"] == node["outputs"]
    kind = Kind.DEPTHWISE if depthwise else Kind.CONV1D if node["dimensions"] == 1 else Kind.CONV2D
    k, n = node["taps"] * node["inputs"] // groups, node["outputs"] // groups
    weight, bias = e.weight(node, "weight"), e.weight(node, "bias")
    assert weight is not None
    reads = [*e.operands(node.inputs[0], rows, fixed=True), Operand(weight, fixed=k * n * groups)]
    if bias is not None:
        reads.append(Operand(bias, fixed=node["outputs"]))
    e.b.op(kind, layer, [*reads, *needs], [e.written(node.outputs[0], rows)], m=rows * m, k=k, n=n, batch=groups)


def _recurrent(e: GraphEmitter, at: int, node: Node, layer: str, m: Rows, needs: list[Operand]) -> None:
    x, made = e.sources[node.inputs[0]], e.cells[at]
    count = m if e.rows is not None else node["steps"] * node["batch"]
    for branch, cells in enumerate(made):
        cells.project_input(e.b, x, count, branch)
    if e.rows is not None:
        for branch, cells in enumerate(made):
            _cell_step(e, node, cells, branch, m)
        return
    with e.b.loop(node["steps"]):
        for branch, cells in enumerate(made):
            _cell_step(e, node, cells, branch, node["batch"])


def _cell_step(e: GraphEmitter, node: Node, cells: Cells, branch: int, m: Rows) -> None:
    cells.step(e.b, m, branch)
    if node["projection"]:
        prefix = "" if node["directions"] == 1 else ("forward_", "backward_")[branch]
        out = e.sources[node.outputs[0]][branch]
        e.b.matmul(cells.layer, [cells.h], e._weights[node.layer, f"{prefix}projection"], out, m=m, branch=branch)


def _norm(e: GraphEmitter, at: int, node: Node, layer: str, m: Rows, needs: list[Operand]) -> None:
    rows, width = node["rows"], node["width"]
    reads = e.operands(node.inputs[0], rows)
    for part in ("gamma", "beta"):
        weight = e.weight(node, part)
        if weight is not None:
            reads.append(Operand(weight, fixed=e.graph.weights[node.weights[part]].elements))
    e.b.op(Kind.NORM, layer, [*reads, *needs], [e.written(node.outputs[0], rows)], m=rows * m, n=width)


def _softmax(e: GraphEmitter, at: int, node: Node, layer: str, m: Rows, needs: list[Operand]) -> None:
    rows = node["rows"]
    function = Function.NONE if node["log"] else Function.PROBABILITIES
    e.b.op(Kind.SOFTMAX, layer, [*e.operands(node.inputs[0], rows), *needs], [e.written(node.outputs[0], rows)],
           m=rows * m, n=node["width"], function=function)  # fmt: skip


def _elementwise(e: GraphEmitter, at: int, node: Node, layer: str, m: Rows, needs: list[Operand]) -> None:
    out = e.graph.values[node.outputs[0]]
    width = max(node["width"], 1)
    rows = max(out.elements // width, 1)
    reads = [operand for name in node.inputs for operand in e.operands(name, rows)]
    for part, held in node.weights.items():
        tensor = e.weight(node, part)
        assert tensor is not None
        reads.append(Operand(tensor, fixed=e.graph.weights[held].elements))
    e.b.op(Kind.ELEMENTWISE, layer, [*reads, *needs], [e.written(out.name, rows)], m=rows * m, n=width,
           function=Function[node["function"].upper()])  # fmt: skip


def _reduce(e: GraphEmitter, at: int, node: Node, layer: str, m: Rows, needs: list[Operand]) -> None:
    count, rows = e.elements(node.inputs[0]), max(e.elements(node.outputs[0]), 1)
    e.b.op(Kind.ELEMENTWISE, layer, [*e.operands(node.inputs[0], rows), *needs], [e.written(node.outputs[0], rows)],
           m=rows * m, n=max(count // rows, 1), function=REDUCTIONS[node["function"]])  # fmt: skip


def _lookup(e: GraphEmitter, at: int, node: Node, layer: str, m: Rows, needs: list[Operand]) -> None:
    table, out = e.weight(node, "table"), e.graph.values[node.outputs[0]]
    assert table is not None
    width = out.shape[-1]
    rows = max(out.elements // width, 1)
    reads = [Operand(table, width), *(needs or e.operands(node.inputs[0], rows))]
    e.b.op(Kind.LOOKUP, layer, reads, [Operand(e.sources[out.name][0], width)], m=rows * m, n=width)


_EMIT: dict[NodeKind, Callable[[GraphEmitter, int, Node, str, Rows, list[Operand]], None]] = {
    NodeKind.LINEAR: _linear,
    NodeKind.MATMUL: _matmul,
    NodeKind.CONV: _conv,
    NodeKind.LSTM: _recurrent,
    NodeKind.GRU: _recurrent,
    NodeKind.NORM: _norm,
    NodeKind.SOFTMAX: _softmax,
    NodeKind.ELEMENTWISE: _elementwise,
    NodeKind.REDUCE: _reduce,
    NodeKind.LOOKUP: _lookup,
}
