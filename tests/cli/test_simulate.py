from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

import hwsim
from hwsim.simulation import Result
from tests.cli.conftest import SHORT, Call

TOP = {"rtf", "latency_s", "energy_j", "cycles", "compression", "speedup", "components", "assumptions", "provenance"}
COMPONENT = {"latency_s", "energy_j", "cycles", "macs", "dram_bytes", "bound", "utilization", "speedup"}
NAMES = ["encoder", "search", "prediction", "source_lm", "external_lm", "joint"]


@pytest.fixture(scope="module")
def int4() -> Result:
    return hwsim.simulate("rapid_4core", "rnnt_swb300", "int4", frames=20, beam=2)


@pytest.fixture(scope="module")
def fp16() -> Result:
    return hwsim.simulate("rapid_4core", "rnnt_swb300", "fp16", frames=20, beam=2)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_it_prints_the_report(call: Call) -> None:
    code, out, err = call(*SHORT)
    assert (code, err) == (0, "")
    assert out.startswith("Machine  rapid_4core: 4 cores at 1.60 GHz (fast)")
    assert "\nComponents at int4\n" in out
    assert "\nAssumptions\n" in out
    assert all(line == line.rstrip() for line in out.split("\n"))
    assert max(map(len, out.split("\n"))) <= 100


def test_versus_adds_speedups(call: Call) -> None:
    code, out, _ = call(*SHORT, "--versus", "fp16")
    assert code == 0
    assert "\nComponents at int4 versus fp16\n" in out
    assert "speed-up" in out


def test_json_has_the_keys_and_the_numbers(call: Call, int4: Result, fp16: Result, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    assert call(*SHORT, "--versus", "fp16", "--json", path).out.endswith(f"\n\nWrote {path}\n")
    content = read(path)
    assert set(content) >= TOP
    assert list(content["components"]) == NAMES
    assert all(set(part) >= COMPONENT for part in content["components"].values())
    assert content["rtf"] == int4.rtf
    assert content["cycles"] == int4.cycles
    assert content["speedup"] == fp16.latency_s / int4.latency_s
    assert content["components"]["encoder"]["speedup"] == int4.speedup_over(fp16)["encoder"]
    assert content["assumptions"] == int4.assumptions
    assert content["provenance"] == int4.provenance
    assert sum(part["cycles"] for part in content["components"].values()) == pytest.approx(content["cycles"], abs=3)
    assert sum(part["energy_j"] for part in content["components"].values()) == pytest.approx(content["energy_j"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]


def test_json_without_versus_has_no_speedup(call: Call, tmp_path: Path) -> None:
    call(*SHORT, "--json", tmp_path / "run.json")
    content = read(tmp_path / "run.json")
    assert content["speedup"] is None
    assert {part["speedup"] for part in content["components"].values()} == {None}


def test_csv_has_a_row_per_component(call: Call, int4: Result, fp16: Result, tmp_path: Path) -> None:
    call(*SHORT, "--versus", "fp16", "--csv", tmp_path / "run.csv")
    with (tmp_path / "run.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == NAMES
    for row in rows:
        part = int4.components[row["name"]]
        assert (int(row["cycles"]), int(row["macs"]), row["bound"]) == (part.cycles, part.macs, part.bound)
        assert float(row["energy_j"]) == pytest.approx(part.energy_j)
    assert float(rows[0]["speedup"]) == pytest.approx(int4.speedup_over(fp16)["encoder"])


def test_all_files_at_once(call: Call, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.json", "a.csv", "t.json")]
    code, out, _ = call(*SHORT, "--json", paths[0], "--csv", paths[1], "--timeline", paths[2])
    assert code == 0
    assert out.endswith("".join(f"Wrote {path}\n" for path in paths))
    assert read(paths[2])["traceEvents"]
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_an_old_file_is_replaced(call: Call, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("old", encoding="utf-8")
    call(*SHORT, "--json", tmp_path / "a.json")
    assert "rtf" in read(tmp_path / "a.json")


def test_set_changes_the_machine_and_is_shown(call: Call, tmp_path: Path) -> None:
    setting = ("--set", "arch.dram.bandwidth_bytes_per_s=136.6e9")
    out = " ".join(call(*SHORT, *setting, "--json", tmp_path / "fast.json").out.split())
    assert "changed: dram.bandwidth_bytes_per_s = 136.6e9" in out
    assert "dram.bandwidth_bytes_per_s = 1.366e+11: set by the user with --set" in out
    call(*SHORT, "--json", tmp_path / "slow.json")
    assert read(tmp_path / "fast.json")["rtf"] < read(tmp_path / "slow.json")["rtf"]


def test_both_engines_give_the_same(call: Call, tmp_path: Path) -> None:
    for engine in ("fast", "event"):
        assert call(*SHORT, "--lm", "none", "--engine", engine, "--json", tmp_path / engine).code == 0
    fast, event = read(tmp_path / "fast"), read(tmp_path / "event")
    assert fast.pop("provenance") == event["provenance"] | {"engine": "fast"}
    event.pop("provenance")
    assert fast == event


def test_a_fallback_is_noted(call: Call) -> None:
    out = call(*SHORT, "--precision", "int8", "--lm", "none").out
    assert "\n  - int8 runs as fp16 on rapid_4core\n" in out


@pytest.mark.parametrize(
    ("words", "decode"),
    [
        (("--decoder", "greedy", "--beam", "1", "--lm", "none"), "greedy search, no language model;"),
        (("--decoder", "tsd", "--lm", "shallow"), "time-synchronous beam search (tsd), beam 2, shallow fusion of the"),
        ((), "alignment-length synchronous beam search (alsd), beam 2, density-ratio fusion of source"),
    ],
)
def test_the_search_is_chosen(words: tuple[str, ...], decode: str, call: Call) -> None:
    assert f"Decode {decode}" in " ".join(call(*SHORT, *words).out.split())


def test_files_of_the_users_are_read(call: Call, tmp_path: Path) -> None:
    arch, policy = tmp_path / "mine.yaml", tmp_path / "mixed.yaml"
    arch.write_text("extends: rapid_4core\nname: mine\ndescription: d\n", encoding="utf-8")
    policy.write_text(
        "description: d\nassumption: a\ndefault: {weights: int2, activations: int4, state: fp16, bias: fp32}\n",
        encoding="utf-8",
    )
    code, out, _ = call("simulate", arch, "rnnt_swb300", "--precision", policy, "--frames", "20", "--lm", "none")
    assert code == 0
    assert "rnnt_swb300 at mixed: " in out
    assert "Machine  mine: " in out
