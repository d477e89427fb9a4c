"""Files whose weights stay outside of memory: what is refused, and that nothing is lost on the way."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.external_data_helper import convert_model_to_external_data

from hwsim.errors import HwsimError
from hwsim.extract.graph.nodes import weight_array
from hwsim.extract.onnx import read_structure
from hwsim.extract.onnx.files import symbols
from hwsim.extract.onnx.structure.wire import WireError, outline
from tests.extract.onnx.models import F32, FLOAT, onnx
from tests.extract.structure.models import Model

WIDTH = 64
WEIGHT = F32(np.random.default_rng(0).standard_normal((WIDTH, WIDTH)))


def model(folder: Path) -> Path:
    """A product with 16 KiB of weights, and a small bias."""
    found = Model({"x": (FLOAT, ["T", WIDTH])})
    product = found.add("MatMul", ["x", found.constant("w", WEIGHT)], "fc")
    return found.save(folder, found.add("Add", [product, found.constant("b", np.ones(WIDTH, np.float32))], "add"))


def external(folder: Path) -> Path:
    content = onnx.load(model(folder))
    convert_model_to_external_data(content, location="weights.bin", size_threshold=1024)
    onnx.save(content, folder / "outside.onnx")
    return folder / "outside.onnx"


def refusal(path: Path) -> str:
    with pytest.raises(HwsimError) as caught:
        read_structure(path, {"T": 3})
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(str(path))
    return text.removeprefix(f"{path}: ")


def test_weights_inside_and_outside_are_the_same(tmp_path: Path) -> None:
    for path in (model(tmp_path), external(tmp_path)):
        graph = read_structure(path, {"T": 3})
        assert graph.parameters == WIDTH * WIDTH + WIDTH
        array = weight_array(graph.weights["w"])
        assert np.array_equal(array, WEIGHT)
        assert array.base is not None
        assert not array.flags.owndata


def test_a_missing_and_an_empty_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.onnx") == "must be an ONNX file, got No such file or directory"
    (tmp_path / "empty.onnx").touch()
    assert refusal(tmp_path / "empty.onnx") == "must be a whole ONNX file, got an empty one"


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file(tmp_path: Path, share: float) -> None:
    path = model(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: max(1, int(share * len(content)))])
    assert re.match(r"must be a (whole ONNX file|valid ONNX model), got .+", refusal(path))


def test_a_pickle_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    text = "must be an ONNX file, got a pickle, which could run code and is not read"
    path.write_bytes(pickle.dumps({"weight": [1.0]}))
    assert refusal(path) == text
    path.write_bytes(b"PK\x03\x04 archive/data.pkl")
    assert refusal(path) == text
    path.write_bytes(b"PK\x03\x04 hello")
    assert refusal(path) == "must be an ONNX file, got a zip"


def test_external_data_that_is_missing_or_short(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"\0" * 100)
    assert refusal(path).startswith("external data of 'w' must be whole, got 100 of at least ")
    (tmp_path / "weights.bin").unlink()
    assert refusal(path).startswith("external data of 'w' must be beside the model, got no file ")


def test_external_data_of_another_folder(tmp_path: Path) -> None:
    path = external(tmp_path)
    content = onnx.load(path, load_external_data=False)
    for tensor in content.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "../weights.bin" if entry.key == "location" else entry.value
    path.write_bytes(content.SerializeToString())
    assert refusal(path) == "external data of 'w' must be inside the model's folder, got '../weights.bin'"


def test_an_initializer_of_another_size(tmp_path: Path) -> None:
    path = model(tmp_path)
    content = onnx.load(path)
    (weight,) = (tensor for tensor in content.graph.initializer if tensor.name == "w")
    weight.dims[0] = WIDTH - 1
    path.write_bytes(content.SerializeToString())
    assert refusal(path) == f"initializer 'w' must have {(WIDTH - 1) * WIDTH * 4} bytes for (63, 64) float32, got 16384"


def test_a_newer_opset(tmp_path: Path) -> None:
    path = model(tmp_path)
    content = onnx.load(path)
    content.opset_import[0].version = 999
    path.write_bytes(content.SerializeToString())
    assert re.match(r"opset must be at most \d+, the newest of onnx .+, got 999: install a newer onnx", refusal(path))


def test_operators_that_are_not_read(tmp_path: Path) -> None:
    found = Model({"x": (FLOAT, [4, 4])})
    y = found.add("Det", ["x"], "first")
    path = found.save(tmp_path, found.add("Det", ["x"], "second"), y, found.add("NonZero", ["x"], "where"))
    assert refusal(path) == "bind must name a symbolic size, got 'T'"
    with pytest.raises(HwsimError) as caught:
        read_structure(path)
    assert str(caught.value) == (f"{path}: operators must be ones that are read, got Det (2 nodes, first 'first'), "
                                 "NonZero (1 node, first 'where')")  # fmt: skip


def test_a_parameter_that_no_node_takes_up(tmp_path: Path) -> None:
    """A constant whose sizes are read and not its numbers."""
    found = Model({"x": (FLOAT, [4, 8])})
    shape = found.add("Shape", [found.constant("layer.weight", np.ones((2, 16), np.float32))])
    path = found.save(tmp_path, found.add("Reshape", ["x", shape]))
    with pytest.raises(HwsimError) as caught:
        read_structure(path, name="net")
    assert (
        str(caught.value)
        == f"{path}: net: the network must have the 32 parameters of the file, got 0: layer.weight (32)"
    )


def test_names_of_sizes(tmp_path: Path) -> None:
    assert symbols(model(tmp_path)) == ("T",)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_an_outline_has_all_but_the_large_content(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(0, 300), max_size=6))
    smallest = data.draw(st.integers(1, 400))
    arrays = {f"w{at}": np.arange(size, dtype=np.float32) for at, size in enumerate(sizes)}
    proto = _proto(arrays)
    content = proto.SerializeToString()
    rest, outside = outline(memoryview(content), smallest)
    kept = {tensor.name for tensor in onnx.ModelProto.FromString(rest).graph.initializer}
    taken = {onnx.TensorProto.FromString(each.tensor).name: content[each.offset : each.offset + each.length]
             for each in outside}  # fmt: skip
    assert taken == {name: array.tobytes() for name, array in arrays.items() if array.nbytes >= smallest}
    assert kept == arrays.keys() - taken.keys()
    assert onnx.ModelProto.FromString(rest).graph.node == proto.graph.node


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60))
def test_noise_is_refused_or_kept(noise: bytes) -> None:
    try:
        rest, outside = outline(memoryview(noise), 10)
    except WireError:
        return
    assert len(rest) + sum(each.length for each in outside) <= len(noise) + 20


def _proto(arrays: dict[str, Any]) -> Any:
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    return onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], [], tensors))
