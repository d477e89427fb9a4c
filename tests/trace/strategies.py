"""Random small traces: every kind of operation, loops, two branches, empty rows, tensors written again and again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from hwsim.trace import Function, Kind, Role, Trace, TraceBuilder
from hwsim.trace.builder import Operand, Rows

ROWS = 24
WIDTHS = (1, 2, 7, 33, 64, 130, 256, 600)
LAYERS = ("encoder.layer0", "encoder.layer1", "prediction.layer0", "joint.output")
FUNCTIONS = (Function.ADD, Function.MULTIPLY, Function.TANH, Function.SIGMOID, Function.ADD_RELU)


class _Drawing:
    """A builder with the tensors that its random operations may read or write again."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.b = TraceBuilder("random", {"audio_s": 1.0})
        self.count = 0
        self.pool: list[tuple[int, int]] = []
        self.weights: list[tuple[int, int, int]] = []
        self.iterations = 0
        for _ in range(2):
            self.tensor(draw(st.sampled_from(WIDTHS)))
        self.choice = self.b.tensor("search.choice", Role.STATE, (1,))
        self.cache = self.b.tensor("search.cache", Role.STATE, (1,))

    def one_of(self, values):  # type: ignore[no-untyped-def]
        return self.draw(st.sampled_from(values))

    def named(self, role: Role, shape: tuple[int, ...], layer: str) -> int:
        self.count += 1
        return self.b.tensor(f"{layer}.t{self.count}", role, shape, layer)

    def tensor(self, width: int) -> int:
        role = self.one_of((Role.ACTIVATION, Role.ACTIVATION, Role.STATE))
        self.pool.append((self.named(role, (ROWS, width), self.one_of(LAYERS)), width))
        return self.pool[-1][0]

    def output(self, width: int) -> int:
        """A tensor to write: a new one, or one that exists, perhaps read before in this iteration."""
        known = [tensor for tensor, other in self.pool if other == width]
        return self.one_of(known) if known and self.draw(st.booleans()) else self.tensor(width)

    def weight(self, k: int) -> tuple[int, int]:
        known = [(tensor, n) for tensor, other, n in self.weights if other == k]
        if known and self.draw(st.booleans()):
            return self.one_of(known)  # type: ignore[no-any-return]
        n = self.one_of(WIDTHS)
        self.weights.append((self.named(Role.WEIGHT, (k, n), self.one_of(LAYERS)), k, n))
        return self.weights[-1][0], n

    def rows(self) -> Rows:
        if self.iterations and self.draw(st.booleans()):
            rows = self.draw(st.lists(st.integers(0, ROWS), min_size=self.iterations, max_size=self.iterations))
            return np.array(rows, dtype=np.int64)
        return self.one_of((1, 1, ROWS, 0))  # type: ignore[no-any-return]

    def product(self, branch: int = 0, layer: str | None = None) -> None:
        x, width = self.one_of(self.pool)
        weight, n = self.weight(width)
        bias = self.named(Role.BIAS, (n,), self.one_of(LAYERS)) if self.draw(st.booleans()) else None
        layer = layer or self.one_of(LAYERS)
        self.b.matmul(layer, [x], weight, self.output(n), m=self.rows(), bias=bias, branch=branch)

    def activation_product(self) -> None:
        x, width = self.one_of(self.pool)
        batch, n = self.one_of((1, 3)), self.one_of(WIDTHS)
        layer = self.one_of(LAYERS)
        other = self.named(Role.ACTIVATION, (batch, width, n), layer)
        reads = [Operand(x, per_row=width), Operand(other, fixed=batch * width * n)]
        writes = [Operand(self.output(n), per_row=n)]
        self.b.op(Kind.MATMUL, layer, reads, writes, m=self.rows(), k=width, n=n, batch=batch)

    def convolution(self) -> None:
        x, width = self.one_of(self.pool)
        groups, kernel = self.one_of((1, 4)), self.one_of((1, 3))
        kind = self.one_of((Kind.CONV1D, Kind.CONV2D, Kind.DEPTHWISE))
        k, n = (kernel, 1) if kind == Kind.DEPTHWISE else (kernel * 2, self.one_of((1, 16)))
        layer = self.one_of(LAYERS)
        weight = self.named(Role.WEIGHT, (k, groups * n), layer)
        reads = [Operand(x, per_row=width), Operand(weight, fixed=groups * k * n)]
        writes = [Operand(self.output(width), per_row=width)]
        self.b.op(kind, layer, reads, writes, m=self.rows(), k=k, n=n, batch=groups)

    def vector(self, branch: int = 0, layer: str | None = None) -> None:
        x, width = self.one_of(self.pool)
        kind = self.one_of((Kind.LSTM, Kind.SOFTMAX, Kind.NORM, Kind.ELEMENTWISE, Kind.TOPK))
        function = self.one_of(FUNCTIONS) if kind == Kind.ELEMENTWISE else Function.NONE
        writes = [Operand(self.output(width), per_row=width)]
        layer = layer or self.one_of(LAYERS)
        reads = [Operand(x, per_row=width)]
        self.b.op(kind, layer, reads, writes, m=self.rows(), n=width, function=function, branch=branch)

    def lookup(self) -> None:
        width = self.one_of(WIDTHS)
        layer = self.one_of(LAYERS)
        table = self.named(Role.WEIGHT, (self.one_of((2, 40)), width), layer)
        reads = [Operand(table, per_row=width), Operand(self.choice)]
        self.b.op(Kind.LOOKUP, layer, reads, [Operand(self.output(width), per_row=width)], m=self.rows(), n=width)

    def control(self) -> None:
        x, width = self.one_of(self.pool)
        rows = self.rows()
        self.b.op(Kind.SEND, "search.scores", [Operand(x, width)], [Operand(x, width)], m=rows, n=width)
        chosen = [Operand(self.choice, fixed=1)]
        self.b.op(Kind.HOST, "search.control", [Operand(x, fixed=1)], chosen, m=rows, k=width)
        self.b.op(Kind.LAUNCH, "search.launch", chosen, chosen, m=np.minimum(rows, 1), after=[self.b.last])

    def state(self) -> None:
        x, width = self.one_of(self.pool)
        rows = self.rows()
        stored, chosen = Operand(self.cache, fixed=0), Operand(self.choice)
        self.b.op(Kind.STATE_IN, "search.state", [chosen, stored], [Operand(x, width)], m=rows, n=width)
        self.b.op(Kind.STATE_OUT, "search.state", [Operand(x, width)], [stored], m=rows, n=width)

    def two_branches(self) -> None:
        """Two directions of one layer, which share nothing."""
        layer = f"encoder.both{self.count}"
        width = self.one_of(WIDTHS)
        rows = self.rows()
        for branch in (0, 1):
            h, gates = (self.named(Role.ACTIVATION, (ROWS, n), layer) for n in (width, 2 * width))
            weight = self.named(Role.WEIGHT, (width, 2 * width), layer)
            self.b.matmul(layer, [h], weight, gates, m=rows, branch=branch)
            reads = [Operand(gates, per_row=2 * width)]
            self.b.op(Kind.LSTM, layer, reads, [Operand(h, width)], m=rows, n=width, branch=branch)
            self.pool.append((h, width))

    def any_operation(self) -> None:
        kinds: list[Callable[[], None]] = [
            self.product, self.product, self.product, self.vector, self.vector, self.activation_product,
            self.convolution, self.lookup, self.control, self.state, self.two_branches,
        ]  # fmt: skip
        self.one_of(kinds)()


@st.composite
def traces(draw: st.DrawFn, max_blocks: int = 6) -> Trace:
    """One to `max_blocks` loops or single operations; fp32 until a precision is set."""
    drawing = _Drawing(draw)
    for _ in range(draw(st.integers(1, max_blocks))):
        drawing.iterations = draw(st.sampled_from((0, 1, 2, 2, 5)))
        if drawing.iterations == 0:
            drawing.any_operation()
            continue
        with drawing.b.loop(drawing.iterations):
            for _ in range(draw(st.integers(1, 4))):
                drawing.any_operation()
    return drawing.b.build()
