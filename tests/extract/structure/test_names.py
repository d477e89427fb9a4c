"""Layers are named after the scopes of an export."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hwsim.extract.onnx import read_structure
from tests.extract.onnx.models import F32, FLOAT
from tests.extract.structure.models import Model

WEIGHT = F32(np.random.default_rng(0).standard_normal((4, 4)))


def layers(folder: Path, *names: tuple[str, str]) -> list[str]:
    """Layers of nodes that follow each other, each an operator and a name."""
    model, x = Model({"x": (FLOAT, [3, 4])}), "x"
    model.constant("w", WEIGHT)
    for op, name in names:
        x = model.add(op, [x, "w"] if op == "MatMul" else [x], name)
    return [node.layer for node in read_structure(model.save(folder, x)).nodes]


def test_the_operator_is_dropped_where_it_says_nothing(tmp_path: Path) -> None:
    names = [("MatMul", "/encoder/layers.0/self_attn/linear_q/MatMul"), ("Relu", "/encoder/act/Relu")]
    assert layers(tmp_path, *names) == ["encoder.layers.0.self_attn.linear_q", "encoder.act"]


def test_a_layer_comes_before_what_is_beside_it(tmp_path: Path) -> None:
    names = [("Relu", "/a/Relu"), ("MatMul", "/a/MatMul_quant"), ("Tanh", "/a/Tanh")]
    assert layers(tmp_path, *names) == ["a.Relu", "a", "a.Tanh"]


def test_several_layers_of_a_scope_keep_their_operators(tmp_path: Path) -> None:
    assert layers(tmp_path, ("MatMul", "/a/MatMul"), ("MatMul", "/a/MatMul_1")) == ["a.MatMul", "a.MatMul_1"]


def test_names_without_scopes(tmp_path: Path) -> None:
    assert layers(tmp_path, ("MatMul", "fc one"), ("Relu", "relu")) == ["fc_one", "relu"]
    assert layers(tmp_path, ("MatMul", "net/fc"), ("Relu", "net/fc/relu")) == ["net.fc", "net.fc.relu"]


def test_scopes_that_an_exporter_has_written_down(tmp_path: Path) -> None:
    import onnx

    model = Model({"x": (FLOAT, [3, 4])})
    model.constant("w", WEIGHT)
    path = model.save(tmp_path, model.add("MatMul", ["x", "w"], "node_linear_3"))
    content = onnx.load(path)
    scopes = "['', 'encoder', 'encoder.layers.0.linear', 'linear_3']"
    content.graph.node[0].metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
    path.write_bytes(content.SerializeToString())
    assert [node.layer for node in read_structure(path).nodes] == ["encoder.layers.0.linear"]
    content.graph.node[0].metadata_props[0].value = "not a list"
    path.write_bytes(content.SerializeToString())
    assert [node.layer for node in read_structure(path).nodes] == ["node_linear_3"]
