"""One direction of a recurrent LSTM layer: the compiled loop where it covers the grids, else the reference."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.execute.projection import AnyProjection, PackedProjection, Sums, storage
from hwsim.execute.reference.recurrent import LstmLayer, Pointwise
from hwsim.numerics.quantizers import Quantizer
from hwsim.numerics.rounding import Reals
from hwsim.numerics.tables import Table, fixed_table

Array = npt.NDArray[Any]
GATES = "ifgo"


@dataclass(frozen=True, slots=True, eq=False)
class LstmRules:
    """What lies between gate sums and states: shared tables, and the order of the gates (i, f, g, o in PyTorch)."""

    sigmoid: Table = field(default_factory=lambda: fixed_table("sigmoid"))
    tanh: Table = field(default_factory=lambda: fixed_table("tanh"))
    gate_order: str = GATES

    def __post_init__(self) -> None:
        if sorted(self.gate_order) != sorted(GATES):
            raise HwsimError(f"gate_order must hold i, f, g and o once each, got {self.gate_order}")


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """Recurrent gate sums that are already known, for teacher forcing."""

    outputs: int
    recurrent: AnyProjection

    def __call__(self, x: Reals) -> Reals:
        """Gate sums (..., 4H) of reals (..., H)."""
        return self.recurrent(x)


def run_direction(
    sums_x: Sums, recurrent: AnyProjection, hidden: Quantizer | None, cell: Quantizer | None,
    rules: LstmRules, forced: tuple[Reals, Reals | None] | None = None, reverse: bool = False,
) -> tuple[Array, Reals | None, Reals]:  # fmt: skip
    """h (T, H), codes on the grid of `hidden` or float64 reals; its reals before rounding; the last c (1, H) float64.

    `forced`: the reals of h (T, H), and of c (T, H) or None, that every step reads in place of its own. The compiled
    loop, which runs when nothing is forced, gives no reals.
    """
    if forced is None and compiled(recurrent, hidden, cell, rules):
        assert isinstance(recurrent, PackedProjection)
        assert hidden is not None
        h, c = _run_compiled(sums_x, recurrent, hidden, cell, rules, reverse)
        return h, None, c
    return _run_reference(sums_x, recurrent, hidden, cell, rules, reverse, forced)


def compiled(recurrent: AnyProjection, hidden: Quantizer | None, cell: Quantizer | None, rules: LstmRules) -> bool:
    """Whether the compiled loop computes this layer: packed weights without groups, int8 hidden codes around zero."""
    if not isinstance(recurrent, PackedProjection) or recurrent.packed is None or recurrent.packed.groups > 1:
        return False
    if hidden is None or not _plain(hidden) or storage(hidden) != np.int8:
        return False
    if cell is not None and not _plain(cell):
        return False
    tables = (rules.sigmoid, rules.tanh)
    steps_fit = all(_plain(t.input) and math.frexp(float(t.input.scale))[0] == 0.5 for t in tables)
    same_grid = recurrent.input.code_range == hidden.code_range and recurrent.input.scale == hidden.scale
    return steps_fit and rules.sigmoid.input.ties == rules.tanh.input.ties and bool(same_grid)


def _plain(quantizer: Quantizer) -> bool:
    """One float64 scale and a level at zero without an offset."""
    one_scale = quantizer.scale.size == 1 and not quantizer.zero_point.any()
    return one_scale and not quantizer.half_step and quantizer.precision == "float64"


def _run_compiled(
    sums_x: Sums, recurrent: PackedProjection, hidden: Quantizer, cell: Quantizer | None, rules: LstmRules,
    reverse: bool,
) -> tuple[Array, Reals]:  # fmt: skip
    from hwsim.execute.kernels.target import isa_of
    from hwsim.execute.lstm_loop import FORMS, TIES, lstm_loop

    packed = recurrent.packed
    assert packed is not None
    cells = recurrent.outputs // len(GATES)
    integers, scale, bias = _flat(sums_x)
    sigmoid, tanh = _table_values(rules)
    stated = cell or hidden
    options = (FORMS[hidden.form], TIES[hidden.ties], FORMS[stated.form], TIES[stated.ties],
               TIES[rules.sigmoid.input.ties])  # fmt: skip
    loop = lstm_loop(isa_of(None), packed.layout, cell is not None, not any(options))
    steps = integers.shape[0]
    h, c = np.empty((steps, 1, cells), np.int8), np.zeros((1, cells))
    order = np.array([rules.gate_order.index(gate) for gate in GATES])
    loop(
        integers.reshape(steps, 1, -1), scale, bias, packed.data, packed.offsets, packed.table, recurrent.scale[0],
        recurrent.bias, sigmoid, _index_grid(rules.sigmoid), tanh, _index_grid(rules.tanh), order,
        _code_grid(hidden), _code_grid(stated), c, h, options, reverse,
    )  # fmt: skip
    return h[:, 0], c


def _run_reference(
    sums_x: Sums, recurrent: AnyProjection, hidden: Quantizer | None, cell: Quantizer | None, rules: LstmRules,
    reverse: bool, forced: tuple[Reals, Reals | None] | None,
) -> tuple[Array, Reals, Reals]:  # fmt: skip
    pointwise = Pointwise(rules.sigmoid, rules.tanh, None, cell)
    layer = LstmLayer(Given(recurrent.outputs, recurrent), recurrent, pointwise, rules.gate_order)
    sums = sums_x.values()
    h, c = layer.states(1)
    before, after = np.empty((len(sums), layer.cells)), np.empty((len(sums), layer.cells))
    order = range(len(sums))[:: -1 if reverse else 1]
    for count, t in enumerate(order):
        if forced is not None and count:
            last = order[count - 1]
            h = forced[0][None, last]
            c = c if forced[1] is None else forced[1][None, last]
        real, c = layer.step(sums[t][None], (h, c))
        h = real if hidden is None else hidden.fake_quantize(real)
        before[t], after[t] = real[0], h[0]
    return (after if hidden is None else hidden.quantize(after).astype(storage(hidden))), before, c


def _flat(sums: Sums) -> tuple[Array, Reals, Reals]:
    """(M, N) int32 sums with one scale and bias per column, or the reals with scales of one."""
    if len(sums.integers) == 1 and sums.integers.dtype == np.int32:
        return sums.integers[0], sums.scale[0], sums.bias
    values = sums.values()
    return values, np.ones(values.shape[1]), np.zeros(values.shape[1])


@lru_cache(maxsize=32)
def _values(table: Table) -> Reals:
    """A table's values, in single precision where that is exact: half the cache."""
    values = table.output.dequantize(table.codes)
    narrow = values.astype(np.float32)
    return narrow if np.array_equal(narrow, values) else values


def _table_values(rules: LstmRules) -> tuple[Reals, Reals]:
    sigmoid, tanh = _values(rules.sigmoid), _values(rules.tanh)
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
