"""An LSTM of a trace as LiteRT runs it in integers, by `reference.lstm_8x8_16`: the profile `tflite-lstm`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.execute.projection import AnyProjection, PackedProjection
from hwsim.execute.recurrence import GATES, Grid
from hwsim.execute.reference.linear import bias_codes
from hwsim.execute.reference.lstm_8x8_16 import Int8Tensor, gate_codes, gate_multiplier, next_states
from hwsim.execute.semantics import Semantics
from hwsim.numerics.quantizers import Quantizer
from hwsim.numerics.rounding import Integers, Reals, wrap

Array = npt.NDArray[Any]
PROFILE = "tflite-lstm"
INT8, INT16 = (-128, 127), (-32768, 32767)
CELL_SHIFTS = range(9, 16)


@dataclass(frozen=True, slots=True, eq=False)
class LitertLstm:
    """What lies between the integer sums of a layer and its states.

    `scale_x`, `scale_h`: multipliers of the gates' sums, (4,) in the order i, f, g, o. `bias` (4H,) int32, in steps of
    sx swx: LiteRT has one, which is that of the input and that of the hidden state together. `positions`: where i, f,
    g and o stand among the sums. `cell_shift`: the cell state is int16 with scale 2^-cell_shift.
    """

    scale_x: tuple[Reals, ...]
    scale_h: tuple[Reals, ...]
    bias: Integers
    positions: tuple[int, ...]
    hidden: Int8Tensor
    cell_shift: int
    recurrent: PackedProjection
    semantics: Semantics

    def step(self, sums_x: Array, sums_h: Array, c: Integers) -> tuple[Integers, Integers, Reals]:
        """Next h int8 and c int16, and the reals of h before rounding, (rows, H), from integer sums (rows, 4H)."""
        first = np.split(wrap(sums_x + self.bias, 32), 4, axis=-1)
        second = np.split(np.asarray(sums_h, np.int64), 4, axis=-1)
        i, f, g, o = (
            gate_codes(first[at], self.scale_x[gate], second[at], self.scale_h[gate], self.semantics)
            for gate, at in enumerate(self.positions)
        )
        h, c, product = next_states(i, f, g, o, np.asarray(c, np.int64), self.cell_shift, self.hidden, self.semantics)
        return h, c, product * 2.0**-30

    def run(
        self, sums_x: Array, forced: tuple[Array, Array | None] | None, reverse: bool
    ) -> tuple[Integers, Reals, Integers]:
        """Codes of h (T, H), their reals before rounding and the last c (1, H), from integer sums (T, 4H).

        `forced`: codes of h (T, H), and of c (T, H) or None, that every step reads in place of its own.
        """
        steps, cells = len(sums_x), sums_x.shape[-1] // 4
        h, c = np.full((1, cells), self.hidden.zero_point, np.int64), np.zeros((1, cells), np.int64)
        outputs, before = np.empty((steps, cells), np.int64), np.empty((steps, cells))
        order = range(steps)[:: -1 if reverse else 1]
        for count, t in enumerate(order):
            if forced is not None and count:
                last = order[count - 1]
                h = forced[0][None, last]
                c = c if forced[1] is None else forced[1][None, last].astype(np.int64)
            sums_h = self.recurrent.sums(h.astype(np.int8)).integers[0]
            h, c, real = self.step(sums_x[t][None], sums_h, c)
            outputs[t], before[t] = h[0], real[0]
        return outputs, before, c


def litert_lstm(
    layer: str, input: AnyProjection | None, recurrent: AnyProjection, hidden: Grid, cell: Grid, gate_order: str,
    semantics: Semantics,
) -> LitertLstm:  # fmt: skip
    """The LSTM of a layer with these projections and grids of h and c.

    Raises HwsimError unless x and h are int8, c int16 with a scale of 2^-9 to 2^-15, and each gate's weights are
    symmetric codes within 127 of one scale, naming what is not.
    """
    x = input.input if isinstance(input, PackedProjection) else None
    for name, grid in (("x", x), ("h", hidden)):
        if not isinstance(grid, Quantizer) or grid.code_range != INT8 or grid.scale.size != 1:
            raise _refusal(layer, f"{name} must be int8 with one scale, got {_told(grid)}")
    assert isinstance(input, PackedProjection)
    assert isinstance(hidden, Quantizer)
    if not isinstance(recurrent, PackedProjection) or recurrent.input.code_range != INT8:
        raise _refusal(layer, f"the recurrent weights must read h as int8 codes, got {_told(hidden)}")
    if (recurrent.input.scale != hidden.scale).any() or (recurrent.input.zero_point != hidden.zero_point).any():
        raise _refusal(layer, f"h must meet its weights on its own grid, got scales {float(hidden.scale)} and "
                              f"{float(recurrent.input.scale)}")  # fmt: skip
    mantissa, exponent = (
        math.frexp(float(cell.scale)) if isinstance(cell, Quantizer) and cell.scale.size == 1 else (0, 0)
    )
    shift = 1 - exponent
    if not isinstance(cell, Quantizer) or cell.code_range != INT16 or cell.zero_point.any() or (
        mantissa != 0.5 or shift not in CELL_SHIFTS
    ):  # fmt: skip
        raise _refusal(layer, f"c must be int16 with a scale of 2^-9 to 2^-15, got {_told(cell)}")
    order = tuple(gate_order.index(gate) for gate in GATES)
    scales_x, scales_h = _gate_scales(layer, "wx", input), _gate_scales(layer, "wh", recurrent)
    sx, sh = float(input.input.scale), float(hidden.scale)
    bias = bias_codes(input.bias + recurrent.bias, np.repeat(scales_x * sx, input.outputs // 4))
    return LitertLstm(
        tuple(gate_multiplier(sx, scales_x[at]) for at in order),
        tuple(gate_multiplier(sh, scales_h[at]) for at in order),
        bias, order, Int8Tensor(sh, int(hidden.zero_point)), shift, recurrent, semantics,
    )  # fmt: skip


def _gate_scales(layer: str, name: str, projection: PackedProjection) -> Reals:
    """The scale of each gate's weights, (4,)."""
    weights, codes = projection.weights, projection.codes_of_weight()
    if weights.zero_point.any() or weights.half_step or np.abs(codes.astype(np.int64)).max(initial=0) > 127:
        raise _refusal(layer, f"{name} must hold codes of -127 to 127 around a zero point of 0")
    if weights.group_size:
        raise _refusal(layer, f"{name} must have one scale for each gate, got groups of {weights.group_size}")
    scales = np.broadcast_to(weights.scale.reshape(-1), projection.outputs).reshape(4, -1).astype(np.float64)
    if (scales != scales[:, :1]).any():
        raise _refusal(layer, f"{name} must have one scale for each gate, got {len(np.unique(scales))} scales")
    return np.ascontiguousarray(scales[:, 0])


def _refusal(layer: str, rule: str) -> HwsimError:
    return HwsimError(f"{layer}, profile {PROFILE}: {rule}")


def _told(grid: Grid) -> str:
    if not isinstance(grid, Quantizer):
        return "reals" if grid is None else "halves"
    low, high = grid.code_range
    scale = f"scale {float(grid.scale)}" if grid.scale.size == 1 else f"{grid.scale.size} scales"
    return f"{low} to {high} with {scale}"
