"""Means as counts: whole rows at every step, without chance, whose sums are those of the means."""

from __future__ import annotations

import numpy as np

from hwsim.decode.rows import Counts
from hwsim.numerics.rounding import Reals

_SLACK = 1e-9  # keeps the floor of a sum exact where the sum is an integer up to rounding


def spread(total: float, steps: int) -> Counts:
    """`total` over steps, evenly: floor((i + 1) r) - floor(i r) at step i, where r = total / steps.

    Their sum is floor(total), so it grows with `total` whatever the number of steps.
    """
    edges: Counts = np.floor(np.arange(steps + 1) * (total / max(steps, 1)) + _SLACK).astype(np.int64)
    return edges[1:] - edges[:-1]


def accumulated(means: Reals) -> Counts:
    """Means (N,) as counts: each sum up to a step, rounded half up, less that of the step before."""
    edges: Counts = np.floor(np.cumsum(means) + 0.5 + _SLACK).astype(np.int64)
    return np.diff(edges, prepend=0)


def at_most(rows: Counts, wanted: Counts) -> Counts:
    """`wanted` with no step above `rows`: what does not fit a step is carried to the next."""
    room = np.cumsum(rows)
    backlog = np.minimum.accumulate(np.minimum(np.cumsum(wanted) - room, 0))
    return np.diff(room + backlog, prepend=0)
