"""N:M masks: what is kept, how places are stored in exactly the bits of the format, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.numerics import NumberFormat, Sparsity
from hwsim.numerics.pruning import keep_largest, mask_of_places, stored_places, survivors
from tests.strategies import sparsities


@st.composite
def pruned(draw: st.DrawFn) -> tuple[np.ndarray, Sparsity]:
    """Weights with many equal magnitudes, of one to three axes, and a rule that divides them."""
    sparsity = draw(sparsities())
    shape = (draw(st.integers(1, 3)), sparsity.group * draw(st.integers(1, 4)), draw(st.integers(1, 5)))
    kind = draw(st.sampled_from(["vector", "matrix", "kernel"]))
    shape = {"vector": shape[1:2], "matrix": shape[1:], "kernel": shape}[kind]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.integers(-3, 4, shape) / 4, sparsity


@given(pruned())
def test_the_largest_of_each_group_are_kept(case: tuple[np.ndarray, Sparsity]) -> None:
    w, sparsity = case
    mask = keep_largest(w, sparsity)
    assert mask.shape == w.shape
    channels = w.shape[-1] if w.ndim > 1 else 1
    for group, kept in zip(*(each.reshape(-1, channels).T.reshape(-1, sparsity.group) for each in (w, mask)),
                           strict=True):  # fmt: skip
        first = sorted(range(sparsity.group), key=lambda at: (-abs(group[at]), at))[: sparsity.keep]
        assert np.flatnonzero(kept).tolist() == sorted(first)


@given(pruned())
def test_places_are_stored_in_the_bits_of_the_format(case: tuple[np.ndarray, Sparsity]) -> None:
    w, sparsity = case
    mask = keep_largest(w, sparsity)
    bits = stored_places(mask, sparsity)
    stored = NumberFormat("int4", "channel", sparsity=sparsity).stored_bits(w.shape)
    assert bits.size == stored.sparsity
    assert set(bits.tolist()) <= {0, 1}
    assert survivors(w, mask, sparsity).size * 4 == stored.codes
    assert np.array_equal(mask_of_places(bits, w.shape, sparsity), mask)


def test_survivors_keep_their_channel_and_their_order() -> None:
    w = np.array([[1, -8], [-5, 2], [0, 3], [4, 7]])
    mask = keep_largest(w, Sparsity(2, 4))
    assert mask.astype(int).tolist() == [[0, 1], [1, 0], [0, 0], [1, 1]]
    assert survivors(w, mask, Sparsity(2, 4)).tolist() == [[-5, -8], [4, 7]]
    assert stored_places(mask, Sparsity(2, 4)).tolist() == [0, 1, 0, 1, 1, 0, 0, 1]
    assert stored_places(mask, Sparsity(2, 4, "index")).tolist() == [0, 1, 1, 1, 0, 0, 1, 1]


def test_of_equals_the_first_is_kept() -> None:
    for value in (0.0, -2.0, 5e-324):
        assert keep_largest(np.full(8, value), Sparsity(1, 4)).tolist() == [True, False, False, False] * 2


def test_what_is_refused() -> None:
    with pytest.raises(HwsimError, match="rows of an N:M matrix must be a multiple of 4, got 6"):
        keep_largest(np.ones((6, 4)), Sparsity(2, 4))
    for wrong in ([np.nan] * 4, [np.inf, 1, 1, 1], []):
        with pytest.raises(HwsimError, match="weights to prune must be finite and at least one"):
            keep_largest(wrong, Sparsity(2, 4))
    with pytest.raises(HwsimError, match="a mask must keep 2 of each 4 weights, got 3"):
        stored_places(np.array([True, True, True, False]), Sparsity(2, 4))
    with pytest.raises(HwsimError, match="places of 2:4 must be 4 bits, got shape \\(3,\\)"):
        mask_of_places([0, 1, 1], (4,), Sparsity(2, 4))
    with pytest.raises(HwsimError, match="places of 1:3-index must be below 3, got 3"):
        mask_of_places([1, 1], (3,), Sparsity(1, 3, "index"))
    with pytest.raises(HwsimError, match="a mask must keep 2 of each 4 weights, got 1"):
        mask_of_places([0, 1, 0, 1], (4,), Sparsity(2, 4, "index"))
