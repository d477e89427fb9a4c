"""Operators on codes: formats of what they read and write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwsim.extract.graph.nodes import NodeKind
from hwsim.extract.onnx import read_structure
from tests.extract.onnx.models import F32, FLOAT, I8, U8
from tests.extract.structure.models import Model
from tests.extract.structure.test_export import only

RNG = np.random.default_rng(2)
MS = {"domain": "com.microsoft"}
CODES = {"i8": (I8(0), "int8"), "u8": (U8(0), "int8"), "i8zp": (I8(3), "int8/zp"), "u8zp": (U8(7), "int8/zp"),
         "middle": (U8(128), "int8")}  # fmt: skip


def codes_of(model: Model, x: str, zero: Any) -> tuple[str, list[str]]:
    """A value in codes, and its grid."""
    grid = model.grid(f"{x}_in", 0.1, zero)
    return model.add("QuantizeLinear", [x, *grid], f"{x}_q"), grid


def weight(model: Model, name: str, *shape: int) -> str:
    return model.constant(name, I8(RNG.integers(-8, 8, shape)))


@pytest.mark.parametrize("kind", CODES)
def test_unary_operators(tmp_path: Path, kind: str) -> None:
    zero, text = CODES[kind]
    model = Model({"x": (FLOAT, [2, 3, 8])})
    x, grid = codes_of(model, "x", zero)
    out = model.grid("out", 0.2, zero)
    x = model.add("QLinearSigmoid", [x, *grid, *out], "sigmoid", **MS)
    x = model.add("QLinearLeakyRelu", [x, *out, *out], "leaky", alpha=0.1, **MS)
    x = model.add("QLinearSoftmax", [x, *out, *out], "softmax", axis=-1, opset=13, **MS)
    x = model.add("QLinearGlobalAveragePool", [x, *out, *out], "pool", **MS)
    graph = read_structure(model.save(tmp_path, x))
    assert [node.kind for node in graph.nodes] == ["elementwise", "elementwise", "softmax", "reduce"]
    assert [node.attributes.get("function") for node in graph.nodes] == ["sigmoid", "relu", None, "add"]
    assert {value.format for value in graph.values.values()} == {text}
    assert not any(value.integer for value in graph.values.values())
    assert graph.values["pool:0"].shape == (2, 3, 1)


def test_binary_operators_and_constants(tmp_path: Path) -> None:
    model = Model({"x": (FLOAT, [2, 8]), "y": (FLOAT, [2, 8])})
    (x, grid), (y, other) = codes_of(model, "x", I8(0)), codes_of(model, "y", U8(3))
    out = model.grid("out", 0.2, I8(5))
    joined = model.add("QLinearConcat", [*out, x, *grid, y, *other], "cat", axis=1, **MS)
    own = model.grid("b", 0.1, I8(0))
    added = model.add("QLinearAdd", [joined, *out, weight(model, "b", 16), *own, *out], "add", **MS)
    graph = read_structure(model.save(tmp_path, model.add("QLinearMul", [added, *out, added, *out, *out], "mul", **MS)))
    assert [node.attributes.get("function") or node.kind for node in graph.nodes] == ["view", "add", "multiply"]
    assert dict(graph.nodes[1].weights) == {"constant": "b"}
    assert (graph.parameters, graph.weights["b"].format) == (16, "int8")
    assert [graph.values[name].format for name in ("x", "y", "cat:0", "mul:0")] == [
        "int8", "int8/zp", "int8/zp", "int8/zp"]  # fmt: skip


@pytest.mark.parametrize("reals", [False, True])
def test_qgemm(tmp_path: Path, reals: bool) -> None:
    model = Model({"x": (FLOAT, [4, 8])})
    x, grid = codes_of(model, "x", U8(7))
    own = [model.constant("ws", F32([0.1, 0.2, 0.3])), model.constant("wz", np.zeros(3, np.int8))]
    bias = model.constant("b", np.arange(3, dtype=np.int32))
    out = [] if reals else model.grid("out", 0.2, U8(0))
    product = model.add("QGemm", [x, *grid, weight(model, "w", 3, 8), *own, bias, *out], "fc", transB=1, **MS)
    graph = read_structure(model.save(tmp_path, product))
    (node,) = graph.nodes
    assert node.input_format == "int8/zp"
    assert (graph.weights["w"].format, graph.weights["b"].format) == ("int8/channel", "int32")
    assert graph.weights["w"].shape == (8, 3)
    assert graph.values["fc:0"].format == ("fp32" if reals else "int8")
    assert graph.parameters == 27


def test_qlinear_matmul_of_two_activations(tmp_path: Path) -> None:
    model = Model({"x": (FLOAT, [2, 4, 8]), "y": (FLOAT, [2, 8, 5])})
    (x, grid), (y, other) = codes_of(model, "x", I8(0)), codes_of(model, "y", U8(3))
    out = model.grid("out", 0.2, I8(5))
    graph = read_structure(model.save(tmp_path, model.add("QLinearMatMul", [x, *grid, y, *other, *out], "mm")))
    node = only(graph, NodeKind.MATMUL)
    assert node.attributes == {"m": 4, "k": 8, "n": 5, "batch": 2}
    assert (node.input_format, graph.values["y"].format, graph.values["mm:0"].format) == ("int8", "int8/zp", "int8/zp")


def test_qlinear_conv(tmp_path: Path) -> None:
    model = Model({"x": (FLOAT, [1, 4, 10])})
    x, grid = codes_of(model, "x", U8(7))
    own = [model.constant("ws", F32(np.arange(1, 7))), model.constant("wz", np.zeros(6, np.int8))]
    bias = model.constant("b", np.arange(6, dtype=np.int32))
    parts = [x, *grid, weight(model, "w", 6, 2, 3), *own, *model.grid("out", 0.2, U8(0)), bias]
    graph = read_structure(model.save(tmp_path, model.add("QLinearConv", parts, "c", group=2)))
    node = only(graph, NodeKind.CONV)
    assert (graph.weights["w"].shape, graph.weights["w"].format, graph.weights["w"].axis) == (
        (3, 2, 6),
        "int8/channel",
        0,
    )
    assert (node["groups"], node["positions"], node.input_format) == (2, 8, "int8/zp")
    assert graph.parameters == 36 + 6


def test_an_integer_product_that_stays_one(tmp_path: Path) -> None:
    model = Model({"x": (FLOAT, [4, 8])})
    x, _ = codes_of(model, "x", U8(7))
    product = model.add("MatMulInteger", [x, weight(model, "w", 8, 3), "x_in_zero"], "mm")
    graph = read_structure(model.save(tmp_path, product))
    assert graph.values["mm:0"].format == "int32"
    assert only(graph, NodeKind.LINEAR).input_format == "int8/zp"


@pytest.mark.parametrize("columns", [False, True])
def test_scales_behind_an_integer_product_are_its_weight(tmp_path: Path, columns: bool) -> None:
    model = Model({"x": (FLOAT, [4, 8])})
    model.add("DynamicQuantizeLinear", ["x"], "dql", outputs=["q", "s", "z"])
    step = model.constant("ws", F32([0.1, 0.2, 0.3] if columns else 0.1))
    scale = model.add("Mul", ["s", step], "scales")
    cast = model.add("Cast", [model.add("MatMulInteger", ["q", weight(model, "w", 8, 3), "z"], "mm")], to=FLOAT)
    scaled = model.add("Mul", [cast, scale], "scaled")
    out = model.add("Add", [scaled, model.constant("b", np.ones(3, np.float32))], "bias")
    graph = read_structure(model.save(tmp_path, out))
    (node,) = graph.nodes
    assert dict(node.weights) == {"weight": "w", "bias": "b"}
    assert graph.weights["w"].format == ("int8/channel" if columns else "int8")
    assert np.array_equal(np.asarray(graph.weights["w"].scale), F32([0.1, 0.2, 0.3] if columns else 0.1))


def test_scales_that_something_else_reads(tmp_path: Path) -> None:
    model = Model({"x": (FLOAT, [4, 8])})
    model.add("DynamicQuantizeLinear", ["x"], "dql", outputs=["q", "s", "z"])
    cast = model.add("Cast", [model.add("MatMulInteger", ["q", weight(model, "w", 8, 3), "z"], "mm")], to=FLOAT)
    out = model.add("Mul", [cast, model.add("Mul", ["s", model.constant("ws", F32(0.1))], "scales")], "scaled")
    graph = read_structure(model.save(tmp_path, out, "scales:0"))
    assert [str(node.kind) for node in graph.nodes] == ["view", "linear", "view", "elementwise", "elementwise"]


def test_packed_attention_on_codes(tmp_path: Path) -> None:
    model = Model({"x": (FLOAT, [2, 5, 8])})
    x, grid = codes_of(model, "x", U8(7))
    bias = model.constant("b", np.ones(24, np.float32))
    parts = [x, weight(model, "w", 8, 24), bias, grid[0], model.constant("ws", F32(0.1)), "", grid[1],
             model.constant("wz", I8(0))]  # fmt: skip
    graph = read_structure(model.save(tmp_path, model.add("QAttention", parts, "att", num_heads=2, **MS)))
    linear = only(graph, NodeKind.LINEAR)
    assert (linear.input_format, graph.weights["w"].format, graph.parameters) == ("int8/zp", "int8", 8 * 24 + 24)
    assert [node["batch"] for node in graph.nodes if node.kind == NodeKind.MATMUL] == [4, 4]


def test_an_integer_product_with_its_scales(tmp_path: Path) -> None:
    model = Model({"x": (FLOAT, [4, 8])})
    x, grid = codes_of(model, "x", U8(7))
    parts = [x, weight(model, "w", 8, 3), grid[0], model.constant("ws", F32(0.1)), grid[1], model.constant("wz", I8(2))]
    graph = read_structure(model.save(tmp_path, model.add("MatMulIntegerToFloat", parts, "mm", **MS)))
    (node,) = graph.nodes
    assert (node.input_format, graph.weights["w"].format, graph.values["mm:0"].format) == ("int8/zp", "int8/zp", "fp32")


def test_a_dynamic_lstm_with_scales_by_column(tmp_path: Path) -> None:
    model = Model({"x": (FLOAT, [6, 1, 4])})
    parts = ["x", weight(model, "w", 2, 4, 32), weight(model, "r", 2, 8, 32), "", "", "", "", ""]
    for name in "wr":
        parts.append(model.constant(f"{name}s", F32(RNG.random((2, 32)) + 1)))
        parts.append(model.constant(f"{name}z", np.zeros((2, 32), np.int8)))
    model.add("DynamicQuantizeLSTM", parts, "lstm", outputs=["y"], hidden_size=8, direction="bidirectional", **MS)
    graph = read_structure(model.save(tmp_path, "y"))
    (node,) = graph.nodes
    own = graph.weights[node.weights["backward_wh"]]
    assert (own.format, own.shape, node.input_format) == ("int8/channel", (8, 32), "int8/zp")
    assert own.scale is not None
    assert own.scale.shape == (32,)
    assert graph.values["y"].shape == (6, 2, 1, 8)
    assert graph.parameters == 2 * (4 + 8) * 32


def test_an_embedding_of_codes(tmp_path: Path) -> None:
    from tests.extract.onnx.models import INT64

    model = Model({"ids": (INT64, [1, 3])})
    table = model.add("DequantizeLinear", [weight(model, "t", 10, 4), *model.grid("t", 0.1, I8(0))], "dq")
    graph = read_structure(model.save(tmp_path, model.add("Gather", [table, "ids"], "embed")))
    (node,) = graph.nodes
    assert (node.kind, graph.weights["t"].format, graph.weights["t"].shape) == ("lookup", "int8", (10, 4))
