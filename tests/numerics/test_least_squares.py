"""Tables {0, +-a, ...}: their least squares against exact fits, their levels and sizes, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.numerics.calibration import MinMax
from hwsim.numerics.least_squares import LeastSquares


def squared_error(w: Any, quantizer: Any) -> float:
    return float(np.square(w - quantizer.fake_quantize(w)).sum())


def sample(seed: int, count: int = 300) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    return rng.choice([rng.normal(0, 0.1, count), rng.laplace(0, 0.1, count), rng.uniform(-1, 1, count)])


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 16])
def test_levels(bits: int) -> None:
    found = LeastSquares(bits).calibrate(sample(0))
    most = 2 ** (bits - 1) - 1
    assert found.code_range == (-most, most)
    assert np.array_equal(found.dequantize([-most, 0, 1, most]), np.array([-most, 0, 1, most]) * found.scale)


def test_one_bit_is_the_mean_magnitude() -> None:
    w = sample(1)
    found = LeastSquares(1).calibrate(w)
    assert found.code_range == (-1, 0)
    step = float(found.dequantize(0))
    assert step == pytest.approx(np.abs(w).mean(), rel=1e-14)
    assert np.array_equal(found.fake_quantize(w), np.where(w < 0, -step, step))


@given(st.integers(0, 2**32 - 1))
def test_ternary_is_the_exact_fit_but_for_a_hundredth(seed: int) -> None:
    """The k largest are +-their mean: the best k of all is the least error there is."""
    w = sample(seed)
    largest = np.sort(np.abs(w))[::-1]
    exact = np.square(w).sum() - (np.cumsum(largest) ** 2 / np.arange(1, w.size + 1)).max()
    assert exact - 1e-12 <= squared_error(w, LeastSquares(2).calibrate(w)) <= exact * 1.01 + 1e-12


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 3, 4, 8]))
def test_the_step_is_that_of_least_squares_for_its_codes(seed: int, bits: int) -> None:
    w = sample(seed)
    found = LeastSquares(bits).calibrate(w)
    codes = found.quantize(w)
    best = np.square(w - codes * ((w * codes).sum() / (codes * codes).sum())).sum()
    assert squared_error(w, found) <= 1.001 * best
    assert squared_error(w, found) <= squared_error(w, MinMax(bits).calibrate(w)) + 1e-12


@given(st.floats(1e-300, 1e300), st.integers(1, 8))
def test_the_fit_follows_the_magnitude(factor: float, bits: int) -> None:
    """Also where squares of weights would overflow or vanish."""
    w = sample(2, 50)
    first, second = (LeastSquares(bits).calibrate(each) for each in (w, w * factor))
    assert float(second.scale) == pytest.approx(float(first.scale) * factor, rel=1e-9)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_edges(bits: int) -> None:
    """Equal weights are exact, as are one weight and the least float; an outlier is a level of its own."""
    for w in (np.full(9, -0.3), np.array([0.7]), np.array([5e-324])):
        assert np.allclose(LeastSquares(bits).calibrate(w).fake_quantize(w), w, rtol=1e-12, atol=5e-324)
    if bits > 1:
        assert float(LeastSquares(bits).calibrate(np.zeros(4)).scale) == 1.0
        w = np.append(np.zeros(50), 1e6)
        assert np.allclose(LeastSquares(bits).calibrate(w).fake_quantize(w), w, rtol=1e-12)


def test_sizes() -> None:
    w = sample(3, 64).reshape(16, 4)
    for bits in (1, 2, 4, 8, 16):
        assert LeastSquares(bits).calibrate(w).number_format.stored_bits(w.shape).total == bits * 64 + 32


def test_what_is_refused() -> None:
    for bits in (0, 17):
        with pytest.raises(HwsimError, match=f"bits of a symmetric table must be 1 to 16, got {bits}"):
            LeastSquares(bits)
    for wrong in ([], [1.0, np.nan], [np.inf]):
        with pytest.raises(HwsimError, match="values to calibrate must be finite and at least one"):
            LeastSquares().calibrate(wrong)
    with pytest.raises(HwsimError, match="weights of 1 bit must not all be zero: it has no zero"):
        LeastSquares(1).calibrate([0.0])
