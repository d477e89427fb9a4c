"""The command around a reproduction; what the figures are is tested beside them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import hwsim.cli.reproduce as command
from hwsim.reproduce import Reproduction, Row, Sensitivity
from tests.cli.conftest import Call

FIGURES = {"2022 RTF": 0.059}


@pytest.fixture(autouse=True)
def steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A paper that is quickly reproduced."""

    def reproduce(on_step: Callable[[int, int], None]) -> Reproduction:
        on_step(1, 1)
        rows = (Row("2022 RTF", 0.06, 0.059, "s per s", "paper A"), Row("speed-up", 3.4, 3.5, "×", "paper A, table 2"))
        changes = (Sensitivity("arch.cores", "halved", 4, 2, FIGURES, {"2022 RTF": 0.1}),)
        return Reproduction("paper", "A paper", rows, ("arch.cores = 4: why",), changes, ("fine",))

    monkeypatch.setattr(command, "REPRODUCTIONS", {"paper": reproduce})


def test_it_prints_the_tables(call: Call) -> None:
    code, out, err = call("reproduce", "paper")
    assert (code, err) == (0, "")
    assert out.startswith("Assumptions\n  cores = 4: why\n")
    assert out.endswith("  [1] paper A\n  [2] paper A, table 2\n")
    assert "2022 RTF       0.06     0.0590      -1.7 %" in out


def test_json_has_the_keys_of_the_issue(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "paper.json"
    assert call("reproduce", "paper", "--json", path).out.startswith(f"Wrote {path}\n\nAssumptions\n")
    content = json.loads(path.read_text(encoding="utf-8"))
    assert set(content) >= {"rows", "assumptions", "sensitivity"}
    assert set(content["rows"][0]) >= {"figure", "published", "simulated", "unit", "source"}
    assert content["assumptions"] == ["arch.cores = 4: why"]
    assert content["sensitivity"][0]["assumption"] == "arch.cores"


def test_out_is_a_folder_of_both_files(call: Call, tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    assert call("reproduce", "paper", "--out", out).code == 0
    assert sorted(path.name for path in out.iterdir()) == ["paper.csv", "paper.json"]
    with (out / "paper.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["figure"] for row in rows] == ["2022 RTF", "speed-up"]
    assert float(rows[0]["relative_difference"]) == pytest.approx(0.059 / 0.06 - 1)
    assert json.loads((out / "paper.json").read_text(encoding="utf-8"))["rows"][1]["simulated"] == 3.5


def test_all_papers_are_printed_and_written_together(call: Call, tmp_path: Path) -> None:
    json_file, page = tmp_path / "all.json", tmp_path / "page.md"
    code, out, err = call("reproduce", "all", "--json", json_file, "--page", page, "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    files = [json_file, tmp_path / "out/paper.json", tmp_path / "out/paper.csv", page]
    assert out.startswith("".join(f"Wrote {path}\n" for path in files) + "\nAssumptions\n")
    content = json.loads(json_file.read_text(encoding="utf-8"))
    assert [entry["name"] for entry in content["reproductions"]] == ["paper"]
    assert page.read_text(encoding="utf-8").startswith("# The published systems, reproduced\n")


def test_an_unknown_paper_is_refused(call: Call) -> None:
    code, _, err = call("reproduce", "papers")
    assert (code, err) == (2, "hwsim: error: unknown reproduction 'papers'; nearest: paper\n")
