"""One row of the table of a sweep: what was run, and the figures that came out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from hwsim import __version__
from hwsim.arch import Architecture
from hwsim.config import parse_scalar
from hwsim.extract import AnyWorkload
from hwsim.numerics import PrecisionPolicy
from hwsim.simulation import Result
from hwsim.sweep.grid import SweepPoint

Row = dict[str, Any]

FIGURES = (
    "rtf",
    "latency_s",
    "energy_j",
    "energy_per_audio_second_j",
    "cycles",
    "compression",
)
COMPONENT_FIGURES = ("latency_s", "energy_j", "dram_bytes")
PROVENANCE = ("arch_digest", "workload_digest", "policy_digest", "hwsim")
DIGEST_DIGITS = 12
COUNTS = ("cycles", "dram_bytes")
"""Endings of the columns that hold integers; empty cells leave them integers."""


def describe(point: SweepPoint, arch: Architecture, workload: AnyWorkload, policy: PrecisionPolicy) -> Row:
    """The columns that name a point and what made its figures."""
    row: Row = {name: getattr(point, name) for name in ("arch", "workload", "precision", "decoder", "beam", "lm")}
    row["frames"] = point.frames
    row |= {path: _value(text) for path, text in point.settings}
    digests = (arch.digest, workload.digest, policy.digest)
    made_of = zip(PROVENANCE, (*(digest[:DIGEST_DIGITS] for digest in digests), __version__), strict=True)
    return row | dict(made_of)


def figures(result: Result) -> Row:
    """The figures of a run: of the whole, and of each component as `<component>_latency_s` and so on."""
    row: Row = {name: getattr(result, name) for name in FIGURES}
    parts = result.components.values()
    row["bound"] = max(parts, key=lambda part: part.latency_s).bound
    for part in parts:
        row |= {f"{part.name}_{name}": getattr(part, name) for name in COMPONENT_FIGURES}
    return row


def table(described: Iterable[Row], found: Iterable[Row], settings: Mapping[str, Any]) -> pd.DataFrame:
    """Join both halves of every row; a point that could not run has an `error` and empty figures."""
    rows = [what | came_out for what, came_out in zip(described, found, strict=True)]
    inputs = ["arch", "workload", "precision", "decoder", "beam", "lm", "frames", *settings]
    outputs = [*FIGURES, "bound"]
    known = {*inputs, *outputs, *PROVENANCE, "error"}
    components = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in known]
    frame = pd.DataFrame(rows, columns=[*inputs, *outputs, *components, *PROVENANCE, "error"])
    counts = [name for name in (*outputs, *components) if name.endswith(COUNTS)]
    return frame.astype(dict.fromkeys(counts, "Int64"))


def _value(text: str) -> Any:
    """A number as a number, so that it can be an axis; anything else as it was written."""
    value = parse_scalar(text)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else text
