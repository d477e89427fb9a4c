"""The general quantizer: the table of latencies, its machinery, and what one changed assumption does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwsim import load_arch, simulate
from hwsim.extract import load_network
from hwsim.reproduce import Reproduction
from hwsim.reproduce.gq import LATENCY, REDUCTIONS
from hwsim.reproduce.gq_conditions import (
    BASELINE,
    CHANGES,
    CONFIGURATIONS,
    HEADLINE,
    SLOWDOWNS,
    CallTimes,
    Conditions,
    apply,
    headline,
    normalized,
    one_sided,
)
from hwsim.reproduce.gq_footprint import EIGHT_MB, FIRST_LAYERS, FIVE_MB, MIXED, Contradiction, Footprint
from hwsim.reproduce.gq_serving import Serving, interpolated, latencies_s, percentiles_s
from hwsim.reproduce.record import Change
from tests.reproduce.papers import reproduced


@pytest.fixture(scope="module")
def small() -> Conditions:
    """A transducer that ships, in short calls: all that depends on the network but its size."""
    return Conditions(load_arch("edge_npu_stream"), load_network("rnnt_mlperf"), Serving(call_s=0.12))


@pytest.fixture(scope="module")
def times(small: Conditions) -> CallTimes:
    return small.call_times()


def test_a_call_is_a_run_with_less_of_the_dram(small: Conditions, times: CallTimes) -> None:
    assert small.call_frames == 4
    slow = load_arch("edge_npu_stream", {"dram.efficiency": "0.175"})
    found = simulate(slow, "rnnt_mlperf", "gq-bifocal-5555", frames=4)
    assert times[HEADLINE].right_s[SLOWDOWNS.index(4.0)] == found.latency_s
    assert list(times) == list(CONFIGURATIONS)


def test_a_call_takes_longer_when_others_take_the_dram_and_less_in_fewer_bits(times: CallTimes) -> None:
    assert all((np.diff(time.right_s) > 0).all() for time in times.values())
    eight, mixed, five = (times[name].right_s for name in (BASELINE, FIRST_LAYERS, HEADLINE))
    assert (eight > mixed).all()
    assert (mixed > five).all()
    assert (eight < 1.6 * five).all()


def test_between_slow_downs_time_is_linear(small: Conditions, times: CallTimes) -> None:
    service = interpolated(np.array(SLOWDOWNS), times[BASELINE].right_s)
    for slowdown in (1.3, 3.0, 11.0, 20.0):
        run_s = small.run(CONFIGURATIONS[BASELINE], slowdown).latency_s
        assert service(np.array([slowdown]))[0] == pytest.approx(run_s, rel=0.01)


def test_latencies_are_over_the_median_of_int8(small: Conditions, times: CallTimes) -> None:
    table = normalized(small.serving, times)
    assert table[BASELINE][50] == 1.0
    eight, five = (percentiles_s(latencies_s(small.serving, interpolated(np.array(SLOWDOWNS), times[name].right_s)))
                   for name in (BASELINE, HEADLINE))  # fmt: skip
    assert table[HEADLINE][99] == five[99] / eight[50]
    assert headline(table)["5-bit P99"] == table[HEADLINE][99]
    for row in table.values():
        assert row[50] <= row[90] <= row[99]


def test_calls_of_the_left_encoder_come_first_and_are_shorter() -> None:
    conditions = Conditions(load_arch("edge_npu_stream"), load_network("rnnt_bifocal_gq"))
    assert (conditions.call_frames, conditions.left_calls) == (10, 2)
    left, right = (conditions.run("gq-bifocal-5555", left=left) for left in (True, False))
    assert "encoder_right" not in left.components
    assert "encoder_left" not in right.components
    assert left.components["encoder_left"].macs == 10 * (1024 * (192 + 256) + 4 * 1024 * 512 + 256 * 640)
    whole = simulate(conditions.arch, "rnnt_gq", "gq-bifocal-5555", frames=10)
    assert right.cycles == pytest.approx(whole.cycles, rel=1e-4)
    time = conditions.call_times()
    assert time["1/5/5/5"].left_calls == 2
    assert (time["1/5/5/5"].left_s < time[HEADLINE].left_s).all()
    assert np.array_equal(time["1/5/5/5"].right_s, time[HEADLINE].right_s)
    assert (time[HEADLINE].left_s < 0.5 * time[HEADLINE].right_s).all()


def test_a_recognizer_of_one_encoder_has_calls_of_one_kind(small: Conditions, times: CallTimes) -> None:
    assert small.left_calls == 0
    assert one_sided(small.workload, 5) is small.workload
    assert all(time.left_s is time.right_s and time.left_calls == 0 for time in times.values())


def test_a_change_is_a_run_with_one_value_changed(small: Conditions, times: CallTimes) -> None:
    baseline = headline(normalized(small.serving, times))
    entry = apply(Change("serving.fixed_s", 2.0), small, times, baseline)
    assert (entry.before, entry.after, entry.change) == (0.05, 0.1, "doubled")
    assert entry.figures == headline(normalized(replace(small.serving, fixed_s=0.1), times))
    entry = apply(Change("arch.dram.bandwidth_bytes_per_s", 0.5), small, times, baseline)
    slow = replace(small, arch=load_arch("edge_npu_stream", {"dram.bandwidth_bytes_per_s": "8.535e9"}))
    assert entry.figures == headline(normalized(small.serving, slow.call_times()))
    entry = apply(Change("arch.name"), small, times, baseline)
    assert (entry.before, entry.after) == ("edge_npu_stream", "edge_npu")
    assert entry.figures["5-bit P50"] > baseline["5-bit P50"]


def test_every_change_changes_a_value_that_exists(small: Conditions, times: CallTimes) -> None:
    baseline = headline(normalized(small.serving, times))
    for change in CHANGES:
        if change.path.startswith(("arch.host", "arch.name")) or change.factor == 2.0:
            entry = apply(change, small, times, baseline)
            assert entry.before != entry.after
            assert entry.figures or entry.message, change


def test_the_two_parts_of_the_footprint_meet_both_figures() -> None:
    footprint = Footprint.of(load_network("rnnt_mlperf").networks)
    assert footprint.memory_mb(8) == pytest.approx(30.07, rel=1e-12)
    assert footprint.memory_mb(5) == pytest.approx(20.83, rel=1e-12)
    assert (round(footprint.scaling_mb, 2), round(footprint.fixed_mb, 2)) == (24.64, 5.43)
    assert footprint.mean_bits[BASELINE] == 8
    assert footprint.mean_bits[HEADLINE] == 5
    weights = {"encoder.layer0": 240 * 4096 + 1024 * 4096, "prediction.layer0": 2 * 320 * 1280,
               "joint": 1344 * 512 + 512 * 29}  # fmt: skip
    mean = 5 + 3 * sum(weights.values()) / footprint.weights
    assert footprint.mean_bits["5 but first layers and joint 8"] == pytest.approx(mean, rel=1e-12)


def test_the_published_memory_and_the_named_layers_contradict_each_other() -> None:
    """By the printed numbers and the printed layers alone: 5 of 1024 and 5 of 256 cells, decoder 2 of 1024.

    A weight is a byte at 8 bits. Without input, embedding and joint, whose sizes are not printed, the recurrent layers
    above the first have more of them than 30.07 MB.
    """
    upper = 4 * (4 * 1024 * 2048) + 4 * (4 * 256 * 512) + 4 * 1024 * 2048
    assert upper == 44_040_192
    assert upper / 1e6 > EIGHT_MB
    changed = (EIGHT_MB - FIVE_MB) / (3 / 8)
    assert changed == pytest.approx(24.64, abs=0.005)
    assert upper / 1e6 > 1.7 * changed
    # 1/5/5/5 is printed as 0.68. The upper layers of 256 cells alone would make it 0.66, and 5/5/5/5 is 0.69.
    row = (FIVE_MB - 0.5 * 4 * (4 * 256 * 512) / 1e6) / EIGHT_MB
    assert round(row, 2) == 0.66
    assert round(FIVE_MB / EIGHT_MB, 2) == 0.69
    assert MIXED["1/5/5/5"] == 0.68


def test_what_the_published_rows_say_of_each_part() -> None:
    found = Contradiction.of(load_network("rnnt_bifocal_gq").networks)
    assert found.named == pytest.approx(63.503488, rel=1e-12)
    assert found.named > 2 * found.stored
    assert found.named_left == pytest.approx((1024 * (192 + 256) + 4 * 1024 * 512) / 1e6, rel=1e-12)
    assert found.left[0] < found.left[1] < found.named_left / 2
    shares = [count / found.scaling for count in found.left]
    assert shares[0] < found.named_left / found.named < shares[1]
    first = (4 * 256 * (192 + 256) + 4096 * (192 + 1024) + 4096 * 2048 + (256 + 2048) * 640 + 640 * 2501) / 1e6
    assert found.named_first == pytest.approx(first, rel=1e-12)
    assert found.named_first / found.named < found.first[0] / found.scaling - 0.15
    assert "0.5 to 1.1 M weights of the left encoder" in found.notes()[1]
    assert "the row would be 0.65" in found.notes()[1]


PUBLISHED = {
    "weights, float32 over 6 bits": (5.3, 0.03),
    "weights, float32 over 5 bits": (6.4, 0.03),
    "memory, 8/8/8/8": (30.07, 1e-9),
    "memory, 5/5/5/5": (20.83, 1e-9),
    "memory, 5 but first layers and joint 8": (0.83, 0.07),
    "memory, 1/5/5/5": (0.68, 0.01),
    **{
        f"latency P{at}, {name}": (value, 0.15)
        for name, row in LATENCY.items()
        for at, value in zip((50, 90, 99), row, strict=True)
        if (name, at) != ("8/8/8/8", 50)
    },
    **{f"latency P{at} is shorter by": (value, 0.15) for at, value in REDUCTIONS.items()},
}
MISSED = {"memory, 5 but first layers and joint 8"}


@pytest.fixture(scope="module")
def paper() -> Reproduction:
    return reproduced("gq")[0]


def test_every_published_figure_is_as_near_as_it_says(paper: Reproduction) -> None:
    assert [row.figure for row in paper.rows] == list(PUBLISHED)
    for row in paper.rows:
        published, tolerance = PUBLISHED[row.figure]
        assert row.published == published
        assert row.simulated == pytest.approx(published, rel=tolerance), row.figure
        assert row.within_tolerance is (row.figure not in MISSED), row.figure


def test_every_assumption_of_serving_is_listed_and_varied(paper: Reproduction) -> None:
    for name, value in vars(Serving()).items():
        assert sum(text.startswith(f"serving.{name} = {value:g}: ") for text in paper.assumptions) == 1
        changes = [entry.change for entry in paper.sensitivity if entry.assumption == f"serving.{name}"]
        assert changes == ["halved", "doubled"]
    assert len(set(paper.assumptions)) == len(paper.assumptions)
    assert all(entry.figures or entry.message for entry in paper.sensitivity)
    assert [(entry.assumption, entry.change) for entry in paper.sensitivity] == [(c.path, c.name) for c in CHANGES]
