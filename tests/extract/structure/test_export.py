"""Networks exported by torch in both ways: parameters, multiplications, layers, folded constants."""

from __future__ import annotations

from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwsim.errors import HwsimError
from hwsim.extract.graph.nodes import Graph, Node, NodeKind, weight_array
from hwsim.extract.onnx import read_structure
from tests.extract.structure.networks import (
    Encoder,
    Joint,
    Prediction,
    Recurrent,
    RelativeAttention,
    TransducerEncoder,
    export,
    macs,
    nn,
    parameters,
    torch,
)

WAYS = pytest.mark.parametrize("dynamo", [False, True])


def multiplications(graph: Graph) -> dict[str, int]:
    """MACs of each layer with products, out of the graph's sizes alone."""
    found = {}
    for node in graph.nodes:
        if node.kind == NodeKind.LINEAR:
            weight = graph.weights[node.weights["weight"]]
            found[node.layer] = graph.values[node.inputs[0]].elements * weight.shape[1]
        elif node.kind == NodeKind.MATMUL:
            found[node.layer] = node["m"] * node["k"] * node["n"] * node["batch"]
        elif node.kind == NodeKind.CONV:
            found[node.layer] = node["positions"] * prod(graph.weights[node.weights["weight"]].shape)
        elif node.kind in (NodeKind.LSTM, NodeKind.GRU):
            held = [graph.weights[name] for part, name in node.weights.items() if part.endswith(("wx", "wh"))]
            found[node.layer] = node["steps"] * node["batch"] * sum(weight.elements for weight in held)
    return found


def counted_of(module: Any, inputs: Any) -> int:
    return sum(macs(module, inputs).values())


def random(module: Any) -> Any:
    """Weights that are all different: exporters join those that are equal."""
    for each in module.parameters():
        nn.init.normal_(each)
    for name, each in module.named_buffers():
        if "running" in name:
            nn.init.uniform_(each, 0.5, 1.5)
    return module


def batch_norms(module: Any) -> int:
    """Parameters of batch norms, which exporters merge into the convolution in front."""
    return sum(parameters(each) for each in module.modules() if isinstance(each, nn.BatchNorm1d))


@WAYS
def test_a_conformer_of_fixed_length(tmp_path: Path, dynamo: bool) -> None:
    module, x = random(Encoder()), torch.randn(1, 40, 16)
    path = export(module, [x], tmp_path / "model.onnx", dynamo=dynamo, input_names=["x"], output_names=["y"])
    graph = read_structure(path)
    positions = {name: count for name, count in macs(module, [x]).items() if name.endswith("linear_pos")}
    merged = 2 * module.layers[0].self_attn.linear_pos.weight.numel() if dynamo else 0
    kept = 2 * 4 * 8 * 19 if dynamo else 0  # what the new exporter has computed of them
    assert graph.parameters == parameters(module) - batch_norms(module) - merged + kept
    assert sum(multiplications(graph).values()) == counted_of(module, [x]) - (sum(positions.values()) if dynamo else 0)
    assert graph.values["y"].shape == (1, 10, 32)
    assert graph.inputs == ("x",)
    assert graph.outputs == ("y",)


@WAYS
def test_a_conformer_of_bound_length(tmp_path: Path, dynamo: bool) -> None:
    module, x = random(Encoder()), torch.randn(1, 40, 16)
    sizes: dict[str, Any] = {"dynamic_axes": {"x": {1: "T"}}}
    if dynamo:
        sizes = {"dynamic_shapes": {"x": {1: torch.export.Dim("T", min=8, max=240) * 4}}}
    path = export(module, [x], tmp_path / "model.onnx", dynamo=dynamo, input_names=["x"], output_names=["y"], **sizes)
    name = _symbol(path)
    other = torch.randn(1, 72, 16)
    graph = read_structure(path, {name: 72})
    counted = macs(module, [other])
    assert graph.parameters == parameters(module) - batch_norms(module)
    assert graph.values["y"].shape == tuple(module(other).shape)
    found = multiplications(graph)
    for layer, count in counted.items():
        if isinstance(module.get_submodule(layer), (nn.Linear, nn.Conv2d)):
            assert found[layer] == count, layer
    attention = [layer for layer, each in module.named_modules() if isinstance(each, RelativeAttention)]
    for layer in attention:
        own = [count for name, count in found.items() if name.startswith(f"{layer}.") and "linear" not in name]
        assert sum(own) == counted[layer]
    assert sum(found.values()) == sum(counted.values())
    assert list(graph.folded.values()) == [35 * 32]


def test_batch_norm_is_a_scale_and_a_shift(tmp_path: Path) -> None:
    module = random(nn.Sequential(nn.BatchNorm1d(6), nn.ReLU()))
    path = export(module, [torch.randn(2, 6, 10)], tmp_path / "model.onnx", input_names=["x"], output_names=["y"])
    graph = read_structure(path)
    scale, shift, relu = graph.nodes
    assert [node["function"] for node in graph.nodes] == ["multiply", "add", "relu"]
    assert (scale.layer, shift.layer, relu.layer) == ("0.BatchNormalization.scale", "0.BatchNormalization.shift", "1")
    assert (scale.weights, shift.weights) == ({"constant": "0.weight"}, {"constant": "0.bias"})
    assert graph.parameters == 12
    assert {name: weight.counted for name, weight in graph.weights.items()} == {
        "0.weight": True, "0.bias": True, "0.running_mean": False, "0.running_var": False,
    }  # fmt: skip
    assert np.array_equal(weight_array(graph.weights["0.running_mean"]), module[0].running_mean.numpy())


@WAYS
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize(("kind", "order"), [(nn.LSTM, "iofc"), (nn.GRU, "zrh")])
def test_recurrent_layers(tmp_path: Path, kind: Any, order: str, both: bool, dynamo: bool) -> None:
    module, x = random(Recurrent(kind, both=both)), torch.randn(1, 12, 8)
    path = export(module, [x], tmp_path / "model.onnx", dynamo=dynamo, input_names=["x"], output_names=["y"])
    graph = read_structure(path)
    layers = [node for node in graph.nodes if node.kind in (NodeKind.LSTM, NodeKind.GRU)]
    assert graph.parameters == parameters(module)
    assert sum(multiplications(graph).values()) == counted_of(module, [x])
    keys = ("inputs", "cells", "steps", "directions", "gate_order")
    assert [tuple(node[key] for key in keys) for node in layers] == [
        (8, 16, 12, 1 + both, order), (16 * (1 + both), 16, 12, 1 + both, order)]  # fmt: skip
    kinds = Counter(node.kind for node in graph.nodes)
    assert (kinds[NodeKind.NORM], kinds[NodeKind.ELEMENTWISE], kinds[NodeKind.LINEAR]) == (1, 1, 1)
    parts = {"", "forward_", "backward_"} & {part.removesuffix("wx") for part in layers[0].weights}
    assert parts == ({"forward_", "backward_"} if both else {""})
    gates = module.rnn.weight_ih_l0.detach().numpy()
    stored = weight_array(graph.weights[layers[0].weights["forward_wx" if both else "wx"]])
    cells = stored.reshape(-1, 16, 8)
    turn = [0, 3, 1, 2] if kind is nn.LSTM else [1, 0, 2]
    assert np.array_equal(cells, gates.reshape(-1, 16, 8)[turn])


def test_a_layer_without_biases(tmp_path: Path) -> None:
    module = random(Recurrent(nn.LSTM, layers=1, bias=False))
    path = export(module, [torch.randn(1, 12, 8)], tmp_path / "model.onnx", input_names=["x"])
    graph = read_structure(path)
    (layer,) = (node for node in graph.nodes if node.kind == NodeKind.LSTM)
    assert set(layer.weights) == {"wx", "wh"}
    assert graph.parameters == parameters(module)


@WAYS
def test_the_parts_of_a_transducer(tmp_path: Path, dynamo: bool) -> None:
    """Small sizes; the real ones are a matter of seconds and gigabytes, and the same code."""
    more = {"dynamo": dynamo}
    encoder, prediction, joint = (
        random(each) for each in (TransducerEncoder(24, 16), Prediction(28, 20), Joint(16, 20, 12, 29))
    )
    x, label, state = torch.randn(10, 1, 24), torch.zeros(1, 1, dtype=torch.int64), torch.randn(2, 1, 20)
    frames = torch.randn(1, 16), torch.randn(1, 20)
    graphs = [
        read_structure(export(encoder, [x], tmp_path / "encoder.onnx", **more)),
        read_structure(export(prediction, [label, state, state.clone()], tmp_path / "prediction.onnx", **more)),
        read_structure(export(joint, frames, tmp_path / "joint.onnx", **more)),
    ]
    for module, inputs, graph in zip(
        (encoder, prediction, joint), ([x], [label, state, state], frames), graphs, strict=True
    ):
        assert graph.parameters == parameters(module)
        assert sum(multiplications(graph).values()) == counted_of(module, inputs)
    lookup = next(node for node in graphs[1].nodes if node.kind == NodeKind.LOOKUP)
    assert graphs[1].weights[lookup.weights["table"]].shape == (28, 20)
    assert graphs[1].values[lookup.inputs[0]].integer
    assert len(graphs[1].inputs) == len(graphs[1].outputs) == 3
    layers = [node for node in graphs[1].nodes if node.kind == NodeKind.LSTM]
    assert all(len(node.inputs) == 3 and all(node.outputs) and len(node.outputs) == 3 for node in layers)


def test_a_length_that_the_export_froze(tmp_path: Path) -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: Any) -> Any:
            steps = int(x.shape[1])
            return self.linear(x).reshape(1, steps, 2, 4) + torch.zeros(steps, 1, 1)

    path = export(
        Frozen(), [torch.randn(1, 20, 8)], tmp_path / "m.onnx", input_names=["x"], dynamic_axes={"x": {1: "T"}}
    )
    assert read_structure(path, {"T": 20}).parameters == 72
    with pytest.raises(HwsimError) as caught:
        read_structure(path, {"T": 25})
    assert "node '/Reshape' (Reshape) must keep the 200 elements of (1, 25, 8): length frozen by the export: " in str(
        caught.value
    )
    assert str(caught.value).endswith("got T=25, the file holds (1, 20, 2, 4)")


def test_a_length_that_only_the_sizes_in_the_file_keep(tmp_path: Path) -> None:
    """Runtimes compute Reshapes from such sizes, and then fail at another length."""
    import onnx

    path, sizes = tmp_path / "m.onnx", {"x": {1: "T"}, "y": {1: "T"}}
    export(nn.Linear(8, 8), [torch.randn(1, 12, 8)], path, input_names=["x"], output_names=["y"], dynamic_axes=sizes)
    content = onnx.load(path)
    content.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 12
    path.write_bytes(content.SerializeToString())
    assert read_structure(path, {"T": 12}).values["y"].shape == (1, 12, 8)
    with pytest.raises(HwsimError) as caught:
        read_structure(path, {"T": 20})
    assert str(caught.value) == (f"{path}: value 'y' must have the sizes (1, 20, 8) of what is bound: length frozen by "
                                 "the export: got T=20, the file holds (1, 12, 8)")  # fmt: skip


def test_sizes_that_do_not_fit(tmp_path: Path) -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.rand(12, 8))

        def forward(self, x: Any) -> Any:
            return x + self.mask

    path, sizes = tmp_path / "m.onnx", {"x": {1: "T"}}
    export(Masked(), [torch.randn(1, 12, 8)], path, input_names=["x"], dynamic_axes=sizes)
    with pytest.raises(HwsimError) as caught:
        read_structure(path, {"T": 20})
    assert str(caught.value).removeprefix(f"{path}: ") == (
        "node '/Add' (Add) must have inputs whose sizes fit, got (1, 20, 8) and (12, 8): length frozen by the export, "
        "or sizes that do not belong together: got T=20"
    )


def test_sizes_that_stay_symbolic(tmp_path: Path) -> None:
    path = export(
        nn.Linear(8, 8), [torch.randn(4, 8)], tmp_path / "m.onnx", input_names=["x"], dynamic_axes={"x": {0: "T"}}
    )
    with pytest.raises(HwsimError, match=r"m\.onnx: input 'x' must have fixed sizes, got \(T, 8\): bind T=<size>$"):
        read_structure(path)
    with pytest.raises(HwsimError, match="bind must name a symbolic size, got 'U'"):
        read_structure(path, {"U": 3})


def test_weights_are_read_when_asked(tmp_path: Path) -> None:
    module = random(nn.Sequential(nn.Linear(64, 64)))
    path = export(module, [torch.randn(4, 64)], tmp_path / "m.onnx")
    graph = read_structure(path)
    (linear,) = graph.nodes
    array = weight_array(graph.weights[linear.weights["weight"]])
    stored = module[0].weight.detach().numpy()
    assert np.array_equal(array, stored)  # a Gemm keeps torch's order of axes
    assert graph.weights[linear.weights["weight"]].shape == (64, 64)
    assert array.base is not None
    assert not array.flags.writeable


def only(graph: Graph, kind: NodeKind) -> Node:
    (node,) = (node for node in graph.nodes if node.kind == kind)
    return node


def _symbol(path: Path) -> str:
    import onnx

    model = onnx.load(path, load_external_data=False)
    (name,) = {d.dim_param for d in model.graph.input[0].type.tensor_type.shape.dim if d.dim_param}
    return str(name)
