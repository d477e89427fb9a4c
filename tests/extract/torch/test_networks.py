"""Whole networks: parameters of the papers, multiply-accumulates of the catalogue and of PyTorch's own counter."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from torch import nn  # noqa: E402

from hwsim.extract import load_workload  # noqa: E402
from hwsim.extract.graph.nodes import NodeKind  # noqa: E402
from hwsim.extract.torch import read_module  # noqa: E402
from tests.extract.torch.models import (  # noqa: E402
    Conformer,
    Joint,
    Prediction,
    StackedEncoder,
    Stateless,
    counted_macs,
    kinds,
    layers,
    macs,
    node_macs,
    only,
    parameters,
)


@pytest.fixture(scope="module")
def rnnt():
    state = torch.zeros(2, 1, 320)
    return {
        "encoder": read_module(StackedEncoder(), (torch.zeros(2, 1, 240),)),
        "prediction": read_module(Prediction(), (torch.zeros(1, 1, dtype=torch.long), state, state), "prediction"),
        "joint": read_module(Joint(), (torch.zeros(1, 1024), torch.zeros(1, 320)), "joint"),
    }


def test_rnnt_of_mlperf_has_its_parameters(rnnt) -> None:
    counts = {name: graph.parameters for name, graph in rnnt.items()}
    assert counts == {"encoder": 42_967_040, "prediction": 1_652_480, "joint": 703_517}
    assert sum(counts.values()) == 45_323_037


def test_rnnt_of_mlperf_computes_what_the_catalogue_says(rnnt) -> None:
    networks = load_workload("rnnt_mlperf").networks
    for name, graph in rnnt.items():
        assert macs(graph) == networks.totals(name).macs, name


def test_rnnt_layers_have_the_names_of_modules(rnnt) -> None:
    assert layers(rnnt["encoder"]) == ["pre.layer0", "pre.layer1", "post.layer0", "post.layer1", "post.layer2"]
    assert layers(rnnt["prediction"]) == ["embedding", "lstm.layer0", "lstm.layer1"]
    assert layers(rnnt["joint"]) == ["linear1", "relu", "linear2"]


def test_states_go_in_and_out_of_a_prediction_network(rnnt) -> None:
    graph = rnnt["prediction"]
    first, second = (node for node in graph.nodes if node.kind == NodeKind.LSTM)
    assert graph.inputs == ("labels", "h", "c")
    assert graph.values["labels"].integer
    assert not graph.values["h"].integer
    views = {node.outputs[0]: node.inputs for node in graph.nodes if node.kind == NodeKind.VIEW}
    for lstm in (first, second):
        assert [views[name] for name in lstm.inputs[1:]] == [("h",), ("c",)]
    assert views[graph.outputs[1]] == (first.outputs[1], second.outputs[1])
    assert views[graph.outputs[2]] == (first.outputs[2], second.outputs[2])
    assert graph.outputs[0] == second.outputs[0]


def test_states_that_nobody_reads_have_no_name(rnnt) -> None:
    assert {node.outputs[1:] for node in rnnt["encoder"].nodes if node.kind == NodeKind.LSTM} == {("", "")}


@pytest.mark.parametrize("fused", [False, True])
def test_conformer_against_the_counter_of_pytorch(fused: bool) -> None:
    module, x = Conformer(fused=fused), torch.zeros(2, 67, 40)
    graph = read_module(module, (x,))
    assert graph.parameters == parameters(module)
    assert macs(graph) == counted_macs(module, x)


def test_conformer_layers() -> None:
    graph = read_module(Conformer(blocks=1), (torch.zeros(1, 67, 40),))
    named = {node.layer: node for node in graph.nodes}
    attention = "layers.0.self_attn"
    assert {f"{attention}.linear_{part}" for part in ("q", "k", "v", "pos", "out")} < named.keys()
    assert named[f"{attention}.linear_pos"].kind == NodeKind.LINEAR
    assert named["layers.0.conv.depthwise"]["groups"] == 32
    assert named["layers.0.conv.depthwise"]["padding"] == [(15, 15)]
    assert named["layers.0.conv.glu"]["function"] == "glu"
    assert named["layers.0.conv.silu"]["function"] == "swish"
    assert [named[f"layers.0.conv.{name}"]["function"] for name in ("batch_norm", "batch_norm_2")] == [
        "multiply",
        "add",
    ]
    assert len(named) == len(graph.nodes)


def test_encodings_of_positions_are_folded_and_projected_once_a_block() -> None:
    graph = read_module(Conformer(blocks=2), (torch.zeros(1, 67, 40),))
    frames = 16
    projected = [node for node in graph.nodes if node.layer.endswith("linear_pos")]
    (encodings,) = {node.inputs for node in projected}
    assert [node_macs(graph, node) for node in projected] == [(2 * frames - 1) * 32 * 32] * 2
    assert graph.folded[encodings[0]] == (2 * frames - 1) * 32
    assert graph.values[encodings[0]].shape == (1, 2 * frames - 1, 32)


def test_fused_and_eager_attention_are_the_same_products() -> None:
    eager, fused = (read_module(Conformer(fused=each), (torch.zeros(1, 67, 40),)) for each in (False, True))
    products = [[tuple(node[size] for size in ("batch", "m", "k", "n")) for node in graph.nodes
                 if node.kind == NodeKind.MATMUL] for graph in (eager, fused)]  # fmt: skip
    assert sorted(products[0]) == sorted(products[1])
    assert kinds(eager)["softmax"] == kinds(fused)["softmax"] == 2


@pytest.mark.parametrize("norm_first", [False, True])
def test_transformer_encoder_layer(norm_first: bool) -> None:
    module = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=norm_first)
    x = torch.zeros(2, 9, 32)
    graph = read_module(module, (x,))
    assert graph.parameters == parameters(module)
    assert macs(graph) == 2 * 9 * (4 * 32 * 32 + 2 * 32 * 64) + 2 * 2 * 9 * 9 * 32
    assert kinds(graph)["linear"] == 4
    assert {"self_attn.out_proj", "linear1", "linear2", "norm1", "norm2"} < set(layers(graph))


def test_transformer_without_gradients_is_not_one_fast_operator() -> None:
    module = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True).requires_grad_(False)
    graph = read_module(module, (torch.zeros(2, 9, 32),))
    assert kinds(graph)["softmax"] == 1


def test_stateless_prediction_network() -> None:
    module = Stateless()
    graph = read_module(module, (torch.zeros(1, 2, dtype=torch.long),))
    conv = only(graph, NodeKind.CONV)
    assert graph.parameters == parameters(module) == 500 * 64 + 64 * 4 * 2
    assert (conv["positions"], conv["taps"], conv["inputs"], conv["outputs"], conv["groups"]) == (1, 2, 64, 64, 16)
    assert graph.weights[conv.weights["weight"]].shape == (2, 4, 64)
    assert macs(graph) == 2 * 4 * 64
