"""Cascaded encoders and blocks without attention: counts, work, what waits for what, two passes and one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim import catalogue
from hwsim.arch import load_arch
from hwsim.decode.search import decode_trace, default_settings, speech_statistics, utterance_trace
from hwsim.decode.settings import DecodeSettings
from hwsim.decode.statistics import schedule
from hwsim.errors import HwsimError
from hwsim.execute.executor import Executable
from hwsim.extract import Workload, load_network, load_workload, parameter_counts
from hwsim.extract.conformer import AttentionSpec, ConformerSpec
from hwsim.extract.encoder import block_spec
from hwsim.extract.encoder_spec import CascadedEncoderSpec, ConformerEncoderSpec
from hwsim.extract.rnnt import emit_encoder
from hwsim.simulation import simulate
from hwsim.trace import Kind, Role, Trace, TraceBuilder
from tests.extract.conftest import Change

STACK = {"kind": "stack", "factor": 2}
FIRST: dict[str, Any] = {
    "kind": "conformer", "input": 10, "subsampling": STACK, "layers": 3, "attention_from": 2, "width": 12, "heads": 3,
    "kernel": 4, "causal": True, "left": 5, "right": 0, "source": "test",
}  # fmt: skip
SECOND: dict[str, Any] = {
    **FIRST, "input": 12, "subsampling": {"kind": "stack", "factor": 1}, "layers": 2, "attention_from": 0, "width": 8,
    "heads": 2, "causal": False, "right": 3,
}  # fmt: skip
STREAMING = {"right": None, "chunk": 3}


def cascade(first: dict[str, Any] | None = None, second: dict[str, Any] | None = None) -> CascadedEncoderSpec:
    return CascadedEncoderSpec(
        kind="cascaded", source="test",
        first=ConformerEncoderSpec(**{**FIRST, **(first or {})}),
        second=ConformerEncoderSpec(**{**SECOND, **(second or {})}),
    )  # fmt: skip


def small(**changes: dict[str, Any]) -> Workload:
    """conformer_production with encoders of a few channels."""
    spec = load_network("conformer_production").spec
    stack = {"vocabulary": 20, "embedding": 6, "cells": 10}
    return Workload.of(spec.model_copy(update={
        "encoder": cascade(**changes),
        "prediction": spec.prediction.model_copy(update=stack),
        "joint": spec.joint.model_copy(update={"size": 7, "outputs": 20}),
    }))  # fmt: skip


def trace_of(encoder: CascadedEncoderSpec | ConformerEncoderSpec, frames: int, whole: bool = False) -> Trace:
    b = TraceBuilder("t")
    emit_encoder(b, encoder, frames, whole=whole)
    return b.build()


def parameters(trace: Trace, part: str = "") -> int:
    return sum(t.elements for t in trace.tensors if t.role in (Role.WEIGHT, Role.BIAS) and part in t.name)


def needed(trace: Trace, operation: int) -> set[int]:
    """All operations that one waits for, directly or not."""
    found, front = set[int](), [operation]
    while front:
        at = front.pop()
        for before in trace.dep[trace.dep_ptr[at] : trace.dep_ptr[at + 1]].tolist():
            if before not in found:
                found.add(before)
                front.append(before)
    return found


def of(trace: Trace, component: str) -> list[int]:
    """Operations of a component; none of one that has none."""
    if component not in trace.components:
        return []
    return np.flatnonzero(trace.component == trace.components.index(component)).tolist()


@given(st.integers(1, 4), st.integers(0, 4), st.booleans(), st.integers(1, 5))
def test_blocks_without_attention_have_nothing_of_it(layers: int, bare: int, relative: bool, factor: int) -> None:
    """19 D^2 + (k + 24) D with four widths; with attention 24 D^2 + (k + 32) D."""
    bare = min(bare, layers)
    encoder = ConformerEncoderSpec(**{
        **FIRST, "layers": layers, "attention_from": bare, "feed_forward": factor,
        "positions": "relative" if relative else "none",
    })  # fmt: skip
    trace = trace_of(encoder, 8)
    for index in range(layers):
        block = block_spec(encoder, index)
        assert block.attend is (index >= bare)
        assert parameters(trace, f".layer{index}.") == block.parameters
        assert bool(parameters(trace, f".layer{index}.attention")) is block.attend
    assert any(t.name == "position.encoding" for t in trace.tensors) is (relative and bare < layers)
    spec = ConformerSpec(AttentionSpec(12, 3), 4, attend=False)
    assert (spec.parameters, spec.matrix_parameters) == (19 * 144 + (4 + 24) * 12, 19 * 144)


def test_blocks_without_attention_in_chunks_and_whole() -> None:
    """As many products with weights; only blocks that attend keep keys, and project positions before the loop."""
    encoder = ConformerEncoderSpec(**{**FIRST, **STREAMING})
    chunks, whole = trace_of(encoder, 12), trace_of(encoder, 12, whole=True)
    assert parameters(chunks) == parameters(whole)
    before = {chunks.layers[at] for at in chunks.layer[chunks.loop < 0]}
    assert before == {"encoder.layer2.attention.position"}
    assert [name for name in (t.name for t in chunks.tensors) if name.endswith("key.out")] == [
        "encoder.layer2.attention.key.out"
    ]
    depthwise = [int(t.macs[t.kind == Kind.DEPTHWISE].sum()) for t in (chunks, whole)]
    assert depthwise == [6 * 4 * 12 * 3] * 2


def test_a_block_without_attention_is_executed_as_it_is_defined() -> None:
    """Frames of a causal one see no later frame, and none before its kernels."""
    encoder = ConformerEncoderSpec(**{**FIRST, "layers": 1, "attention_from": 1})
    trace = trace_of(encoder, 16)
    rng = np.random.default_rng(0)
    reals = {t.name: rng.standard_normal(t.shape) for t in trace.tensors if t.role in (Role.WEIGHT, Role.BIAS)}
    x = rng.standard_normal((16, 10))
    later, earlier = x.copy(), x.copy()
    later[8:] += 1.0
    earlier[:2] += 1.0
    run = Executable(trace, reals, {}).run
    plain, after, before = (run({"encoder.input.features": given})["encoder.layer0.norm.out"]
                            for given in (x, later, earlier))  # fmt: skip
    assert np.array_equal(plain[:4], after[:4])
    assert not np.isclose(plain[4], after[4]).all()
    assert np.array_equal(plain[4:], before[4:])
    assert not np.isclose(plain[3], before[3]).all()


def test_production_has_these_parameters() -> None:
    """47 M, 60 M and twice 4.4 M, as printed; each by its formula."""
    counts = parameter_counts(load_workload("conformer_production"))
    d, e, kernel = 552, 640, 15
    first = 512 * d + d + 3 * (19 * d * d + (kernel + 24) * d) + 4 * (24 * d * d + (kernel + 32) * d)
    second = d * e + e + 6 * (24 * e * e + (kernel + 32) * e)
    prediction = 4096 * 160 + 4 * 640 * (160 + 640 + 2)
    joints = [(width + 1 + 640 + 1) * 320 + 321 * 4096 for width in (d, e)]
    assert counts == {
        "encoder_first": first, "encoder_second": second, "prediction_first": prediction,
        "prediction_second": prediction, "joint_first": joints[0], "joint_second": joints[1],
        "acoustic": first + second + 2 * prediction + sum(joints),
    }  # fmt: skip
    assert (round(first / 1e6), round(second / 1e6)) == (47, 60)
    assert [round((prediction + joint) / 1e6, 1) for joint in joints] == [4.4, 4.4]


@pytest.mark.parametrize(("part", "bare", "blocks", "before", "published", "found"),
                         [("first", 3, 7, 512, 47, 552), ("second", 0, 6, 552, 60, 640)])  # fmt: skip
def test_no_other_width_gives_the_printed_parameters(
    part: str, bare: int, blocks: int, before: int, published: int, found: int
) -> None:
    def count(width: int) -> int:
        lone, full = (ConformerSpec(AttentionSpec(width, 8), 15, attend=attend) for attend in (False, True))
        return before * width + width + bare * lone.parameters + (blocks - bare) * full.parameters

    widths = [width for width in range(8, 1600, 8) if round(count(width) / 1e6) == published]
    assert widths == [found]
    spec = load_network("conformer_production").spec.encoder
    assert isinstance(spec, CascadedEncoderSpec)
    assert getattr(spec, part).width == found


def test_work_of_both_passes_by_hand() -> None:
    """Products of every block, and those of a search twice; scores and context for all pairs of frames."""
    workload = small()
    settings = default_settings(workload)
    trace = utterance_trace(workload, settings, 14)
    plan = schedule(settings, speech_statistics(workload, 14))
    t, pairs = 7, 7 * 7 + 7 * 13 + 7 * 7  # content scores, position scores, context

    def blocks(d: int, lone: int, full: int) -> int:
        attention = t * 4 * d * d + (2 * t - 1) * d * d + pairs * d
        return (lone + full) * t * (19 * d * d + 4 * d) + full * attention

    joints = (t * 12 * 7, t * 8 * 7)
    encoders = (2 * t * 10 * 12 + blocks(12, 2, 1) + joints[0], t * 12 * 8 + blocks(8, 0, 2) + joints[1])
    assert tuple(trace.totals(f"encoder_{part}").macs for part in ("first", "second")) == encoders
    rows, totals = plan.totals().joint_rows, plan.totals().prediction_rows
    for part in ("first", "second"):
        assert trace.totals(f"joint_{part}").macs == rows * 7 * 20
        assert trace.totals(f"prediction_{part}").macs == totals * (40 * (6 + 10) + 10 * 7)


@pytest.mark.parametrize("first", [{}, STREAMING], ids=["whole", "chunks"])
def test_the_second_pass_waits_for_the_first_encoder_and_not_for_the_first_search(first: dict[str, Any]) -> None:
    workload = small(first=first)
    trace = utterance_trace(workload, default_settings(workload), 14)
    begins = of(trace, "encoder_second")[1 if first else 0]
    own = [at for at in of(trace, "encoder_second") if trace.layers[trace.layer[at]].endswith("subsampling.linear")]
    before = {trace.components[trace.component[at]] for at in needed(trace, own[0])}
    assert before == {"encoder_first"}
    last = max(at for at in of(trace, "encoder_first") if not trace.layers[trace.layer[at]].endswith("projection"))
    assert last in needed(trace, own[0])
    ends = {trace.components[trace.component[at]] for at in needed(trace, len(trace) - 1)}
    assert ends == {"encoder_first", "encoder_second", "prediction_second", "joint_second", "search_second"}
    # In the order of the trace, which is that of one array, the first result comes before the second encoder.
    assert max(of(trace, "joint_first")) < begins


def test_chunks_of_the_first_encoder_are_a_loop_and_the_second_is_not() -> None:
    trace = trace_of(cascade(STREAMING), 15)
    first, second = of(trace, "encoder_first"), of(trace, "encoder_second")
    assert trace.iteration[first].max() == 2  # 8 frames are three chunks
    assert (trace.loop[second] < 0).all()
    shapes = {t.name: t.shape for t in trace.tensors}
    assert shapes["encoder_first.layer2.norm.out"] == (8, 12)
    assert shapes["encoder_second.layer1.norm.out"] == (8, 8)
    assert shapes["position_first.encoding"] == (5 + 2 * 3 - 1, 12)
    assert shapes["position_second.encoding"] == (15, 8)


def test_one_pass_has_no_operation_of_the_other() -> None:
    workload = small()
    settings = default_settings(workload)
    names = {"encoder", "prediction", "joint", "search"}
    both, first, second = (utterance_trace(workload, replace(settings, passes=passes), 14)
                           for passes in ("both", "first", "second"))  # fmt: skip
    assert set(both.components) == {f"{name}_{part}" for name in names for part in ("first", "second")}
    assert set(first.components) == {f"{name}_first" for name in names}
    assert set(second.components) == {"encoder_first", *(f"{name}_second" for name in names)}
    assert len(both) == len(first) + len(second) - (len(of(first, "encoder_first")) - 1)


def test_both_passes_are_timed_and_one_is_faster() -> None:
    workload = small()
    arch = load_arch("edge_npu")
    settings = default_settings(workload)
    times = {
        passes: simulate(arch, workload, "int8", frames=14, settings=replace(settings, passes=passes)).cycles
        for passes in ("both", "first", "second")
    }
    assert times["first"] < times["both"]
    assert times["second"] < times["both"] < times["first"] + times["second"]


def test_a_plan_is_of_both_passes() -> None:
    workload = small()
    settings = default_settings(workload)
    plan = schedule(settings, speech_statistics(workload, 9))
    trace = decode_trace(workload, settings, 9, plan)
    for part in ("first", "second"):
        controls = [at for at in of(trace, f"search_{part}") if trace.kind[at] == Kind.HOST]
        assert trace.m[controls].tolist() == plan.joint_rows.tolist()


def test_passes_that_are_not_there() -> None:
    plain = load_workload("rnnt_gq")
    with pytest.raises(HwsimError, match=r"^passes must be both for rnnt_gq, which has one, got first$"):
        default_settings(plain, changes={"passes": "first"})
    with pytest.raises(HwsimError, match=r"^passes must be both for rnnt_gq, which has one, got second$"):
        utterance_trace(plain, DecodeSettings(lm="none", passes="second"), 4)
    with pytest.raises(HwsimError, match=r"^passes must be both, first or second, got 'third'"):
        DecodeSettings(passes="third")  # type: ignore[arg-type]


def test_language_models_are_of_the_second_pass(change: Change) -> None:
    stack = "{vocabulary: 4096, embedding: 8, layers: 1, cells: 8, outputs: 4096, source: test}"
    path = change({"decode:\n": f"language_models: {{external_lm: {stack}}}\ndecode:\n"}, "conformer_production")
    workload = load_workload(path)
    assert parameter_counts(workload)["external_lm"] == 4096 * 8 + 32 * 18 + 9 * 4096
    trace = utterance_trace(workload, default_settings(workload, lm="shallow"), 6)
    fused = [name for name in trace.layers if name.endswith("fusion")]
    assert fused == ["search_second.fusion"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("    attention_from: 3", "    attention_from: 8",
         "encoder.first must be such that attention_from is at most layers (7), got "),
        ("    input: 552", "    input: 512",
         "encoder must be such that second.input is the width of first (552), got "),
        ("    input: 552\n    subsampling: {kind: stack, factor: 1}",
         "    input: 552\n    subsampling: {kind: stack, factor: 2}",
         "encoder must be such that second.subsampling is {kind: stack, factor: 1}, the rate of first, got "),
    ],
)  # fmt: skip
def test_a_mistake_in_cascaded_encoders_is_one_line(change: Change, old: str, new: str, said: str) -> None:
    with pytest.raises(HwsimError) as raised:
        load_workload(change({old: new}, "conformer_production"))
    assert f": {said}" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["cascaded", "bifocal"])
def test_a_head_reads_one_output(tmp_path: Path, kind: str) -> None:
    network = {"cascaded": "conformer_production", "bifocal": "rnnt_bifocal_gq"}[kind]
    own = catalogue.find("workloads", "workload", network).read_text(encoding="utf-8")
    other = catalogue.find("workloads", "workload", "usm_1b").read_text(encoding="utf-8")
    encoder = own[own.index("encoder:") : own.index("prediction:")]
    path = tmp_path / "mine.yaml"
    path.write_text(other[: other.index("encoder:")] + encoder + other[other.index("head:") :], encoding="utf-8")
    with pytest.raises(HwsimError, match=f"such that the encoder gives one output, which one of kind {kind} does not"):
        load_workload(path)
