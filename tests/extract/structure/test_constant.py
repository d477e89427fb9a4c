"""Constants that are moved without being read: their reals, and where their scales lie."""

from __future__ import annotations

from math import prod

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hwsim.extract.onnx.structure.constant import Constant, Grid
from hwsim.extract.onnx.structure.folding import clipped_bits
from hwsim.extract.onnx.structure.microsoft import codes_of


def constant(codes: np.ndarray, grid: Grid) -> Constant:
    return Constant(
        "w", codes.shape, codes.dtype, lambda: codes, frozenset("w"), axes=tuple(range(codes.ndim)), grid=grid
    )


@given(st.data())
def test_scales_follow_their_axis(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.sampled_from([2, 4, 6]), min_size=2, max_size=4)))
    axis = data.draw(st.integers(0, len(shape) - 1))
    block = data.draw(st.sampled_from([None, 2]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    codes = rng.integers(-8, 8, shape).astype(np.int8)
    sizes = shape if block else (shape[axis],)
    sizes = tuple(size // 2 if block and at == axis else size for at, size in enumerate(sizes))
    scale, zero = rng.random(sizes) + 0.1, rng.integers(-3, 3, sizes)
    spread = [np.repeat(each, 2, axis) if block else each.reshape([-1 if at == axis else 1 for at in range(len(shape))])
              for each in (scale, zero)]  # fmt: skip
    reals = (codes - spread[1]) * spread[0]
    moved = constant(codes, Grid(4, True, scale, zero, axis, axis, block))
    along: int | None = axis
    for _ in range(data.draw(st.integers(0, 3))):
        order = data.draw(st.permutations(range(len(moved.shape))))
        moved, reals = moved.transposed(order), reals.transpose(order)
        along = None if along is None else list(order).index(along)
        if data.draw(st.booleans()):
            flat = (prod(moved.shape[:-1]), moved.shape[-1])
            kept = along is not None and (along == len(moved.shape) - 1 or len(moved.shape) == 2)
            along = (along if len(moved.shape) == 2 else 1) if kept else None
            moved, reals = moved.reshaped(flat, "flat"), reals.reshape(flat)
    assert np.array_equal(moved.reals(), reals)
    assert moved.grid is not None
    if along is not None:
        assert (moved.grid.along, moved.grid.axis) == (along, axis)
        assert moved.shape[along] == shape[axis]
        assert moved.axes[along] in (axis, None)


@given(st.sampled_from([2, 4, 8]), st.integers(1, 4), st.integers(0, 99))
def test_packed_codes(bits: int, rows: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 1 << bits, (rows, 16))
    parts = codes.reshape(rows, -1, 8 // bits)
    packed = (parts << (bits * np.arange(8 // bits))).sum(axis=-1).astype(np.uint8)
    assert np.array_equal(codes_of(packed, bits), codes)


@given(st.integers(2, 8), st.booleans(), st.booleans())
def test_ranges_of_a_clip_are_a_width(bits: int, signed: bool, narrow: bool) -> None:
    top = (1 << (bits - 1)) - 1 if signed else (1 << bits) - 1 - narrow
    low = -top - (not narrow) if signed else 0
    assert clipped_bits(low, top, (8, signed)) == (bits, signed)


def test_ranges_that_are_no_width() -> None:
    for low, high in ((-5, 7), (-8, 6), (1, 15), (0, 9), (0, 0)):
        assert clipped_bits(low, high, (8, True)) is None
