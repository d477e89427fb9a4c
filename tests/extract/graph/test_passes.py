"""Patterns of several nodes become one operation, and nothing else changes."""

from __future__ import annotations

import pytest

from hwsim.errors import HwsimError
from hwsim.extract.graph.facts import elementwise_counts, graph_macs
from hwsim.extract.graph.nodes import Graph, Node, NodeKind, Value, Weight, check_parameters
from hwsim.extract.graph.passes import simplified, split_by_side
from tests.extract.graph.networks import Draft, joint


def functions(graph: Graph) -> list[str]:
    """Element-wise functions in order."""
    return [node["function"] for node in graph.nodes if node.kind == NodeKind.ELEMENTWISE]


def test_x_times_its_sigmoid_is_swish() -> None:
    d = Draft(x=(4, 8))
    d.function("gate", "sigmoid", "x")
    found = simplified(d.graph("g", d.function("out", "multiply", "gate", "x")))
    assert functions(found) == ["swish"]
    assert found.nodes[0].inputs == ("x",)
    assert found.notes == ("1 gates became swish or GLU",)


def test_halves_of_one_value_are_a_gated_linear_unit() -> None:
    d = Draft(x=(4, 16))
    d.view("a", ("x",), 4, 8)
    d.view("b", ("x",), 4, 8)
    found = simplified(d.graph("g", d.function("out", "multiply", "a", d.function("gate", "sigmoid", "b"))))
    assert functions(found) == ["glu"]
    assert [node.inputs for node in found.nodes] == [("x",)]


def test_a_gate_of_another_value_stays_two_operations() -> None:
    d = Draft(x=(4, 8), y=(4, 8))
    found = simplified(d.graph("g", d.function("out", "multiply", "x", d.function("gate", "sigmoid", "y"))))
    assert functions(found) == ["sigmoid", "multiply"]


def test_a_gate_that_somebody_else_reads_stays() -> None:
    d = Draft(x=(4, 8))
    d.function("gate", "sigmoid", "x")
    found = simplified(d.graph("g", d.function("out", "multiply", "gate", "x"), "gate"))
    assert functions(found) == ["sigmoid", "multiply"]


@pytest.mark.parametrize("first", ["add", "multiply"])
@pytest.mark.parametrize("second", ["tanh", "relu"])
def test_an_activation_joins_the_sum_in_front(first: str, second: str) -> None:
    d = Draft(x=(4, 8), y=(4, 8))
    found = simplified(d.graph("g", d.function("out", second, d.function("sum", first, "x", "y"))))
    assert functions(found) == [f"{first}_{second}"]
    assert found.nodes[0].inputs == ("x", "y")


def test_a_factor_of_a_product_is_part_of_its_scale() -> None:
    d = Draft(x=(4, 8), y=(4, 8))
    scaled = d.function("scaled", "multiply", d.linear("l", "x", 8))
    d.function("before", "divide", "y")
    found = simplified(d.graph("g", d.function("sum", "add", scaled, d.linear("m", "before", 8))))
    assert functions(found) == ["add"]
    assert found.notes == ("2 constant factors became part of the scale of a product",)
    assert graph_macs(found) == 2 * 4 * 8 * 8


def test_a_factor_between_functions_stays() -> None:
    d = Draft(x=(4, 8))
    found = simplified(d.graph("g", d.function("out", "tanh", d.function("scaled", "multiply", "x"))))
    assert functions(found) == ["multiply", "tanh"]


def test_a_vector_added_to_a_product_is_its_bias() -> None:
    d = Draft(x=(4, 8))
    d.linear("l", "x", 6, bias=False)
    d.add(NodeKind.ELEMENTWISE, "sum", ("l",), (4, 6), {"constant": d.weight("b", 6)}, function="add", width=6)
    found = simplified(d.graph("g", "sum"))
    assert [(node.kind, node.outputs, dict(node.weights)) for node in found.nodes] == [
        (NodeKind.LINEAR, ("sum",), {"weight": "l.weight", "bias": "b"})
    ]
    assert found.parameters == 8 * 6 + 6


def test_a_matrix_added_to_a_product_is_no_bias() -> None:
    d = Draft(x=(4, 8))
    d.linear("l", "x", 6, bias=False)
    d.add(NodeKind.ELEMENTWISE, "sum", ("l",), (4, 6), {"constant": d.weight("b", 4, 6)}, function="add", width=6)
    assert functions(simplified(d.graph("g", "sum"))) == ["add"]


def test_what_no_output_needs_is_dropped_with_its_work() -> None:
    d = Draft(x=(4, 8))
    d.linear("unused", "x", 100)
    found = simplified(d.graph("g", d.function("out", "tanh", "x")))
    assert [node.layer for node in found.nodes] == ["out"]
    assert elementwise_counts(found) == {"tanh": 32}


def test_a_joint_of_concatenated_sides_is_a_sum_of_two_products() -> None:
    whole = joint()
    split = split_by_side(whole, ("encoder_side", "prediction_side"))
    products = [node for node in split.nodes if node.kind == NodeKind.LINEAR]
    assert [node.attributes.get("weight_rows") for node in products] == [[0, 1024], [1024, 1344], None]
    assert ["bias" in node.weights for node in products] == [False, True, True]
    assert graph_macs(split) == graph_macs(whole)
    assert split.parameters == whole.parameters
    assert functions(simplified(split)) == ["add_relu"]


def test_a_sum_of_sides_is_not_split() -> None:
    d = Draft(encoder=(1, 8), prediction=(1, 8))
    graph = d.graph("joint", d.linear("out", d.function("sum", "add", "encoder", "prediction"), 4))
    assert split_by_side(graph, ("encoder", "prediction")) is graph


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inputs": ("nothing",)}, "g: out must read a value that is there, got 'nothing'"),
        ({"weights": {"weight": "w"}}, "g: out must hold a known weight, got 'w'"),
        ({"attributes": {"function": "cosine"}}, "g: out must have a known function, got 'cosine'"),
    ],
)
def test_a_graph_whose_parts_do_not_fit_is_refused(change: dict[str, object], said: str) -> None:
    given = {"inputs": ("x",), "attributes": {"function": "tanh", "width": 8}, **change}
    node = Node(NodeKind.ELEMENTWISE, "out", outputs=("y",), **given)  # type: ignore[arg-type]
    with pytest.raises(HwsimError, match=said):
        Graph("g", {"x": Value("x", (8,)), "y": Value("y", (8,))}, (node,), {}, ("x",), ("y",))


def test_every_parameter_of_the_file_is_a_weight() -> None:
    graph = joint()
    held = {name: weight.elements for name, weight in graph.weights.items()}
    check_parameters(graph, held)
    with pytest.raises(HwsimError, match=r"joint: the network must have the 703522 parameters of the file, got 703517: "
                                         r"stray \(5\)"):  # fmt: skip
        check_parameters(graph, {**held, "stray": 5})
    with pytest.raises(HwsimError, match=r"output.bias \(not in the file\)"):
        check_parameters(graph, {name: count for name, count in held.items() if name != "output.bias"})


def test_statistics_of_a_norm_are_no_parameters() -> None:
    weights = {"a": Weight("a", (4, 4)), "mean": Weight("mean", (4,), counted=False)}
    graph = Graph("g", {"x": Value("x", (4,))}, (), weights, ("x",), ("x",))
    assert graph.parameters == 16
