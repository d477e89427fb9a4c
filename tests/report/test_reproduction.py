from __future__ import annotations

from dataclasses import replace

import pytest

from hwsim.report.reproduction import figure_table, reproduction_report, sensitivity_table, source_list
from hwsim.report.reproduction_page import reproduction_page
from hwsim.reproduce import Listing, Reproduction, Row, Sensitivity
from tests.report.conftest import Text

BASELINE = {"2021 end to end": 2.5, "2022 RTF INT4": 0.059}


def change(path: str, name: str, before: float | bool | str, after: float | bool | str, factor: float | None,
           message: str | None = None) -> Sensitivity:  # fmt: skip
    figures = {key: value * factor for key, value in BASELINE.items()} if factor else {}
    return Sensitivity(path, name, before, after, BASELINE, figures, message)


@pytest.fixture
def reproduction() -> Reproduction:
    rows = (
        Row("2021 end to end speed-up", 2.6, 2.5, "×", "paper A, table 1"),
        Row("peak", 104.9, 104.8576, "TOPS", "paper B"),
        Row("2022 RTF", 0.06, 0.08, "s per s of audio", "paper A, table 1"),
    )
    changes = (
        change("arch.dram.efficiency", "halved", 0.9, 0.45, 1.11),
        change("arch.dram.efficiency", "doubled", 0.9, 1.0, 0.983),
        change("arch.cores", "halved", 4, 2, 1.0),
        change("arch.cores", "doubled", 4, 8, None, "it does not fit"),
        change("arch.host.persistent_kernel", "switched", False, True, 1.77),
    )
    return Reproduction("paper", "A paper on a chip", rows, ("arch.cores = 4: why",), changes, ("All is well.",))


def test_figures_stand_side_by_side(reproduction: Reproduction, text: Text) -> None:
    assert text(figure_table(reproduction)).split("\n") == [
        "A paper on a chip",
        "figure                    published  simulated  difference  unit              source",
        "────────────────────────────────────────────────────────────────────────────────────",
        "2021 end to end speed-up        2.6       2.50      -3.8 %  ×                    [1]",
        "peak                          104.9      104.9         0 %  TOPS                 [2]",
        "2022 RTF                       0.06     0.0800   +33.3 % *  s per s of audio     [1]",
    ]


def test_sources_are_numbered(reproduction: Reproduction) -> None:
    assert source_list(reproduction).split("\n") == [
        "  [1] paper A, table 1",
        "  [2] paper B",
        "  * farther than 15 % from the published figure",
    ]


def test_sensitivity_is_a_matrix(reproduction: Reproduction, text: Text) -> None:
    assert text(sensitivity_table(reproduction)).split("\n") == [
        "Change of each figure in %, when an assumption is halved/doubled, or switched",
        "                                   2021      2022",
        "assumption            value  end to end  RTF INT4",
        "─────────────────────────────────────────────────",
        "as assumed                         2.50    0.0590",
        "dram",
        "  efficiency            0.9    +11/-1.7  +11/-1.7",
        "cores                     4         0/–       0/–",
        "host",
        "  persistent_kernel  → true         +77       +77",
    ]


def test_the_report_ends_with_the_figures_and_fits(reproduction: Reproduction, text: Text) -> None:
    shown = text(reproduction_report(reproduction))
    parts = ["Assumptions", "  cores = 4: why", "Change of each", "  - cores doubled: it does not fit",
             "What the figures say", "  - All is well.", "A paper on a chip", "  [2] paper B"]  # fmt: skip
    found = [shown.index(part) for part in parts]
    assert found == sorted(found)
    assert max(map(len, shown.split("\n"))) <= 100
    assert "…" not in shown


def test_a_figure_that_no_paper_prints_has_no_difference(reproduction: Reproduction, text: Text) -> None:
    rows = (Row("speed-up of 2:4", None, 1.8, "×", "not published"), Row("size", 82.0, 90.0, "MB", "A", 0.03))
    shown = replace(reproduction, rows=(*reproduction.rows[:1], *rows))
    table = text(figure_table(shown)).split("\n")
    assert table[4] == "speed-up of 2:4                   –       1.80           –  ×        [2]"
    assert table[5] == "size                             82       90.0    +9.8 % *  MB       [3]"
    assert source_list(shown).endswith("  * farther than 3 % or 15 % from the published figure, the goal of the row")


def test_a_listing_stands_before_the_figures(reproduction: Reproduction, text: Text) -> None:
    listing = Listing("Bits of each layer", ("layer", "bits", "MB"), (("one", 4, 0.51234), ("output", 16, 12.0)))
    shown = text(reproduction_report(replace(reproduction, listings=(listing,))))
    table = "Bits of each layer\nlayer   bits     MB\n───────────────────\none        4  0.512\noutput    16   12.0\n"
    assert table in shown
    assert shown.index("All is well.") < shown.index(table) < shown.index("A paper on a chip")


def test_what_is_empty_is_left_out(reproduction: Reproduction, text: Text) -> None:
    shown = text(reproduction_report(replace(reproduction, assumptions=(), sensitivity=())))
    assert shown.startswith("What the figures say")


def test_a_page_has_every_system_and_its_goals(reproduction: Reproduction) -> None:
    listing = Listing("Bits", ("layer", "bits"), (("one", 4),))
    page = reproduction_page([replace(reproduction, listings=(listing,)), replace(reproduction, sensitivity=())])
    assert page.startswith("# The published systems, reproduced\n\n")
    assert page.count("## A paper on a chip") == 2
    assert "| 2021 end to end speed-up | 2.6 | 2.50 | -3.8 % | × | 1 |" in page
    assert "| 2022 RTF | 0.06 | 0.0800 | +33.3 % \\* | s per s of audio | 1 |" in page
    assert (
        "1. paper A, table 1\n2. paper B\n\n\\* farther than 15 % from the published figure\n\n- All is well." in page
    )
    assert "**Bits**\n\n| layer | bits |\n| --- | --: |\n| one | 4 |" in page
    assert "| 2021 end to end | 2.50 | +77% | arch.host.persistent_kernel switched |" in page
    assert page.count("that moves each headline figure most") == 1
    assert page.endswith("Assumptions: 1 of `arch`.\n")
