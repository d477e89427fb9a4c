"""Operators one by one: what node each becomes, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwsim.errors import HwsimError
from hwsim.extract.graph.nodes import Graph, NodeKind, weight_array
from hwsim.extract.onnx import read_structure
from tests.extract.onnx.models import F32, FLOAT, I8, INT64, U8, TensorProto, helper, onnx
from tests.extract.structure.models import Model

RNG = np.random.default_rng(1)
MS = {"domain": "com.microsoft"}


def read(folder: Path, model: Model, *outputs: str, **more: Any) -> Graph:
    return read_structure(model.save(folder, *outputs), **more)


def weights(model: Model, name: str, *shape: int) -> str:
    return model.constant(name, F32(RNG.standard_normal(shape)))


def kinds(graph: Graph) -> list[str]:
    """Nodes in their order, element-wise ones by their function."""
    return [node.attributes.get("function") or str(node.kind) for node in graph.nodes]


def refusal(folder: Path, model: Model, *outputs: str) -> str:
    with pytest.raises(HwsimError) as caught:
        read(folder, model, *outputs)
    text = str(caught.value)
    assert "\n" not in text
    return text.removeprefix(f"{folder / 'model.onnx'}: ")


class TestProducts:
    def test_a_bias_behind_a_product_is_part_of_it(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [2, 5, 8])})
        product = model.add("MatMul", ["x", weights(model, "w", 8, 3)], "/a/fc/MatMul")
        graph = read(tmp_path, model, model.add("Add", [weights(model, "b", 3), product], "/a/fc/Add"))
        (node,) = graph.nodes
        assert (node.kind, node.layer, dict(node.weights)) == ("linear", "a.fc", {"weight": "w", "bias": "b"})
        assert graph.weights["w"].shape == (8, 3)
        assert graph.parameters == 27

    def test_two_computed_operands(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [2, 4, 5, 8]), "y": (FLOAT, [1, 4, 8, 7])})
        (node,) = read(tmp_path, model, model.add("MatMul", ["x", "y"])).nodes
        assert (node.kind, node.attributes) == (NodeKind.MATMUL, {"m": 5, "k": 8, "n": 7, "batch": 8})

    def test_a_weight_in_front_is_turned(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [8, 5])})
        graph = read(tmp_path, model, model.add("MatMul", [weights(model, "w", 3, 8), "x"], "fc"))
        assert kinds(graph) == ["view", "linear", "view"]
        assert graph.weights["w"].shape == (8, 3)
        assert graph.values["fc:0"].shape == (3, 5)

    def test_batches_of_constants_are_a_grouped_convolution(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [1, 4, 5, 8])})
        graph = read(tmp_path, model, model.add("MatMul", ["x", weights(model, "w", 1, 4, 8, 3)]))
        (node,) = graph.nodes
        wanted = {"positions": 5, "taps": 1, "groups": 4, "inputs": 32, "outputs": 12}
        assert {key: node[key] for key in wanted} == wanted
        assert graph.weights["w"].shape == (1, 8, 12)

    def test_batches_of_constants_for_the_same_rows(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [5, 8])})
        graph = read(tmp_path, model, model.add("MatMul", ["x", weights(model, "w", 4, 8, 3)]))
        assert kinds(graph) == ["linear"]
        assert graph.weights["w"].shape == (8, 12)

    @pytest.mark.parametrize("turned", [False, True])
    def test_gemm(self, tmp_path: Path, turned: bool) -> None:
        model = Model({"x": (FLOAT, [5, 8])})
        weight = weights(model, "w", 3, 8) if turned else weights(model, "w", 8, 3)
        graph = read(tmp_path, model, model.add("Gemm", ["x", weight, weights(model, "b", 3)], transB=int(turned)))
        (node,) = graph.nodes
        assert dict(node.weights) == {"weight": "w", "bias": "b"}
        assert graph.weights["w"].shape == (8, 3)
        assert weight_array(graph.weights["w"]).shape == ((3, 8) if turned else (8, 3))

    def test_gemm_with_a_computed_addend(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [5, 8]), "y": (FLOAT, [5, 3])})
        assert kinds(read(tmp_path, model, model.add("Gemm", ["x", weights(model, "w", 8, 3), "y"]))) == [
            "linear",
            "add",
        ]

    @pytest.mark.parametrize(("equation", "second", "expected"), [
        ("bhid,bhjd->bhij", (2, 4, 7, 8), {"m": 5, "k": 8, "n": 7, "batch": 8}),
        ("bhid,hjd->bhij", (4, 7, 8), {"m": 10, "k": 8, "n": 7, "batch": 4}),
    ])  # fmt: skip
    def test_einsum(self, tmp_path: Path, equation: str, second: tuple[int, ...], expected: dict[str, int]) -> None:
        model = Model({"x": (FLOAT, [2, 4, 5, 8]), "y": (FLOAT, second)})
        (node,) = read(tmp_path, model, model.add("Einsum", ["x", "y"], equation=equation)).nodes
        assert (node.kind, node.attributes) == (NodeKind.MATMUL, expected)

    def test_einsum_by_a_weight(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [2, 5, 8])})
        graph = read(
            tmp_path, model, model.add("Einsum", ["x", weights(model, "w", 8, 4, 3)], equation="btd,dhk->bhtk")
        )
        assert kinds(graph) == ["linear"]
        assert graph.weights["w"].shape == (8, 12)

    def test_einsum_of_one_operand_is_refused(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [2, 5])})
        text = refusal(tmp_path, model, model.add("Einsum", ["x"], "sum", equation="ij->i"))
        assert text == "node 'sum' (Einsum) must be a product of two operands without repeated axes, got 'ij->i'"

    def test_a_weight_of_several_nodes_is_one(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [5, 8])})
        first = model.add("MatMul", ["x", weights(model, "w", 8, 8)], "first")
        graph = read(tmp_path, model, model.add("MatMul", [first, "w"], "second"))
        assert graph.parameters == 64
        assert "weight 'w' is shared by 2 nodes: first, second" in graph.notes


class TestConvolutions:
    @pytest.mark.parametrize(("attributes", "padding"), [
        ({"pads": [3, 1]}, [(3, 1)]), ({"auto_pad": "SAME_UPPER"}, [(1, 2)]), ({"auto_pad": "SAME_LOWER"}, [(2, 1)]),
        ({"auto_pad": "VALID"}, [(0, 0)]), ({}, [(0, 0)]),
    ])  # fmt: skip
    def test_padding(self, tmp_path: Path, attributes: dict[str, Any], padding: list[tuple[int, int]]) -> None:
        model = Model({"x": (FLOAT, [2, 6, 20])})
        conv = model.add("Conv", ["x", weights(model, "w", 6, 1, 4)], group=6, **attributes)
        graph = read(tmp_path, model, conv)
        (node,) = graph.nodes
        assert node["padding"] == padding
        assert (node["groups"], node["inputs"], node["outputs"], node["taps"]) == (6, 6, 6, 4)
        assert node["positions"] == 2 * graph.values[f"{node.outputs[0]}"].shape[2]
        assert graph.weights["w"].shape == (4, 1, 6)

    def test_dilation_and_stride(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [1, 4, 21, 10])})
        conv = model.add("Conv", ["x", weights(model, "w", 8, 2, 3, 1)], group=2, dilations=[2, 1], strides=[2, 1])
        (node,) = read(tmp_path, model, conv).nodes
        wanted = {"kernel": [3, 1], "dilation": [2, 1], "stride": [2, 1], "positions": 90, "dimensions": 2}
        assert {key: node[key] for key in wanted} == wanted

    @pytest.mark.parametrize(("op", "message"), [
        ("Conv", "node 'c' (Conv) must have 1 or 2 dimensions, got 3"),
        ("ConvTranspose", "operators must be ones that are read, got ConvTranspose (1 node, first 'c')"),
    ])  # fmt: skip
    def test_what_is_refused(self, tmp_path: Path, op: str, message: str) -> None:
        model = Model({"x": (FLOAT, [1, 4, 5, 5, 5])})
        assert refusal(tmp_path, model, model.add(op, ["x", weights(model, "w", 4, 4, 1, 1, 1)], "c")) == message


class TestPatterns:
    @pytest.mark.parametrize("square", ["Pow", "Mul"])
    @pytest.mark.parametrize("root", ["Div", "Mul"])
    def test_a_decomposed_layer_norm(self, tmp_path: Path, square: str, root: str) -> None:
        model = Model({"x": (FLOAT, [2, 5, 8])})
        axes, two = model.constant("axes", np.array([-1])), model.constant("two", F32(2))
        mean = model.add("ReduceMean", ["x", axes])
        centred = model.add("Sub", ["x", mean])
        squared = model.add(square, [centred, two if square == "Pow" else centred])
        variance = model.add("ReduceMean", [squared, axes])
        deviation = model.add("Sqrt", [model.add("Add", [variance, model.constant("eps", F32(1e-5))])])
        if root == "Mul":
            deviation = model.add("Reciprocal", [deviation])
        normed = model.add(root, [centred, deviation])
        scaled = model.add("Mul", [normed, weights(model, "g", 8)])
        graph = read(tmp_path, model, model.add("Add", [scaled, weights(model, "b", 8)]))
        (node,) = graph.nodes
        assert (node.kind, node.attributes) == (NodeKind.NORM, {"rows": 10, "width": 8})
        assert dict(node.weights) == {"gamma": "g", "beta": "b"}

    def test_a_decomposed_root_mean_square_norm(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [2, 5, 8])})
        squared = model.add("Pow", ["x", model.constant("two", F32(2))])
        mean = model.add("ReduceMean", [squared, model.constant("axes", np.array([-1]))])
        deviation = model.add("Sqrt", [model.add("Add", [mean, model.constant("eps", F32(1e-5))])])
        normed = model.add("Mul", ["x", model.add("Reciprocal", [deviation])])
        (node,) = read(tmp_path, model, model.add("Mul", [weights(model, "g", 8), normed])).nodes
        assert (node.kind, dict(node.weights)) == (NodeKind.NORM, {"gamma": "g"})

    def test_statistics_that_something_else_reads_stay_apart(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [2, 5, 8])})
        mean = model.add("ReduceMean", ["x", model.constant("axes", np.array([-1]))])
        centred = model.add("Sub", ["x", mean])
        variance = model.add("ReduceMean", [model.add("Mul", [centred, centred]), "axes"])
        deviation = model.add("Sqrt", [model.add("Add", [variance, model.constant("eps", F32(1e-5))])])
        graph = read(tmp_path, model, model.add("Div", [centred, deviation]), mean)
        # What is left of the pattern is a norm by the root mean square of the centred values.
        assert kinds(graph) == ["add", "add", "norm"]

    @pytest.mark.parametrize("first", [False, True])
    def test_gelu(self, tmp_path: Path, first: bool) -> None:
        model = Model({"x": (FLOAT, [5, 8])})
        half, one, root = (model.constant(name, F32(value)) for name, value in (("h", 0.5), ("o", 1), ("r", 2**0.5)))
        plus = model.add("Add", [model.add("Erf", [model.add("Div", ["x", root])]), one])
        out = (model.add("Mul", [model.add("Mul", ["x", half]), plus]) if first
               else model.add("Mul", [model.add("Mul", ["x", plus]), half]))  # fmt: skip
        assert kinds(read(tmp_path, model, out)) == ["gelu"]

    def test_swish_stays_two_nodes(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [5, 8])})
        graph = read(tmp_path, model, model.add("Mul", ["x", model.add("Sigmoid", ["x"])]))
        assert kinds(graph) == ["sigmoid", "multiply"]


class TestNorms:
    def test_group_norm_scales_channels(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [2, 8, 10])})
        parts = ["x", weights(model, "g", 8), weights(model, "b", 8)]
        graph = read(tmp_path, model, model.add("GroupNormalization", parts, num_groups=2))
        assert kinds(graph) == ["norm", "multiply", "add"]
        assert graph.nodes[0].attributes == {"rows": 4, "width": 40}
        assert graph.parameters == 16

    def test_a_sum_before_a_norm(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [2, 5, 8]), "y": (FLOAT, [2, 5, 8])})
        parts = ["x", "y", weights(model, "g", 8), weights(model, "b", 8)]
        model.add("SkipLayerNormalization", parts, "skip", outputs=["out", "", "", "sum"], **MS)
        graph = read(tmp_path, model, "out", "sum")
        assert kinds(graph) == ["add", "norm"]
        assert graph.outputs == ("out", "sum")

    def test_a_norm_that_onnx_does_not_know(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [2, 5, 8])})
        model.add("SimplifiedLayerNormalization", ["x", weights(model, "g", 8)], "rms", outputs=["out"], **MS)
        content = onnx.load_from_string(model.save(tmp_path, "out").read_bytes())
        content.graph.node[0].domain = ""
        (tmp_path / "model.onnx").write_bytes(content.SerializeToString())
        (node,) = read_structure(tmp_path / "model.onnx").nodes
        assert (node.kind, dict(node.weights)) == (NodeKind.NORM, {"gamma": "g"})


class TestAttention:
    def test_one_operator_becomes_its_parts(self, tmp_path: Path) -> None:
        sizes = {"q": (FLOAT, [1, 5, 16]), "k": (FLOAT, [1, 7, 8]), "v": (FLOAT, [1, 7, 8]), "m": (FLOAT, [5, 7])}
        model = Model(sizes, opset=23)
        graph = read(tmp_path, model, model.add("Attention", ["q", "k", "v", "m"], q_num_heads=4, kv_num_heads=2))
        assert kinds(graph) == ["matmul", "add", "softmax", "matmul"]
        scores, _, softmax, values = graph.nodes
        assert scores.attributes == {"m": 5, "k": 4, "n": 7, "batch": 4}
        assert (softmax["rows"], softmax["width"]) == (20, 7)
        assert values.attributes == {"m": 5, "k": 7, "n": 4, "batch": 4}

    def test_queries_keys_and_values_apart(self, tmp_path: Path) -> None:
        model = Model({name: (FLOAT, [2, 5, 16]) for name in "qkv"})
        out = model.add("MultiHeadAttention", ["q", "k", "v", weights(model, "b", 48)], num_heads=4, **MS)
        graph = read(tmp_path, model, out)
        assert kinds(graph) == ["add", "add", "add", "matmul", "softmax", "matmul"]
        assert graph.parameters == 48
        assert {name: weight.elements for name, weight in graph.weights.items()} == {
            "b.query": 16, "b.key": 16, "b.value": 16}  # fmt: skip

    def test_one_product_for_all_three(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [2, 5, 16])})
        parts = ["x", weights(model, "w", 16, 48), weights(model, "b", 48)]
        graph = read(tmp_path, model, model.add("Attention", parts, num_heads=4, **MS))
        assert kinds(graph) == ["linear", "view", "matmul", "softmax", "matmul"]
        assert graph.parameters == 16 * 48 + 48


class TestConstants:
    @pytest.mark.parametrize("parts", [(np.sin, np.cos), (np.cos,)])
    def test_encodings_of_positions_are_no_parameters(self, tmp_path: Path, parts: Any) -> None:
        place = np.arange(9, 0, -1)[:, None] * 0.1 ** np.arange(4)
        table = F32(np.concatenate([part(place) for part in parts], axis=1))
        width = table.shape[1]
        model = Model({"x": (FLOAT, [9, width])})
        added = model.add("Add", ["x", model.constant("encoder.pe", table)])
        graph = read(tmp_path, model, model.add("Add", [added, weights(model, "learned", 9, width)]))
        assert (graph.parameters, dict(graph.folded)) == (9 * width, {"encoder.pe": 9 * width})
        assert [dict(node.weights) for node in graph.nodes] == [{}, {"constant": "learned"}]

    def test_encodings_in_codes_are_no_parameters(self, tmp_path: Path) -> None:
        table = np.round(np.sin(np.arange(9)[:, None] * 0.1 ** np.arange(4)) / 0.01)
        model = Model({"x": (FLOAT, [9, 4])})
        parts = [model.constant("pe_quantized", I8(table)), *model.grid("pe", 0.01, I8(0))]
        graph = read(tmp_path, model, model.add("Add", ["x", model.add("DequantizeLinear", parts, "dq")]))
        assert (graph.parameters, dict(graph.folded)) == (0, {"dq:0": 36})

    @pytest.mark.parametrize(("name", "learned"), [("block.offset", 12), ("val_3", 0)])
    def test_the_same_number_everywhere_is_learned_by_its_name(self, tmp_path: Path, name: str, learned: int) -> None:
        model = Model({"x": (FLOAT, [3, 4])})
        graph = read(tmp_path, model, model.add("Add", ["x", model.constant(name, np.zeros((3, 4), np.float32))]))
        assert (graph.parameters, sum(graph.folded.values())) == (learned, 12 - learned)

    def test_masks_are_no_parameters(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [4, 4])})
        mask = model.constant("mask", F32(np.triu(np.full((4, 4), -np.inf), 1)))
        graph = read(tmp_path, model, model.add("Add", ["x", mask]))
        assert (graph.parameters, dict(graph.folded)) == (0, {"mask": 16})

    def test_a_parameter_that_is_computed(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [5, 8])})
        log = weights(model, "norm.log_scale", 8)
        graph = read(tmp_path, model, model.add("Mul", ["x", model.add("Exp", [log], "e")]))
        assert kinds(graph) == ["multiply"]
        assert graph.parameters == 8
        held = graph.weights[graph.nodes[0].weights["constant"]]
        assert np.array_equal(weight_array(held), np.exp(model_array(model, "norm.log_scale")))

    def test_a_projection_of_fixed_data_stays(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [6, 4])})
        data = model.add("Constant", [], "data", value=onnx.numpy_helper.from_array(F32(RNG.random((6, 8)))))
        graph = read(tmp_path, model, model.add("Add", ["x", model.add("MatMul", [data, weights(model, "w", 8, 4)])]))
        assert kinds(graph) == ["linear", "add"]
        assert graph.nodes[0].inputs == ("data:0",)
        assert dict(graph.folded) == {"data:0": 48}

    def test_weights_of_two_factors(self, tmp_path: Path) -> None:
        """Weight norm: one parameter for each output, and a direction."""
        model = Model({"x": (FLOAT, [5, 8])})
        weight = model.add("Mul", [weights(model, "v", 8, 3), weights(model, "g", 1, 3)], "weight")
        graph = read(tmp_path, model, model.add("MatMul", ["x", weight]))
        assert graph.parameters == 24
        assert "'weight:0': 24 parameters are computed from 27 (g, v)" in graph.notes

    def test_a_table_and_a_selection(self, tmp_path: Path) -> None:
        model = Model({"ids": (INT64, [1, 3]), "x": (FLOAT, [4, 5])})
        row = model.add("Gather", [weights(model, "table", 10, 5), "ids"], "embed")
        part = model.add("Gather", ["x", model.constant("at", np.array([1, 2]))], "pick")
        graph = read(tmp_path, model, row, part)
        assert kinds(graph) == ["lookup", "view"]
        assert graph.weights["table"].shape == (10, 5)
        assert graph.values["ids"].integer
        assert graph.values["ids"].format == "int32"

    def test_a_branch_that_sizes_decide(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [1, "T", 8])})
        size = model.add("Gather", [model.add("Shape", ["x"]), model.constant("one", np.array(1))])
        condition = model.add("Equal", [size, model.constant("seven", np.array(7))])
        weights(model, "w", 8, 3)
        value = helper.make_tensor_value_info("r", FLOAT, [])
        then = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["r"], "product")], "then", [], [value])
        other = helper.make_graph([helper.make_node("Relu", ["x"], ["s"], "relu")], "else", [],
                                  [helper.make_tensor_value_info("s", FLOAT, [])])  # fmt: skip
        out = model.add("If", [condition], "if", then_branch=then, else_branch=other)
        path = model.save(tmp_path, out)
        assert kinds(read_structure(path, {"T": 7})) == ["linear", "view"]
        graph = read_structure(path, {"T": 8})
        assert kinds(graph) == ["relu", "view"]
        assert graph.parameters == 0


def model_array(model: Model, name: str) -> Any:
    return next(onnx.numpy_helper.to_array(each) for each in model.constants if each.name == name)


class TestCodes:
    def test_four_bits_that_are_written_as_eight(self, tmp_path: Path) -> None:
        """Quantize, clip, dequantize: how 4 bits are exported where the opset has none."""
        model = Model({"x": (FLOAT, [5, 8])}, opset=13)
        x = clipped(model, model.add("QuantizeLinear", ["x", *model.grid("x", 0.1, I8(0))], "q"), -8, 7, "x")
        codes = model.constant("w", I8(RNG.integers(-7, 8, (8, 3))))
        weight = clipped(model, codes, -7, 7, "w", scale=F32([0.1, 0.2, 0.3]))
        graph = read(tmp_path, model, model.add("MatMul", [x, weight], "fc"))
        (node,) = graph.nodes
        assert graph.weights["w"].format == "int4/channel"
        assert (node.input_format, graph.values["x"].format) == ("int4", "int4")

    def test_unsigned_activations_of_four_bits(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [5, 8])}, opset=13)
        x = clipped(model, model.add("QuantizeLinear", ["x", *model.grid("x", 0.1, U8(0))], "q"), U8(0), U8(15), "x",
                    zero=U8(0))  # fmt: skip
        (node,) = read(tmp_path, model, model.add("Relu", [x])).nodes
        graph = read(tmp_path, model, model.add("Sigmoid", [x]))
        assert node.inputs == ("x",)
        assert graph.values["x"].format == "int4"

    @pytest.mark.parametrize(("kind", "base"), [
        (TensorProto.INT4, "int4"), (TensorProto.UINT4, "int4/zp"), (TensorProto.INT8, "int8"),
    ])  # fmt: skip
    def test_types_of_constants(self, tmp_path: Path, kind: int, base: str) -> None:
        model = Model({"x": (FLOAT, [5, 8])})
        codes = model.constant("w", RNG.integers(0, 8, (8, 3)), kind)
        weight = model.add("DequantizeLinear", [codes, model.constant("s", F32(0.1))], "dq")
        graph = read(tmp_path, model, model.add("MatMul", ["x", weight]))
        assert graph.weights["w"].format == base
        assert np.array_equal(
            weight_array(graph.weights["w"]).astype(np.int64), model_array(model, "w").astype(np.int64)
        )

    def test_blocks_of_inputs(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [5, 64])})
        codes = model.constant("w", RNG.integers(-8, 8, (64, 3)), TensorProto.INT4)
        parts = [codes, model.constant("s", F32(RNG.random((4, 3)) + 0.1))]
        weight = model.add("DequantizeLinear", parts, "dq", axis=0, block_size=16)
        graph = read(tmp_path, model, model.add("MatMul", ["x", weight]))
        held = graph.weights["w"]
        assert (held.format, held.axis, held.group) == ("int4/group16", 0, 16)

    def test_blocks_that_no_format_has(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [5, 64])})
        codes = model.constant("w", RNG.integers(-8, 8, (64, 32)), TensorProto.INT4)
        parts = [codes, model.constant("s", F32(RNG.random((64, 2)) + 0.1))]
        weight = model.add("DequantizeLinear", parts, "dq", axis=1, block_size=16)
        text = refusal(tmp_path, model, model.add("MatMul", ["x", weight], "fc"))
        assert text == "node 'fc' (MatMul) must have blocks of 'dq:0' along its inputs, got them along axis 1"

    def test_a_turned_weight_keeps_its_axis_of_the_file(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [5, 8])})
        codes = model.constant("w", I8(RNG.integers(-8, 8, (3, 8))))
        weight = model.add("DequantizeLinear", [codes, model.constant("s", F32([0.1, 0.2, 0.3]))], "dq", axis=0)
        graph = read(tmp_path, model, model.add("MatMul", ["x", model.add("Transpose", [weight], perm=[1, 0])]))
        held = graph.weights["w"]
        assert (held.shape, held.axis, held.format) == ((8, 3), 0, "int8/channel")
        assert weight_array(held).shape == (3, 8)

    def test_scales_by_input_are_refused(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [5, 8])})
        codes = model.constant("w", I8(RNG.integers(-8, 8, (8, 3))))
        weight = model.add("DequantizeLinear", [codes, model.constant("s", F32(RNG.random(8) + 1))], "dq", axis=0)
        text = refusal(tmp_path, model, model.add("MatMul", ["x", weight], "fc"))
        assert text == "node 'fc' (MatMul) must have scales by output channel of 'dq:0', got one for each of its inputs"

    def test_reals_that_something_else_reads_are_stored_too(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [5, 8])})
        y = model.add("Relu", ["x"], "relu")
        codes = model.constant("w", I8(RNG.integers(-8, 8, (8, 3))))
        weight = model.add("DequantizeLinear", [codes, model.constant("s", F32(0.1))], "dq")
        product = model.add("MatMul", [model.pair(y, "grid", 0.1, I8(0)), weight], "fc")
        graph = read(tmp_path, model, product, y)
        assert graph.values["relu:0"].format == "fp32"
        assert graph.nodes[-1].input_format == "int8"
        alone = read(tmp_path, model, product)
        assert alone.values["relu:0"].format == "int8"

    def test_a_dynamic_product(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [5, 8])})
        parts = ["x", model.constant("w", I8(RNG.integers(-8, 8, (8, 3)))), model.constant("s", F32(0.1)), "",
                 weights(model, "b", 3)]  # fmt: skip
        graph = read(tmp_path, model, model.add("DynamicQuantizeMatMul", parts, "fc", **MS))
        (node,) = graph.nodes
        assert (node.input_format, dict(node.weights)) == ("int8/zp", {"weight": "w", "bias": "b"})
        assert graph.weights["w"].format == "int8"

    def test_a_packed_table(self, tmp_path: Path) -> None:
        model = Model({"ids": (INT64, [1, 3])})
        codes = model.constant("t", RNG.integers(-8, 8, (10, 64)), TensorProto.INT4)
        parts = [codes, "ids", model.constant("s", F32(RNG.random((10, 2)) + 0.1))]
        graph = read(tmp_path, model, model.add("GatherBlockQuantized", parts, block_size=32, quantize_axis=1, **MS))
        (node,) = graph.nodes
        assert (node.kind, graph.weights["t"].format, graph.weights["t"].shape) == ("lookup", "int4/group32", (10, 64))
        assert graph.values[node.outputs[0]].shape == (1, 3, 64)

    @pytest.mark.parametrize("bits", [2, 4, 8])
    def test_packed_weights(self, tmp_path: Path, bits: int) -> None:
        model = Model({"x": (FLOAT, [1, 5, 64])})
        codes = RNG.integers(0, 1 << bits, (3, 64))
        parts = ["x", model.constant("w", packed(codes, bits).reshape(3, 4, 2 * bits)),
                 model.constant("s", F32(RNG.random(12) + 0.1))]  # fmt: skip
        out = model.add("MatMulNBits", parts, "fc", K=64, N=3, bits=bits, block_size=16, **MS)
        graph = read(tmp_path, model, out)
        (node,) = graph.nodes
        held = graph.weights["w"]
        assert (held.format, held.shape, node.input_format) == (f"int{bits}/group16", (64, 3), "fp32")
        assert np.array_equal(weight_array(held), codes)
        assert graph.parameters == 192
        assert graph.values[node.outputs[0]].shape == (1, 5, 3)

    def test_packed_blocks_that_do_not_fill_the_inputs(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [5, 40])})
        parts = ["x", model.constant("w", U8(RNG.integers(0, 255, (3, 2, 16)))),
                 model.constant("s", F32(np.ones(6)))]  # fmt: skip
        text = refusal(tmp_path, model, model.add("MatMulNBits", parts, "fc", K=40, N=3, bits=4, block_size=32, **MS))
        assert (
            text
            == "node 'fc' (com.microsoft.MatMulNBits) must have blocks that fill the 40 inputs of 'w', got blocks of 32"
        )

    def test_a_product_that_stays_in_floats(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [5, 8])})
        parts = ["x", model.constant("w", I8(RNG.integers(-8, 8, (8, 8)))), model.constant("s", F32(0.1))]
        first = model.add("DynamicQuantizeMatMul", parts, "a", **MS)
        out = model.add("Gemm", [first, weights(model, "v", 8, 3)], "b")
        text = refusal(tmp_path, model, out)
        assert text == ("a quantized model must have no product with float weights, got 1: b (Gemm): "
                        "quantize them too, or allow floats")  # fmt: skip
        assert "products that stay in floats: b (Gemm)" in read(tmp_path, model, out, allow_float=True).notes


def clipped(model: Model, codes: str, low: Any, high: Any, name: str, scale: Any = 0.1, zero: Any = None) -> str:
    """Codes behind a Clip, dequantized."""
    kind = I8 if zero is None else type(zero)
    bounds = [model.constant(f"{name}_{side}", kind(value)) for side, value in (("low", low), ("high", high))]
    narrow = model.add("Clip", [codes, *bounds], f"{name}_clip")
    parts = [
        model.constant(f"{name}_step", F32(scale)),
        model.constant(f"{name}_point", kind(np.zeros(np.shape(scale)))),
    ]
    return model.add("DequantizeLinear", [narrow, *parts], f"{name}_dq", axis=1)


def packed(codes: Any, bits: int) -> Any:
    """Rows of codes as bytes, the first code in the lowest bits."""
    parts = codes.reshape(len(codes), -1, 8 // bits)
    return U8((parts << (bits * np.arange(8 // bits))).sum(axis=-1))


class TestQonnx:
    DOMAIN: Mapping[str, str] = {"domain": "qonnx.custom_op.general"}

    def quant(
        self, model: Model, x: str, bits: float, name: str, scale: Any = 0.1, zero: float = 0, **more: Any
    ) -> str:
        parts = [model.constant(f"{name}_{key}", F32(value)) for key, value in
                 (("scale", scale), ("zero", zero), ("bits", bits))]  # fmt: skip
        attributes = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND", **more}
        return model.add("Quant", [x, *parts], f"{name}_quant", **attributes, **self.DOMAIN)

    def test_weights_and_activations(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [5, 8])})
        weight = self.quant(model, weights(model, "w", 3, 8), 4, "w", scale=np.full((3, 1), 0.1), narrow=1)
        x = self.quant(model, "x", 2, "x", signed=0)
        product = model.add("MatMul", [x, model.add("Transpose", [weight], perm=[1, 0])], "fc")
        graph = read(tmp_path, model, self.quant(model, product, 5, "out"))
        node = graph.nodes[0]
        assert (graph.weights["w"].format, node.input_format) == ("int4/channel", "int2")
        assert (graph.values["x"].format, graph.values["fc:0"].format) == ("int2", "int5")
        assert weight_array(graph.weights["w"]).dtype == np.float32
        assert graph.weights["w"].axis == 0

    def test_one_bit(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [5, 8])})
        scale = model.constant("s", F32(0.1))
        weight = model.add("BipolarQuant", [weights(model, "w", 8, 3), scale], "bw", **self.DOMAIN)
        x = model.add("BipolarQuant", ["x", scale], "bx", **self.DOMAIN)
        graph = read(tmp_path, model, model.add("MatMul", [x, weight]))
        assert (graph.weights["w"].format, graph.nodes[0].input_format) == ("int1", "int1")

    def test_fewer_bits_behind_a_sum(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [5, 8])})
        parts = [model.constant(name, F32(value)) for name, value in (("s", 0.1), ("z", 0), ("i", 8), ("o", 4))]
        y = model.add(
            "Trunc", [model.add("Relu", ["x"], "relu"), *parts], "trunc", rounding_mode="FLOOR", **self.DOMAIN
        )
        graph = read(tmp_path, model, model.add("Sigmoid", [y]))
        assert kinds(graph) == ["relu", "sigmoid"]

    @pytest.mark.parametrize(("bits", "message"), [
        (7, "must have codes of 1, 2, 3, 4, 5, 6, 8, 16, 32 bits, got 7"),
        (3.5, "must have one whole width, got 3.5"),
    ])  # fmt: skip
    def test_widths_that_no_format_has(self, tmp_path: Path, bits: float, message: str) -> None:
        model = Model({"x": (FLOAT, [5, 8])})
        y = self.quant(model, "x", bits, "w")
        text = refusal(tmp_path, model, model.add("Relu", [y]))
        assert text == f"node 'w_quant' (qonnx.custom_op.general.Quant) {message}"

    def test_a_cell_of_four_weights(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [6, 1, 4])})
        state = [model.constant(name, F32(np.zeros((1, 8)))) for name in ("h0", "c0")]
        own = [self.quant(model, weights(model, f"w{at}", 8, 4 if at < 4 else 8), 4, f"w{at}") for at in range(8)]
        bias = [weights(model, f"b{at}", 8) for at in range(4)]
        grids = [model.constant(f"g{at}", F32(1)) for at in range(3)]
        x = self.quant(model, "x", 8, "x")
        model.add("QuantLSTMCell", [x, *state, *own, *bias, *grids], "cell", outputs=["y", "h", "c"],
                  domain="onnx.brevitas")  # fmt: skip
        graph = read(tmp_path, model, "y")
        (node,) = graph.nodes
        assert (node.kind, node["cells"], node["steps"], node["gate_order"]) == (NodeKind.LSTM, 8, 6, "ifco")
        assert graph.weights[node.weights["wx"]].shape == (4, 32)
        assert {weight.format for weight in graph.weights.values()} == {"int4", "fp32"}
        assert node.input_format == "int8"
        assert graph.parameters == 4 * 8 * (4 + 8 + 1)


class TestSharedWeights:
    def test_a_table_that_is_a_projection_too(self, tmp_path: Path) -> None:
        """Its parameters count once; a trace has both layouts."""
        model = Model({"ids": (INT64, [1, 3])})
        row = model.add("Gather", [weights(model, "table", 10, 4), "ids"], "embed")
        turned = model.add("Transpose", ["table"], perm=[1, 0])
        graph = read(tmp_path, model, model.add("MatMul", [row, turned], "out"))
        assert graph.parameters == 40
        assert {name: (weight.shape, weight.counted) for name, weight in graph.weights.items()} == {
            "table": ((10, 4), True), "table.4x10": ((4, 10), False)}  # fmt: skip
        assert "weight 'table' is shared by 2 nodes: embed, out" in graph.notes

    def test_parts_of_one_initializer(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [5, 4])})
        weights(model, "in_proj_weight", 4, 12)
        model.add("Split", ["in_proj_weight"], "split", outputs=["q", "k", "v"], axis=1, num_outputs=3)
        outputs = [model.add("MatMul", ["x", name], f"fc_{name}") for name in "qkv"]
        graph = read(tmp_path, model, *outputs)
        assert {name: weight.shape for name, weight in graph.weights.items()} == dict.fromkeys("qkv", (4, 4))
        assert graph.parameters == 48
        parts = [weight_array(graph.weights[name]) for name in "qkv"]
        assert np.array_equal(np.concatenate(parts, axis=1), model_array(model, "in_proj_weight"))

    def test_reals_that_are_quantized_in_the_file(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [5, 8])})
        pair = model.pair(weights(model, "fc.weight", 8, 3), "grid", 0.1, I8(0))
        graph = read(tmp_path, model, model.add("MatMul", ["x", pair], "fc"))
        held = graph.weights["fc.weight"]
        assert (held.format, graph.parameters) == ("int8", 24)
        assert np.array_equal(
            weight_array(held), np.clip(np.round(model_array(model, "fc.weight") / F32(0.1)), -128, 127)
        )

    def test_half_precision(self, tmp_path: Path) -> None:
        model = Model({"x": (TensorProto.FLOAT16, [5, 8])})
        weight = model.constant("w", np.ones((8, 3), np.float16))
        graph = read(tmp_path, model, model.add("MatMul", ["x", weight], "fc"))
        (node,) = graph.nodes
        assert (graph.weights["w"].format, node.input_format, graph.values["fc:0"].format) == ("fp16", "fp16", "fp16")

    def test_weights_that_are_stored_in_half(self, tmp_path: Path) -> None:
        model = Model({"x": (FLOAT, [5, 8])})
        weight = model.add("Cast", [model.constant("w", np.ones((8, 3), np.float16))], "cast", to=FLOAT)
        graph = read(tmp_path, model, model.add("MatMul", ["x", weight], "fc"))
        assert (graph.weights["w"].format, graph.nodes[0].input_format) == ("fp16", "fp32")
