"""TensorFlow Lite's integer LSTM: 8-bit weights and activations, 16-bit gates and cell state.

Every step is in integers, so this is a second definition of an LSTM, beside `recurrent.LstmLayer`, for comparison
with that runtime to the last code. Source: TensorFlow Lite `lstm_eval.cc` and `portable_tensor_utils_impl.h`.
Not modelled: layer norm, peepholes, projection, clipping, coupled input and forget gates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from hwsim.errors import HwsimError
from hwsim.execute.semantics import PROFILES, Semantics, fixed_multiply
from hwsim.numerics.gemmlowp import sigmoid_q15, tanh_q15
from hwsim.numerics.quantizers import check_codes
from hwsim.numerics.rounding import Integers, Reals, rounding_shift, saturate

_INT8 = (-128, 127)


class Int8Tensor(NamedTuple):
    """The scale and zero point of an int8 tensor."""

    scale: float
    zero_point: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Lstm8x8x16:
    """The weights and scales of one layer, K inputs and H cells, in the gate order i, f, g, o.

    `wx` (4, K, H) and `wh` (4, H, H) int8 codes, symmetric, with scales `wx_scale` and `wh_scale` (4,);
    `bias` (4, H) int32 in steps of input.scale wx_scale. `input`, `hidden`: int8 activations.
    `cell_shift` n: the cell state is int16 with scale 2^-n, 9 to 15.
    """

    wx: Integers
    wh: Integers
    wx_scale: Reals
    wh_scale: Reals
    bias: Integers
    input: Int8Tensor
    hidden: Int8Tensor
    cell_shift: int = 11
    semantics: Semantics = PROFILES["tflite-lstm"]

    def __post_init__(self) -> None:
        check_codes(self.wx, (-127, 127), "wx")
        check_codes(self.wh, (-127, 127), "wh")
        cells = self.wh.shape[-1]
        shapes = (self.wx.shape[0], self.wx.shape[2], *self.wh.shape, *self.bias.shape)
        if shapes != (4, cells, 4, cells, cells, 4, cells):
            raise HwsimError(
                f"shapes must be wx (4, K, H), wh (4, H, H), bias (4, H), got {self.wx.shape}, {self.wh.shape}, "
                f"{self.bias.shape}"
            )
        if not 9 <= self.cell_shift <= 15:
            raise HwsimError(f"cell_shift must be 9 to 15, got {self.cell_shift}")

    def gate(self, index: int, x: Integers, h: Integers) -> Integers:
        """Q3.12 sums of one gate, int16 (rows, H): two requantizations, each saturated before the next is added."""
        from_input = (x - self.input.zero_point) @ self.wx[index] + self.bias[index]
        from_hidden = (h - self.hidden.zero_point) @ self.wh[index]
        scale_x = gate_multiplier(self.input.scale, self.wx_scale[index])
        scale_h = gate_multiplier(self.hidden.scale, self.wh_scale[index])
        return gate_codes(from_input, scale_x, from_hidden, scale_h, self.semantics)

    def step(self, x: Integers, h: Integers, c: Integers) -> tuple[Integers, Integers]:
        """Next hidden codes int8 and cell codes int16, (rows, H) each, see `next_states`."""
        i, f, g, o = (self.gate(index, x, h) for index in range(4))
        h, c, _ = next_states(i, f, g, o, c, self.cell_shift, self.hidden, self.semantics)
        return h, c

    def run(self, x: ArrayLike) -> tuple[Integers, Integers]:
        """Hidden codes (T, rows, H) and the last cell codes (rows, H), from int8 codes `x` (T, rows, K).

        The first hidden state is the zero point, the first cell state 0.
        """
        codes = check_codes(x, _INT8, "activation codes")
        if codes.ndim != 3 or codes.shape[-1] != self.wx.shape[1]:
            raise HwsimError(f"x must be (T, rows, {self.wx.shape[1]}), got {codes.shape}")
        shape = (codes.shape[1], self.wh.shape[-1])
        h, c = np.full(shape, self.hidden.zero_point, np.int64), np.zeros(shape, np.int64)
        outputs = np.zeros((len(codes), *shape), np.int64)
        for t, row in enumerate(codes):
            h, c = self.step(row, h, c)
            outputs[t] = h
        return outputs, c


def gate_multiplier(activation: float, weight: float) -> Reals:
    """sx sw 2^12, the product in float32, as the runtime prepares its multipliers."""
    return np.asarray(np.float32(activation) * np.float32(weight) * np.float32(2**12), np.float64)


def gate_codes(
    from_input: Integers, scale_x: Reals, from_hidden: Integers, scale_h: Reals, semantics: Semantics
) -> Integers:
    """Q3.12 codes of int32 sums (rows, H), bias included in the first: each is requantized and saturated."""
    first = saturate(fixed_multiply(from_input, scale_x, semantics), 16)
    return saturate(first + fixed_multiply(from_hidden, scale_h, semantics), 16)


def next_states(
    i: Integers, f: Integers, g: Integers, o: Integers, c: Integers, cell_shift: int, hidden: Int8Tensor,
    semantics: Semantics,
) -> tuple[Integers, Integers, Integers]:  # fmt: skip
    """Next hidden codes int8 and cell codes int16 from Q3.12 gates, and o tanh(c') in Q0.30, (rows, H) each.

    c' = sat16(round(f c / 2^15) + round(i g / 2^(30 - n))), h' = sat8(round(o tanh(c') 2^-30 / sh) + zh);
    rounds are half away, the last one is the fixed-point multiplication of the profile.
    """
    kept = rounding_shift(sigmoid_q15(f) * c, 15, "half_away")
    added = rounding_shift(sigmoid_q15(i) * tanh_q15(g), 30 - cell_shift, "half_away")
    c = saturate(kept + added, 16)
    product = sigmoid_q15(o) * tanh_q15(c, 15 - cell_shift)
    to_hidden = np.asarray(np.float32(2.0**-30 / hidden.scale), np.float64)
    return saturate(fixed_multiply(product, to_hidden, semantics) + hidden.zero_point, 8), c, product
