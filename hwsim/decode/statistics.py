"""How many rows of each network a beam search evaluates at each step, without running a network.

`docs/decode.md` states the model, its statistics and how far it is from measured counts. Sources: Saon,
Tüske and Audhkhasi, ICASSP 2020 (ALSD and TSD); Graves 2012 (the transducer lattice).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from hwsim.decode.adaptive import maes_rows
from hwsim.decode.rows import Counts, DecodeSchedule, SearchRows, masked, scheduled
from hwsim.decode.settings import DecodeSettings, SpeechStatistics
from hwsim.decode.spread import at_most, spread
from hwsim.errors import HwsimError


def schedule(settings: DecodeSettings, statistics: SpeechStatistics) -> DecodeSchedule:
    """Rows of each network at each step of a search over one utterance.

    Deterministic: a mean of r rows per step becomes floor((i + 1) r) - floor(i r) rows at step i.
    Raises HwsimError when the search cannot emit as many labels as the statistics ask for.
    """
    limit = settings.label_limit(statistics.frames)
    if limit is not None and statistics.labels > limit:
        raise HwsimError(
            f"labels must be at most {limit}, the most that this {settings.algorithm} search can emit"
            f" in {statistics.frames} frames, got {statistics.labels:g}"
        )
    return scheduled(settings, _SEARCHES[settings.algorithm](settings, statistics))


def _greedy(settings: DecodeSettings, statistics: SpeechStatistics) -> SearchRows:
    """One row per step: T + U steps, or T when a frame emits one symbol at most."""
    frames = statistics.frames
    if settings.max_symbols_per_frame == 1:
        frame = np.arange(frames, dtype=np.int64)
        changed = spread(statistics.labels, frames - 1)
    else:
        steps = frames + _rounded(statistics.labels)
        frame = np.arange(steps, dtype=np.int64) * frames // steps
        changed = (np.diff(frame) == 0).astype(np.int64)
    ones = np.ones_like(frame)
    new = at_most(ones, _after_first(changed))
    return SearchRows(frame, ones, new, ones, new, ones.copy())


def _alsd(settings: DecodeSettings, statistics: SpeechStatistics) -> SearchRows:
    """Step i reads frame i - labels. Up to step T + U the best hypothesis is alive; then a tail to T + u_max.

    In the tail every live row stands on the last frame. Its blank finishes it but still takes one of the
    B places, so n live rows leave B - n places for labels: B / 2 rows on average, all of them new prefixes,
    and none after the first step when B = 1.
    """
    frames, beam = statistics.frames, settings.beam
    limit = settings.label_limit(frames) or 0
    body = frames + _rounded(statistics.labels)
    tail = frames + limit - body if beam > 1 else 0
    live_per_step = max(1.0, statistics.alsd_live_share * beam)
    found = statistics.labels + statistics.alsd_new_prefix_rate * (beam - 1) * body
    tail_rows = spread(0.5 * beam * tail, tail)
    live = np.concatenate((_after_first(spread(live_per_step * (body - 1), body - 1)), tail_rows))
    new = at_most(live, np.concatenate((_after_first(spread(found, body - 1)), tail_rows)))
    joint = masked(live, settings)
    frame = np.minimum(np.arange(body + tail, dtype=np.int64), frames - 1)
    return SearchRows(frame, joint, new, joint, new, joint * (1 + min(beam, statistics.vocabulary)))


def _tsd(settings: DecodeSettings, statistics: SpeechStatistics) -> SearchRows:
    """Every frame makes v joint calls: of the beam, then of its B best label extensions, v - 1 times.

    The rows of a frame's first call were evaluated in the frame before. The last call adds blanks only. A call of
    extensions brings the labels of the best hypothesis, and other new prefixes for a share of its rows. An LM meets
    those of the last call where they survive, v - 1 labels in one frame, each with the same chance.
    """
    frames, beam, calls = statistics.frames, settings.beam, settings.expansions_per_frame
    frame = np.arange(frames * calls, dtype=np.int64) // calls
    call = np.arange(frames * calls, dtype=np.int64) % calls
    joint = np.full(frames * calls, beam, dtype=np.int64)
    joint[0] = 1
    joint = masked(joint, settings)
    extended = np.where(call < calls - 1, joint, 0)
    per_call = statistics.labels + statistics.tsd_new_share * beam * frames
    kept = statistics.tsd_survival_share ** (calls - 1) * beam * frames
    if calls == 2:
        kept = max(kept, statistics.labels)
    met = _discovered(extended, (call > 0) & (call < calls - 1), per_call * (calls - 2))
    met += _discovered(extended, (call == 0) & (frame > 0), kept)
    candidates = extended * min(beam, statistics.vocabulary)
    candidates[call == calls - 1] = joint.reshape(frames, calls).sum(axis=1)
    return SearchRows(
        frame=frame,
        joint=joint,
        new=_first_row(_discovered(joint, call > 0, per_call * (calls - 1))),
        extended=extended,
        extended_new=_first_row(met),
        candidates=candidates,
    )


_SEARCHES: dict[str, Callable[[DecodeSettings, SpeechStatistics], SearchRows]] = {
    "greedy": _greedy,
    "alsd": _alsd,
    "tsd": _tsd,
    "maes": maes_rows,
}


def _discovered(rows: Counts, where: npt.NDArray[np.bool_], total: float) -> Counts:
    """New prefixes: `total` over the steps where they are allowed, and no more than rows."""
    found = np.zeros_like(rows)
    found[where] = spread(total, int(where.sum()))
    return at_most(np.where(where, rows, 0), found)


def _first_row(found: Counts) -> Counts:
    """With the empty prefix, which is new at step 0."""
    found[0] = 1
    return found


def _rounded(labels: float) -> int:
    return math.floor(labels + 0.5)


def _after_first(counts: Counts) -> Counts:
    """Put the one row of step 0, the empty hypothesis, before the other steps."""
    return np.concatenate((np.ones(1, dtype=np.int64), counts))
