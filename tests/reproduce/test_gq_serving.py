"""User-perceived latency: the closed form against a queue that is stepped through, and its distributions."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.reproduce.gq_serving import Serving, interpolated, latencies_s, percentiles_s, utterances

NO_LOAD = Serving(slowdown=1.0, slowdown_spread=1e-15)


def stepped_s(length_s: float, call_s: float, service_s: float) -> float:
    """End of speech to the end of the last call, call by call."""
    free = at = 0.0
    while at + call_s < length_s:
        at += call_s
        free = max(free, at) + service_s
    return max(free, length_s) + service_s - length_s


@given(st.floats(0.05, 1.0), st.floats(0.3, 10.0), st.floats(0.001, 3.0))
def test_the_closed_form_is_the_queue(call_s: float, utterance_s: float, service_s: float) -> None:
    serving = replace(NO_LOAD, call_s=call_s, utterance_s=utterance_s, fixed_s=0.02)
    lengths, _ = utterances(serving)
    some = slice(0, None, 97)
    found = latencies_s(serving, lambda slowdown: service_s * slowdown)[some]
    expected = [stepped_s(length, call_s, service_s) + 0.02 for length in lengths[some].tolist()]
    # A length that is a whole number of calls but for rounding may be one call more or less.
    near = np.abs(lengths[some] / call_s - np.round(lengths[some] / call_s)) < 1e-9
    assert np.allclose(found[~near], np.array(expected)[~near], rtol=1e-9, atol=1e-9)


@given(st.floats(0.05, 1.0), st.floats(0.3, 10.0), st.floats(0.001, 3.0), st.floats(0.001, 3.0), st.integers(0, 6))
def test_the_closed_form_is_the_queue_of_two_kinds_of_calls(
    call_s: float, utterance_s: float, left_s: float, service_s: float, left_calls: int
) -> None:
    serving = replace(NO_LOAD, call_s=call_s, utterance_s=utterance_s, fixed_s=0.02)
    lengths, _ = utterances(serving)
    some = slice(0, None, 97)
    found = latencies_s(serving, lambda slow: service_s * slow, lambda slow: left_s * slow, left_calls)[some]
    expected = []
    for length in lengths[some].tolist():
        calls = max(math.ceil(length / call_s) - 1, 0)
        free = 0.0
        for call in range(1, calls + 1):
            free = max(free, call * call_s) + (left_s if call <= left_calls else service_s)
        expected.append(max(free, length) + (left_s if calls < left_calls else service_s) - length + 0.02)
    assert np.allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_lengths_and_slow_downs_have_their_distributions() -> None:
    serving = Serving(utterance_s=3.0, utterance_spread=0.5, slowdown=4.0, slowdown_spread=0.3)
    lengths, slowdown = utterances(serving)
    for values, median, spread in ((lengths, 3.0, 0.5), (slowdown, 4.0, 0.3)):
        for share in (0.1, 0.5, 0.9, 0.99):
            expected = median * np.exp(spread * NormalDist().inv_cdf(share))
            assert np.quantile(values, share) == pytest.approx(expected, rel=0.02)
    assert abs(np.corrcoef(lengths, slowdown)[0, 1]) < 0.01
    assert utterances(replace(serving, slowdown=1.0))[1].min() == 1.0


def test_a_call_slower_than_its_audio_makes_a_queue() -> None:
    """3 s of audio in calls of 0.3 s: at 0.4 s a call, nine full calls end 1.2 s late (0.3 + 3.6 - 2.7)."""
    serving = replace(NO_LOAD, call_s=0.3, utterance_s=2.95, utterance_spread=1e-12, fixed_s=0.01)
    found = latencies_s(serving, lambda slowdown: 0.4 * slowdown)
    assert np.allclose(found, (0.3 + 9 * 0.4 - 2.95) + 0.4 + 0.01)
    assert np.allclose(latencies_s(serving, lambda slowdown: 0.2 * slowdown), 0.2 + 0.01)


def test_percentiles_are_of_the_utterances() -> None:
    assert percentiles_s(np.arange(1.0, 101.0)) == {50: 50.0, 90: 90.0, 99: 99.0}


def test_times_go_on_along_the_last_two() -> None:
    service = interpolated(np.array([1.0, 2.0, 4.0]), np.array([1.0, 1.5, 3.5]))
    assert service(np.array([1.0, 1.5, 3.0, 6.0])).tolist() == [1.0, 1.25, 2.5, 5.5]


@pytest.mark.parametrize("name", list(vars(Serving())))
def test_every_assumption_is_positive(name: str) -> None:
    with pytest.raises(HwsimError, match=f"^{name} must be above 0, got 0$"):
        replace(Serving(), **{name: 0.0})


def test_slow_downs_must_rise() -> None:
    for wrong in ([2.0, 1.0], [1.0]):
        with pytest.raises(HwsimError, match=r"slow-downs must rise and be two or more, got \["):
            interpolated(np.array(wrong), np.array(wrong))
