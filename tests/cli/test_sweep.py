from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.cli.conftest import Call

SHORT = ("--frames", "10", "--lm", "none")


def test_a_sweep_writes_a_table_and_a_plot(call: Call, tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    words = ("--precision", "fp16,int8", "--beam", "1,2", "--set", "dram.efficiency=0.5,0.9")
    code, printed, err = call("sweep", "rapid_4core", "rapid_1core", "rnnt_swb300", *SHORT, *words, "--out", out)
    assert (code, err) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == ["rtf_over_beam.png", "sweep.csv"]
    frame = pd.read_csv(out / "sweep.csv")
    assert len(frame) == 2 * 2 * 2 * 2
    assert set(frame["arch"]) == {"rapid_4core", "rapid_1core"}
    assert set(frame["dram.efficiency"]) == {0.5, 0.9}
    lines = printed.split("\n")
    assert lines[0] == "Real-time factor over beam width"
    assert lines[1].split() == ["arch", "precision", "efficiency", "1", "2"]
    notes = ["int8 runs as fp16 on rapid_4core", "int8 runs as fp16 on rapid_1core"]
    assert lines[-7:] == ["", *notes, "", str(out / "sweep.csv"), str(out / "rtf_over_beam.png"), ""]


def test_points_that_cannot_run_are_reported(call: Call, tmp_path: Path) -> None:
    words = ("sweep", "rapid_4core", "rnnt_swb300", *SHORT, "--beam", "1", "--precision", "int4,fp32")
    code, printed, err = call(*words, "--out", tmp_path)
    assert code == 0
    assert err == (
        "hwsim: 1 point of 2 cannot run, see the column error; the first: rapid_4core cannot compute fp32: it computes"
        " fp16, hfp8, int4, int2; no fallback for fp32 in its file\n"
    )
    assert printed.split("\n")[-2] == str(tmp_path / "rtf_over_beam.png")


def test_without_matplotlib_nothing_runs(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hwsim.cli.sweep as command
    from hwsim.report import plots

    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    monkeypatch.setattr(command, "run_sweep", lambda *_: pytest.fail("it must not run"))
    code, _, err = call("sweep", "rapid_4core", "rnnt_swb300", "--out", tmp_path / "out")
    assert code == 2
    assert err == "hwsim: error: plots need matplotlib, got an installation without it: install hwsim[plot]\n"
    assert list(tmp_path.iterdir()) == []
