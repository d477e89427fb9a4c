"""LSTM layers over time on analog tiles: one compiled loop over products, noise, converters and pointwise part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.execute.analog.tile import Tiles
from hwsim.execute.operations.base import Run
from hwsim.execute.operations.recurrent import Direction, Recurrence
from hwsim.execute.projection import Sums
from hwsim.execute.recurrence import GATES, Grid, LstmRules, StateGrids, stored
from hwsim.execute.reference.half import Halves
from hwsim.numerics.dynamic import DynamicGrid
from hwsim.numerics.quantizers import Quantizer
from hwsim.numerics.rounding import Reals
from hwsim.numerics.tables import Table
from hwsim.trace import Kind

Array = npt.NDArray[Any]
STEPS = 16
"""Steps whose noise is drawn at once."""


class AnalogRecurrence(Recurrence):
    """A recurrent loop whose hidden state meets tiles; pointwise parts are those of the given loop.

    An LSTM with shared tables and states on one scale, halves or reals runs compiled; GRUs, forced runs and others
    step by step through the readable reference, to the same values.
    """

    def __init__(self, given: Recurrence, projections: Mapping[str, Any]) -> None:
        super().__init__([replace(d, projection=projections.get(d.weight.name, d.projection))
                          for d in given.directions])  # fmt: skip

    def _run(self, run: Run, d: Direction) -> None:
        forced = run.forced is not None and d.h in run.forced
        tiles = d.projection
        if forced or not isinstance(tiles, Tiles) or not compiled(d, run.network.rules) or run.steps is not None:
            super()._run(run, d)
            return
        gates = run[d.gates.x]
        sums_x = gates.values() if isinstance(gates, Sums) else run.reals(d.gates.x)
        first = None
        if any(name in run.first for name in d.gates.states):
            first = tuple(run.network.reals(name, run.first[name]) for name in d.gates.states)
        h, c = run_lstm(sums_x, tiles, pointwise(d.grids, run.network.rules), d.reverse, first)
        run.keep(d.h, stored(d.grids.hidden, h))
        assert d.c is not None
        run.keep(d.c, stored(d.grids.cell, c))


@dataclass(frozen=True, slots=True, eq=False)
class Pointwise:
    """What the compiled loop takes of tables, order of gates, and grids of states."""

    sigmoid: Reals
    sigmoid_grid: tuple[float, float, float]
    tanh: Reals
    tanh_grid: tuple[float, float, float]
    order: Array
    hidden: tuple[float, ...]
    cell: tuple[float, ...]
    modes: tuple[int, ...]
    """Of h and c REALS, CODES or HALVES, whether gate sums of h are halves, then form and ties of the codes of h and
    of c, and the ties of the tables."""


def compiled(d: Direction, rules: LstmRules) -> bool:
    """Whether the compiled loop computes a direction."""
    if isinstance(d.projection, Tiles) and d.projection.settings.exact_redraw:
        return False
    if isinstance(d.grids.hidden, DynamicGrid):
        return False
    if d.gates.kind != Kind.LSTM or not (isinstance(rules.sigmoid, Table) and isinstance(rules.tanh, Table)):
        return False
    tables = (rules.sigmoid.input, rules.tanh.input)
    grids = [grid for grid in (d.grids.hidden, d.grids.cell) if isinstance(grid, Quantizer)]
    same_ties = tables[0].ties == tables[1].ties
    return same_ties and not isinstance(d.grids.gates, Quantizer) and all(map(_plain, (*tables, *grids)))


def pointwise(grids: StateGrids, rules: LstmRules) -> Pointwise:
    """The arguments of the compiled loop, for grids and rules that are `compiled`."""
    from hwsim.execute.lstm_loop import FORMS, TIES

    assert isinstance(rules.sigmoid, Table)
    assert isinstance(rules.tanh, Table)
    assert not isinstance(grids.hidden, DynamicGrid)
    plain = [grid if isinstance(grid, Quantizer) else rules.sigmoid.output for grid in (grids.hidden, grids.cell)]
    modes = (_mode(grids.hidden), _mode(grids.cell), int(isinstance(grids.gates, Halves)),
             *(number for grid in plain for number in (FORMS[grid.form], TIES[grid.ties])),
             TIES[rules.sigmoid.input.ties])  # fmt: skip
    return Pointwise(
        rules.sigmoid.output.dequantize(rules.sigmoid.codes), _index_grid(rules.sigmoid),
        rules.tanh.output.dequantize(rules.tanh.codes), _index_grid(rules.tanh),
        np.array([rules.gate_order.index(gate) for gate in GATES]), _code_grid(plain[0]), _code_grid(plain[1]), modes,
    )  # fmt: skip


def run_lstm(
    sums_x: Reals, tiles: Tiles, rules: Pointwise, reverse: bool = False, first: tuple[Reals, ...] | None = None
) -> tuple[Reals, Reals]:
    """h (T, H) and the last c (1, H), reals on their grids, from the gate sums of the input (T, 4H).

    `first`: h and c (1, H) before the first step, zeros unless given.
    """
    from hwsim.execute.analog.lstm_loop import analog_lstm_loop

    steps, cells = len(sums_x), tiles.outputs // len(GATES)
    given = first or (np.zeros((1, cells)), np.zeros((1, cells)))
    states = np.concatenate([np.array(state, np.float64).reshape(1, cells) for state in given])
    out = np.empty((steps, cells))
    order = np.ascontiguousarray(np.arange(steps)[:: -1 if reverse else 1])
    table = (rules.sigmoid, rules.sigmoid_grid, rules.tanh, rules.tanh_grid, rules.order, rules.hidden, rules.cell)
    values = np.ascontiguousarray(sums_x, np.float64)
    for at in range(0, steps, STEPS):
        part = order[at : at + STEPS]
        analog_lstm_loop(values, part, tiles.input_range, *tiles.arguments, tiles.bias, tiles.draw(len(part)),
                         *tiles.split, tiles.rules, *table, rules.modes, states, out)  # fmt: skip
    return out, states[1:]


def _plain(grid: Quantizer) -> bool:
    one_scale = grid.scale.size == 1 and not grid.zero_point.any()
    return one_scale and not grid.half_step and grid.precision == "float64"


def _mode(grid: Grid) -> int:
    from hwsim.execute.lstm_loop import CODES, HALVES, REALS

    return REALS if grid is None else HALVES if isinstance(grid, Halves) else CODES


def _index_grid(table: Table) -> tuple[float, float, float]:
    low, high = table.input.code_range
    return 1 / float(table.input.scale), float(low), float(high)


def _code_grid(grid: Quantizer) -> tuple[float, ...]:
    scale, (low, high) = float(grid.scale), grid.code_range
    return scale, 1 / scale, (high - low) * scale * 0.5, float(low), float(high)
