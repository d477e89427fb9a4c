"""Converters: their steps, their range, their ties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.execute.analog import Converter


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_steps(bits: int) -> None:
    """2^b - 2 steps lie between the 2^b - 1 values, the same on both sides of 0."""
    values = np.unique(Converter(bits, 10.0).convert(np.linspace(-12, 12, 100_001)))
    assert len(values) == 2**bits - 1
    np.testing.assert_allclose(np.diff(values), 20 / (2**bits - 2), rtol=1e-12)
    assert np.array_equal(values, -values[::-1])
    assert values[-1] == 10


def test_ties_go_to_even() -> None:
    assert np.array_equal(Converter(3, 3.0).convert([0.5, 1.5, 2.5, -0.5, 7.0]), [0, 2, 2, 0, 3])


@given(st.floats(-20, 20), st.integers(2, 16))
def test_what_was_converted_stays(x: float, bits: int) -> None:
    converter = Converter(bits, 4.0)
    once = converter.convert(x)
    assert converter.convert(once) == once
    assert abs(once - np.clip(x, -4, 4)) <= 0.5 * 4.0 / converter.levels * (1 + 1e-12)


def test_an_ideal_one_does_nothing() -> None:
    x = np.array([1e9, -3.3])
    assert np.array_equal(Converter(None).convert(x), x)


@pytest.mark.parametrize(
    ("bits", "bound", "message"),
    [
        (0, 1.0, "bits of a converter must be 2 to 24, or none for an ideal one, got 0"),
        (1, 1.0, "bits of a converter must be 2 to 24, or none for an ideal one, got 1"),
        (25, 1.0, "bits of a converter must be 2 to 24, or none for an ideal one, got 25"),
        (8, 0.0, "bound of a converter must be above 0, got 0"),
        (8, float("inf"), "bound of a converter must be above 0, got inf"),
    ],
)
def test_refusals(bits: int, bound: float, message: str) -> None:
    with pytest.raises(HwsimError) as error:
        Converter(bits, bound)
    assert str(error.value) == message
