"""What a reproduction is: rows of figures, the assumptions behind them, and how much each assumption decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

Value = float | bool | str

TOLERANCE = 0.15
"""The goal for a figure of a paper that leaves its machine open: within 15 % of the published value."""


@dataclass(frozen=True)
class Row:
    """One published figure, and the same figure simulated."""

    figure: str
    published: float
    simulated: float
    unit: str
    source: str
    """Paper, and where in it; `derived` when it follows from printed figures by arithmetic."""

    @property
    def relative_difference(self) -> float:
        """(simulated - published) / published."""
        return self.simulated / self.published - 1

    @property
    def within_15_percent(self) -> bool:
        """Whether the simulated figure reaches the goal."""
        return abs(self.relative_difference) <= TOLERANCE


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

    def to_dict(self) -> dict[str, Any]:
        """What `--json` writes."""
        return {
            "name": self.name,
            "title": self.title,
            "rows": [asdict(row) for row in self.rows],
            "assumptions": list(self.assumptions),
            "sensitivity": [entry.to_dict() for entry in self.sensitivity],
            "notes": list(self.notes),
        }
