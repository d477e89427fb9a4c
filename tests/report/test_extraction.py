"""The table of an extracted model: equal layers in one row, whole numbers, every parameter in the totals."""

from __future__ import annotations

import hwsim
from hwsim.extract import ExtractedModel
from hwsim.report.extraction import extraction_report, extraction_rows
from hwsim.report.facts import total
from tests.extract.graph.networks import Draft, decoding, mlperf
from tests.report.conftest import Text


def test_equal_layers_of_a_stack_are_one_row(text: Text) -> None:
    d = Draft(features=(1, 64, 8))
    x = "features"
    for index in range(12):
        x = d.linear(f"layers.{index}.a_module_of_a_very_long_name.linear", x, 8)
    model = ExtractedModel("deep", {"encoder": d.graph("encoder", x)}, 64, 0.01, decoding(64))
    said = text(extraction_report(model))
    assert said.count("encoder.layers.*.a_module") == 1
    assert "…" not in said
    assert "12" in said
    assert f"{12 * (64 + 8):,}" in said
    assert len(extraction_rows(model)) == 12
    assert {row["weights"] for row in extraction_rows(model)} == {"fp32"}


def test_totals_are_those_of_the_model(text: Text) -> None:
    said = text(extraction_report(mlperf(), {"encoder": "timed only: it is a float network"}))
    assert "45,323,037" in said
    assert "encoder: timed only: it is a float network" in said
    assert "none, an encoder alone" not in said


def test_utilization_of_the_whole_leaves_out_what_no_array_computes() -> None:
    result = hwsim.simulate("edge_npu", mlperf(), "int8")
    parts = result.components.values()
    cycles = sum(part.utilization * part.cycles for part in parts)
    assert abs(total(result).utilization - cycles / result.cycles) < 1e-6
