"""What a comparison found: per layer, counts and not tolerances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from hwsim.errors import HwsimError

if TYPE_CHECKING:
    import pandas as pd

Tier = Literal["T0", "T1", "T2", "T3"]
TIERS: tuple[str, ...] = get_args(Tier)
TIER_MEANINGS: dict[str, str] = {
    "T0": "against another integer implementation: no mismatching code",
    "T1": "against the training graph in float64: no mismatching code",
    "T2": "against the framework's own float32: a counted budget, each one step away and near a tie",
    "T3": "free running: where it first diverges, nothing is required",
}


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One tensor of one mode.

    `max_delta`: largest difference, in codes, or in reals of a tensor that has none (`is_code` False, not judged).
    `first_index`: the first mismatching element; `first_step`: the earliest time step with one, in time.
    `tie_distance`: how far the reference's real, before rounding, lies at most from the midpoint of the two codes,
    in steps of the grid; None without mismatches or without reals.
    """

    tensor: str
    layer: str
    mode: str
    is_code: bool
    elements: int
    mismatches: int
    max_delta: float
    first_index: tuple[int, ...] | None
    first_step: int | None
    tie_distance: float | None
    passed: bool
    verdict: str

    @property
    def count(self) -> str:
        """`0 of n, < 3/n at 95 %`, or `k of n`: the rule of three bounds a rate that was never seen."""
        if self.mismatches:
            return f"{self.mismatches:,} of {self.elements:,}"
        return f"0 of {self.elements:,}, < {3 / self.elements:.1e} at 95 %"


@dataclass(frozen=True, slots=True)
class Source:
    """Who computed a reference: the oracle, its version, the profile that it was compared by, and what it left out.

    `notes`: what was assumed or changed to let the oracle run the network, one sentence each.
    `partly`: by tensor, what of it the oracle computed, when that was not all. `not_compared`: by tensor, why the
    oracle did not compute it; those come from the readable reference and are not judged.
    """

    oracle: str
    version: str
    profile: str
    text: str = ""
    notes: tuple[str, ...] = ()
    partly: Mapping[str, str] = field(default_factory=dict)
    not_compared: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        lists = {"notes": list(self.notes), "partly": dict(self.partly), "not_compared": dict(self.not_compared)}
        return {"oracle": self.oracle, "version": self.version, "profile": self.profile, **lists}


@dataclass(frozen=True, slots=True)
class Report:
    """A comparison: passed when every tensor of codes met its tier. `source`: who computed the reference."""

    tier: Tier
    layers: tuple[LayerReport, ...]
    source: Source | None = None

    @property
    def passed(self) -> bool:
        """Whether no layer broke its tier."""
        return all(layer.passed for layer in self.layers)

    @property
    def elements(self) -> int:
        """Codes compared."""
        return sum(layer.elements for layer in self.layers if layer.is_code)

    @property
    def mismatches(self) -> int:
        """Codes that differ."""
        return sum(layer.mismatches for layer in self.layers if layer.is_code)

    def to_dict(self) -> dict[str, Any]:
        """JSON values: tier, passed, counts, and one entry per layer."""
        layers = [{**asdict(layer), "count": layer.count} for layer in self.layers]
        head: dict[str, Any] = {"tier": self.tier, "meaning": TIER_MEANINGS[self.tier], "passed": self.passed}
        if self.source is not None:
            head["against"] = self.source.to_dict()
        return {**head, "elements": self.elements, "mismatches": self.mismatches, "layers": layers}

    def to_frame(self) -> pd.DataFrame:
        """One row per layer and mode."""
        import pandas as pd

        return pd.DataFrame([asdict(layer) for layer in self.layers])

    def __str__(self) -> str:
        width = max((len(layer.tensor) for layer in self.layers), default=0)
        lines = [f"{self.tier} {TIER_MEANINGS[self.tier]}"]
        if self.source is not None:
            lines += [
                self.source.text,
                *(f"{name}: not compared, {why}" for name, why in self.source.not_compared.items()),
            ]
        for layer in self.layers:
            lines.append(f"{layer.tensor:<{width}}  {layer.mode:<14}  {layer.count}; {layer.verdict}")
        total = f"0 of {self.elements:,} codes, < {3 / max(self.elements, 1):.1e} at 95 %"
        if self.mismatches:
            total = f"{self.mismatches:,} of {self.elements:,} codes differ"
        return "\n".join([*lines, f"{'passed' if self.passed else 'FAILED'}: {total}"])


def check_tier(tier: str) -> None:
    """Raises HwsimError for an unknown tier."""
    if tier not in TIERS:
        raise HwsimError(f"tier must be one of {', '.join(TIERS)}, got '{tier}'")
