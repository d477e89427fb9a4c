"""`hwsim extract`: ONNX files in, a model out that the other commands take, and each mistake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.cli.conftest import Call

onnx = pytest.importorskip("onnx")

CELLS, WIDTH, LABELS = 8, 6, 5
Refused = Callable[..., str]
Files = dict[str, Path]


def tensor(name: str, *shape: int) -> Any:
    """A float initializer that counts up."""
    values = np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    return onnx.numpy_helper.from_array(values, name)


def write(path: Path, nodes: list[Any], inputs: dict[str, tuple[Any, ...]], outputs: dict[str, tuple[Any, ...]],
          weights: list[Any], integers: tuple[str, ...] = ()) -> Path:  # fmt: skip
    """A checked model of those nodes."""
    kinds = {name: onnx.TensorProto.INT64 if name in integers else onnx.TensorProto.FLOAT for name in inputs}
    given = [onnx.helper.make_tensor_value_info(name, kinds[name], list(shape)) for name, shape in inputs.items()]
    made = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(shape))
            for name, shape in outputs.items()]  # fmt: skip
    graph = onnx.helper.make_graph(nodes, path.stem, given, made, weights)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def recurrent(name: str, width: int) -> list[Any]:
    """Weights of an LSTM as ONNX has them."""
    return [tensor(f"{name}.W", 1, 4 * CELLS, width), tensor(f"{name}.R", 1, 4 * CELLS, CELLS),
            tensor(f"{name}.B", 1, 8 * CELLS)]  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder, node = tmp_path_factory.mktemp("onnx"), onnx.helper.make_node
    nodes = [node("LSTM", ["x", "l.W", "l.R", "l.B"], ["y"], "/layer/LSTM", hidden_size=CELLS),
             node("Squeeze", ["y", "one"], ["out"], "/Squeeze")]  # fmt: skip
    one = onnx.numpy_helper.from_array(np.array([1], np.int64), "one")
    encoder = write(folder / "encoder.onnx", nodes, {"x": ("T", 1, WIDTH)}, {"out": ("T", 1, CELLS)},
                    [*recurrent("l", WIDTH), one])  # fmt: skip
    nodes = [node("Gather", ["table", "label"], ["e"], "/embedding/Gather"),
             node("LSTM", ["e", "p.W", "p.R", "p.B", "", "h", "c"], ["y", "h_out", "c_out"], "/rnn/LSTM",
                  hidden_size=CELLS),
             node("Squeeze", ["y", "one"], ["out"], "/Squeeze")]  # fmt: skip
    states = {"h": (1, 1, CELLS), "c": (1, 1, CELLS)}
    prediction = write(folder / "prediction.onnx", nodes, {"label": (1, 1), **states},
                       {"out": (1, 1, CELLS), "h_out": (1, 1, CELLS), "c_out": (1, 1, CELLS)},
                       [tensor("table", LABELS, WIDTH), *recurrent("p", WIDTH), one], ("label",))  # fmt: skip
    nodes = [node("Add", ["enc", "pred"], ["sum"], "/Add"), node("Tanh", ["sum"], ["hidden"], "/Tanh"),
             node("MatMul", ["hidden", "w"], ["product"], "/output/MatMul"),
             node("Add", ["product", "b"], ["logits"], "/output/Add")]  # fmt: skip
    joint = write(folder / "joint.onnx", nodes, {"enc": (1, 1, CELLS), "pred": (1, 1, CELLS)},
                  {"logits": (1, 1, LABELS)}, [tensor("w", CELLS, LABELS), tensor("b", LABELS)])  # fmt: skip
    scale, zero = onnx.numpy_helper.from_array(np.float32(0.05), "s"), onnx.numpy_helper.from_array(np.int8(0), "z")
    codes = onnx.numpy_helper.from_array(np.arange(-24, 24, dtype=np.int8).reshape(WIDTH, CELLS), "codes")
    nodes = [node("QuantizeLinear", ["x", "s", "z"], ["q"], "/Quantize"),
             node("DequantizeLinear", ["q", "s", "z"], ["d"], "/Dequantize"),
             node("DequantizeLinear", ["codes", "s", "z"], ["weight"], "/weight"),
             node("MatMul", ["d", "weight"], ["product"], "/linear/MatMul"),
        node("QuantizeLinear", ["product", "s", "z"], ["codes_out"], "/QuantizeOut"),
        node("DequantizeLinear", ["codes_out", "s", "z"], ["out"], "/DequantizeOut")]  # fmt: skip
    quantized = write(folder / "quantized.onnx", nodes, {"x": ("T", WIDTH)}, {"out": ("T", CELLS)},
                      [scale, zero, codes])  # fmt: skip
    return {"encoder": encoder, "prediction": prediction, "joint": joint, "quantized": quantized}


def words(files: Files, out: Path) -> list[str | Path]:
    """The command for the whole transducer."""
    parts = [part for name in ("encoder", "prediction", "joint") for part in (f"--{name}", files[name])]
    return ["extract", *parts, "--bind", "T=20", "--out", out]


def test_a_transducer_is_extracted_shown_simulated_and_swept(call: Call, files: Files, tmp_path: Path) -> None:
    model, table = tmp_path / "small.hwsim", tmp_path / "nodes.csv"
    code, out, err = call(*words(files, model), "--csv", table, "--labels-per-second", "5")
    assert (code, err) == (0, "")
    parameters = 4 * CELLS * (WIDTH + CELLS + 2)
    encoder, prediction, joint = parameters, parameters + LABELS * WIDTH, CELLS * LABELS + LABELS
    totals = {line.split()[0]: line.split()[1] for line in out.splitlines() if line.startswith(("enc", "pred", "all"))}
    assert totals["all"] == f"{encoder + prediction + joint:,}"
    assert f"Wrote {model}" in out
    assert "encoder: timed only: it is a float network" in out
    assert "20 frames of 10 ms" in out
    rows = pd.read_csv(table)
    assert rows["parameters"].sum() == encoder + prediction + joint
    assert set(rows["component"]) == {"encoder", "prediction", "joint"}
    code, shown, _ = call("show", model)
    assert code == 0
    assert "alsd, beam 4, 5 labels a second" in shown
    code, out, err = call("simulate", "edge_npu", model, "--precision", "native-fp16")
    assert (code, err) == (0, "")
    assert "small at native-fp16" in out
    code, out, err = call("sweep", "edge_npu", model, "--precision", "int8,int4", "--beam", "1,2", "--out", tmp_path)
    assert (code, err) == (0, "")
    assert len(pd.read_csv(tmp_path / "sweep.csv")) == 4


def test_a_quantized_file_is_executed_too(call: Call, files: Files, tmp_path: Path) -> None:
    model, inputs = tmp_path / "q.hwsim", tmp_path / "x.npz"
    code, out, err = call("extract", "--encoder", files["quantized"], "--bind", "T=20", "--out", model)
    assert (code, err) == (0, "")
    assert "encoder: executed too, by hwsim validate, in the profile training" in out
    (product,) = (line for line in out.splitlines() if line.startswith("encoder.linear"))
    assert product.split()[-1] == "int8"
    np.savez(inputs, **{"input.x": np.linspace(-3, 3, 20 * WIDTH).reshape(20, WIDTH)})
    code, out, err = call("validate", model, "--inputs", inputs)
    assert (code, err) == (0, "")
    assert call("simulate", "edge_npu", model, "--precision", "native-fp16").code == 0


def test_a_float_model_is_not_validated(call: Call, refused: Refused, files: Files, tmp_path: Path) -> None:
    model, inputs = tmp_path / "f.hwsim", tmp_path / "x.npz"
    assert call("extract", "--encoder", files["encoder"], "--bind", "T=20", "--out", model).code == 0
    np.savez(inputs, **{"input.x": np.zeros((20, WIDTH))})
    assert refused("validate", model, "--inputs", inputs) == (
        f"{model}: must hold a network that can be executed, got one that is timed only: hwsim extract says why"
    )
    assert call("extract", "--encoder", files["quantized"], "--bind", "T=20", "--out", model).code == 0
    assert refused("validate", model, "--inputs", inputs, "--component", "joint") == (
        f"{model}: --component must be encoder, got joint"
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--bind", "N=2"], "bind must name a symbolic size, got 'N': the files have T"),
        (["--decoder", "viterbi"], "--decoder must be greedy, alsd, tsd or maes, got 'viterbi'"),
        (["--labels-per-second", "0"], "--labels-per-second must be a number above 0, got '0'"),
        (["--frame-period-ms", "x"], "--frame-period-ms must be a number above 0, got 'x'"),
        (["--beam", "two"], "--beam must be an integer, got 'two'"),
    ],
)
def test_mistakes_are_one_line(refused: Refused, files: Files, tmp_path: Path, change: list[str], said: str) -> None:
    out = tmp_path / "m.hwsim"
    assert refused(*words(files, out), *change) == said
    assert not out.exists()


def test_files_that_do_not_fit_are_named(refused: Refused, files: Files, tmp_path: Path) -> None:
    out = tmp_path / "m.hwsim"
    encoder = ("extract", "--encoder", files["encoder"])
    assert refused(*encoder, "--bind", "T=20", "--out", tmp_path / "m.zip") == (
        f"--out must end in .hwsim, got {tmp_path / 'm.zip'}"
    )
    assert "bind T=<size>" in refused(*encoder, "--out", out)
    assert refused("extract", "--encoder", tmp_path / "no.onnx", "--out", out) == (
        f"{tmp_path / 'no.onnx'}: must be an ONNX file, got No such file or directory"
    )
    assert refused(*words(files, out), "--decoder-joint", files["joint"]) == (
        "decoder_joint must be given in place of prediction and joint, got both"
    )
    assert refused(*encoder, "--bind", "T=20", "--joint", files["joint"], "--out", out) == (
        "m: must have prediction beside encoder, joint"
    )
    truncated = tmp_path / "cut.onnx"
    truncated.write_bytes(files["encoder"].read_bytes()[:-40])
    assert refused("extract", "--encoder", truncated, "--out", out).startswith(f"{truncated}: must be a")
    assert not out.exists()


def test_a_catalogue_name_is_wanted_where_only_it_will_do(call: Call, refused: Refused, files: Files,
                                                          tmp_path: Path) -> None:  # fmt: skip
    model = tmp_path / "f.hwsim"
    assert call("extract", "--encoder", files["encoder"], "--bind", "T=20", "--out", model).code == 0
    assert refused("simulate", "edge_npu", model, "--frames", "30") == (
        "frames must be 20, the length that f was extracted for, got 30"
    )
    assert "cannot compute fp32" in refused("simulate", "edge_npu", model, "--precision", "native")
