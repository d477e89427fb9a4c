"""Rows of each network at each step of a search: what was evaluated, and what a decoder with its switches calls."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from hwsim.decode.settings import DecodeSettings

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DecodeTotals:
    """Sums of a `DecodeSchedule` over its steps."""

    steps: int
    prediction_rows: int
    prediction_calls: int
    lm_rows: int
    """Rows of each LM in use."""
    lm_calls: int
    """Calls of each LM in use."""
    joint_rows: int
    joint_calls: int
    hypotheses: int


@dataclass(frozen=True, eq=False)
class DecodeSchedule:
    """Rows and calls per step of one utterance; every field is a read-only `(steps,) int64`."""

    frame: Counts
    """Newest encoder frame that a row of this step may read, from 0; it never falls."""
    prediction_rows: Counts
    prediction_calls: Counts
    """Separate batches at this step; 0 when there is no row."""
    lm_rows: Counts
    """Rows of each LM in use: shallow fusion runs one LM on them, the density ratio two."""
    lm_calls: Counts
    joint_rows: Counts
    joint_calls: Counts
    hypotheses: Counts
    """Candidate scores that the host sorts and prunes; the top-k inside a row's softmax is not counted."""

    def __post_init__(self) -> None:
        for field in fields(self):
            getattr(self, field.name).setflags(write=False)

    @property
    def steps(self) -> int:
        """Steps of the search; each is at least one joint call."""
        return len(self.frame)

    def totals(self) -> DecodeTotals:
        """Sums over the steps."""
        summed = {field.name: int(getattr(self, field.name).sum()) for field in fields(self)}
        del summed["frame"]
        return DecodeTotals(steps=self.steps, **summed)


@dataclass(frozen=True)
class SearchRows:
    """What a search does whatever its switches; every field is `(steps,) int64`."""

    frame: Counts
    joint: Counts
    new: Counts
    """Rows whose label prefix was never evaluated before: misses of a prediction cache."""
    extended: Counts
    """Rows that are extended by labels, so that an LM must score them."""
    extended_new: Counts
    """Those of them whose prefix no LM has seen: misses of an LM cache."""
    candidates: Counts


def scheduled(settings: DecodeSettings, search: SearchRows) -> DecodeSchedule:
    """What a decoder with these switches calls for a search: caches, batches and masked rows."""
    joint = masked(search.joint, settings)
    extended = np.where(search.extended > 0, joint, 0)
    cached_prediction = settings.prediction_cache and not settings.masked_rows
    cached_lm = settings.lm_cache and not settings.masked_rows
    prediction = search.new if cached_prediction else joint
    lm = search.extended_new if cached_lm else extended
    if not settings.language_models:
        lm = np.zeros_like(lm)
    return DecodeSchedule(
        frame=search.frame,
        prediction_rows=prediction.copy(),
        prediction_calls=_calls(prediction, settings.batched_prediction),
        lm_rows=lm.copy(),
        lm_calls=_calls(lm, settings.batched_lm),
        joint_rows=joint.copy(),
        joint_calls=_calls(joint, settings.batched_joint),
        hypotheses=search.candidates,
    )


def _calls(rows: Counts, batched: bool) -> Counts:
    return np.minimum(rows, 1) if batched else rows.copy()


def masked(rows: Counts, settings: DecodeSettings) -> Counts:
    """Rows that are computed: the whole beam when useless ones are masked, or more where a search expands to more."""
    return np.maximum(rows, settings.beam) if settings.masked_rows else rows
