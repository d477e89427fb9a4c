"""Codebooks: published centroids, exact codes and ties, fits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.numerics.codebook import Codebook, MuLaw


def codebook(scale: float = 0.5) -> Codebook:
    return Codebook(np.array([-5, -1, 1, 7], np.int8), np.asarray(scale))


def test_the_centroids_of_the_source() -> None:
    """Derived from the formula of arXiv 2210.09188 for 4 bits and mu = 8, with each denominator."""
    by_mu = [3, 9, 17, 29, 44, 64, 91]
    assert MuLaw(4).table(8).tolist() == [-128, *(-c for c in by_mu[::-1]), *by_mu, 127]
    inside = [2, 8, 15, 25, 39, 57, 81, 114]
    assert MuLaw(4, denominator="mu+1").table(8).tolist() == [*(-c for c in inside[::-1]), *inside]


@pytest.mark.parametrize("denominator", ["mu", "mu+1"])
@pytest.mark.parametrize("bits", range(1, 9))
@given(mu=st.floats(1e-3, 1e4))
def test_every_table_rises_within_int8(bits: int, denominator: Any, mu: float) -> None:
    """Centroids that would be one are a 128th apart, and mirrored but for the last, -128 and 127."""
    table = MuLaw(bits, denominator=denominator).table(mu)
    assert table.size == 1 << bits
    assert table.min() >= -128
    assert table.max() <= 127
    assert (np.diff(table) > 0).all()
    if bits < 8:
        assert np.array_equal(table[1:-1], -table[1:-1][::-1])


def test_eight_bits_are_int8() -> None:
    assert MuLaw(8).table(8.0).tolist() == list(range(-128, 128))
    assert MuLaw(1).table(8.0).tolist() == [-128, 127]


@pytest.mark.parametrize("bits", range(1, 9))
def test_more_bits_store_more_and_err_less(bits: int) -> None:
    """The size is that of the format: codes, a table of int8, one scale."""
    weights = np.random.default_rng(1).laplace(0, 0.1, (64, 32))
    fitted = MuLaw(bits).calibrate(weights)
    assert fitted.number_format.stored_bits(weights.shape).total == bits * 64 * 32 + 8 * 2**bits + 32
    if bits > 1:
        error, wider = (np.square(weights - each.fake_quantize(weights)).sum()
                        for each in (fitted, MuLaw(bits - 1).calibrate(weights)))  # fmt: skip
        assert error < wider


def test_codes_and_ties() -> None:
    """Halfway, at -3, 0 and 4 steps, the upper centroid is taken."""
    x = 0.5 * np.array([-90.0, -3.001, -3, -2, -0.001, 0, 1, 3.999, 4, 90])
    assert codebook().quantize(x).tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3]
    assert codebook().expand([0, 1, 2, 3]).tolist() == [-5, -1, 1, 7]
    assert codebook().dequantize([[0, 3]]).tolist() == [[-2.5, 3.5]]
    assert codebook().fake_quantize([0.4, -9]).tolist() == [0.5, -2.5]
    assert (codebook().bits, codebook().code_range) == (2, (0, 3))


@given(st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_the_nearest_centroid_is_taken_and_its_codes_are_int8(bits: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = np.sort(rng.choice(np.arange(-128, 128), 1 << bits, replace=False)).astype(np.int8)
    found, x = Codebook(table, np.asarray(0.37)), rng.normal(0, 40, 50)
    distances = np.abs(x[:, None] - found.dequantize(np.arange(1 << bits)))
    assert np.array_equal(np.abs(x - found.fake_quantize(x)), distances.min(axis=1))
    codes = found.quantize(x)
    assert np.array_equal(found.expanded.dequantize(found.expand(codes)), found.dequantize(codes))


@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 4, 5]))
def test_a_fit_is_no_worse_than_any_mu_at_full_scale(seed: int, bits: int) -> None:
    weights = np.random.default_rng(seed).laplace(0, 0.1, 400)
    recipe = MuLaw(bits)
    fitted = recipe.calibrate(weights)
    error = np.square(weights - fitted.fake_quantize(weights)).sum()
    for mu in recipe.candidates:
        whole = Codebook(recipe.table(mu).astype(np.int8), np.asarray(np.abs(weights).max() / 128))
        assert error <= np.square(weights - whole.fake_quantize(weights)).sum() + 1e-15


def test_values_of_a_codebook_are_fitted_exactly() -> None:
    table = MuLaw(4).table(4.0)
    weights = np.repeat(table, 3) * 0.01
    fitted = MuLaw(4).calibrate(weights)
    assert np.array_equal(fitted.table, table)
    assert fitted.scale == pytest.approx(0.01, rel=1e-12)


@pytest.mark.parametrize(
    ("table", "scale", "message"),
    [
        ([1, 2, 3], 1.0, r"table must be 2\^b codes with b 1 to 8, got shape \(3,\)"),
        ([1, 1], 1.0, r"table must rise, got \[1, 1\]"),
        ([1, 128], 1.0, "table must be -128 to 127, got 128"),
        ([0.5, 1.0], 1.0, "table must be integers, got float64"),
        ([0, 1], 0.0, "scale must be one positive number, got 0.0"),
        ([0, 1], [1.0, 2.0], r"scale must be one positive number, got \[1. 2.\]"),
    ],
)
def test_wrong_codebooks(table: list[float], scale: float, message: str) -> None:
    with pytest.raises(HwsimError, match=message):
        Codebook(np.array(table), np.asarray(scale))


def test_wrong_values_and_fits() -> None:
    with pytest.raises(HwsimError, match="values to quantize must be finite, got NaN or an infinity"):
        codebook().quantize([0.0, np.nan])
    with pytest.raises(HwsimError, match="codes must be 0 to 3, got 4"):
        codebook().expand([4])
    with pytest.raises(HwsimError, match=r"weights of a codebook must be finite and not all zero, got up to 0\.0"):
        MuLaw().calibrate(np.zeros(4))
    with pytest.raises(HwsimError, match="mu must be positive and finite, got 0"):
        MuLaw().table(0)
    with pytest.raises(HwsimError, match=r"candidates must be at least one positive mu, got \(8.0, 0.0\)"):
        MuLaw(5, (8.0, 0.0))
    with pytest.raises(HwsimError, match=r"candidates must be at least one positive mu, got \(\)"):
        MuLaw(5, ())
    with pytest.raises(HwsimError, match=r"denominator must be one of mu, mu\+1, got 2"):
        MuLaw(denominator="2")  # type: ignore[arg-type]
    for bits in (0, 9):
        with pytest.raises(HwsimError, match=f"bits of a codebook must be 1 to 8, got {bits}"):
            MuLaw(bits)
