"""The row counts of a search: measured counts, closed forms, and laws for every search and utterance."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hwsim.decode import DecodeSchedule, DecodeSettings, SpeechStatistics, schedule
from hwsim.errors import HwsimError
from tests.decode.strategies import masked, searches

Search = tuple[DecodeSettings, SpeechStatistics]

# Counted with a public toolkit's own search code on a digits RNN-T: 60 utterances, mean T 43.5 and U 4.18,
# ten digits, u_max = T - 1, a prediction cache and no LM cache.
MEASURED = [
    ({"algorithm": "greedy", "beam": 1, "max_symbols_per_frame": 1}, "prediction_rows", 5.1),
    ({"algorithm": "greedy", "beam": 1, "max_symbols_per_frame": 1}, "joint_rows", 43.5),
    ({"algorithm": "alsd", "beam": 4}, "prediction_rows", 84.4),
    ({"algorithm": "alsd", "beam": 4}, "joint_calls", 81.2),
    ({"algorithm": "alsd", "beam": 4}, "joint_rows", 227.6),
    ({"algorithm": "alsd", "beam": 4}, "lm_rows", 227.0),
    ({"algorithm": "alsd", "beam": 8}, "prediction_rows", 167.1),
    ({"algorithm": "alsd", "beam": 8}, "joint_calls", 81.2),
    ({"algorithm": "alsd", "beam": 8}, "joint_rows", 459.6),
    ({"algorithm": "tsd", "beam": 4}, "prediction_rows", 41.6),
    ({"algorithm": "tsd", "beam": 4}, "joint_calls", 87.0),
    ({"algorithm": "tsd", "beam": 4}, "joint_rows", 345.0),
]


@pytest.mark.parametrize(("given_settings", "field", "measured"), MEASURED)
def test_measured_counts_within_a_tenth(given_settings: Any, field: str, measured: float) -> None:
    totals = [
        schedule(
            DecodeSettings(u_max=frames - 1, lm="shallow", lm_cache=False, **given_settings),
            SpeechStatistics(frames, 4.18, vocabulary=10),
        ).totals()
        for frames in (43, 44)
    ]
    mean = sum(getattr(total, field) for total in totals) / len(totals)
    assert mean == pytest.approx(measured, rel=0.10)


# Simulated: ALSD run on synthetic posteriors of 45 labels with peaks at random frames, u_max = T / 2.
# Middle of three background levels of the other labels; docs/decode.md.
SIMULATED = [
    # T, U, B, joint rows, prediction rows
    (152, 48, 4, 706, 126),
    (152, 48, 16, 3129, 426),
    (152, 48, 32, 6260, 1024),
    (152, 20, 4, 723, 165),
    (152, 20, 16, 3010, 640),
    (80, 25, 8, 769, 136),
]


@pytest.mark.parametrize(("frames", "labels", "beam", "joint", "prediction"), SIMULATED)
def test_simulated_counts_of_long_utterances(frames: int, labels: int, beam: int, joint: int, prediction: int) -> None:
    totals = schedule(DecodeSettings(beam=beam), SpeechStatistics(frames, labels)).totals()
    assert totals.joint_rows == pytest.approx(joint, rel=0.10)
    assert totals.prediction_rows == pytest.approx(prediction, rel=0.25)


@given(st.integers(2, 40), st.integers(2, 5), st.integers(1, 200))
def test_tsd_joint_rows_are_exact(beam: int, expansions: int, frames: int) -> None:
    settings = DecodeSettings("tsd", beam, expansions_per_frame=expansions)
    totals = schedule(settings, SpeechStatistics(frames, 0)).totals()
    assert totals.joint_rows == beam * expansions * frames - (beam - 1)
    assert totals.joint_calls == expansions * frames


@given(st.integers(1, 200), st.integers(0, 400))
def test_greedy_is_exact(frames: int, labels: int) -> None:
    totals = schedule(DecodeSettings("greedy", 1), SpeechStatistics(frames, labels)).totals()
    assert totals.joint_rows == frames + labels
    assert totals.prediction_rows == totals.lm_rows == 1 + labels


@given(st.integers(2, 200), st.data())
def test_greedy_with_one_symbol_per_frame_is_exact(frames: int, data: st.DataObject) -> None:
    labels = data.draw(st.integers(0, frames - 1))
    settings = DecodeSettings("greedy", 1, max_symbols_per_frame=1)
    totals = schedule(settings, SpeechStatistics(frames, labels)).totals()
    assert totals.joint_rows == frames
    assert totals.prediction_rows == 1 + labels


@given(st.integers(1, 200), st.data())
def test_alsd_with_one_hypothesis_is_greedy(frames: int, data: st.DataObject) -> None:
    labels = data.draw(st.integers(0, frames))
    statistics = SpeechStatistics(frames, labels)
    alsd = schedule(DecodeSettings("alsd", 1, u_max=2 * frames), statistics).totals()
    greedy = schedule(DecodeSettings("greedy", 1), statistics).totals()
    assert replace(alsd, hypotheses=0) == replace(greedy, hypotheses=0)


@given(st.integers(2, 40), st.integers(2, 200), st.data())
def test_alsd_steps_and_tail_are_exact(beam: int, frames: int, data: st.DataObject) -> None:
    labels = data.draw(st.integers(0, frames - 1))
    found = schedule(DecodeSettings("alsd", beam, u_max=frames - 1), SpeechStatistics(frames, labels))
    tail = slice(frames + labels, None)
    assert found.steps == 2 * frames - 1
    assert found.joint_rows[tail].sum() == beam * (frames - 1 - labels) // 2
    np.testing.assert_array_equal(found.prediction_rows[tail], found.joint_rows[tail])


@pytest.mark.parametrize(
    ("settings", "candidates"),
    [
        (DecodeSettings("greedy", 1), [1, 1, 1]),
        (DecodeSettings("alsd", 2, u_max=1), [3, 3, 6]),
        (DecodeSettings("tsd", 2), [2, 3, 4, 4]),
    ],
)
def test_candidates_that_the_host_sorts(settings: DecodeSettings, candidates: list[int]) -> None:
    found = schedule(settings, SpeechStatistics(2, 1))
    np.testing.assert_array_equal(found.hypotheses, candidates)


def test_a_row_offers_no_more_labels_than_there_are() -> None:
    found = schedule(DecodeSettings("alsd", 16), SpeechStatistics(40, 10, vocabulary=5))
    np.testing.assert_array_equal(found.hypotheses, found.joint_rows * 6)


@given(searches())
def test_rows_of_a_step_are_consistent(search: Search) -> None:
    settings, statistics = search
    found = schedule(settings, statistics)
    assert {getattr(found, field.name).shape for field in fields(found)} == {(found.steps,)}
    assert {getattr(found, field.name).dtype for field in fields(found)} == {np.dtype(np.int64)}
    assert found.joint_rows.min() >= 1
    if settings.algorithm != "maes":
        assert found.joint_rows.max() <= settings.beam
        assert (found.hypotheses >= 1).all()
    assert found.joint_rows[0] == found.prediction_rows[0] == 1
    for rows in (found.prediction_rows, found.lm_rows):
        assert rows.min() >= 0
        assert (rows <= found.joint_rows).all()


@given(searches())
def test_frames_are_read_in_order_and_all_of_them(search: Search) -> None:
    frame = schedule(*search).frame
    assert frame[0] == 0
    assert frame[-1] == search[1].frames - 1
    assert set(np.diff(frame)) <= {0, 1}


@given(searches())
def test_calls_are_batches_or_rows(search: Search) -> None:
    settings, statistics = search
    found = schedule(settings, statistics)
    for batched, rows, calls in (
        (settings.batched_prediction, found.prediction_rows, found.prediction_calls),
        (settings.batched_lm, found.lm_rows, found.lm_calls),
        (settings.batched_joint, found.joint_rows, found.joint_calls),
    ):
        np.testing.assert_array_equal(calls, np.minimum(rows, 1) if batched else rows)


@given(searches())
def test_without_a_cache_every_row_is_computed(search: Search) -> None:
    settings, statistics = search
    settings = replace(settings, prediction_cache=False, lm_cache=False, lm="shallow")
    plain = schedule(settings, statistics)
    np.testing.assert_array_equal(plain.prediction_rows, plain.joint_rows)
    if settings.algorithm == "tsd":
        last = np.arange(plain.steps) % settings.expansions_per_frame == settings.expansions_per_frame - 1
        np.testing.assert_array_equal(plain.lm_rows, np.where(last, 0, plain.joint_rows))
    elif settings.algorithm == "maes":
        assert ((plain.lm_rows == plain.joint_rows) | (plain.lm_rows == 0)).all()
    else:
        np.testing.assert_array_equal(plain.lm_rows, plain.joint_rows)
    cached = schedule(replace(settings, prediction_cache=True, lm_cache=True), statistics)
    np.testing.assert_array_equal(cached.joint_rows, plain.joint_rows)
    assert cached.totals().prediction_rows <= plain.totals().prediction_rows
    assert cached.totals().lm_rows <= plain.totals().lm_rows


@given(searches())
def test_both_caches_miss_together_when_every_row_is_extended(search: Search) -> None:
    settings, statistics = search
    assume(settings.algorithm not in ("tsd", "maes"))
    settings = replace(settings, prediction_cache=True, lm_cache=True, lm="density-ratio")
    found = schedule(settings, statistics)
    np.testing.assert_array_equal(found.lm_rows, found.prediction_rows)


@given(searches())
def test_no_language_model_no_rows(search: Search) -> None:
    settings, statistics = search
    found = schedule(replace(settings, lm="none"), statistics)
    assert not found.lm_rows.any()
    assert not found.lm_calls.any()


@given(searches())
def test_masked_rows_are_all_computed(search: Search) -> None:
    settings, statistics = search
    live, found = schedule(settings, statistics), schedule(masked(settings), statistics)
    assert found.steps == live.steps
    np.testing.assert_array_equal(found.joint_rows, np.maximum(live.joint_rows, settings.beam))
    np.testing.assert_array_equal(found.prediction_rows, found.joint_rows)
    assert ((found.lm_rows == found.joint_rows) | (found.lm_rows == 0)).all()
    assert (found.hypotheses >= live.hypotheses).all()


@given(st.sampled_from(["alsd", "tsd", "maes"]), st.data())
def test_a_wider_beam_never_costs_less(algorithm: str, data: st.DataObject) -> None:
    settings, statistics = data.draw(searches(algorithm))
    wider = replace(settings, beam=settings.beam + data.draw(st.integers(1, 10)))
    narrow, wide = schedule(settings, statistics).totals(), schedule(wider, statistics).totals()
    counted = ("joint_rows", "prediction_rows", "lm_rows", "steps", "hypotheses")
    for field in counted[:2] if algorithm == "maes" else counted:
        assert getattr(narrow, field) <= getattr(wide, field)


@given(searches("alsd"), st.integers(0, 50))
def test_a_longer_tail_never_costs_less(search: Search, more: int) -> None:
    settings, statistics = search
    limit = settings.label_limit(statistics.frames) or 0
    short = schedule(replace(settings, u_max=limit), statistics).totals()
    long = schedule(replace(settings, u_max=limit + more), statistics).totals()
    assert long.steps == short.steps + (more if settings.beam > 1 else 0)
    assert long.joint_rows >= short.joint_rows
    assert long.prediction_rows >= short.prediction_rows


@given(searches())
def test_the_cached_prefixes_hold_the_best_hypothesis(search: Search) -> None:
    settings, statistics = search
    settings = replace(settings, prediction_cache=True)
    if settings.algorithm == "greedy" and settings.max_symbols_per_frame == 1:
        statistics = replace(statistics, labels=min(statistics.labels, statistics.frames - 1))
    assume(settings.algorithm != "tsd" or statistics.labels < statistics.frames)
    assert schedule(settings, statistics).totals().prediction_rows >= int(statistics.labels)


@given(searches())
def test_the_same_question_has_the_same_answer(search: Search) -> None:
    first, second = schedule(*search), schedule(*search)
    for field in fields(DecodeSchedule):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(second, field.name))


@given(searches())
def test_totals_are_sums(search: Search) -> None:
    found = schedule(*search)
    totals = found.totals()
    assert totals.steps == len(found.frame)
    assert totals.joint_rows == int(found.joint_rows.sum())
    assert totals.hypotheses == int(found.hypotheses.sum())


def test_a_schedule_cannot_be_written() -> None:
    found = schedule(DecodeSettings(), SpeechStatistics(152, 48))
    for field in fields(found):
        with pytest.raises(ValueError, match="read-only"):
            getattr(found, field.name)[0] = 7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            DecodeSettings(u_max=47),
            "labels must be at most 47, the most that this alsd search can emit in 40 frames, got 48.5",
        ),
        (
            DecodeSettings("tsd"),
            "labels must be at most 40, the most that this tsd search can emit in 40 frames, got 48.5",
        ),
        (
            DecodeSettings("greedy", 1, max_symbols_per_frame=1),
            "labels must be at most 40, the most that this greedy search can emit in 40 frames, got 48.5",
        ),
    ],
)
def test_more_labels_than_a_search_can_emit_is_a_message(settings: DecodeSettings, message: str) -> None:
    with pytest.raises(HwsimError) as caught:
        schedule(settings, SpeechStatistics(40, 48.5))
    assert str(caught.value) == message
