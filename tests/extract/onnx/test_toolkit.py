"""Models that onnxruntime's own quantizer writes, in both of its formats."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwsim.extract.onnx import read_onnx
from hwsim.trace import Kind
from tests.extract.onnx.models import F32, FLOAT, Model, computed, executed

quantization = pytest.importorskip("onnxruntime.quantization")

FRAMES, INPUTS, WIDTH = 64, 40, 48
NAMES = ["conv.out", "dw.out", "swish.s.out", "swish.m.out", "norm.out", "fc1.MatMul.out", "fc1.Add.out",
         "fc2.MatMul.out", "residual.out", "head.out"]  # fmt: skip


def floats(rng: np.random.Generator) -> tuple[Model, str]:
    """Subsampling, a causal depthwise convolution, swish, layer norm and a residual feed-forward part."""
    model = Model({"x": (FLOAT, [1, FRAMES, INPUTS])})

    def constant(name: str, *shape: int, spread: float = 0.1) -> str:
        return model.constant(name, (rng.standard_normal(shape) * spread).astype(F32))

    value = model.add("Transpose", ["x"], "/t0", perm=[0, 2, 1])
    value = model.add("Conv", [value, constant("cw", WIDTH, INPUTS, 3), constant("cb", WIDTH)], "/conv",
                      pads=[1, 1], strides=[2])  # fmt: skip
    value = model.add("Relu", [value], "/conv/relu")
    value = model.add("Conv", [value, constant("dw", WIDTH, 1, 5, spread=0.3)], "/dw", pads=[4, 0], group=WIDTH)
    value = model.add("Mul", [value, model.add("Sigmoid", [value], "/swish/s")], "/swish/m")
    value = model.add("Transpose", [value], "/t1", perm=[0, 2, 1])
    parameters = [constant("gamma", WIDTH, spread=1.0), constant("beta", WIDTH)]
    value = model.add("LayerNormalization", [value, *parameters], "/norm", axis=-1)
    inner = model.add("MatMul", [value, constant("w1", WIDTH, 96)], "/fc1/MatMul")
    inner = model.add("Relu", [model.add("Add", [inner, constant("b1", 96)], "/fc1/Add")], "/fc1/relu")
    inner = model.add("MatMul", [inner, constant("w2", 96, WIDTH)], "/fc2/MatMul")
    value = model.add("Add", [value, inner], "/residual")
    return model, model.add("LogSoftmax", [value], "/head", axis=-1)


def quantize(folder: Path, style: str, per_channel: bool) -> Path:
    rng = np.random.default_rng(0)
    model, out = floats(rng)
    samples = iter([{"x": rng.standard_normal((1, FRAMES, INPUTS)).astype(F32)} for _ in range(4)])

    class Samples(quantization.CalibrationDataReader):
        def get_next(self) -> Any:
            return next(samples, None)

    logging.disable(logging.WARNING)
    try:
        quantization.quantize_static(
            str(model.save(folder, out)), str(folder / "quantized.onnx"), Samples(), per_channel=per_channel,
            quant_format=quantization.QuantFormat[style], weight_type=quantization.QuantType.QInt8,
            activation_type=quantization.QuantType.QUInt8,
        )  # fmt: skip
    finally:
        logging.disable(logging.NOTSET)
    return folder / "quantized.onnx"


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("style", ["QDQ", "QOperator"])
def test_every_layer_is_onnxruntimes(tmp_path: Path, style: str, per_channel: bool) -> None:
    """Each layer is given onnxruntime's own codes: products are equal, the rest is within one code of few."""
    path = quantize(tmp_path, style, per_channel)
    network = read_onnx(path)
    assert network.profile == ("onnx" if style == "QOperator" else "training")
    stages = [name if style == "QDQ" else name.replace(".out", "_quant.out") for name in NAMES]
    shown = [name.replace("norm_quant", "norm").replace("head_quant", "head") for name in stages]
    assert list(network.outputs) == shown
    assert list(network.trace.kind[:2]) == [Kind.CONV1D, Kind.DEPTHWISE]
    inputs = {"input.x": np.random.default_rng(1).standard_normal((FRAMES, INPUTS)).astype(F32)}
    expected = computed(path, network, inputs)
    got = executed(network, inputs, forced=expected)
    for name in shown[:-1]:
        assert len(np.unique(expected[name])) > 20
        delta = np.abs(got[name].astype(int) - expected[name])
        is_product = any(part in name for part in ("conv", "dw", "MatMul"))
        if is_product and style == "QOperator":
            np.testing.assert_array_equal(got[name], expected[name])
        assert delta.max() <= 1, name
        assert np.count_nonzero(delta) <= 0.005 * delta.size, name
    np.testing.assert_allclose(got[shown[-1]], expected[shown[-1]], atol=1e-5)
    weights = [t.format for t in network.trace.tensors if t.name.endswith(".weight")]
    assert set(weights) == {"int8/channel" if per_channel else "int8"}


@pytest.mark.parametrize("frames", [None, "T"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.filterwarnings("ignore")
def test_what_torch_exports(tmp_path: Path, kind: str, frames: str | None) -> None:
    """Two bidirectional layers and a head, in reals: zero states by shapes that are folded, every parameter once."""
    torch = pytest.importorskip("torch")

    class Encoder(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.rnn = getattr(torch.nn, kind)(INPUTS, 32, 2, bidirectional=True, batch_first=True)
            self.head = torch.nn.Linear(64, 29)

        def forward(self, x: Any) -> Any:
            return torch.log_softmax(self.head(self.rnn(x)[0]), -1)

    torch.manual_seed(0)
    module, path = Encoder().eval(), tmp_path / "encoder.onnx"
    x = torch.randn(1, FRAMES, INPUTS)
    axes = {"x": {1: frames}} if frames else {}
    torch.onnx.export(module, (x,), str(path), input_names=["x"], dynamo=False, dynamic_axes=axes)
    network = read_onnx(path, {"T": FRAMES} if frames else {})
    assert network.trace.totals().parameters == sum(p.numel() for p in module.parameters())
    layers = [name for name in network.trace.layers if kind in name]
    assert layers == [f"rnn.{kind}", f"rnn.{kind}_1"]
    inputs = {"input.x": x[0].numpy()}
    expected, got = computed(path, network, inputs), executed(network, inputs)
    assert len(expected) == 6
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values, atol=1e-3)
