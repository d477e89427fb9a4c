"""Products on tiles: exact without noise; with each noise alone its law, by chi-square at a level of 1e-6."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.execute.analog import Converter, PcmModel, analog_settings
from hwsim.execute.analog.sums import tile_sums
from hwsim.execute.analog.tile import Tiles
from tests.execute.analog.devices import TIMES_S, decay_moment, read_sigma, simulated_reading

LEVEL_Z = 4.9
ONLY_READING = PcmModel(programming_scale=0, drift_scale=0)
ONLY_PROGRAMMING = PcmModel(drift_scale=0, read_scale=0)
ONLY_DRIFT = PcmModel(programming_scale=0, read_scale=0)


def matrix(depth: int, columns: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((depth, columns)) / 16


def inputs(rows: int, depth: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).uniform(-1, 1, (rows, depth))


def tiles(weights: Any, name: str = "ideal", seed: int = 0, t_s: float = 0.0, input_range: float = 0.0,
          **changes: Any) -> Tiles:  # fmt: skip
    changes = {"precision": "float64"} | changes
    bias = np.zeros(weights.shape[1])
    return Tiles("layer.w", weights, bias, analog_settings(name, **changes), (seed,), t_s, input_range)


def assert_variance(found: Any, wanted: Any) -> None:
    """Deviations of mean 0 and variance `wanted`: their sum of squares is chi-square, here nearly normal."""
    unit = np.asarray(found / np.sqrt(wanted))
    assert abs(unit.mean()) * math.sqrt(unit.size) < LEVEL_Z
    assert abs(np.square(unit).sum() - unit.size) / math.sqrt(2 * unit.size) < LEVEL_Z


# Without noise


@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 12), st.integers(1, 16), st.sampled_from(["ideal", "ab"]))
@settings(max_examples=30, deadline=None)
def test_ideal_tiles_are_a_product_in_float64(rows: int, depth: int, columns: int, tile_rows: int, mode: str) -> None:
    w, x = matrix(depth, columns), 3 * inputs(rows, depth)
    chip = tiles(w, rows=tile_rows, mode="2-pcm" if mode == "ideal" else mode, scaling="column")
    np.testing.assert_allclose(chip(x), x @ w, rtol=1e-12, atol=1e-14)
    assert chip.devices.tile_count == (-(-depth // tile_rows), 1)


@given(st.integers(1, 11), st.integers(1, 70), st.integers(1, 40), st.integers(1, 70), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_rows_give_the_same_bits_alone_and_together(rows: int, depth: int, columns: int, part: int, row: int) -> None:
    """Sums in float32 of weights in int16, at every remainder of the kernels' steps."""
    x = inputs(rows, depth).astype(np.float32)
    w = (matrix(depth, columns) * 2**12).astype(np.int16)
    out, one = (np.empty((-(-depth // part), count, columns), np.float32) for count in (rows, 1))
    tile_sums(x, w, part, out)
    tile_sums(x[row % rows :][:1], w, part, one)
    assert np.array_equal(out[:, row % rows], one[:, 0])
    wanted = np.array([x[:, at : at + part].astype(np.float64) @ w[at : at + part] for at in range(0, depth, part)])
    np.testing.assert_allclose(out, wanted, atol=1e-6 * depth * np.abs(w).max(initial=1))


@pytest.mark.parametrize("bits", [2, 6, 8])
@pytest.mark.parametrize("input_range", [0.0, 0.75])
def test_converters_alone_are_the_formula(bits: int, input_range: float) -> None:
    """Array for array: weights are multiples of 1/64, so that sums of codes times weights have no rounding."""
    rng = np.random.default_rng(3)
    w, x = rng.integers(-64, 65, (100, 9)) / 64.0, 2 * inputs(20, 100)
    w[[0, 40, 80]] = 1.0
    chip = tiles(w, rows=40, dac=Converter(bits), adc=Converter(bits, 10.0), input_range=input_range)
    alpha = np.full((20, 1), input_range) if input_range else np.abs(x).max(axis=1, keepdims=True)
    top = 2 ** (bits - 1) - 1
    codes = np.clip(np.round(x / alpha * top), -top, top)
    wanted = np.zeros((20, 9))
    for rows in (slice(0, 40), slice(40, 80), slice(80, 100)):
        analog = (codes[:, rows] @ w[rows]) * (1.0 / top)
        wanted = wanted + np.clip(np.round(analog / (10.0 / top)), -top, top) * (10.0 / top)
    assert np.array_equal(chip(x), alpha * wanted)


def test_weights_in_int16_are_near_those_in_float64() -> None:
    w, x = matrix(600, 50), inputs(8, 600)
    found = tiles(w, precision="int16")(x)
    step = np.abs(w).max() / 32767
    assert 0 < np.abs(found - x @ w).max() < 6 * step * math.sqrt(600 / 12)
    np.testing.assert_allclose(tiles(w, precision="float32")(x), x @ w, atol=1e-5)


def test_the_bias_is_digital() -> None:
    bias = np.arange(5.0)
    chip = Tiles("w", matrix(7, 5), bias, analog_settings("ideal", precision="float64"), (0,))
    assert np.array_equal(chip(np.zeros((2, 7))), np.tile(bias, (2, 1)))
    sums = chip.sums(inputs(3, 7))
    assert np.array_equal(sums.values(), chip(inputs(3, 7)))


def test_columns_and_tiles_have_scales_of_their_own() -> None:
    w = matrix(30, 4) * np.array([1.0, 1e-3, 1e3, 0.0])
    chip = tiles(w, rows=10)
    assert chip.devices.scale.shape == (3, 4)
    wanted = [[np.abs(w[at : at + 10, n]).max() or 1.0 for n in range(4)] for at in (0, 10, 20)]
    assert np.array_equal(chip.devices.scale, wanted)
    assert np.array_equal(tiles(w, rows=10, scaling="layer").devices.scale, np.full((3, 4), np.abs(w).max()))
    np.testing.assert_allclose(chip(inputs(5, 30)), inputs(5, 30) @ w, rtol=1e-11)


# Each noise alone


def test_output_noise() -> None:
    """sigma_out N of each column of each tile, times the scale of the column and the range of the input."""
    w, x = matrix(60, 200), inputs(100, 60) * np.linspace(0.5, 4, 100)[:, None]
    chip = tiles(w, rows=20, output_noise=0.04)
    found = chip(x) - x @ w
    wanted = 0.04**2 * np.square(np.abs(x).max(axis=1))[:, None] * np.square(chip.devices.scale).sum(axis=0)
    assert_variance(found, wanted)


@pytest.mark.parametrize("redraw", [False, True])
def test_weight_noise(redraw: bool) -> None:
    """sigma_w N of each weight and MVM, drawn as its sum at the output or weight by weight: one law."""
    w, x = matrix(40, 250), inputs(100, 40)
    chip = tiles(w, rows=20, weight_noise=0.0175, exact_redraw=redraw, input_range=1.0)
    power = np.array([np.square(x[:, rows]).sum(axis=1) for rows in chip.devices.tiles()])
    assert_variance(chip(x) - x @ w, 0.0175**2 * np.einsum("tm,tn->mn", power, np.square(chip.devices.scale)))


@pytest.mark.parametrize("redraw", [False, True])
def test_read_noise_of_each_product(redraw: bool) -> None:
    """sum x^2 sigma^2 over the devices, by the equation of `devices.read_sigma`."""
    w, x, t_s = matrix(40, 250), inputs(100, 40), 3600.0
    chip = tiles(w, device=ONLY_READING, read_noise="mvm", t_s=t_s, variance_group=1, exact_redraw=redraw, rows=25)
    unit = np.array([w[rows] / chip.devices.scale[at] for at, rows in enumerate(chip.devices.tiles())], object)
    wanted = np.zeros((100, 250))
    for at, rows in enumerate(chip.devices.tiles()):
        sigma = np.vectorize(lambda g: read_sigma(g, g, t_s))(25 * np.abs(unit[at].astype(float))) / 25
        wanted += np.square(x[:, rows]) @ np.square(sigma) * np.square(chip.devices.scale[at])
    assert_variance(chip(x) - x @ w, wanted)


def test_variances_of_groups_of_rows_are_near_those_of_each() -> None:
    """At 512 rows the deviation of an output is within a few percent for inputs without order, and exact on average."""
    w, x = matrix(512, 64), inputs(50, 512)
    each, group = (tiles(w, "pcm", t_s=86400.0, variance_group=size, drift_compensation=False) for size in (1, 32))
    exact = np.square(x) @ each.variance
    found = np.add.reduceat(np.square(x), np.arange(0, 512, 32), axis=1) @ group.variance
    ratio = np.sqrt(found / exact)
    assert np.abs(ratio - 1).max() < 0.06
    assert abs(ratio.mean() - 1) < 0.003


def test_frozen_read_noise_belongs_to_the_time() -> None:
    w, x = matrix(40, 300), inputs(1, 40)
    chip = tiles(w, device=ONLY_READING, read_noise="frozen", t_s=3600.0)
    same = chip.at(3600.0)
    assert np.array_equal(chip(x), chip(x))
    assert np.array_equal(chip(x), same(x))
    assert not np.array_equal(chip(x), chip.at(3601.0)(x))
    drawn = (chip.weights - tiles(w, device=ONLY_READING, read_noise="off").weights)[np.abs(w) > 0.5 * w.max()]
    assert 0.03 < drawn.std() / np.abs(chip.weights[np.abs(w) > 0.5 * w.max()]).mean() < 0.08


@pytest.mark.parametrize("t_s", TIMES_S.values(), ids=TIMES_S)
def test_weights_of_a_chip_that_is_read(t_s: float) -> None:
    """Mean and variance of weights against as many drawn by scalars: two-sample z-tests, each at a level of 1e-6."""
    w, draw = np.tile([1.0, 0.6, 0.08, -0.3], (6000, 1)), random.Random(int(t_s))
    found = tiles(w, "rasch2023", 5, t_s, rows=6000, scaling="layer").weights
    for column, unit in enumerate(w[0]):
        sides = [[simulated_reading(max(sign * unit, 0.0) * 25, t_s, draw) for _ in range(6000)] for sign in (1, -1)]
        other, own = (np.array(sides[0]) - np.array(sides[1])) / 25, found[:, column]
        for a, b in ((own, other), (np.square(own - other.mean()), np.square(other - other.mean()))):
            assert abs(a.mean() - b.mean()) / math.sqrt((a.var() + b.var()) / 6000) < LEVEL_Z


@pytest.mark.parametrize(("mode", "devices"), [("2-pcm", 1), ("4-pcm", 2), ("ab", 2)])
def test_programming_noise_falls_with_devices(mode: str, devices: int) -> None:
    """Weights of half the range: sigma(g) of the one side, and of the other the half of a normal number at 0."""
    w = np.full((400, 50), 0.5)
    w[0] = 1.0
    chip = tiles(w, device=ONLY_PROGRAMMING, mode=mode, rows=400)
    sigma = 0.26348 + 1.9650 / 2 - 1.1731 / 4
    zero = 0.26348**2 * (0.5 - 0.5 / math.pi)
    mean = 0.5 - 0.26348 / math.sqrt(2 * math.pi) / 25
    assert_variance(chip.weights[1:] - mean, (sigma**2 + zero) / 625 / devices)


def test_drift_takes_a_matrix_down() -> None:
    """The mean weight of half the range falls as the moment of the closed form."""
    w = np.full((400, 50), 0.5)
    w[0] = 1.0
    for t_s in (1.0, 3600.0, 86400.0, 2592000.0):
        found = tiles(w, device=ONLY_DRIFT, rows=400, t_s=t_s).weights[1:]
        mean, square = 0.5 * decay_moment(12.5, t_s, 1), 0.25 * decay_moment(12.5, t_s, 2)
        assert abs(found.mean() - mean) / math.sqrt((square - mean**2) / found.size) < LEVEL_Z


def test_stuck_devices() -> None:
    """Shares of both sides, within the deviation of counts; the other devices are those of the chip without."""
    w = np.full((300, 100), 0.5)
    w[0] = 1.0
    chip = tiles(w, rows=300, stuck_at_zero=0.02, stuck_at_max=0.01)
    plus, minus = chip.devices.programmed[:, 0]
    for side, rest in ((plus[1:], 12.5), (minus[1:], 0.0)):
        count = side.size
        counts = {0.0: (side == 0).sum(), 25.0: (side == 25).sum(), rest: (side == rest).sum()}
        shares = {25.0: 0.01, 0.0: 0.02 if rest else 0.99, 12.5: 0.97}
        for value, found in counts.items():
            share = shares[value]
            assert abs(found - share * count) / math.sqrt(count * share * (1 - share)) < LEVEL_Z


# IR drop


def ladder(conductances_us: Any, volts: Any, wire_us: float) -> float:
    """Current into the amplifier at the end of a wire of equal resistances, one device at each node, solved exactly."""
    count = len(volts)
    nodes = np.diag(conductances_us + 2 * wire_us) - wire_us * (np.eye(count, k=1) + np.eye(count, k=-1))
    nodes[0, 0] -= wire_us
    return float(wire_us * np.linalg.solve(nodes, conductances_us * volts)[-1])


@pytest.mark.parametrize(("factor", "tolerance"), [(0.1, 0.06), (1.0, 0.12)])
def test_the_drop_of_a_wire_that_is_solved_exactly(factor: float, tolerance: float) -> None:
    """Pulses of one sign that are on or off, cells that are off do not conduct: first order, currents evenly spread."""
    rng = np.random.default_rng(5)
    w, x = rng.uniform(0.2, 1, (256, 1)), (rng.random((4, 256)) < 0.7).astype(np.float64)
    ratio = 1 / (0.35 * 25e-6) / factor
    chip = tiles(w, ir_drop=1.0, wire_ratio=ratio)
    scale = float(chip.devices.scale[0, 0])
    for row in x:
        exact = ladder(w[:, 0] / scale * 25 * row, row, 25 * ratio) / 25 * scale
        drop = float(row @ w[:, 0]) - exact
        found = float(row @ w[:, 0]) - float(chip(row[None])[0, 0])
        assert drop > 0.003 * factor * float(row @ w[:, 0])
        assert abs(found / drop - 1) < tolerance


# Calibration


def test_drift_compensation_brings_the_level_back() -> None:
    w, x = matrix(256, 128), inputs(200, 256)
    month = 2592000.0
    wanted = np.abs(x @ w).mean()
    plain, compensated = (tiles(w, "pcm", drift_compensation=on, t_s=month) for on in (False, True))
    assert np.abs(plain(x)).mean() / wanted < 0.6
    assert np.abs(compensated(x)).mean() / wanted == pytest.approx(1, abs=0.02)
    assert np.array_equal(compensated.at(0.0).weights, plain.at(0.0).weights)


def test_column_affine_takes_out_slopes() -> None:
    """IR drop takes some percent of each column; after calibration little of that is left, and nothing else changes."""
    w, x = np.abs(matrix(256, 64)), inputs(200, 256)
    ideal = tiles(w, column_affine=True, rows=100)
    np.testing.assert_allclose(ideal(x), x @ w, rtol=1e-9, atol=1e-12)
    plain, fitted = (tiles(w, column_affine=on, ir_drop=1.0, wire_ratio=1 / (0.35 * 25e-6)) for on in (False, True))
    slopes = [float((chip(x) * (x @ w)).sum() / np.square(x @ w).sum()) for chip in (plain, fitted)]
    assert slopes[0] < 0.98
    assert slopes[1] == pytest.approx(1, abs=2e-3)
    zeros = tiles(np.zeros((20, 3)), "rasch2023", column_affine=True)
    assert np.isfinite(zeros(inputs(4, 20))).all()


# Chips


def test_the_same_chip_stays_the_same_chip() -> None:
    w, x = matrix(64, 32), inputs(5, 64)
    one, same, other = tiles(w, "rasch2023", 3), tiles(w, "rasch2023", 3), tiles(w, "rasch2023", 4)
    assert np.array_equal(one(x), same(x))
    assert np.array_equal(one.at(86400.0)(x), same.at(3600.0).at(86400.0)(x))
    assert not np.array_equal(one.weights, other.weights)
    assert not np.array_equal(one(x), one(x))
    first = one.at(0.0)(x)
    one.restart()
    assert np.array_equal(one(x), first)
    one.restart(1)
    assert not np.array_equal(one(x), first)


def test_other_converters_leave_the_devices_as_they_are() -> None:
    w = matrix(64, 32)
    one, two = tiles(w, "pcm", 7), tiles(w, "pcm", 7, dac=Converter(4), column_affine=True)
    assert np.array_equal(one.devices.programmed, two.devices.programmed)
    assert np.array_equal(one.devices.exponents, two.devices.exponents)


@pytest.mark.parametrize("name", ["pcm", "rasch2023"])
def test_pieces_draw_the_noise_of_the_whole(name: str) -> None:
    w, x = matrix(70, 48), inputs(67, 70)
    whole, parts = (tiles(w, name, 2, precision="int16", rows=32) for _ in range(2))
    pieces = [parts(x[at:stop]) for at, stop in ((0, 1), (1, 3), (3, 40), (40, 67))]
    assert np.array_equal(whole(x), np.concatenate(pieces))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: tiles(matrix(600, 4), partial_sums=False),
            "layer.w: a matrix must fit the rows of a tile (2-pcm 512, 4-pcm 256, ab 256) or be split with partial "
            "sums, got 600 rows",
        ),
        (lambda: tiles(np.ones(3)[None] * np.nan), "layer.w: weights must be a matrix (K, N) of finite values, got "
                                                   "shape (1, 3)"),
        (lambda: tiles(matrix(4, 4), t_s=-1.0), "t_s must be 0 or more seconds since programming, got -1"),
        (lambda: tiles(matrix(4, 4), input_range=-1.0),
         "layer.w: an input range must be above 0, or 0 for that of each input, got -1"),
    ],
)  # fmt: skip
def test_refusals(call: Any, message: str) -> None:
    with pytest.raises(HwsimError) as error:
        call()
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("pcn", {}, "unknown analog noise model 'pcn'; nearest: pcm"),
        ("pcm", {"mode": "3-pcm"}, "mode must be 2-pcm, 4-pcm or ab, got '3-pcm'; nearest: 4-pcm, 2-pcm"),
        ("pcm", {"read_noise": "mvn"}, "read_noise must be mvm, frozen or off, got 'mvn'; nearest: mvm"),
        ("pcm", {"rows": 0}, "rows of a tile must be at least 1, got 0"),
        ("pcm", {"variance_group": 0}, "variance_group of a tile must be at least 1, got 0"),
        ("pcm", {"weight_noise": -1.0}, "weight_noise must be 0 or more, got -1"),
        ("pcm", {"wire_ratio": 0.0}, "wire_ratio must be above 0, got 0"),
        ("pcm", {"stuck_at_zero": 0.6, "stuck_at_max": 0.6},
         "stuck_at_zero and stuck_at_max must be shares of one, got 0.6 and 0.6"),
    ],
)  # fmt: skip
def test_settings_that_are_wrong(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(HwsimError) as error:
        analog_settings(name, **changes)
    assert str(error.value) == message
