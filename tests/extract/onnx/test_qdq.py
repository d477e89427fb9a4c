"""Quantize-dequantize graphs: grids between operators on reals, against onnxruntime's float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwsim.extract.onnx import read_onnx
from hwsim.trace import Kind
from tests.extract.onnx.models import F32, FLOAT, I8, INT64, U8, Model, TensorProto, computed, executed

ROWS, WIDTH = 256, 128
INT4, UINT4, INT2 = TensorProto.INT4, TensorProto.UINT4, TensorProto.INT2
RANGES = {INT4: (-8, 8), UINT4: (0, 16), INT2: (-2, 2)}
SCALES = {"tensor": (), "channel": (WIDTH,), "group32": (WIDTH // 32, WIDTH)}


def within(got: np.ndarray, expected: np.ndarray, share: float) -> None:
    """Codes one apart at most, and no more of them than a share."""
    delta = np.abs(got.astype(int) - expected)
    assert len(np.unique(expected)) > 20
    assert delta.max() <= 1
    assert np.count_nonzero(delta) <= share * delta.size


def weight(model: Model, rng: np.random.Generator, name: str, kind: int, granularity: str, zeros: bool = False) -> str:
    codes = model.constant(name, rng.integers(*RANGES[kind], (WIDTH, WIDTH)), kind)
    shape = SCALES[granularity]
    scale = model.constant(f"{name}_scale", rng.uniform(0.01, 0.04, shape).astype(F32))
    zero = rng.integers(*RANGES[kind], shape) if zeros else np.zeros(shape, int) + (8 if kind == UINT4 else 0)
    more: dict[str, Any] = {} if granularity == "tensor" else {"axis": 0 if granularity == "group32" else 1}
    more |= {"block_size": 32} if granularity == "group32" else {}
    return model.add("DequantizeLinear", [codes, scale, model.constant(f"{name}_zero", zero, kind)], **more)


@pytest.mark.parametrize(
    ("kind", "granularity", "zeros", "text"),
    [
        (INT4, "tensor", False, "int4"),
        (INT4, "channel", False, "int4/channel"),
        (INT4, "group32", False, "int4/group32"),
        (UINT4, "channel", True, "int4/channel/zp"),
        (UINT4, "group32", True, "int4/group32/zp"),
        (INT2, "channel", False, "int2/channel"),
    ],
)
def test_an_mlp_with_narrow_weights(tmp_path: Path, kind: int, granularity: str, zeros: bool, text: str) -> None:
    rng = np.random.default_rng(0)
    model = Model({"x": (FLOAT, [1, ROWS, WIDTH])}, opset=25 if kind == INT2 else 21)
    value = model.pair("x", "in", 0.0213, U8(121))
    for layer in range(2):
        own = weight(model, rng, f"w{layer}", kind, granularity, zeros)
        bias = model.constant(f"b{layer}", rng.standard_normal(WIDTH).astype(F32))
        value = model.add("Add", [model.add("MatMul", [value, own], f"/fc{layer}/MatMul"), bias], f"/fc{layer}/Add")
        if layer == 0:
            value = model.add("Relu", [value], "/relu")
        value = model.pair(value, f"/after{layer}", 0.0631, U8(3 if layer == 0 else 127))
    path = model.save(tmp_path, value)
    network = read_onnx(path)
    assert network.profile == "training"
    assert network.outputs == {"fc0.MatMul.out": "/fc0/Add:0", "relu.out": "/after0/q:0",
                               "fc1.MatMul.out": "/after1/q:0"}  # fmt: skip
    inputs = {"input.x": rng.standard_normal((ROWS, WIDTH)).astype(F32)}
    expected, got = computed(path, network, inputs), executed(network, inputs)
    np.testing.assert_allclose(got["fc0.MatMul.out"], expected["fc0.MatMul.out"], atol=1e-4)
    within(got["relu.out"], expected["relu.out"], 1e-4)
    forced = executed(network, inputs, forced=expected)
    within(forced["fc1.MatMul.out"], expected["fc1.MatMul.out"], 1e-4)
    formats = {tensor.name: tensor.format for tensor in network.trace.tensors}
    assert formats["fc0.MatMul.weight"] == text
    assert network.codes["fc0.MatMul.weight"].dtype == I8


def test_a_value_read_as_reals_too_is_quantized_apart(tmp_path: Path) -> None:
    """The residual is added before rounding, so the grid belongs to a tensor of its own."""
    rng = np.random.default_rng(1)
    model = Model({"x": (FLOAT, [1, ROWS, WIDTH])})
    first = model.add("Relu", ["x"], "relu")
    own = weight(model, rng, "w", INT4, "channel")
    product = model.add("MatMul", [model.pair(first, "mid", 0.0213, U8(0)), own], "fc")
    total = model.pair(model.add("Add", [product, first], "residual"), "out", 0.0631, U8(127))
    path = model.save(tmp_path, total)
    network = read_onnx(path)
    assert list(network.outputs.items()) == [("relu.out", "relu:0"), ("mid.q.out", "mid/q:0"), ("fc.out", "fc:0"),
                                             ("residual.out", "out/q:0")]  # fmt: skip
    inputs = {"input.x": rng.standard_normal((ROWS, WIDTH)).astype(F32)}
    expected, got = computed(path, network, inputs), executed(network, inputs)
    np.testing.assert_array_equal(got["mid.q.out"], expected["mid.q.out"])
    within(got["residual.out"], expected["residual.out"], 1e-4)


def test_a_gemm_with_integer_bias_and_a_head(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    model = Model({"x": (FLOAT, ["T", WIDTH])})
    value = model.pair("x", "in", 0.0213, U8(121))
    codes = model.constant("w", rng.integers(-127, 128, (29, WIDTH)).astype(I8))
    scale = model.constant("ws", rng.uniform(0.001, 0.004, 29).astype(F32))
    own = model.add("DequantizeLinear", [codes, scale, model.constant("wz", np.zeros(29, I8))], axis=0)
    steps = model.constant("bias", rng.integers(-9000, 9000, 29).astype(np.int32))
    bias = model.add("DequantizeLinear", [steps, model.constant("bs", F32(1e-4))])
    value = model.add("LogSoftmax", [model.add("Gemm", [value, own, bias], "fc", transB=1)], "head", axis=-1)
    path = model.save(tmp_path, value)
    network = read_onnx(path, {"T": ROWS})
    assert list(network.trace.kind) == [Kind.MATMUL, Kind.SOFTMAX]
    inputs = {"input.x": rng.standard_normal((ROWS, WIDTH)).astype(F32)}
    expected, got = computed(path, network, inputs), executed(network, inputs)
    for name in ("fc.out", "head.out"):
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-4, atol=1e-4)


def test_an_embedding_and_matmul_integer(tmp_path: Path) -> None:
    """A table of codes, integer sums with scale and bias, then a grid of their own: onnxruntime's codes."""
    rng = np.random.default_rng(3)
    model = Model({"labels": (INT64, [1, "U"])})
    grid = model.grid("e", 0.0173, U8(131))
    table = model.constant("table", rng.integers(0, 256, (29, WIDTH)).astype(U8))
    row = model.add("Gather", [table, "labels"], "/embed/Gather")
    reals = model.add("DequantizeLinear", [row, *grid], "/embed/dq")
    again = model.grid("f", 0.0211, U8(125))
    codes = model.add("QuantizeLinear", [model.add("Tanh", [reals], "tanh"), *again], "/tanh/q")
    own = model.constant("w", rng.integers(0, 256, (WIDTH, 64)).astype(U8))
    sums = model.add("MatMulInteger", [codes, own, again[1], model.constant("wz", U8(127))], "/fc/MatMulInteger")
    scale = model.constant("s", F32(0.0211 * 0.013))
    value = model.add("Mul", [model.add("Cast", [sums], to=FLOAT), scale])
    value = model.add("Add", [model.constant("b", rng.standard_normal(64).astype(F32)), value], "sum")
    after = model.grid("g", 0.0631, U8(127))
    path = model.save(tmp_path, model.add("QuantizeLinear", [value, *after], "/fc/q"), reals)
    network = read_onnx(path, {"U": 200})
    assert network.inputs == {"labels": "input.labels"}
    assert list(network.outputs) == ["embed.Gather.out", "tanh.out", "fc.MatMulInteger.out", "fc.q.out"]
    assert network.outputs["fc.MatMulInteger.out"] == "sum:0"
    inputs = {"input.labels": rng.integers(0, 29, 200)}
    expected = computed(path, network, inputs)
    got = executed(network, inputs, forced={name: expected[name] for name in ("embed.Gather.out", "tanh.out")})
    np.testing.assert_array_equal(got["embed.Gather.out"], expected["embed.Gather.out"])
    np.testing.assert_allclose(got["fc.MatMulInteger.out"], expected["fc.MatMulInteger.out"], rtol=1e-5, atol=1e-5)
    within(got["fc.q.out"], expected["fc.q.out"], 1e-3)


def test_concatenated_tensors_meet_one_product(tmp_path: Path) -> None:
    """On one grid integers, on two reals; the trace has no operation for the concatenation."""
    rng = np.random.default_rng(4)
    for second, quantized in ((0.0213, True), (0.05, False)):
        model = Model({"a": (FLOAT, [1, ROWS, 96]), "b": (FLOAT, [1, ROWS, 32])})
        parts = [model.pair(n, n, s, U8(121)) for n, s in (("a", 0.0213), ("b", second))]
        own = weight(model, rng, "w", INT4, "channel")
        path = model.save(tmp_path, model.add("MatMul", [model.add("Concat", parts, axis=-1), own], "fc"))
        network = read_onnx(path)
        assert list(network.trace.kind) == [Kind.MATMUL]
        assert ("fc.weight" in network.quantizers) is quantized
        inputs = {f"input.{n}": rng.standard_normal((ROWS, k)).astype(F32) for n, k in (("a", 96), ("b", 32))}
        expected, got = computed(path, network, inputs), executed(network, inputs)
        np.testing.assert_allclose(got["fc.out"], expected["fc.out"], atol=1e-4)
        note = (
            "fc.weight: computed in reals from its int4/channel weights, because what fc multiplies by them has no grid"
        )
        assert (note in network.notes) is not quantized
