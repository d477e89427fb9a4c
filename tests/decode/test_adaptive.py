"""Rows of modified adaptive expansion: what it must cost when the model is sure, and what it cannot exceed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.decode import DecodeSettings, SpeechStatistics, schedule
from hwsim.decode.adaptive import expected_live_rows, maes_rows
from hwsim.decode.rows import Counts, SearchRows
from tests.decode.strategies import searches

Search = tuple[DecodeSettings, SpeechStatistics]
SURE = {"maes_rival_rate": 0.0, "maes_expansions_per_label": 1.0, "maes_repeat_rate": 0.0, "maes_new_share": 1.0}


def calls(rows: SearchRows, most: int) -> Counts:
    """Rows (T, most) of the calls of each frame, without the steps that join paths."""
    called = rows.candidates > 0
    frame, joint = rows.frame[called], rows.joint[called]
    found = np.zeros((int(frame[-1]) + 1, most), np.int64)
    found[frame, np.arange(len(frame)) - np.searchsorted(frame, frame)] = joint
    return found


@given(st.integers(1, 200), st.integers(1, 40), st.data())
def test_a_sure_model_costs_what_greedy_does(frames: int, beam: int, data: st.DataObject) -> None:
    speech = SpeechStatistics(frames, data.draw(st.integers(0, frames)), **SURE)
    greedy = schedule(DecodeSettings("greedy", 1), speech).totals()
    found = schedule(DecodeSettings("maes", beam), speech).totals()
    assert (found.joint_rows, found.prediction_rows) == (greedy.joint_rows, greedy.prediction_rows)
    assert found.steps == greedy.steps


@given(searches("maes"))
def test_no_call_has_more_rows_than_the_one_before_can_expand_to(search: Search) -> None:
    settings, speech = search
    found = calls(maes_rows(settings, speech), settings.maes_steps + 1)
    most = min(settings.beam + settings.maes_beta, speech.vocabulary)
    assert found.shape == (speech.frames, settings.maes_steps + 1)
    assert found[0, 0] == found[:, 0].min() == 1
    assert found[:, 0].max() <= settings.beam
    assert (found[:, 1:] <= most * found[:, :-1]).all()


@given(searches("maes"))
def test_every_label_is_expanded_and_found_once_at_least(search: Search) -> None:
    settings, speech = search
    rows = maes_rows(settings, speech)
    found = calls(rows, settings.maes_steps + 1)
    assert found[:, 1:].sum() >= int(speech.labels)
    assert rows.new.sum() >= 1 + int(speech.labels)
    assert rows.new.sum() - 1 <= found[:, 1:].sum()
    assert rows.extended_new.sum() <= rows.new.sum()


@given(searches("maes"))
def test_paths_are_joined_one_row_a_step_and_only_between_rows_of_one_frame(search: Search) -> None:
    settings, speech = search
    rows = maes_rows(settings, speech)
    join = rows.candidates == 0
    live = calls(rows, settings.maes_steps + 1)[:, 0]
    assert (rows.joint[join] == 1).all()
    assert not rows.new[join].any()
    joins = np.bincount(rows.frame[join], minlength=speech.frames)
    assert (joins <= live - 1).all()
    assert settings.maes_alpha or not join.any()
    expected = speech.maes_join_share * (live - 1).sum()
    assert abs(joins.sum() - (expected if settings.maes_alpha else 0)) <= 0.5 + 1e-6


@given(searches("maes"))
def test_a_beam_of_one_joins_nothing_and_has_no_rivals(search: Search) -> None:
    settings, speech = search
    rows = maes_rows(replace(settings, beam=1), speech)
    assert (rows.candidates > 0).all()
    assert (calls(rows, settings.maes_steps + 1)[:, 0] == 1).all()


@given(searches("maes"))
def test_without_labels_each_frame_is_one_row(search: Search) -> None:
    settings, speech = search
    found = schedule(replace(settings, prediction_cache=True), replace(speech, labels=0))
    np.testing.assert_array_equal(found.joint_rows, np.ones(speech.frames))
    assert found.prediction_rows.sum() == 1


@pytest.mark.parametrize("name", ["maes_rival_rate", "maes_doubling_rate", "maes_expansions_per_label"])
@given(search=searches("maes"), more=st.floats(0.0, 3.0))
def test_a_less_sure_model_never_costs_fewer_rows(name: str, search: Search, more: float) -> None:
    settings, speech = search
    noisy = replace(speech, **{name: getattr(speech, name) + more})
    assert schedule(settings, speech).totals().joint_rows <= schedule(settings, noisy).totals().joint_rows


@given(searches("maes"))
def test_expected_rows_are_the_closed_form(search: Search) -> None:
    """Frames with k = 2, 4, 8 rows or more: p, p q, p q^2; a beam of B sums k = 1 to B."""
    _, speech = search
    said = speech.labels * np.arange(speech.frames) / speech.frames
    p, q = 1 - np.exp(-speech.maes_rival_rate * said), 1 - np.exp(-speech.maes_doubling_rate * said)
    rows = {beam: expected_live_rows(speech, beam) for beam in (1, 2, 3, 4, 7, 8)}
    np.testing.assert_array_equal(rows[1], np.ones(speech.frames))
    np.testing.assert_allclose(rows[2] - rows[1], p, atol=1e-12)
    np.testing.assert_allclose(rows[4] - rows[3], p * q, atol=1e-12)
    np.testing.assert_allclose(rows[8] - rows[7], p * q * q, atol=1e-12)


@given(st.integers(1, 16))
def test_a_model_that_is_sure_of_nothing_fills_the_beam(beam: int) -> None:
    speech = SpeechStatistics(100, 50, maes_rival_rate=1e6, maes_doubling_rate=1e6)
    live = calls(maes_rows(DecodeSettings("maes", beam), speech), 3)[:, 0]
    np.testing.assert_array_equal(live, [1] + [beam] * 99)


def test_rows_of_a_short_utterance_step_by_step() -> None:
    """Two rows from the second frame on, the shorter of them the other's prefix; two labels in three frames."""
    speech = SpeechStatistics(3, 2, maes_rival_rate=1e6, maes_doubling_rate=0.0, maes_expansions_per_label=1.0,
                              maes_repeat_rate=0.0, maes_join_share=1.0, maes_new_share=1.0)  # fmt: skip
    rows = maes_rows(DecodeSettings("maes", 2), speech)
    # 5 rows x 2 labels / 3 frames = 3.3 rows in 2 of the 3 frames, in proportion to their rows
    assert rows.frame.tolist() == [0, 1, 1, 1, 2, 2, 2]
    assert rows.joint.tolist() == [1, 1, 2, 2, 1, 2, 1]
    assert rows.new.tolist() == [1, 0, 0, 2, 0, 0, 1]
    assert rows.extended.tolist() == rows.joint.tolist()
    assert rows.extended_new.tolist() == rows.new.tolist()
    assert rows.candidates.tolist() == [1, 0, 4, 2, 0, 3, 1]
    last = maes_rows(DecodeSettings("maes", 2, maes_steps=1), speech)
    assert last.extended.tolist() == [1, 1, 2, 0, 1, 2, 0]
    assert last.extended_new.tolist() == [1, 0, 0, 0, 0, 2, 0]
    assert last.candidates.tolist() == [1, 0, 4, 4, 0, 3, 3]
