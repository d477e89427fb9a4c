"""What is not read is refused in one line that names the node."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hwsim.errors import HwsimError
from hwsim.extract.onnx import read_onnx
from tests.extract.onnx.models import F32, FLOAT, I8, INT8, INT64, U8, UINT8, Model

X = {"x": (FLOAT, [1, 20, 8])}


def matrix(model: Model, *shape: int) -> str:
    return model.constant(f"m{len(model.constants)}", np.ones(shape, F32))


def unmapped(model: Model) -> str:
    value = model.add("Erf", [model.add("Erf", ["x"], "/a/Erf")], "/b/Erf")
    return model.add("ReduceMean", [value], "/c/ReduceMean")


def attention(model: Model) -> str:
    return model.add("MatMul", ["x", model.add("Transpose", ["x"], "t", perm=[0, 2, 1])], "/scores")


def dynamic(model: Model) -> str:
    model.add("DynamicQuantizeLinear", ["x"], "/dyn", outputs=["c", "s", "z"])
    weight = model.constant("w", np.ones((8, 4), I8))
    return model.add("MatMulInteger", ["c", weight, "z"], "/fc")


def computed_scale(model: Model) -> str:
    return model.add("QuantizeLinear", ["x", model.add("Relu", ["x"], "s"), model.constant("z", U8(0))], "/q")


def two_grids(model: Model) -> str:
    codes = model.add("QuantizeLinear", ["x", *model.grid("a", 0.5, U8(3))], "/q")
    return model.add("DequantizeLinear", [codes, *model.grid("b", 0.25, U8(3))], "/dq")


def channel_activation(model: Model) -> str:
    grid = [model.constant("s", np.ones(8, F32)), model.constant("z", np.zeros(8, U8))]
    return model.add("QuantizeLinear", ["x", *grid], "/q", axis=2)


def narrow_matmul(model: Model) -> str:
    return model.add("MatMul", ["x", matrix(model, 8, 2, 2)], "/fc")


def wrong_columns(model: Model) -> str:
    value = model.add("MatMul", ["x", matrix(model, 8, 8)], "/first")
    return model.add("MatMul", [model.add("Transpose", [value], "t", perm=[0, 2, 1]), matrix(model, 20, 3)], "/fc")


def frozen(model: Model) -> str:
    return model.add("Reshape", ["x", model.constant("shape", np.array([1, 20, 2, 4]))], "/heads")


def scaled_gemm(model: Model) -> str:
    flat = model.add("Reshape", ["x", model.constant("shape", np.array([20, 8]))], "r")
    return model.add("Gemm", [flat, matrix(model, 8, 4)], "/fc", alpha=0.5)


def grouped(model: Model) -> str:
    value = model.add("Transpose", ["x"], "t", perm=[0, 2, 1])
    return model.add("Conv", [value, matrix(model, 4, 4, 3)], "/conv", group=2)


def dilated(model: Model) -> str:
    value = model.add("Transpose", ["x"], "t", perm=[0, 2, 1])
    return model.add("Conv", [value, matrix(model, 4, 8, 3)], "/conv", dilations=[2])


def two_axes(model: Model) -> str:
    value = model.add("Unsqueeze", ["x", model.constant("axes", np.array([0]))], "u")
    return model.add("Conv", [value, matrix(model, 4, 1, 3, 3)], "/conv")


def softmax_over_frames(model: Model) -> str:
    return model.add("Softmax", ["x"], "/softmax", axis=1)


def other_shapes(model: Model) -> str:
    return model.add("Add", ["x", model.add("MatMul", ["x", matrix(model, 8, 1)], "m")], "/add")


def frames_constant(model: Model) -> str:
    return model.add("Mul", ["x", matrix(model, 20, 1)], "/mul")


def recurrent(op: str, gates: int, inputs: tuple[str, ...] = (), **more: object) -> Callable[[Model], str]:
    def build(model: Model) -> str:
        value = model.add("Transpose", ["x"], "t", perm=[1, 0, 2])
        own = [matrix(model, 1, gates * 4, 8), matrix(model, 1, gates * 4, 4)]
        outputs = ["y", "y_h"] if "read_last" in more else ["y"]
        more.pop("read_last", None)
        given = [model.constant("state", np.ones((1, 1, 4), F32)) if name == "state" else name for name in inputs]
        model.add(op, [value, *own, *given], "/rnn", outputs=outputs, hidden_size=4, **more)
        return model.add("Relu", ["y_h"]) if len(outputs) > 1 else "y"

    return build


CASES: list[tuple[Callable[[Model], str], str]] = [
    (unmapped, "operators must be ones that are read, got Erf (2 nodes, first '/a/Erf'), "
               "ReduceMean (1 node, first '/c/ReduceMean')"),
    (attention, "node '/scores' (MatMul) must multiply by a constant weight: products of two activations (attention) "
                "are not read"),
    (dynamic, "node '/dyn' (DynamicQuantizeLinear) must have a grid that does not depend on the input, got 1 of these "
              "in the file: quantize the model statically, with calibration data (onnxruntime's quantize_static)"),
    (computed_scale, "node '/q' (QuantizeLinear) must have a constant scale, got 's:0'"),
    (two_grids, "node '/dq' (DequantizeLinear) must read '/q:0' on the grid it is written on, uint8 of scale 0.5 and "
                "zero point 3, got uint8 of scale 0.25 and zero point 3"),
    (channel_activation, "node '/q' (QuantizeLinear) must have one scale for an activation, got 8"),
    (narrow_matmul, "node '/fc' (MatMul) must have a weight (K, N), got (8, 2, 2)"),
    (wrong_columns, "node '/fc' (MatMul) must read rows of 20 columns in the last axis, got (1, 8, 20)"),
    (frozen, "node '/heads' (Reshape) must only join axes or move axes of one, got (1, 20, 8) to (1, 20, 2, 4): a "
             "length frozen by the export, a batch above one, or attention, which is not read"),
    (scaled_gemm, "node '/fc' (Gemm) must have alpha=1, got 0.5"),
    (grouped, "node '/conv' (Conv) must have one group or as many groups as inputs and outputs, got 2"),
    (dilated, "node '/conv' (Conv) must have no dilation, got 2"),
    (two_axes, "node '/conv' (Conv) must be over one axis (1, C, T), got (1, 1, 20, 8): convolutions over two are not "
               "read"),
    (softmax_over_frames, "node '/softmax' (Softmax) must be over the columns, axis 2 of (1, 20, 8), got 1"),
    (other_shapes, "node '/add' (Add) must read two values of one shape, got (1, 20, 8) and (1, 20, 1)"),
    (frames_constant, "node '/mul' (Mul) must have a constant of one number or 8 over the columns, got (20, 1)"),
    (recurrent("GRU", 3), "node '/rnn' (GRU) must have linear_before_reset=1, as PyTorch exports it, got 0: a reset "
                          "gate before the recurrent product is not executed"),
    (recurrent("LSTM", 4, clip=3.0), "node '/rnn' (LSTM) must have no clip, got 3"),
    (recurrent("LSTM", 4, input_forget=1), "node '/rnn' (LSTM) must have input_forget=0, got 1"),
    (recurrent("LSTM", 4, activations=["Relu", "Tanh", "Tanh"]),
     "node '/rnn' (LSTM) must have the activations Sigmoid, Tanh, Tanh, got Relu, Tanh, Tanh"),
    (recurrent("LSTM", 4, ("", "", "state")), "node '/rnn' (LSTM) must start from zero states, got 'state'"),
    (recurrent("LSTM", 4, read_last=True), "node '/rnn' (LSTM) must have a last hidden state 'y_h' that no node reads: "
                                           "states of a sequence are not read"),
]  # fmt: skip


def refusal(path: Path, bind: dict[str, int] | None = None) -> str:
    with pytest.raises(HwsimError) as caught:
        read_onnx(path, bind)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


@pytest.mark.parametrize(("build", "message"), CASES, ids=lambda case: getattr(case, "__name__", ""))
def test_a_node_that_is_not_read(tmp_path: Path, build: Callable[[Model], str], message: str) -> None:
    model = Model(X)
    assert refusal(model.save(tmp_path, build(model))) == message


def linear(shape: list[int | str]) -> Model:
    model = Model({"x": (FLOAT, shape)})
    model.add("MatMul", ["x", model.constant("w", np.ones((8, 4), F32))], "fc")
    return model


def test_sizes_that_stay_open(tmp_path: Path) -> None:
    path = linear(["batch", "T", 8]).save(tmp_path, "fc:0")
    assert refusal(path) == "input 'x' must have fixed sizes, got (batch, T, 8): bind batch=<size>"
    assert refusal(path, {"batch": 1}) == "input 'x' must have fixed sizes, got (batch, T, 8): bind T=<size>"
    assert refusal(path, {"batch": 1, "T": 0}) == "bind must give sizes of at least 1, got T=0"
    assert (
        refusal(path, {"batch": 2, "T": 9}) == "input 'x' must have a batch of one, and frames beside it, got (2, 9, 8)"
    )
    assert read_onnx(path, {"batch": 1, "T": 9}).trace.m.tolist() == [9]


def test_a_name_that_is_bound_in_vain(tmp_path: Path) -> None:
    path = linear(["T", 8]).save(tmp_path, "fc:0")
    assert refusal(path, {"time": 9}) == "bind must name a symbolic size, got 'time'; known: T"


def test_concatenations_feed_products_only(tmp_path: Path) -> None:
    model = Model({"a": (FLOAT, [20, 8]), "b": (FLOAT, [20, 8])})
    joined = model.add("Concat", ["a", "b"], axis=1)
    path = model.save(tmp_path, model.add("Add", [joined, joined], "sum"))
    assert refusal(path) == ("node 'sum' (Add) must read one tensor as input 0, got 2 that are concatenated: only "
                             "products and element-wise functions of one operand take those")  # fmt: skip


def test_zero_points_that_disagree(tmp_path: Path) -> None:
    model = Model(X)
    grid = model.grid("x", 0.5, U8(3))
    codes = model.add("QuantizeLinear", ["x", *grid], "q")
    weight = model.constant("w", np.ones((8, 4), I8))
    out = model.add("MatMulInteger", [codes, weight, model.constant("z", U8(4))], "fc")
    assert refusal(model.save(tmp_path, out)) == "node 'fc' (MatMulInteger) must have the zero point of 'q:0', 3, got 4"


def test_labels_must_have_a_batch_of_one(tmp_path: Path) -> None:
    model = Model({"labels": (INT64, [2, 5])})
    out = model.add("Gather", [model.constant("table", np.ones((7, 3), F32)), "labels"], "embed")
    path = model.save(tmp_path, out)
    assert refusal(path) == "input 'labels' must have a batch of one, and frames beside it, got (2, 5)"


def test_names_are_unique_and_notes_say_what_was_assumed(tmp_path: Path) -> None:
    """Two nodes of one name, one without; a weight that two layers share; an input without a reader; sums alone."""
    model = Model({"x": (INT8, [20, 8]), "unused": (UINT8, [3])})
    weight = model.constant("w", np.ones((8, 8), I8))
    sums = [model.add("MatMulInteger", ["x", weight], name, outputs=[f"y{at}"])
            for at, name in enumerate(("/enc/fc", "enc.fc", ""))]  # fmt: skip
    model.nodes[2].name = ""
    network = read_onnx(model.save(tmp_path, *sums))
    assert network.trace.layers == ("input", "enc.fc", "enc.fc_2", "MatMulInteger_3")
    assert network.outputs == {"enc.fc.out": "y0", "enc.fc_2.out": "y1", "MatMulInteger_3.out": "y2"}
    assert network.notes == (
        "input 'unused' is read by no node that an output needs",
        "enc.fc: nothing in the file says the scale of 'x', so it is 1",
        "weight 'w' is shared: enc.fc and enc.fc_2 each hold a copy",
        "weight 'w' is shared: enc.fc and MatMulInteger_3 each hold a copy",
    )
