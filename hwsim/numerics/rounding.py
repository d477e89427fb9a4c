"""Rounding: of reals to integers, of integers by a shift, and fixed-point multiplication.

Integer functions take and return int64 arrays. They are exact for int32 values, and raise nothing: what does
not fit is said in each range. Sources: gemmlowp `fixedpoint.h` and TensorFlow Lite `common.h` for the rounding
doubling high multiply, the rounding divide and the quantized multiplier.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwsim.errors import HwsimError, nearest

Integers = NDArray[np.int64]
Reals = NDArray[np.floating[Any]]
Ties = Literal["half_even", "half_away", "half_up", "half_down", "toward_zero"]

TIES: tuple[str, ...] = get_args(Ties)
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


def round_real(x: ArrayLike, ties: Ties = "half_even") -> Reals:
    """Round to whole numbers, in the precision of `x` (float64 or float32, any shape).

    half_even: the nearest, ties to even. half_away: the nearest, ties away from zero. half_up: floor(x + 0.5),
    with the sum rounded in the precision of x, as training code writes it (so the largest float below 0.5 becomes
    1). half_down: ceil(x - 0.5). toward_zero: truncation. Raises HwsimError for an unknown name.
    """
    values = np.asarray(x)
    if not np.issubdtype(values.dtype, np.floating):
        values = values.astype(np.float64)
    half = values.dtype.type(0.5)
    rounded: Reals
    match ties:
        case "half_even":
            rounded = np.rint(values)
        case "half_away":
            whole = np.trunc(values)
            rounded = whole + np.copysign(np.abs(values - whole) >= half, values).astype(values.dtype)
        case "half_up":
            rounded = np.floor(values + half)
        case "half_down":
            rounded = np.ceil(values - half)
        case "toward_zero":
            rounded = np.trunc(values)
        case _:
            raise _unknown(ties)
    return rounded


def rounding_shift(x: ArrayLike, shift: ArrayLike, ties: Ties = "half_up") -> Integers:
    """x / 2^shift rounded to an integer; `x` int64 with |x| < 2^62, `shift` 0 to 62.

    half_up: floor(x / 2^shift + 1/2), the cheapest in hardware. half_away: TensorFlow Lite's
    RoundingDivideByPOT. toward_zero drops the fraction of |x|. No value is rounded twice.
    """
    value, amount = _int64(x), _int64(shift)
    low = value >> amount
    twice_rest = (value - (low << amount)) << 1
    one = np.int64(1) << amount
    match ties:
        case "half_up":
            up = twice_rest >= one
        case "half_down":
            up = twice_rest > one
        case "half_away":
            up = (twice_rest > one) | ((twice_rest == one) & (value >= 0))
        case "half_even":
            up = (twice_rest > one) | ((twice_rest == one) & (low % 2 == 1))
        case "toward_zero":
            up = (twice_rest > 0) & (value < 0)
        case _:
            raise _unknown(ties)
    return low + (up & (amount > 0))


def rounding_divide(x: ArrayLike, divisor: ArrayLike) -> Integers:
    """floor(x / divisor + 1/2) in integers; `x` int64 with |x| < 2^61, `divisor` positive."""
    value, by = _int64(x), _int64(divisor)
    return (2 * value + by) // (2 * by)


def saturate(x: ArrayLike, bits: int, signed: bool = True) -> Integers:
    """Clip to the range of a `bits`-bit integer, two's complement when `signed`."""
    low, high = integer_range(bits, signed)
    return np.clip(_int64(x), low, high)


def wrap(x: ArrayLike, bits: int) -> Integers:
    """The low `bits` bits of `x`, read as two's complement; `bits` 1 to 63."""
    half = np.int64(1) << np.int64(bits - 1)
    return ((_int64(x) + half) & ((half << 1) - 1)) - half if bits < 63 else _int64(x)


def integer_range(bits: int, signed: bool = True) -> tuple[int, int]:
    """Least and greatest `bits`-bit integer."""
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def doubling_high_multiply(a: ArrayLike, b: ArrayLike, bits: int = 32) -> Integers:
    """Saturating rounding doubling high multiply: floor((a b + 2^(bits-2)) / 2^(bits-1)), ties up.

    `a`, `b`: `bits`-bit integers, `bits` 16 or 32. The one product that does not fit, of twice the least
    integer, saturates. gemmlowp writes it with a signed nudge and a truncating division; the integers are equal.
    """
    product = _int64(a) * _int64(b)
    return np.minimum(rounding_shift(product, bits - 1, "half_up"), (1 << (bits - 1)) - 1)


def quantized_multiplier(multiplier: float) -> tuple[int, int]:
    """(mantissa, exponent) with multiplier ~ mantissa 2^(exponent - 31), 2^30 <= mantissa < 2^31.

    The mantissa is rounded half away; a multiplier below 2^-32 becomes (0, 0), and one of 2^30 or more saturates.
    Raises HwsimError unless it is finite and not negative. Source: TensorFlow Lite `QuantizeMultiplier`.
    """
    if not math.isfinite(multiplier) or multiplier < 0:
        raise HwsimError(f"multiplier must be finite and not negative, got {multiplier}")
    fraction, exponent = math.frexp(multiplier)
    mantissa = math.floor(fraction * 2**31 + 0.5)
    if mantissa == 2**31:
        mantissa, exponent = 2**30, exponent + 1
    if exponent < -31:
        return 0, 0
    return (2**31 - 1, 30) if exponent > 30 else (mantissa, exponent)


def multiply_single(x: ArrayLike, mantissa: ArrayLike, exponent: ArrayLike, ties: Ties = "half_up") -> Integers:
    """x mantissa 2^(exponent - 31), rounded once; `x` int32, `exponent` -31 to 30, clipped to int32."""
    return saturate(rounding_shift(_int64(x) * _int64(mantissa), 31 - _int64(exponent), ties), 32)


def multiply_double(x: ArrayLike, mantissa: ArrayLike, exponent: ArrayLike, ties: Ties = "half_away") -> Integers:
    """The same in two roundings: doubling high multiply, then a rounding shift right by -exponent.

    A positive exponent shifts `x` left first, saturating to int32. `ties` is the rule of the shift:
    half_away in TensorFlow Lite's reference and in gemmlowp, half_up in ruy.
    """
    power = _int64(exponent)
    left, right = np.maximum(power, 0), np.maximum(-power, 0)
    high = doubling_high_multiply(saturate(_int64(x) << left, 32), mantissa)
    return rounding_shift(high, right, ties)


def _int64(x: ArrayLike) -> Integers:
    return np.asarray(x, dtype=np.int64)


def _unknown(ties: str) -> HwsimError:
    return HwsimError(f"ties must be one of {', '.join(TIES)}, got {ties}{nearest(ties, TIES)}")
