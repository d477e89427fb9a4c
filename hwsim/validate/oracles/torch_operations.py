"""What each kind computes in PyTorch: products, convolutions, recurrent layers, element-wise functions, norms."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from hwsim.errors import HwsimError
from hwsim.execute.operations.row import Row
from hwsim.trace import Function, Kind
from hwsim.validate.oracles.torch_graph import FUNCTIONS, LOOPS, Compute, Graph, computes, on_grid

RECURRENT = {Kind.LSTM: 4, Kind.GRU: 3}


@computes(Kind.MATMUL)
def product(graph: Graph, row: Row) -> None:
    """out = [x ...] W + b; x of fewer columns than K is stacked row by row, the last row filled with zeros."""
    assert row.weight is not None
    x, depth = torch.cat(graph.activations(row), dim=-1), row.weight.shape[0]
    if x.shape[-1] != depth or len(x) < row.m:
        if depth % x.shape[-1] or x.numel() > row.m * depth:
            raise HwsimError(f"{row.layer}: activations {tuple(x.shape)} must fill ({row.m}, {depth})")
        x = functional.pad(x.reshape(-1), (0, row.m * depth - x.numel())).reshape(row.m, depth)
    graph.put(row.writes[0].name, graph.multiply(row, x[: row.m]))


@computes(Kind.LOOKUP)
def look_up(graph: Graph, row: Row) -> None:
    """Rows of the table, or columns of one that a product reads too."""
    assert row.weight is not None
    name = row.activations[0].name if row.activations else f"{row.layer}.labels"
    table = graph.read(row.weight)
    table = table.T if row.attributes.get("columns", False) else table
    graph.put(row.writes[0].name, table[graph.values[name].long().reshape(-1)])


@computes(Kind.SOFTMAX)
def log_softmax(graph: Graph, row: Row) -> None:
    """The logarithm of the softmax."""
    graph.put(row.writes[0].name, functional.log_softmax(graph.values[row.activations[0].name], dim=-1))


@computes(Kind.NORM)
def layer_norm(graph: Graph, row: Row) -> None:
    """Layer norm. In float64 in the order that the integers have, in float32 PyTorch's own."""
    x, gamma, beta = graph.operands(row)
    epsilon, size = float(row.attributes.get("epsilon", 1e-5)), x.shape[-1]
    grid = graph.grid(row.activations[0].name)
    if graph.dtype == torch.float32:
        y = functional.layer_norm(x, (size,), gamma, beta, epsilon)
    elif grid is None:
        centred = x - x.mean(dim=-1, keepdim=True)
        y = centred / torch.sqrt((centred * centred).mean(dim=-1, keepdim=True) + epsilon) * gamma + beta
    else:
        scale = float(grid.scale)
        codes = torch.round(x / scale)
        total = codes.sum(dim=-1, keepdim=True)
        variance = size * (codes * codes).sum(dim=-1, keepdim=True) - total * total
        y = (size * codes - total) / torch.sqrt(variance + epsilon * (size / scale) ** 2) * gamma + beta
    graph.put(row.writes[0].name, y)


@computes(Kind.DEPTHWISE)
def depthwise(graph: Graph, row: Row) -> None:
    """out[t, c] = sum_k x[t + k - left, c] w[k, c] + b[c]."""
    assert row.weight is not None
    weight = graph.read(row.weight).T[:, None]
    x = functional.pad(graph.activations(row)[0].T, _padding(row))
    y = functional.conv1d(x[None], weight, stride=int(row.attributes.get("stride", 1)), groups=len(weight))
    graph.put(row.writes[0].name, y[0].T + graph.bias(row))


@computes(Kind.CONV1D)
def convolution(graph: Graph, row: Row) -> None:
    """x (T, Cin), weight (K, Cin, N) -> (T', N)."""
    assert row.weight is not None
    x = functional.pad(graph.activations(row)[0].T, _padding(row))[:, int(row.attributes.get("first", 0)) :]
    weight = graph.read(row.weight).permute(2, 1, 0)
    stride, dilation = (int(row.attributes.get(name, 1)) for name in ("stride", "dilation"))
    y = functional.conv1d(x[None], weight, stride=stride, dilation=dilation)
    graph.put(row.writes[0].name, y[0].T + graph.bias(row))


@computes(Kind.CONV2D)
def convolution_2d(graph: Graph, row: Row) -> None:
    """x (T, F, Cin), weight (Kt, Kf, Cin, N) -> (T', F', N)."""
    assert row.weight is not None
    (top, bottom), (left, right) = row.attributes.get("padding", ((0, 0), (0, 0)))
    stride = tuple(int(step) for step in row.attributes.get("stride", (1, 1)))
    x = functional.pad(graph.activations(row)[0].permute(2, 0, 1), (left, right, top, bottom))
    y = functional.conv2d(x[None], graph.read(row.weight).permute(3, 2, 0, 1), stride=stride)
    graph.put(row.writes[0].name, y[0].permute(1, 2, 0) + graph.bias(row))


def _padding(row: Row) -> tuple[int, int]:
    before, after = row.attributes.get("padding", (0, 0))
    return int(before), int(after)


def _elementwise(function: Function) -> Compute:
    def compute(graph: Graph, row: Row) -> None:
        graph.put(row.writes[0].name, _values(graph, function, *graph.operands(row)))

    return compute


def _values(graph: Graph, function: Function, a: Tensor, b: Tensor | None = None) -> Tensor:
    if b is not None:
        a = a * b if function.name.startswith("MULTIPLY") else a + (0.5 * b if function == Function.ADD_HALF else b)
    if function.name.endswith("TANH"):
        return graph.table("tanh", a)
    if function.name.endswith("RELU"):
        return functional.relu(a)
    if function == Function.GLU:
        first, gate = a.chunk(2, dim=-1)
        return first * graph.table("sigmoid", gate)
    if function == Function.SWISH:
        return a * graph.table("sigmoid", a)
    return graph.table("sigmoid", a) if function == Function.SIGMOID else a


for _function in (
    Function.NONE, Function.ADD, Function.MULTIPLY, Function.TANH, Function.SIGMOID, Function.RELU, Function.ADD_TANH,
    Function.MULTIPLY_TANH, Function.ADD_RELU, Function.MULTIPLY_RELU, Function.SWISH, Function.GLU, Function.ADD_HALF,
):  # fmt: skip
    FUNCTIONS[Kind.ELEMENTWISE, _function] = _elementwise(_function)


@computes(Kind.ELEMENTWISE, Function.RELU_ADD)
def bypass(graph: Graph, row: Row) -> None:
    """max(0, a[i]) + scale b[first + step i]."""
    a, b = graph.operands(row)
    first, step = (int(row.attributes.get(name, default)) for name, default in (("first", 0), ("step", 1)))
    graph.put(row.writes[0].name, functional.relu(a) + row.attributes["scale"] * b[first::step][: len(a)])


def _lstm_step(graph: Graph, x: Tensor, y: Tensor, c: Tensor, cell: str) -> tuple[Tensor, Tensor]:
    """h before its grid and the new c, of gate sums x and y (rows, 4H)."""
    parts = dict(zip(graph.executable.rules.gate_order, (x + y).chunk(4, dim=-1), strict=True))
    i, f, o = (graph.table("sigmoid", parts[gate]) for gate in "ifo")
    c = graph.stored(cell, f * c + i * graph.table("tanh", parts["g"]))
    return o * graph.table("tanh", c), c


def _gru_step(graph: Graph, x: Tensor, y: Tensor, h: Tensor) -> Tensor:
    """h before its grid, of gate sums x and y (rows, 3H) in the order r, z, n."""
    (xr, xz, xn), (yr, yz, yn) = x.chunk(3, dim=-1), y.chunk(3, dim=-1)
    r, z = graph.table("sigmoid", xr + yr), graph.table("sigmoid", xz + yz)
    return (1 - z) * graph.table("tanh", xn + r * yn) + z * h


@computes(Kind.LSTM)
def lstm_step(graph: Graph, row: Row) -> None:
    """One step of m rows: gates_x, gates_h, c -> c, h."""
    x, y, c = graph.operands(row)
    cell, hidden = (tensor.name for tensor in row.writes)
    h, c = _lstm_step(graph, x, y, c, cell)
    graph.put(cell, c)
    graph.put(hidden, h)


@computes(Kind.GRU)
def gru_step(graph: Graph, row: Row) -> None:
    """One step of m rows: gates_x, gates_h, h -> h."""
    graph.put(row.writes[0].name, _gru_step(graph, *graph.operands(row)))


def recurrence(graph: Graph, row: Row, pointwise: Row) -> None:
    """All steps of one direction; branch 1 runs from the last step to the first. Keeps h, and c of every step."""
    assert row.weight is not None
    name = pointwise.writes[-1].name
    sums, taken, cells = graph.values[pointwise.reads[0].name], graph.product_input(row, name), row.weight.shape[0]
    h = c = torch.zeros(1, cells, dtype=graph.dtype)
    before, states = torch.empty(len(sums), cells, dtype=graph.dtype), []
    for t in range(len(sums))[:: -1 if row.branch == 1 else 1]:
        y = graph.stored(row.writes[0].name, graph.multiply(row, on_grid(h, taken)))
        if pointwise.kind == Kind.LSTM:
            real, c = _lstm_step(graph, sums[t][None], y, c, pointwise.writes[0].name)
        else:
            real = _gru_step(graph, sums[t][None], y, h)
        h, before[t] = graph.stored(name, real), real[0]
        states.append(c[0])
    graph.put(name, before)
    if pointwise.kind == Kind.LSTM:
        graph.codes[pointwise.writes[0].name] = torch.stack(states[:: -1 if row.branch == 1 else 1]).double().numpy()


LOOPS.update(dict.fromkeys(RECURRENT, recurrence))
