"""A saved executable comes back and gives the same codes; anything else in its place is refused with one line."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.execute import store
from hwsim.execute.executor import Executable
from hwsim.execute.packing import pack
from hwsim.execute.projection import unpacked
from hwsim.execute.recurrence import LstmRules
from hwsim.execute.semantics import PROFILES, TRAINING
from hwsim.execute.store import load_executable, save_executable
from hwsim.numerics.calibration import BoundAware, MinMax, NativeQat, Pact, Sawb
from hwsim.numerics.quantizers import Quantizer
from hwsim.numerics.tables import FUNCTIONS, build_table, fixed_table
from hwsim.trace import Kind, Role, Trace, TraceBuilder, save_trace
from hwsim.trace.builder import Operand

from tests.execute.test_executor import FRAMES, INPUTS, X, encoder, parameters as random_parameters, pot  # isort: skip

ALTERED = "must be a whole and unaltered executable file, got one that fails its checksum"
OTHER = "must be an executable file, got something else"
PICKLE = "which could run code and is not read"


def small(
    weights: Any = None, hidden: Quantizer | None = None, input: Quantizer | None = None, **more: Any
) -> Executable:
    trace = encoder()
    return Executable(trace, *random_parameters(trace, weights, hidden, input), **more)


def features() -> dict[str, Any]:
    return {X: np.random.default_rng(1).standard_normal((FRAMES, INPUTS))}


def assert_same(a: Executable, b: Executable, inputs: dict[str, Any]) -> None:
    ours, theirs = a.run(inputs), b.run(inputs)
    assert list(ours) == list(theirs)
    for name, array in ours.items():
        assert array.dtype == theirs[name].dtype, name
        np.testing.assert_array_equal(array, theirs[name], name)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("executable") / "small.hwsim"
    save_executable(small(), path)
    return path


def message(path: Path) -> str:
    with pytest.raises(HwsimError) as raised:
        load_executable(path)
    return str(raised.value)


@pytest.mark.parametrize("semantics", [TRAINING, PROFILES["rapid"]], ids=lambda s: s.name)
@pytest.mark.parametrize(
    ("weights", "hidden", "input"),
    [
        (Sawb(), None, None),
        (Sawb(8), BoundAware(1.0, 8).calibrate(), Pact(-1.0, 2.0, 8).calibrate()),
        (MinMax(4, axis=1), pot(2.0**-7, 8, ties="half_up"), MinMax(8, symmetric=False).calibrate([-2, 3])),
        (NativeQat(4, axis=1), pot(2.0**-3, 4, form="reciprocal", ties="half_away"), Pact(0, 2).calibrate()),
        (Sawb(2, zero_aligned=False), pot(2.0**-3, 4), pot(2.0**-12, 16)),
        (MinMax(5, symmetric=False, axis=1), None, None),
    ],
)
def test_an_executable_comes_back_as_it_was(
    weights: Any, hidden: Quantizer | None, input: Quantizer | None, semantics: Any, tmp_path: Path
) -> None:
    executable = small(weights, hidden, input, semantics=semantics)
    save_executable(executable, tmp_path / "e")
    loaded = load_executable(tmp_path / "e")
    assert_same(executable, loaded, features())
    assert loaded.semantics == semantics
    wanted = random_parameters(executable.trace, weights, hidden, input)[0]
    for name, array in loaded.parameters().items():
        np.testing.assert_array_equal(array, wanted[name], name)


@pytest.mark.parametrize("name", ["int2", "int3", "int4", "int5", "int6", "int8", "int4/group6", "int3/group10/zp"])
@pytest.mark.parametrize("columns", [1, 45, 130])
def test_packed_codes_are_unpacked(name: str, columns: int) -> None:
    bits = int(name[3])
    codes = np.random.default_rng(0).integers(-(1 << (bits - 1)), 1 << (bits - 1), (30, columns)).astype(np.int8)
    np.testing.assert_array_equal(unpacked(pack(codes, name)), codes)


def test_rules_cell_grids_and_real_layers_come_back(tmp_path: Path) -> None:
    trace = encoder()
    codes, grids = random_parameters(trace)
    rng = np.random.default_rng(5)
    real = "encoder.layer0.forward_wx"
    shapes = {t.name: t.shape for t in trace.tensors}
    codes[real] = rng.standard_normal(shapes[real])
    del grids[real]
    grids["encoder.layer1.backward_c"] = pot(2.0**-11, 16, ties="toward_zero")
    rules = LstmRules(fixed_table("sigmoid", 2.0**-10), fixed_table("tanh", ties="half_up"), "fiog")
    executable = Executable(trace, codes, grids, rules=rules)
    save_executable(executable, tmp_path / "e")
    loaded = load_executable(tmp_path / "e")
    assert_same(executable, loaded, features())
    assert loaded.rules.gate_order == "fiog"


def lookup() -> Trace:
    b = TraceBuilder("lookup")
    labels = b.tensor("e.labels", Role.STATE, (6,), "e")
    table = b.tensor("e.table", Role.WEIGHT, (9, 5), "e")
    row = b.tensor("e.row", Role.ACTIVATION, (6, 5), "e")
    b.op(Kind.LOOKUP, "e", [Operand(table, 5), Operand(labels, 1)], [Operand(row, 5)], m=6, n=5)
    return b.build()


@pytest.mark.parametrize("table", [None, pot(0.25, 4), pot(0.3, 4, half_step=True)])
@pytest.mark.parametrize("row", [None, pot(0.25, 4), pot(2.0**-5, 8)])
def test_embeddings_come_back(table: Quantizer | None, row: Quantizer | None, tmp_path: Path) -> None:
    reals = np.random.default_rng(0).uniform(-2, 2, (9, 5))
    grids = {name: grid for name, grid in (("e.table", table), ("e.row", row)) if grid is not None}
    values = {"e.table": reals if table is None else table.quantize(reals)}
    if table is None and row is not None:
        values = {"e.table": row.quantize(reals)}
    executable = Executable(lookup(), values, grids)
    save_executable(executable, tmp_path / "e")
    assert_same(executable, load_executable(tmp_path / "e"), {"e.labels": np.array([0, 8, 3, 3, 1, 7])})


def test_the_same_executable_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    save_executable(load_executable(saved), tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()


def test_a_file_may_be_read_for_another_machine(saved: Path) -> None:
    executable = load_executable(saved)
    readable = load_executable(saved, replace(TRAINING, name="readable"))
    assert readable.projections["encoder.layer0.forward_wx"].packed is None  # type: ignore[union-attr]
    assert_same(executable, readable, features())


def test_what_has_no_name_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(HwsimError) as raised:
        save_executable(small(semantics=replace(TRAINING, ties="half_up")), tmp_path / "e")
    assert str(raised.value) == (
        "semantics must be one of training, tflite-reference, tflite-xnnpack, tflite-ruy, tflite-lstm, onnx, rapid"
        " to be saved, got training"
    )
    own = build_table("sigmoid", FUNCTIONS["tanh"], fixed_table("tanh").input, fixed_table("tanh").output)
    with pytest.raises(HwsimError) as raised:
        save_executable(small(rules=LstmRules(sigmoid=own)), tmp_path / "e")
    assert str(raised.value) == "table sigmoid must be one of fixed_table to be saved, got other codes or grids"
    assert list(tmp_path.iterdir()) == []


def test_another_table_on_another_computer_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_crc32", lambda table: 0)
    assert message(saved) == (
        f"{saved}: table sigmoid must be the one that was saved, got other codes on this computer"
    )


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_one_flipped_bit_anywhere_is_refused(saved: Path, data: st.DataObject) -> None:
    content = bytearray(saved.read_bytes())
    at = data.draw(st.integers(8, 8 * len(content) - 1))
    content[at // 8] ^= 1 << at % 8
    path = saved.with_name("flipped")
    path.write_bytes(content)
    assert message(path) == f"{path}: {OTHER if at < 8 * 4 else ALTERED}"


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_file_that_is_cut_anywhere_is_refused(saved: Path, data: st.DataObject) -> None:
    content = saved.read_bytes()
    size = data.draw(st.integers(0, len(content) - 1))
    path = saved.with_name("cut")
    path.write_bytes(content[:size])
    assert message(path) == f"{path}: {OTHER if size < 4 else ALTERED}"


def test_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "VERSION", 7)
    save_executable(small(), tmp_path / "e")
    monkeypatch.undo()
    assert message(tmp_path / "e") == f"{tmp_path / 'e'}: executable version must be 1, got 7"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", OTHER),
        (b"frames,cells\n1,2\n", OTHER),
        (pickle.dumps({"hwsim_executable": 1}), f"must be an executable file, got a pickle, {PICKLE}"),
        (b"PK\x03\x04 and no more", ALTERED),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "e").write_bytes(content)
    assert message(tmp_path / "e") == f"{tmp_path / 'e'}: {said}"


def test_other_zips_and_traces_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "e"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", json.dumps({"hwsim_executable": 1}))
    assert message(path) == f"{path}: {ALTERED}"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/data.pkl", pickle.dumps({}))
    assert message(path) == f"{path}: must be an executable file, got a zip that torch.save wrote, {PICKLE}"
    save_trace(encoder(), path)
    assert message(path) == f"{path}: must be an executable file, got a trace without weights"


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    missing = tmp_path / "no"
    assert message(missing) == f"{missing}: must be an executable file, got No such file or directory"
    assert message(tmp_path) == f"{tmp_path}: must be an executable file, got Is a directory"
    with pytest.raises(HwsimError, match="must be writable, got No such file or directory"):
        save_executable(small(), missing / "e")


def test_nothing_in_a_file_is_a_pickle(saved: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        arrays = [archive.read(name) for name in archive.namelist() if name.endswith(".npy")]
    assert len(arrays) == 16
    kinds = {np.load(io.BytesIO(content), allow_pickle=False).dtype for content in arrays}
    assert kinds == {np.dtype(np.int8), np.dtype(np.float64)}
