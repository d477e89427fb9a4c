"""Codes against LiteRT's int8 kernels, one resolver per profile. Needs ai-edge-litert, which is an extra."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")
from hwsim.execute.reference.linear import linear
from hwsim.execute.reference.lstm_8x8_16 import Int8Tensor, Lstm8x8x16
from hwsim.execute.semantics import PROFILES, Semantics
from hwsim.numerics.quantizers import Quantizer
from hwsim.validate.oracles import litert_models as litert

ROWS, DEPTH, CHANNELS = 1024, 64, 1024
RESOLVERS = [name for name in litert.RESOLVERS if name != "tflite-lstm"]
LIMITS = {"int8": 127, "int4": 7, "int2": 1}


def layer(kind: str, grid: str) -> dict[str, Any]:
    """Codes and scales; on the tie grid scales are powers of two and many sums times the multiplier are ties."""
    rng = np.random.default_rng(LIMITS[kind])
    limit = LIMITS[kind]
    ties = grid == "ties"
    scale = {"tensor": 0.011, "channel": rng.uniform(0.005, 0.02, CHANNELS), "ties": 2.0**-6}[grid]
    return {
        "x": rng.integers(-128, 128, (ROWS, DEPTH)),
        "w": rng.integers(-limit, limit + 1, (DEPTH, CHANNELS)),
        "bias": rng.integers(-3000 // (128 // limit), 3000 // (128 // limit), CHANNELS),
        "x_scale": np.float32(2.0**-5 if ties else 0.0237), "x_zero": 3,
        "w_scale": np.asarray(scale, np.float32),
        "y_scale": np.float32(2.0**-4 * limit / 8 if ties and limit > 4 else 0.0025 * limit if not ties else 2.0**-7),
        "y_zero": -5,
    }  # fmt: skip


def ours(case: dict[str, Any], semantics: Semantics) -> np.ndarray:
    input = Quantizer(case["x_scale"].astype(np.float64), 8, np.asarray(case["x_zero"]))
    weights = Quantizer(case["w_scale"].astype(np.float64), 8)
    output = Quantizer(case["y_scale"].astype(np.float64), 8, np.asarray(case["y_zero"]))
    bias = case["bias"] * (input.scale * weights.scale)
    return linear(case["x"], case["w"], input, weights, output, bias, semantics)


def theirs(case: dict[str, Any], kind: str, profile: str) -> np.ndarray:
    content = litert.fully_connected(
        ROWS, case["w"], kind, case["x_scale"], case["x_zero"], case["w_scale"], case["bias"],
        case["y_scale"], case["y_zero"],
    )  # fmt: skip
    return litert.run(content, case["x"].astype(np.int8), profile)


@pytest.mark.parametrize("grid", ["tensor", "channel", "ties"])
@pytest.mark.parametrize("kind", ["int8", "int4", "int2"])
@pytest.mark.parametrize("profile", RESOLVERS)
def test_fully_connected(profile: str, kind: str, grid: str) -> None:
    """1,048,576 codes each. The default resolver leaves int2 weights with one scale to ruy."""
    case = layer(kind, grid)
    rules = profile if kind != "int2" or profile != "tflite-xnnpack" or grid == "channel" else "tflite-ruy"
    expected = theirs(case, kind, profile)
    assert len(np.unique(expected)) > 50
    np.testing.assert_array_equal(ours(case, PROFILES[rules]), expected)


@pytest.mark.parametrize("profile", RESOLVERS)
def test_a_swapped_rule_is_seen(profile: str) -> None:
    case = layer("int4", "ties")
    expected = theirs(case, "int4", profile)
    for other in {"half_even", "half_away", "half_up", "toward_zero"} - {PROFILES[profile].ties}:
        assert (ours(case, replace(PROFILES[profile], ties=other)) != expected).any(), other
    for other in set(RESOLVERS) - {profile}:
        assert (ours(case, PROFILES[other]) != expected).any(), other


def test_the_reference_kernel_has_a_53_bit_multiplier() -> None:
    """(1 - 2^-40) / 2 is no tie in float64, and is one with a 31-bit mantissa and in float32."""
    x = np.arange(-128, 128).reshape(-1, 4)
    case = {
        "x": x, "w": np.eye(4, dtype=np.int64), "bias": np.zeros(4, np.int64), "x_scale": np.float32(1 + 2.0**-20),
        "x_zero": 0, "w_scale": np.float32(0.5 * (1 - 2.0**-20)), "y_scale": np.float32(1), "y_zero": 0,
    }  # fmt: skip
    content = litert.fully_connected(
        len(x), case["w"], "int8", case["x_scale"], 0, case["w_scale"], case["bias"], 1.0, 0
    )
    for profile in RESOLVERS:
        expected = litert.run(content, x.astype(np.int8), profile)
        np.testing.assert_array_equal(ours(case, PROFILES[profile]), expected)
    reference = litert.run(content, x.astype(np.int8), "tflite-reference")
    fixed = Semantics("x", ties="half_away", requantize="fixed_single", bias="integer")
    assert (ours(case, fixed) != reference).any()


def random_lstm(seed: int, depth: int, cells: int, cell_shift: int) -> Lstm8x8x16:
    rng = np.random.default_rng(seed)

    def scales(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, 4).astype(np.float32).astype(np.float64)

    return Lstm8x8x16(
        wx=rng.integers(-127, 128, (4, depth, cells)), wh=rng.integers(-127, 128, (4, cells, cells)),
        wx_scale=scales(0.001, 0.004), wh_scale=scales(0.001, 0.006), bias=rng.integers(-3000, 3000, (4, cells)),
        input=Int8Tensor(float(np.float32(0.03)), -7), hidden=Int8Tensor(float(np.float32(1 / 120)), 5),
        cell_shift=cell_shift,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "rows", "cells", "cell_shift"), [(200, 64, 96, 11), (400, 4, 64, 9), (50, 1, 32, 15)]
)
def test_lstm_8x8_16(steps: int, rows: int, cells: int, cell_shift: int) -> None:
    """1,228,800 hidden codes in the largest case, free running, hidden zero point 5."""
    ours = random_lstm(cell_shift, 40, cells, cell_shift)
    x = np.random.default_rng(steps).integers(-128, 128, (steps, rows, 40))
    expected = litert.run(litert.lstm(steps, rows, ours), x.astype(np.int8), "tflite-ruy")
    assert expected.std() > 5
    np.testing.assert_array_equal(ours.run(x)[0], expected)


def test_lstm_ties_of_the_cell_update() -> None:
    """An input gate of exactly 1/2 and a cell in steps of 2^-15: every odd tanh code is a tie of the update."""
    ours = random_lstm(3, 40, 64, 15)
    still = np.array([0, 1, 1, 1])[:, None, None]
    ours = replace(ours, wx=ours.wx * still, wh=ours.wh * still, bias=ours.bias * still[:, 0])
    x = np.random.default_rng(4).integers(-128, 128, (100, 32, 40))
    expected = litert.run(litert.lstm(100, 32, ours), x.astype(np.int8), "tflite-ruy")
    np.testing.assert_array_equal(ours.run(x)[0], expected)


@pytest.mark.parametrize("swap", ["ties", "requantize", "gates", "cell"])
def test_a_swapped_lstm_rule_is_seen(swap: str) -> None:
    ours = random_lstm(1, 40, 64, 11)
    x = np.random.default_rng(2).integers(-128, 128, (100, 8, 40))
    expected = litert.run(litert.lstm(100, 8, ours), x.astype(np.int8), "tflite-ruy")
    order = [1, 0, 2, 3]
    changed = {
        "ties": replace(ours, semantics=replace(ours.semantics, ties="half_up")),
        "requantize": replace(ours, semantics=replace(ours.semantics, requantize="fixed_single")),
        "gates": replace(ours, wx=ours.wx[order], wh=ours.wh[order]),
        "cell": replace(ours, cell_shift=12),
    }[swap]
    assert (changed.run(x)[0] != expected).any()
