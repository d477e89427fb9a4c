"""The points of a study: word error rate with its interval, real-time factor and energy, and which are Pareto."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.recognize.errors import WordErrors
from hwsim.study.request import StudyRequest
from hwsim.study.store import RowStore

if TYPE_CHECKING:
    import pandas as pd

OBJECTIVES = ("wer", "rtf", "energy_per_audio_second_j")


def study_table(request: StudyRequest, store: RowStore) -> pd.DataFrame:
    """One row for each machine, precision, beam and language model.

    `wer` and its 95 % bootstrap interval over utterances; `rtf` is all latency over all audio; `latency_p50_s` and
    `latency_p90_s` are of utterances; `pareto`: no other point of the machine is as good in WER, RTF and energy and
    better in one.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for search in request.searches:
        found = store.of(search, request.utterances)
        words = WordErrors(*(np.array([row[name] for row in found], np.int64) for name in ("errors", "words")))
        low, high = words.interval()
        audio_s = sum(row["audio_s"] for row in found)
        for arch in request.archs:
            latency = np.array([row["latency_s"][arch] for row in found])
            energy_j = sum(row["energy_j"][arch] for row in found)
            rows.append({
                "arch": arch, "precision": search.precision, "beam": search.beam, "lm": search.lm,
                "utterances": len(found), "words": int(words.words.sum()), "wer": words.rate, "wer_low": low,
                "wer_high": high, "rtf": float(latency.sum() / audio_s),
                "energy_per_audio_second_j": energy_j / audio_s,
                "latency_p50_s": float(np.median(latency)), "latency_p90_s": float(np.quantile(latency, 0.9)),
            })  # fmt: skip
    frame = pd.DataFrame(rows).sort_values(["arch", "precision", "lm", "beam"], kind="stable", ignore_index=True)
    frame["pareto"] = np.concatenate([pareto(part[list(OBJECTIVES)].to_numpy()) for _, part in frame.groupby("arch")])
    return frame


def pareto(costs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Which rows of costs (N, K), less is better, no other row is at most as high as in all and lower in one."""
    no_higher = (costs[:, None] <= costs[None]).all(axis=-1)
    lower = (costs[:, None] < costs[None]).any(axis=-1)
    kept: np.ndarray[Any, Any] = ~np.any(no_higher & lower, axis=0)
    return kept
