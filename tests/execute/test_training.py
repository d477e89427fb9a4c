"""Integer execution against the fake-quantized graph in float64: not one code may differ.

The graphs here are written apart from the code under test: reals on both sides of every product, no integers.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwsim.execute.reference.linear import depthwise_conv, linear, unfold
from hwsim.execute.reference.recurrent import (
    GruLayer,
    IntegerProjection,
    LstmLayer,
    Pointwise,
    run_bidirectional,
    run_layer,
    with_semantics,
)
from hwsim.execute.semantics import TRAINING, Semantics
from hwsim.numerics.calibration import BoundAware, MinMax, NativeQat, Pact, Sawb
from hwsim.numerics.quantizers import Quantizer
from hwsim.numerics.tables import build_table, fixed_table, grid, sigmoid

ROWS, DEPTH, CHANNELS = 1024, 160, 1024


def tensors(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((ROWS, DEPTH)), rng.standard_normal((DEPTH, CHANNELS)) * 0.1,
            rng.standard_normal(CHANNELS))  # fmt: skip


def power_of_two(step: float, bits: int = 8, zero: int = 0) -> Quantizer:
    return Quantizer(np.asarray(step), bits, np.asarray(zero))


def setups() -> dict[str, tuple[Quantizer, Quantizer, Quantizer]]:
    x, w, _ = tensors()
    groups = np.abs(w.reshape(5, 32, CHANNELS)).max(axis=1) / 7
    return {
        "sawb-bac": (BoundAware(1.25).calibrate(), Sawb().calibrate(w), BoundAware(4.0).calibrate()),
        "native": (NativeQat(8).calibrate(x), NativeQat(4, axis=1).calibrate(w), NativeQat(8).calibrate(3 * x)),
        "affine": (MinMax(8, symmetric=False).calibrate(x), MinMax(8, axis=1).calibrate(w),
                   MinMax(8, symmetric=False).calibrate(3 * x)),
        "affine weights": (Pact(-1, 2).calibrate(), MinMax(8, symmetric=False, axis=1).calibrate(w),
                           MinMax(8, symmetric=False).calibrate(3 * x)),
        "groups": (MinMax(8).calibrate(x), Quantizer(groups, 4, narrow=True, group_size=32),
                   MinMax(8).calibrate(3 * x)),
        "powers of two": (power_of_two(2.0**-5), power_of_two(2.0**-6, 4), power_of_two(2.0**-7)),
        "powers of two, odd zero points": (power_of_two(2.0**-5, zero=3), power_of_two(2.0**-6, 4, 1),
                                           power_of_two(2.0**-7, zero=5)),
        "int16 activations": (power_of_two(2.0**-12, 16), Sawb().calibrate(w), power_of_two(2.0**-11, 16)),
    }  # fmt: skip


SETUPS = setups()


def on_grid(bias: np.ndarray, input: Quantizer, weights: Quantizer) -> np.ndarray:
    step = float(input.scale) * float(weights.scale.flat[0])
    return np.rint(bias / step) * step


@pytest.mark.parametrize("name", SETUPS)
def test_linear(name: str) -> None:
    """1,048,576 codes in each setup; with powers of two thousands of them are exact ties."""
    x, w, bias = tensors()
    input, weights, output = SETUPS[name]
    bias = on_grid(bias, input, weights) if "powers" in name else bias
    values = input.fake_quantize(x) @ weights.fake_quantize(w) + bias
    expected = output.quantize(values)
    assert len(np.unique(expected)) > 10
    codes = linear(input.quantize(x), weights.quantize(w), input, weights, output, bias)
    assert np.count_nonzero(codes != expected) == 0
    if "powers" in name:
        assert np.count_nonzero(np.abs(values / output.scale) % 1 == 0.5) > 10_000


@pytest.mark.parametrize(
    ("changed", "semantics"),
    [
        ({"ties": "half_away"}, TRAINING),
        ({"ties": "half_up"}, TRAINING),
        ({"ties": "half_down"}, TRAINING),
        ({"ties": "toward_zero"}, TRAINING),
        ({"zero_point_order": "before"}, TRAINING),
        ({}, Semantics("narrow", accumulator_bits=16)),
        ({}, Semantics("narrow", accumulator_bits=16, overflow="saturate")),
        ({}, Semantics("narrow", accumulator_bits=16, overflow="saturate", accumulator_chunk=80)),
    ],
)
def test_a_swapped_linear_rule_is_seen(changed: dict[str, str], semantics: Semantics) -> None:
    x, w, bias = tensors()
    input, weights, output = SETUPS["powers of two, odd zero points"]
    weights = replace(weights, scale=weights.scale / 8, bits=8)
    output = replace(output, scale=output.scale / 8)
    bias = on_grid(bias, input, weights)
    expected = output.quantize(input.fake_quantize(4 * x) @ weights.fake_quantize(w) + bias)
    arguments = input.quantize(4 * x), weights.quantize(w), input, weights
    assert np.array_equal(linear(*arguments, output, bias), expected)
    assert not np.array_equal(linear(*arguments, replace(output, **changed), bias, semantics), expected)


def test_the_order_of_saturation_depends_on_the_chunk() -> None:
    """Saturation is not associative: the chunk is part of the meaning, not of the speed."""
    rng = np.random.default_rng(0)
    x, w = rng.integers(-128, 128, (64, 256)), rng.integers(-128, 128, (256, 64))
    unit = power_of_two(1.0, 8)
    out = power_of_two(2.0**10, 8)
    results = {
        chunk: linear(x, w, unit, unit, out, semantics=Semantics("x", accumulator_bits=16, overflow="saturate",
                                                                 accumulator_chunk=chunk)).tobytes()
        for chunk in (0, 8, 32)
    }  # fmt: skip
    assert len(set(results.values())) == 3


def test_convolutions() -> None:
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((500, 64)), rng.standard_normal((15, 64))
    input, weights = MinMax(8, symmetric=False).calibrate(x), MinMax(8, axis=1).calibrate(w)
    output = MinMax(8).calibrate(4 * x)
    padded = np.pad(input.fake_quantize(x), ((14, 0), (0, 0)))
    expected = output.quantize(sum(padded[k : k + 500] * weights.fake_quantize(w)[k] for k in range(15)))
    codes = depthwise_conv(input.quantize(x), weights.quantize(w), input, weights, output, left=14)
    np.testing.assert_array_equal(codes, expected)

    full = rng.standard_normal((3 * 64, 32))
    matrix = MinMax(4, axis=1).calibrate(full)
    rows = unfold(input.quantize(x), 3, stride=2, left=1, right=1, fill=int(input.zero_point))
    around = np.pad(input.fake_quantize(x), ((1, 1), (0, 0)))
    real = np.stack([around[t : t + 3].reshape(-1) for t in range(0, 500, 2)])
    np.testing.assert_array_equal(
        linear(rows, matrix.quantize(full), input, matrix, output),
        output.quantize(real @ matrix.fake_quantize(full)),
    )


def recurrent_weights(seed: int, inputs: int, cells: int, gates: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    bound = 1.5 / np.sqrt(cells)
    shapes = ((inputs, gates * cells), (cells, gates * cells), (gates * cells,), (gates * cells,))
    return tuple(rng.uniform(-bound, bound, shape) for shape in shapes)


def projections(
    weights: tuple[np.ndarray, ...], input: Quantizer, hidden: Quantizer
) -> tuple[IntegerProjection, IntegerProjection]:
    wx, wh, bx, bh = weights
    qx, qh = Sawb().calibrate(wx), Sawb().calibrate(wh)
    return (IntegerProjection(qx.quantize(wx), input, qx, bx), IntegerProjection(qh.quantize(wh), hidden, qh, bh))


def lstm_graph(weights: tuple[np.ndarray, ...], x: np.ndarray, input: Quantizer, point: Pointwise) -> np.ndarray:
    """The training graph of an LSTM in reals: (T, rows, K) -> hidden codes (T, rows, H)."""
    wx, wh, bx, bh = weights
    wx, wh = Sawb().calibrate(wx).fake_quantize(wx), Sawb().calibrate(wh).fake_quantize(wh)
    sigma, tangent, hidden, cell = point.sigmoid, point.tanh, point.hidden, point.cell
    assert hidden is not None
    h = c = np.zeros((x.shape[1], wh.shape[0]))
    outputs = []
    for frame in input.fake_quantize(x):
        i, f, g, o = np.split((frame @ wx + h @ wh) + (bx + bh), 4, axis=1)
        c = sigma(i) * tangent(g) + sigma(f) * c
        c = c if cell is None else cell.fake_quantize(c)
        h = hidden.fake_quantize(sigma(o) * tangent(c))
        outputs.append(hidden.quantize(h))
    return np.stack(outputs)


@pytest.mark.parametrize("cell", [None, power_of_two(2.0**-11, 16)], ids=["float64 cell", "int16 cell"])
def test_lstm_free_running(cell: Quantizer | None) -> None:
    """400 steps of 16 rows by 160 cells in each direction: 2,048,000 hidden codes, SAWB and BAC in 4 bits."""
    steps, rows, inputs, cells = 400, 16, 80, 160
    x = np.random.default_rng(5).standard_normal((steps, rows, inputs))
    input, hidden = BoundAware(1.25).calibrate(), BoundAware(1.0).calibrate()
    both = [recurrent_weights(seed, inputs, cells, 4) for seed in (6, 7)]
    point = Pointwise(hidden=hidden, cell=cell)
    layers = [LstmLayer(*projections(w, input, hidden), point) for w in both]
    codes = hidden.quantize(run_bidirectional(*layers, input.fake_quantize(x)))
    forward = lstm_graph(both[0], x, input, point)
    backward = lstm_graph(both[1], x[::-1], input, point)[::-1]
    expected = np.concatenate([forward, backward], axis=-1)
    assert len(np.unique(expected)) > 8
    assert np.count_nonzero(codes != expected) == 0


def exact_lstm() -> tuple[LstmLayer, np.ndarray, np.ndarray]:
    """A layer on grids of powers of two, where ties are common; its input values; the hidden codes of its graph."""
    x = np.random.default_rng(8).standard_normal((120, 4, 40)) * 0.5
    input, hidden, cell = power_of_two(2.0**-4), power_of_two(2.0**-6), power_of_two(2.0**-8, 16)
    weights = recurrent_weights(9, 40, 64, 4)
    coarse = {name: fixed_table(name, output_step=2.0**-4) for name in ("sigmoid", "tanh")}
    point = Pointwise(**coarse, hidden=hidden, cell=cell)
    layer = LstmLayer(*projections(weights, input, hidden), point)
    return layer, input.fake_quantize(x), lstm_graph(weights, x, input, point)


def swapped(layer: LstmLayer, swap: str) -> LstmLayer:
    point = layer.pointwise
    assert point.hidden is not None
    assert point.cell is not None
    match swap:
        case "gates":
            return replace(layer, gate_order="igfo")
        case "cell ties":
            return replace(layer, pointwise=replace(point, cell=replace(point.cell, ties="half_away")))
        case "hidden ties":
            return replace(layer, pointwise=replace(point, hidden=replace(point.hidden, ties="half_away")))
        case "table ties":
            return replace(
                layer, pointwise=replace(point, sigmoid=fixed_table("sigmoid", output_step=2.0**-4, ties="toward_zero"))
            )
        case "cell":
            return replace(layer, pointwise=replace(point, cell=None))
    return layer


@pytest.mark.parametrize("swap", ["gates", "cell ties", "hidden ties", "table ties", "cell", "direction"])
def test_a_swapped_lstm_rule_is_seen(swap: str) -> None:
    layer, values, expected = exact_lstm()
    hidden = layer.pointwise.hidden
    assert hidden is not None
    assert np.array_equal(hidden.quantize(run_layer(layer, values)[0]), expected)
    outputs = run_layer(swapped(layer, swap), values, reverse=swap == "direction")[0]
    assert not np.array_equal(hidden.quantize(outputs), expected)


def test_a_narrow_accumulator_changes_an_lstm() -> None:
    layer, values, _ = exact_lstm()
    assert isinstance(layer.input, IntegerProjection)
    wide = replace(layer, input=replace(layer.input, input=power_of_two(2.0**-14, 16)))
    narrow = with_semantics(wide, Semantics("narrow", accumulator_bits=16))
    assert not np.array_equal(run_layer(wide, values)[0], run_layer(narrow, values)[0])


def test_gru_free_running() -> None:
    steps, rows, inputs, cells = 400, 8, 40, 64
    x = np.random.default_rng(10).standard_normal((steps, rows, inputs))
    input, hidden = BoundAware(1.25).calibrate(), BoundAware(1.0, bits=8).calibrate()
    weights = recurrent_weights(11, inputs, cells, 3)
    layer = GruLayer(*projections(weights, input, hidden), Pointwise(hidden=hidden))
    codes = hidden.quantize(run_layer(layer, input.fake_quantize(x))[0])

    wx, wh, bx, bh = weights
    wx, wh = Sawb().calibrate(wx).fake_quantize(wx), Sawb().calibrate(wh).fake_quantize(wh)
    sigma, tangent = fixed_table("sigmoid"), fixed_table("tanh")
    h = np.zeros((rows, cells))
    for t, frame in enumerate(input.fake_quantize(x)):
        xr, xz, xn = np.split(frame @ wx + bx, 3, axis=1)
        hr, hz, hn = np.split(h @ wh + bh, 3, axis=1)
        r, z = sigma(xr + hr), sigma(xz + hz)
        h = hidden.fake_quantize((1 - z) * tangent(xn + r * hn) + z * h)
        assert np.count_nonzero(codes[t] != hidden.quantize(h)) == 0


def test_a_table_is_the_function_on_its_grid() -> None:
    table = build_table("sigmoid", sigmoid, grid(2.0**-4, 8), grid(2.0**-8, 8, signed=False))
    codes = np.arange(-128, 128)
    np.testing.assert_array_equal(table.lookup(codes), np.clip(np.rint(256 / (1 + np.exp(-codes / 16))), 0, 255))
    np.testing.assert_array_equal(table(codes / 16), table.lookup(codes) / 256)
