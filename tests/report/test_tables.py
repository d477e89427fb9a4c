"""The report of a result says what the result holds, and fits 100 columns."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from hwsim.report import facts
from hwsim.report.tables import component_table, note_lines, result_report, summary, weight_table
from hwsim.report.units import significant
from hwsim.simulation import Result
from tests.report.conftest import Text


def rows(shown: str) -> dict[str, list[str]]:
    """Cells by the first word of each line; cells are two or more blanks apart."""
    found = {}
    for line in shown.split("\n"):
        cells = re.split(r" {2,}", line.strip())
        found[cells[0]] = cells[1:]
    return found


@pytest.fixture(scope="module")
def report(int4: Result, fp16: Result, text: Text) -> str:
    return text(result_report(int4, fp16, {"dram.efficiency": "0.9"}))


def test_the_report_fits_and_nothing_is_cut(report: str) -> None:
    assert max(len(line) for line in report.split("\n")) <= 100
    assert "…" not in report


def test_the_report_has_its_parts_in_order(report: str) -> None:
    headings = ["Machine ", "Network ", "Decode ", "Components at int4 versus fp16", "Latency ", "Time goes to ",
                "Energy ", "Energy goes to ", "Compression ", "Weights", "Notes", "Assumptions"]  # fmt: skip
    found = [report.index(f"\n{heading}") if heading != "Machine " else 0 for heading in headings]
    assert found == sorted(found)


def test_machine_network_and_decode_are_named(report: str) -> None:
    flat = " ".join(report.split())
    assert "rapid_4core: 4 cores at 1.60 GHz (fast), 2 weight-stationary arrays each; peak" in flat
    assert "104.9 TOPS int4" in flat
    assert "13.1 TFLOPS fp16" in flat
    assert "scratchpad 8 MiB, 2 MiB a core; DRAM 68.3 GB/s" in flat
    assert "changed: dram.efficiency = 0.9" in flat
    assert "rnnt_swb300 at int4 versus fp16: 146 M parameters (encoder 54.2 M, prediction 2.40 M," in flat
    assert (
        "alignment-length synchronous beam search (alsd), beam 4, density-ratio fusion of source and external" in flat
    )
    assert "20 frames = 0.4 s of audio; 30 steps; rows: prediction network " in flat


def test_each_component_has_a_row(int4: Result, fp16: Result, text: Text) -> None:
    found = rows(text(component_table(int4, fp16)))
    for name, part in int4.components.items():
        latency, share, versus, speedup, energy = found[name][:5]
        assert float(latency) == pytest.approx(1e3 * part.latency_s, abs=6e-4)
        assert float(share) == pytest.approx(100 * part.cycles / int4.cycles, abs=0.06)
        assert float(versus) == pytest.approx(1e3 * fp16.components[name].latency_s, abs=6e-4)
        assert float(energy) == pytest.approx(1e3 * part.energy_j, abs=6e-3)
        visible = facts.visible_speedup(name, int4, fp16)
        assert speedup == ("–" if visible is None else significant(visible))


def test_the_last_row_is_the_total(int4: Result, fp16: Result, text: Text) -> None:
    shown = text(component_table(int4, fp16))
    assert shown.split("\n")[-1].startswith("total ")
    total = rows(shown)["total"]
    assert total[1] == "100.0"
    assert total[3] == significant(fp16.latency_s / int4.latency_s)
    assert total[-1].startswith("DRAM ")


def test_alone_there_is_no_speedup(int4: Result, text: Text) -> None:
    shown = text(component_table(int4))
    assert shown.startswith("Components at int4\n")
    assert "speed-up" not in shown
    assert "versus" not in shown
    assert len(rows(shown)["encoder"]) == 7


def test_a_component_off_the_critical_path_is_hidden(int4: Result, text: Text) -> None:
    joint = replace(int4.components["joint"], cycles=0, latency_s=0.0, achieved_ops_per_s=0.0, utilization=0.0)
    result = replace(int4, components={**int4.components, "joint": joint})
    assert rows(text(component_table(result)))["joint"][-1] == "hidden"
    assert "joint: under 0.5 % of the latency, short or hidden behind others" in " ".join(note_lines(result).split())


def test_the_summary_compares(int4: Result, fp16: Result, text: Text) -> None:
    faster, slower = text(summary(int4, fp16)), text(summary(fp16, int4))
    ratio = significant(fp16.latency_s / int4.latency_s)
    assert f"RTF {significant(int4.rtf)}; fp16: " in " ".join(faster.split())
    assert f"{ratio} times faster" in " ".join(faster.split())
    assert f"{ratio} times slower" in " ".join(slower.split())
    assert f"Compression     {significant(int4.compression)} times smaller than FP32 (fp16: 2.00)" in faster
    assert "times" not in text(summary(int4)).split("Compression")[0]


def test_shares_of_energy_add_up(int4: Result, text: Text) -> None:
    line = next(line for line in text(summary(int4)).split("\n") if line.startswith("Energy goes to"))
    assert sum(int(share) for share in re.findall(r"(\d+) %", line)) == pytest.approx(100, abs=4)


def test_weights_have_a_row_each(int4: Result, text: Text) -> None:
    found = rows(text(weight_table(int4)))
    for home in facts.weight_homes(int4):
        parameters, bits, stored, _, kept = found[home.component][:5]
        assert parameters == significant(home.parameters / 1e6)
        assert bits == f"{home.stored_bits / home.parameters:.2f}"
        assert float(stored) == pytest.approx(home.stored_bytes / 1e6, abs=6e-3)
        assert kept == (f"{home.kept_bytes / 1e6:.2f}" if home.kept_bytes else "–")


def test_notes_name_fallbacks_and_what_finds_no_room(int8: Result, int4: Result) -> None:
    assert "  - int8 runs as fp16 on rapid_4core" in note_lines(int8).split("\n")
    assert "  - int8 runs as fp16 on rapid_4core" in note_lines(int4, int8).split("\n")
    assert "no room" not in note_lines(int8)
    placements = (replace(int8.run.plan.placements[0], on_chip=False, size_bytes=2_500_000, traffic_saved_bytes=10**9),)
    full = replace(int8, run=replace(int8.run, plan=replace(int8.run.plan, placements=placements)))
    expected = (
        f"no room on chip for 1 tensor, 2.5 MB, above all {placements[0].tensor}; that costs up to 1,000 MB of DRAM"
    )
    assert expected in " ".join(note_lines(full).split())


def test_every_assumption_is_listed(report: str, int4: Result) -> None:
    listed = " ".join(report[report.index("\nAssumptions") :].split())
    reasons = {entry.partition(": ")[2] for entry in int4.assumptions}
    assert all(" ".join(reason.split()) in listed for reason in reasons)
