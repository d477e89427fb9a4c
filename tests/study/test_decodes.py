"""Decodes of another toolkit: what is read, what is refused, what they cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("jiwer")

from hwsim import catalogue
from hwsim.decode import DecodeSettings
from hwsim.errors import HwsimError
from hwsim.recognize import load_recognizer
from hwsim.recognize.policy import policy_of
from hwsim.simulation import simulate
from hwsim.speech.dataset import load_split
from hwsim.study import Decode, measure, read_decodes, search_rows, spread_rows

DIGITS = catalogue.data_folder("workloads") / "digits"
SETTINGS = DecodeSettings("alsd", 4, lm="density-ratio")
COLUMNS = ("frame", "joint", "new", "extended", "extended_new", "candidates")


def line(**changes: Any) -> dict[str, Any]:
    """An utterance of 8 frames, 4 of the encoder."""
    known = {"reference": "one two", "hypothesis": "one", "frames": 8, "steps": {"joint": [1, 3], "new": [1, 2]}}
    return {name: value for name, value in {**known, **changes}.items() if value is not None}


def written(path: Path, *lines: Any) -> Path:
    path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines), encoding="utf-8")
    return path


def test_a_file_costs_what_its_decodes_cost(tmp_path: Path) -> None:
    """Decodes of a shipped recognizer, written down and read again: the same row but for the policy."""
    recognizer, split = load_recognizer(DIGITS / "int4.recognizer"), load_split(DIGITS / "test_mild.npz")
    decodes = [
        Decode.of(recognizer.transcribe(np.asarray(split[at][0], np.float64), SETTINGS), str(split.transcripts[at]))
        for at in range(3)
    ]
    lines = [
        line(reference=one.reference, hypothesis=one.hypothesis, frames=one.frames,
             steps={name: getattr(one.rows, name).tolist() for name in COLUMNS})
        for one in decodes
    ]  # fmt: skip
    policy = policy_of(recognizer, "int4")
    row = measure(decodes, "edge_npu", "digits", policy, SETTINGS)
    assert measure(read_decodes(written(tmp_path / "a.jsonl", *lines), "digits"), "edge_npu", "digits", policy,
                   SETTINGS) == row  # fmt: skip
    results = [simulate("edge_npu", "digits", policy, frames=one.frames, settings=SETTINGS,
                        plan=one.rows and recognizer_plan(one)) for one in decodes]  # fmt: skip
    assert row.rtf == pytest.approx(sum(r.latency_s for r in results) / sum(r.audio_s for r in results), rel=1e-12)
    energy_j = sum(r.energy_j for r in results) / sum(r.audio_s for r in results)
    assert row.energy_per_audio_second_j == pytest.approx(energy_j, rel=1e-12)
    assert (row.utterances, row.words) == (3, sum(len(one.reference.split()) for one in decodes))
    assert (row.arch, row.precision, row.beam, row.lm) == ("edge_npu", "int4", 4, "density-ratio")


def recognizer_plan(one: Decode) -> Any:
    from hwsim.decode.rows import scheduled

    assert one.rows is not None
    return scheduled(SETTINGS, one.rows)


def test_without_rows_the_statistics_of_speech_are_timed(tmp_path: Path) -> None:
    (one,) = read_decodes(written(tmp_path / "a.jsonl", line(frames=70, steps=None)), "digits")
    assert one.rows is None
    row = measure([one], "edge_npu", "digits", "int4", SETTINGS)
    assert row.rtf == pytest.approx(simulate("edge_npu", "digits", "int4", frames=70, settings=SETTINGS).rtf)
    assert (row.wer, row.words) == (0.5, 2)


def test_what_is_left_out_is_filled_in() -> None:
    rows = search_rows(joint=[1, 4, 2], new=[1, 3, 0])
    assert rows.frame.tolist() == [0, 1, 2]
    assert rows.extended.tolist() == rows.candidates.tolist() == [1, 4, 2]
    assert rows.extended_new.tolist() == [1, 3, 0]
    assert search_rows(joint=[1, 4], new=[1, 3], extended=[1, 0]).extended_new.tolist() == [1, 0]
    arrays = search_rows(joint=np.array([2], np.uint8), new=np.array([0], np.int32))
    assert arrays.joint.dtype == np.int64


@given(st.integers(1, 40), st.integers(1, 60), st.data())
def test_sums_are_kept(frames: int, steps: int, data: st.DataObject) -> None:
    joint = data.draw(st.integers(steps, 500))
    new = data.draw(st.integers(0, joint // steps * steps // max(steps, 1)))
    rows = spread_rows(frames, steps, joint=joint, new=new, candidates=7 * joint)
    assert (len(rows.joint), rows.joint.sum(), rows.new.sum(), rows.candidates.sum()) == (steps, joint, new, 7 * joint)
    assert rows.joint.max() - rows.joint.min() <= 1
    assert 0 <= rows.frame.min() <= rows.frame.max() < frames


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"joint": [1, 0], "new": [1, 0]}, "joint of step 1 must be at least 1, got 0"),
        ({"joint": [1, 2], "new": [1, 3]}, "new of step 1 must be at most joint, got 3"),
        ({"joint": [1, 2], "new": [1]}, "new must have 2 steps, as joint, got 1"),
        ({"joint": [1, 2], "new": [-1, 0]}, "new of step 0 must be at least 0, got -1"),
        ({"joint": [1.5], "new": [1]}, "joint must be integers (steps,), got float64 of shape (1,)"),
        ({"joint": [], "new": []}, "joint must be integers (steps,), got float64 of shape (0,)"),
        ({"joint": [2], "new": [1], "extended": [3]}, "extended of step 0 must be at most joint, got 3"),
        ({"joint": [2], "new": [1], "extended": [1], "extended_new": [2]},
         "extended_new of step 0 must be at most extended, got 2"),
        ({"joint": [1, 1, 1], "new": [0, 0, 0], "frame": [0, 2, 1]},
         "frame of step 2 must be at least that of the step before, got 1"),
    ],
)  # fmt: skip
def test_rows_that_no_search_has_are_refused(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(HwsimError) as raised:
        search_rows(**columns)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("given_line", "message"),
    [
        ("{", "must be an object of JSON, got expecting property name enclosed in double quotes"),
        ([1], "must be an object of JSON, got list"),
        (line(refrence="x"), "unknown key 'refrence'; nearest: reference"),
        (line(hypothesis=3), "hypothesis must be text, got 3"),
        (line(frames="8"), "frames must be an integer, got '8'"),
        (line(frames=0), "frames must be at least 1, got 0"),
        (line(totals={}), "an utterance must have steps or totals, got both"),
        (line(steps=[1]), "steps must be an object, got [1]"),
        (line(steps={"joint": [1], "nwe": [1]}), "unknown column 'nwe'; nearest: new"),
        (line(steps={"joint": [1]}), "a search must have the rows of new, got none"),
        (line(steps={"joint": [1] * 5, "new": [0] * 5}), "frame must be below 4, the encoder's frames, got 4"),
        (line(steps=None, totals={"joint": 4, "new": 1}), "steps must be an integer, at least 1, got None"),
        (line(steps=None, totals={"steps": 2, "joint": 4, "new": 1, "rows": 1}), "unknown totals 'rows'"),
        (line(steps=None, totals={"steps": 2, "joint": 1, "new": 1}), "joint of step 0 must be at least 1, got 0"),
    ],
)
def test_a_wrong_line_is_named(given_line: Any, message: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", line(), given_line)
    with pytest.raises(HwsimError) as raised:
        read_decodes(path, "digits")
    assert str(raised.value).startswith(f"{path}:2: {message}")


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with pytest.raises(HwsimError, match=r"a.jsonl: must be a file of JSON lines, got no such file or directory$"):
        read_decodes(path, "digits")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(HwsimError, match=r"a.jsonl: must be a file of JSON lines, got other bytes than utf-8$"):
        read_decodes(path, "digits")
    path.write_bytes(b"")
    with pytest.raises(HwsimError, match=r"a.jsonl: must hold at least one utterance, got none$"):
        read_decodes(path, "digits")
    with pytest.raises(HwsimError, match=r"^decodes must hold at least one utterance, got none$"):
        measure([], "edge_npu", "digits", "int4", SETTINGS)
