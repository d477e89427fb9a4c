"""Codes against onnxruntime with its optimisations off. Needs onnx and onnxruntime, which are extras."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hwsim.execute.reference.linear import depthwise_conv, integer_sums, linear
from hwsim.execute.reference.pointwise import add, multiply
from hwsim.execute.semantics import PROFILES
from hwsim.numerics.calibration import MinMax
from hwsim.numerics.quantizers import Quantizer
from hwsim.validate.oracles.onnxruntime_products import session

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

ROWS, DEPTH, CHANNELS = 1024, 64, 1024
TYPES = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int8): TensorProto.INT8,
         np.dtype(np.uint8): TensorProto.UINT8, np.dtype(np.int32): TensorProto.INT32,
         np.dtype(np.int16): TensorProto.INT16, np.dtype(np.uint16): TensorProto.UINT16}  # fmt: skip
ZERO_POINTS = [(0, 0, 0), (3, -7, 5), (-128, 127, -1)]


def model(operator: str, inputs: dict[str, np.ndarray], outputs: list[Any], **attributes: Any) -> Any:
    """A graph of one node; `domain` is an attribute of it too."""
    node = helper.make_node(operator, list(inputs), [f"y{i}" for i in range(len(outputs))], **attributes)
    ins = [helper.make_tensor_value_info(name, TYPES[a.dtype], a.shape) for name, a in inputs.items()]
    outs = [helper.make_tensor_value_info(f"y{i}", TYPES[np.dtype(kind)], None) for i, kind in enumerate(outputs)]
    graph = helper.make_graph([node], "g", ins, outs)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)], ir_version=10
    )


def run(operator: str, inputs: dict[str, np.ndarray], outputs: list[Any], **attributes: Any) -> list[np.ndarray]:
    content = model(operator, inputs, outputs, **attributes).SerializeToString()
    return [np.asarray(y) for y in session(content).run(None, {name: np.asarray(a) for name, a in inputs.items()})]


def quantizers(zeros: tuple[int, int, int], scales: tuple[Any, Any, Any]) -> list[Quantizer]:
    return [
        Quantizer(np.asarray(scale), 8, np.asarray(zero), precision="float32")
        for zero, scale in zip(zeros, scales, strict=True)
    ]


def matmul_inputs(x: np.ndarray, w: np.ndarray, input: Quantizer, weights: Quantizer, output: Quantizer) -> Any:
    channels = weights.scale.reshape(-1)
    return {
        "a": x.astype(np.int8), "a_scale": input.scale, "a_zero": input.zero_point.astype(np.int8),
        "b": w.astype(np.int8), "b_scale": channels if channels.size > 1 else weights.scale,
        "b_zero": np.broadcast_to(weights.zero_point.astype(np.int8), weights.scale.shape).copy(),
        "y_scale": output.scale, "y_zero": output.zero_point.astype(np.int8),
    }  # fmt: skip


@pytest.mark.parametrize("zeros", ZERO_POINTS)
@pytest.mark.parametrize("tie_grid", [False, True])
def test_qlinear_matmul(zeros: tuple[int, int, int], tie_grid: bool) -> None:
    """1,048,576 codes each; on the tie grid the scales are powers of two and an eighth of the sums are ties."""
    rng = np.random.default_rng(abs(sum(zeros)) + tie_grid)
    x = rng.integers(-128, 128, (ROWS, DEPTH))
    w = rng.integers(-128, 128, (DEPTH, CHANNELS))
    if tie_grid:
        x, w = np.clip(x, -11, 11) + zeros[0], np.clip(w, -11, 11) + zeros[1]
        x, w = np.clip(x, -128, 127), np.clip(w, -128, 127)
    scales = (2.0**-4, 2.0**-5, 2.0**-6) if tie_grid else (0.0173, 0.0091, 1.31)
    parts = quantizers(zeros, scales)
    codes = linear(x, w, *parts, semantics=PROFILES["onnx"])
    (expected,) = run("QLinearMatMul", matmul_inputs(x, w, *parts), [np.int8])
    np.testing.assert_array_equal(codes, expected)
    if tie_grid:
        swapped = linear(x, w, *parts, semantics=replace(PROFILES["onnx"], ties="half_away"))
        assert (swapped != expected).any()


def test_qlinear_matmul_per_channel() -> None:
    rng = np.random.default_rng(3)
    x, w = rng.integers(-128, 128, (ROWS, DEPTH)), rng.integers(-128, 128, (DEPTH, CHANNELS))
    parts = quantizers((3, 0, -5), (0.02, rng.uniform(0.003, 0.02, CHANNELS), 0.97))
    codes = linear(x, w, *parts, semantics=PROFILES["onnx"])
    (expected,) = run("QLinearMatMul", matmul_inputs(x, w, *parts), [np.int8])
    np.testing.assert_array_equal(codes, expected)


def test_the_reference_evaluator_adds_an_odd_zero_point_before_rounding() -> None:
    """Two ONNX implementations differ at ties; the field `zero_point` is the difference."""
    rng = np.random.default_rng(4)
    x, w = rng.integers(-11, 12, (64, 16)), rng.integers(-11, 12, (16, 64))
    parts = quantizers((0, 0, 5), (2.0**-4, 2.0**-5, 2.0**-6))
    inputs = matmul_inputs(x, w, *parts)
    (expected,) = ReferenceEvaluator(model("QLinearMatMul", inputs, [np.int8])).run(None, inputs)
    before = replace(PROFILES["onnx"], zero_point="before")
    np.testing.assert_array_equal(linear(x, w, *parts, semantics=before), expected)
    assert (linear(x, w, *parts, semantics=PROFILES["onnx"]) != expected).any()


@pytest.mark.parametrize(("kind", "zeros"), [(np.uint8, (3, -7)), (np.int8, (-128, 127)), (np.uint8, (255, -128))])
def test_matmul_integer(kind: Any, zeros: tuple[int, int]) -> None:
    rng = np.random.default_rng(5)
    signed = kind is np.int8
    low = -128 if signed else 0
    x, w = rng.integers(low, low + 256, (ROWS, DEPTH)), rng.integers(-128, 128, (DEPTH, CHANNELS))
    x[0], w[:, 0] = low, -128
    input = Quantizer(np.asarray(1.0), 8, np.asarray(zeros[0]), signed=signed)
    weights = Quantizer(np.asarray(1.0), 8, np.asarray(zeros[1]))
    inputs = {"a": x.astype(kind), "b": w.astype(np.int8), "az": np.asarray(zeros[0], kind),
              "bz": np.asarray(zeros[1], np.int8)}  # fmt: skip
    (expected,) = run("MatMulInteger", inputs, [np.int32])
    np.testing.assert_array_equal(integer_sums(x, w, input, weights)[0], expected)


def tie_values(scale: np.float32, count: int) -> np.ndarray:
    """Products of k + 1/2 with the scale, their neighbours, and noise: float32 (count,)."""
    rng = np.random.default_rng(6)
    grid = (np.arange(-400, 400) + 0.5).astype(np.float32) * scale
    near = [grid, np.nextafter(grid, np.float32(np.inf)), np.nextafter(grid, np.float32(-np.inf))]
    noise = (rng.standard_normal(count - 3 * grid.size) * 100 * scale).astype(np.float32)
    return np.concatenate([*near, noise])


@pytest.mark.parametrize(
    ("kind", "bits", "zero"),
    [(np.int8, 8, 5), (np.uint8, 8, 131), (np.int8, 8, 0), (np.int16, 16, -3), (np.uint16, 16, 7)],
)
@pytest.mark.parametrize("scale", [0.1, 0.0173, 2.0**-5, 1 / 3])
def test_quantize_and_dequantize_linear(kind: Any, bits: int, zero: int, scale: float) -> None:
    """2^20 values each, 2,400 of them ties of the scale or beside one."""
    step = np.float32(scale)
    x = tie_values(step, 1 << 20)
    quantizer = Quantizer(step, bits, np.asarray(zero), signed=np.dtype(kind).kind == "i", precision="float32")
    (expected,) = run("QuantizeLinear", {"x": x, "s": step, "z": np.asarray(zero, kind)}, [kind])
    codes = quantizer.quantize(x)
    np.testing.assert_array_equal(codes, expected)
    if scale == 0.1:
        assert (replace(quantizer, form="reciprocal").quantize(x) != expected).any()
        assert (replace(quantizer, ties="half_up").quantize(x) != expected).any()
    (values,) = run("DequantizeLinear", {"x": expected, "s": step, "z": np.asarray(zero, kind)}, [np.float32])
    np.testing.assert_array_equal(quantizer.dequantize(codes), values)


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (-3, 0.1), (0.2, 5), (-2, -1), (0, 0)])
def test_dynamic_quantize_linear(low: float, high: float) -> None:
    x = np.random.default_rng(7).uniform(low, high, 1 << 20).astype(np.float32)
    codes, scale, zero = run("DynamicQuantizeLinear", {"x": x}, [np.uint8, np.float32, np.uint8])
    quantizer = MinMax(8, symmetric=False, signed=False, precision="float32").calibrate(x)
    assert quantizer.scale == scale
    assert quantizer.zero_point == zero
    np.testing.assert_array_equal(quantizer.quantize(x), codes)


@pytest.mark.parametrize("scales", [(2.0**-5, 2.0**-6, 2.0**-5), (0.031, 0.011, 0.11)])
def test_qlinear_conv_depthwise(scales: tuple[float, float, float]) -> None:
    """1,024,000 codes each of a causal kernel of 15 over 64 channels, with bias and odd zero points."""
    rng = np.random.default_rng(8)
    x, w = rng.integers(-128, 128, (16_000, 64)), rng.integers(-127, 128, (15, 64))
    bias = rng.integers(-9000, 9000, 64)
    parts = quantizers((3, 0, 5), scales)
    inputs = {
        "x": x.T[None, :, None].astype(np.int8), "xs": parts[0].scale, "xz": np.asarray(3, np.int8),
        "w": w.T[:, None, None].astype(np.int8), "ws": parts[1].scale, "wz": np.asarray(0, np.int8),
        "ys": parts[2].scale, "yz": np.asarray(5, np.int8), "b": bias.astype(np.int32),
    }  # fmt: skip
    (expected,) = run("QLinearConv", inputs, [np.int8], group=64, pads=[0, 14, 0, 0])
    real = bias * (parts[0].scale.astype(np.float64) * parts[1].scale.astype(np.float64))
    codes = depthwise_conv(x, w, *parts, bias=real, semantics=PROFILES["onnx"], left=14)
    np.testing.assert_array_equal(codes, expected[0, :, 0].T)


@pytest.mark.parametrize("scales", [(2.0**-5, 2.0**-6, 2.0**-6), (0.031, 0.017, 0.02)])
def test_elementwise(scales: tuple[float, float, float]) -> None:
    """Every pair of int8 codes. QLinearMul adds the zero point before rounding, unlike QLinearMatMul."""
    a, b = np.meshgrid(np.arange(-128, 128), np.arange(-128, 128))
    parts = quantizers((3, -7, 5), scales)
    names = iter("abc")
    inputs: dict[str, np.ndarray] = {}
    for codes, part in zip((a, b, None), parts, strict=True):
        name = next(names)
        inputs |= {} if codes is None else {name: codes.astype(np.int8)}
        inputs |= {f"{name}s": part.scale, f"{name}z": part.zero_point.astype(np.int8)}
    (expected,) = run("QLinearMul", inputs, [np.int8], domain="com.microsoft")
    before = replace(PROFILES["onnx"], zero_point="before")
    np.testing.assert_array_equal(multiply(a, b, *parts, before), expected)
    assert (multiply(a, b, *parts, PROFILES["onnx"]) != expected).any() == (scales[0] == 2.0**-5)

    reals = [run("DequantizeLinear", {k: inputs[k] for k in (n, n + "s", n + "z")}, [np.float32])[0] for n in "ab"]
    summed = {"x": reals[0] + reals[1], "s": inputs["cs"], "z": inputs["cz"]}
    np.testing.assert_array_equal(add(a, b, *parts), run("QuantizeLinear", summed, [np.int8])[0])
