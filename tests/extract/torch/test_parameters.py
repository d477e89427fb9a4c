"""Every parameter is counted once, however it is read; weights are loaded without copies."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

import numpy as np  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations  # noqa: E402

from hwsim.extract.graph.nodes import NodeKind, weight_array  # noqa: E402
from hwsim.extract.torch import read_module  # noqa: E402
from tests.extract.torch.models import counted_macs, macs, only, parameters  # noqa: E402
from tests.extract.torch.test_operators import Of, X, parameter, read  # noqa: E402


def test_weights_are_views_of_the_module() -> None:
    module = nn.Linear(8, 4)
    graph = read_module(module, (X,))
    assert np.shares_memory(weight_array(graph.weights["weight"]), module.weight.detach().numpy())
    with torch.no_grad():
        module.weight.fill_(3.0)
    assert (weight_array(graph.weights["weight"]) == 3.0).all()


def test_tied_weights_are_counted_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.output = nn.Embedding(10, 8), nn.Linear(8, 10, bias=False)
            self.output.weight = self.embedding.weight

        def forward(self, labels):
            return self.output(self.embedding(labels))

    graph = read_module(Tied(), (torch.zeros(3, dtype=torch.long),))
    shapes = {name: (weight.shape, weight.counted) for name, weight in graph.weights.items()}
    assert graph.parameters == 80
    assert shapes == {"embedding.weight": ((10, 8), True), "embedding.weight.tied": ((8, 10), False)}
    assert graph.notes == ("embedding.weight is read in another layout too, as embedding.weight.tied: counted once",)


def test_a_weight_of_a_norm_and_a_direction_is_computed_once() -> None:
    module = parametrizations.weight_norm(nn.Conv1d(8, 8, 3))
    graph = read_module(module, (torch.zeros(1, 8, 5),))
    conv = only(graph, NodeKind.CONV)
    name = conv.weights["weight"]
    assert name == "parametrizations.weight.original1"
    assert graph.parameters == parameters(module)
    assert np.array_equal(weight_array(graph.weights[name]), module.weight.detach().numpy())


def test_parts_of_a_matrix_are_counted_by_their_elements() -> None:
    module = Of(lambda m, x: (x @ m.w[:, :3]).sum() + (x @ m.w[:, 3:5]).sum(), w=parameter(8, 6))
    graph = read_module(module, (X,))
    assert {name: weight.elements for name, weight in graph.weights.items()} == {
        "w.part0": 24,
        "w.part1": 16,
        "w.rest": 8,
    }
    assert graph.parameters == 48
    assert graph.notes == ("8 of the 48 elements of w are not read at these sizes",)
    assert np.array_equal(weight_array(graph.weights["w.part1"]), module.w[:, 3:5].detach().numpy())


def test_parts_that_overlap_are_counted_once() -> None:
    graph = read(lambda m, x: (x @ m.w[:, :4]) + (x @ m.w[:, 2:]), X, w=parameter(8, 6))
    assert graph.parameters == 48


def test_a_part_in_another_precision_is_computed() -> None:
    module = Of(lambda m, x: x.half() @ m.w[:, :3].half(), w=parameter(8, 6))
    graph = read_module(module, (X,))
    weight = graph.weights[only(graph, NodeKind.LINEAR).weights["weight"]]
    assert (graph.parameters, weight.format, weight.counted) == (48, "fp16", False)
    assert np.array_equal(weight_array(weight), module.w[:, :3].half().detach().numpy())


def test_the_rows_of_positions_that_are_read() -> None:
    graph = read(lambda m, x: x + m.positions[: x.shape[1]], X, positions=parameter(20, 8))
    assert graph.weights["positions.part0"].shape == (6, 8)
    assert graph.parameters == 160


def test_the_projections_of_attention_in_one_matrix() -> None:
    module = nn.MultiheadAttention(8, 2, kdim=8, vdim=8, batch_first=True)
    other = torch.randn(2, 4, 8)
    graph = read_module(module, (X, other, other))
    assert graph.parameters == parameters(module)
    assert sum(node.kind == NodeKind.LINEAR for node in graph.nodes) in (3, 4)


def test_what_follows_from_several_parameters() -> None:
    module = Of(lambda m, x: x @ (m.a * m.b) * m.scale.exp(), a=parameter(8, 5), b=parameter(5), scale=parameter(5))
    graph = read_module(module, (X,))
    product = only(graph, NodeKind.LINEAR)
    assert graph.parameters == 50
    assert product.weights["weight"] == "a"
    assert np.array_equal(weight_array(graph.weights["a"]), (module.a * module.b).detach().numpy())
    assert np.array_equal(weight_array(graph.weights["scale"]), module.scale.exp().detach().numpy())
    assert "a is computed once from a, b" in graph.notes


def test_products_of_parameters_are_operations_as_they_are_in_pytorch() -> None:
    module = Of(lambda m, x: x @ (m.a @ m.b).relu(), a=parameter(8, 2), b=parameter(2, 5))
    graph = read_module(module, (X,))
    assert graph.parameters == 26
    assert macs(graph) == counted_macs(module, X)
    assert "parameters are read as a value: 1" in graph.notes


def test_parameters_beside_computed_values_are_counted() -> None:
    graph = read(lambda m, x: torch.cat([m.token.expand(2, 1, 8), x], 1), X, token=parameter(1, 1, 8))
    assert graph.parameters == 8
    assert "parameters stand in a view beside computed values: 1" in graph.notes


def test_buffers_are_not_parameters() -> None:
    graph = read(lambda m, x: x @ m.filters, X, filters=torch.randn(8, 4))
    weight = graph.weights[only(graph, NodeKind.LINEAR).weights["weight"]]
    assert (graph.parameters, weight.counted, weight.name) == (0, False, "filters")
    assert graph.folded == {"filters": 32}
