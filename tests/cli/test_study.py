"""`hwsim study` on what ships: the table, the figure, and its refusals."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.cli.conftest import Call

pytest.importorskip("jiwer")


def test_it_prints_the_points_worth_taking(call: Call, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["study", "digits", "--arch", "edge_npu", "--precision", "int8,int4-2:4", "--beam", "1,2", "--lm", "none"]
    result = call(*words, "--utterances", "2", "--out", str(out))
    assert result.code == 0, result.err
    assert "edge_npu: points that no other beats, of 4 points" in result.out
    frame = pd.read_csv(out / "study.csv")
    assert len(frame) == 4
    assert result.out.count("%") == 3 * frame["pareto"].sum() + 1
    assert (out / "study.png").read_bytes()[:4] == b"\x89PNG"
    again = call(*words, "--utterances", "2", "--out", str(out))
    assert again.out == result.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--precision", "int3"], "precision int3 must have a file int3.recognizer in"),
        (["--utterances", "25"], "utterances must be at most 24, those of test_mild in"),
        (["--utterances", "two"], "--utterances must be an integer, got 'two'"),
        (["--lm", "ngram"], "--lm must be none, shallow or density-ratio, got 'ngram'"),
        (["--decoder", "viterbi"], "--decoder must be alsd, tsd or maes, got 'viterbi'"),
        (["--beam", "1,x"], "--beam must be integers"),
        (["--split", "train"], "must be a split of the speech set"),
        (["--arch", "edge"], "unknown architecture 'edge'"),
    ],
)
def test_what_it_refuses(call: Call, tmp_path: Path, words: list[str], said: str) -> None:
    result = call("study", "digits", "--out", str(tmp_path / "out"), *words)
    assert result.code == 2
    assert said in result.err
    assert len(result.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_workload_without_recognizers_is_refused(call: Call, tmp_path: Path) -> None:
    result = call("study", "rnnt_swb300", "--out", str(tmp_path / "out"))
    assert result.code == 2
    assert "rnnt_swb300: must be given --data and --recognizers, got a workload that ships none" in result.err
