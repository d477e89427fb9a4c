"""Recurrent loops: LSTM layers of one or two directions over the steps of an utterance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwsim.execute.operations.base import Array, Operation, Parameters, Run, names
from hwsim.execute.operations.product import weight_codes
from hwsim.execute.operations.row import Row
from hwsim.execute.projection import AnyProjection, Sums
from hwsim.execute.recurrence import run_direction
from hwsim.numerics.rounding import Reals
from hwsim.trace import Kind, Tensor


@dataclass(frozen=True, slots=True)
class Direction:
    """One direction of a recurrent LSTM layer: gates_x + (h @ weight + bias), then c and h."""

    layer: str
    gates_x: str
    weight: Tensor
    bias: Tensor | None
    c: str
    h: str
    reverse: bool
    projection: AnyProjection


class Recurrence(Operation):
    """A recurrent loop of one or two directions over time steps of one row."""

    def __init__(self, directions: Sequence[Direction]) -> None:
        self.directions = tuple(directions)
        gates = tuple(d.gates_x for d in self.directions)
        super().__init__(self.directions[0].layer, gates, tuple(n for d in self.directions for n in (d.h, d.c)))

    def run(self, run: Run) -> None:
        """Store h of every step and the last c of each direction."""
        for d in self.directions:
            gates = run[d.gates_x]
            h, before, c = run_direction(
                gates if isinstance(gates, Sums) else _as_sums(run.reals(d.gates_x)), d.projection,
                run.network.grid(d.h), run.network.grid(d.c), run.network.rules, _forced(run, d), d.reverse,
            )  # fmt: skip
            run.keep(d.h, h, before)
            run.keep(d.c, c)

    def parameters(self) -> dict[str, Array]:
        """Recurrent weights and biases of each direction."""
        found: dict[str, Array] = {}
        for d in self.directions:
            found |= weight_codes(d.projection, d.weight, d.bias)
        return found

    def projections(self) -> dict[str, AnyProjection]:
        """The recurrent weights."""
        return {d.weight.name: d.projection for d in self.directions}


def read_loop(body: Sequence[Row], given: Parameters) -> Recurrence:
    """The recurrence of one iteration's operations. Branch 1 runs from the last step to the first.

    Per branch a product with the recurrent weights and the pointwise part, as the builder of LSTM layers records
    them. Raises HwsimError for any other loop, naming the kind and layer.
    """
    wide = next((row for row in body if row.m != 1), None)
    if wide is not None:
        raise wide.refuse("of a loop must have one row a step")
    branches = dict.fromkeys(row.branch for row in body)
    return Recurrence([_direction([row for row in body if row.branch == branch], given) for branch in branches])


def _direction(body: Sequence[Row], given: Parameters) -> Direction:
    if [row.kind for row in body] != [Kind.MATMUL, Kind.LSTM]:
        wrong = next((row for row in body if row.kind not in (Kind.MATMUL, Kind.LSTM)), body[0])
        raise wrong.refuse("in a loop is not executed: a loop must be an LSTM")
    product, pointwise = body
    product.expect(1, weights=1, biases=(0, 1))
    reads, writes = names(pointwise), tuple(tensor.name for tensor in pointwise.writes)
    wanted = len(reads) == 3 and len(writes) == 2 and reads[1] == product.writes[0].name
    if not wanted or names(product) != (writes[1],) or reads[2] != writes[0]:
        raise pointwise.refuse("must read both gate sums and c, and write c and the h of its product")
    assert product.weight is not None
    bias = product.biases[0] if product.biases else None
    c, h = writes
    chosen = given.projection(product.weight, bias, h)
    return Direction(product.layer, reads[0], product.weight, bias, c, h, product.branch == 1, chosen)


def _forced(run: Run, d: Direction) -> tuple[Reals, Reals | None] | None:
    """The reals of h and c that every step reads, when they are given."""
    if run.forced is None or d.h not in run.forced:
        return None
    cells = run.network.reals(d.c, run.forced[d.c]) if d.c in run.forced else None
    return run.network.reals(d.h, run.forced[d.h]), cells


def _as_sums(gates: Array) -> Sums:
    columns = gates.shape[-1]
    return Sums(np.asarray(gates, np.float64)[None], np.ones((1, columns)), np.zeros(columns))
