"""A Conformer block and recurrent layers, quantized by onnxruntime: the formats in the graph are those of the file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwsim.errors import HwsimError
from hwsim.extract.graph.nodes import Graph, NodeKind, weight_array
from hwsim.extract.onnx import read_structure
from tests.extract.structure.networks import Encoder, Recurrent, export, macs, nn, parameters, torch
from tests.extract.structure.test_export import batch_norms, multiplications, random

quantization = pytest.importorskip("onnxruntime.quantization")

FRAMES = (1, 40, 16)


class Calibration(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Two batches of noise."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        rng = np.random.default_rng(0)
        self.batches = iter([{"x": rng.standard_normal(shape).astype(np.float32)} for _ in range(2)])

    def get_next(self) -> Any:
        return next(self.batches, None)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def conformer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    module = random(Encoder(layers=1))
    path = tmp_path_factory.mktemp("conformer") / "float.onnx"
    return module, export(module, [torch.randn(FRAMES)], path, input_names=["x"], output_names=["y"])


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    module = random(Recurrent(nn.LSTM, both=True))
    path = tmp_path_factory.mktemp("recurrent") / "float.onnx"
    return module, export(module, [torch.randn(1, 12, 8)], path, input_names=["x"], output_names=["y"])


def check_sizes(graph: Graph, module: Any) -> None:
    """The sizes of the float network: quantizing changes none."""
    assert graph.parameters == parameters(module) - batch_norms(module)
    assert sum(multiplications(graph).values()) == sum(macs(module, [torch.randn(FRAMES)]).values())


def formats(graph: Graph, kind: NodeKind, part: str = "weight") -> set[str]:
    """Formats of the weights of all nodes of a kind."""
    return {
        graph.weights[node.weights[part]].format for node in graph.nodes if node.kind == kind and part in node.weights
    }


def taken(graph: Graph, *kinds: NodeKind) -> set[str]:
    """Formats in which nodes take their activations."""
    return {node.input_format for node in graph.nodes if node.kind in kinds}


PRODUCTS = (NodeKind.LINEAR, NodeKind.CONV, NodeKind.MATMUL)


def test_dynamic(conformer: tuple[Any, Path], tmp_path: Path) -> None:
    module, path = conformer
    target = tmp_path / "dynamic.onnx"
    quantization.quantize_dynamic(path, target, weight_type=quantization.QuantType.QInt8, per_channel=True)
    graph = read_structure(target)
    check_sizes(graph, module)
    assert formats(graph, NodeKind.LINEAR) == {"int8/channel"}
    assert formats(graph, NodeKind.CONV) == {"int8"}  # onnxruntime quantizes them per tensor here
    assert formats(graph, NodeKind.LINEAR, "bias") == formats(graph, NodeKind.CONV, "bias") == {"fp32"}
    assert taken(graph, NodeKind.LINEAR, NodeKind.CONV) == {"int8/zp"}
    assert taken(graph, NodeKind.MATMUL) == {"fp32"}
    assert any(note.startswith("activations of DynamicQuantizeLinear: grids are found") for note in graph.notes)
    layers = {node.layer for node in graph.nodes if node.kind == NodeKind.LINEAR}
    assert {"out", "layers.0.self_attn.linear_q", "layers.0.feed1.linear2"} <= layers
    weight = graph.weights["onnx::MatMul_" + _linear_number(graph)]
    assert weight_array(weight).dtype == np.int8
    assert weight.scale is not None
    assert weight.scale.shape == (32,)


def test_static_pairs_per_channel(conformer: tuple[Any, Path], tmp_path: Path) -> None:
    module, path = conformer
    target, int8 = tmp_path / "pairs.onnx", quantization.QuantType.QInt8
    quantization.quantize_static(path, target, Calibration(FRAMES), per_channel=True, weight_type=int8,
                                 activation_type=int8)  # fmt: skip
    graph = read_structure(target)
    check_sizes(graph, module)
    assert formats(graph, NodeKind.LINEAR) == formats(graph, NodeKind.CONV) == {"int8/channel"}
    assert formats(graph, NodeKind.CONV, "bias") == {"int32/channel"}
    assert taken(graph, *PRODUCTS) <= {"int8/zp", "int8"}
    written = {graph.values[node.outputs[0]].format for node in graph.nodes if node.kind in PRODUCTS}
    assert written <= {"int8/zp", "int8"}
    first = next(node for node in graph.nodes if node.layer == "conv1")
    assert graph.values[first.inputs[0]].format == first.input_format
    depthwise = next(node for node in graph.nodes if node.layer == "layers.0.conv.depthwise")
    held = graph.weights[depthwise.weights["weight"]]
    assert (held.shape, held.axis, held.scale.size if held.scale is not None else 0) == ((7, 1, 32), 0, 32)
    assert weight_array(held).shape == (32, 1, 7)


def test_static_operators(conformer: tuple[Any, Path], tmp_path: Path) -> None:
    module, path = conformer
    target = tmp_path / "operators.onnx"
    quantization.quantize_static(path, target, Calibration(FRAMES), quant_format=quantization.QuantFormat.QOperator,
                                 weight_type=quantization.QuantType.QInt8)  # fmt: skip
    graph = read_structure(target)
    check_sizes(graph, module)
    assert formats(graph, NodeKind.LINEAR) == formats(graph, NodeKind.CONV) == {"int8"}
    assert formats(graph, NodeKind.CONV, "bias") == {"int32"}
    assert taken(graph, *PRODUCTS) <= {"int8/zp", "int8"}
    added = [node for node in graph.nodes if node.kind == NodeKind.ELEMENTWISE and "constant" in node.weights]
    assert len(added) == 9 + 2  # biases of the linear layers but the one of positions, two offsets of attention
    assert {graph.weights[node.weights["constant"]].format for node in added} <= {"int8", "int8/zp"}


@pytest.mark.parametrize(("block", "symmetric", "level", "expected", "given"), [
    (16, True, None, {"int4/group16"}, "fp32"),
    (32, False, 4, {"int4/channel/zp", "int4/group32/zp"}, "int8"),
])  # fmt: skip
def test_four_bits(conformer: tuple[Any, Path], tmp_path: Path, block: int, symmetric: bool, level: int | None,
                   expected: set[str], given: str) -> None:  # fmt: skip
    import onnx

    pytest.importorskip("onnx_ir", reason="onnxruntime's MatMulNBits quantizer needs onnx_ir")
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    module, path = conformer
    quantizer = MatMulNBitsQuantizer(onnx.load(path), block_size=block, is_symmetric=symmetric, accuracy_level=level)
    quantizer.process()
    target = tmp_path / "four.onnx"
    quantizer.model.save_model_to_file(str(target))
    graph = read_structure(target)
    check_sizes(graph, module)
    assert formats(graph, NodeKind.LINEAR) == expected
    assert taken(graph, NodeKind.LINEAR) == {given}
    assert formats(graph, NodeKind.CONV) == {"fp32"}
    assert any(note.startswith("convolutions that stay in floats: /conv1/Conv (Conv), ") for note in graph.notes)
    linear = next(node for node in graph.nodes if node.layer == "layers.0.feed1.linear2")
    held = graph.weights[linear.weights["weight"]]
    codes = weight_array(held)
    assert (held.shape, codes.shape, held.group) == ((128, 32), (32, 128), block)
    assert held.scale is not None
    assert held.scale.shape == (32, 128 // block)
    zero = np.full((32, 1), 8) if held.zero_point is None or not held.zero_point.ndim else held.zero_point
    zero = np.repeat(zero, 128 // zero.shape[1], axis=1)
    reals = (codes.astype(np.int64) - zero) * np.repeat(held.scale, block, axis=1)
    true = module.layers[0].feed1.linear2.weight.detach().numpy()
    assert np.abs(reals - true).max() <= np.abs(held.scale).max() * 1.01


def test_a_dynamic_lstm(recurrent: tuple[Any, Path], tmp_path: Path) -> None:
    module, path = recurrent
    target = tmp_path / "dynamic.onnx"
    quantization.quantize_dynamic(path, target, weight_type=quantization.QuantType.QInt8)
    graph = read_structure(target)
    assert graph.parameters == parameters(module)
    layers = [node for node in graph.nodes if node.kind == NodeKind.LSTM]
    assert [(node["inputs"], node["directions"], node.input_format) for node in layers] == [
        (8, 2, "int8/zp"), (32, 2, "int8/zp")]  # fmt: skip
    for part in ("forward_wx", "backward_wh"):
        assert formats(graph, NodeKind.LSTM, part) == {"int8"}
    assert formats(graph, NodeKind.LSTM, "forward_bias_x") == {"fp32"}
    held = graph.weights[layers[0].weights["backward_wx"]]
    true = module.rnn.weight_ih_l0_reverse.detach().numpy().reshape(4, 16, 8)[[0, 3, 1, 2]].reshape(64, 8)
    assert held.scale is not None
    reals = weight_array(held).astype(np.float64) * float(held.scale.reshape(-1)[0])
    assert np.abs(reals - true).max() <= 0.51 * float(held.scale.reshape(-1)[0])


def test_what_stays_in_floats_is_refused(recurrent: tuple[Any, Path], tmp_path: Path) -> None:
    _, path = recurrent
    target = tmp_path / "pairs.onnx"
    quantization.quantize_static(path, target, Calibration((1, 12, 8)))
    with pytest.raises(HwsimError) as caught:
        read_structure(target)
    assert str(caught.value) == (
        f"{target}: a quantized model must have no product with float weights, got 2: /rnn/LSTM (LSTM), "
        "/rnn/LSTM_1 (LSTM): quantize them too, or allow floats"
    )
    graph = read_structure(target, allow_float=True)
    assert "products that stay in floats: /rnn/LSTM (LSTM), /rnn/LSTM_1 (LSTM)" in graph.notes
    assert formats(graph, NodeKind.LSTM, "forward_wx") == {"fp32"}
    assert formats(graph, NodeKind.LINEAR) == {"int8"}


def _linear_number(graph: Graph) -> str:
    node = next(node for node in graph.nodes if node.layer == "layers.0.self_attn.linear_q")
    return node.weights["weight"].removeprefix("onnx::MatMul_")
