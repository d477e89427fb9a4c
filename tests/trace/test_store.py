"""A saved trace comes back as it was; anything else in its place is refused with one line."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.numerics import load_policy
from hwsim.trace import load_trace, save_trace, store
from tests.trace.examples import equal, small_trace
from tests.trace.strategies import traces

ALTERED = "must be a whole and unaltered trace file, got one that fails its checksum"
OTHER = "must be a trace file, got something else"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trace") / "small.trace"
    save_trace(small_trace(), path)
    return path


def message(path: Path) -> str:
    with pytest.raises(HwsimError) as raised:
        load_trace(path)
    return str(raised.value)


@pytest.mark.parametrize("policy", [None, "int4", "int8"])
def test_a_trace_comes_back_as_it_was(policy: str | None, tmp_path: Path) -> None:
    trace = small_trace()
    if policy:
        trace = trace.with_precision(load_policy(policy))
    save_trace(trace, tmp_path / "t")
    loaded = load_trace(tmp_path / "t")
    assert equal(loaded, trace)
    assert loaded.meta == {**small_trace().meta, **({"precision": policy} if policy else {})}
    assert all(array.dtype == np.int64 for array in loaded.columns.values())
    assert [type(t.role) for t in loaded.tensors] == [type(t.role) for t in trace.tensors]


@settings(max_examples=40, deadline=None)
@given(traces())
def test_any_trace_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, trace: store.Trace) -> None:
    path = tmp_path_factory.getbasetemp() / "any.trace"
    save_trace(trace, path)
    assert equal(load_trace(path), trace)


def test_the_same_trace_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    save_trace(small_trace(), tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()
    save_trace(load_trace(saved), tmp_path / "loaded")
    assert (tmp_path / "loaded").read_bytes() == saved.read_bytes()


def test_what_other_rooms_computed_is_not_saved(saved: Path, tmp_path: Path) -> None:
    trace = small_trace()
    trace.structure["segments"] = object()
    save_trace(trace, tmp_path / "t")
    assert (tmp_path / "t").read_bytes() == saved.read_bytes()
    assert load_trace(tmp_path / "t").structure == {}


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_one_flipped_bit_anywhere_is_refused(saved: Path, data: st.DataObject) -> None:
    content = bytearray(saved.read_bytes())
    at = data.draw(st.integers(0, 8 * len(content) - 1))
    content[at // 8] ^= 1 << at % 8
    path = saved.with_name("flipped")
    path.write_bytes(content)
    assert message(path) == f"{path}: {OTHER if at < 8 * 4 else ALTERED}"


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_file_that_is_cut_anywhere_is_refused(saved: Path, data: st.DataObject) -> None:
    content = saved.read_bytes()
    size = data.draw(st.integers(0, len(content) - 1) | st.integers(len(content) - 100, len(content) - 1))
    path = saved.with_name("cut")
    path.write_bytes(content[:size])
    assert message(path) == f"{path}: {OTHER if size < 4 else ALTERED}"


def test_bytes_after_the_end_are_refused(saved: Path) -> None:
    path = saved.with_name("longer")
    path.write_bytes(saved.read_bytes() + b"\0")
    assert message(path) == f"{path}: {ALTERED}"


def test_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "VERSION", 7)
    save_trace(small_trace(), tmp_path / "t")
    monkeypatch.undo()
    assert message(tmp_path / "t") == f"{tmp_path / 't'}: trace version must be 2, got 7"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", OTHER),
        (b"frames,cells\n1,2\n", OTHER),
        (pickle.dumps({"hwsim_trace": 1}), OTHER),
        (b"PK\x03\x04 and no more", ALTERED),
    ],
)
def test_a_file_that_is_no_trace_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "t").write_bytes(content)
    assert message(tmp_path / "t") == f"{tmp_path / 't'}: {said}"


def test_another_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "t", "w") as archive:
        archive.writestr("header.json", json.dumps({"hwsim_trace": 1}))
    assert message(tmp_path / "t") == f"{tmp_path / 't'}: {ALTERED}"


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert message(tmp_path / "no") == f"{tmp_path / 'no'}: must be a trace file, got No such file or directory"
    assert message(tmp_path) == f"{tmp_path}: must be a trace file, got Is a directory"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no/folder", "must be writable, got No such file or directory"),
        ("file/below", "must be writable, got Not a directory"),
        ("folder", "must be writable, got Is a directory"),
        ("x" * 300, "must be writable, got File name too long"),
    ],
)
def test_a_target_that_cannot_be_written_leaves_nothing(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(HwsimError) as raised:
        save_trace(small_trace(), tmp_path / name)
    assert str(raised.value) == f"{tmp_path / name}: {said}"
    assert sorted(tmp_path.rglob("*")) == before


def test_a_path_without_a_name_is_refused() -> None:
    with pytest.raises(HwsimError, match=r"^\.: must be the path of a file, got a folder$"):
        save_trace(small_trace(), "")


def test_a_failed_write_keeps_the_file_of_before(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t"
    path.write_bytes(saved.read_bytes())

    def full(_: Path, content: bytes) -> int:
        with open(tmp_path / "t.partial", "wb") as partial:
            partial.write(content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(HwsimError, match="must be writable, got No space left on device"):
        save_trace(small_trace(), path)
    assert [p.name for p in tmp_path.iterdir()] == ["t"]
    assert equal(load_trace(path), small_trace())


def test_nothing_in_a_file_is_a_pickle(saved: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        arrays = [archive.read(name) for name in archive.namelist() if name != "header.json"]
    for content in arrays:
        assert np.load(io.BytesIO(content), allow_pickle=False).dtype.kind in "iu"
    assert len(arrays) == 16
