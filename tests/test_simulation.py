"""One simulated utterance: what its result holds, what it rests on, and that its parts are its whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import hwsim
from hwsim.arch import load_arch
from hwsim.decode import DecodeSettings, SpeechStatistics, schedule
from hwsim.decode.settings import ASSUMED_STATISTICS
from hwsim.engine import CAUSES, ENERGY_PARTS
from hwsim.errors import HwsimError
from hwsim.extract import load_workload
from hwsim.numerics import load_policy
from hwsim.report.facts import decode_totals
from hwsim.simulation import Result, simulate

ASKED = {
    "rtf", "latency_s", "energy_j", "cycles", "compression", "speedup", "components", "assumptions", "provenance",
}  # fmt: skip
BESIDE = {"audio_s", "energy_per_audio_second_j", "energy_by_part_j", "versus"}
ASKED_OF_COMPONENTS = {
    "latency_s", "energy_j", "cycles", "macs", "dram_bytes", "bound", "utilization", "speedup",
}  # fmt: skip
BESIDE_OF_COMPONENTS = {
    "name", "cycles_by_cause", "achieved_ops_per_s", "parameters", "weight_bits", "tile_weights", "compression",
}  # fmt: skip
FRAMES = 16
SWB_PARTS = ("encoder", "search", "prediction", "source_lm", "external_lm", "joint")


@pytest.fixture(scope="module")
def int4() -> Result:
    return simulate("rapid_4core", "rnnt_swb300", "int4", frames=FRAMES)


@pytest.fixture(scope="module")
def fp16() -> Result:
    return simulate("rapid_4core", "rnnt_swb300", "fp16", frames=FRAMES)


def message(*arguments: Any, **options: Any) -> str:
    with pytest.raises(HwsimError) as raised:
        simulate(*arguments, **options)
    return str(raised.value)


def test_the_components_are_the_whole(int4: Result) -> None:
    parts = int4.components.values()
    assert tuple(int4.components) == SWB_PARTS
    assert sum(c.cycles for c in parts) == int4.cycles == int4.run.schedule.cycles
    assert sum(c.latency_s for c in parts) == pytest.approx(int4.latency_s, rel=1e-12)
    assert sum(c.energy_j for c in parts) == int4.energy_j
    assert sum(int4.energy_by_part_j.values()) == pytest.approx(int4.energy_j, rel=1e-9)
    assert tuple(int4.energy_by_part_j) == ENERGY_PARTS
    assert sum(c.macs for c in parts) == int4.run.trace.totals().macs
    assert sum(c.dram_bytes for c in parts) == int(int4.run.dram_bytes.sum())
    assert sum(c.parameters for c in parts) == int4.workload.networks.totals().parameters


def test_a_component_is_bound_by_what_it_spends_most_time_on(int4: Result) -> None:
    for component in int4.components.values():
        by_cause = component.cycles_by_cause
        assert tuple(by_cause) == CAUSES
        assert sum(by_cause.values()) == pytest.approx(component.cycles)
        assert by_cause[component.bound] == max(by_cause.values())
        assert 0 <= component.utilization <= 1
        seconds = component.cycles / int4.arch.clock_hz
        assert component.achieved_ops_per_s == pytest.approx(2 * component.macs / seconds)
        assert component.achieved_ops_per_s <= int4.arch.peak_ops_per_s("int4")


def test_times_and_energies_follow_from_the_cycles_and_the_audio(int4: Result) -> None:
    assert int4.latency_s == int4.cycles / 1.6e9
    assert int4.audio_s == pytest.approx(FRAMES * 0.02)
    assert int4.rtf == int4.latency_s / int4.audio_s
    assert int4.energy_per_audio_second_j == int4.energy_j / int4.audio_s


def test_compression_is_against_fp32(int4: Result, fp16: Result) -> None:
    assert fp16.compression == 2.0
    totals = int4.run.trace.totals()
    assert int4.compression == 32 * totals.parameters / totals.weight_bits
    assert 7 < int4.compression < 8
    assert int4.components["search"].compression == 1.0
    assert int4.components["encoder"].compression > int4.components["prediction"].compression


def test_speed_ups_are_latencies_of_the_other_over_ones_own(int4: Result, fp16: Result) -> None:
    found = int4.speedup_over(fp16)
    assert found["total"] == fp16.latency_s / int4.latency_s > 1
    assert set(found) <= {"total", *SWB_PARTS}
    assert found["encoder"] == fp16.components["encoder"].latency_s / int4.components["encoder"].latency_s
    assert set(int4.speedup_over(int4).values()) == {1.0}


def test_a_component_that_takes_no_time_has_no_speed_up(int4: Result) -> None:
    hidden = replace(int4.components["joint"], cycles=0, latency_s=0.0)
    other = replace(int4, components={**int4.components, "joint": hidden})
    assert "joint" not in int4.speedup_over(other)
    assert "joint" not in other.speedup_over(int4)
    assert other.to_dict(int4)["components"]["joint"]["speedup"] is None


def test_the_dictionary_has_these_keys_and_is_json(int4: Result, fp16: Result) -> None:
    alone, versus = int4.to_dict(), int4.to_dict(fp16)
    for found in (alone, versus):
        assert set(found) == ASKED | BESIDE
        assert tuple(found["components"]) == SWB_PARTS
        for name, component in found["components"].items():
            assert set(component) == ASKED_OF_COMPONENTS | BESIDE_OF_COMPONENTS, name
        assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (alone["speedup"], alone["versus"]) == (None, None)
    assert {c["speedup"] for c in alone["components"].values()} == {None}
    assert versus["speedup"] == int4.speedup_over(fp16)["total"]
    assert versus["versus"] == fp16.provenance
    assert {name: versus["components"][name]["speedup"] for name in SWB_PARTS} == {
        name: int4.speedup_over(fp16).get(name) for name in SWB_PARTS
    }


def test_the_frame_has_a_row_for_each_component(int4: Result) -> None:
    frame = int4.to_frame()
    assert frame.index.name == "name"
    assert tuple(frame.index) == SWB_PARTS
    assert {f"cycles_{cause}" for cause in CAUSES} < set(frame.columns)
    assert frame["cycles"].sum() == int4.cycles
    assert frame["energy_share"].sum() == pytest.approx(1)
    assert frame.loc["encoder", "macs"] == int4.components["encoder"].macs


def test_every_assumption_that_plays_a_part_is_listed(int4: Result) -> None:
    listed = {text.partition(" = ")[0].partition(":")[0] for text in int4.assumptions}
    assumed = {f"arch.{path}" for path, _, _ in int4.arch.assumptions()}
    idle = {path for path in assumed if path.startswith(("arch.array.formats.hfp8.", "arch.array.formats.int2."))}
    assert int4.formats == {"int4"}
    assert idle
    fp16 = {path for path in assumed if path.startswith("arch.array.formats.fp16.")}
    assert listed == (assumed - idle - fp16) | {
        "workload.decode",
        "precision.int4",
        "decode.alsd_live_share",
        "decode.alsd_new_prefix_rate",
    }
    assert "arch.host.persistent_kernel" in listed
    by_path = {path: text for path, _, text in int4.arch.assumptions()}
    assert any(text.endswith(by_path["dram.bandwidth_bytes_per_s"]) for text in int4.assumptions)


def test_a_number_that_was_set_is_an_assumption() -> None:
    arch = load_arch("rapid_4core", {"cores": "2"})
    found = simulate(arch, "rnnt_mlperf", frames=8).assumptions
    assert "arch.cores = 2: set by the user with --set" in found


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "arch": ({"arch": "rapid_1core"}, "rapid_1core"),
    "workload": ({"workload": "rnnt_mlperf", "decoder": "greedy", "lm": "none"}, "rnnt_mlperf"),
    "precision": ({"precision": "int8"}, "int8"),
    "frames": ({"frames": 9}, "9"),
    "engine": ({"engine": "event"}, "event"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_each_input_changes_its_own_line_of_the_provenance(what: str) -> None:
    asked: dict[str, Any] = {"arch": "rapid_4core", "workload": "rnnt_swb300", "precision": "int4", "frames": 8,
                             "decoder": "greedy", "lm": "none"}  # fmt: skip
    change, shown = OTHERS[what]
    one, other = (simulate(**{**asked, **changes}).provenance for changes in ({}, change))
    assert set(one) == {"hwsim", "arch", "workload", "precision", "decode", "frames", "engine"}
    assert one["hwsim"] == hwsim.__version__
    assert other[what].startswith(shown)
    different = {key for key in one if one[key] != other[key]}
    assert different <= {what, "decode"}
    assert what in different


def test_a_digest_follows_the_content_not_the_name(tmp_path: Path) -> None:
    before = simulate("rapid_4core", "rnnt_mlperf", frames=4).provenance
    set_cores = load_arch("rapid_4core", {"dram.efficiency": "0.8"})
    assert simulate(set_cores, "rnnt_mlperf", frames=4).provenance["arch"] != before["arch"]
    beams = (simulate("rapid_4core", "rnnt_swb300", beam=beam, frames=4).provenance for beam in (2, 3))
    assert len({one["decode"] for one in beams}) == 2


@pytest.mark.parametrize("workload", ["rnnt_swb300", "rnnt_mlperf"])
@pytest.mark.parametrize("arch", ["rapid_4core", "systolic_128"])
@pytest.mark.parametrize("precision", ["int4", "fp16"])
def test_the_reference_engine_gives_the_same_result(arch: str, workload: str, precision: str) -> None:
    fast, event = (simulate(arch, workload, precision, frames=5, engine=engine) for engine in ("fast", "event"))  # type: ignore[arg-type]
    assert fast.engine != event.engine
    ignored = {"provenance"}
    assert {k: v for k, v in fast.to_dict().items() if k not in ignored} == {
        k: v for k, v in event.to_dict().items() if k not in ignored
    }


def test_the_same_run_twice_is_the_same(int4: Result) -> None:
    again = simulate("rapid_4core", "rnnt_swb300", "int4", frames=FRAMES)
    assert again == int4
    assert again.to_dict() == int4.to_dict()


def test_objects_and_names_are_the_same(int4: Result) -> None:
    arch, workload, policy = load_arch("rapid_4core"), load_workload("rnnt_swb300"), load_policy("int4")
    assert simulate(arch, workload, policy, frames=FRAMES) == int4


def test_settings_replace_all_decode_options() -> None:
    settings = DecodeSettings(algorithm="tsd", beam=3, lm="shallow")
    result = simulate("rapid_4core", "rnnt_swb300", frames=6, settings=settings, beam=9)
    assert result.settings == settings
    assert tuple(result.components) == ("encoder", "search", "prediction", "external_lm", "joint")


@pytest.mark.parametrize("decoder", ["alsd", "tsd", "maes", "greedy"])
def test_assumed_statistics_are_listed_and_measured_ones_are_not(decoder: str) -> None:
    asked: dict[str, Any] = {"decoder": decoder, "frames": FRAMES, "lm": "none"}
    assumed = simulate("rapid_4core", "rnnt_swb300", **asked)
    listed = [line.partition(" = ")[0] for line in assumed.assumptions if line.startswith(f"decode.{decoder}_")]
    assert listed == [f"decode.{name}" for name in ASSUMED_STATISTICS.get(decoder, {})]
    measured = simulate("rapid_4core", "rnnt_swb300", **asked, statistics=SpeechStatistics(100, 30))
    assert not any(line.startswith(f"decode.{decoder}_") for line in measured.assumptions)
    assert "statistics" not in assumed.provenance
    rows = load_workload("rnnt_swb300").encoder_frames(FRAMES)
    assert measured.provenance["statistics"].startswith(f"frames={rows}, labels={0.3 * rows:g}, vocabulary=45, ")


def test_statistics_decide_the_rows_at_their_labels_per_frame() -> None:
    asked: dict[str, Any] = {"decoder": "maes", "frames": FRAMES, "lm": "none", "beam": 8}
    sure, noisy = (SpeechStatistics(100, 30, maes_rival_rate=rate, maes_doubling_rate=rate) for rate in (0.0, 2.0))
    few, many = (simulate("rapid_4core", "rnnt_swb300", **asked, statistics=speech) for speech in (sure, noisy))
    assert few.cycles < many.cycles
    for result, speech in ((few, sure), (many, noisy)):
        plan = schedule(result.settings, speech.at_length(result.workload.encoder_frames(FRAMES)))
        assert decode_totals(result) == plan.totals()
        assert result.cycles == simulate("rapid_4core", "rnnt_swb300", **asked, plan=plan).cycles


def test_a_plan_leaves_nothing_for_statistics_to_decide() -> None:
    speech = SpeechStatistics(FRAMES, 2)
    plan = schedule(DecodeSettings(), speech)
    with pytest.raises(HwsimError, match=r"^plan must be none beside statistics, got both$"):
        simulate("rapid_4core", "rnnt_swb300", frames=FRAMES, plan=plan, statistics=speech)


def test_the_standard_utterance_is_that_of_the_network() -> None:
    result = simulate("rapid_4core", "rnnt_mlperf")
    assert result.frames == load_workload("rnnt_mlperf").spec.decode.frames
    assert (result.settings.algorithm, result.policy.name) == ("greedy", "int4")


def test_more_hypotheses_take_longer() -> None:
    cycles = [simulate("rapid_4core", "rnnt_swb300", beam=beam, frames=FRAMES).cycles for beam in (1, 4, 16)]
    assert cycles == sorted(cycles)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"engine": "slow"}, "engine must be fast or event, got 'slow'"),
        ({"frames": 0}, "frames must be at least 1, got 0"),
        ({"beam": 0}, "beam must be at least 1, got 0"),
        ({"decoder": "viterbi"},
         "algorithm must be greedy, alsd, tsd or maes, got 'viterbi'; known: alsd, greedy, maes, tsd"),
        ({"lm": "ngram"},
         "lm must be none, shallow or density-ratio, got 'ngram'; known: density-ratio, none, shallow"),
        ({"precision": "fp32"},
         "rapid_4core cannot compute fp32: it computes fp16, hfp8, int4, int2; no fallback for fp32 in its file"),
        ({"precision": "int44"}, "unknown policy 'int44'; nearest: int4, int8, int6"),
        ({"workload": "rnnt_swb3000"}, "unknown workload 'rnnt_swb3000'; nearest: rnnt_swb300, tdnnf_swbd, rnnt_gq"),
        ({"arch": "rapid4core"}, "unknown architecture 'rapid4core'; nearest: rapid_4core, rapid_1core, hermes_64core"),
    ],
)  # fmt: skip
def test_what_cannot_be_simulated_is_one_line(options: dict[str, Any], said: str) -> None:
    asked = {"arch": "rapid_4core", "workload": "rnnt_swb300", "frames": 4, **options}
    assert message(asked.pop("arch"), asked.pop("workload"), **asked) == said
