"""Recognizers on chips: words without noise, the same chip over time, streams, word errors over chips."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hwsim
from hwsim.decode.settings import DecodeSettings
from hwsim.errors import HwsimError
from hwsim.execute.analog import analog_settings
from hwsim.recognize import Recognizer, load_recognizer
from hwsim.recognize.analog import AnalogRecognizer, analog_recognizer, chip_word_errors, recognizer_ranges
from hwsim.speech.dataset import load_split

GREEDY = DecodeSettings("greedy", 1, lm="none")
IDEAL, PCM, STANDARD = (analog_settings(name) for name in ("ideal", "pcm", "rasch2023"))
DIGITS = Path(hwsim.__file__).parent.parent / "workloads" / "digits"
MONTH_S = 30 * 86400.0


@cache
def shipped(precision: str) -> Recognizer:
    found = load_recognizer(DIGITS / f"{precision}.recognizer")
    return replace(found, networks={name: found.networks[name] for name in ("encoder", "prediction", "joint")})


@cache
def speech(count: int) -> tuple[list[Any], list[str]]:
    split = load_split(DIGITS / "test_mild.npz")
    return [np.asarray(split[i][0], np.float64) for i in range(count)], split.transcripts[:count].tolist()


@pytest.mark.parametrize("precision", ["fp16", "int4"])
def test_ideal_tiles_find_the_same_words(precision: str) -> None:
    recognizer = shipped(precision)
    chip = analog_recognizer(recognizer, replace(IDEAL, precision="float64"))
    for search in (GREEDY, DecodeSettings("alsd", 4, lm="none")):
        for x in speech(6)[0]:
            found, wanted = chip.transcribe(x, search), recognizer.transcribe(x, search)
            assert found.words == wanted.words
            assert found.n_best[0][1] == pytest.approx(wanted.n_best[0][1], rel=2e-2)


def test_one_chip_over_time() -> None:
    recognizer, x = shipped("fp16"), speech(1)[0][0]
    chip = analog_recognizer(recognizer, STANDARD, (1, 2), 3600.0)
    assert isinstance(chip, AnalogRecognizer)
    assert len(chip.chips) == 3
    month = chip.at(MONTH_S)
    fresh = analog_recognizer(recognizer, STANDARD, (1, 2), MONTH_S)
    assert np.array_equal(month.encode(x), fresh.encode(x))
    assert not np.array_equal(month.encode(x), month.encode(x))
    month.restart(3)
    fresh.restart(3)
    assert np.array_equal(month.encode(x), fresh.encode(x))
    assert not np.array_equal(analog_recognizer(recognizer, STANDARD, (1, 3), MONTH_S).encode(x), fresh.encode(x))


def test_a_stream_ends_with_the_transcript_of_the_whole() -> None:
    """Noise belongs to the products in their order, which pieces do not change."""
    chip, x = analog_recognizer(shipped("fp16"), PCM, 1, 86400.0), speech(3)[0][2]
    chip.restart()
    whole = chip.transcribe(x, GREEDY)
    chip.restart()
    stream = chip.stream(GREEDY)
    for at in range(0, len(x), 7):
        stream.feed(x[at : at + 7])
    assert stream.finish().n_best == whole.n_best


def test_word_errors_over_chips_and_times() -> None:
    """A month without compensation costs many words; with it few; a chip's rows do not depend on the other chips."""
    utterances, transcripts = speech(8)
    times = (1.0, MONTH_S)

    def rates(chips: int, compensated: bool) -> dict[tuple[int, float], float]:
        settings = replace(PCM, drift_compensation=compensated)
        found = chip_word_errors(shipped("fp16"), utterances, transcripts, settings, GREEDY, times_s=times,
                                 chips=chips, seed=1)  # fmt: skip
        return {(each.chip, each.t_s): each.errors.rate for each in found}

    plain, compensated = rates(2, False), rates(2, True)
    assert set(plain) == {(chip, t) for chip in (0, 1) for t in times}
    assert rates(1, False).items() <= plain.items()
    for chip in (0, 1):
        assert plain[chip, MONTH_S] > plain[chip, 1.0] + 0.1
        assert compensated[chip, MONTH_S] < plain[chip, MONTH_S] - 0.1


def test_ranges_of_a_recognizer() -> None:
    recognizer = shipped("fp16")
    ranges = recognizer_ranges(recognizer, speech(2)[0], GREEDY)
    assert set(ranges) == {name for each in recognizer.networks.values() for name in each.projections}
    largest = max(np.abs(x.astype(np.float16)).max() for x in speech(2)[0])
    assert ranges["encoder.layer0.wx"] == pytest.approx(float(largest))
    assert 0 < ranges["encoder.layer0.wh"] <= 1
    chip = analog_recognizer(recognizer, STANDARD, 0, 1.0, ranges)
    used = {name: tiles.input_range for each in chip.chips for name, tiles in each.tiles.items()}
    assert used == ranges


def test_layers_that_stay_digital_are_of_all_networks() -> None:
    chip = analog_recognizer(shipped("fp16"), replace(PCM, digital=("joint.*", "encoder.layer0")), 0)
    on_tiles = {name for each in chip.chips for name in each.tiles}
    assert not any(name.startswith(("joint.output", "encoder.layer0")) for name in on_tiles)
    assert "encoder.layer1.wh" in on_tiles
    assert "prediction.layer0.wx" in on_tiles


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: list(chip_word_errors(shipped("fp16"), x, y, PCM, GREEDY, times_s=(1.0,), chips=0)),
         "chips must be at least 1, got 0"),
        (lambda x, y: list(chip_word_errors(shipped("fp16"), x, y, PCM, GREEDY, times_s=())),
         "times_s must hold at least one time, got none"),
        (lambda x, y: list(chip_word_errors(shipped("fp16"), x, y[:1], PCM, GREEDY, times_s=(1.0,))),
         "utterances must be 1, one for each transcript, got 2"),
        (lambda x, y: analog_recognizer(shipped("fp16"), PCM, ranges={"encoder.layer7.wx": 1.0}),
         "ranges: unknown weight 'encoder.layer7.wx'; nearest: encoder.layer1.wx, encoder.layer0.wx, "
         "encoder.layer1.wh"),
        (lambda x, y: analog_recognizer(shipped("fp16"), replace(PCM, digital=("jiont.output",))),
         "digital: 'jiont.output' must match a layer, got none; nearest: joint.output"),
        (lambda x, y: analog_recognizer(shipped("fp16"), PCM).at(-1.0),
         "t_s must be 0 or more seconds since programming, got -1"),
    ],
)  # fmt: skip
def test_refusals(call: Any, message: str) -> None:
    with pytest.raises(HwsimError) as error:
        call(*speech(2))
    assert str(error.value) == message
