"""A study decodes, times and keeps every row once, whatever stops it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch")
pytest.importorskip("jiwer")

from hwsim.errors import HwsimError
from hwsim.extract import load_workload
from hwsim.recognize import load_recognizer
from hwsim.recognize.errors import word_errors
from hwsim.recognize.policy import policy_of
from hwsim.report.study import plot_study
from hwsim.simulation import simulate
from hwsim.speech.dataset import load_split, save_part
from hwsim.study import run as running
from hwsim.study import run_study
from hwsim.study.request import Search
from hwsim.study.table import pareto
from tests.study.sets import UTTERANCES, recognizers, request, speech


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study")
    speech(root / "speech")
    recognizers(root / "recognizers")
    run_study(request(root), root / "out", jobs=1)
    return root


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "utterances.jsonl").read_text().splitlines()]


def without_order(out: Path) -> list[str]:
    return sorted((out / "utterances.jsonl").read_text().splitlines())


def test_every_point_is_a_row(root: Path) -> None:
    frame = pd.read_csv(root / "out" / "study.csv")
    assert len(frame) == 2 * 2 * 2 * 2
    assert set(frame["utterances"]) == {UTTERANCES}
    assert frame["rtf"].gt(0).all()
    assert frame["energy_per_audio_second_j"].gt(0).all()
    assert (frame["wer_low"] <= frame["wer"]).all()
    assert (frame["wer"] <= frame["wer_high"]).all()
    assert frame.groupby("arch")["pareto"].any().all()
    one = frame.groupby(["precision", "beam", "lm"])["wer"].nunique()
    assert (one == 1).all()


def test_a_row_is_the_decode_and_its_time(root: Path) -> None:
    """The words that the recognizer finds, timed on the rows that it evaluated."""
    search, index = Search("int4", 2, "density-ratio"), 3
    recognizer, split = (
        load_recognizer(root / "recognizers" / "int4.recognizer"),
        load_split(root / "speech" / "test_mild.npz"),
    )
    workload = load_workload("digits")
    settings = search.settings("alsd", workload.spec.decode.u_max_ratio)
    found = recognizer.transcribe(split[index][0], settings)
    errors = word_errors([split.transcripts[index]], [found.words])
    (row,) = [
        r
        for r in rows(root / "out")
        if (r["precision"], r["beam"], r["lm"], r["utterance"]) == ("int4", 2, "density-ratio", 3)
    ]
    assert (row["hypothesis"], row["errors"], row["words"]) == (found.words, errors.errors[0], errors.words[0])
    policy = policy_of(recognizer, "int4")
    result = simulate("edge_npu", workload, policy, frames=len(split[index][0]), settings=settings,
                      plan=found.schedule(settings))  # fmt: skip
    assert row["latency_s"]["edge_npu"] == result.latency_s
    assert row["energy_j"]["edge_npu"] == result.energy_j
    assert not any("decode.alsd" in line for line in result.assumptions)


def test_a_killed_study_repeats_and_loses_nothing(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = request(root)
    monkeypatch.setattr("hwsim.study.work.CHUNK", 2)
    done: list[int] = []

    def stop(count: int, total: int) -> None:
        done.append(count)
        if count >= 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(asked, tmp_path / "out", stop, jobs=1)
    kept = rows(tmp_path / "out")
    assert len(kept) == done[-1] < 40
    with (tmp_path / "out" / "utterances.jsonl").open("a") as file:
        file.write('{"precision": "int8", "bea')
    monkeypatch.setattr(running, "run_chunk", counting := Counting(running.run_chunk))
    run_study(asked, tmp_path / "out", jobs=1)
    assert counting.utterances == 40 - len(kept)
    assert without_order(tmp_path / "out") == without_order(root / "out")
    assert (tmp_path / "out" / "study.csv").read_text() == (root / "out" / "study.csv").read_text()


class Counting:
    """A function of a chunk that counts its utterances."""

    def __init__(self, function) -> None:  # type: ignore[no-untyped-def]
        self.function, self.utterances = function, 0

    def __call__(self, chunk):  # type: ignore[no-untyped-def]
        self.utterances += len(chunk.utterances)
        return self.function(chunk)


def test_workers_give_the_same_rows(root: Path, tmp_path: Path) -> None:
    run_study(request(root), tmp_path / "out", jobs=2)
    assert without_order(tmp_path / "out") == without_order(root / "out")


def test_more_of_the_same_study_adds_rows(root: Path, tmp_path: Path) -> None:
    small = request(root, beams=(1,), precisions=("int8",), utterances=2)
    assert len(run_study(small, tmp_path / "out", jobs=1)) == 4
    assert len(rows(tmp_path / "out")) == 4
    run_study(replace(small, utterances=3, beams=(1, 2)), tmp_path / "out", jobs=1)
    assert len(rows(tmp_path / "out")) == 12


def test_a_folder_of_another_study_is_refused(root: Path, tmp_path: Path) -> None:
    small = request(root, beams=(1,), precisions=("int8",), utterances=1)
    run_study(small, tmp_path / "out", jobs=1)
    before = (tmp_path / "out" / "utterances.jsonl").read_bytes()
    with pytest.raises(HwsimError, match=r"out: must be a folder of the same study, got one of other recognizers"):
        run_study(replace(small, archs=("edge_npu",)), tmp_path / "out", jobs=1)
    assert (tmp_path / "out" / "utterances.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"utterances": 6}, r"^utterances must be at most 5, those of test_mild in .*, got 6$"),
        ({"utterances": 0}, r"^utterances must be at least 1, got 0$"),
        ({"precisions": ("int2",)}, r"^precision int2 must have a file int2.recognizer in .*, got int4, int8$"),
        ({"precisions": ("int4", "int4")}, r"^precisions must hold each value once, got int4 twice$"),
        ({"beams": ()}, r"^beams must hold at least one value, got none$"),
        ({"beams": (0,)}, r"^beam must be at least 1, got 0$"),
        ({"archs": ("rapid",)}, r"^unknown architecture 'rapid'"),
        ({"split": "test"}, r"test.npz: must be a split of the speech set; nearest: test_mild"),
    ],
)
def test_mistakes_are_said_before_anything_runs(
    root: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(HwsimError, match=message):
        run_study(request(root, **changes), tmp_path / "out", jobs=1)
    assert not (tmp_path / "out").exists()


def test_the_figure_is_drawn(root: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(root / "out" / "study.csv")
    path = plot_study(frame, tmp_path / "study.png")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with pytest.raises(HwsimError, match="a plot of a study must have at least one point, got none"):
        plot_study(frame[:0], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_pareto_points_are_those_that_nothing_beats() -> None:
    costs = np.array([[1, 5], [2, 2], [3, 3], [2, 2], [5, 1], [5, 2]])
    assert pareto(costs).tolist() == [True, True, False, True, True, False]


def test_a_part_of_a_set_is_its_beginning(root: Path, tmp_path: Path) -> None:
    save_part(root / "speech", tmp_path / "part", ["test_mild"], 2)
    part, whole = load_split(tmp_path / "part" / "test_mild.npz"), load_split(root / "speech" / "test_mild.npz")
    assert len(part) == 2
    for at in range(2):
        assert np.array_equal(part[at][0], whole[at][0])
        assert np.array_equal(part[at][1], whole[at][1])
        assert part.transcripts[at] == whole.transcripts[at]
    with pytest.raises(HwsimError, match=r"^utterances must be 1 to 5, those of test_mild, got 6$"):
        save_part(root / "speech", tmp_path / "more", ["test_mild"], 6)
