"""Quantizers: the frameworks' formulas, the published recipes, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.numerics.calibration import BoundAware, MinMax, NativeQat, Pact, Sawb
from hwsim.numerics.minifloat import E2M1, E4M3, E5M2, MiniFloat
from hwsim.numerics.quantizers import Quantizer
from hwsim.numerics.tables import exponential_table, fixed_table


def quantizer(scale: Any = 0.1, **fields: Any) -> Quantizer:
    return Quantizer(np.asarray(scale), **fields)


@given(st.integers(1, 16), st.booleans(), st.booleans(), st.floats(2.0**-20, 2.0**20), st.data())
def test_codes_survive_a_round_trip(bits: int, signed: bool, narrow: bool, scale: float, data: st.DataObject) -> None:
    low, high = quantizer(scale, bits=bits, signed=signed, narrow=narrow).code_range
    zero = data.draw(st.integers(low, high))
    q = quantizer(scale, bits=bits, signed=signed, narrow=narrow, zero_point=np.asarray(zero))
    codes = np.unique(np.linspace(low, high, 50).astype(np.int64))
    np.testing.assert_array_equal(q.quantize(q.dequantize(codes)), codes)


@given(st.floats(-1e30, 1e30), st.sampled_from(["divide", "reciprocal", "unit"]), st.booleans())
def test_codes_stay_in_range_and_values_are_nearest(x: float, form: str, half_step: bool) -> None:
    q = quantizer(0.25, bits=4, narrow=not half_step, half_step=half_step, form=form)
    code = int(q.quantize(x))
    low, high = q.code_range
    assert low <= code <= high
    bound = 0.25 * (high + 0.5 * half_step)
    assert abs(float(q.dequantize(code)) - np.clip(x, -bound, bound)) <= 0.125 * (1 + 1e-12)


def test_groups_run_along_the_first_axis() -> None:
    x = np.array([[1.0, 10.0], [2.0, 20.0], [300.0, 3.0], [400.0, 4.0]])
    q = Quantizer(np.array([[1.0, 10.0], [100.0, 1.0]]), 8, group_size=2)
    np.testing.assert_array_equal(q.quantize(x), [[1, 1], [2, 2], [3, 3], [4, 4]])
    np.testing.assert_array_equal(q.fake_quantize(x), x)
    with pytest.raises(HwsimError, match="2 groups of 2 must cover the first axis, got 3"):
        q.quantize(x[:3])


@pytest.mark.parametrize("scale", [0.0, -0.1, np.nan, np.inf, [0.1, 0.0]])
def test_a_scale_must_be_positive_and_finite(scale: Any) -> None:
    with pytest.raises(HwsimError, match="scale must be positive and finite, got"):
        quantizer(scale)


def test_a_scale_that_underflows_in_float32_is_refused() -> None:
    with pytest.raises(HwsimError, match=r"scale must be positive and finite, got 0\.0"):
        quantizer(1e-60, precision="float32")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"zero_point": np.asarray(128)}, "zero_point must be -128 to 127, got 128"),
        ({"zero_point": np.asarray(-1), "signed": False}, "zero_point must be 0 to 255, got -1"),
        ({"bits": 0}, "bits must be 1 to 32, got 0"),
        ({"form": "times"}, "form must be one of divide, reciprocal, unit, got times"),
        ({"ties": "up"}, "ties must be one of half_even, .*, got up"),
        ({"zero_point": np.asarray(1), "form": "unit"}, "zero_point must be 0 with half_step and with form unit"),
        (
            {"zero_point_order": "fused"},
            "zero_point_order fused must be used with form reciprocal and precision float32",
        ),
        ({"form": "unit", "zero_point_order": "before"}, "zero_point_order must be after with form unit, got before"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(HwsimError, match=message):
        quantizer(**fields)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_values_must_be_finite(wrong: float) -> None:
    with pytest.raises(HwsimError, match="values to quantize must be finite, got"):
        quantizer().quantize([0.0, wrong])


def test_codes_must_be_integers_in_range() -> None:
    with pytest.raises(HwsimError, match="codes must be -8 to 7, got 8"):
        quantizer(bits=4).dequantize([0, 8])
    with pytest.raises(HwsimError, match="codes must be integers, got float64"):
        quantizer().dequantize([0.5])


def test_sawb_is_its_formula() -> None:
    w = np.random.default_rng(0).standard_normal((64, 64))
    alpha = 12.035 * np.sqrt((w**2).mean()) - 12.03 * np.abs(w).mean()
    q = Sawb(4).calibrate(w)
    assert q.code_range == (-7, 7)
    assert q.scale == 2 * alpha / 14
    half = Sawb(2, zero_aligned=False).calibrate(w)
    alpha = 3.12 * np.sqrt((w**2).mean()) - 2.064 * np.abs(w).mean()
    np.testing.assert_allclose(np.unique(half.fake_quantize(w)) / alpha, [-1, -1 / 3, 1 / 3, 1])
    with pytest.raises(HwsimError, match=r"SAWB must be one of 2 bits .*, got 3 bits"):
        Sawb(3)
    with pytest.raises(HwsimError, match="SAWB clip must be positive"):
        Sawb(4, zero_aligned=False).calibrate(np.ones(8))


def test_odd_codes_are_the_same_values() -> None:
    w = np.random.default_rng(1).standard_normal(1000)
    half = Sawb(4, zero_aligned=False).calibrate(w)
    odd, whole = half.odd_codes(half.quantize(w))
    assert set(np.unique(odd)) == set(range(-15, 16, 2))
    np.testing.assert_array_equal(whole.dequantize(odd), half.fake_quantize(w))


def test_bounds() -> None:
    bac = BoundAware(1.25).calibrate()
    np.testing.assert_array_equal(bac.quantize([1.25, -1.25, 9, 0]), [7, -7, 7, 0])
    pact = Pact(-1.0, 2.0).calibrate()
    assert pact.code_range == (0, 15)
    assert pact.zero_point == 5
    np.testing.assert_array_equal(pact.quantize([-1, 0, 2, -9, 9]), [0, 5, 15, 0, 15])
    with pytest.raises(HwsimError, match="bounds must be lower <= 0 < upper, got 1 and 2"):
        Pact(1, 2).calibrate()


def test_native_qat_is_its_formula() -> None:
    w = np.random.default_rng(2).standard_normal((50, 6))
    q = NativeQat(4, axis=1).calibrate(w)
    scale = np.abs(w).max(axis=0) / 7
    np.testing.assert_array_equal(q.quantize(w), np.floor(w / scale + 0.5))
    np.testing.assert_array_equal(np.abs(q.quantize(w)).max(axis=0), 7)


def test_a_channel_of_zeros_takes_scale_one() -> None:
    w = np.array([[0.0, 1.0], [0.0, -2.0]])
    for recipe in (NativeQat(4, axis=1), MinMax(8, axis=1), MinMax(8, symmetric=False, axis=1)):
        q = recipe.calibrate(w)
        assert q.scale[0, 0] == 1
        np.testing.assert_array_equal(q.fake_quantize(w)[:, 0], 0)


def test_calibration_refuses_nan() -> None:
    with pytest.raises(HwsimError, match="values to calibrate must be finite and at least one"):
        MinMax().calibrate([1.0, np.nan])
    with pytest.raises(HwsimError, match="values to calibrate must be finite and at least one"):
        NativeQat().calibrate([])


def torch_grid(scale: float) -> np.ndarray:
    """Ties of a scale, their neighbours, and noise, as float32."""
    rng = np.random.default_rng(3)
    grid = (np.arange(-150, 150) + 0.5).astype(np.float32) * np.float32(scale)
    noise = (rng.standard_normal(1_000_000) * 60 * scale).astype(np.float32)
    return np.concatenate([grid, np.nextafter(grid, np.float32(9e9)), np.nextafter(grid, np.float32(-9e9)), noise])


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("scale", [0.1, 0.0173, 2.0**-5, 1 / 3])
@pytest.mark.parametrize("zero", [0, 5, -128])
def test_torch(scale: float, zero: int) -> None:
    """1,000,900 codes each, from both of torch's quantizers. Needs torch, which is an extra."""
    torch = pytest.importorskip("torch")
    x = torch_grid(scale)
    step = float(np.float32(scale))
    fake = quantizer(step, zero_point=np.asarray(zero), form="reciprocal", precision="float32")
    values = torch.fake_quantize_per_tensor_affine(torch.from_numpy(x), step, zero, -128, 127).numpy()
    np.testing.assert_array_equal(fake.fake_quantize(x), values)
    fused = replace(fake, zero_point_order="fused")
    codes = torch.quantize_per_tensor(torch.from_numpy(x), step, zero, torch.qint8).int_repr().numpy()
    np.testing.assert_array_equal(fused.quantize(x), codes)
    if zero == 5:
        assert (fake.quantize(x) != codes).any()
        assert (replace(fake, zero_point_order="before").quantize(x) != codes).any() == (scale != 2.0**-5)


@pytest.mark.parametrize("small", [E4M3, E5M2, E2M1])
def test_small_floats_survive_a_round_trip(small: MiniFloat) -> None:
    codes = np.arange(1 << small.bits)
    finite = np.isfinite(small.values())
    np.testing.assert_array_equal(small.encode(small.values()[finite]), codes[finite])
    assert {4: 6.0, 8: 448.0 if small is E4M3 else 57344.0}[small.bits] == small.values()[finite].max()
    with pytest.raises(HwsimError, match="values to encode must not be NaN"):
        small.encode(np.nan)


def test_tables_refuse_what_they_cannot_hold() -> None:
    with pytest.raises(HwsimError, match="unknown function 'sigmod'; nearest: sigmoid"):
        fixed_table("sigmod")
    with pytest.raises(HwsimError, match="the input of a table must be one scale and at most 16 bits, got 20 bits"):
        fixed_table("tanh", bits=20)
    with pytest.raises(HwsimError, match="step must be positive"):
        exponential_table(0.0)
    with pytest.raises(HwsimError, match="codes must be -32768 to 32767, got 40000"):
        fixed_table("tanh").lookup([40000])


@pytest.mark.parametrize("symmetric", [True, False])
@given(bits=st.integers(2, 8), groups=st.integers(1, 4), size=st.integers(1, 6), width=st.integers(1, 4),
       seed=st.integers(0, 2**32 - 1))  # fmt: skip
def test_sub_channels_are_matrices_of_their_own(
    symmetric: bool, bits: int, groups: int, size: int, width: int, seed: int
) -> None:
    w = np.random.default_rng(seed).standard_normal((groups * size, width))
    recipe = MinMax(bits, symmetric, group_size=size)
    found = recipe.calibrate(w)
    alone = MinMax(bits, symmetric, axis=1)
    parts = [alone.calibrate(part).quantize(part) for part in np.split(w, groups)]
    np.testing.assert_array_equal(found.quantize(w), np.concatenate(parts))
    assert found.scale.shape == (groups, width)


def test_two_bits_with_a_zero_point_have_four_levels_for_each_sub_channel() -> None:
    """scale = (max - min) / 3, zero point -2 - round(min / scale): arXiv 2312.08553."""
    w = np.array([[-1.0], [2.0], [0.0], [0.6], [8.0], [-4.0]])
    found = MinMax(2, symmetric=False, group_size=3).calibrate(w)
    assert found.scale.tolist() == [[1.0], [4.0]]
    assert found.zero_point.tolist() == [[-1], [-1]]
    assert found.quantize(w)[:, 0].tolist() == [-2, 1, -1, -1, 1, -2]
    assert str(found.number_format) == "int2/group3/zp"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MinMax(1), "bits of symmetric min-max must be 2 to 32, got 1"),
        (lambda: MinMax(0, symmetric=False), "bits of min-max must be 1 to 32, got 0"),
        (lambda: MinMax(33), "bits of symmetric min-max must be 2 to 32, got 33"),
        (lambda: NativeQat(1), "bits of native QAT must be 2 to 32, got 1"),
        (lambda: BoundAware(bits=1), "bits of bound-aware clipping must be 2 to 32, got 1"),
        (lambda: Pact(-1, 1, 0), "bits of PACT must be 1 to 32, got 0"),
        (lambda: MinMax(4, axis=1, group_size=4), "group_size must be 0 with an axis and never negative, got 4"),
        (lambda: MinMax(4, group_size=-1), "group_size must be 0 with an axis and never negative, got -1"),
        (lambda: MinMax(4, group_size=4).calibrate(np.ones((6, 2))),
         "the first axis must be a multiple of group_size 4, got 6"),
        (lambda: quantizer(bits=7).number_format, "'int7' must be a number format: unknown base 'int7'"),
    ],
)  # fmt: skip
def test_what_a_recipe_does_not_have(make: Any, message: str) -> None:
    with pytest.raises(HwsimError, match=message):
        make()


@given(st.integers(2, 16), st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=20))
def test_native_qat_needs_no_clamp(bits: int, x: list[float]) -> None:
    """Where the scale is a normal float, the largest magnitude is the last code by itself."""
    found = NativeQat(bits).calibrate(x)
    if np.abs(x).max() / 2**bits > 2.0**-1022:
        free = np.floor(np.asarray(x) / found.scale + 0.5)
        np.testing.assert_array_equal(found.quantize(x), free)


def test_stored_bits_of_recipes() -> None:
    w = np.random.default_rng(5).standard_normal((32, 8))
    sizes = {
        Sawb(4): ("int4", 4 * 256 + 32),
        MinMax(8, axis=1): ("int8/channel", 8 * 256 + 32 * 8),
        MinMax(4, symmetric=False): ("int4/zp", 4 * 256 + 32 + 4),
        MinMax(2, symmetric=False, group_size=8): ("int2/group8/zp", 2 * 256 + 34 * 4 * 8),
    }
    for recipe, (text, bits) in sizes.items():
        fmt = recipe.calibrate(w).number_format
        assert (str(fmt), fmt.stored_bits(w.shape).total) == (text, bits)
