"""Reproductions as a page of Markdown, which `hwsim reproduce all --page` writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from textwrap import fill

from hwsim.report.reproduction import (
    FAR,
    figure_cells,
    goal_text,
    listing_cells,
    source_numbers,
)
from hwsim.report.units import DASH, significant
from hwsim.reproduce import Listing, Reproduction, Sensitivity

WIDTH = 118
INTRODUCTION = (
    "Published figures beside those of this simulator, each system under one set of assumptions. This page is what"
    " `hwsim reproduce all --page docs/systems.md` writes (`make docs`); a test checks that it is current. Where"
    f" nothing is published the row says {DASH}. Every assumption is listed with its reason by"
    " `hwsim reproduce NAME`, together with what its half and its double do."
)


def reproduction_page(reproductions: Sequence[Reproduction]) -> str:
    """The page: for each system its figures, sources, tables, what the figures say, and what they rest on."""
    parts = ["# The published systems, reproduced", _paragraph(INTRODUCTION)]
    for reproduction in reproductions:
        parts += _system(reproduction)
    return "\n\n".join(parts) + "\n"


def _system(reproduction: Reproduction) -> list[str]:
    parts = [f"## {reproduction.title}", f"`hwsim reproduce {reproduction.name}`", _figures(reproduction)]
    parts.append("\n".join(f"{number}. {source}" for source, number in source_numbers(reproduction).items()))
    if any(not row.within_tolerance for row in reproduction.rows):
        parts.append(f"\\{FAR.strip()} {goal_text(reproduction.rows)}")
    parts.append(_bullets(reproduction.notes))
    for listing in reproduction.listings:
        parts += [f"**{listing.title}**", _listing(listing)]
    parts += _sensitivity(reproduction.sensitivity)
    parts.append(_paragraph(f"Assumptions: {_counted(reproduction.assumptions)}."))
    return parts


def _figures(reproduction: Reproduction) -> str:
    numbers = source_numbers(reproduction)
    rows = []
    for row in reproduction.rows:
        published, simulated, difference = figure_cells(row)
        mark = "" if row.within_tolerance else f" \\{FAR.strip()}"
        rows.append((row.figure, published, simulated, difference + mark, row.unit, str(numbers[row.source])))
    return _table(("figure", "published", "simulated", "difference", "unit", "source"), rows, (1, 2, 3))


def _listing(listing: Listing) -> str:
    right = [i for i in range(len(listing.columns)) if any(not isinstance(row[i], str) for row in listing.rows)]
    return _table(listing.columns, [tuple(listing_cells(row)) for row in listing.rows], right)


def _sensitivity(entries: Sequence[Sensitivity]) -> list[str]:
    """What moves the headline figures most, one row for each of them."""
    feasible = [entry for entry in entries if entry.figures]
    rows = []
    for name in feasible[0].baseline if feasible else ():
        most = max(feasible, key=lambda entry: abs(entry.relative_change(name) or 0.0))
        change = most.relative_change(name) or 0.0
        rows.append((name, significant(most.baseline[name]), f"{change:+.0%}", f"{most.assumption} {most.change}"))
    if not rows:
        return []
    table = _table(("figure", "as assumed", "change", "by"), rows, (1, 2))
    return ["**The assumption that moves each headline figure most**", table]


def _counted(assumptions: Sequence[str]) -> str:
    if not assumptions:
        return "none beside the workload's"
    rooms: dict[str, int] = {}
    for text in assumptions:
        room = text.partition(".")[0]
        rooms[room] = rooms.get(room, 0) + 1
    return ", ".join(f"{count} of `{room}`" for room, count in rooms.items())


def _table(columns: Iterable[str], rows: Iterable[Sequence[str]], right: Sequence[int]) -> str:
    names = list(columns)
    rule = ["--:" if i in right else "---" for i in range(len(names))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (names, rule, *rows))


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(
        fill(line, WIDTH, initial_indent="- ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        for line in lines
    )


def _paragraph(text: str) -> str:
    return fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)
