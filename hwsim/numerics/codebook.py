"""Codebooks: b-bit codes that name 2^b int8 values of one scale, spaced by the mu-law.

Source: Zhen et al., SLT 2022, arXiv 2210.09188: codes are read from memory, expanded to int8 on chip, and multiplied
as int8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwsim.errors import HwsimError
from hwsim.numerics.formats import NumberFormat
from hwsim.numerics.quantizers import Quantizer, check_codes
from hwsim.numerics.rounding import Integers, Reals, round_real

UNIT = 128
"""Centroids are whole parts of 1 / 128 of the clip."""
Denominator = Literal["mu", "mu+1"]


@dataclass(frozen=True, slots=True, eq=False)
class Codebook:
    """value = table[code] scale; code is the nearest value, the upper of two that are equally near.

    `table`: int8, 2^bits of them, rising. `scale`: positive and finite, one for all.
    Raises HwsimError for another table or scale.
    """

    table: NDArray[np.int8]
    scale: Reals

    def __post_init__(self) -> None:
        given, scale = np.asarray(self.table), np.asarray(self.scale, np.float64)
        sizes = [1 << bits for bits in range(1, 9)]
        if given.ndim != 1 or given.size not in sizes:
            raise HwsimError(f"table must be 2^b codes with b 1 to 8, got shape {given.shape}")
        check_codes(given, (-UNIT, UNIT - 1), "table")
        if (np.diff(given.astype(np.int64)) <= 0).any():
            raise HwsimError(f"table must rise, got {given.tolist()}")
        if scale.ndim or not np.isfinite(scale) or scale <= 0:
            raise HwsimError(f"scale must be one positive number, got {scale}")
        table = given.astype(np.int8)
        table.setflags(write=False)
        object.__setattr__(self, "table", table)
        object.__setattr__(self, "scale", scale)

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return int(self.table.size).bit_length() - 1

    @property
    def code_range(self) -> tuple[int, int]:
        """Least and greatest code."""
        return 0, self.table.size - 1

    @property
    def number_format(self) -> NumberFormat:
        """How its codes are stored, with a table and a scale for each tensor."""
        return NumberFormat(f"codebook{self.bits}")

    @property
    def expanded(self) -> Quantizer:
        """The int8 grid on which the products are computed."""
        return Quantizer(self.scale, 8)

    def quantize(self, x: ArrayLike) -> Integers:
        """Codes of `x`, int64 of its shape. Raises HwsimError when x holds NaN or an infinity."""
        values = np.asarray(x, np.float64)
        if not np.isfinite(values).all():
            raise HwsimError("values to quantize must be finite, got NaN or an infinity")
        return np.searchsorted(self._halfway(), values / self.scale, side="right").astype(np.int64)

    def expand(self, codes: ArrayLike) -> NDArray[np.int8]:
        """The int8 codes of the grid `expanded`. Raises HwsimError for a code out of range."""
        expanded: NDArray[np.int8] = self.table[check_codes(codes, self.code_range)]
        return expanded

    def dequantize(self, codes: ArrayLike) -> Reals:
        """table[codes] scale, float64. Raises HwsimError for a code out of range."""
        values: Reals = self.expand(codes) * self.scale
        return values

    def fake_quantize(self, x: ArrayLike) -> Reals:
        """dequantize(quantize(x)), what a training graph evaluates."""
        return self.dequantize(self.quantize(x))

    def _halfway(self) -> Reals:
        wide = self.table.astype(np.float64)
        halfway: Reals = (wide[1:] + wide[:-1]) / 2
        return halfway


@dataclass(frozen=True, slots=True)
class MuLaw:
    """Codebooks by the mu-law, fitted to weights by least squares.

    Centroids: sgn(z) ((1 + mu)^|z| - 1) / mu of 2^bits points z from -1 to 1, in whole 128ths (ties to even), at most
    127. Symmetric but for that, so zero is not among them. Those that fall on one 128th are moved apart, outwards where
    there is room: 8 bits are all int8 values, whatever mu. `denominator`: the source prints 1 + mu, which keeps the
    outermost centroids inside. For each of `candidates` the scale is fitted, by turns with the codes, to the least
    squared error; the best mu is taken. The source re-fits mu to each matrix by least squares and does not print how:
    the search over candidates, and the scale beside it, are choices here.
    Raises HwsimError for other bits than 1 to 8, and for candidates that are none, not positive or not finite.
    Source: Zhen et al., SLT 2022, arXiv 2210.09188.
    """

    bits: int = 5
    candidates: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)
    denominator: Denominator = "mu"
    turns: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise HwsimError(f"bits of a codebook must be 1 to 8, got {self.bits}")
        if self.denominator not in ("mu", "mu+1"):
            raise HwsimError(f"denominator must be one of mu, mu+1, got {self.denominator}")
        if not self.candidates or not all(0 < mu < np.inf for mu in self.candidates):
            raise HwsimError(f"candidates must be at least one positive mu, got {self.candidates}")

    def table(self, mu: float) -> Integers:
        """Centroids in 128ths, int64 (2^bits,), rising. Raises HwsimError unless mu is positive and finite."""
        if not 0 < mu < np.inf:
            raise HwsimError(f"mu must be positive and finite, got {mu}")
        places = np.arange(1 << (self.bits - 1))
        z = np.linspace(-1.0, 1.0, 1 << self.bits)[-places.size :]
        by = mu if self.denominator == "mu" else mu + 1
        snapped = np.maximum(round_real(((1 + mu) ** z - 1) / by * UNIT).astype(np.int64), 1)
        apart = np.maximum.accumulate(snapped - places) + places
        room = places[::-1]
        return np.concatenate([-np.minimum(apart, UNIT - room)[::-1], np.minimum(apart, UNIT - 1 - room)])

    def calibrate(self, x: ArrayLike) -> Codebook:
        """The codebook of weights of any shape. Raises HwsimError for weights that are not finite or all zero."""
        weights = np.asarray(x, np.float64).reshape(-1)
        largest = float(np.abs(weights).max(initial=0.0))
        if not np.isfinite(largest) or largest == 0:
            raise HwsimError(f"weights of a codebook must be finite and not all zero, got up to {largest}")
        fits = [self._fit(weights, self.table(mu), largest / UNIT) for mu in self.candidates]
        return min(fits, key=lambda fit: fit[0])[1]

    def _fit(self, weights: Reals, table: Integers, scale: float) -> tuple[float, Codebook]:
        best = _scored(weights, table, scale)
        for _ in range(self.turns):
            chosen = table[best[1].quantize(weights)].astype(np.float64)
            refined = float(weights @ chosen / (chosen @ chosen)) if chosen.any() else 0.0
            if refined <= 0:
                break
            found = _scored(weights, table, refined)
            if found[0] >= best[0]:
                break
            best = found
        return best


def _scored(weights: Reals, table: Integers, scale: float) -> tuple[float, Codebook]:
    codebook = Codebook(table.astype(np.int8), np.asarray(scale))
    return float(np.square(weights - codebook.fake_quantize(weights)).sum()), codebook
