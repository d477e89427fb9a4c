"""Converters between digital and analog values, at the rows (DAC) and at the columns (ADC) of a tile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hwsim.errors import HwsimError
from hwsim.numerics.rounding import Reals

LEAST_BITS, MOST_BITS = 2, 24


@dataclass(frozen=True, slots=True)
class Converter:
    """A symmetric converter of 2^bits - 2 steps over -bound to bound; no bits: ideal, neither steps nor clipping.

    code = clip(round_half_even(x / step), -levels, levels), levels = 2^(bits - 1) - 1, step = bound / levels.
    Source: the standard MVM of Rasch et al., Nat. Commun. 14, 2023. Offsets and nonlinearity are not modelled.
    Raises HwsimError for bits outside 2 to 24 and a bound that is not positive.
    """

    bits: int | None
    bound: float = 1.0

    def __post_init__(self) -> None:
        if self.bits is not None and not LEAST_BITS <= self.bits <= MOST_BITS:
            raise HwsimError(f"bits of a converter must be {LEAST_BITS} to {MOST_BITS}, or none for an ideal one, got "
                             f"{self.bits}")  # fmt: skip
        if not (np.isfinite(self.bound) and self.bound > 0):
            raise HwsimError(f"bound of a converter must be above 0, got {self.bound:g}")

    @property
    def levels(self) -> int:
        """The greatest code; 0 of an ideal converter."""
        return 0 if self.bits is None else 2 ** (self.bits - 1) - 1

    def convert(self, x: ArrayLike) -> Reals:
        """Converted values, float64, of any shape: codes times the step."""
        values = np.asarray(x, np.float64)
        if self.bits is None:
            return values
        step = self.bound / self.levels
        codes: Reals = np.clip(np.rint(values / step), -self.levels, self.levels)
        return codes * step


IDEAL_DAC, IDEAL_ADC = Converter(None), Converter(None, 10.0)
