"""Files that are refused, and the copy that shows every value."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx.external_data_helper import convert_model_to_external_data

from hwsim.errors import HwsimError
from hwsim.extract.onnx import read_onnx, with_all_outputs
from hwsim.extract.onnx.files import load_model
from tests.extract.onnx.models import F32, FLOAT, Model, onnx


def small(folder: Path, **more: Any) -> Path:
    model = Model({"x": (FLOAT, ["T", 8])}, **more)
    weight = model.constant("w", np.ones((8, 64), F32))
    return model.save(folder, model.add("Relu", [model.add("MatMul", ["x", weight], "fc")], "relu"))


def external(folder: Path) -> Path:
    model = onnx.load(small(folder))
    convert_model_to_external_data(model, location="weights.bin", size_threshold=0)
    onnx.save(model, folder / "outside.onnx")
    return folder / "outside.onnx"


def refusal(path: Path) -> str:
    with pytest.raises(HwsimError) as caught:
        load_model(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(str(path))
    return text.removeprefix(f"{path}: ")


def test_a_missing_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.onnx") == "must be an ONNX file, got No such file or directory"


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file(tmp_path: Path, share: float) -> None:
    path = small(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert re.match(r"must be a (whole ONNX file|valid ONNX model), got .+", refusal(path))


def test_a_pickle_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(pickle.dumps({"weight": [1.0]}))
    assert refusal(path) == "must be an ONNX file, got a pickle, which could run code and is not read"
    path.write_bytes(b"PK\x03\x04 archive/data.pkl")
    assert refusal(path) == "must be an ONNX file, got a pickle, which could run code and is not read"
    path.write_bytes(b"PK\x03\x04 hello")
    assert refusal(path) == "must be an ONNX file, got a zip"


def test_an_opset_of_the_future(tmp_path: Path) -> None:
    newest = onnx.defs.onnx_opset_version()
    text = refusal(small(tmp_path, opset=newest + 1))
    assert text == (f"opset must be at most {newest}, the newest of onnx {onnx.__version__}, got {newest + 1}: "
                    "install a newer onnx")  # fmt: skip
    model = onnx.load(small(tmp_path))
    model.ir_version = onnx.IR_VERSION + 1
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    assert refusal(tmp_path / "model.onnx").startswith(f"IR version must be at most {onnx.IR_VERSION}, the newest")


def test_an_invalid_graph(tmp_path: Path) -> None:
    model = onnx.load(small(tmp_path))
    model.graph.node[0].input[1] = "nothing"
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    assert refusal(tmp_path / "model.onnx").startswith("must be a valid ONNX model, got Nodes in a graph must be")


def test_external_data(tmp_path: Path) -> None:
    path = external(tmp_path)
    np.testing.assert_array_equal(read_onnx(path, {"T": 4}).codes["fc.weight"], np.ones((8, 64)))
    data = tmp_path / "weights.bin"
    data.write_bytes(data.read_bytes()[:100])
    assert refusal(path) == f"external data of 'w' must be whole, got 100 of at least 2048 bytes in {data}"
    data.unlink()
    assert refusal(path) == f"external data of 'w' must be beside the model, got no file {data}"


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", ""])
def test_external_data_elsewhere(tmp_path: Path, location: str) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    path = external(inner)
    (tmp_path / "weights.bin").write_bytes(bytes(2048))
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = location
    path.write_bytes(model.SerializeToString())
    assert refusal(path) == f"external data of 'w' must be inside the model's folder, got '{location}'"


def test_a_link_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    path = external(inner)
    (tmp_path / "weights.bin").write_bytes((inner / "weights.bin").read_bytes())
    (inner / "weights.bin").unlink()
    (inner / "weights.bin").symlink_to(tmp_path / "weights.bin")
    assert refusal(path) == "external data of 'w' must be inside the model's folder, got 'weights.bin'"


def test_a_copy_with_all_outputs(tmp_path: Path) -> None:
    path = external(tmp_path)
    before = path.read_bytes()
    shown = onnx.load_model_from_string(with_all_outputs(path, ["fc:0", "relu:0", "fc:0"]))
    assert [output.name for output in shown.graph.output] == ["relu:0", "fc:0"]
    assert len(shown.graph.initializer[0].raw_data) == 2048
    assert path.read_bytes() == before
    with pytest.raises(HwsimError, match=r"'fc' must be a value that a node computes; nearest: fc:0"):
        with_all_outputs(path, ["fc"])
