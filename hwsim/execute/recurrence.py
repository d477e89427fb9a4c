"""Recurrent layers: the compiled loop or step where it covers the grids, else the readable reference."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.execute.dynamic import DynamicCodes
from hwsim.execute.projection import AnyProjection, PackedProjection, Sums, storage
from hwsim.execute.reference.half import Halves, half_round
from hwsim.execute.reference.recurrent import GruLayer, LstmLayer, Pointwise
from hwsim.numerics.dynamic import DynamicGrid
from hwsim.numerics.quantizers import Quantizer
from hwsim.numerics.rounding import Reals
from hwsim.numerics.tables import Exact, Table, fixed_table
from hwsim.trace import Kind

Array = npt.NDArray[Any]
Grid = Quantizer | Halves | None
HiddenGrid = Quantizer | Halves | DynamicGrid | None
GATES = "ifgo"
GATE_COUNT = {Kind.LSTM: 4, Kind.GRU: 3}


@dataclass(frozen=True, slots=True, eq=False)
class LstmRules:
    """What lies between gate sums and states: shared tables, and the order of the gates (i, f, g, o in PyTorch).

    A GRU shares the tables; its gates are in the order r, z, n. Functions without a table are for networks of
    runtimes that compute them in floating point.
    """

    sigmoid: Table | Exact = field(default_factory=lambda: fixed_table("sigmoid"))
    tanh: Table | Exact = field(default_factory=lambda: fixed_table("tanh"))
    gate_order: str = GATES

    def __post_init__(self) -> None:
        if sorted(self.gate_order) != sorted(GATES):
            raise HwsimError(f"gate_order must hold i, f, g and o once each, got {self.gate_order}")


@dataclass(frozen=True, slots=True)
class StateGrids:
    """On what a recurrent layer keeps h, c and the gate sums of h.

    A quantizer, halves, or None for float64; h also on a grid that each row finds at run time.
    """

    hidden: HiddenGrid
    cell: Grid = None
    gates: Grid = None


@dataclass(frozen=True, slots=True, eq=False)
class Recurrent:
    """The recurrent gate sums of a reference layer: of a projection, or those that are already known."""

    outputs: int
    source: AnyProjection | Reals
    grid: Grid = None

    def __call__(self, x: Reals) -> Reals:
        """Gate sums (rows, outputs) of reals (rows, H), as they are stored."""
        sums = self.source if isinstance(self.source, np.ndarray) else self.source(x)
        return sums if self.grid is None else self.grid.fake_quantize(sums)


def run_direction(
    kind: Kind, sums_x: Sums, recurrent: AnyProjection, grids: StateGrids, rules: LstmRules,
    forced: tuple[Reals, Reals | None] | None = None, reverse: bool = False, first: tuple[Reals, ...] | None = None,
) -> tuple[Any, Reals | None, Reals | None]:  # fmt: skip
    """h (T, H) as it is stored on its grid; its reals before rounding; the last c (1, H) float64, None of a GRU.

    `forced`: the reals of h (T, H), and of c (T, H) or None, that every step reads in place of its own. The compiled
    loop, which runs when nothing is forced, gives no reals. `first`: reals of the states before the first step, (1, H)
    each; zeros unless given.
    """
    if forced is None and kind == Kind.LSTM and compiled(recurrent, grids, rules):
        h, c = _run_compiled(sums_x, recurrent, grids, rules, reverse, first)
        return h, None, c
    layer = _layer(kind, Recurrent(recurrent.outputs, recurrent, grids.gates), grids.cell, rules)
    sums = sums_x.values()
    states = first or layer.states(1)
    before, after = np.empty((len(sums), layer.cells)), np.empty((len(sums), layer.cells))
    order = range(len(sums))[:: -1 if reverse else 1]
    for count, t in enumerate(order):
        if forced is not None and count:
            states = _forced_states(forced, order[count - 1], states)
        real, *cell = layer.step(sums[t][None], states)
        h = on_grid(grids.hidden, real)
        states = (h, *cell)
        before[t], after[t] = real[0], h[0]
    return stored(grids.hidden, after), before, states[1] if kind == Kind.LSTM else None


def run_step(
    kind: Kind, sums_x: Reals, sums_h: Reals, states: tuple[Reals, ...], grids: StateGrids, rules: LstmRules
) -> tuple[Reals, ...]:
    """The next (h, c) or (h,), (rows, H) float64, h before it is rounded, from gate sums as they are stored."""
    layer = _layer(kind, Recurrent(sums_h.shape[-1], sums_h), grids.cell, rules)
    return layer.step(sums_x, states)


def on_grid(grid: HiddenGrid, x: Reals) -> Reals:
    """What a tensor on a grid holds of reals, float64."""
    return x if grid is None else grid.fake_quantize(x)


def stored(grid: HiddenGrid, x: Reals) -> Any:
    """Reals as a tensor stores them: codes, with scales of their own or without, halves, or float64."""
    if grid is None:
        return x
    if isinstance(grid, DynamicGrid):
        return DynamicCodes.of(grid, x)
    return half_round(x) if isinstance(grid, Halves) else grid.quantize(x).astype(storage(grid))


def compiled(recurrent: AnyProjection, grids: StateGrids, rules: LstmRules) -> bool:
    """Whether the compiled loop computes this LSTM: packed weights without groups, and what `compiled_step` asks."""
    if not isinstance(recurrent, PackedProjection) or recurrent.packed is None or recurrent.packed.groups > 1:
        return False
    if isinstance(grids.gates, Quantizer) or not compiled_step(grids, rules):
        return False
    if recurrent.dynamic is not None:
        return False
    assert isinstance(grids.hidden, Quantizer)
    same_range = recurrent.input.code_range == grids.hidden.code_range
    return same_range and bool(recurrent.input.scale == grids.hidden.scale)


def compiled_step(grids: StateGrids, rules: LstmRules) -> bool:
    """Whether the compiled step computes these grids: int8 hidden codes around zero, tables of power-of-two steps."""
    hidden, cell = grids.hidden, grids.cell
    if not isinstance(hidden, Quantizer) or not _plain(hidden) or storage(hidden) != np.int8:
        return False
    if isinstance(cell, Quantizer) and not _plain(cell):
        return False
    if isinstance(rules.sigmoid, Exact) or isinstance(rules.tanh, Exact):
        return False
    tables = (rules.sigmoid, rules.tanh)
    steps_fit = all(_plain(t.input) and math.frexp(float(t.input.scale))[0] == 0.5 for t in tables)
    return steps_fit and rules.sigmoid.input.ties == rules.tanh.input.ties


class CompiledStep:
    """The pointwise part of one step of an LSTM in one compiled call, for grids of `compiled_step`."""

    def __init__(self, grids: StateGrids, rules: LstmRules) -> None:
        from hwsim.execute.lstm_loop import lstm_step

        self._arguments, self._options = _pointwise(grids, rules)
        self._call = lstm_step(_cell_mode(grids.cell), not any(self._options))

    def __call__(self, sums_x: Sums, sums_h: Sums, c: Reals) -> tuple[Array, Reals]:
        """The next h int8 and c float64, (rows, H), from sums (rows, 4H) and `c`, which is not changed."""
        cell = np.array(c)
        h = np.empty(cell.shape, np.int8)
        self._call(*_flat(sums_x), *_flat(sums_h), *self._arguments, cell, h, self._options)
        return h, cell


def _layer(kind: Kind, recurrent: Recurrent, cell: Grid, rules: LstmRules) -> LstmLayer | GruLayer:
    """A reference layer whose gate sums of the input are given to its steps, and whose h is rounded by the caller."""
    pointwise = Pointwise(rules.sigmoid, rules.tanh, None, cell)
    if kind == Kind.GRU:
        return GruLayer(recurrent, recurrent, pointwise)
    return LstmLayer(recurrent, recurrent, pointwise, rules.gate_order)


def _forced_states(forced: tuple[Reals, Reals | None], last: int, states: tuple[Reals, ...]) -> tuple[Reals, ...]:
    h, c = forced
    if len(states) == 1:
        return (h[None, last],)
    return h[None, last], states[1] if c is None else c[None, last]


def _plain(quantizer: Quantizer) -> bool:
    """One float64 scale and a level at zero without an offset."""
    one_scale = quantizer.scale.size == 1 and not quantizer.zero_point.any()
    return one_scale and not quantizer.half_step and quantizer.precision == "float64"


def _run_compiled(
    sums_x: Sums, recurrent: AnyProjection, grids: StateGrids, rules: LstmRules, reverse: bool,
    first: tuple[Reals, ...] | None,
) -> tuple[Array, Reals]:  # fmt: skip
    from hwsim.execute.kernels.target import isa_of
    from hwsim.execute.lstm_loop import lstm_loop

    assert isinstance(recurrent, PackedProjection)
    packed = recurrent.packed
    assert packed is not None
    cells = recurrent.outputs // len(GATES)
    integers, scale, bias = _flat(sums_x)
    arguments, options = _pointwise(grids, rules)
    half_gates = isinstance(grids.gates, Halves)
    loop = lstm_loop(isa_of(None), packed.layout, _cell_mode(grids.cell), not any(options), half_gates)
    steps = integers.shape[0]
    h, c, start = np.empty((steps, 1, cells), np.int8), np.zeros((1, cells)), np.zeros((1, cells), np.int8)
    if first is not None:
        start, c = stored(grids.hidden, first[0]), np.array(first[1])
    loop(
        integers.reshape(steps, 1, -1), scale, bias, packed.data, packed.offsets, packed.table, recurrent.scale[0],
        recurrent.bias, *arguments, start, c, h, options, reverse,
    )  # fmt: skip
    return h[:, 0], c


def _pointwise(grids: StateGrids, rules: LstmRules) -> tuple[tuple[Any, ...], tuple[int, ...]]:
    """What the compiled loop and step take of tables, gate order and grids, and of rules."""
    from hwsim.execute.lstm_loop import FORMS, TIES

    hidden, cell = grids.hidden, grids.cell
    assert isinstance(hidden, Quantizer)
    assert isinstance(rules.sigmoid, Table)
    assert isinstance(rules.tanh, Table)
    stated = cell if isinstance(cell, Quantizer) else hidden
    sigmoid, tanh = _table_values(rules.sigmoid, rules.tanh)
    order = np.array([rules.gate_order.index(gate) for gate in GATES])
    arguments = (sigmoid, _index_grid(rules.sigmoid), tanh, _index_grid(rules.tanh), order, _code_grid(hidden),
                 _code_grid(stated))  # fmt: skip
    return arguments, (FORMS[hidden.form], TIES[hidden.ties], FORMS[stated.form], TIES[stated.ties],
                       TIES[rules.sigmoid.input.ties])  # fmt: skip


def _cell_mode(cell: Grid) -> int:
    from hwsim.execute.lstm_loop import CODES, HALVES, REALS

    return REALS if cell is None else HALVES if isinstance(cell, Halves) else CODES


def _flat(sums: Sums) -> tuple[Array, Reals, Reals]:
    """(M, N) int32 sums with one scale and bias per column, or the reals with scales of one."""
    if len(sums.integers) == 1 and sums.integers.dtype == np.int32 and sums.rows is None:
        return sums.integers[0], sums.scale[0], sums.bias
    values = sums.values()
    return values, np.ones(values.shape[1]), np.zeros(values.shape[1])


@lru_cache(maxsize=32)
def _values(table: Table) -> Reals:
    """A table's values, in single precision where that is exact: half the cache."""
    values = table.output.dequantize(table.codes)
    narrow = values.astype(np.float32)
    return narrow if np.array_equal(narrow, values) else values


def _table_values(*tables: Table) -> tuple[Reals, Reals]:
    sigmoid, tanh = map(_values, tables)
    if sigmoid.dtype != tanh.dtype:
        return sigmoid.astype(np.float64), tanh.astype(np.float64)
    return sigmoid, tanh


def _index_grid(table: Table) -> tuple[float, float, float]:
    low, high = table.input.code_range
    return 1 / float(table.input.scale), float(low), float(high)


def _code_grid(quantizer: Quantizer) -> tuple[float, ...]:
    scale, (low, high) = float(quantizer.scale), quantizer.code_range
    levels = float(high - low)
    return scale, 1 / scale, levels * scale * 0.5, float(low), float(high)
