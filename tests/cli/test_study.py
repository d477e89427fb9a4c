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


def test_speech_that_a_recognizer_cannot_read_is_refused(call: Call, tmp_path: Path) -> None:
    import numpy as np

    from hwsim import catalogue
    from hwsim.speech.dataset import load_manifest
    from hwsim.speech.own import save_speech

    manifest = load_manifest(catalogue.data_folder("workloads") / "digits")
    narrow = manifest.features.model_copy(update={"bins": 30})
    for words, spec, text, said in (
        (manifest.words, narrow, "one", "must have 120 features per frame, as recognizer int4, got 90"),
        (("one", "eleven"), manifest.features, "one eleven", "utterance 1 of test: unknown word 'eleven'; nearest: "),
    ):
        speech = [(np.ones((9, spec.width)), "one"), (np.ones((9, spec.width)), text)]
        save_speech(tmp_path / "data", "digits", words, spec, {"test": speech})
        result = call("study", "digits", "--data", tmp_path / "data", "--split", "test", "--precision", "int4", "--out",
                      tmp_path / "out")  # fmt: skip
        assert result.code == 2
        assert said in result.err
        assert len(result.err.splitlines()) == 1
        assert not (tmp_path / "out").exists()


def test_a_workload_file_of_ones_own(call: Call, tmp_path: Path) -> None:
    """A copy of the catalogue's file by path: the recognizers are of the workload that it names."""
    from hwsim import catalogue

    folder = catalogue.data_folder("workloads")
    words = ["--data", folder / "digits", "--recognizers", folder / "digits", "--precision", "int4", "--beam", "1"]
    words += ["--lm", "none", "--arch", "edge_npu", "--utterances", "2", "--out", tmp_path / "out"]
    path = tmp_path / "mine.yaml"
    path.write_text((folder / "digits.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    result = call("study", path, *words)
    assert (result.code, result.err) == (0, "")
    assert len(pd.read_csv(tmp_path / "out" / "study.csv")) == 1
    path.write_text(path.read_text(encoding="utf-8").replace("name: digits", "name: mine"), encoding="utf-8")
    result = call("study", path, *words[:-1], tmp_path / "other")
    assert result.code == 2
    assert "int4.recognizer: must be a recognizer of mine, got digits" in result.err
