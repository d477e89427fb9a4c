"""A search as operations: their rows are those of the schedule, whatever the switches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.arch import load_arch
from hwsim.catalogue import data_folder
from hwsim.decode import DecodeSettings, SpeechStatistics, schedule
from hwsim.decode.search import decode_trace, default_settings, speech_statistics, utterance_trace
from hwsim.engine import run_trace
from hwsim.errors import HwsimError
from hwsim.extract import load_workload
from hwsim.numerics import load_policy
from hwsim.trace import Function, Kind, Role, Trace, load_trace, save_trace
from tests.decode.strategies import SWITCHES
from tests.trace.examples import equal

MODELS = {"none": (), "shallow": ("external_lm",), "density-ratio": ("source_lm", "external_lm")}
FRAMES = 12


def rows(trace: Trace, layer: str, kind: Kind) -> np.ndarray:
    """The m of every operation of a kind in a layer."""
    if layer not in trace.layers:
        return np.zeros(0, dtype=np.int64)
    return trace.m[(trace.layer == trace.layers.index(layer)) & (trace.kind == kind)]


def calls(trace: Trace, layer: str, kind: Kind) -> int:
    return int((rows(trace, layer, kind) > 0).sum())


@st.composite
def decodes(draw: st.DrawFn) -> DecodeSettings:
    """Every algorithm, fusion and switch, with beams that are quick to build."""
    algorithm = draw(st.sampled_from(("greedy", "alsd", "tsd", "maes")))
    switches = {name: draw(st.booleans()) for name in (*SWITCHES, "masked_rows")}
    beam = 1 if algorithm == "greedy" else draw(st.integers(1, 6))
    lm: Any = draw(st.sampled_from(tuple(MODELS)))
    expansions = draw(st.integers(2, 4))
    return DecodeSettings(algorithm=algorithm, beam=beam, lm=lm, expansions_per_frame=expansions, **switches)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(decodes())
def test_rows_and_calls_of_every_network_are_those_of_the_schedule(decode: DecodeSettings) -> None:
    workload = load_workload("rnnt_swb300")
    totals = schedule(decode, speech_statistics(workload, FRAMES)).totals()
    trace = utterance_trace(workload, decode, FRAMES)
    for name, network_rows, network_calls in (
        ("prediction", totals.prediction_rows, totals.prediction_calls),
        *((name, totals.lm_rows, totals.lm_calls) for name in MODELS[decode.lm]),
    ):
        for layer, kind in ((f"{name}.embedding", Kind.LOOKUP), (f"{name}.state", Kind.STATE_IN),
                            (f"{name}.state", Kind.STATE_OUT), (f"{name}.layer0", Kind.LSTM)):  # fmt: skip
            assert rows(trace, layer, kind).sum() == network_rows, (layer, kind)
            assert calls(trace, layer, kind) == network_calls, (layer, kind)
    for layer, kind in (("joint.output", Kind.MATMUL), ("joint.output", Kind.SOFTMAX), ("search.scores", Kind.SEND)):
        assert rows(trace, layer, kind).sum() == totals.joint_rows, layer
        assert calls(trace, layer, kind) == totals.joint_calls, layer
    fused = rows(trace, "search.fusion", Kind.ELEMENTWISE)
    assert fused.sum() == (totals.joint_rows if MODELS[decode.lm] else 0)
    assert set(trace.components) == {"encoder", "prediction", "joint", "search", *MODELS[decode.lm]}


@settings(max_examples=30, deadline=None)
@given(decodes())
def test_the_host_decides_once_a_step_and_launches_every_call(decode: DecodeSettings) -> None:
    workload = load_workload("rnnt_swb300")
    plan = schedule(decode, speech_statistics(workload, FRAMES))
    trace = utterance_trace(workload, decode, FRAMES)
    host = trace.kind == Kind.HOST
    assert np.array_equal(trace.m[host], plan.joint_rows)
    assert np.array_equal(trace.k[host], plan.hypotheses)
    totals = plan.totals()
    launched = totals.prediction_calls + decode.language_models * totals.lm_calls + totals.joint_calls
    assert int(trace.m[trace.kind == Kind.LAUNCH].sum()) == launched


@settings(max_examples=30, deadline=None)
@given(decodes())
def test_a_batch_is_one_call_a_step_and_separate_calls_have_one_row_each(decode: DecodeSettings) -> None:
    trace = utterance_trace(load_workload("rnnt_swb300"), decode, FRAMES)
    lm_layer, lm_calls = "external_lm.embedding", decode.batched_lm
    for layer, kind, batched in (
        ("prediction.embedding", Kind.LOOKUP, decode.batched_prediction),
        ("joint.output", Kind.MATMUL, decode.batched_joint),
        *([(lm_layer, Kind.LOOKUP, lm_calls)] if decode.language_models else []),
    ):
        chosen = (trace.layer == trace.layers.index(layer)) & (trace.kind == kind)
        if batched:
            assert np.bincount(trace.iteration[chosen]).max() == 1, layer
        else:
            assert trace.m[chosen].max() <= 1, layer


@pytest.mark.parametrize("algorithm", ["greedy", "alsd", "tsd", "maes"])
def test_projections_that_are_not_hoisted_are_done_for_every_joint_row(algorithm: Any) -> None:
    workload = load_workload("rnnt_swb300")
    hoisted = DecodeSettings(algorithm=algorithm, beam=1 if algorithm == "greedy" else 4)
    totals = schedule(hoisted, speech_statistics(workload, FRAMES)).totals()
    encoder, prediction = 1280 * 256, 768 * 256
    before = utterance_trace(workload, hoisted, FRAMES).totals().macs
    for switches, change in (
        ({"hoisted_encoder_projection": False}, (totals.joint_rows - FRAMES) * encoder),
        ({"hoisted_prediction_projection": False}, (totals.joint_rows - totals.prediction_rows) * prediction),
    ):
        trace = utterance_trace(workload, replace(hoisted, **switches), FRAMES)
        assert trace.totals().macs - before == change
        assert trace.totals().parameters == workload.networks.totals().parameters


def test_a_hoisted_projection_is_the_encoders_time_and_the_joints_weight() -> None:
    workload = load_workload("rnnt_swb300")
    trace = utterance_trace(workload, DecodeSettings(beam=2, lm="none"), FRAMES)
    assert rows(trace, "encoder.projection", Kind.MATMUL).tolist() == [FRAMES]
    assert trace.totals("encoder").parameters == 54_231_040
    assert trace.totals("joint").parameters == 536_622


def test_greedy_search_picks_its_label_on_the_device() -> None:
    workload = load_workload("rnnt_swb300")
    greedy = utterance_trace(workload, DecodeSettings(algorithm="greedy", beam=1), FRAMES)
    steps = schedule(DecodeSettings(algorithm="greedy", beam=1), speech_statistics(workload, FRAMES)).steps
    assert calls(greedy, "search.best", Kind.TOPK) == steps
    assert set(greedy.n[greedy.kind == Kind.SEND]) == {2}
    alsd = utterance_trace(workload, DecodeSettings(beam=4), FRAMES)
    assert not np.any(alsd.kind == Kind.TOPK)
    assert set(alsd.n[alsd.kind == Kind.SEND]) == {46}


@pytest.mark.parametrize("lm", list(MODELS))
def test_scores_are_fused_from_each_language_model(lm: Any) -> None:
    trace = utterance_trace(load_workload("rnnt_swb300"), DecodeSettings(beam=2, lm=lm), FRAMES)
    fused = trace.function == Function.FUSE_SCORES
    assert set(trace.k[fused].tolist()) == ({len(MODELS[lm])} if lm != "none" else set())
    read = {
        trace.tensors[t].name
        for op in np.flatnonzero(fused)
        for t in trace.operand_tensor[trace.operand_ptr[op] : trace.operand_ptr[op + 1]]
    }
    logits = {"joint.output.logits", "search.scores", *(f"{name}.output.logits" for name in MODELS[lm])}
    assert read == (logits if lm != "none" else set())


def test_a_step_waits_for_the_scores_of_the_step_before() -> None:
    """The host reads what the last SEND of the step before has written; every network waits for the host."""
    trace = utterance_trace(load_workload("rnnt_swb300"), DecodeSettings(beam=2, lm="none"), FRAMES)
    hosts, sends = np.flatnonzero(trace.kind == Kind.HOST), np.flatnonzero(trace.kind == Kind.SEND)
    for host, send in zip(hosts[1:], sends, strict=False):
        assert send in trace.dep[trace.dep_ptr[host] : trace.dep_ptr[host + 1]]
    waits = reaches(trace, trace.kind == Kind.HOST)
    in_search = trace.loop == trace.loop.max()
    assert np.all(
        waits[in_search & (trace.kind != Kind.HOST)] == trace.iteration[in_search & (trace.kind != Kind.HOST)]
    )


def reaches(trace: Trace, marked: np.ndarray) -> np.ndarray:
    """Latest iteration of a marked operation that each operation depends on, itself or through others; -1 for none."""
    latest = np.full(len(trace), -1)
    for op in range(len(trace)):
        before = trace.dep[trace.dep_ptr[op] : trace.dep_ptr[op + 1]]
        latest[op] = max([trace.iteration[op] if marked[op] else -1, *latest[before]])
    return latest


@pytest.mark.parametrize(("name", "frames", "audio_s"), [("rnnt_swb300", 12, 0.24), ("rnnt_mlperf", 9, 0.27)])
def test_a_trace_says_what_made_it(name: str, frames: int, audio_s: float) -> None:
    workload = load_workload(name)
    trace = utterance_trace(workload, default_settings(workload), frames)
    assert trace.meta == {"workload": name, "frames": frames, "audio_s": pytest.approx(audio_s)}
    assert {t.format for t in trace.tensors} == {"fp32"}
    assert trace.name == name


def test_the_same_decode_gives_the_same_trace_and_one_that_was_built_anew_is_equal() -> None:
    workload = load_workload("rnnt_swb300")
    decode = DecodeSettings(beam=3)
    first = utterance_trace(workload, decode, FRAMES)
    assert utterance_trace(workload, DecodeSettings(beam=3), FRAMES) is first
    assert equal(utterance_trace.__wrapped__(workload, decode, FRAMES), first)
    assert not equal(utterance_trace(workload, DecodeSettings(beam=2), FRAMES), first)


def test_every_row_has_room_in_its_tensor() -> None:
    """No operation of a search touches more elements of an activation than the tensor has."""
    decode = DecodeSettings(beam=5, hoisted_encoder_projection=False)
    trace = utterance_trace(load_workload("rnnt_swb300"), decode, FRAMES)
    sizes = np.array([t.elements for t in trace.tensors])
    weight = np.array([t.role == Role.WEIGHT for t in trace.tensors])
    kept = ~weight[trace.operand_tensor]
    assert np.all(trace.operand_elements[kept] <= sizes[trace.operand_tensor[kept]])


def test_defaults_come_from_the_network_and_what_is_named_replaces_them() -> None:
    swb, mlperf = load_workload("rnnt_swb300"), load_workload("rnnt_mlperf")
    given_by = swb.spec.decode
    settings = default_settings(swb)
    assert (settings.algorithm, settings.beam, settings.lm) == (given_by.algorithm, given_by.beam, "density-ratio")
    assert (settings.u_max_ratio, settings.lm_cache) == (given_by.u_max_ratio, given_by.lm_cache)
    greedy = default_settings(mlperf)
    assert (greedy.algorithm, greedy.beam, greedy.lm) == ("greedy", 1, "none")
    named = default_settings(swb, beam=3, algorithm="tsd", lm="shallow")
    assert (named.algorithm, named.beam, named.lm) == ("tsd", 3, "shallow")
    assert default_settings(swb, algorithm="greedy").beam == 1


def test_a_workload_may_name_adaptive_expansion(tmp_path: Path) -> None:
    text = (data_folder("workloads") / "digits.yaml").read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(text.replace("algorithm: alsd", "algorithm: maes"), encoding="utf-8")
    mine = load_workload(tmp_path / "mine.yaml")
    settings = default_settings(mine)
    assert settings.algorithm == "maes"
    plan = schedule(settings, speech_statistics(mine, FRAMES))
    trace = utterance_trace(mine, settings, FRAMES)
    assert rows(trace, "joint.output", Kind.MATMUL).tolist() == plan.joint_rows.tolist()


@pytest.mark.parametrize(
    ("name", "options", "frames", "said"),
    [
        ("rnnt_swb300", {}, 0, "frames must be at least 1, got 0"),
        ("rnnt_swb300", {}, -5, "frames must be at least 1, got -5"),
        ("rnnt_swb300", {}, 8.5, "frames must be an integer, got 8.5"),
        ("rnnt_swb300", {}, "8", "frames must be an integer, got '8'"),
        ("rnnt_swb300", {"beam": 0}, 9, "beam must be at least 1, got 0"),
        ("rnnt_swb300", {"algorithm": "greedy", "beam": 2}, 9, "beam must be 1 for greedy, got 2"),
        ("rnnt_swb300", {"algorithm": "asld"}, 9,
         "algorithm must be greedy, alsd, tsd or maes, got 'asld'; nearest: alsd, tsd, maes"),
        ("rnnt_swb300", {"lm": "fusion"}, 9,
         "lm must be none, shallow or density-ratio, got 'fusion'; known: density-ratio, none, shallow"),
        ("rnnt_mlperf", {"lm": "shallow"}, 9,
         "lm shallow must have external_lm in workload rnnt_mlperf, got no language model"),
        ("rnnt_mlperf", {"lm": "density-ratio"}, 9,
         "lm density-ratio must have source_lm in workload rnnt_mlperf, got no language model"),
    ],
)  # fmt: skip
def test_a_decode_that_cannot_be_is_a_message(name: str, options: dict[str, Any], frames: Any, said: str) -> None:
    workload = load_workload(name)
    with pytest.raises(HwsimError) as raised:
        utterance_trace(workload, default_settings(workload, **options), frames)
    assert str(raised.value) == said


def test_settings_that_need_a_language_model_which_is_not_there_are_a_message() -> None:
    settings = DecodeSettings(algorithm="greedy", beam=1, lm="shallow")
    with pytest.raises(HwsimError, match=r"^lm shallow must have external_lm in workload rnnt_mlperf, got no language"):
        utterance_trace(load_workload("rnnt_mlperf"), settings, FRAMES)


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("name", ["rnnt_swb300", "rnnt_mlperf"])
def test_the_shortest_utterances_have_a_trace(name: str, frames: int) -> None:
    workload = load_workload(name)
    trace = utterance_trace(workload, default_settings(workload), frames)
    assert rows(trace, "joint.output", Kind.MATMUL).sum() >= workload.encoder_frames(frames)


def test_an_utterance_that_was_saved_and_loaded_takes_the_same_cycles(tmp_path: Any) -> None:
    workload = load_workload("rnnt_swb300")
    trace = utterance_trace(workload, default_settings(workload, beam=3), FRAMES).with_precision(load_policy("int4"))
    save_trace(trace, tmp_path / "t")
    arch = load_arch("rapid_4core")
    mine, loaded = run_trace(arch, trace), run_trace(arch, load_trace(tmp_path / "t"))
    assert mine.schedule.cycles == loaded.schedule.cycles
    assert np.array_equal(mine.schedule.end, loaded.schedule.end)
    assert np.array_equal(mine.energy_pj, loaded.energy_pj)


def test_a_plan_of_its_own_is_recorded_as_it_is() -> None:
    """The rows that a search evaluated, and no others, are those of the trace."""
    workload = load_workload("rnnt_swb300")
    settings = default_settings(workload, beam=4)
    plan = schedule(settings, SpeechStatistics(20, 5))
    trace = decode_trace(workload, settings, 20, plan)
    assert rows(trace, "joint.output", Kind.MATMUL).tolist() == plan.joint_rows.tolist()
    assert rows(trace, "prediction.embedding", Kind.LOOKUP).tolist() == plan.prediction_rows.tolist()
    with pytest.raises(HwsimError, match=r"^a plan must read frames below 7, got 19$"):
        decode_trace(workload, settings, 7, plan)
