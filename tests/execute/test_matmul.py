"""Packed products equal the plain definition, integer by integer, on every path that this target has."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.execute import PackedWeights, group_products, matmul, matmul_wide, pack
from hwsim.execute.kernels.layout import LAYOUTS, load, padded_columns, store
from hwsim.execute.kernels.target import PATHS, isa_of
from hwsim.execute.packing import code_range
from hwsim.execute.reference import matmul as reference
from hwsim.numerics import NumberFormat

INTEGERS = tuple(f"int{bits}" for bits in (1, 2, 3, 4, 5, 6, 8))
CODEBOOKS = tuple(f"codebook{bits}" for bits in range(1, 9))
Array = np.ndarray[Any, Any]


def available(path: str) -> bool:
    try:
        isa_of(path)
    except HwsimError:
        return False
    return True


HERE = tuple(path for path in PATHS if available(path))


def random_codes(rng: np.random.Generator, base: str, shape: tuple[int, int]) -> Array:
    low, high = code_range(NumberFormat(base))
    codes = rng.integers(low, high + 1, shape)
    return np.where(codes == 0, 1, codes) if base == "int1" else codes


def random_table(rng: np.random.Generator, base: str) -> Array | None:
    bits = NumberFormat(base).code_bits
    return rng.integers(-128, 128, 1 << bits).astype(np.int8) if base.startswith("codebook") else None


def assert_equal(activations: Array, packed: PackedWeights, weights: Array, path: str | None) -> None:
    found = matmul(activations, packed, path=path)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, reference.matmul(activations, weights))


@pytest.mark.parametrize("path", HERE)
@pytest.mark.parametrize("base", INTEGERS + CODEBOOKS)
@settings(max_examples=15, deadline=None)
@given(
    rows=st.integers(1, 14),
    depth=st.integers(1, 90),
    columns=st.integers(1, 140),
    dtype=st.sampled_from((np.int8, np.uint8, np.int16)),
    seed=st.integers(0, 2**32),
)
def test_every_format_equals_the_definition(
    path: str, base: str, rows: int, depth: int, columns: int, dtype: type[np.integer[Any]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    codes, table = random_codes(rng, base, (depth, columns)), random_table(rng, base)
    span = np.iinfo(dtype)
    activations = rng.integers(span.min, span.max, (rows, depth), dtype, endpoint=True)
    weights = reference.weight_values(codes, table=table)
    assert_equal(activations, pack(codes, base, table=table), weights, path)


@pytest.mark.parametrize("path", HERE)
@pytest.mark.parametrize("base", ["int8", "int4", "int3", "int1", "codebook5"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 200), (9, 1, 1), (1, 65_536, 3), (2, 65_533, 65), (13, 8195, 70)])
def test_thin_and_long_shapes(path: str, base: str, shape: tuple[int, int, int]) -> None:
    rows, depth, columns = shape
    rng = np.random.default_rng(depth)
    codes, table = random_codes(rng, base, (depth, columns)), random_table(rng, base)
    activations = rng.integers(-128, 128, (rows, depth)).astype(np.int8)
    assert_equal(activations, pack(codes, base, table=table), reference.weight_values(codes, table=table), path)


@pytest.mark.parametrize("path", HERE)
@pytest.mark.parametrize("base", INTEGERS)
@pytest.mark.parametrize("depth", [1, 640, 65_536])
def test_the_ends_of_the_ranges(path: str, base: str, depth: int) -> None:
    ends = code_range(NumberFormat(base))
    for code in ends:
        codes = np.full((depth, 5), code)
        packed, weights = pack(codes, base), reference.weight_values(codes)
        for level in (-128, 127):
            assert_equal(np.full((2, depth), level, np.int8), packed, weights, path)
    alternating = np.where(np.arange(depth) % 2, *ends)[:, None] * np.ones((1, 3), np.int64)
    activations = np.where(np.arange(depth) % 2, -128, 127).astype(np.int8)[None]
    assert_equal(activations, pack(alternating, base), alternating, path)


@settings(max_examples=40, deadline=None)
@given(
    group=st.integers(1, 40),
    groups=st.integers(1, 5),
    columns=st.integers(1, 80),
    base=st.sampled_from(("int8", "int4", "int3", "int2")),
    granularity=st.sampled_from(("tensor", "channel", "group")),
    path=st.sampled_from(HERE),
    seed=st.integers(0, 2**32),
)
def test_zero_points_and_groups(
    group: int, groups: int, columns: int, base: str, granularity: str, path: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    codes = random_codes(rng, base, (group * groups, columns))
    shape = {"tensor": (), "channel": (columns,), "group": (groups, columns)}[granularity]
    low, high = code_range(NumberFormat(base))
    points = rng.choice([low, 0, high], shape)
    part = {"tensor": "", "channel": "/channel", "group": f"/group{group}"}[granularity]
    packed = pack(codes, f"{base}{part}/zp", zero_point=points)
    weights = reference.weight_values(codes, zero_point=points)
    np.testing.assert_array_equal(packed.column_sums, weights.sum(axis=0))
    activations = rng.integers(-128, 128, (7, group * groups)).astype(np.int8)
    assert_equal(activations, packed, weights, path)
    for dtype in (np.int8, np.uint8, np.int16):
        span = np.iinfo(dtype)
        given = rng.integers(span.min, span.max, activations.shape, dtype, endpoint=True)
        given[0] = span.min
        apart = group_products(given, packed, path=path)
        np.testing.assert_array_equal(apart, reference.group_products(given, weights, packed.groups))


def test_strided_activations_and_a_given_output() -> None:
    rng = np.random.default_rng(0)
    codes = random_codes(rng, "int4", (100, 70))
    packed, weights = pack(codes[:, ::-1].T.T, "int4"), reference.weight_values(codes[:, ::-1])
    whole = rng.integers(-128, 128, (200, 14)).astype(np.int8)
    assert_equal(whole[::2, ::2].T, packed, weights, None)
    locked = np.ascontiguousarray(whole[::2].T)
    locked.flags.writeable = False
    assert_equal(locked, packed, weights, None)
    out = np.full((14, 70), 99, np.int32)
    assert matmul(locked, packed, out=out) is out
    np.testing.assert_array_equal(out, reference.matmul(locked, weights))
    assert matmul(locked[:0], packed).shape == (0, 70)


def test_packed_weights_survive_pickling_and_threads() -> None:
    rng = np.random.default_rng(1)
    codes = random_codes(rng, "int4", (640, 256))
    packed = pickle.loads(pickle.dumps(pack(codes, "int4")))
    inputs = [rng.integers(-128, 128, (5, 640)).astype(np.int8) for _ in range(16)]
    with ThreadPoolExecutor(4) as pool:
        for activations, found in zip(inputs, pool.map(lambda one: matmul(one, packed), inputs), strict=True):
            np.testing.assert_array_equal(found, reference.matmul(activations, codes))


def test_wide_products_of_int16() -> None:
    packed = pack(np.full((4096, 3), -128), "int8")
    activations = np.full((2, 4096), -32768, np.int16)
    found = matmul_wide(activations, packed)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, 4096 * 32768 * 128)
    np.testing.assert_array_equal(matmul_wide(activations.astype(np.int8), packed), 0)


@pytest.mark.parametrize("base", LAYOUTS)
def test_packing_is_undone_by_loading(base: str) -> None:
    layout, rng = LAYOUTS[base], np.random.default_rng(2)
    mask = sum(((1 << plane.bits) - 1) << plane.place for plane in layout.planes)
    stored = rng.integers(0, 256, (24, 128)).astype(np.uint8) & np.uint8(mask)
    np.testing.assert_array_equal(load(store(stored, layout), layout), stored)


@pytest.mark.parametrize("base", INTEGERS + CODEBOOKS[:6])
def test_packed_weights_stay_packed(base: str) -> None:
    rng = np.random.default_rng(3)
    depth, columns = 640, 2560
    packed = pack(random_codes(rng, base, (depth, columns)), base, table=random_table(rng, base))
    exact = NumberFormat(base).code_bits * depth * columns // 8
    assert packed.data.nbytes == exact
    assert packed.nbytes <= exact + 8 * columns + 64
    assert packed.data.ctypes.data % 64 == 0
    ragged = pack(random_codes(rng, base, (641, 1)), base, table=random_table(rng, base))
    assert ragged.data.nbytes <= NumberFormat(base).code_bits * 648 * padded_columns(1) // 8


def test_sparse_weights_are_checked_and_run_dense() -> None:
    rng = np.random.default_rng(4)
    codes = np.where(np.arange(64)[:, None] % 4 < 2, random_codes(rng, "int1", (64, 9)), 0)
    activations = rng.integers(-128, 128, (3, 64)).astype(np.int8)
    for form in ("int1/2:4", "int4/channel/2:4", "int2/2:4-index"):
        assert_equal(activations, pack(codes, form), codes, None)
