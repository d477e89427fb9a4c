"""gemmlowp's 16-bit fixed-point sigmoid and tanh, as TensorFlow Lite's integer LSTM uses them.

A raw int16 with i integer bits stands for raw / 2^(15 - i). Each function follows the fixed-point steps of
gemmlowp's `fixedpoint.h`: a product is a saturating rounding doubling high multiply, a shift rounds half away.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from hwsim.errors import HwsimError
from hwsim.numerics.quantizers import check_codes
from hwsim.numerics.rounding import Integers, doubling_high_multiply, integer_range, rounding_shift, saturate

_ONE = 32767
_RANGE = integer_range(16)
_EXP_STEPS = {-2: 1672461947, -1: 1302514674, 0: 790015084, 1: 290630308, 2: 39332535, 3: 720401, 4: 242}
"""exp(-2^e) in Q0.31, by e."""


def sigmoid_q15(codes: ArrayLike, integer_bits: int = 3) -> Integers:
    """Sigmoid of int16 codes with `integer_bits` integer bits, as Q0.15 codes."""
    return _sigmoid_table(_checked(integer_bits))[check_codes(codes, _RANGE) + 32768]


def tanh_q15(codes: ArrayLike, integer_bits: int = 3) -> Integers:
    """Tanh of int16 codes with `integer_bits` integer bits, as Q0.15 codes."""
    return _tanh_table(_checked(integer_bits))[check_codes(codes, _RANGE) + 32768]


def _checked(integer_bits: int) -> int:
    if not 0 <= integer_bits <= 6:
        raise HwsimError(f"integer_bits must be 0 to 6, got {integer_bits}")
    return integer_bits


@lru_cache(maxsize=8)
def _sigmoid_table(integer_bits: int) -> Integers:
    codes = np.arange(-32768, 32768)
    positive = _one_over_one_plus(_exp_on_negative(-np.abs(codes), integer_bits))
    return np.where(codes == 0, 1 << 14, np.where(codes > 0, positive, _ONE - positive))


@lru_cache(maxsize=8)
def _tanh_table(integer_bits: int) -> Integers:
    codes = np.arange(-32768, 32768)
    magnitude = _one_minus_over_one_plus(_exp_on_negative(-np.abs(codes), integer_bits + 1))
    return np.sign(codes) * magnitude


def _constant(q31: int) -> Integers:
    return rounding_shift(q31, 16, "half_away")


def _multiply(a: Integers, b: ArrayLike) -> Integers:
    return doubling_high_multiply(a, b, 16)


def _exp_on_negative(raw: Integers, integer_bits: int) -> Integers:
    """exp of raw <= 0: a polynomial on [-1/4, 0), then one product per set bit of the rest."""
    fraction_bits = 15 - integer_bits
    quarter = 1 << (fraction_bits - 2)
    modulo = (raw & (quarter - 1)) - quarter
    result = _exp_on_quarter(saturate(modulo << integer_bits, 16))
    rest = modulo - raw
    for exponent, step in _EXP_STEPS.items():
        if integer_bits > exponent:
            is_set = (rest >> (fraction_bits + exponent)) & 1 == 1
            result = np.where(is_set, _multiply(result, _constant(step)), result)
    if integer_bits > 5:
        result = np.where(raw < -(1 << (fraction_bits + 5)), 0, result)
    return np.where(raw == 0, _ONE, result)


def _exp_on_quarter(raw: Integers) -> Integers:
    """exp of a Q0.15 number in [-1/4, 0): Taylor's series of order 4 at -1/8."""
    x = raw + (1 << 12)
    x2 = _multiply(x, x)
    x3, x4 = _multiply(x2, x), _multiply(x2, x2)
    third = _constant(715827883)
    inner = _multiply(rounding_shift(x4, 2, "half_away") + x3, third) + x2
    series = x + rounding_shift(inner, 1, "half_away")
    constant = _constant(1895147668)
    return saturate(constant + _multiply(series, constant), 16)


def _reciprocal_of_half_sum(raw: Integers) -> Integers:
    """1 / ((1 + x) / 2) in Q2.13 by three Newton-Raphson steps, for a Q0.15 number x in [0, 1]."""
    half_sum = rounding_shift(raw + _ONE, 1, "half_away")
    estimate = _constant(1515870810) + _multiply(half_sum, _constant(-1010580540))
    for _ in range(3):
        error = (1 << 13) - _multiply(half_sum, estimate)
        estimate = estimate + saturate(_multiply(estimate, error) << 2, 16)
    return estimate


def _one_over_one_plus(raw: Integers) -> Integers:
    return saturate(_reciprocal_of_half_sum(raw) << 1, 16)


def _one_minus_over_one_plus(raw: Integers) -> Integers:
    return saturate((_reciprocal_of_half_sum(raw) - (1 << 13)) << 2, 16)
