"""The bifocal encoder: counts, each frame in one of two encoders, projections of both, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.decode.search import default_settings, utterance_trace
from hwsim.errors import HwsimError
from hwsim.extract import Workload, load_network, load_workload, parameter_counts
from hwsim.extract.encoder_spec import BifocalEncoderSpec
from hwsim.numerics import NumberFormat, load_policy
from hwsim.simulation import simulate
from hwsim.trace import Kind, Role, Trace
from hwsim.validate.catalogue import catalogue_executable
from hwsim.validate.quantize import FEATURES
from tests.extract.conftest import Change

NAME = "rnnt_bifocal_gq"
LEFT, RIGHT = "encoder_left", "encoder_right"


def small(left_frames: int = 3) -> Workload:
    """The network with layers of a few cells."""
    spec = load_network(NAME).spec
    sizes = {"input": 4, "layers": 2, "left_cells": 3, "right_cells": 5, "left_frames": left_frames}
    return Workload.of(spec.model_copy(update={
        "encoder": spec.encoder.model_copy(update=sizes),
        "prediction": spec.prediction.model_copy(update={"vocabulary": 9, "embedding": 6, "cells": 6}),
        "joint": spec.joint.model_copy(update={"size": 7, "outputs": 10}),
    }))  # fmt: skip


def trace_of(workload: Workload, frames: int) -> Trace:
    return utterance_trace(workload, default_settings(workload), frames)


def steps(trace: Trace, component: str) -> np.ndarray:
    """Frames that run through each layer of an encoder."""
    layers = sorted(name for name in trace.layers if name.startswith(f"{component}.layer"))
    lstm = trace.kind == Kind.LSTM
    return np.array([trace.m[lstm & (trace.layer == trace.layers.index(name))].sum() for name in layers])


def test_the_network_has_these_parameters() -> None:
    """Five layers of 256 beside five of 1024, the first on 192 features, and the left part of the joint."""
    counts = parameter_counts(load_workload(NAME))
    plain = parameter_counts(load_workload("rnnt_gq"))
    left = 4 * 256 * (192 + 256 + 2) + 4 * 4 * 256 * (512 + 2)
    joint = plain["joint"] + 256 * 640
    assert counts == {
        LEFT: left, RIGHT: plain["encoder"], "prediction": plain["prediction"], "joint": joint,
        "acoustic": left + plain["encoder"] + plain["prediction"] + joint,
    }  # fmt: skip
    assert left == 2_566_144


@given(st.integers(1, 12), st.integers(0, 14))
def test_each_frame_runs_in_one_encoder(frames: int, left_frames: int) -> None:
    trace = trace_of(small(left_frames), frames)
    left = min(left_frames, frames)
    for component, count in ((LEFT, left), (RIGHT, frames - left)):
        assert steps(trace, component).tolist() == [count] * 2
        assert (component in trace.components) is (count > 0)
    assert trace.totals(LEFT).macs == left * (12 * (4 + 3) + 12 * (3 + 3) + 3 * 7)
    assert trace.totals(RIGHT).macs == (frames - left) * (20 * (4 + 5) + 20 * (5 + 5) + 5 * 7)


@given(st.integers(1, 12), st.integers(0, 14))
def test_both_are_stored_whatever_runs(frames: int, left_frames: int) -> None:
    trace = trace_of(small(left_frames), frames)
    assert trace.totals(LEFT).parameters == 12 * (4 + 3 + 2) + 12 * (3 + 3 + 2)
    assert trace.totals(RIGHT).parameters == 20 * (4 + 5 + 2) + 20 * (5 + 5 + 2)
    assert trace.totals("joint").parameters == (3 + 5 + 6) * 7 + 7 + 7 * 10 + 10


def test_the_search_waits_for_the_frames_of_both_and_neither_encoder_for_the_other() -> None:
    trace = trace_of(small(), 8)
    of = {name: np.flatnonzero(trace.component == trace.components.index(name)) for name in (LEFT, RIGHT)}
    projection = {name: int(of[name][-1]) for name in of}
    layers = [trace.layers[trace.layer[at]] for at in projection.values()]
    assert layers == [f"{LEFT}.projection", f"{RIGHT}.projection"]
    assert [int(trace.m[at]) for at in projection.values()] == [3, 5]
    assert projection[LEFT] in trace.dep[trace.dep_ptr[projection[RIGHT]] : trace.dep_ptr[projection[RIGHT] + 1]]
    inside = [trace.dep[trace.dep_ptr[at] : trace.dep_ptr[at + 1]] for at in of[RIGHT][:-1]]
    assert not set(np.concatenate(inside).tolist()) & set(of[LEFT].tolist())
    join = int(np.flatnonzero(trace.layer == trace.layers.index("joint.output"))[0])
    assert projection[RIGHT] in trace.dep[trace.dep_ptr[join] : trace.dep_ptr[join + 1]]


def test_the_first_frames_of_an_utterance_are_cheaper() -> None:
    network = load_network(NAME)
    result = simulate("edge_npu_stream", network, "gq-bifocal-5555", frames=40)
    left, right = result.components[LEFT], result.components[RIGHT]
    assert left.macs == 20 * (1024 * (192 + 256) + 4 * 1024 * 512 + 256 * 640)
    assert right.macs == 20 * (4096 * (192 + 1024) + 4 * 4096 * 2048 + 1024 * 640)
    assert 8 * left.dram_bytes < right.dram_bytes
    assert left.latency_s < right.latency_s / 8
    assert result.run.trace.totals().parameters == parameter_counts(network)["acoustic"]


@pytest.mark.parametrize(
    ("policy", "bits"),
    [
        ("gq-bifocal-8888", (8, 8, 8, 8, 8, 8)),
        ("gq-bifocal-5558", (8, 5, 8, 5, 8, 8)),
        ("gq-bifocal-5555", (5, 5, 5, 5, 5, 5)),
        ("gq-bifocal-1555", (1, 1, 5, 5, 5, 5)),
    ],
)
def test_bits_of_the_published_configurations(policy: str, bits: tuple[int, ...]) -> None:
    trace = load_network(NAME).networks.with_precision(load_policy(policy))
    formats = {t.name: t.format for t in trace.tensors if t.role == Role.WEIGHT}
    names = (f"{LEFT}.layer0.wx", f"{LEFT}.layer4.wh", f"{RIGHT}.layer0.wh", f"{RIGHT}.layer1.wx",
             "joint.left_projection.weight", "joint.output.weight")  # fmt: skip
    assert tuple(NumberFormat.parse(formats[name]).code_bits for name in names) == bits


def test_policies_of_the_bifocal_network_fit_the_plain_one() -> None:
    plain = load_network("rnnt_gq").networks
    for name in ("gq-bifocal-8888", "gq-bifocal-5558", "gq-bifocal-5555", "gq-bifocal-1555"):
        assert plain.with_precision(load_policy(name)).totals().parameters == plain.totals().parameters


def test_what_a_bifocal_network_cannot_do() -> None:
    workload = small()
    settings = replace(default_settings(workload), hoisted_encoder_projection=False)
    with pytest.raises(HwsimError, match=r"^hoisted_encoder_projection must be true for a bifocal encoder, got false$"):
        utterance_trace(workload, settings, 8)
    for name, kind in ((NAME, "bifocal"), ("conformer_production", "cascaded")):
        said = f"^an encoder to be validated must be one, of kind lstm or conformer, got {kind}$"
        with pytest.raises(HwsimError, match=said):
            catalogue_executable(load_network(name), load_policy("fp32"), {}, {FEATURES: np.zeros((4, 192))}, Path("w"))


def test_a_mistake_in_a_bifocal_encoder_is_one_line(change: Change) -> None:
    for old, new, said in (
        ("  left_cells: 256", "  left_cell: 256",
         "encoder.left_cell must be a known key, got 'left_cell'; nearest: left_cells"),
        ("  left_frames: 20", "  left_frames: -1", "encoder.left_frames must be at least 0, got -1"),
    ):  # fmt: skip
        with pytest.raises(HwsimError) as raised:
            load_workload(change({old: new}, NAME))
        assert f": {said}" in str(raised.value)
    assert isinstance(load_network(NAME).spec.encoder, BifocalEncoderSpec)
