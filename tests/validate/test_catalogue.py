"""Catalogue networks with weights in safetensors: names, grids, the parts that are built, and each mistake."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("safetensors")
from safetensors.numpy import save_file

from hwsim.errors import HwsimError
from hwsim.execute.executor import Executable
from hwsim.extract import Workload, load_workload
from hwsim.numerics.calibration import MinMax, Sawb
from hwsim.numerics.policy import load_policy
from hwsim.trace import Role
from hwsim.validate import compare
from hwsim.validate.catalogue import catalogue_executable, network_trace
from hwsim.validate.oracles import Readable
from hwsim.validate.weights import parameters_of, read_weights, torch_name

FEATURES = "encoder.input.features"
LM = "external_lm.embedding.labels"
NETWORK = """
name: small
description: a small transducer
family: rnnt
frame_period_s: 0.02
encoder: {input: 12, layers: 2, cells: 8, bidirectional: true, stack_before_layer: 1, stack_factor: 2, source: test}
prediction: {vocabulary: 8, embedding: 4, layers: 1, cells: 8, source: test}
joint: {combine: add, size: 8, activation: tanh, outputs: 7, source: test}
language_models:
  external_lm: {vocabulary: 8, embedding: 4, layers: 2, cells: 8, outputs: 7, dense_inputs: true, source: test}
decode: {algorithm: alsd, beam: 2, frames: 9, labels_per_second: 15, source: test}
published: {parameters: {acoustic: 1}, relative_tolerance: 0, source: test}
"""


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory) -> Workload:
    path = tmp_path_factory.mktemp("workload") / "small.yaml"
    path.write_text(NETWORK, encoding="utf-8")
    return load_workload(path)


def inputs(*names: str) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    every = {FEATURES: rng.standard_normal((9, 12)), LM: rng.integers(0, 7, 11),
             "prediction.embedding.labels": rng.integers(0, 7, 5)}  # fmt: skip
    return {name: every[name] for name in names}


def reals(workload: Workload, given: dict[str, Any], of_torch: bool = False) -> dict[str, Any]:
    """Float weights by the trace's names, or the same by PyTorch's."""
    rng = np.random.default_rng(1)
    found = {}
    for tensor in network_trace(workload.spec, given).tensors:
        if tensor.role in (Role.WEIGHT, Role.BIAS):
            array = rng.uniform(-1, 1, tensor.shape).astype(np.float32)
            turned = of_torch and tensor.role == Role.WEIGHT and not tensor.name.endswith("table")
            found[torch_name(tensor.name) if of_torch else tensor.name] = array.T.copy() if turned else array
    return found


def build(workload: Workload, policy: str, given: dict[str, Any], found: Any = None) -> tuple[Executable, Any]:
    weights = reals(workload, given) if found is None else found
    executable, codes, notes = catalogue_executable(workload, load_policy(policy), weights, given, Path("w"))
    assert codes.keys() == executable.parameters().keys()
    return executable, notes


@pytest.mark.parametrize("policy", ["int4", "int8", "int2", "fp16", "fp32", "int4/group4", "int8/channel/zp", "int3"])
def test_every_part_equals_the_readable_reference(workload: Workload, policy: str) -> None:
    given = inputs(FEATURES, LM, "prediction.embedding.labels")
    executable, notes = build(workload, policy, given)
    report = compare(executable, Readable(), given, "T3" if policy.startswith("fp") else "T0", "both")
    assert report.mismatches == 0
    assert report.elements > 0 or policy.startswith("fp")
    written = {name.partition(".")[0] for name in executable.outputs}
    assert written == {"encoder", "prediction", "external_lm"}
    assert executable.run(given)["external_lm.output.log_probabilities"].shape == (11, 7)
    assert executable.run(given)["encoder.layer1.forward_h"].shape == (5, 8)
    assert notes


def test_both_conventions_of_names_give_the_same_network(workload: Workload) -> None:
    given = inputs(FEATURES, LM)
    ours, _ = build(workload, "int4", given)
    theirs, _ = build(workload, "int4", given, reals(workload, given, of_torch=True))
    assert ours.parameters().keys() == theirs.parameters().keys()
    for name, array in ours.parameters().items():
        np.testing.assert_array_equal(array, theirs.parameters()[name], name)


def test_the_names_of_pytorch(workload: Workload) -> None:
    names = {torch_name(t.name) for t in network_trace(workload.spec, inputs(FEATURES, LM)).tensors}
    assert {"encoder.weight_ih_l0", "encoder.weight_hh_l1_reverse", "encoder.bias_ih_l1_reverse"} <= names
    assert {"external_lm.weight_ih_l1", "external_lm.embedding.weight", "external_lm.output.weight"} <= names


def test_they_are_those_of_lstm_modules(workload: Workload) -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.ModuleDict({"external_lm": torch.nn.LSTM(4, 8, 1), "encoder": torch.nn.LSTM(12, 8, 1,
                                  bidirectional=True)})  # fmt: skip
    trace = network_trace(workload.spec, inputs(FEATURES, LM))
    shapes = {torch_name(t.name): t.shape for t in trace.tensors if t.role in (Role.WEIGHT, Role.BIAS)}
    for name, value in module.state_dict().items():
        assert shapes[name][::-1] == tuple(value.shape), name


def test_grids_are_those_of_the_recipes(workload: Workload) -> None:
    given = inputs(FEATURES, LM)
    found = reals(workload, given)
    executable, notes = build(workload, "int4", given, found)
    grids = executable.quantizers
    wx = found["encoder.layer0.forward_wx"].astype(np.float64)
    assert grids["encoder.layer0.forward_wx"].scale == Sawb(4).calibrate(wx).scale
    assert grids["encoder.layer1.forward_h"].scale == 1 / 7
    assert grids[FEATURES].scale == np.abs(given[FEATURES]).max() / 7
    table = np.abs(found["external_lm.embedding.table"].astype(np.float16)).max()
    assert grids["external_lm.layer0.wx.input"].scale == pytest.approx(table / 7, rel=1e-3)
    assert grids["external_lm.layer1.wx.input"].scale == 1 / 7
    assert notes == (
        "weights of int4 by SAWB",
        f"{FEATURES} bound-aware, by the largest of these inputs, as the weights file has no {FEATURES}.scale",
        "gate sums, cells and logits of fp16 are halves",
        "hidden states bound-aware, bound 1",
        "embeddings bound-aware, by the largest entry of their table",
    )
    channel = build(workload, "int8/channel", given, found)[0].quantizers["encoder.layer0.forward_wx"]
    np.testing.assert_array_equal(channel.scale, MinMax(8, axis=-1).calibrate(wx).scale)


def test_group_scales(workload: Workload) -> None:
    given = inputs(FEATURES)
    found = reals(workload, given)
    executable, notes = build(workload, "int4/group4", given, found)
    grid, wx = executable.quantizers["encoder.layer0.forward_wx"], found["encoder.layer0.forward_wx"].astype(np.float64)
    assert notes[0] == "weights of int4/group4 by min-max, one scale per 4 of K"
    for group in range(3):
        part = np.abs(wx[4 * group : 4 * group + 4]).max(axis=0)
        np.testing.assert_array_equal(grid.scale[group], part / 7)


def test_the_scale_of_the_features_may_be_given(workload: Workload) -> None:
    given = inputs(FEATURES)
    found = {**reals(workload, given), f"{FEATURES}.scale": np.asarray(0.25, np.float32)}
    executable, notes = build(workload, "int4", given, found)
    assert executable.quantizers[FEATURES].scale == 0.25
    assert f"{FEATURES} with the scale of the weights file" in notes
    found[f"{FEATURES}.scale"] = np.ones(2, np.float32)
    with pytest.raises(HwsimError, match=r"^encoder.input.features.scale must be one number, got shape \(2,\)$"):
        build(workload, "int4", given, found)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("codebook4", "weights to quantize must have a dense format of 2 to 8 bits, got codebook4"),
        ("int4/2:4", "weights to quantize must have a dense format of 2 to 8 bits, got int4/2:4"),
        ("bf16", "its format must be fp16 or fp32, got bf16"),
        ("int16", "weights to quantize must have a dense format of 2 to 8 bits, got int16"),
        ("int4/group5", "K must be a multiple of the scale group 5, got 12"),
    ],
)  # fmt: skip
def test_formats_are_refused(policy: str, message: str, workload: Workload) -> None:
    with pytest.raises(HwsimError) as caught:
        build(workload, policy, inputs(FEATURES))
    assert str(caught.value) == f"encoder.layer0.forward_wx: {message}"


def test_inputs_are_refused(workload: Workload) -> None:
    with pytest.raises(HwsimError, match=r"^'encoder.features' must be an input of small; nearest: encoder.input.feat"):
        network_trace(workload.spec, {"encoder.features": np.zeros(3)})
    with pytest.raises(HwsimError, match=r"^encoder.input.features must have at least one step, got shape \(0, 12\)$"):
        network_trace(workload.spec, {FEATURES: np.zeros((0, 12))})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("encoder.layer0.forward_wx"), "must hold encoder.layer0.forward_wx; nearest: encoder.layer"),
        (lambda w: w.update({"encoder.layer0.wq": np.ones(2)}),
         "'encoder.layer0.wq' must be a parameter of the network; nearest: encoder.layer"),
        (lambda w: w.update({"encoder.layer0.forward_wx": np.ones((32, 12))}),
         "encoder.layer0.forward_wx must be of shape (12, 32), got (32, 12)"),
    ],
)  # fmt: skip
def test_parameters_are_refused(change: Any, message: str, workload: Workload) -> None:
    given = inputs(FEATURES)
    found = {**reals(workload, given), "joint.output.weight": np.ones((8, 7))}
    change(found)
    with pytest.raises(HwsimError) as caught:
        parameters_of(network_trace(workload.spec, given), found, Path("w.safetensors"))
    assert str(caught.value).startswith(f"w.safetensors: {message}")


def test_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    said = "must be a safetensors file, got"
    for content, what in (
        (None, "No such file or directory"),
        (pickle.dumps(1), "a pickle, which could run code and is not read"),
        (b"PK\x03\x04more", "a zip that torch.save wrote, which could run code and is not read"),
    ):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(HwsimError) as caught:
            read_weights(path)
        assert str(caught.value) == f"{path}: {said} {what}"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(HwsimError, match="must be a safetensors file of numbers that NumPy has, got "):
        read_weights(path)
    save_file({"a": np.asarray([1, 2])}, path)
    with pytest.raises(HwsimError, match=r"a must be finite reals, got int64$"):
        read_weights(path)
    save_file({"a": np.asarray([1.5, np.nan])}, path)
    with pytest.raises(HwsimError, match=r"a must be finite reals, got float64 with NaN or an infinity$"):
        read_weights(path)
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    with pytest.raises(HwsimError, match=r"^--weights needs safetensors: install hwsim\[train\]$"):
        read_weights(path)


def test_a_streaming_conformer_is_executed_whole() -> None:
    """In reals: the ranges of its activations are in no weights file."""
    conformer, x = load_workload("digits_conformer"), np.random.default_rng(0).standard_normal((21, 120))
    executable, _ = build(conformer, "fp32", {FEATURES: x})
    whole = executable.run({FEATURES: x})["encoder.layer3.norm.out"]
    assert (whole.shape, executable.streams, executable.chunk) == ((11, 64), True, 4)
    with pytest.raises(HwsimError, match=r"^activations of a Conformer encoder must be of fp16 or fp32, got int8: a w"):
        build(conformer, "int8", {FEATURES: x})
