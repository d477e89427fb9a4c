"""The points of a study: word error rate with its interval, real-time factor and energy, and which are Pareto."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.recognize.errors import WordErrors
from hwsim.study.request import StudyRequest
from hwsim.study.store import RowStore

if TYPE_CHECKING:
    import pandas as pd

OBJECTIVES = ("wer", "rtf", "energy_per_audio_second_j")


@dataclass(frozen=True)
class Point:
    """What one way of decoding reached on one machine, over some utterances."""

    arch: str
    precision: str
    beam: int
    lm: str
    utterances: int
    words: int
    wer: float
    wer_low: float
    """2.5 % of the bootstrapped rates over utterances are below."""
    wer_high: float
    rtf: float
    """All latency over all audio."""
    energy_per_audio_second_j: float
    latency_p50_s: float
    """Of utterances."""
    latency_p90_s: float


def point(arch: str, precision: str, beam: int, lm: str, errors: WordErrors, audio_s: Sequence[float],
          latency_s: Sequence[float], energy_j: Sequence[float]) -> Point:  # fmt: skip
    """The point of utterances, of each its errors, length, latency and energy."""
    low, high = errors.interval()
    return Point(
        arch, precision, beam, lm, len(errors.words), int(errors.words.sum()), errors.rate, low, high,
        rtf=float(np.sum(latency_s)) / sum(audio_s), energy_per_audio_second_j=sum(energy_j) / sum(audio_s),
        latency_p50_s=float(np.median(latency_s)), latency_p90_s=float(np.quantile(latency_s, 0.9)),
    )  # fmt: skip


def study_table(request: StudyRequest, store: RowStore) -> pd.DataFrame:
    """One `Point` for each machine, precision, beam and language model.

    `pareto`: no other point of the machine is as good in WER, RTF and energy and better in one.
    """
    import pandas as pd

    rows: list[Point] = []
    for search in request.searches:
        found = store.of(search, request.utterances)
        words = WordErrors(*(np.array([row[name] for row in found], np.int64) for name in ("errors", "words")))
        audio_s = [row["audio_s"] for row in found]
        for arch in request.archs:
            latency_s, energy_j = ([row[name][arch] for row in found] for name in ("latency_s", "energy_j"))
            rows.append(point(arch, search.precision, search.beam, search.lm, words, audio_s, latency_s, energy_j))
    frame = pd.DataFrame(rows).sort_values(["arch", "precision", "lm", "beam"], kind="stable", ignore_index=True)
    frame["pareto"] = np.concatenate([pareto(part[list(OBJECTIVES)].to_numpy()) for _, part in frame.groupby("arch")])
    return frame


def pareto(costs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Which rows of costs (N, K), less is better, no other row is at most as high as in all and lower in one."""
    no_higher = (costs[:, None] <= costs[None]).all(axis=-1)
    lower = (costs[:, None] < costs[None]).any(axis=-1)
    kept: np.ndarray[Any, Any] = ~np.any(no_higher & lower, axis=0)
    return kept
