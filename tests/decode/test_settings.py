"""Settings and statistics: the defaults, every rule and its message."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hwsim.decode import DecodeSettings, SpeechStatistics
from hwsim.errors import HwsimError


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"beam": 0}, "beam must be at least 1, got 0"),
        ({"beam": 2.5}, "beam must be an integer, got 2.5"),
        ({"beam": True}, "beam must be an integer, got True"),
        ({"u_max": -1}, "u_max must be at least 0, got -1"),
        ({"u_max_ratio": 0.0}, "u_max_ratio must be above 0, got 0"),
        ({"u_max_ratio": math.nan}, "u_max_ratio must be a finite number, got nan"),
        ({"algorithm": "alds"}, "algorithm must be greedy, alsd, tsd or maes, got 'alds'; nearest: alsd, maes"),
        ({"algorithm": "greed"}, "algorithm must be greedy, alsd, tsd or maes, got 'greed'; nearest: greedy"),
        ({"lm": "shalow"}, "lm must be none, shallow or density-ratio, got 'shalow'; nearest: shallow"),
        (
            {"lm": "density_ratio"},
            "lm must be none, shallow or density-ratio, got 'density_ratio'; nearest: density-ratio",
        ),
        ({"algorithm": "greedy", "beam": 4}, "beam must be 1 for greedy, got 4"),
        ({"expansions_per_frame": 1}, "expansions_per_frame must be at least 2, got 1"),
        ({"max_symbols_per_frame": 2}, "max_symbols_per_frame must be 1 or none, got 2"),
        ({"max_symbols_per_frame": True}, "max_symbols_per_frame must be 1 or none, got True"),
        ({"lm_cache": 1}, "lm_cache must be true or false, got 1"),
    ],
)
def test_a_wrong_setting_is_a_message(given: dict[str, Any], message: str) -> None:
    with pytest.raises(HwsimError) as caught:
        DecodeSettings(**given)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"frames": 0}, "frames must be at least 1, got 0"),
        ({"frames": 43.5}, "frames must be an integer, got 43.5"),
        ({"labels": -1}, "labels must be at least 0, got -1"),
        ({"labels": math.inf}, "labels must be a finite number, got inf"),
        ({"labels": "48"}, "labels must be a finite number, got '48'"),
        ({"vocabulary": 0}, "vocabulary must be at least 1, got 0"),
        ({"alsd_live_share": 1.2}, "alsd_live_share must be at most 1, got 1.2"),
        ({"alsd_new_prefix_rate": -0.1}, "alsd_new_prefix_rate must be at least 0, got -0.1"),
        ({"alsd_live_share": 0.0}, "alsd_live_share must be above 0, got 0"),
        ({"tsd_new_share": -1}, "tsd_new_share must be at least 0, got -1"),
        ({"tsd_survival_share": 2}, "tsd_survival_share must be at most 1, got 2"),
        ({"maes_rival_rate": -0.1}, "maes_rival_rate must be at least 0, got -0.1"),
        ({"maes_doubling_rate": math.inf}, "maes_doubling_rate must be a finite number, got inf"),
        ({"maes_expansions_per_label": "1"}, "maes_expansions_per_label must be a finite number, got '1'"),
        ({"maes_repeat_rate": -1}, "maes_repeat_rate must be at least 0, got -1"),
        ({"maes_join_share": 1.5}, "maes_join_share must be at most 1, got 1.5"),
        ({"maes_new_share": 1.01}, "maes_new_share must be at most 1, got 1.01"),
    ],
)
def test_a_wrong_statistic_is_a_message(given: dict[str, Any], message: str) -> None:
    with pytest.raises(HwsimError) as caught:
        SpeechStatistics(**({"frames": 152, "labels": 48} | given))
    assert str(caught.value) == message


def test_the_defaults_are_the_papers_decoder() -> None:
    settings = DecodeSettings()
    assert (settings.algorithm, settings.beam, settings.lm) == ("alsd", 16, "density-ratio")
    assert settings.prediction_cache
    assert settings.batched_prediction
    assert settings.batched_joint
    assert not settings.masked_rows


@pytest.mark.parametrize(("lm", "count"), [("none", 0), ("shallow", 1), ("density-ratio", 2)])
def test_language_models(lm: Any, count: int) -> None:
    assert DecodeSettings(lm=lm).language_models == count


@pytest.mark.parametrize(
    ("settings", "limit"),
    [
        (DecodeSettings(), 76),
        (DecodeSettings(u_max_ratio=0.001), 1),
        (DecodeSettings(u_max=151), 151),
        (DecodeSettings(u_max=0), 0),
        (DecodeSettings(algorithm="tsd", expansions_per_frame=3), 304),
        (DecodeSettings(algorithm="greedy", beam=1), None),
        (DecodeSettings(algorithm="greedy", beam=1, max_symbols_per_frame=1), 152),
    ],
)
def test_the_most_labels_that_a_search_can_emit(settings: DecodeSettings, limit: int | None) -> None:
    assert settings.label_limit(152) == limit


def test_labels_by_speaking_rate() -> None:
    assert SpeechStatistics.at_rate(150, 0.32) == SpeechStatistics(150, 48.0)


def test_the_same_speech_at_another_length() -> None:
    speech = SpeechStatistics(50, 10.0, vocabulary=23, maes_rival_rate=0.5)
    assert speech.at_length(200) == SpeechStatistics(200, 40.0, vocabulary=23, maes_rival_rate=0.5)
    with pytest.raises(HwsimError, match=r"^frames must be at least 1, got 0$"):
        speech.at_length(0)


def test_a_wrong_speaking_rate_is_a_message() -> None:
    with pytest.raises(HwsimError) as caught:
        SpeechStatistics.at_rate(150, -0.32)
    assert str(caught.value) == "labels_per_frame must be at least 0, got -0.32"
