"""Symmetric tables {0, +-a, ..., +-a (2^(bits-1) - 1)}, their step a by least squares: ternary and binary too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hwsim.errors import HwsimError
from hwsim.numerics.quantizers import Precision, Quantizer
from hwsim.numerics.rounding import Reals

STARTS = 9
"""Steps from which the fit begins: the widest, and halves of it down to 2^-8."""
TURNS = 200


@dataclass(frozen=True, slots=True)
class LeastSquares:
    """One step a per tensor that minimises sum (w - a c)^2 over a and the codes c together.

    2 bits are ternary, {-a, 0, a}; 1 bit is +-a, a = mean|w|, exact. Otherwise by Lloyd's iteration: codes are the
    nearest, then a = sum w c / sum c^2, until a stays or 200 turns are over, from each of nine steps,
    max|w| / (2^(bits-1) - 1) and halves of it; the least error is taken. A turn never raises the error, and the end may
    be a local minimum.
    A tensor of zeros takes a = 1. `bits` 1 to 16. Source of the values: Xu et al., Interspeech 2022, arXiv 2206.11643
    (ternary and binary: arXiv 2112.11438); the fit is a choice here. Raises HwsimError for other bits.
    """

    bits: int = 4
    precision: Precision = "float64"

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            raise HwsimError(f"bits of a symmetric table must be 1 to 16, got {self.bits}")

    def calibrate(self, x: ArrayLike) -> Quantizer:
        """The quantizer of weights of any shape.

        Raises HwsimError for values that are not finite, for none, and for zeros alone at 1 bit, which has no zero.
        """
        values = np.abs(np.asarray(x, np.float64)).reshape(-1)
        if not values.size or not np.isfinite(values).all():
            raise HwsimError("values to calibrate must be finite and at least one")
        largest = float(values.max())
        if self.bits == 1:
            if largest == 0:
                raise HwsimError("weights of 1 bit must not all be zero: it has no zero")
            step = float((values / largest).mean()) * largest or largest
            return Quantizer(np.asarray(2 * step), 1, half_step=True, precision=self.precision)
        # Shares of the largest: their squares neither overflow nor vanish.
        step = largest * _fitted(np.sort(values / largest), 2 ** (self.bits - 1) - 1) if largest else 1.0
        return Quantizer(np.asarray(step or largest), self.bits, narrow=True, precision=self.precision)


def _fitted(values: Reals, levels: int) -> float:
    """The step of least error for rising values from 0 to 1."""
    sums = np.append(np.cumsum(values[::-1])[::-1], 0.0)
    fits = [_lloyd(values, sums, levels, 2.0**-start / levels) for start in range(STARTS)]
    return min(fits)[1]


def _lloyd(values: Reals, sums: Reals, levels: int, step: float) -> tuple[float, float]:
    """Error, less the sum of squares, and step; `sums` are those of each value and all above it."""
    codes = np.arange(1, levels + 1)
    for _ in range(TURNS):
        # A code grows by one at each bound: sum w c and sum c^2 need no code of a single weight.
        above = np.searchsorted(values, (codes - 0.5) * step)
        products = float(sums[above].sum())
        squares = float(((2 * codes - 1) * (values.size - above)).sum())
        refined = products / squares
        if refined == step:
            break
        step = refined
    return step * step * squares - 2 * step * products, step
