"""Recurrent layers: loops of one or two directions over the steps of an utterance, and one step of many rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwsim.errors import HwsimError
from hwsim.execute.litert_lstm import PROFILE, LitertLstm, litert_lstm
from hwsim.execute.operations.base import Array, Operation, Parameters, Run, names
from hwsim.execute.operations.product import weight_codes
from hwsim.execute.operations.row import Row
from hwsim.execute.projection import AnyProjection, Sums
from hwsim.execute.recurrence import (
    GATE_COUNT,
    CompiledStep,
    StateGrids,
    compiled_step,
    run_direction,
    run_step,
    stored,
)
from hwsim.numerics.rounding import Reals
from hwsim.trace import Kind, Tensor


@dataclass(frozen=True, slots=True)
class Gates:
    """What the pointwise part of an LSTM or GRU reads and writes, by name; a GRU has no c."""

    kind: Kind
    layer: str
    x: str
    h_sums: str
    states: tuple[str, ...]
    """h and c, or h, that are written."""
    before: tuple[str, ...]
    """The same, that are read: those of the step before."""

    @property
    def h(self) -> str:
        """The hidden state."""
        return self.states[0]

    @property
    def c(self) -> str | None:
        """The cell state of an LSTM."""
        return self.states[1] if self.kind == Kind.LSTM else None


@dataclass(frozen=True, slots=True)
class Direction:
    """One direction of a recurrent layer: gates_x + (h @ weight + bias), then the new states."""

    gates: Gates
    weight: Tensor
    bias: Tensor | None
    reverse: bool
    projection: AnyProjection
    grids: StateGrids
    litert: LitertLstm | None

    @property
    def h(self) -> str:
        """The hidden state of every step."""
        return self.gates.h

    @property
    def c(self) -> str | None:
        """The cell state of an LSTM."""
        return self.gates.c


class Recurrence(Operation):
    """A recurrent loop of one or two directions over time steps of one row."""

    def __init__(self, directions: Sequence[Direction]) -> None:
        self.directions = tuple(directions)
        self.streams = not any(d.reverse for d in self.directions)
        gates = tuple(d.gates.x for d in self.directions)
        super().__init__(
            self.directions[0].gates.layer, gates, tuple(n for d in self.directions for n in d.gates.states)
        )

    def run(self, run: Run) -> None:
        """Store h of every step and the last c of each direction."""
        for d in self.directions:
            if d.litert is None:
                self._run(run, d)
            else:
                _run_litert(run, d, d.litert)

    def _run(self, run: Run, d: Direction) -> None:
        gates, network = run[d.gates.x], run.network
        forced = None
        if run.forced is not None and d.h in run.forced:
            given = run.forced[d.c] if d.c is not None and d.c in run.forced else None
            cells = None if given is None or d.c is None else network.reals(d.c, given)
            forced = (network.reals(d.h, run.forced[d.h]), cells)
        h, before, c = run_direction(
            d.gates.kind, gates if isinstance(gates, Sums) else _as_sums(run.reals(d.gates.x)), d.projection, d.grids,
            network.rules, forced, d.reverse, _first(run, d),
        )  # fmt: skip
        run.keep(d.h, h, before)
        if d.c is not None and c is not None:
            run.keep(d.c, stored(d.grids.cell, c))

    def parameters(self) -> dict[str, Array]:
        """Recurrent weights and biases of each direction."""
        found: dict[str, Array] = {}
        for d in self.directions:
            found |= weight_codes(d.projection, d.weight, d.bias)
        return found

    def projections(self) -> dict[str, AnyProjection]:
        """The recurrent weights."""
        return {d.weight.name: d.projection for d in self.directions}


class Step(Operation):
    """The pointwise part of one step of an LSTM or GRU outside a loop: m rows of gate sums and states to new states."""

    def __init__(self, row: Row, given: Parameters) -> None:
        self.gates = read_gates(row)
        reads = (self.gates.x, self.gates.h_sums, *self.gates.before[::-1])
        super().__init__(row.layer, reads, self.gates.states)
        network = given.network
        self.grids = _grids(self.gates, given)
        self.is_compiled = self.gates.kind == Kind.LSTM and compiled_step(self.grids, network.rules)
        self._compiled: CompiledStep | None = None
        self.litert = None
        if network.semantics.name == PROFILE:
            recurrent = given.products.get(self.gates.h_sums)
            if recurrent is None:
                raise row.refuse(f"must read the product of its hidden state under profile {PROFILE}")
            self.litert = _litert(self.gates, recurrent, self.grids, given)

    def run(self, run: Run) -> None:
        """Store the new states, (rows, H) each."""
        x, y, gates = run[self.gates.x], run[self.gates.h_sums], self.gates
        last = _state(run, gates.before[-1], x, gates.kind)
        if self.litert is not None:
            _step_litert(run, self.gates, self.litert, x, y, run[gates.before[1]])
            return
        if self.is_compiled and run.steps is None:
            if self._compiled is None:
                self._compiled = CompiledStep(self.grids, run.network.rules)
            sums_x, sums_h = (value if isinstance(value, Sums) else _as_sums(run.network.reals(name, value))
                              for name, value in ((gates.x, x), (gates.h_sums, y)))  # fmt: skip
            h, c = self._compiled(sums_x, sums_h, last)
            run.keep(gates.h, h)
            run.keep(gates.states[1], stored(self.grids.cell, c))
            return
        sums = run.network.reals(gates.x, x), run.network.reals(gates.h_sums, y)
        states = (last,) if gates.kind == Kind.GRU else (_state(run, gates.before[0], x, gates.kind), last)
        real, *cell = run_step(gates.kind, *sums, states, self.grids, run.network.rules)
        run.keep(gates.h, stored(self.grids.hidden, real), real)
        for name, value in zip(gates.states[1:], cell, strict=True):
            run.keep(name, stored(self.grids.cell, value))


def read_loop(body: Sequence[Row], given: Parameters) -> Recurrence:
    """The recurrence of one iteration's operations. Branch 1 runs from the last step to the first.

    Per branch a product with the recurrent weights and the pointwise part, as the builders of LSTM and GRU layers
    record them. Raises HwsimError for any other loop, naming the kind and layer.
    """
    wide = next((row for row in body if row.m != 1), None)
    if wide is not None:
        raise wide.refuse("of a loop must have one row a step")
    branches = dict.fromkeys(row.branch for row in body)
    return Recurrence([_direction([row for row in body if row.branch == branch], given) for branch in branches])


def read_gates(row: Row) -> Gates:
    """The tensors of a pointwise part: an LSTM reads gates_x, gates_h, c and writes c, h; a GRU h in place of c."""
    reads, writes = names(row), tuple(tensor.name for tensor in row.writes)
    is_lstm = row.kind == Kind.LSTM
    if len(reads) != 3 or len(writes) != (2 if is_lstm else 1) or row.biases or row.weight is not None:
        states = ("c", "c and h") if is_lstm else ("h", "h")
        raise row.refuse(f"must read the gate sums of x and of h and {states[0]}, and write {states[1]}")
    if is_lstm:
        return Gates(row.kind, row.layer, reads[0], reads[1], writes[::-1], (writes[1], reads[2]))
    return Gates(row.kind, row.layer, reads[0], reads[1], writes, (reads[2],))


def _direction(body: Sequence[Row], given: Parameters) -> Direction:
    kinds = [row.kind for row in body]
    if kinds not in ([Kind.MATMUL, Kind.LSTM], [Kind.MATMUL, Kind.GRU]):
        wrong = next((row for row in body if row.kind not in (Kind.MATMUL, Kind.LSTM, Kind.GRU)), body[0])
        raise wrong.refuse("in a loop is not executed: a loop must be an LSTM or a GRU")
    product, pointwise = body
    product.expect(1, weights=1, biases=(0, 1))
    gates = read_gates(pointwise)
    if gates.h_sums != product.writes[0].name or names(product) != (gates.h,) or gates.states != gates.before:
        raise pointwise.refuse("must read both gate sums and its state, and write its state and the h of its product")
    assert product.weight is not None
    bias = product.biases[0] if product.biases else None
    chosen, grids = given.projection(product.weight, bias, gates.h), _grids(gates, given)
    litert = _litert(gates, chosen, grids, given) if given.network.semantics.name == PROFILE else None
    return Direction(gates, product.weight, bias, product.branch == 1, chosen, grids, litert)


def _grids(gates: Gates, given: Parameters) -> StateGrids:
    network = given.network
    cell = None if gates.c is None else network.state_grid(gates.c)
    return StateGrids(network.hidden_grid(gates.h), cell, network.state_grid(gates.h_sums))


def _litert(gates: Gates, recurrent: AnyProjection, grids: StateGrids, given: Parameters) -> LitertLstm:
    network = given.network
    if gates.kind != Kind.LSTM:
        raise HwsimError(
            f"{gates.layer}, profile {PROFILE}: its recurrent layers must be LSTMs, got a {gates.kind.name}"
        )
    for name in (gates.x, gates.h_sums):
        if network.state_grid(name) is not None:
            raise HwsimError(f"{gates.layer}, profile {PROFILE}: {name} must have no grid of its own")
    return litert_lstm(gates.layer, given.products.get(gates.x), recurrent, network.state_grid(gates.h), grids.cell,
                       network.rules.gate_order, network.semantics)  # fmt: skip


def _first(run: Run, d: Direction) -> tuple[Reals, ...] | None:
    """The states before a direction's first step, when the caller gave them."""
    given = [name for name in d.gates.states if name in run.first]
    if not given:
        return None
    if d.reverse or len(given) < len(d.gates.states):
        rule = "start from zero, because it ends there" if d.reverse else f"be given {' and '.join(d.gates.states)}"
        raise HwsimError(f"{d.gates.layer}: the layer must {rule}, got {', '.join(given)}")
    return tuple(run.network.reals(name, run.first[name]) for name in d.gates.states)


def _run_litert(run: Run, d: Direction, litert: LitertLstm) -> None:
    forced = None
    if _first(run, d) is not None:
        raise HwsimError(f"{d.gates.layer}, profile {PROFILE}: its layers must start from zero states")
    if run.forced is not None and d.h in run.forced:
        forced = (run.forced[d.h], run.forced.get(d.c or ""))
    h, before, c = litert.run(run[d.gates.x].integers[0], forced, d.reverse)
    _keep_codes(run, d.gates, h, c, before)


def _step_litert(run: Run, gates: Gates, litert: LitertLstm, x: Sums, y: Sums, c: Array) -> None:
    h, after, before = litert.step(x.integers[0], y.integers[0], c)
    _keep_codes(run, gates, h, after, before)


def _keep_codes(run: Run, gates: Gates, h: Array, c: Array, before: Reals) -> None:
    run.keep(gates.h, h.astype(np.int8), before)
    run.keep(gates.states[1], c.astype(np.int16))


def _state(run: Run, name: str, gates: Sums | Array, kind: Kind) -> Reals:
    """The reals of a state (rows, H) that is read, of as many rows as the gate sums."""
    value = run.reals(name)
    shape = gates.integers.shape[1:] if isinstance(gates, Sums) else gates.shape
    wanted = (shape[0], shape[1] // GATE_COUNT[kind])
    if value.shape != wanted:
        raise HwsimError(f"{name}: must be of shape {wanted}, got {value.shape}")
    return value


def _as_sums(gates: Array) -> Sums:
    columns = gates.shape[-1]
    return Sums(np.asarray(gates, np.float64)[None], np.ones((1, columns)), np.zeros(columns))
