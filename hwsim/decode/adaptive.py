"""Rows of modified adaptive expansion (MAES) from statistics of speech.

A beam that no rival has entered holds one row. Rivals come with the labels that were said, stay, and get rivals of
their own; all rows hear the same sound, so that they expand in the same frames. `docs/decode.md` states the model.
Source of the algorithm: Kim et al., Interspeech 2020.
"""

from __future__ import annotations

import math

import numpy as np

from hwsim.decode.rows import Counts, SearchRows, masked
from hwsim.decode.settings import DecodeSettings, SpeechStatistics
from hwsim.decode.spread import accumulated, at_most, spread
from hwsim.numerics.rounding import Reals


def maes_rows(settings: DecodeSettings, statistics: SpeechStatistics) -> SearchRows:
    """Every frame: steps of one row that join paths, a call of the beam, and calls of the labels that it expands to.

    The call after the last expansion adds blanks only. New prefixes that it finds count as met by an LM in the next
    frame, as if each survived. Candidates count a blank for every row, kept or not.
    """
    frames, calls = statistics.frames, settings.maes_steps
    live = accumulated(expected_live_rows(statistics, settings.beam))
    joins = accumulated(statistics.maes_join_share * (live - 1)) if settings.maes_alpha else np.zeros_like(live)
    later = _later(settings, statistics, live)
    found = np.zeros((frames, 2 + calls), np.int64)
    found[0, 1] = 1
    found[:, 2:] = _new(statistics, later)
    steps: Counts = np.column_stack((joins, np.ones_like(live), later > 0)).astype(np.int64)
    rows: Counts = np.where(steps > 0, masked(np.column_stack((np.ones_like(live), live, later)), settings), 0)
    candidates = np.zeros_like(rows)
    candidates[:, 1:-1] = rows[:, 1:-1] + rows[:, 2:]
    candidates[:, -1] = rows[:, 1:].sum(axis=1)
    extended = rows.copy()
    extended[:, -1] = 0

    def in_order(table: Counts) -> Counts:
        return np.repeat(table.ravel(), steps.ravel())

    joint, new, sorted_by_host = in_order(rows), in_order(found), in_order(candidates)
    asked = in_order(extended)
    met = at_most(np.where(sorted_by_host > 0, asked, 0), new)
    return SearchRows(np.repeat(np.arange(frames), steps.sum(axis=1)), joint, new, asked, met, sorted_by_host)


def expected_live_rows(statistics: SpeechStatistics, beam: int) -> Reals:
    """Mean rows (T,) of each frame's first call, the sum over k = 1 to B of the chance of k rows or more.

    That is 1 for k = 1, p for k = 2, p q for 4, p q^2 for 8 and p q^log2(k / 2) in general, where after x labels
    p = 1 - exp(-rival_rate x) and q = 1 - exp(-doubling_rate x); the beam cuts what would be beyond it.
    """
    said = statistics.labels * np.arange(statistics.frames) / statistics.frames
    rival, doubled = (
        -np.expm1(-rate * said) for rate in (statistics.maes_rival_rate, statistics.maes_doubling_rate)
    )  # fmt: skip
    means = np.ones(statistics.frames)
    for rows in range(2, beam + 1):
        means += rival * doubled ** math.log2(rows / 2)
    return means


def _later(settings: DecodeSettings, statistics: SpeechStatistics, live: Counts) -> Counts:
    """Rows (T, calls) of the calls after each frame's first; in all at least those that the labels said need."""
    most = min(settings.beam + settings.maes_beta, statistics.vocabulary)
    rate = statistics.maes_expansions_per_label * statistics.labels / statistics.frames
    rows, left, found = live, statistics.labels, []
    for _ in range(settings.maes_steps):
        rows = _expanded(rows, min(max(rate * float(rows.sum()), left), float(most * rows.sum())), most)
        found.append(rows)
        left -= float(rows.sum())
        rate = statistics.maes_repeat_rate
    return np.column_stack(found)


def _expanded(rows: Counts, wanted: float, most: int) -> Counts:
    """`wanted` rows from `rows` (T,), in as few frames as it takes when all rows of a frame expand to one label."""
    at = np.flatnonzero(rows)
    found = np.zeros_like(rows)
    if wanted > 0:
        calls = min(len(at), math.ceil(wanted * len(at) / rows.sum()))
        chosen = at[spread(calls, len(at)) > 0]
        found[chosen] = accumulated(rows[chosen] * (wanted / rows[chosen].sum()))
    return at_most(most * rows, found)


def _new(statistics: SpeechStatistics, later: Counts) -> Counts:
    """New prefixes of each later call, at least the labels of the best hypothesis in all."""
    total = int(later.sum())
    share = min(1.0, max(statistics.maes_new_share, statistics.labels / total)) if total else 0.0
    return accumulated(share * later.ravel()).reshape(later.shape)
