"""An ONNX file against itself in onnxruntime, tensor by tensor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
from onnx import TensorProto, helper, numpy_helper

from hwsim.errors import HwsimError
from hwsim.execute.executor import Executable
from hwsim.execute.semantics import profile
from hwsim.numerics.tables import fixed_table
from hwsim.validate import compare
from hwsim.validate.models import bindings, read_model
from hwsim.validate.oracles.onnx_file import read_onnx_model
from tests.extract.onnx.test_recurrent import INPUTS, network_of

X = "input.x"


def write(path: Path, qlinear: bool) -> Path:
    """Two layers as QLinearMatMul, or one as MatMul between QuantizeLinear and DequantizeLinear."""
    rng = np.random.default_rng(0)
    constants: dict[str, Any] = {
        "xs": np.float32(2**-4), "xz": np.int8(3), "w": rng.integers(-9, 10, (16, 24)).astype(np.int8),
        "ws": np.float32(2**-4), "wz": np.int8(0), "ys": np.float32(2**-5), "yz": np.int8(-5),
        "v": rng.integers(-9, 10, (24, 8)).astype(np.int8), "zs": np.float32(0.3), "zz": np.int8(1),
    }  # fmt: skip
    node = helper.make_node
    if qlinear:
        nodes = [
            node("QuantizeLinear", ["x", "xs", "xz"], ["xq"], name="q"),
            node("QLinearMatMul", ["xq", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["yq"], name="first"),
            node("QLinearMatMul", ["yq", "ys", "yz", "v", "ws", "wz", "zs", "zz"], ["zq"], name="second"),
            node("DequantizeLinear", ["zq", "zs", "zz"], ["out"], name="dq"),
        ]
    else:
        nodes = [
            node("QuantizeLinear", ["x", "xs", "xz"], ["xq"], name="q"),
            node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"], name="dx"),
            node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], name="dw"),
            node("MatMul", ["xd", "wd"], ["y"], name="first"),
            node("QuantizeLinear", ["y", "ys", "yz"], ["yq"], name="qy"),
            node("DequantizeLinear", ["yq", "ys", "yz"], ["out"], name="dq"),
        ]
        constants = {name: constants[name] for name in ("xs", "xz", "w", "ws", "wz", "ys", "yz")}
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["T", width])
            for name, width in (("x", 16), ("out", 8 if qlinear else 24))]  # fmt: skip
    initial = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], initial)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def features() -> dict[str, Any]:
    return {X: np.random.default_rng(1).standard_normal((50, 16)).astype(np.float32)}


@pytest.mark.parametrize(("qlinear", "tier", "rules"), [(True, "T0", "onnx"), (False, "T2", "training")])
def test_a_file(qlinear: bool, tier: str, rules: str, tmp_path: Path) -> None:
    executable, _, _, oracle = read_onnx_model(write(tmp_path / "m.onnx", qlinear), {"T": 50})
    report = compare(executable, oracle, features())
    assert report.passed, str(report)
    assert (report.tier, report.mismatches) == (tier, 0)
    assert report.elements == (50 * (24 + 8) if qlinear else 50 * 24)
    assert report.source is not None
    assert (report.source.oracle, report.source.profile, report.source.not_compared) == ("onnxruntime", rules, {})


def test_another_profile_is_a_breach(tmp_path: Path) -> None:
    executable, _, _, oracle = read_onnx_model(write(tmp_path / "m.onnx", True), {"T": 50}, profile("tflite-reference"))
    report = compare(executable, oracle, features())
    assert not report.passed
    broken = next(layer for layer in report.layers if not layer.passed)
    assert (broken.tensor, broken.tie_distance) == ("first.out", 0.0)


def test_a_model_is_read_with_its_inputs(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **features())
    path = write(tmp_path / "m.onnx", True)
    model = read_model(str(path), tmp_path / "x.npz", bind=["T=50"])
    assert model.oracle is not None
    assert model.oracle_of("onnxruntime") is model.oracle_of(None) is model.oracle
    assert model.oracle_of("torch") is None
    with pytest.raises(HwsimError, match=r"must be of shape \(40, 16\), got \(50, 16\)$"):
        read_model(str(path), tmp_path / "x.npz", bind=["T=40"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["T"], "--bind must be NAME=SIZE with a size of 1 or more, got 'T'"),
        (["T=0"], "--bind must be NAME=SIZE with a size of 1 or more, got 'T=0'"),
        (["T=-3"], "--bind must be NAME=SIZE with a size of 1 or more, got 'T=-3'"),
        (["=3"], "--bind must be NAME=SIZE with a size of 1 or more, got '=3'"),
        (["T=3", "T=4"], "--bind T must be given once, got 3 and 4"),
    ],
)
def test_bindings_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(HwsimError) as caught:
        bindings(words)
    assert str(caught.value) == message


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_recurrent_layers_have_no_tables_because_the_file_has_none(op: str, tmp_path: Path) -> None:
    """Two bidirectional layers over 1,000 frames, free running: shared tables would turn hundreds of codes."""
    model, out = network_of(op, "bidirectional", np.random.default_rng(0))
    path = model.save(tmp_path, out)
    executable, _, _, oracle = read_onnx_model(path, {"T": 1000})
    inputs = {"input.features": np.random.default_rng(1).standard_normal((1000, INPUTS)).astype(np.float32)}
    report = compare(executable, oracle, inputs)
    assert (report.tier, report.passed) == ("T2", True), str(report)
    assert report.elements > 100_000
    tables = replace(executable.rules, sigmoid=fixed_table("sigmoid"), tanh=fixed_table("tanh"))
    by_table = Executable(executable.trace, executable.parameters(), executable.quantizers, rules=tables)
    own, tabled = (compare(each, oracle, inputs, mode="free-running").mismatches for each in (executable, by_table))
    assert own < 20
    assert tabled > 200
