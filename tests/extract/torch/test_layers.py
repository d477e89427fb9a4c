"""Convolutions, norms and tables."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

import numpy as np  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import nn  # noqa: E402

from hwsim.extract.graph.nodes import NodeKind, weight_array  # noqa: E402
from hwsim.extract.torch import read_module  # noqa: E402
from tests.extract.torch.models import counted_macs, kinds, layers, macs, only, parameters  # noqa: E402
from tests.extract.torch.test_operators import parameter, read  # noqa: E402


@settings(max_examples=20, deadline=None)
@given(
    groups=st.sampled_from([1, 2, 4]), kernel=st.integers(1, 4), dilation=st.integers(1, 2), bias=st.booleans(),
    padding=st.sampled_from(["same", "valid", 0, 2]), two=st.booleans(), stride=st.integers(1, 2),
)  # fmt: skip
def test_convolutions(groups, kernel, dilation, bias, padding, two, stride) -> None:
    stride = 1 if padding == "same" else stride
    make, shape = (nn.Conv2d, (2, 4, 9, 10)) if two else (nn.Conv1d, (2, 4, 9))
    module = make(4, 8, kernel, stride, padding, dilation, groups, bias)
    x = torch.zeros(shape)
    graph = read_module(module, (x,))
    node = only(graph, NodeKind.CONV)
    assert graph.parameters == parameters(module)
    assert macs(graph) == counted_macs(module, x)
    sizes = [(size + sum(pad) - dilation * (kernel - 1) - 1) // stride + 1
             for size, pad in zip(shape[2:], node["padding"], strict=True)]  # fmt: skip
    assert graph.values[graph.outputs[0]].shape == (2, 8, *sizes)
    assert graph.weights["weight"].shape == (kernel ** len(sizes), 4 // groups, 8)
    assert (node["dimensions"], node["groups"]) == (len(sizes), groups)


def test_an_even_kernel_pads_after() -> None:
    node = only(read_module(nn.Conv1d(2, 2, 4, padding="same"), (torch.zeros(1, 2, 9),)), NodeKind.CONV)
    assert node["padding"] == [(1, 2)]


@pytest.mark.parametrize(("module", "shape", "rows", "width"), [
    (nn.LayerNorm(8), (2, 6, 8), 12, 8), (nn.RMSNorm(8), (2, 6, 8), 12, 8), (nn.LayerNorm((6, 8)), (2, 6, 8), 2, 48),
    (nn.GroupNorm(2, 6), (2, 6, 8), 4, 24), (nn.InstanceNorm1d(6, affine=True), (2, 6, 8), 12, 8),
    (nn.LayerNorm(8, elementwise_affine=False), (2, 6, 8), 12, 8),
])  # fmt: skip
def test_norms(module: nn.Module, shape: tuple[int, ...], rows: int, width: int) -> None:
    graph = read_module(module, (torch.zeros(shape),))
    node = only(graph, NodeKind.NORM)
    assert (node["rows"], node["width"]) == (rows, width)
    assert graph.parameters == parameters(module)
    assert all(graph.weights[name].shape == (width,) for name in node.weights.values())


@pytest.mark.parametrize("affine", [False, True])
def test_the_norm_of_a_batch_is_a_factor_and_an_offset(affine: bool) -> None:
    module = nn.BatchNorm1d(6, affine=affine).double()
    module.running_mean.uniform_()
    module.running_var.uniform_(0.5, 2.0)
    for each in module.parameters():
        nn.init.uniform_(each, 0.5, 2.0)
    x = torch.randn(2, 6, 8).double()
    graph = read_module(module, (x,))
    factor, offset = (weight_array(graph.weights[node.weights["constant"]]) for node in graph.nodes)
    assert [node["function"] for node in graph.nodes] == ["multiply", "add"]
    assert graph.parameters == parameters(module)
    assert {name for name, weight in graph.weights.items() if not weight.counted} >= {"running_mean", "running_var"}
    found = x.numpy() * factor[:, None] + offset[:, None]
    np.testing.assert_allclose(found, module.eval()(x).detach().numpy(), rtol=1e-12, atol=1e-12)


def test_labels_look_up_rows() -> None:
    labels = torch.zeros(2, 3, dtype=torch.long)
    graph = read_module(nn.Embedding(10, 4), (labels,))
    assert graph.weights[only(graph, NodeKind.LOOKUP).weights["table"]].shape == (10, 4)
    graph = read(lambda m, i: m.a(i) + m.b(i), labels, a=nn.Embedding(10, 4), b=nn.Embedding(5, 4))
    assert layers(graph) == ["a", "b", "add"]
    assert kinds(read(lambda m, i: m.t[i], labels, t=parameter(10, 4))) == {"lookup": 1}
