"""Rounding against exact fractions, and the fixed-point products against their published C formulas."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.numerics.rounding import (
    TIES,
    doubling_high_multiply,
    integer_range,
    multiply_double,
    multiply_single,
    quantized_multiplier,
    round_real,
    rounding_divide,
    rounding_shift,
    saturate,
    wrap,
)

INT32 = st.integers(-(2**31), 2**31 - 1)


def exact(x: Fraction, ties: str) -> int:
    """The definition, in fractions."""
    if ties == "toward_zero":
        return math.trunc(x)
    low = math.floor(x)
    rest = x - low
    if rest != Fraction(1, 2):
        return low + (rest > Fraction(1, 2))
    return low + {"half_even": low % 2, "half_away": int(x > 0), "half_up": 1, "half_down": 0}[ties]


@given(st.integers(-(2**20), 2**20), st.integers(0, 12), st.sampled_from(TIES))
def test_reals_are_rounded_exactly(numerator: int, power: int, ties: str) -> None:
    x = Fraction(numerator, 2**power)
    assert round_real(float(x), ties) == exact(x, ties)


def test_half_up_is_the_formula_and_half_away_is_exact() -> None:
    below_half = np.nextafter(0.5, 0)
    assert round_real(below_half, "half_up") == 1
    assert round_real(below_half, "half_away") == 0
    large = 2.0**52 + 1
    assert round_real(large, "half_away") == large


def test_the_precision_is_kept() -> None:
    x = np.float32(0.49999997)
    assert round_real(x, "half_up").dtype == np.float32
    assert round_real(x, "half_up") == 1
    assert round_real(np.float64(x), "half_up") == 0


@given(st.integers(-(2**62) + 1, 2**62 - 1), st.integers(0, 62), st.sampled_from(TIES))
def test_shifts_are_rounded_exactly(x: int, shift: int, ties: str) -> None:
    assert rounding_shift(x, shift, ties) == exact(Fraction(x, 1 << shift), ties)


@given(st.integers(-(2**60), 2**60), st.integers(1, 2**31))
def test_division_is_rounded_exactly(x: int, divisor: int) -> None:
    assert rounding_divide(x, divisor) == exact(Fraction(x, divisor), "half_up")


def c_divide(a: int, b: int) -> int:
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def gemmlowp_high_multiply(a: int, b: int, bits: int) -> int:
    least = -(1 << (bits - 1))
    if a == b == least:
        return -least - 1
    nudge = 1 << (bits - 2) if a * b >= 0 else 1 - (1 << (bits - 2))
    return c_divide(a * b + nudge, 1 << (bits - 1))


def gemmlowp_divide_by_power(x: int, exponent: int) -> int:
    mask = (1 << exponent) - 1
    threshold = (mask >> 1) + (x < 0)
    return (x >> exponent) + ((x & mask) > threshold)


@given(INT32, INT32)
def test_high_multiply_32_is_gemmlowps(a: int, b: int) -> None:
    assert doubling_high_multiply(a, b) == gemmlowp_high_multiply(a, b, 32)


@given(st.integers(-32768, 32767), st.integers(-32768, 32767))
def test_high_multiply_16_is_gemmlowps(a: int, b: int) -> None:
    assert doubling_high_multiply(a, b, 16) == gemmlowp_high_multiply(a, b, 16)


@given(INT32, st.integers(2**30, 2**31 - 1), st.integers(-31, 0))
def test_double_rounding_is_gemmlowps(x: int, mantissa: int, exponent: int) -> None:
    high = gemmlowp_high_multiply(x, mantissa, 32)
    assert multiply_double(x, mantissa, exponent) == gemmlowp_divide_by_power(high, -exponent)


@given(INT32, st.integers(2**30, 2**31 - 1), st.integers(-31, 30))
def test_single_rounding_is_exact(x: int, mantissa: int, exponent: int) -> None:
    value = exact(Fraction(x * mantissa, 1 << (31 - exponent)), "half_up")
    assert multiply_single(x, mantissa, exponent) == max(-(2**31), min(2**31 - 1, value))


@given(st.floats(2.0**-31, 2.0**29))
def test_a_quantized_multiplier_is_within_half_a_unit(multiplier: float) -> None:
    mantissa, exponent = quantized_multiplier(multiplier)
    assert 2**30 <= mantissa < 2**31
    assert abs(Fraction(mantissa) * Fraction(2) ** (exponent - 31) / Fraction(multiplier) - 1) <= Fraction(1, 2**31)


def test_quantized_multipliers_at_the_ends() -> None:
    assert quantized_multiplier(0.0) == (0, 0)
    assert quantized_multiplier(2.0**-33) == (0, 0)
    assert quantized_multiplier(1 - 2.0**-40) == (2**30, 1)
    assert quantized_multiplier(2.0**31) == (2**31 - 1, 30)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -0.5])
def test_a_multiplier_must_be_finite(wrong: float) -> None:
    with pytest.raises(HwsimError, match="multiplier must be finite and not negative, got"):
        quantized_multiplier(wrong)


@given(st.integers(-(2**40), 2**40), st.integers(1, 40))
def test_wrap_and_saturate(x: int, bits: int) -> None:
    low, high = integer_range(bits)
    wrapped = int(wrap(x, bits))
    assert low <= wrapped <= high
    assert (wrapped - x) % (1 << bits) == 0
    assert saturate(x, bits) == max(low, min(high, x))
    assert saturate(x, bits, signed=False) == max(0, min((1 << bits) - 1, x))


def test_an_unknown_rule_names_the_nearest() -> None:
    with pytest.raises(HwsimError, match=r"ties must be one of half_even, .*, got half_evn; nearest: half_even"):
        round_real(0.5, "half_evn")
    with pytest.raises(HwsimError, match="ties must be one of"):
        rounding_shift(1, 1, "up")
