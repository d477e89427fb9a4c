"""GRU layers as operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hwsim.trace import Kind, Role, TraceBuilder
from hwsim.trace.builder import Operand, Rows

GATES = 3


@dataclass(frozen=True, slots=True)
class GruLayer:
    """Tensor indices of one GRU layer in one direction, for `rows` rows (frames or hypotheses)."""

    layer: str
    cells: int
    wx: int
    wh: int
    bias_x: int | None
    bias_h: int | None
    gates_x: int
    gates_h: int
    h: int

    @classmethod
    def declare(cls, b: TraceBuilder, layer: str, inputs: int, cells: int, rows: int, *,
                prefix: str = "", steps: bool = False, bias: bool = True) -> GruLayer:  # fmt: skip
        """Declare weights `(inputs, 3 cells)` and `(cells, 3 cells)`, two biases or none, gate sums, hidden state.

        With `steps` the layer runs over `rows` time steps of one row each, otherwise it runs one step of `rows`
        rows. Gate sums take the policy's state format, the hidden state its activation format.
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
            h=tensor("h", Role.ACTIVATION, rows, cells),
        )  # fmt: skip

    def project_input(self, b: TraceBuilder, x: Sequence[int], m: Rows, branch: int = 0) -> None:
        """`gates_x = x @ wx + bias_x` for m rows at once."""
        b.matmul(self.layer, x, self.wx, self.gates_x, m=m, bias=self.bias_x, branch=branch)

    def step(self, b: TraceBuilder, m: Rows, branch: int = 0) -> None:
        """`gates_h = h @ wh + bias_h`, then the pointwise part: new h."""
        b.matmul(self.layer, [self.h], self.wh, self.gates_h, m=m, bias=self.bias_h, branch=branch)
        gates = GATES * self.cells
        reads = [Operand(self.gates_x, gates), Operand(self.gates_h, gates), Operand(self.h, self.cells)]
        b.op(Kind.GRU, self.layer, reads, [Operand(self.h, self.cells)], m=m, n=self.cells, branch=branch)
