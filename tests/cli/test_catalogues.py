from __future__ import annotations

from pathlib import Path

import pytest

from hwsim import __version__, catalogue
from tests.cli.conftest import Call


def test_list_names_everything(call: Call) -> None:
    code, out, err = call("list")
    assert (code, err) == (0, "")
    lines = out.split("\n")
    assert [line for line in lines if line and not line.startswith(" ")] == ["Architectures", "Workloads", "Policies"]
    for folder in ("arch_configs", "workloads", "workloads/policies"):
        assert all(any(line.startswith(f"  {name} ") for line in lines) for name in catalogue.names(folder))


@pytest.mark.parametrize(
    ("kind", "title", "folder"),
    [("archs", "Architectures", "arch_configs"), ("workloads", "Workloads", "workloads"),
     ("policies", "Policies", "workloads/policies")],
)  # fmt: skip
def test_list_names_one_catalogue(kind: str, title: str, folder: str, call: Call) -> None:
    lines = call("list", kind).out.split("\n")
    assert lines[0] == title
    listed = [line.split()[0] for line in lines[1:] if line.startswith("  ") and not line.startswith("   ")]
    assert listed == catalogue.names(folder)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("rapid_4core", "Architecture  rapid_4core: RaPiD"),
        ("rnnt_mlperf", "Workload   rnnt_mlperf: The RNN-T of the MLPerf inference benchmark"),
        ("int4-2021", "Policy      int4-2021: INT4 weights and activations except in the first encoder"),
        ("int4/group32/2:4", "Policy  int4/group32/2:4: one format for the weights of every layer"),
        ("codebook5", "Policy  codebook5: one format for the weights of every layer"),
    ],
)
def test_show_finds_all_three_kinds(name: str, first: str, call: Call) -> None:
    code, out, err = call("show", name)
    assert (code, err) == (0, "")
    assert out.startswith(first)


@pytest.mark.parametrize(
    ("folder", "name", "heading"),
    [("arch_configs", "systolic_128", "Architecture"), ("workloads", "rnnt_swb300", "Workload"),
     ("workloads/policies", "int8", "Policy")],
)  # fmt: skip
def test_show_reads_files_by_their_content(folder: str, name: str, heading: str, call: Call, tmp_path: Path) -> None:
    copy = tmp_path / "mine.yaml"
    copy.write_bytes(catalogue.find(folder, "file", name).read_bytes())
    code, out, _ = call("show", copy)
    assert code == 0
    assert out.startswith(heading)


def test_show_reads_an_architecture_that_extends_another(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: rapid_4core\nname: mine\ndescription: my own\n", encoding="utf-8")
    assert call("show", path).out.startswith("Architecture  mine: my own")


def test_version_and_help(call: Call) -> None:
    assert call("--version") == (0, f"hwsim {__version__}\n", "")
    code, out, err = call()
    assert (code, err) == (0, "")
    assert out == call("--help").out
    for command in ("list", "show", "simulate", "sweep", "reproduce"):
        assert f"\n  {command} " in out
        assert call(command, "--help").code == 0
