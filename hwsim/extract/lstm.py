"""LSTM layers as operations: over a whole sequence, and as one step of a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hwsim.extract.encoder_spec import EncoderSpec
from hwsim.trace import Kind, Role, TraceBuilder
from hwsim.trace.builder import Operand, Rows

GATES = 4


@dataclass(frozen=True, slots=True)
class LstmLayer:
    """Tensor indices of one LSTM layer in one direction, for `rows` rows (frames or hypotheses)."""

    layer: str
    cells: int
    wx: int
    wh: int
    bias_x: int | None
    bias_h: int | None
    gates_x: int
    gates_h: int
    c: int
    h: int

    @classmethod
    def declare(cls, b: TraceBuilder, layer: str, inputs: int, cells: int, rows: int, *,
                prefix: str = "", steps: bool = False, bias: bool = True) -> LstmLayer:  # fmt: skip
        """Declare weights `(inputs, 4 cells)` and `(cells, 4 cells)`, two biases or none, gate sums, state, output.

        With `steps` the layer runs over `rows` time steps of one row each, otherwise it runs one step of `rows`
        rows. Gate sums and the cell state take the policy's state format, the output its activation format.
        """
        name = f"{layer}.{prefix}" if prefix else f"{layer}."
        gates = GATES * cells
        step_rows = 1 if steps else rows

        def tensor(part: str, role: Role, *shape: int) -> int:
            return b.tensor(f"{name}{part}", role, shape, layer)

        return cls(
            layer, cells,
            wx=tensor("wx", Role.WEIGHT, inputs, gates),
            wh=tensor("wh", Role.WEIGHT, cells, gates),
            bias_x=tensor("bias_x", Role.BIAS, gates) if bias else None,
            bias_h=tensor("bias_h", Role.BIAS, gates) if bias else None,
            gates_x=tensor("gates_x", Role.STATE, rows, gates),
            gates_h=tensor("gates_h", Role.STATE, step_rows, gates),
            c=tensor("c", Role.STATE, step_rows, cells),
            h=tensor("h", Role.ACTIVATION, rows, cells),
        )  # fmt: skip

    def project_input(self, b: TraceBuilder, x: Sequence[int], m: Rows, branch: int = 0) -> None:
        """`gates_x = x @ wx + bias_x` for m rows at once."""
        b.matmul(self.layer, x, self.wx, self.gates_x, m=m, bias=self.bias_x, branch=branch)

    def step(self, b: TraceBuilder, m: Rows, branch: int = 0) -> None:
        """`gates_h = h @ wh + bias_h`, then the pointwise part: new c and h."""
        b.matmul(self.layer, [self.h], self.wh, self.gates_h, m=m, bias=self.bias_h, branch=branch)
        gates = GATES * self.cells
        reads = [Operand(self.gates_x, gates), Operand(self.gates_h, gates), Operand(self.c, self.cells)]
        writes = [Operand(self.c, self.cells), Operand(self.h, self.cells)]
        b.op(Kind.LSTM, self.layer, reads, writes, m=m, n=self.cells, branch=branch)


def emit_lstm_encoder(b: TraceBuilder, spec: EncoderSpec, frames: int, name: str = "encoder") -> list[int]:
    """Add LSTM layers over `frames` input frames; return the outputs (T', cells) of the directions of the last.

    Each layer is one input projection over all frames (per direction), then a recurrent loop. The two directions are
    branches 0 and 1 of the same loop, so that a machine may run them side by side. Without a frame weights are
    declared and nothing runs.
    """
    rows, width = max(frames, 1), spec.input
    x = [b.tensor(f"{name}.input.features", Role.ACTIVATION, (rows, spec.input), f"{name}.layer0")]
    for index in range(spec.layers):
        if index == spec.stack_before_layer:
            rows, width = -(-rows // spec.stack_factor), width * spec.stack_factor
        layer = f"{name}.layer{index}"
        directions = ["forward_", "backward_"] if spec.bidirectional else [""]
        lstms = [LstmLayer.declare(b, layer, width, spec.cells, rows, prefix=d, steps=True) for d in directions]
        if frames:
            for branch, lstm in enumerate(lstms):
                lstm.project_input(b, x, rows, branch)
            with b.loop(rows):
                for branch, lstm in enumerate(lstms):
                    lstm.step(b, 1, branch)
        x = [lstm.h for lstm in lstms]
        width = spec.cells * len(lstms)
    return x


@dataclass(frozen=True, slots=True)
class LstmStack:
    """A prediction network or a language model, evaluated for a batch of hypotheses at each search step."""

    name: str
    table: int
    embedded: int
    embedding: int
    layers: tuple[LstmLayer, ...]
    dense_inputs: bool
    output: tuple[int, int, int, int] | None
    """Weight, bias, logits and number of labels of the output layer."""
    cache: int
    """Stands for the states that the search keeps: those of one step are there before the next reads any."""

    @property
    def scores(self) -> tuple[int, int] | None:
        """Tensor of a language model's scores, and how many of them a row has."""
        return None if self.output is None else self.output[2:]

    def step(self, b: TraceBuilder, m: Rows, choice: int | None = None) -> None:
        """Fetch the cached states of m hypotheses, advance them by one label, and put the new states back.

        `choice` is the tensor that names the hypotheses: nothing starts before the search has written it.
        """
        copied = [Operand(t, lstm.cells) for lstm in self.layers for t in (lstm.h, lstm.c)]
        width = 2 * sum(lstm.cells for lstm in self.layers)
        chosen = [] if choice is None else [Operand(choice)]
        cache = Operand(self.cache)
        b.op(Kind.STATE_IN, f"{self.name}.state", [*chosen, cache], copied, m=m, n=width)
        layer = f"{self.name}.embedding"
        table = [Operand(self.table, self.embedding), *chosen]
        b.op(Kind.LOOKUP, layer, table, [Operand(self.embedded, self.embedding)], m=m, n=self.embedding)
        x = [self.embedded]
        for lstm in self.layers:
            lstm.project_input(b, x, m)
            lstm.step(b, m)
            x = [self.embedded, lstm.h] if self.dense_inputs else [lstm.h]
        if self.output:
            self._output(b, m, *self.output)
        b.op(Kind.STATE_OUT, f"{self.name}.state", copied, [cache], m=m, n=width)

    def _output(self, b: TraceBuilder, m: Rows, weight: int, bias: int, logits: int, labels: int) -> None:
        layer = f"{self.name}.output"
        b.matmul(layer, [self.layers[-1].h], weight, logits, m=m, bias=bias)
        b.op(Kind.SOFTMAX, layer, [Operand(logits, labels)], [Operand(logits, labels)], m=m, n=labels)
