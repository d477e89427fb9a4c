"""Statistics of a user's own recognizer, counted in searches that it has done.

Decode 20 utterances or more at one beam, measure, then model other beams and lengths. `docs/decode.md` defines each
statistic and says how far predictions were from counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hwsim.decode.rows import Counts, SearchRows
from hwsim.decode.settings import DecodeSettings, SpeechStatistics
from hwsim.errors import HwsimError
from hwsim.numerics.rounding import Reals

if TYPE_CHECKING:
    from hwsim.decode.beam import Decoded

MAES_LEAST_BEAM = 8
"""A narrower beam cuts the counts of 2 and 4 rows from which the growth of the beam is measured."""
_FASTEST = 100.0
_HALVINGS = 60


@dataclass(frozen=True, slots=True, eq=False)
class _Utterance:
    frames: int
    labels: int
    rows: SearchRows


def measured_statistics(settings: DecodeSettings, decodes: Sequence[Decoded], vocabulary: int) -> SpeechStatistics:
    """Statistics of the search of `settings`, which did `decodes`; those of other searches are the defaults.

    `vocabulary`: labels without blank. `frames` is the mean, rounded, and `labels` those of so many frames: set both
    to what is asked with `dataclasses.replace`. The statistics hold for the noise, the language models and the
    settings of the decodes, for any beam and length. Raises HwsimError without decodes and for a beam that does not
    show them: below 2 for ALSD, below 8 for MAES.
    """
    if not decodes:
        raise HwsimError("decodes must hold at least one utterance, got none")
    least = {"alsd": 2, "maes": MAES_LEAST_BEAM}.get(settings.algorithm, 1)
    if settings.beam < least:
        raise HwsimError(f"beam must be at least {least} to measure {settings.algorithm}, got {settings.beam}")
    spoken = [_Utterance(int(d.rows.frame.max()) + 1, len(d.n_best[0].labels), d.rows) for d in decodes]
    frames, labels = sum(one.frames for one in spoken), sum(one.labels for one in spoken)
    mean_frames = round(frames / len(spoken))
    found = _MEASURES[settings.algorithm](settings, spoken)
    return SpeechStatistics(mean_frames, labels / frames * mean_frames, vocabulary, **found)


def _greedy(settings: DecodeSettings, spoken: Sequence[_Utterance]) -> dict[str, float]:
    return {}


def _alsd(settings: DecodeSettings, spoken: Sequence[_Utterance]) -> dict[str, float]:
    """Of steps 1 to T + U - 1."""
    body = [one.frames + one.labels for one in spoken]
    live = np.concatenate([one.rows.joint[1:end] for one, end in zip(spoken, body, strict=True)])
    found = sum(int(one.rows.new[:end].sum()) - 1 - one.labels for one, end in zip(spoken, body, strict=True))
    return {
        "alsd_live_share": _share(float(live.sum()), settings.beam * len(live), 1.0),
        "alsd_new_prefix_rate": _share(found, (settings.beam - 1) * sum(body)),
    }


def _tsd(settings: DecodeSettings, spoken: Sequence[_Utterance]) -> dict[str, float]:
    """Of the rows of all frames; what an LM meets first at a frame's first call is what survived the frame before."""
    more = settings.expansions_per_frame - 1
    places = settings.beam * sum(one.frames for one in spoken)
    found = sum(int(one.rows.new.sum()) - 1 - more * one.labels for one in spoken)
    met = sum(int(one.rows.extended_new[_call(one.rows.frame) == 0].sum()) - 1 for one in spoken)
    return {
        "tsd_new_share": _share(found, places * more),
        "tsd_survival_share": _share(met, places) ** (1 / more),
    }


def _maes(settings: DecodeSettings, spoken: Sequence[_Utterance]) -> dict[str, float]:
    """Of each frame's calls; steps that join paths have no candidates."""
    live, said, joins, later, new = [], [], 0, np.zeros(settings.maes_steps + 1), 0
    for one in spoken:
        called = one.rows.candidates > 0
        call, rows = _call(one.rows.frame[called]), one.rows.joint[called]
        live.append(rows[call == 0])
        said.append(one.labels * np.arange(one.frames) / one.frames)
        joins += int((one.rows.joint[~called] == 1).sum())
        later += np.bincount(call, rows, settings.maes_steps + 1)
        new += int(one.rows.new.sum()) - 1
    beams = np.concatenate(live)
    rival, doubling = _growth(beams, np.concatenate(said), settings.beam)
    labels = sum(one.labels for one in spoken)
    return {
        "maes_rival_rate": rival,
        "maes_doubling_rate": doubling,
        "maes_expansions_per_label": _ratio(later[1] * len(beams), later[0] * labels),
        "maes_repeat_rate": _ratio(later[2:].sum(), later[1:-1].sum()),
        "maes_join_share": _share(joins, float(later[0]) - len(beams)),
        "maes_new_share": _share(new, float(later[1:].sum())),
    }


def _growth(live: Counts, said: Reals, beam: int) -> tuple[float, float]:
    """Rates per label said of getting a rival and of doubling, from the rows and the labels said of frames (N,).

    Doublings up to half the beam are counted: a full beam hides how many rows it would have had.
    """
    narrow = [2**power for power in range(1, beam.bit_length()) if 2 ** (power + 1) <= beam // 2]
    doubled = sum(int((live >= 2 * rows).sum()) for rows in narrow)
    return (
        _rate(said, int((live >= 2).sum())),
        _rate(np.concatenate([said[live >= rows] for rows in narrow]), doubled),
    )


def _rate(said: Reals, count: int) -> float:
    """The rate r with which sum(1 - exp(-r x)) over labels said x (N,) is `count`; `_FASTEST` at most."""
    low, high = 0.0, _FASTEST
    if count == 0:
        return 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if -np.expm1(-middle * said).sum() < count else (low, middle)
    return high


def _call(frame: Counts) -> Counts:
    """Which call of its frame each step is, from 0."""
    at = np.arange(len(frame))
    return at - np.searchsorted(frame, frame)


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole > 0 else 0.0


def _share(part: float, whole: float, of_nothing: float = 0.0) -> float:
    """A ratio that is a share: between 0 and 1; `of_nothing` where there is no whole."""
    return min(1.0, max(0.0, float(part) / whole)) if whole > 0 else of_nothing


_MEASURES: dict[str, Callable[[DecodeSettings, Sequence[_Utterance]], dict[str, float]]] = {
    "greedy": _greedy,
    "alsd": _alsd,
    "tsd": _tsd,
    "maes": _maes,
}
