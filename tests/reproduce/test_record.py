"""Rows, their goals, and the sentence that counts them."""

from __future__ import annotations

import json

import pytest

from hwsim.reproduce import Listing, Reproduction, Row
from hwsim.reproduce.record import SIZE_TOLERANCE, TOLERANCE, reached


@pytest.mark.parametrize(("simulated", "within"), [(2.29, True), (2.31, False), (1.71, True), (1.69, False)])
def test_a_row_says_whether_it_is_within_its_goal(simulated: float, within: bool) -> None:
    row = Row("a", 2.0, simulated, "×", "b")
    assert (row.tolerance, TOLERANCE, SIZE_TOLERANCE) == (0.15, 0.15, 0.03)
    assert row.relative_difference == simulated / 2.0 - 1
    assert row.within_tolerance is within
    assert not Row("a", 2.0, simulated, "MB", "b", 0.03).within_tolerance


def test_a_row_without_a_published_figure_has_no_goal_to_miss() -> None:
    row = Row("a", None, 5.0, "×", "b")
    assert row.relative_difference is None
    assert row.within_tolerance


def test_figures_that_are_reached_are_counted() -> None:
    rows = [Row("a", 2.0, 2.2, "×", "s"), Row("b", None, 9.0, "×", "s"), Row("c", 100.0, 104.0, "MB", "s")]
    farthest = "The farthest is a: 2.2 simulated, 2 published (+10.0%)."
    assert reached(rows) == f"2 of 2 figures are within 15 %. {farthest}"
    rows.append(Row("d", 100.0, 96.0, "MB", "s", SIZE_TOLERANCE))
    assert reached(rows) == f"2 of 3 figures are within their tolerance; not: d. {farthest}"


def test_listings_and_rows_without_figures_are_json() -> None:
    listing = Listing("bits", ("layer", "bits"), (("one", 4), ("two", 8)))
    paper = Reproduction("p", "P", (Row("a", None, 5.0, "×", "b"),), (), (), ("note",), (listing,))
    data = json.loads(json.dumps(paper.to_dict(), allow_nan=False))
    assert data["rows"] == [{"figure": "a", "published": None, "simulated": 5.0, "unit": "×", "source": "b",
                             "tolerance": 0.15, "relative_difference": None}]  # fmt: skip
    assert data["listings"] == [{"title": "bits", "columns": ["layer", "bits"], "rows": [["one", 4], ["two", 8]]}]
