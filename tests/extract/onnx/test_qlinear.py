"""Networks of QLinear operators: every code equal to onnxruntime's."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hwsim.extract.onnx import read_onnx
from hwsim.trace import Kind
from tests.extract.onnx.models import F32, FLOAT, I8, U8, UINT8, Model, computed, executed

ROWS, WIDTH = 1024, 384


def mlp(rng: np.random.Generator, layers: int = 3) -> tuple[Model, str]:
    """Reals, quantized, through QLinearMatMul with uint8 activations of odd zero points and weights per channel."""
    model = Model({"x": (FLOAT, ["T", WIDTH])})
    grid = model.grid("g0", 0.02, U8(121))
    value = model.add("QuantizeLinear", ["x", *grid], "/in/Quantize")
    for layer in range(layers):
        weight = model.constant(f"w{layer}", rng.integers(-127, 128, (WIDTH, WIDTH)).astype(I8))
        scales = model.constant(f"w{layer}_scale", rng.uniform(0.001, 0.004, WIDTH).astype(F32))
        zeros = model.constant(f"w{layer}_zero", np.zeros(WIDTH, I8))
        after = model.grid(f"g{layer + 1}", 0.03 + 0.01 * layer, U8(115 + 2 * layer))
        name = f"/encoder/{layer}/MatMul"
        value = model.add("QLinearMatMul", [value, *grid, weight, scales, zeros, *after], name)
        grid = after
    return model, model.add("DequantizeLinear", [value, *grid], "/out")


def test_every_code_of_an_mlp_is_onnxruntimes(tmp_path: Path) -> None:
    """1,179,648 codes of products and 393,216 of the input."""
    rng = np.random.default_rng(0)
    model, out = mlp(rng)
    path = model.save(tmp_path, out)
    network = read_onnx(path, {"T": ROWS})
    assert network.profile == "onnx"
    assert network.inputs == {"x": "input.x"}
    assert list(network.outputs) == [f"encoder.{layer}.MatMul.out" for layer in range(3)]
    assert network.trace.layers == ("input", "encoder.0.MatMul", "encoder.1.MatMul", "encoder.2.MatMul")
    inputs = {"input.x": rng.standard_normal((ROWS, WIDTH)).astype(F32)}
    expected, got = computed(path, network, inputs), executed(network, inputs)
    assert expected.keys() == got.keys()
    for name, codes in expected.items():
        assert codes.dtype == U8
        assert len(np.unique(codes)) > 100
        np.testing.assert_array_equal(got[name], codes)
    formats = {tensor.name: tensor.format for tensor in network.trace.tensors}
    assert formats["encoder.0.MatMul.weight"] == "int8/channel"
    assert formats["encoder.0.MatMul.out"] == "int8/zp"


def test_codes_in_and_a_gemm_with_bias(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    model = Model({"x": (UINT8, [64, 40])})
    grid, weight_grid, after = (model.grid(n, s, z) for n, s, z in
                                (("x", 0.05, U8(7)), ("w", 0.01, U8(131)), ("y", 0.4, U8(99))))  # fmt: skip
    weight = model.constant("weight", rng.integers(0, 256, (24, 40)).astype(U8))
    bias = model.constant("bias", rng.integers(-9000, 9000, 24).astype(np.int32))
    inputs = ["x", *grid, weight, *weight_grid, bias, *after]
    out = model.add("QGemm", inputs, "joint.fc", domain="com.microsoft", transB=1)
    path = model.save(tmp_path, out)
    network = read_onnx(path)
    x = rng.integers(0, 256, (64, 40)).astype(U8)
    expected, got = computed(path, network, {"input.x": x}), executed(network, {"input.x": x})
    assert len(np.unique(expected["joint.fc.out"])) > 100
    np.testing.assert_array_equal(got["joint.fc.out"], expected["joint.fc.out"])
    stored = next(tensor for tensor in network.trace.tensors if tensor.name == "joint.fc.weight")
    assert (stored.shape, stored.format) == ((40, 24), "int8/zp")
    np.testing.assert_array_equal(network.codes["joint.fc.weight"], model_weight(model) - 128)


def model_weight(model: Model) -> np.ndarray:
    from onnx import numpy_helper

    found = next(tensor for tensor in model.constants if tensor.name == "weight")
    return numpy_helper.to_array(found).astype(np.int64).T


def test_elementwise_operators_are_within_one_code(tmp_path: Path) -> None:
    """onnxruntime combines the scales of these in float32 and has its own sigmoid."""
    rng = np.random.default_rng(2)
    model = Model({"a": (UINT8, [1, 256, 64]), "b": (UINT8, [1, 256, 64])})
    given = {"a": (0.0513, 121), "b": (0.0297, 99), "sum": (0.071, 110), "product": (0.1973, 131), "gate": (1 / 255, 0)}
    grids = {name: model.grid(name, scale, U8(zero)) for name, (scale, zero) in given.items()}
    pair = ["a", *grids["a"], "b", *grids["b"]]
    total = model.add("QLinearAdd", [*pair, *grids["sum"]], "sum", domain="com.microsoft")
    product = model.add("QLinearMul", [*pair, *grids["product"]], "product", domain="com.microsoft")
    gate = model.add("QLinearSigmoid", [total, *grids["sum"], *grids["gate"]], "gate", domain="com.microsoft")
    path = model.save(tmp_path, product, gate)
    network = read_onnx(path)
    inputs = {f"input.{n}": rng.integers(0, 256, (256, 64)).astype(U8) for n in "ab"}
    expected, got = computed(path, network, inputs), executed(network, inputs)
    assert set(expected) == {"sum.out", "product.out", "gate.out"}
    for name, codes in expected.items():
        delta = np.abs(got[name].astype(int) - codes)
        assert delta.max() <= 1, name
        assert np.count_nonzero(delta) <= 0.01 * delta.size, name


def test_operations_have_the_sizes_of_the_file(tmp_path: Path) -> None:
    model, out = mlp(np.random.default_rng(3), layers=2)
    trace = read_onnx(model.save(tmp_path, out), {"T": 50}).trace
    assert list(trace.kind) == [Kind.MATMUL, Kind.MATMUL]
    assert list(trace.m) == [50, 50]
    assert trace.totals().parameters == 2 * WIDTH * WIDTH
    assert trace.totals().macs == 2 * 50 * WIDTH * WIDTH
    assert trace.input_formats == ("fp32", "int8", "int8")
