"""Statistics that are measured: by hand, from rows of known statistics, and against decodes of a real recognizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from hwsim.catalogue import data_folder
from hwsim.decode import DecodeSettings, SpeechStatistics, measured_statistics, schedule
from hwsim.decode.adaptive import maes_rows
from hwsim.decode.beam import Decoded
from hwsim.decode.hypotheses import Hypothesis
from hwsim.decode.rows import SearchRows
from hwsim.errors import HwsimError
from hwsim.recognize import Recognizer, load_recognizer
from hwsim.speech.dataset import load_split

WORDS = 23
SPLITS = ("test_mild", "test_strong")
FIRST, REST, ALL = range(12), range(12, 24), range(24)


def decoded(
    labels: int, frame: list[int], joint: list[int], new: list[int], met: list[int], sent: list[int]
) -> Decoded:
    """A search of these steps that found so many labels."""
    columns = [np.array(column, np.int64) for column in (frame, joint, new, joint, met, sent)]
    return Decoded((Hypothesis(tuple(range(1, labels + 1)), 0.0),), SearchRows(*columns))


def measure(settings: DecodeSettings, *decodes: Decoded) -> SpeechStatistics:
    return measured_statistics(settings, decodes, WORDS)


def test_alsd_by_hand() -> None:
    """T = 3 and U = 1: the body is step 0 with one row and steps 1 to 3; the rest is the tail."""
    one = decoded(1, [0, 1, 2, 2, 2], [1, 2, 4, 3, 2], [1, 2, 1, 0, 2], [0] * 5, [1] * 5)
    found = measure(DecodeSettings("alsd", 4), one)
    assert (found.frames, found.labels, found.vocabulary) == (3, 1.0, WORDS)
    assert found.alsd_live_share == pytest.approx((2 + 4 + 3) / (4 * 3))
    assert found.alsd_new_prefix_rate == pytest.approx((1 + 2 + 1 - 1 - 1) / (3 * 4))
    assert replace(found, alsd_live_share=0.85, alsd_new_prefix_rate=0.07) == SpeechStatistics(3, 1.0, WORDS)


def test_tsd_by_hand() -> None:
    """T = 2, U = 1, v = 3: two calls of extensions a frame; an LM meets one survivor among four places."""
    one = decoded(1, [0, 0, 0, 1, 1, 1], [1, 2, 2, 2, 2, 2], [1, 2, 2, 0, 1, 0], [1, 1, 0, 1, 1, 0], [1] * 6)
    found = measure(DecodeSettings("tsd", 2, expansions_per_frame=3), one)
    assert found.tsd_new_share == pytest.approx((6 - 1 - 2) / (2 * 2 * 2))
    assert found.tsd_survival_share == pytest.approx((1 / 4) ** 0.5)


def test_maes_by_hand() -> None:
    """T = 4 and U = 2; the beam holds 1, 2, 4, 4 rows, of which three have their parents there."""
    frame = [0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 3]
    joint = [1, 2, 1, 2, 4, 1, 1, 4, 2, 1, 4]
    sent = [3, 2, 0, 6, 4, 0, 0, 6, 3, 3, 4]
    new = [1, 2, 0, 0, 3, 0, 0, 0, 1, 0, 0]
    found = measure(DecodeSettings("maes", 8), decoded(2, frame, joint, new, new, sent))
    assert found.maes_expansions_per_label == pytest.approx((2 + 4 + 2) / 11 / (2 / 4))
    assert found.maes_repeat_rate == pytest.approx(1 / 8)
    assert found.maes_join_share == pytest.approx(3 / (11 - 4))
    assert found.maes_new_share == pytest.approx((7 - 1) / (8 + 1))
    said = 2 * np.arange(4) / 4
    assert found.maes_rival_rate > 20  # each frame that can have a rival has one
    assert np.sum(1 - np.exp(-found.maes_doubling_rate * said[1:])) == pytest.approx(2)


def test_greedy_has_no_statistics_and_utterances_are_averaged() -> None:
    short = decoded(1, [0, 1], [1, 1], [1, 1], [1, 1], [1, 1])
    long = decoded(3, [0, 1, 2, 3, 4], [1] * 5, [1] * 5, [1] * 5, [1] * 5)
    assert measure(DecodeSettings("greedy", 1), short, long) == SpeechStatistics(4, 4 * 4 / 7, WORDS)


def test_a_search_that_never_doubled_has_no_rates() -> None:
    found = measure(DecodeSettings("maes", 8), decoded(0, [0, 1], [1, 1], [1, 0], [1, 0], [1, 1]))
    assert (found.maes_rival_rate, found.maes_doubling_rate, found.maes_expansions_per_label) == (0, 0, 0)
    assert (found.maes_repeat_rate, found.maes_join_share, found.maes_new_share) == (0, 0, 0)


@pytest.mark.parametrize("beam", [8, 16, 64])
def test_rates_of_a_beam_that_grows_by_them(beam: int) -> None:
    """Frames drawn from the law: a rival with p = 1 - exp(-0.3 x), each doubling after it with q = 1 - exp(-0.2 x)."""
    rng, settings, decodes = np.random.default_rng(7), DecodeSettings("maes", beam), []
    for labels in rng.integers(1, 12, 400).tolist():
        said = labels * np.arange(30) / 30
        p, q = 1 - np.exp(-0.3 * said), 1 - np.exp(-0.2 * said)
        doublings = np.where(rng.random(30) < p, rng.geometric(1 - q), 0)
        live = np.minimum(2 ** np.minimum(doublings, 20), beam).tolist()
        decodes.append(decoded(labels, list(range(30)), live, [0] * 30, [0] * 30, live))
    found = measure(settings, *decodes)
    assert found.maes_rival_rate == pytest.approx(0.3, rel=0.05)
    assert found.maes_doubling_rate == pytest.approx(0.2, rel=0.05)


@pytest.mark.parametrize("beam", [8, 16, 32])
def test_rows_of_known_statistics_give_them_back(beam: int) -> None:
    known = SpeechStatistics(600, 40, 200, maes_rival_rate=0.2, maes_doubling_rate=0.1, maes_repeat_rate=0.2)
    settings = DecodeSettings("maes", beam)
    found = measure(settings, Decoded((Hypothesis(tuple(range(40)), 0.0),), maes_rows(settings, known)))
    for name, tolerance in (("expansions_per_label", 0.02), ("repeat_rate", 0.02), ("join_share", 0.02),
                            ("new_share", 0.02)):  # fmt: skip
        assert getattr(found, f"maes_{name}") == pytest.approx(getattr(known, f"maes_{name}"), rel=tolerance)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (DecodeSettings("alsd", 1), "beam must be at least 2 to measure alsd, got 1"),
        (DecodeSettings("maes", 7), "beam must be at least 8 to measure maes, got 7"),
    ],
)
def test_a_beam_that_shows_nothing_is_a_message(settings: DecodeSettings, message: str) -> None:
    with pytest.raises(HwsimError) as caught:
        measure(settings, decoded(0, [0], [1], [1], [1], [1]))
    assert str(caught.value) == message


def test_no_decode_is_a_message() -> None:
    with pytest.raises(HwsimError, match=r"^decodes must hold at least one utterance, got none$"):
        measure(DecodeSettings("tsd", 4))


@cache
def recognizer() -> Recognizer:
    return load_recognizer(data_folder("workloads") / "digits" / "int4.recognizer")


@cache
def encoded(split: str) -> tuple[tuple[Any, Any], ...]:
    utterances = load_split(data_folder("workloads") / "digits" / f"{split}.npz")
    features = [np.asarray(one[0], np.float64) for one in utterances]
    return tuple((one, recognizer().encode(one)) for one in features)


@cache
def real(split: str, settings: DecodeSettings, part: range) -> tuple[Decoded, ...]:
    """What the shipped recognizer does with a part of the shipped sample of a split."""
    chosen = (encoded(split)[i] for i in part)
    return tuple(recognizer().transcribe(x, settings, encoded=rows).decoded for x, rows in chosen)


def errors(speech: SpeechStatistics, settings: DecodeSettings, decodes: Sequence[Decoded]) -> dict[str, float]:
    """Modelled rows over counted ones, less 1: of each network that runs and, each LM by itself, of all."""
    counted = [one.schedule(settings).totals() for one in decodes]
    modelled = [
        schedule(settings, replace(speech, frames=int(one.rows.frame[-1]) + 1, labels=len(one.n_best[0].labels)))
        .totals() for one in decodes
    ]  # fmt: skip
    sums = {}
    for name, plans in (("model", modelled), ("count", counted)):
        parts = {part: sum(getattr(plan, f"{part}_rows") for plan in plans) for part in ("joint", "prediction", "lm")}
        sums[name] = parts | {"all": parts["joint"] + parts["prediction"] + settings.language_models * parts["lm"]}
    return {part: sums["model"][part] / rows - 1 for part, rows in sums["count"].items() if rows}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(
    "settings",
    [DecodeSettings("alsd", 8), DecodeSettings("tsd", 8), DecodeSettings("tsd", 8, expansions_per_frame=3)],
    ids=["alsd", "tsd-2", "tsd-3"],
)
def test_twelve_utterances_foretell_the_rows_of_twelve_others(split: str, settings: DecodeSettings) -> None:
    speech = measure(settings, *real(split, settings, FIRST))
    for beam in (4, 16):
        other = replace(settings, beam=beam)
        found = errors(speech, other, real(split, other, REST))
        assert abs(found["all"]) <= 0.10, found
        assert max(map(abs, found.values())) <= 0.12, found


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("lm", ["none", "density-ratio"])
def test_one_beam_foretells_the_rows_of_adaptive_expansion_at_others(split: str, lm: Any) -> None:
    """On the same utterances: between two dozens of utterances the rows of a wide beam differ by more than a fifth."""
    settings = DecodeSettings("maes", 16, lm=lm)
    speech = measure(settings, *real(split, settings, ALL))
    for beam in (2, 4, 8):
        other = replace(settings, beam=beam)
        found = errors(speech, other, real(split, other, ALL))
        assert max(map(abs, found.values())) <= 0.20, (beam, found)


def test_noise_moves_adaptive_expansion_and_hardly_the_others() -> None:
    for settings, part, names in (
        (
            DecodeSettings("maes", 16, lm="none"),
            ALL,
            ("maes_rival_rate", "maes_doubling_rate", "maes_expansions_per_label"),
        ),
        (DecodeSettings("alsd", 8), FIRST, ("alsd_live_share",)),
    ):
        mild, strong = (measure(settings, *real(split, settings, part)) for split in SPLITS)
        for name in names:
            times = getattr(strong, name) / getattr(mild, name)
            assert times > 1.2 if settings.algorithm == "maes" else 0.95 < times < 1.1
