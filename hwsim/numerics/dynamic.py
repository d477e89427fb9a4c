"""Grids that are found at run time: native QAT's quantizer of activations, a scale for each row or for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwsim.errors import HwsimError
from hwsim.numerics.quantizers import Quantizer, check_codes
from hwsim.numerics.rounding import Reals

Per = Literal["row", "tensor"]
PER: tuple[Per, ...] = ("row", "tensor")
LEAST_BITS, MOST_BITS = 2, 8
Int8 = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class DynamicGrid:
    """scale = single(max|x| / n), n = 2^(bits-1) - 1; code = floor(x / scale + 1/2), int8 within +-n.

    `per`: the maximum is that of each row (the last axis), such as a frame or a hypothesis, or of the whole tensor.
    The quotient is of float64 and is rounded to single precision, as hardware keeps a scale: so code times scale is
    exact in float64, and the codes of such values are these codes again. Where it is 0 in single precision, the scale
    is 1 and all codes are 0. Raises HwsimError for bits but 2 to 8, and for another `per`.
    Source: Ding et al., Interspeech 2022, arXiv 2203.15952; single precision is an assumption.
    """

    bits: int = 8
    per: Per = "row"

    def __post_init__(self) -> None:
        if not LEAST_BITS <= self.bits <= MOST_BITS:
            raise HwsimError(f"bits of a grid of run time must be {LEAST_BITS} to {MOST_BITS}, got {self.bits}")
        if self.per not in PER:
            raise HwsimError(f"per must be {' or '.join(PER)}, got {self.per}")

    @property
    def code_range(self) -> tuple[int, int]:
        """Least and greatest code."""
        return -self.levels, self.levels

    @property
    def levels(self) -> int:
        """n, the greatest code."""
        return (1 << (self.bits - 1)) - 1

    @property
    def unit(self) -> Quantizer:
        """The codes themselves as a fixed grid, of scale 1."""
        return Quantizer(np.asarray(1.0), self.bits, narrow=True, ties="half_up")

    def scales(self, x: ArrayLike) -> Reals:
        """Scales of `x` (..., D): (..., 1), or (1, ..., 1) of the whole tensor, float64 that are exact in single.

        Raises HwsimError for NaN, an infinity, and a scale beyond single precision.
        """
        values = np.asarray(x, np.float64)
        if not values.ndim or not values.size:
            raise HwsimError(f"values to quantize must be rows of at least one, got shape {values.shape}")
        axis = -1 if self.per == "row" else None
        # Two reductions, where an array of magnitudes would be written and read again. NaN comes through both.
        greatest = np.maximum(values.max(axis=axis, keepdims=True), -values.min(axis=axis, keepdims=True))
        return self.scales_of(greatest)

    def scales_of(self, greatest: Reals) -> Reals:
        """The scales of maxima of |x|, float64."""
        if not np.isfinite(greatest).all():
            raise HwsimError("values to quantize must be finite, got NaN or an infinity")
        with np.errstate(over="ignore", under="ignore"):
            scales = (greatest / self.levels).astype(np.float32).astype(np.float64)
        if np.isinf(scales).any():
            raise HwsimError(f"scales must fit single precision, got values up to {greatest.max():g}")
        return np.where(scales == 0, 1.0, scales)

    def quantize(self, x: ArrayLike) -> tuple[Int8, Reals]:
        """Codes of `x` (..., D), int8 of its shape, and their `scales`."""
        values, scales = np.asarray(x, np.float64), self.scales(x)
        codes = values / scales
        codes += 0.5
        np.floor(codes, out=codes)
        np.clip(codes, -self.levels, self.levels, out=codes)  # a scale that is subnormal in single is not exact
        return codes.astype(np.int8), scales

    def dequantize(self, codes: ArrayLike, scales: ArrayLike) -> Reals:
        """code times scale, float64. Raises HwsimError for a code out of range."""
        values: Reals = check_codes(codes, self.code_range).astype(np.float64) * np.asarray(scales, np.float64)
        return values

    def fake_quantize(self, x: ArrayLike) -> Reals:
        """dequantize(*quantize(x))."""
        codes, scales = self.quantize(x)
        values: Reals = codes * scales
        return values

    def quantizer(self, x: ArrayLike) -> Quantizer:
        """The fixed grid that `x` finds."""
        return Quantizer(self.scales(x), self.bits, narrow=True, ties="half_up")
