"""The shipped networks: published parameter counts, work by hand, and the messages of a wrong file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hwsim import catalogue
from hwsim.errors import ConfigError, HwsimError
from hwsim.extract import Workload, load_network, load_workload, parameter_counts
from hwsim.extract.encoder import encoder_frames
from hwsim.extract.rnnt import emit_encoder
from hwsim.trace import Function, Kind, Role, Trace, TraceBuilder
from tests.extract.conftest import Change

CTC = ("usm_1b", "usm_2b", "usm_600m")
NAMES = (
    "conformer_gq", "conformer_l", "conformer_m", "conformer_production", "conformer_s", "digits", "digits_conformer",
    "rnnt_bifocal_gq", "rnnt_gq", "rnnt_mlperf", "rnnt_swb300", "tdnnf_searched", "tdnnf_swbd", "transformer_lm_30k",
    *CTC,
)  # fmt: skip


def encoder_trace(workload: Workload, frames: int) -> Trace:
    b = TraceBuilder("t")
    emit_encoder(b, workload.spec.encoder, frames)
    return b.build()


def message(name_or_path: str | Path) -> str:
    with pytest.raises(HwsimError) as raised:
        load_workload(name_or_path)
    return str(raised.value)


def test_the_catalogue_lists_these_networks() -> None:
    assert catalogue.names("workloads") == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_those_that_the_source_prints(name: str) -> None:
    workload = load_network(name)
    published = workload.definition.published
    counts = parameter_counts(workload)
    assert set(published.parameters) <= set(counts)
    for component, parameters in published.parameters.items():
        assert counts[component] == pytest.approx(parameters, rel=published.relative_tolerance, abs=0), component


def test_mlperf_has_exactly_its_45_323_037_parameters() -> None:
    """MLPerf inference reference model, counted from its definition."""
    counts = parameter_counts(load_workload("rnnt_mlperf"))
    assert counts == {"encoder": 42_967_040, "prediction": 1_652_480, "joint": 703_517, "acoustic": 45_323_037}


def test_swb300_has_these_parameters() -> None:
    """arXiv 2206.07882 prints 57 M, 84 M and 5 M; the rest follows from the shapes of its section 2."""
    counts = parameter_counts(load_workload("rnnt_swb300"))
    assert counts == {
        "encoder": 54_231_040, "prediction": 2_396_620, "joint": 536_622, "external_lm": 84_107_310,
        "source_lm": 4_795_438, "acoustic": 54_231_040 + 2_396_620 + 536_622,
    }  # fmt: skip
    assert [round(counts[name] / 1e6) for name in ("acoustic", "external_lm", "source_lm")] == [57, 84, 5]


CONFORMERS = {
    "conformer_s": (16, 144, 32, 80, (144, 144)), "conformer_m": (16, 256, 32, 80, (256, 256)),
    "conformer_l": (17, 512, 32, 80, (512, 512)), "conformer_gq": (14, 256, 15, 64, (128, 128)),
    "usm_2b": (32, 1536, 5, 128, (128, 32)), "usm_1b": (42, 1024, 5, 128, (128, 32)),
    "usm_600m": (24, 1024, 5, 128, (128, 32)),
}  # fmt: skip
"""Blocks, width, kernel, features, channels of the two convolutions."""


@pytest.mark.parametrize("name", CONFORMERS)
def test_parameters_of_a_conformer_by_hand(name: str) -> None:
    """24 d^2 + (k + 32) d a block; two convolutions of 3 x 3; a quarter of the features times channels to d."""
    layers, d, kernel, features, (first, second) = CONFORMERS[name]
    front = 9 * first + first + 9 * first * second + second + features // 4 * second * d + d
    assert parameter_counts(load_workload(name))["encoder"] == layers * (24 * d * d + (kernel + 32) * d) + front


@pytest.mark.parametrize(("name", "cells"), [("conformer_s", 320), ("conformer_m", 640), ("conformer_l", 640)])
def test_decoders_of_the_librispeech_conformers_by_hand(name: str, cells: int) -> None:
    d, counts = CONFORMERS[name][1], parameter_counts(load_workload(name))
    assert counts["prediction"] == 1024 * 320 + 4 * cells * (320 + cells + 2)
    assert counts["joint"] == (d + 1 + cells + 1) * 320 + (320 + 1) * 1024


def test_what_of_the_published_counts_is_met_to_the_last_digit_printed() -> None:
    """Two are not: the large Conformer has 118.8 M in print, and the RNN-T of the general quantizer 61.0 M."""
    names = ("conformer_s", "conformer_m", "conformer_l", "rnnt_gq")
    counts = {name: parameter_counts(load_workload(name))["acoustic"] for name in names}
    assert {name: round(count / 1e6, 1) for name, count in counts.items()} == {
        "conformer_s": 10.3, "conformer_m": 30.7, "conformer_l": 118.6, "rnnt_gq": 60.8,
    }  # fmt: skip


def test_rnnt_gq_has_these_parameters() -> None:
    counts = parameter_counts(load_workload("rnnt_gq"))
    gates, cells, pieces = 4 * 1024, 1024, 2500
    assert counts["encoder"] == gates * (192 + cells + 2) + 4 * gates * (2 * cells + 2)
    assert counts["prediction"] == pieces * cells + 2 * gates * (2 * cells + 2)
    assert counts["joint"] == (2 * cells + 1) * 640 + (640 + 1) * (pieces + 1)


def test_an_lstm_layer_has_two_products_and_two_biases() -> None:
    trace = encoder_trace(load_workload("rnnt_mlperf"), 2)
    first = {t.name.rpartition(".")[2]: (t.role, t.shape) for t in trace.tensors if t.layer == "encoder.layer0"}
    assert first == {
        "features": (Role.ACTIVATION, (2, 240)), "wx": (Role.WEIGHT, (240, 4096)), "wh": (Role.WEIGHT, (1024, 4096)),
        "bias_x": (Role.BIAS, (4096,)), "bias_h": (Role.BIAS, (4096,)), "gates_x": (Role.STATE, (2, 4096)),
        "gates_h": (Role.STATE, (1, 4096)), "c": (Role.STATE, (1, 1024)), "h": (Role.ACTIVATION, (2, 1024)),
    }  # fmt: skip


@pytest.mark.parametrize("frames", [1, 2, 7])
def test_macs_of_a_bidirectional_encoder_by_hand(frames: int) -> None:
    gates = 4 * 640
    first, others = 340 + 640, 5 * (1280 + 640)
    trace = encoder_trace(load_workload("rnnt_swb300"), frames)
    assert trace.totals().macs == 2 * frames * gates * (first + others)
    assert set(np.unique(trace.branch)) == {0, 1}


@pytest.mark.parametrize(("frames", "stacked"), [(1, 1), (6, 3), (7, 4)])
def test_macs_of_an_encoder_that_stacks_its_frames_by_hand(frames: int, stacked: int) -> None:
    """Two layers at the full rate, the third reads two frames at once, three layers at half of it."""
    workload = load_workload("rnnt_mlperf")
    gates = 4 * 1024
    full, half = (240 + 1024) + (1024 + 1024), (2048 + 1024) + 2 * (1024 + 1024)
    assert encoder_frames(workload.spec.encoder, frames) == workload.encoder_frames(frames) == stacked
    assert encoder_trace(workload, frames).totals().macs == gates * (frames * full + stacked * half)


def test_the_two_directions_of_a_layer_do_not_wait_for_each_other_but_the_next_layer_waits_for_both() -> None:
    trace = encoder_trace(load_workload("rnnt_swb300"), 2)
    owner = np.repeat(np.arange(len(trace)), np.diff(trace.dep_ptr))
    same_layer = trace.layer[owner] == trace.layer[trace.dep]
    assert np.array_equal(trace.branch[owner[same_layer]], trace.branch[trace.dep[same_layer]])
    crossing = {(int(trace.layer[o]), int(trace.branch[d])) for o, d in zip(owner, trace.dep, strict=True)
                if trace.layer[o] != trace.layer[d]}  # fmt: skip
    assert crossing == {(layer, branch) for layer in range(1, 6) for branch in (0, 1)}


def test_audio_seconds_follow_the_frame_period() -> None:
    assert load_workload("rnnt_mlperf").audio_seconds(207) == pytest.approx(6.21)
    assert load_workload("rnnt_swb300").audio_seconds(152) == pytest.approx(3.04)


@pytest.mark.parametrize(
    ("combine", "activation", "function", "biases"),
    [
        ("add", "tanh", Function.ADD_TANH, 2),
        ("add", "relu", Function.ADD_RELU, 2),
        ("multiply", "tanh", Function.MULTIPLY_TANH, 2),
        ("multiply", "relu", Function.MULTIPLY_RELU, 2),
        ("concatenate", "tanh", Function.ADD_TANH, 1),
        ("concatenate", "relu", Function.ADD_RELU, 1),
    ],
)
def test_every_joint_gives_a_trace(
    change: Change, combine: str, activation: str, function: Function, biases: int
) -> None:
    made = change({"combine: multiply": f"combine: {combine}", "activation: tanh": f"activation: {activation}"})
    workload = load_workload(made)
    trace = workload.networks
    elementwise = trace.kind == Kind.ELEMENTWISE
    assert trace.function[elementwise].tolist() == [int(function)]
    assert parameter_counts(workload)["joint"] == (1280 + 768) * 256 + biases * 256 + (256 + 1) * 46
    assert trace.totals("joint").macs == (1280 + 768) * 256 + 256 * 46


def test_a_language_model_may_read_its_embedding_in_every_layer(change: Change) -> None:
    plain = load_workload(change({"    dense_inputs: true\n": ""}))
    dense, sparse = parameter_counts(load_workload("rnnt_swb300")), parameter_counts(plain)
    assert dense["external_lm"] - sparse["external_lm"] == 2048 * 4 * 2048


def test_inputs_side_by_side_keep_their_own_widths(change: Change) -> None:
    """An embedding of 512 beside 2048 cells: the second layer reads 512 and 2048 elements a row."""
    workload = load_workload(change({"embedding: 2048": "embedding: 512"}))
    trace = workload.networks
    layer = trace.layers.index("external_lm.layer1")
    op = int(np.flatnonzero((trace.layer == layer) & (trace.kind == Kind.MATMUL))[0])
    entries = slice(trace.operand_ptr[op], trace.operand_ptr[op + 1])
    names = [trace.tensors[t].name for t in trace.operand_tensor[entries]]
    read = dict(zip(names, trace.operand_elements[entries].tolist(), strict=True))
    assert (read["external_lm.embedding.row"], read["external_lm.layer0.h"]) == (512, 2048)


def test_a_network_of_the_users_is_found_by_its_path(change: Change) -> None:
    path = change({"name: rnnt_swb300": "name: mine", "size: 256": "size: 512"})
    workload = load_workload(path)
    assert (workload.name, workload.spec.joint.size) == ("mine", 512)
    assert workload == load_workload(str(path))
    assert workload.digest != load_workload("rnnt_swb300").digest


def test_a_file_that_has_changed_is_read_again(change: Change) -> None:
    path = change({"size: 256": "size: 512"})
    before = load_workload(path)
    path.write_text(path.read_text(encoding="utf-8").replace("size: 512", "size: 128"), encoding="utf-8")
    assert before.spec.joint.size == 512
    assert load_workload(path).spec.joint.size == 128


def test_equal_content_is_an_equal_workload(change: Change) -> None:
    same = load_workload(change({"frame_period_s: 0.02": "frame_period_s: 2e-2"}))
    assert same == load_workload("rnnt_swb300")
    assert hash(same) == hash(load_workload("rnnt_swb300"))
    assert load_workload("rnnt_mlperf") != same


def test_an_unknown_network_names_the_nearest() -> None:
    assert message("rnnt_swb") == "unknown workload 'rnnt_swb'; nearest: rnnt_swb300, tdnnf_swbd, rnnt_gq"
    assert message("x") == f"unknown workload 'x'; known: {', '.join(NAMES)}"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert message(tmp_path / "no.yaml") == f"{tmp_path / 'no.yaml'}: must be a file, got nothing there"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  bidirectional: true", "  bidirectionel: true",
         "encoder.bidirectionel must be a known key, got 'bidirectionel'; nearest: bidirectional"),
        ("  beam: 16", "  bean: 16", "decode.bean must be a known key, got 'bean'; nearest: beam"),
        ("    dense_inputs: true", "    dense_input: true",
         "language_models.external_lm.dense_input must be a known key, got 'dense_input'; nearest: dense_inputs"),
        ("  layers: 6", "  layers: 0", "encoder.layers must be at least 1, got 0"),
        ("  cells: 640", "  cells: many", "encoder.cells must be an integer, got 'many'"),
        ("  combine: multiply", "  combine: sum",
         "joint.combine must be one of 'add', 'multiply' or 'concatenate', got 'sum'"),
        ("frame_period_s: 0.02 ", "frame_period_s: 0 ", "frame_period_s must be greater than 0, got 0"),
        ("  u_max_ratio: 0.5", "  u_max_ratio: 1.5", "decode.u_max_ratio must be at most 1, got 1.5"),
        ("family: rnnt", "family: conformer", "family must be one of 'rnnt', 'ctc', 'hybrid' or 'lm', got 'conformer'"),
        ("  frames: 152", "  beam: 152", "each key must be given once, got 'beam' twice"),
        ("  source_lm:", "  other_lm:",
         "language_models.other_lm must be one of 'external_lm' or 'source_lm', got 'other_lm'"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_file_is_one_line(change: Change, old: str, new: str, said: str) -> None:
    path = change({old: new})
    text = path.read_text(encoding="utf-8")
    line = 1 + text[: text.rindex(new)].count("\n")
    assert message(path) == f"{path}:{line}: {said}"
    with pytest.raises(ConfigError):
        load_workload(path)


def test_a_language_model_must_have_outputs_and_a_prediction_network_none(change: Change) -> None:
    path = change({"    cells: 768\n    outputs: 46\n": "    cells: 768\n"})
    assert message(path).startswith(f"{path}:1: the file must be such that language_models.source_lm.outputs is given")
    path = change({"  cells: 768\n  source: >-\n": "  cells: 768\n  outputs: 4\n  source: >-\n"})
    said = "the file must be such that prediction has no outputs (the joint network has them)"
    assert message(path).startswith(f"{path}:1: {said}")


def test_frames_are_stacked_before_a_layer_that_exists(change: Change) -> None:
    path = change({"stack_before_layer: 2": "stack_before_layer: 5"}, "rnnt_mlperf")
    assert ": encoder must be such that stack_before_layer is below layers (5), got " in message(path)


def test_a_key_that_is_left_out_is_named(change: Change) -> None:
    path = change({"name: rnnt_swb300\n": ""})
    assert message(path) == f"{path}:1: name must be given in the file, got nothing"
