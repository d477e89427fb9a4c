"""The tables of docs/numerics.md as test vectors, and one executable for each operation that they list."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from hwsim.execute.executor import Executable
from hwsim.execute.reference.attention import probability_grid
from hwsim.execute.semantics import Semantics
from hwsim.trace import Function, Kind, Role
from hwsim.trace.builder import Operand
from tests.execute.single import Array, Network, quantizer

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "numerics.md"


def vectors(name: str, text: str | None = None) -> list[dict[str, str]]:
    """Rows of the table that follows `<!-- vectors: name -->`, by column."""
    lines = (DOCUMENT.read_text("utf-8") if text is None else text).splitlines()
    start = lines.index(f"<!-- vectors: {name} -->") + 1
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
    head, _, *body = rows
    assert body
    return [dict(zip(head, row, strict=True)) for row in body]


def numbers(cell: str) -> list[int]:
    """Integers of a cell, separated by spaces."""
    return [int(part) for part in cell.split()]


def words(cell: str) -> list[str]:
    """Words of a cell, separated by commas."""
    return [part.strip() for part in cell.split(",")]


ROWS, WIDTH = 4, 6
IN, WEIGHT, OUT = quantizer(0.0311), quantizer(0.0217), quantizer(0.37, 5)
TWO = (Function.ADD, Function.ADD_HALF, Function.ADD_TANH, Function.ADD_RELU, Function.MULTIPLY,
       Function.MULTIPLY_TANH, Function.MULTIPLY_RELU)  # fmt: skip
Case = tuple[Network, dict[str, Array]]


def codes_of(kind: Kind, function: Function, semantics: Semantics) -> list[Array]:
    """What one operation writes, by the rules of a machine. Some of its sums are beyond 16 bits."""
    network, inputs = OPERATIONS[kind](function)
    executable: Executable = network.build(semantics)
    outputs = executable.run({f"{network.layer}.{part}": array for part, array in inputs.items()})
    return [outputs[name] for name in executable.outputs]


def _codes(*shape: int, least: int = -128) -> Array:
    """Codes of 8 bits; those of the first row and of the first column are the least one."""
    codes = np.random.default_rng(sum(shape)).integers(least, least + 256, shape)
    codes[0], codes[..., 0] = least, least
    return codes


def _product(function: Function) -> Case:
    heads, keys, net = 2, 5, Network()
    if function == Function.NONE:
        shapes, first = ((ROWS, WIDTH), (WIDTH, 7), (ROWS, 7)), IN
        sizes = {"m": ROWS, "k": WIDTH, "n": 7}
    elif function == Function.SCORES:
        shapes, first = ((ROWS, WIDTH), (keys, WIDTH), (heads, ROWS, keys)), IN
        sizes = {"m": ROWS, "k": WIDTH // heads, "n": keys, "batch": heads}
    else:
        shapes, first = ((heads, ROWS, keys), (keys, WIDTH), (ROWS, WIDTH)), probability_grid(8)
        sizes = {"m": ROWS, "k": keys, "n": WIDTH // heads, "batch": heads}
    net.tensor("a", shapes[0], first)
    inputs = {"a": 255 - _codes(*shapes[0], least=0) if function == Function.CONTEXT else _codes(*shapes[0])}
    if function == Function.NONE:
        net.weight("b", _codes(*shapes[1]), WEIGHT)
    else:
        net.tensor("b", shapes[1], WEIGHT)
        inputs["b"] = _codes(*shapes[1])
    net.tensor("out", shapes[2], OUT)
    net.op(Kind.MATMUL, ["a", "b"], "out", function=function, **sizes)
    return net, inputs


def _convolution(kind: Kind) -> Callable[[Function], Case]:
    shapes: dict[Kind, tuple[tuple[int, ...], ...]] = {
        Kind.CONV1D: ((ROWS, WIDTH), (3, WIDTH, 7), (2, 7)),
        Kind.CONV2D: ((ROWS, WIDTH, 2), (3, 3, 2, 7), (2, 4, 7)),
        Kind.DEPTHWISE: ((ROWS, WIDTH), (3, WIDTH), (2, WIDTH)),
    }

    def build(function: Function) -> Case:
        net, (x, kernel, out) = Network(), shapes[kind]
        net.tensor("x", x, IN)
        net.weight("weight", _codes(*kernel), WEIGHT)
        net.tensor("out", out, OUT)
        rows, depth = int(np.prod(out[:-1])), int(np.prod(kernel[:-1]))
        columns = {"n": 1, "batch": WIDTH} if kind == Kind.DEPTHWISE else {"n": 7}
        net.op(kind, ["x", "weight"], "out", function=function, m=rows, k=depth, **columns)
        return net, {"x": _codes(*x)}

    return build


def _elementwise(function: Function) -> Case:
    net, heads = Network(), 2
    shapes = [(ROWS, WIDTH)] * (2 if function in TWO else 1)
    out: tuple[int, ...] = (ROWS, WIDTH)
    sizes = {"m": ROWS, "n": WIDTH}
    if function == Function.RELATIVE_ADD:
        shapes, out = [(heads, ROWS, ROWS), (heads, ROWS, 2 * ROWS - 1)], (heads, ROWS, ROWS)
        sizes = {"m": heads * ROWS, "n": ROWS}
    elif function == Function.GLU:
        shapes = [(ROWS, 2 * WIDTH)]
    elif function == Function.RELU_ADD:
        shapes = [(ROWS, WIDTH), (2 * ROWS, WIDTH)]
        net.builder.attributes(net.layer, scale=0.66, first=1, step=2)
    reads = [net.tensor(part, shape, IN) for part, shape in zip("ab", shapes, strict=False)]
    net.tensor("out", out, quantizer(0.0412, 5))
    net.op(Kind.ELEMENTWISE, reads, "out", function=function, **sizes)
    return net, {part: _codes(*shape) for part, shape in zip(reads, shapes, strict=True)}


def _step(kind: Kind) -> Callable[[Function], Case]:
    def build(function: Function) -> Case:
        net, gates = Network(), (4 if kind == Kind.LSTM else 3) * WIDTH
        reads = [net.tensor(part, (ROWS, gates), role=Role.STATE) for part in ("gates_x", "gates_h")]
        states = ["c"] if kind == Kind.LSTM else []
        for part in states:
            net.tensor(part, (ROWS, WIDTH), quantizer(2.0**-11, bits=16))
        net.tensor("h", (ROWS, WIDTH), quantizer(2.0**-7))
        states = states or ["h"]
        wanted = [*reads, *states], [*states, "h"] if kind == Kind.LSTM else ["h"]
        operands = [[Operand(net.index[part], fixed=net.sizes[part]) for part in parts] for parts in wanted]
        net.builder.op(kind, net.layer, *operands, m=ROWS, n=WIDTH, function=function)
        rng = np.random.default_rng(0)
        return net, {part: rng.uniform(-1, 1, (ROWS, gates if part in reads else WIDTH)) for part in {*wanted[0], "h"}}

    return build


def _norm(function: Function) -> Case:
    net = Network()
    net.tensor("x", (ROWS, WIDTH), IN)
    net.tensor("out", (ROWS, WIDTH), quantizer(0.0412, 5))
    vectors = [net.vector(part, np.linspace(0.5, 2, WIDTH)) for part in ("gamma", "beta")]
    net.op(Kind.NORM, ["x", *vectors], "out", function=function, m=ROWS, n=WIDTH)
    return net, {"x": np.random.default_rng(0).integers(-128, 128, (ROWS, WIDTH))}


def _softmax(function: Function) -> Case:
    net, is_attention = Network(), function == Function.PROBABILITIES
    shape = (2, ROWS, WIDTH) if is_attention else (ROWS, WIDTH)
    net.tensor("x", shape, IN)
    net.tensor("out", shape, probability_grid(8) if is_attention else quantizer(0.0412, 5))
    net.op(Kind.SOFTMAX, ["x"], "out", function=function, m=int(np.prod(shape[:-1])), n=WIDTH)
    return net, {"x": np.random.default_rng(0).integers(-40, 40, shape)}


def _lookup(function: Function) -> Case:
    net = Network()
    table = net.weight("table", _codes(9, WIDTH), WEIGHT)
    net.tensor("labels", (ROWS,), role=Role.STATE)
    net.tensor("out", (ROWS, WIDTH), OUT)
    net.op(Kind.LOOKUP, [table, "labels"], "out", function=function, m=ROWS, n=WIDTH)
    return net, {"labels": np.arange(ROWS) + 2}


OPERATIONS: dict[Kind, Callable[[Function], Case]] = {
    Kind.MATMUL: _product,
    **{kind: _convolution(kind) for kind in (Kind.CONV1D, Kind.CONV2D, Kind.DEPTHWISE)},
    Kind.LSTM: _step(Kind.LSTM),
    Kind.GRU: _step(Kind.GRU),
    Kind.ELEMENTWISE: _elementwise,
    Kind.NORM: _norm,
    Kind.SOFTMAX: _softmax,
    Kind.LOOKUP: _lookup,
}


def reals(cell: str) -> list[float]:
    """Numbers of a cell, separated by spaces."""
    return [float(part) for part in cell.split()]
