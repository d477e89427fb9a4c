"""Hybrid networks and language models alone: what is traced, what is outside, how many hypotheses, and refusals."""

from __future__ import annotations

import numpy as np
import pytest

from hwsim.decode.search import default_settings, utterance_trace
from hwsim.errors import ConfigError, HwsimError
from hwsim.extract import Workload, load_network, load_workload, parameter_counts
from hwsim.extract.hybrid import OUTSIDE
from hwsim.extract.spec import HybridSpec, LanguageModelSpec
from hwsim.numerics import load_policy
from hwsim.simulation import simulate
from hwsim.sweep import SweepRequest
from hwsim.sweep.grid import points
from hwsim.trace import Kind, Role, Trace, TraceBuilder
from tests.extract.conftest import Change

HYBRID, ALONE = "tdnnf_swbd", "transformer_lm_30k"
LM = "rescoring_lm"


def trace_of(name: str, frames: int, **changes: str) -> Trace:
    workload = load_workload(name)
    return utterance_trace(workload, default_settings(workload, changes=changes), frames)


def kinds_of(trace: Trace, component: str) -> list[Kind]:
    at = trace.component == trace.components.index(component)
    return [Kind(int(kind)) for kind in trace.kind[at]]


def test_scores_go_to_the_host_and_hypotheses_are_rescored() -> None:
    trace = trace_of(HYBRID, 304)
    assert trace.components == ("encoder", "head", "search", LM)
    assert kinds_of(trace, "head") == [Kind.MATMUL]  # sums as they are, without a log-softmax
    assert kinds_of(trace, "search") == [Kind.SEND, Kind.LAUNCH]
    assert kinds_of(trace, LM)[-1] == Kind.SEND
    assert trace.meta["outside"] == OUTSIDE
    send, launch, start, last = (int(at) for at in (
        *np.flatnonzero(np.isin(trace.kind, [Kind.SEND, Kind.LAUNCH]))[:2],
        np.flatnonzero(trace.component == trace.components.index(LM))[0], len(trace) - 1,
    ))  # fmt: skip
    assert (trace.m[send], trace.n[send]) == (102, 6034)  # 304 frames are 102 at a third of the rate
    assert [trace.dep[trace.dep_ptr[at]] for at in (launch, start)] == [send, launch]
    # 3.04 s at 3 words a second are 10 words; one score of each word of each hypothesis goes back.
    assert (trace.m[last], trace.n[last]) == (20, 10)


def test_work_of_rescoring_by_hand() -> None:
    """Matrices once for each word of each hypothesis, and two products of all pairs of words of one."""
    model = load_network(HYBRID).definition.rescoring_lm  # type: ignore[union-attr]
    assert model is not None
    for count in (1, 7):
        found = trace_of(HYBRID, 304, n_best=str(count)).totals(LM)
        assert found.macs == count * (10 * model.weights + model.layers * 2 * 10 * 10 * model.width)
        assert found.parameters == model.parameters


def test_without_hypotheses_there_is_no_language_model() -> None:
    assert trace_of(HYBRID, 304, n_best="0").components == ("encoder", "head", "search")
    settings = {n: default_settings(load_workload(HYBRID), changes={"n_best": n}) for n in ("0", "20")}
    results = {n: simulate("edge_npu", HYBRID, "int4", settings=settings[n]) for n in settings}
    assert results["0"].latency_s < results["20"].latency_s
    assert results["0"].components["encoder"].macs == results["20"].components["encoder"].macs


def test_time_is_that_of_the_scores_then_of_the_language_model() -> None:
    result = simulate("edge_npu", HYBRID, "int4", frames=100)
    assert sum(part.cycles for part in result.components.values()) == pytest.approx(result.cycles, abs=10)
    assert result.components[LM].cycles > 0
    assert any("HCLG" in line for line in result.assumptions)
    assert not [line for line in result.assumptions if line.startswith("decode.")]


def test_a_language_model_alone_scores_hypotheses() -> None:
    workload = load_workload(ALONE)
    assert isinstance(workload, Workload)
    assert isinstance(workload.definition, LanguageModelSpec)
    assert (workload.decode.frames, workload.labels, workload.n_best) == (10, 30_000, 20)
    assert workload.audio_seconds(10) == pytest.approx(10 / 3)
    assert workload.encoder_frames(10) == 10
    trace = trace_of(ALONE, 10)
    assert trace.components == ("lm",)
    assert trace.totals().macs == trace_of(HYBRID, 304).totals(LM).macs
    assert set(parameter_counts(workload)) == {"lm"}
    one = TraceBuilder("t")
    (out,) = workload.emit_encoder(one, 10)
    assert one.build().tensors[out].shape == (10, 30_000)


def test_a_table_that_is_multiplied_has_the_precision_of_the_output_layer() -> None:
    """int4 keeps look-ups in FP16; a product of 30,000 columns in FP16 would be most of the time."""
    trace = load_workload(ALONE).networks.with_precision(load_policy("int4"))
    formats = {t.name: t.format for t in trace.tensors}
    assert (formats["lm.embedding.table"], formats["lm.embedding.row"]) == ("int4", "fp16")


def test_the_counts_of_a_hybrid_network() -> None:
    counts = parameter_counts(load_workload(HYBRID))
    assert counts["acoustic"] == counts["encoder"] + counts["head"] == 16_363_922
    assert counts["acoustic_training"] == 18_702_628
    assert counts[LM] == parameter_counts(load_workload(ALONE))["lm"]
    networks = load_workload(HYBRID).networks
    assert {t.component for t in networks.tensors if t.role == Role.WEIGHT} == {"encoder", "head", LM}


def test_a_head_may_have_a_softmax(change: Change) -> None:
    path = change({"  log_softmax: false  # lattice-free MMI takes the sums as log-likelihoods\n": ""}, HYBRID)
    workload = load_workload(path)
    b = TraceBuilder("t")
    workload.emit_encoder(b, 30)
    assert [Kind(int(kind)) for kind in b.build().kind[-2:]] == [Kind.MATMUL, Kind.SOFTMAX]


WHY = {HYBRID: "its search in a decoding graph is outside", ALONE: "it has no search"}


@pytest.mark.parametrize("name", [HYBRID, ALONE])
@pytest.mark.parametrize(("option", "value"), [("beam", 4), ("algorithm", "alsd"), ("lm", "shallow")])
def test_options_of_a_search_are_refused(name: str, option: str, value: object) -> None:
    said = (f"^{'decoder' if option == 'algorithm' else option} must be left out for {name}, got {value}: "
            rf"{WHY[name]}; --set decode\.n_best is how many hypotheses are rescored$")  # fmt: skip
    with pytest.raises(HwsimError, match=said):
        default_settings(load_workload(name), **{option: value})  # type: ignore[arg-type]
    values = {"beam": "beams", "algorithm": "decoders", "lm": "lms"}[option]
    with pytest.raises(HwsimError, match=said):
        points(SweepRequest(["edge_npu"], name, **{values: [value]}))  # type: ignore[arg-type]


def test_what_means_no_search_is_taken() -> None:
    settings = default_settings(load_workload(HYBRID), beam=1, algorithm="greedy", lm="none")
    assert settings == default_settings(load_workload(HYBRID))
    (point,) = points(SweepRequest(["edge_npu"], HYBRID))
    assert (point.decoder, point.beam, point.lm, point.frames) == ("greedy", 1, "none", 304)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("rnnt_mlperf", "3", "n_best must be left out for rnnt_mlperf, got 3: no hypotheses are rescored"),
        ("usm_600m", "0", "n_best must be left out for usm_600m, got 0: no hypotheses are rescored"),
        (ALONE, "0", f"n_best must be at least 1 for {ALONE}, a language model alone, got 0"),
        (HYBRID, "-1", "n_best must be at least 0, got -1"),
        (HYBRID, "many", "n_best must be an integer, got 'many'"),
    ],
)
def test_hypotheses_that_nothing_rescores(name: str, value: str, said: str) -> None:
    with pytest.raises(HwsimError, match=f"^{said}$"):
        default_settings(load_workload(name), changes={"n_best": value})


def without_model(change: Change, **more: str) -> Workload:
    text = load_network(HYBRID)
    assert isinstance(text.definition, HybridSpec)
    from hwsim import catalogue

    lines = catalogue.find("workloads", "workload", HYBRID).read_text(encoding="utf-8").split("\n")
    start, end = lines.index("rescoring_lm:"), lines.index("decode:")
    return load_network(change({"\n".join(lines[start:end]) + "\n": "", **more}, HYBRID))


def test_a_network_without_a_language_model(change: Change) -> None:
    workload = without_model(change, **{"  n_best: 20\n": ""})
    assert workload.n_best == 0
    settings = default_settings(workload)
    assert utterance_trace(workload, settings, 30).components == ("encoder", "head", "search")
    assert utterance_trace(workload, default_settings(workload, changes={"n_best": "0"}), 30).meta["outside"] == OUTSIDE
    with pytest.raises(HwsimError, match="n_best must be 0 for tdnnf_swbd, which has no rescoring_lm, got 5"):
        default_settings(workload, changes={"n_best": "5"})


def test_files_that_do_not_fit(change: Change) -> None:
    with pytest.raises(ConfigError, match=r"such that decode\.n_best is 0 without a rescoring_lm, not 20"):
        without_model(change)
    for old, new, said in (
        ("  n_best: 20\n", "", "such that decode.n_best is 1 or more with a rescoring_lm, not 0"),
        ("  n_best: 20", "  beam: 20", "decode.beam must be a known key, got 'beam'"),
        ("family: hybrid", "family: hmm", "family must be one of 'rnnt', 'ctc', 'hybrid' or 'lm', got 'hmm'"),
        ("  small: 256\n", "", "encoder.small must be given"),
    ):
        with pytest.raises(ConfigError) as raised:
            load_network(change({old: new}, HYBRID))
        assert said in str(raised.value)
        assert "\n" not in str(raised.value)
    with pytest.raises(HwsimError, match=f"^{ALONE}: must be a transducer, of family rnnt, got lm$"):
        _ = load_network(ALONE).spec
    with pytest.raises(HwsimError, match=f"^{HYBRID}: must be a transducer, of family rnnt, got hybrid$"):
        _ = load_network(HYBRID).spec


def test_a_branch_of_training_is_of_a_factored_network(change: Change) -> None:
    path = change({"family: ctc": "family: hybrid\ntraining_branch: true"}, "usm_600m")
    with pytest.raises(ConfigError, match="such that training_branch is false, as the encoder is conformer"):
        load_network(path)
    workload = load_network(change({"family: ctc": "family: hybrid"}, "usm_600m"))
    assert isinstance(workload.definition, HybridSpec)
    assert workload.definition.training_parameters == 0
    assert set(parameter_counts(workload)) == {"encoder", "head", "acoustic"}
