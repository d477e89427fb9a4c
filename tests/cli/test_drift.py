"""`hwsim drift` on what ships: the table, the figure, and its refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.cli.conftest import Call

pytest.importorskip("jiwer")

Refused = Callable[..., str]
QUICK = ("drift", "digits", "--chips", "2", "--times", "1s,30d", "--utterances", "2")


def test_it_writes_a_table_and_a_figure(call: Call, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = call(*QUICK, "--out", out)
    assert (result.code, result.err) == (0, "")
    frame = pd.read_csv(out / "drift.csv")
    assert len(frame) == 3 + 2 * 2 * 2 * 2
    assert set(frame["training"]) == {"float", "noise-aware", "int4"}
    assert sorted(set(frame["t_s"].dropna())) == [1.0, 30 * 86400.0]
    assert (out / "drift.png").read_bytes()[:4] == b"\x89PNG"
    assert "On tiles     encoder.layer0, encoder.layer1, joint.encoder_projection" in result.out
    rows = [line for line in result.out.splitlines() if line.startswith(("float ", "noise-aware ", "int4 "))]
    assert len(rows) == 3 + 2 * 2 * 2
    assert all(("30 d" in row) != ("1 s" in row) for row in rows[3:])
    digital = frame[frame["reading"] == "digital"].set_index("training")
    assert rows[2].split() == [
        "int4", "digital", f"{100 * digital['wer']['int4']:.2f}",
        f"{1e3 * digital['energy_per_audio_second_j']['int4']:.3g}",
        f"{digital['host_energy_per_audio_second_j']['int4'] / digital['energy_per_audio_second_j']['int4']:.0%}",
    ]  # fmt: skip
    again = call(*QUICK, "--out", out)
    assert again.out == result.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--precision", "int3"), "precision int3 must have a file int3.recognizer in {folder}, got "),
        (("--digital", "int3"), "precision int3 must have a file int3.recognizer in {folder}, got "),
        (("--arch", "edge_npu"), "arch must be a machine with analog tiles that hold layers of digits, got edge_npu"),
        (("--times", "1s,1w"), "t must be a time of 0 or more such as 1s, 20min, 1h, 30d or 1y, got '1w'"),
        (("--times", "1h,60min"), "times_s must hold each value once, got 3600.0 twice"),
        (("--times", "0s"), "times_s must be above 0 seconds since programming, got 0"),
        (("--chips", "0"), "chips must be at least 1, got 0"),
        (("--chips", "two"), "--chips must be an integer, got 'two'"),
        (("--noise", "rasch"), "unknown analog noise model 'rasch'; nearest: rasch2023"),
        (("--utterances", "25"), "utterances must be at most 24, those of test_mild in {folder}, got 25"),
        (("--split", "train"), "must be a split of the speech set"),
    ],
)
def test_what_it_refuses(refused: Refused, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    from hwsim import catalogue

    message = refused("drift", "digits", "--out", tmp_path / "out", *words)
    assert said.format(folder=catalogue.data_folder("workloads") / "digits") in message
    assert not (tmp_path / "out").exists()


def test_a_workload_without_recognizers_is_refused(refused: Refused, tmp_path: Path) -> None:
    said = refused("drift", "rnnt_swb300", "--out", tmp_path / "out")
    assert said == "rnnt_swb300: must be given --data and --recognizers, got a workload that ships none"
