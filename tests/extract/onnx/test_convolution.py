"""Convolutions over time: codes equal to onnxruntime's QLinearConv."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwsim.extract.onnx import read_onnx
from hwsim.trace import Kind
from tests.extract.onnx.models import F32, FLOAT, I8, U8, UINT8, Model, computed, executed

FRAMES = 400


def convolution(model: Model, rng: np.random.Generator, value: str, name: str, grids: Any, shape: tuple[int, int, int],
                **more: Any) -> str:  # fmt: skip
    weight = model.constant(f"{name}_w", rng.integers(-127, 128, shape).astype(I8))
    scales = model.constant(f"{name}_s", rng.uniform(0.001, 0.004, shape[0]).astype(F32))
    zeros = model.constant(f"{name}_z", np.zeros(shape[0], I8))
    bias = model.constant(f"{name}_b", rng.integers(-9000, 9000, shape[0]).astype(np.int32))
    return model.add("QLinearConv", [value, *grids[0], weight, scales, zeros, *grids[1], bias], name, **more)


def test_a_stack_of_qlinear_conv(tmp_path: Path) -> None:
    """Dense with stride, then depthwise and causal, then over single frames."""
    rng = np.random.default_rng(0)
    model = Model({"x": (UINT8, [1, 40, "T"])})
    grids = [model.grid(f"g{at}", 0.031 + 0.02 * at, U8(121 + 3 * at)) for at in range(4)]
    value = convolution(model, rng, "x", "/conv0/Conv", grids[0:2], (96, 40, 5), strides=[2], pads=[2, 2])
    value = convolution(model, rng, value, "/conv1/Conv", grids[1:3], (96, 1, 15), group=96, pads=[14, 0])
    value = convolution(model, rng, value, "/conv2/Conv", grids[2:4], (64, 96, 1))
    path = model.save(tmp_path, value)
    network = read_onnx(path, {"T": FRAMES})
    assert list(network.trace.kind) == [Kind.CONV1D, Kind.DEPTHWISE, Kind.CONV1D]
    assert list(network.trace.m) == [200, 200, 200]
    assert network.trace.attributes["conv1.Conv"] == {"padding": [14, 0], "stride": 1}
    shapes = {tensor.name: tensor.shape for tensor in network.trace.tensors}
    assert shapes["input.x"] == (FRAMES, 40)
    assert shapes["conv0.Conv.weight"] == (5, 40, 96)
    assert shapes["conv1.Conv.weight"] == (15, 96)
    inputs = {"input.x": rng.integers(0, 256, (FRAMES, 40)).astype(U8)}
    expected, got = computed(path, network, inputs), executed(network, inputs)
    for name, codes in expected.items():
        assert len(np.unique(codes)) > 50
        np.testing.assert_array_equal(got[name], codes)


@pytest.mark.parametrize(("automatic", "padding"), [("SAME_UPPER", [1, 2]), ("SAME_LOWER", [2, 1]), ("VALID", [0, 0])])
def test_automatic_padding(tmp_path: Path, automatic: str, padding: list[int]) -> None:
    rng = np.random.default_rng(1)
    model = Model({"x": (UINT8, [1, 8, 31])})
    grids = [model.grid("a", 0.03, U8(7)), model.grid("b", 0.05, U8(9))]
    path = model.save(tmp_path, convolution(model, rng, "x", "c", grids, (8, 8, 4), auto_pad=automatic))
    network = read_onnx(path)
    assert network.trace.attributes["c"]["padding"] == padding
    inputs = {"input.x": rng.integers(0, 256, (31, 8)).astype(U8)}
    np.testing.assert_array_equal(executed(network, inputs)["c.out"], computed(path, network, inputs)["c.out"])


def test_conv_integer_with_its_scale_and_bias(tmp_path: Path) -> None:
    """Frames come first in the file; the sums become reals by Cast, Mul and Add."""
    rng = np.random.default_rng(2)
    model = Model({"x": (FLOAT, [1, 50, 12])})
    grid = model.grid("x", 0.0173, U8(131))
    value = model.add("Transpose", [model.add("QuantizeLinear", ["x", *grid], "q")], "t", perm=[0, 2, 1])
    weight = model.constant("w", rng.integers(-127, 128, (16, 12, 3)).astype(I8))
    value = model.add("ConvInteger", [value, weight, grid[1]], "c", pads=[1, 1])
    scale = model.constant("s", rng.uniform(1e-5, 1e-4, (1, 16, 1)).astype(F32))
    bias = model.constant("b", rng.standard_normal((16, 1)).astype(F32))
    value = model.add("Cast", [value], "cast", to=FLOAT)
    value = model.add("Add", [model.add("Mul", [value, scale], "mul"), bias], "add")
    path = model.save(tmp_path, value)
    network = read_onnx(path)
    assert network.outputs == {"c.out": "add:0"}
    assert network.trace.layers == ("input", "c")
    inputs = {"input.x": rng.standard_normal((50, 12)).astype(F32)}
    got, expected = executed(network, inputs)["c.out"], computed(path, network, inputs)["c.out"]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert got.std() > 0.5
