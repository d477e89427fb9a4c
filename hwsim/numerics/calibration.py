"""Calibration: the quantizer that a published recipe gives for a tensor or for fixed bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from hwsim.errors import HwsimError
from hwsim.numerics.quantizers import Form, Precision, Quantizer
from hwsim.numerics.rounding import Reals, integer_range, round_real

SAWB_COEFFICIENTS: dict[tuple[int, bool], tuple[float, float]] = {
    (2, False): (3.12, 2.064),
    (4, False): (12.68, 12.80),
    (4, True): (12.035, 12.03),
    (8, True): (31.76, 35.04),
}
"""(c1, c2) by bits and whether zero is a level. Source: Fasoli et al., arXiv 2108.12074."""


Reduction = Callable[..., Any]


class Calibration(Protocol):
    """A recipe for a quantizer."""

    def calibrate(self, x: ArrayLike) -> Quantizer:
        """The quantizer of `x`."""
        ...


@dataclass(frozen=True, slots=True)
class Sawb:
    """Statistics-aware weight binning: alpha = c1 sqrt(E[w^2]) - c2 E|w|, symmetric, one scale per tensor.

    `zero_aligned`: 2^bits - 1 levels with a zero, otherwise 2^bits levels around zero (`half_step`). The scale is
    2 alpha / (levels - 1). `unit` rounds as the published code does, n (w / (2 alpha) + 1/2), with its ties.
    Coefficients exist for 2 bits (4 levels), 4 bits (15 or 16) and 8 bits (255). Source: arXiv 2108.12074.
    """

    bits: int = 4
    zero_aligned: bool = True
    unit: bool = True
    precision: Precision = "float64"

    def __post_init__(self) -> None:
        if (self.bits, self.zero_aligned) not in SAWB_COEFFICIENTS:
            known = ", ".join(f"{bits} bits zero_aligned={zero}" for bits, zero in SAWB_COEFFICIENTS)
            raise HwsimError(f"SAWB must be one of {known}, got {self.bits} bits zero_aligned={self.zero_aligned}")

    def clip(self, w: ArrayLike) -> float:
        """alpha of a tensor, in float64. Raises HwsimError when it is not positive."""
        weights = _finite(w)
        c1, c2 = SAWB_COEFFICIENTS[self.bits, self.zero_aligned]
        alpha = float(c1 * np.sqrt(np.mean(weights**2)) - c2 * np.mean(np.abs(weights)))
        if alpha <= 0:
            raise HwsimError(f"SAWB clip must be positive, got {alpha}: the weights are all of one magnitude or zero")
        return alpha

    def calibrate(self, x: ArrayLike) -> Quantizer:
        """The quantizer of weights of any shape."""
        return _symmetric(self.clip(x), self.bits, self.zero_aligned, self.unit, self.precision)


@dataclass(frozen=True, slots=True)
class BoundAware:
    """Bound-aware clipping: scale = 2 bound / (2^bits - 2), symmetric, for a bound that the network guarantees.

    `bound`: 1 for an LSTM's hidden state, 1 / (1 - dropout) for what comes out of dropout. Nothing is measured.
    Raises HwsimError for fewer than 2 bits. Source: Fasoli et al., arXiv 2108.12074.
    """

    bound: float = 1.0
    bits: int = 4
    unit: bool = False
    precision: Precision = "float64"

    def __post_init__(self) -> None:
        _check_bits("bound-aware clipping", self.bits, 2)

    def calibrate(self, x: ArrayLike = ()) -> Quantizer:
        """The quantizer of the bound, whatever `x` is."""
        return _symmetric(self.bound, self.bits, True, self.unit, self.precision)


@dataclass(frozen=True, slots=True)
class Pact:
    """Learned bounds: 2^bits levels from `lower` to `upper`, zero moved onto the nearest level.

    scale = (upper - lower) / (2^bits - 1), zero point = round(-lower / scale) over unsigned codes.
    Raises HwsimError unless lower <= 0 < upper. Source: Choi et al., arXiv 1805.06085.
    """

    lower: float
    upper: float
    bits: int = 4
    precision: Precision = "float64"

    def __post_init__(self) -> None:
        _check_bits("PACT", self.bits, 1)

    def calibrate(self, x: ArrayLike = ()) -> Quantizer:
        """The quantizer of the bounds, whatever `x` is."""
        if not self.lower <= 0 < self.upper:
            raise HwsimError(f"bounds must be lower <= 0 < upper, got {self.lower} and {self.upper}")
        return _affine(np.asarray(self.lower), np.asarray(self.upper), self.bits, False, self.precision)


@dataclass(frozen=True, slots=True)
class MinMax:
    """The range that was seen, stretched to hold zero.

    symmetric: scale = max|x| / (2^(bits-1) - 1), no zero point, narrow range. Otherwise scale =
    (max - min) / (2^bits - 1) with a zero point. `axis`: the axis that keeps its own scales, None for one scale.
    `group_size`: g rows of the first axis share a scale, one for each of the other axes' places (sub-channels).
    A slice of zeros takes scale 1. Computed in `precision`, so unsigned float32 without symmetry is ONNX's
    DynamicQuantizeLinear. Raises HwsimError for 1 bit with symmetry, which has no level but zero, and for an axis
    with groups. Source of 2 bits with a zero point and sub-channels: Ding et al., ICASSP 2024, arXiv 2312.08553.
    """

    bits: int = 8
    symmetric: bool = True
    signed: bool = True
    axis: int | None = None
    precision: Precision = "float64"
    group_size: int = 0

    def __post_init__(self) -> None:
        _check_bits("symmetric min-max" if self.symmetric else "min-max", self.bits, 2 if self.symmetric else 1)
        if self.group_size < 0 or (self.group_size and self.axis is not None):
            raise HwsimError(f"group_size must be 0 with an axis and never negative, got {self.group_size}")

    def calibrate(self, x: ArrayLike) -> Quantizer:
        """The quantizer of `x`; scales keep the axes of x, of length 1 except `axis`, or K/g of the first with groups.

        Raises HwsimError for values that are not finite, and for a first axis that groups do not divide.
        """
        values = _finite(x, self.precision)
        if self.symmetric:
            scale = _nonzero(self._reduce(np.abs(values), np.max) / integer_range(self.bits)[1])
            return Quantizer(scale, self.bits, narrow=True, precision=self.precision, group_size=self.group_size)
        low = np.minimum(self._reduce(values, np.min), 0)
        high = np.maximum(self._reduce(values, np.max), 0)
        found = _affine(low, high, self.bits, self.signed, self.precision)
        return replace(found, group_size=self.group_size)

    def _reduce(self, values: Reals, function: Reduction) -> Reals:
        if not self.group_size:
            return _reduce(values, self.axis, function)
        rows = len(values) if values.ndim else 1
        if rows % self.group_size:
            raise HwsimError(f"the first axis must be a multiple of group_size {self.group_size}, got {rows}")
        grouped = values.reshape(rows // self.group_size, self.group_size, *values.shape[1:])
        return np.asarray(function(grouped, axis=1))


@dataclass(frozen=True, slots=True)
class NativeQat:
    """Native quantization-aware training: scale = max|x| / (2^(bits-1) - 1), code = floor(x / scale + 1/2).

    `axis`: the output channel of weights, None for one scale; int4 is +-7, int8 +-127. A slice of zeros takes
    scale 1. The source has no clamp: none acts here either, but where the scale itself is subnormal and inexact.
    Raises HwsimError for fewer than 2 bits. Source: Ding et al., Interspeech 2022, arXiv 2203.15952.
    """

    bits: int = 4
    axis: int | None = None
    precision: Precision = "float64"

    def __post_init__(self) -> None:
        _check_bits("native QAT", self.bits, 2)

    def calibrate(self, x: ArrayLike) -> Quantizer:
        """The quantizer of `x`; scales keep the axes of x, of length 1 except `axis`."""
        scale = _nonzero(_reduce(np.abs(_finite(x)), self.axis, np.max) / integer_range(self.bits)[1])
        return Quantizer(scale, self.bits, narrow=True, ties="half_up", precision=self.precision)


def _check_bits(name: str, bits: int, least: int, most: int = 32) -> None:
    if not least <= bits <= most:
        raise HwsimError(f"bits of {name} must be {least} to {most}, got {bits}")


def _symmetric(bound: float, bits: int, zero: bool, unit: bool, precision: Precision) -> Quantizer:
    steps = 2**bits - (2 if zero else 1)
    scale = np.asarray(2 * bound / steps)
    form: Form = "unit" if unit else "divide"
    return Quantizer(scale, bits, narrow=zero, half_step=not zero, form=form, precision=precision)


def _affine(low: Reals, high: Reals, bits: int, signed: bool, precision: Precision) -> Quantizer:
    scale = _nonzero((high - low) / (2**bits - 1))
    least, greatest = integer_range(bits, signed)
    zero_point = np.clip(least + round_real(-low / scale), least, greatest).astype(np.int64)
    return Quantizer(scale, bits, zero_point, signed, precision=precision)


def _reduce(x: Reals, axis: int | None, function: Reduction) -> Reals:
    axes = tuple(a for a in range(x.ndim) if axis is None or a != axis % x.ndim)
    return np.asarray(function(x, axis=axes, keepdims=axis is not None))


def _nonzero(scale: Reals) -> Reals:
    return np.where(scale == 0, scale.dtype.type(1), scale)


def _finite(x: ArrayLike, precision: Precision = "float64") -> Reals:
    values: Reals = np.asarray(x, precision)
    if not values.size or not np.isfinite(values).all():
        raise HwsimError("values to calibrate must be finite and at least one")
    return values
