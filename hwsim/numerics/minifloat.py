"""Small floating-point formats, as the value of every code: FP8 (E4M3, E5M2) and FP4 (E2M1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from hwsim.errors import HwsimError
from hwsim.numerics.quantizers import check_codes
from hwsim.numerics.rounding import Integers, Reals

Specials = Literal["none", "nan", "ieee"]


@dataclass(frozen=True, slots=True)
class MiniFloat:
    """Sign, `exponent_bits`, `mantissa_bits`, subnormals, exponent bias `bias`.

    `specials`: `none`; `nan`, the code with all exponent and mantissa bits set; `ieee`, the greatest exponent
    holds infinities and NaN. At most 8 bits. Source: Micikevicius et al., arXiv 2209.05433; OCP MX v1.0 for FP4.
    """

    exponent_bits: int
    mantissa_bits: int
    bias: int
    specials: Specials = "none"

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return 1 + self.exponent_bits + self.mantissa_bits

    def values(self) -> Reals:
        """Value of every code, float64 (2^bits,)."""
        magnitude = np.arange(1 << (self.bits - 1))
        exponent, mantissa = magnitude >> self.mantissa_bits, magnitude & ((1 << self.mantissa_bits) - 1)
        fraction = mantissa / 2.0**self.mantissa_bits
        normal = (1 + fraction) * 2.0 ** (exponent - self.bias)
        value = np.where(exponent == 0, fraction * 2.0 ** (1 - self.bias), normal)
        if self.specials == "nan":
            value[-1] = np.nan
        elif self.specials == "ieee":
            top = exponent == (1 << self.exponent_bits) - 1
            value = np.where(top, np.where(mantissa == 0, np.inf, np.nan), value)
        return np.concatenate([value, -value])

    def decode(self, codes: ArrayLike) -> Reals:
        """Values of codes, any shape."""
        return self.values()[check_codes(codes, (0, (1 << self.bits) - 1))]

    def encode(self, x: ArrayLike) -> Integers:
        """Codes of the nearest values, ties to the even code, saturating at the greatest finite one.

        Raises HwsimError for NaN.
        """
        values = np.asarray(x, np.float64)
        if np.isnan(values).any():
            raise HwsimError("values to encode must not be NaN")
        positive = self.values()[: 1 << (self.bits - 1)]
        finite = positive[np.isfinite(positive)]
        middles = (finite[:-1] + finite[1:]) / 2
        magnitude = np.abs(values)
        below = np.searchsorted(middles, magnitude, side="left")
        tie = (below < middles.size) & (magnitude == middles[np.minimum(below, middles.size - 1)])
        codes = below + (tie & (below % 2 == 1))
        return np.asarray(codes + (np.signbit(values) << (self.bits - 1)), np.int64)


E4M3 = MiniFloat(4, 3, 7, "nan")
E5M2 = MiniFloat(5, 2, 15, "ieee")
E2M1 = MiniFloat(2, 1, 1)
