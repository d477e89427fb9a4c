"""Accumulators and profiles: the narrow sum against a loop, its bound, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.execute.reference.linear import integer_sums, linear
from hwsim.execute.semantics import (
    PROFILES,
    Semantics,
    accumulate,
    accumulator_bound,
    check_accumulator,
    requantize,
)
from hwsim.numerics.quantizers import Quantizer
from tests.execute.strategies import narrow_semantics


def quantizer(scale: float = 1.0, zero: int = 0, bits: int = 8) -> Quantizer:
    return Quantizer(np.asarray(scale), bits, np.asarray(zero))


def loop(a: list[int], w: list[int], semantics: Semantics) -> int:
    """One addition at a time, in Python integers."""

    def fit(value: int, bits: int) -> int:
        half = 1 << (bits - 1)
        return (value + half) % (2 * half) - half if semantics.overflow == "wrap" else max(-half, min(half - 1, value))

    chunk = semantics.accumulator_chunk or max(len(a), 1)
    total = 0
    for start in range(0, len(a), chunk):
        part = 0
        for x, y in zip(a[start : start + chunk], w[start : start + chunk], strict=True):
            part = fit(part + x * y, semantics.accumulator_bits)
        total = fit(total + part, 32)
    return total


@given(
    st.lists(st.tuples(st.integers(-(2**15), 2**15 - 1), st.integers(-(2**15), 2**15 - 1)), max_size=20),
    narrow_semantics(),
)
def test_accumulate_is_the_loop(pairs: list[tuple[int, int]], semantics: Semantics) -> None:
    a, w = [x for x, _ in pairs], [y for _, y in pairs]
    assert accumulate(np.array(a, int), np.array(w, int)[:, None], semantics)[0] == loop(a, w, semantics)


@pytest.mark.parametrize("name", PROFILES)
def test_all_least_codes(name: str) -> None:
    """K = 131,071 of -128 by -128 is the greatest sum that int32 holds."""
    codes = np.full((1, 131_071), -128)
    total = accumulate(codes, codes.T, PROFILES[name])
    if PROFILES[name].accumulator_bits >= 32:
        assert total == 128 * 128 * 131_071
    else:
        assert total == loop([-128] * 131_071, [-128] * 131_071, PROFILES[name])


def test_one_more_product_wraps() -> None:
    codes = np.full((1, 131_072), -128)
    assert accumulate(codes, codes.T, Semantics("plain")) == -(2**31)
    assert accumulate(codes, codes.T) == 2**31


def test_a_sum_beyond_the_mantissa_of_a_float_is_exact() -> None:
    """(2^29 - 1)^2 + 1 = 2^58 - 2^30 + 2."""
    assert accumulate([2**29 - 1, 1], [[2**29 - 1], [1]]) == 2**58 - 2**30 + 2
    assert accumulate([2**29 - 1, 1], [[2**29 - 1], [1]], Semantics("plain")) == 2 - 2**30


def test_the_bound_says_all_three_numbers() -> None:
    w = np.full((640, 8), 7)
    rapid = Semantics("x", accumulator_bits=16, overflow="saturate")
    bound = accumulator_bound(w, (-8, 7), (-7, 7), rapid)
    assert (bound.worst_case, bound.actual, bound.limit) == (35840, 35840, 32767)
    assert check_accumulator(w, (-8, 7), (-7, 7), PROFILES["rapid"]).actual == 64 * 56
    with pytest.raises(
        HwsimError,
        match=r"K = 640: sums must stay within 32767 of a 16-bit accumulator, got up to 35840 with these weights "
        r"\(worst case 35840\)",
    ):
        check_accumulator(w, (-8, 7), (-7, 7), rapid)
    w[::2] = 0
    assert check_accumulator(w, (-8, 7), (-7, 7), rapid).actual == 17920


@given(st.integers(1, 3), st.integers(0, 2**32), narrow_semantics())
def test_stacked_products_are_products_apart(stack: int, seed: int, semantics: Semantics) -> None:
    rng = np.random.default_rng(seed)
    a, w = rng.integers(-(2**15), 2**15, (stack, 4, 11)), rng.integers(-(2**15), 2**15, (stack, 11, 3))
    apart = [accumulate(x, y, semantics) for x, y in zip(a, w, strict=True)]
    np.testing.assert_array_equal(accumulate(a, w, semantics), apart)


@given(st.integers(1, 40), st.integers(-128, 127), st.integers(-128, 127), st.integers(0, 2**32))
def test_zero_points_are_subtracted_exactly(depth: int, zero_x: int, zero_w: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, w = rng.integers(-128, 128, (3, depth)), rng.integers(-128, 128, (depth, 5))
    sums = integer_sums(x, w, quantizer(1, zero_x), quantizer(1, zero_w))
    np.testing.assert_array_equal(sums[0], (x - zero_x) @ (w - zero_w))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ties": "up"}, "ties must be one of half_even, .*, got up"),
        ({"accumulator_bits": 20}, "accumulator_bits must be one of 16, 24, 32, 64, got 20"),
        ({"overflow": "trap"}, "overflow must be one of wrap, saturate, got trap"),
        ({"accumulator_chunk": -1}, "accumulator_chunk must be 0 or more, got -1"),
        ({"requantize": "float32"}, "bias must be integer with float32, got real"),
        ({"requantize": "fixed_single", "zero_point": "before"}, "zero_point must be after with fixed_single, got bef"),
    ],
)
def test_wrong_semantics_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(HwsimError, match=message):
        Semantics("x", **fields)


@pytest.mark.parametrize("multiplier", [0.0, -1.0, np.nan, np.inf])
def test_a_multiplier_must_be_positive_and_finite(multiplier: float) -> None:
    with pytest.raises(HwsimError, match="multiplier must be positive and finite"):
        requantize(1, multiplier)


def test_wrong_operands_are_refused() -> None:
    x, w = np.zeros((2, 4), int), np.zeros((4, 3), int)
    unit = quantizer()
    grouped = Quantizer(np.ones((2, 3)), 8, group_size=2)
    with pytest.raises(HwsimError, match=r"shapes must be \(\.\.\., K\) and \(K, N\), got \(2, 4\) and \(3, 4\)"):
        integer_sums(x, w.T, unit, unit)
    with pytest.raises(HwsimError, match="activation codes must be -8 to 7, got 9"):
        integer_sums(x + 9, w, quantizer(bits=4), unit)
    with pytest.raises(HwsimError, match="scales must be 1, 3 or 1 x 3, got"):
        linear(x, w, unit, Quantizer(np.ones(4), 8), unit)
    with pytest.raises(HwsimError, match="K must be a multiple of the scale group 3, got 4"):
        linear(x, w, unit, Quantizer(np.ones((2, 3)), 8, group_size=3), unit)
    with pytest.raises(HwsimError, match="weights with group scales must be run with a real bias, got profile onnx"):
        linear(x, w, unit, grouped, unit, semantics=PROFILES["onnx"])
    with pytest.raises(HwsimError, match="a product must have one input scale and no half_step codes"):
        integer_sums(x, w, Quantizer(np.ones(4), 8), unit)
    assert linear(x, w, unit, grouped, unit).shape == (2, 3)
