"""Modules of `hwsim.train`: their grids arrive as formats, their recurrent layers as one node each."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

import numpy as np  # noqa: E402
from torch import nn  # noqa: E402

from hwsim.errors import HwsimError  # noqa: E402
from hwsim.extract.conformer import AttentionSpec, ConformerSpec  # noqa: E402
from hwsim.extract.graph.nodes import NodeKind, weight_array  # noqa: E402
from hwsim.extract.torch import opaque, read_module  # noqa: E402
from hwsim.numerics.calibration import BoundAware, MinMax, NativeQat, Sawb  # noqa: E402
from hwsim.numerics.codebook import MuLaw  # noqa: E402
from hwsim.numerics.formats import Sparsity  # noqa: E402
from hwsim.train import (  # noqa: E402
    DynamicQuantizer,
    LearnedBounds,
    QuantActivation,
    QuantConformerBlock,
    QuantEmbedding,
    QuantGRU,
    QuantLayerNorm,
    QuantLinear,
    QuantLSTM,
    convert,
)
from hwsim.train import attention as own_attention  # noqa: E402
from hwsim.train import quantizers as own_quantizers  # noqa: E402
from hwsim.train.lstm_layer import LstmLayer  # noqa: E402
from hwsim.train.recipes import network_recipe  # noqa: E402
from hwsim.train.weights import CodebookQuantizer, SparseQuantizer, SparseWeights  # noqa: E402
from tests.extract.torch.models import kinds, layers, macs, only, parameters  # noqa: E402

X = torch.randn(6, 16)


def trained(module: nn.Module, x: torch.Tensor = X) -> nn.Module:
    """In evaluation, its static grids having seen a batch."""
    module.train()
    module(x)
    return module.eval()


def test_the_functions_that_are_recognized_by_name_are_there() -> None:
    there = {name for module in (own_attention, own_quantizers) for name in vars(module)}
    assert set(opaque.FUNCTIONS) <= there
    assert {kind.__name__ for part in (QuantLSTM, LstmLayer) for kind in part.__mro__} >= set(opaque.RECURRENT)


def test_linear_with_a_grid_for_each_of_its_tensors() -> None:
    module = trained(QuantLinear(16, 5, weight=NativeQat(4, axis=1), input=BoundAware(1.0), output=MinMax(8)))
    graph = read_module(module, (X,))
    product, weight = only(graph, NodeKind.LINEAR), graph.weights["weight"]
    assert (weight.format, product.input_format) == ("int4/channel", "int4")
    assert graph.values[graph.inputs[0]].format == "int4"
    assert graph.values[graph.outputs[0]].format == "int8"
    assert graph.parameters == parameters(module)
    grid = module.weight_grid.quantizer(module.weight.T)
    assert np.array_equal(weight_array(weight), grid.quantize(module.weight.T.detach().double().numpy()))
    assert weight.axis == 1
    assert np.array_equal(weight.scale, grid.scale.reshape(-1).astype(np.float32))


def test_modules_are_as_before_when_they_were_read() -> None:
    module = trained(QuantLinear(16, 5, weight=Sawb(), input=BoundAware(1.0)))
    before = module(X)
    apply = torch.autograd.Function.__dict__["apply"]
    read_module(module, (X,))
    assert torch.equal(module(X), before)
    assert torch.autograd.Function.__dict__["apply"] is apply
    assert not {"forward", "evaluate", "quantizer"} & {name for part in module.modules() for name in part.__dict__}


@pytest.mark.parametrize("bidirectional", [False, True])
def test_lstm_layers(bidirectional: bool) -> None:
    module = QuantLSTM(16, 8, 2, bidirectional=bidirectional, between=MinMax(8), weight=NativeQat(8, axis=1))
    trained(module)
    graph = read_module(nn.Sequential(module), (X,))
    first, second = graph.nodes
    directions = 1 + bidirectional
    assert [node.layer for node in graph.nodes] == ["0.layer0", "0.layer1"]
    assert first.attributes == {"steps": 6, "batch": 1, "inputs": 16, "cells": 8, "directions": directions,
                                "projection": 0}  # fmt: skip
    assert second["inputs"] == 8 * directions
    assert (first.input_format, second.input_format) == ("int4", "int8")
    assert graph.values[graph.outputs[0]].format == "int4"
    assert {weight.format for name, weight in graph.weights.items() if "weight" in name} == {"int8/channel"}
    assert graph.parameters == parameters(module)
    held = graph.weights["0.weight_ih_l0"]
    assert held.shape == (16, 32)
    wanted = module.weight_grid.quantizer(module.weight_ih_l0.T)
    assert np.array_equal(weight_array(held), wanted.quantize(module.weight_ih_l0.T.detach().double().numpy()))


def test_batches_and_dense_inputs() -> None:
    module = trained(QuantLSTM(16, 8, 2, between=BoundAware(1.5), dense_inputs=True), torch.randn(6, 3, 16))
    graph = read_module(module, (torch.randn(6, 3, 16),))
    first, second = (node for node in graph.nodes if node.kind == NodeKind.LSTM)
    assert (first["steps"], first["batch"], second["inputs"]) == (6, 3, 24)
    assert kinds(graph) == {"lstm": 2, "view": 1}


def test_gru_layers() -> None:
    module = trained(QuantGRU(16, 8))
    graph = read_module(module, (X,))
    assert only(graph, NodeKind.GRU).input_format == "int4"
    assert graph.parameters == parameters(module)


def test_a_layer_of_a_transducer() -> None:
    module = LstmLayer(16, 8, network_recipe("int4")).eval()
    graph = read_module(nn.Sequential(module), (torch.randn(6, 2, 16),))
    assert layers(graph) == ["0"]
    assert graph.weights["0.weight_hh_l0"].format == "int4"
    assert graph.values[graph.outputs[0]].format == "int4"


class Step(nn.Module):
    """Labels (R,) and states to h and the states after."""

    def __init__(self, lstm: nn.Module) -> None:
        super().__init__()
        self.embedding, self.lstm = QuantEmbedding(10, 16, weight=NativeQat(4)), lstm

    def forward(self, labels, states):
        return self.lstm.step(self.embedding(labels), states)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_step_of_a_search(batch: int) -> None:
    state, labels = torch.zeros(batch, 8), torch.zeros(batch, dtype=torch.long)
    module = Step(QuantLSTM(16, 8, 2, between=BoundAware(1.0))).eval()
    graph = read_module(module, (labels, [(state, state), (state, state)]), "prediction")
    first, second = (node for node in graph.nodes if node.kind == NodeKind.LSTM)
    assert (first["steps"], first["batch"], len(graph.inputs), len(graph.outputs)) == (1, batch, 5, 5)
    assert [len(node.inputs) for node in (first, second)] == [3, 3]
    assert [node.layer for node in (first, second)] == ["lstm.layer0", "lstm.layer1"]
    assert {graph.values[node.outputs[1]].format for node in (first, second)} == {"int4"}
    assert graph.parameters == parameters(module)
    module = Step(LstmLayer(16, 8, network_recipe("int4"))).eval()
    graph = read_module(module, (labels, (state, state)), "prediction")
    assert layers(graph) == ["embedding", "lstm"]
    assert [graph.values[name].shape for name in graph.outputs] == [(batch, 8)] * 2


def test_a_conformer_block_has_the_formats_and_products_of_its_own_trace() -> None:
    spec = ConformerSpec(AttentionSpec(16, 2), kernel=5)
    module = trained(QuantConformerBlock(spec, input=MinMax(8)))
    graph, trace = read_module(module, (X,)), convert(module, 6).trace
    assert graph.parameters == parameters(module) == spec.parameters
    assert macs(graph) == trace.totals().macs
    products = [node for node in graph.nodes if node.kind in (NodeKind.LINEAR, NodeKind.CONV)]
    wanted = {layer: str(tensor.format) for tensor in trace.tensors
              if (layer := tensor.name.partition(".")[2]).endswith(".weight") and len(tensor.shape) > 1}  # fmt: skip
    own = {"int4", "int8", "int8/channel"}
    assert len(products) == 12
    assert {graph.weights[node.weights["weight"]].format for node in products} <= own
    assert {node.input_format for node in products} == {"int8"}
    assert {f"{node.layer}.weight" for node in products} == wanted.keys()
    assert only(graph, NodeKind.SOFTMAX).input_format == "int8"
    assert graph.values["x"].format == "int8"


def test_tables_norms_and_embeddings() -> None:
    module = nn.Sequential(QuantEmbedding(10, 16, weight=NativeQat(4)), QuantLayerNorm(16, output=MinMax(8)),
                           QuantActivation("tanh", output=BoundAware(1.0)))  # fmt: skip
    labels = torch.zeros(3, dtype=torch.long)
    graph = read_module(trained(module, labels), (labels,))
    lookup, norm, tanh = graph.nodes
    assert graph.weights[lookup.weights["table"]].format == "int4"
    assert [graph.values[node.outputs[0]].format for node in (lookup, norm, tanh)] == ["fp32", "int8", "int4"]
    assert (norm.layer, tanh["function"]) == ("1", "tanh")
    assert norm.weights == {"gamma": "1.weight", "beta": "1.bias"}


def test_sparse_and_codebook_weights() -> None:
    sparse, book = QuantLinear(16, 8), QuantLinear(8, 4)
    sparse.weight_grid = SparseQuantizer(SparseWeights(NativeQat(4), Sparsity(2, 4)), (16, 8))
    sparse.weight_grid.prepare(sparse.weight.T)
    book.weight_grid = CodebookQuantizer(MuLaw(5))
    book.weight_grid.prepare(book.weight.T)
    graph = read_module(nn.Sequential(sparse, book), (X,))
    assert graph.weights["0.weight"].format == "int4/2:4"
    assert graph.weights["1.weight"].format == "codebook5"
    codes, _ = sparse.weight_grid.codes(sparse.weight.T)
    assert np.array_equal(weight_array(graph.weights["0.weight"]), codes)
    codes, _ = book.weight_grid.codes(book.weight.T)
    assert np.array_equal(weight_array(graph.weights["1.weight"]), codes)


def test_learned_bounds_are_parameters() -> None:
    module = QuantLinear(16, 5, weight=Sawb(), input=LearnedBounds(-1.0, 1.0, 4)).eval()
    graph = read_module(module, (X,), unused="note")
    assert only(graph, NodeKind.LINEAR).input_format.startswith("int4")
    assert graph.parameters == parameters(module)


def test_a_grid_of_run_time_has_its_format() -> None:
    module = QuantLinear(16, 5, weight=Sawb(), input=DynamicQuantizer(NativeQat(8))).eval()
    assert only(read_module(module, (X,)), NodeKind.LINEAR).input_format.startswith("int8")


def test_a_grid_that_was_never_seen_is_refused() -> None:
    with pytest.raises(HwsimError, match="an activation's range must be seen in training before it is used, got none"):
        read_module(QuantLinear(16, 5, weight=Sawb(), input=MinMax(8)), (X,))
