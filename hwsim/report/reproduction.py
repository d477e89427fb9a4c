"""The figures of a paper beside simulated ones, and how much each assumption decides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import wrap

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hwsim.report.layout import assumption_text, bullets, plain_table, section, spaced
from hwsim.report.units import DASH, signed, significant
from hwsim.reproduce import Listing, Reproduction, Row, Sensitivity

FAR = " *"


def reproduction_report(reproduction: Reproduction) -> Group:
    """Everything that `hwsim reproduce` prints, for 100 columns; the side-by-side table stands last."""
    parts: list[RenderableType] = []
    if reproduction.assumptions:
        parts.append(section("Assumptions", assumption_text(reproduction.assumptions)))
    if reproduction.sensitivity:
        parts.append(Group(sensitivity_table(reproduction), *_failures(reproduction.sensitivity)))
    parts.append(section("What the figures say", bullets(reproduction.notes)))
    parts += [listing_table(listing) for listing in reproduction.listings]
    return spaced([*parts, Group(figure_table(reproduction), source_list(reproduction))])


def figure_table(reproduction: Reproduction) -> Table:
    """Published and simulated figures side by side; the last column is a number of `source_list`."""
    table = plain_table(
        reproduction.title,
        [("figure", "wrap"), ("published", "right"), ("simulated", "right"), ("difference", "right"), ("unit", "left"),
         ("source", "right")],
    )  # fmt: skip
    numbers = source_numbers(reproduction)
    for row in reproduction.rows:
        far = not row.within_tolerance
        cells = figure_cells(row)
        table.add_row(
            row.figure, cells[0], cells[1], Text(cells[2] + (FAR if far else "  ")), row.unit,
            f"[{numbers[row.source]}]", style="bold" if far else "",
        )  # fmt: skip
    return table


def figure_cells(row: Row) -> tuple[str, str, str]:
    """Published figure, simulated figure and their difference, as text."""
    if row.tolerance == 0 and row.published is not None:
        # An exact count is shown whole.
        return f"{row.published:,.0f}", f"{row.simulated:,.0f}", f"{signed(100 * (row.relative_difference or 0), 1)} %"
    simulated = significant(row.simulated, 4 if (row.published or row.simulated) >= 100 else 3)
    if row.published is None or row.relative_difference is None:
        return DASH, simulated, DASH
    return f"{row.published:g}", simulated, f"{signed(100 * row.relative_difference, 1)} %"


def listing_table(listing: Listing) -> Table:
    """A table beside the figures; text on the left, numbers on the right."""
    numeric = [any(not isinstance(row[i], str) for row in listing.rows) for i in range(len(listing.columns))]
    columns = [(name, "right" if right else "wrap") for name, right in zip(listing.columns, numeric, strict=True)]
    table = plain_table(listing.title, columns)
    for row in listing.rows:
        table.add_row(*listing_cells(row))
    return table


def listing_cells(row: Sequence[float | str]) -> list[str]:
    """Cells of a listing as text; whole numbers in full."""
    return [
        cell if isinstance(cell, str) else f"{cell:,}" if isinstance(cell, int) else significant(cell) for cell in row
    ]


def goal_text(rows: Iterable[Row]) -> str:
    """What the mark of a figure that is too far says."""
    goals = sorted({row.tolerance for row in rows if row.published is not None})
    return f"farther than {' or '.join(f'{100 * goal:g} %' for goal in goals)} from the published figure" + (
        ", the goal of the row" if len(goals) > 1 else ""
    )


def source_list(reproduction: Reproduction) -> str:
    """The sources that `figure_table` numbers, and the meaning of its mark."""
    numbers = source_numbers(reproduction)
    lines = [f"[{number}] {source}" for source, number in numbers.items()]
    if any(not row.within_tolerance for row in reproduction.rows):
        lines.append(f"{FAR.strip()} {goal_text(reproduction.rows)}")
    return bullets(lines, mark="")


def sensitivity_table(reproduction: Reproduction) -> Table:
    """Assumption by figure: change in percent when the assumption is halved/doubled, or switched."""
    entries = reproduction.sensitivity
    figures = list(dict.fromkeys(name for entry in entries for name in entry.baseline))
    headings = _headings(figures)
    blank = "\n" * max((heading.count("\n") for heading in headings), default=0)
    table = plain_table(
        "Change of each figure in %, when an assumption is halved/doubled, or switched",
        [(f"{blank}assumption", "wrap"), (f"{blank}value", "right"), *((text, "right") for text in headings)],
    )
    baseline: Mapping[str, float] = entries[0].baseline if entries else {}
    table.add_row("as assumed", "", *(significant(baseline[name]) for name in figures), style="bold")
    for parent, paths in _by_parent(entries).items():
        if parent:
            table.add_row(parent)
        for leaf, changes in paths.items():
            cells = (_cell(changes, name) for name in figures)
            table.add_row(f"  {leaf}" if parent else leaf, _value(changes), *cells)
    return table


def _by_parent(entries: Iterable[Sensitivity]) -> dict[str, dict[str, list[Sensitivity]]]:
    """Changes by the parent of their path and the last part of it."""
    found: dict[str, dict[str, list[Sensitivity]]] = {}
    for entry in entries:
        parent, _, leaf = _short(entry.assumption).rpartition(".")
        found.setdefault(parent, {}).setdefault(leaf, []).append(entry)
    return found


def _cell(changes: Iterable[Sensitivity], figure: str) -> str:
    return "/".join(_percent(entry.relative_change(figure)) for entry in changes)


def _percent(change: float | None) -> str:
    if change is None:
        return DASH
    return signed(100 * change, 0 if abs(change) >= 0.0995 else 1)


def _value(changes: list[Sensitivity]) -> str:
    """The number as assumed, or what a choice is switched to."""
    first = changes[0]
    if isinstance(first.before, bool | str):
        return f"→ {str(first.after).lower()}"
    text = f"{first.before:g}"
    return text if len(text) <= 8 else f"{first.before:.3g}"


def _short(path: str) -> str:
    return path.removeprefix("arch.")


def _headings(figures: Sequence[str]) -> list[str]:
    """Names of figures in narrow lines, the year on its own, all ending on the same line."""
    split = [[year, *wrap(rest, 10)] for year, _, rest in (figure.partition(" ") for figure in figures)]
    lines = max(map(len, split), default=1)
    return ["\n".join([*[""] * (lines - len(parts)), *parts]) for parts in split]


def _failures(entries: Iterable[Sensitivity]) -> list[RenderableType]:
    """Changes that could not be run, or not as the heading says."""
    lines = [f"{_short(entry.assumption)} {entry.change}: {entry.message}" for entry in entries if entry.message]
    return [bullets(lines)] if lines else []


def source_numbers(reproduction: Reproduction) -> dict[str, int]:
    """Sources of the rows, numbered from 1 in the order of the rows."""
    sources = dict.fromkeys(row.source for row in reproduction.rows)
    return {source: number for number, source in enumerate(sources, start=1)}
