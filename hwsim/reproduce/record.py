"""What a reproduction is: rows of figures, the assumptions behind them, and how much each assumption decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Value = float | bool | str

TOLERANCE = 0.15
"""The goal for a figure of a paper that leaves its machine open: within 15 % of the published value."""
SIZE_TOLERANCE = 0.03
"""The goal for a size, which no machine decides: within 3 % of the published value."""


@dataclass(frozen=True)
class Row:
    """One published figure, and the same figure simulated."""

    figure: str
    published: float | None
    """None for a figure that stands beside published ones and that no paper prints."""
    simulated: float
    unit: str
    source: str
    """Paper, and where in it; `derived` when it follows from printed figures by arithmetic."""
    tolerance: float = TOLERANCE
    """The goal: largest relative difference."""

    @property
    def relative_difference(self) -> float | None:
        """(simulated - published) / published; None where nothing is published."""
        return None if self.published is None else self.simulated / self.published - 1

    @property
    def within_tolerance(self) -> bool:
        """Whether the simulated figure reaches the goal; one without a published figure has none to miss."""
        return self.relative_difference is None or abs(self.relative_difference) <= self.tolerance


@dataclass(frozen=True)
class Listing:
    """A table of what belongs to figures and is none itself, such as the bits of each layer."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[float | str, ...], ...]


def reached(rows: Sequence[Row]) -> str:
    """How many published figures are reached, which are not, and which is farthest."""
    known = [(row, row.relative_difference) for row in rows if row.relative_difference is not None]
    missed = [row.figure for row, _ in known if not row.within_tolerance]
    goals = {row.tolerance for row, _ in known}
    goal = f"{100 * goals.pop():g} %" if len(goals) == 1 else "their tolerance"
    row, difference = max(known, key=lambda pair: abs(pair[1]))
    said = f"{len(known) - len(missed)} of {len(known)} figures are within {goal}"
    if missed:
        said += f"; not: {', '.join(missed)}"
    return (
        f"{said}. The farthest is {row.figure}: {row.simulated:.3g} simulated, {row.published:.3g} published"
        f" ({difference:+.1%})."
    )


@dataclass(frozen=True)
class Change:
    """One assumption, and the factor on its number; a choice of two has none and is turned over."""

    path: str
    factor: float | None = None

    @property
    def name(self) -> str:
        """How it is changed, in a word."""
        return "switched" if self.factor is None else "halved" if self.factor < 1 else "doubled"

    def value(self, before: Value, choices: Mapping[str, tuple[Value, Value]]) -> Value:
        """What becomes of a value; `choices`: both values of what is turned over, by path. Counts stay whole."""
        if self.factor is None:
            one, other = choices[self.path]
            return other if before == one else one
        after = float(before) * self.factor
        return round(after) if isinstance(before, int) else after


@dataclass(frozen=True)
class Sensitivity:
    """How the headline figures move when one assumption is changed and all others stay."""

    assumption: str
    """Dotted path, beginning with the file or room that it belongs to: `arch.`, `workload.`, `decode.`."""
    change: str
    """`halved`, `doubled`, or `switched` for a choice of two."""
    before: Value
    after: Value
    baseline: Mapping[str, float]
    """Headline figures under the assumptions as they are, by name."""
    figures: Mapping[str, float]
    """The same under the change; empty when it cannot be run."""
    message: str | None = None
    """Why it cannot be run, or why the value is not what `change` says."""

    def relative_change(self, figure: str) -> float | None:
        """(changed - baseline) / baseline of one headline figure; None when the change cannot be run."""
        return self.figures[figure] / self.baseline[figure] - 1 if self.figures else None

    def to_dict(self) -> dict[str, Any]:
        """JSON values, with the relative change of each figure."""
        moves = {
            name: {"baseline": value, "changed": self.figures.get(name), "relative_change": self.relative_change(name)}
            for name, value in self.baseline.items()
        }
        return {
            "assumption": self.assumption,
            "change": self.change,
            "before": self.before,
            "after": self.after,
            "figures": moves,
            "message": self.message,
        }


@dataclass(frozen=True)
class Reproduction:
    """The published figures of a paper beside simulated ones, all under one set of assumptions."""

    name: str
    title: str
    rows: tuple[Row, ...]
    assumptions: tuple[str, ...]
    """`path = value: why`, every one that the rows rest on."""
    sensitivity: tuple[Sensitivity, ...]
    notes: tuple[str, ...]
    """What was reached, what was not, and why."""
    listings: tuple[Listing, ...] = ()
    """Tables beside the rows."""

    def to_dict(self) -> dict[str, Any]:
        """What `--json` writes."""
        return {
            "name": self.name,
            "title": self.title,
            "rows": [asdict(row) | {"relative_difference": row.relative_difference} for row in self.rows],
            "assumptions": list(self.assumptions),
            "sensitivity": [entry.to_dict() for entry in self.sensitivity],
            "notes": list(self.notes),
            "listings": [asdict(listing) for listing in self.listings],
        }
