"""Operators one by one: what node they become, with which sizes and names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

import numpy as np  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from hwsim.extract.graph.nodes import Graph, NodeKind, weight_array  # noqa: E402
from hwsim.extract.torch import read_module  # noqa: E402
from tests.extract.torch.models import counted_macs, kinds, layers, macs, only  # noqa: E402


class Of(nn.Module):
    """A function of inputs and of parameters and buffers by name."""

    def __init__(self, function: Callable[..., Any], **tensors: Any) -> None:
        super().__init__()
        self.function = function
        for name, tensor in tensors.items():
            if isinstance(tensor, nn.Parameter | nn.Module):
                setattr(self, name, tensor)
            else:
                self.register_buffer(name, tensor)

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape))


def read(function: Callable[..., Any], *inputs: Any, **tensors: Any) -> Graph:
    return read_module(Of(function, **tensors), inputs)


X = torch.randn(2, 6, 8)
FUNCTIONS = [
    ("add", lambda _, x: x + x), ("add", lambda _, x: x - 2 * x), ("add", lambda _, x: 1 - x),
    ("multiply", lambda _, x: x * x), ("multiply", lambda _, x: -x), ("multiply", lambda _, x: x**2),
    ("divide", lambda _, x: x / x), ("divide", lambda _, x: x.reciprocal()), ("tanh", lambda _, x: x.tanh()),
    ("sigmoid", lambda _, x: x.sigmoid()), ("relu", lambda _, x: F.relu(x)), ("swish", lambda _, x: F.silu(x)),
    ("glu", lambda _, x: F.glu(x)), ("gelu", lambda _, x: F.gelu(x)), ("exp", lambda _, x: x.exp()),
    ("exp", lambda _, x: x.log()), ("exp", lambda _, x: F.softplus(x)), ("sqrt", lambda _, x: x.rsqrt()),
    ("sqrt", lambda _, x: x**0.5), ("select", lambda _, x: x.clamp(0, 1)), ("select", lambda _, x: F.relu6(x)),
    ("select", lambda _, x: F.hardtanh(x)), ("select", lambda _, x: x > 0), ("select", lambda _, x: x.abs()),
    ("select", lambda _, x: torch.where(x > 0, x, 0.0)), ("select", lambda _, x: torch.maximum(x, x + 1)),
    ("select", lambda _, x: x.masked_fill(x > 0, 0.0)),
]  # fmt: skip


@pytest.mark.parametrize(("function", "module"), FUNCTIONS, ids=[f"{at}-{one[0]}" for at, one in enumerate(FUNCTIONS)])
def test_elementwise_functions(function: str, module: Callable[..., Any]) -> None:
    graph = read(module, X)
    last = graph.producers[graph.outputs[0]]
    assert (last.kind, last["function"]) == (NodeKind.ELEMENTWISE, function)
    assert last["width"] == graph.values[last.outputs[0]].shape[-1]
    assert graph.values[last.outputs[0]].shape == tuple(Of(module)(X).shape)
    assert set(last.inputs) <= graph.values.keys()


def test_a_square_reads_its_operand_twice_and_a_factor_once() -> None:
    assert read(lambda _, x: x**2, X).nodes[0].inputs == ("inputs_0", "inputs_0")
    assert len(read(lambda _, x: 3.0 * x, X).nodes[0].inputs) == 1


@pytest.mark.parametrize(("function", "module", "shape"), [
    ("add", lambda _, x: x.sum(-1), (2, 6)), ("add", lambda _, x: x.mean((0, 1)), (8,)),
    ("select", lambda _, x: x.amax(1, keepdim=True), (2, 1, 8)), ("select", lambda _, x: x.argmax(-1), (2, 6)),
    ("multiply", lambda _, x: x.prod(1), (2, 8)), ("select", lambda _, x: x.max(-1).values, (2, 6)),
    ("select", lambda _, x: x.topk(3).values, (2, 6, 3)),
])  # fmt: skip
def test_reductions(function: str, module: Callable[..., Any], shape: tuple[int, ...]) -> None:
    graph = read(module, X)
    node = only(graph, NodeKind.REDUCE)
    assert node["function"] == function
    assert graph.values[graph.outputs[0]].shape == shape


def test_indices_are_integers() -> None:
    graph = read(lambda _, x: x.argmax(-1), X)
    assert graph.values[graph.outputs[0]].integer


@pytest.mark.parametrize("move", [
    lambda _, x: x.view(12, 8), lambda _, x: x.permute(2, 0, 1), lambda _, x: x.transpose(0, 1), lambda _, x: x[:, 1:],
    lambda _, x: x.reshape(4, 24), lambda _, x: torch.cat([x, x], 1), lambda _, x: torch.stack([x, x]),
    lambda _, x: x.flip(1), lambda _, x: x.roll(1, 1), lambda _, x: F.pad(x, (1, 2)), lambda _, x: x.unfold(1, 3, 1),
    lambda _, x: x[:, [0, 2]], lambda _, x: x.split(2, 1)[1], lambda _, x: x.chunk(2, -1)[0],
    lambda _, x: x.unbind(1)[3], lambda _, x: x.repeat(2, 1, 1), lambda _, x: x[:1].expand(4, 6, 8),
    lambda _, x: x.as_strided((2, 3), (1, 1)), lambda _, x: x.to(torch.float16), lambda _, x: x.squeeze(0)[..., None],
    lambda _, x: x.gather(1, torch.zeros(2, 3, 8, dtype=torch.long)), lambda _, x: x.tril(),
])  # fmt: skip
def test_views_have_no_arithmetic(move: Callable[..., Any]) -> None:
    graph = read(move, X)
    assert set(kinds(graph)) == {"view"}
    assert graph.values[graph.outputs[0]].shape == tuple(Of(move)(X).shape)


def test_what_changes_nothing_is_no_node() -> None:
    graph = read(lambda _, x: F.dropout(x.contiguous(), 0.5, training=False).view(2, 6, 8).clone() + 1.0, X)
    assert kinds(graph) == {"elementwise": 1}


PRODUCTS = [
    (lambda m, x: F.linear(x, m.w), {"w": (5, 8)}, (8, 5)), (lambda m, x: x @ m.w, {"w": (8, 5)}, (8, 5)),
    (lambda m, x: torch.addmm(m.b, x[0], m.w), {"w": (8, 5), "b": (5,)}, (8, 5)),
    (lambda m, x: torch.mm(x[0], m.w.t()), {"w": (5, 8)}, (8, 5)), (lambda m, x: m.w @ x[0].T, {"w": (5, 8)}, (8, 5)),
    (lambda m, x: torch.einsum("btd,de->bte", x, m.w), {"w": (8, 5)}, (8, 5)),
    (lambda m, x: torch.einsum("dhk,btd->bthk", m.w, x), {"w": (8, 5, 3)}, (8, 15)),
    (lambda m, x: torch.einsum("...d,ed->...e", x, m.w), {"w": (5, 8)}, (8, 5)),
    (lambda m, x: x @ m.w, {"w": (8,)}, (8, 1)),
    (lambda m, x: torch.einsum("bthk,hkd->btd", x.view(2, 6, 2, 4), m.w), {"w": (2, 4, 5)}, (8, 5)),
]  # fmt: skip


@pytest.mark.parametrize(("module", "shapes", "weight"), PRODUCTS, ids=range(len(PRODUCTS)))
def test_products_by_parameters(module: Callable[..., Any], shapes: dict[str, Any], weight: tuple[int, int]) -> None:
    made = Of(module, **{name: parameter(*shape) for name, shape in shapes.items()})
    graph = read_module(made, (X,))
    node = only(graph, NodeKind.LINEAR)
    assert graph.weights[node.weights["weight"]].shape == weight
    assert ("b" in shapes) == ("bias" in node.weights)
    assert macs(graph) == (counted_macs(made, X) or 12 * 8)  # the counter leaves out products by a vector
    assert graph.values[graph.outputs[0]].shape == tuple(made(X).shape)


def test_a_bias_that_is_no_row_is_added() -> None:
    graph = read(lambda m, x: torch.addmm(m.b, x[0], m.w), X, w=parameter(8, 5), b=parameter(6, 5))
    assert graph.parameters == 70
    assert kinds(graph)["elementwise"] == 1


BATCHED = [
    (lambda _, x: torch.bmm(x, x.transpose(1, 2)), (2, 6, 8, 6)),
    (lambda _, x: x.view(2, 2, 3, 8) @ x.view(2, 2, 8, 3), (4, 3, 8, 3)),
    (lambda _, x: torch.baddbmm(x[:, :, :6], x, x.transpose(1, 2)), (2, 6, 8, 6)),
    (lambda _, x: torch.einsum("btd,bsd->bts", x, x), (2, 6, 8, 6)),
    (lambda _, x: torch.einsum("bthk,bshk->bhts", x.view(2, 6, 2, 4), x.view(2, 6, 2, 4)), (4, 6, 4, 6)),
    (lambda _, x: torch.einsum("bhqk,bkhd->bqhd", x.view(2, 2, 3, 8), x.view(2, 8, 2, 3)), (4, 3, 8, 3)),
    (lambda _, x: x[0] @ x[1].T, (1, 6, 8, 6)), (lambda _, x: F.linear(x[0], x[1]), (1, 6, 8, 6)),
]  # fmt: skip


@pytest.mark.parametrize(("module", "sizes"), BATCHED, ids=range(len(BATCHED)))
def test_products_of_two_computed_operands(module: Callable[..., Any], sizes: tuple[int, ...]) -> None:
    graph = read(module, X)
    node = only(graph, NodeKind.MATMUL)
    assert (node["batch"], node["m"], node["k"], node["n"]) == sizes
    assert macs(graph) == counted_macs(Of(module), X)


def test_a_matrix_for_each_head_is_as_many_products() -> None:
    module = Of(lambda m, x: torch.einsum("bthk,hkd->bthd", x.view(2, 6, 2, 4), m.w), w=parameter(2, 4, 5))
    graph = read_module(module, (X,))
    assert kinds(graph)["linear"] == 2
    assert {name: weight.shape for name, weight in graph.weights.items()} == {"w.part0": (4, 5), "w.part1": (4, 5)}
    assert np.array_equal(weight_array(graph.weights["w.part1"]), module.w[1].detach().numpy())
    assert macs(graph) == counted_macs(module, X)


def test_attention_as_one_operator_with_masks() -> None:
    mask = torch.ones(6, 6, dtype=torch.bool)
    graph = read(lambda m, x: F.scaled_dot_product_attention(x, x, x, attn_mask=m.mask), X, mask=mask)
    assert kinds(graph) == {"view": 1, "matmul": 2, "softmax": 1}
    assert "masks that keep everything were dropped: 1" in graph.notes
    graph = read(lambda m, x: F.scaled_dot_product_attention(x, x, x, attn_mask=m.mask), X, mask=mask.tril())
    assert only(graph, NodeKind.ELEMENTWISE)["function"] == "select"
    assert graph.folded == {"mask": 36}
    graph = read(lambda _, x: F.scaled_dot_product_attention(x, x, x, is_causal=True), X)
    assert only(graph, NodeKind.ELEMENTWISE)["function"] == "select"
    graph = read(lambda _, x: F.scaled_dot_product_attention(x, x, x, attn_mask=x @ x.mT), X)
    assert only(graph, NodeKind.ELEMENTWISE)["function"] == "add"


def test_grouped_queries_share_keys() -> None:
    graph = read(lambda _, q, k: F.scaled_dot_product_attention(q, k, k, enable_gqa=True),
                 torch.randn(1, 8, 5, 4), torch.randn(1, 2, 7, 4))  # fmt: skip
    scores, context = (node for node in graph.nodes if node.kind == NodeKind.MATMUL)
    assert (scores["batch"], scores["m"], scores["k"], scores["n"]) == (8, 5, 4, 7)
    assert (context["batch"], context["m"], context["k"], context["n"]) == (8, 5, 7, 4)


def test_constants_are_folded_by_running_them() -> None:
    def encoded(_: Any, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            angle = torch.arange(x.shape[1])[:, None] * torch.exp(torch.arange(0, 8, 2) / 8)
            table = torch.zeros(x.shape[1], 8)
            table[:, 0::2] = angle.sin()
            table[:, 1::2] = angle.cos()
        return x + table

    graph = read(encoded, X)
    node = only(graph, NodeKind.ELEMENTWISE)
    (weight,) = graph.weights.values()
    assert list(graph.folded.values()) == [48]
    assert node.weights == {"constant": weight.name}
    assert not weight.counted
    assert np.array_equal(weight_array(weight), (Of(encoded)(torch.zeros(1, 6, 8))[0]).numpy())


def test_a_constant_buffer_is_not_changed_by_reading() -> None:
    def change(m: Any, x: torch.Tensor) -> torch.Tensor:
        m.state.add_(1.0)
        return x + m.state

    module = Of(change, state=torch.zeros(8))
    read_module(module, (X,))
    assert module.state.sum() == 0


def test_writes_in_place_are_followed() -> None:
    def change(_: Any, x: torch.Tensor) -> torch.Tensor:
        y = torch.zeros(2, 6, 8)
        before = y[:, 0]
        y[:, 1:] = x[:, :-1].relu()
        y.mul_(2.0)
        return before + y.sum(1)

    graph = read(change, X)
    producers = graph.producers

    def needs(name: str) -> set[str]:
        node = producers.get(name)
        return {name} if node is None else {node.attributes.get("function", "")}.union(*map(needs, node.inputs))

    last = producers[graph.outputs[0]]
    assert last["function"] == "add"
    assert all({"multiply", "relu"} < needs(name) for name in last.inputs)


def test_what_is_not_needed_is_left_out() -> None:
    def late(m: Any, x: torch.Tensor) -> torch.Tensor:
        torch.rand(3)
        (x @ m.w).exp()
        return x.relu()

    graph = read_module(Of(late, w=parameter(8, 8)), (X,), unused="note")
    assert kinds(graph) == {"elementwise": 1}
    assert graph.parameters == 64
    assert graph.notes == ("not read: parameters w",)


def test_regions_of_autocast_are_entered() -> None:
    def half(m: Any, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return m.linear(x)

    graph = read(half, X, linear=nn.Linear(8, 4))
    node = only(graph, NodeKind.LINEAR)
    assert node.input_format == "bf16"
    assert graph.values[graph.outputs[0]].format == "bf16"
    assert graph.parameters == 36


def test_layers_that_run_twice_share_weights() -> None:
    graph = read(lambda m, x: m.linear(m.linear(x)), X, linear=nn.Linear(8, 8))
    assert layers(graph) == ["linear", "linear_2"]
    assert graph.parameters == 72


def test_values_of_a_half_module_are_half() -> None:
    graph = read_module(nn.Linear(8, 4).half(), (X.half(),))
    assert {value.format for value in graph.values.values()} == {"fp16"}
    assert {weight.format for weight in graph.weights.values()} == {"fp16"}


def test_double_precision_is_noted() -> None:
    graph = read_module(nn.Linear(8, 4).double(), (X.double(),))
    assert graph.notes == ("float64 is counted as fp32",)


def test_an_unnamed_product_is_named_after_its_operation() -> None:
    assert layers(read(lambda m, x: (x @ m.w).relu(), X, w=parameter(8, 8))) == ["matmul", "relu"]
    assert layers(read_module(nn.Linear(8, 4), (X,))) == ["linear"]
