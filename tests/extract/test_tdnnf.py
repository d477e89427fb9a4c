"""Factored time-delay networks as operations: which frames, counts by hand, and what they compute in reals."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hwsim.errors import HwsimError
from hwsim.execute.executor import Executable
from hwsim.extract import load_network, load_workload
from hwsim.extract.encoder import encoder_frames
from hwsim.extract.encoder_spec import TdnnfEncoderSpec
from hwsim.extract.rnnt import emit_encoder
from hwsim.extract.tdnnf import factored_layers, input_frames, outputs_of, spliced_features
from hwsim.trace import Function, Kind, Role, Trace, TraceBuilder
from tests.extract.conftest import Change

STRIDES = (1, 1, 1, 0, *(3,) * 10)
SEARCHED = (80, 100, 80, 25, 80, 80, 80, 50, 80, 50, 25, 100, 160, 160)


def spec(**changes: Any) -> TdnnfEncoderSpec:
    values: dict[str, Any] = {
        "kind": "tdnnf", "input": 4, "ivector": 3, "width": 10, "bottlenecks": 5, "strides": (1, 1, 0, 3), "small": 6,
        "large": 8, "source": "test",
    }  # fmt: skip
    return TdnnfEncoderSpec(**(values | changes))


def trace_of(encoder: TdnnfEncoderSpec, frames: int) -> Trace:
    b = TraceBuilder("t")
    (x,) = emit_encoder(b, encoder, frames)
    trace = b.build()
    assert trace.tensors[x].name == "encoder.prefinal.small.out"
    assert trace.tensors[x].shape == (encoder_frames(encoder, frames), encoder.small)
    return trace


def shipped(name: str = "tdnnf_swbd") -> TdnnfEncoderSpec:
    encoder = load_network(name).definition.encoder  # type: ignore[union-attr]
    assert isinstance(encoder, TdnnfEncoderSpec)
    return encoder


def needed(strides: tuple[int, ...], outputs: range) -> list[tuple[set[int], set[int]]]:
    """Frames of the input and of the bottleneck of each layer that some output needs, by sets."""
    found, after = list[tuple[set[int], set[int]]](), set(outputs)
    for s in reversed(strides):
        z = after | {t + s for t in after}
        after = after | z | {t - s for t in z}
        found.insert(0, (after, z))
    return found


def turns_late(strides: list[int], factor: int) -> bool:
    return next((s for s in reversed(strides) if s % factor), 0) < factor


@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.integers(1, 3), st.integers(1, 6))
def test_every_frame_that_is_needed_is_computed(strides: list[int], factor: int, count: int) -> None:
    assume(turns_late(strides, factor))
    encoder = spec(strides=tuple(strides), subsampling=factor)
    layers = factored_layers(encoder, count)
    for layer, (before, _) in zip(layers, needed(tuple(strides), range(0, factor * count, factor)), strict=True):
        assert before <= set(range(layer.before.first, layer.before.last + 1, layer.before.step))
    assert outputs_of(encoder, layers[0].before.count) == count
    assert encoder.context == sum(strides) + 1


@given(st.lists(st.sampled_from([0, 1, 3]), min_size=1, max_size=6), st.integers(1, 5))
def test_no_other_frame_is_computed_at_a_third_of_the_rate(strides: list[int], count: int) -> None:
    """Strides of 1 below those of 3 leave no gap, and the layer at the turn has both phases of its bottleneck."""
    encoder = spec(strides=tuple(strides), subsampling=3, bottlenecks=tuple(range(5, 5 + len(strides))))
    trace = trace_of(encoder, 3 * count)
    wanted = needed(tuple(strides), range(0, 3 * count, 3))
    layers = factored_layers(encoder, count)
    for index, (layer, (before, bottleneck)) in enumerate(zip(layers, wanted, strict=True)):
        assert before == set(range(layer.before.first, layer.before.last + 1, layer.before.step))
        rows = [t.shape[0] for t in trace.tensors if t.name.startswith(f"encoder.layer{index}.linear") and
                t.name.endswith(".out")]  # fmt: skip
        assert len(rows) == (2 if layer.turns else 1)
        # At the turn z(t) and z(t + stride) are apart unless the stride brings one onto another.
        assert sum(rows) == len(bottleneck)


def test_the_published_network_sees_34_frames_on_each_side() -> None:
    encoder = shipped()
    assert (encoder.strides, encoder.context, encoder.inputs) == (STRIDES, 34, 220)
    assert shipped("tdnnf_searched").bottlenecks == SEARCHED
    rows = input_frames(encoder, 300)
    # Beside each of them stand its neighbours.
    assert (rows.first - 1, rows.last + 1, rows.count) == (-34, 297 + 34, 298 + 66)
    before = [layer.before for layer in factored_layers(encoder, 100)]
    assert [frames.step for frames in before] == [1, 1, 1, *[3] * 11]
    assert [frames.first for frames in before] == [-33, -32, -31, -30, -30, *range(-27, 0, 3)]


def test_work_for_a_second_of_audio_by_hand() -> None:
    """0.7144 GMAC: two layers at the full rate, the third at a third of it with two thirds of its bottleneck."""
    workload, macs = load_workload("tdnnf_swbd"), []
    for frames in (3000, 6000):
        b = TraceBuilder("t")
        workload.emit_encoder(b, frames)
        macs.append(int(b.build().macs.sum()))
    full, third, matrix = 100, Fraction(100, 3), 2 * 1536 * 160
    prefinal = 1536 * 256 + 2 * 256 * 1536 + 256 * 6034
    turn = 2 * third * matrix + third * matrix
    hand = full * (220 * 1536 + 2 * 2 * matrix) + turn + third * (matrix + 10 * 2 * matrix + prefinal)
    assert Fraction(macs[1] - macs[0], 30) == hand
    assert round(float(hand) / 1e9, 4) == 0.7144
    assert round(float(hand - turn + full * 2 * matrix) / 1e9, 2) == 0.76


def test_parameters_by_hand() -> None:
    """Matrices and biases, nothing of batch norms; a second branch has the last two matrices and the outputs again."""
    for name, sizes, counts in (
        ("tdnnf_swbd", (160,) * 14, (16_363_922, 18_702_628)),
        ("tdnnf_searched", SEARCHED, (10_081_682, 12_420_388)),
    ):
        branch = (256 + 1) * 1536 + 1536 * 256 + (256 + 1) * 6034
        layers = sum((2 if s else 1) * 2 * 1536 * size + 1536 for s, size in zip(STRIDES, sizes, strict=True))
        hand = 221 * 1536 + layers + 1536 * 256 + branch
        assert (hand, hand + branch) == counts
        trace = load_workload(name).networks
        assert sum(trace.totals(part).parameters for part in ("encoder", "head")) == hand
        assert load_network(name).definition.training_parameters == branch  # type: ignore[union-attr]


def test_operations_of_each_kind_of_layer() -> None:
    trace = trace_of(spec(strides=(1, 1, 0, 3)), 12)
    rows = zip(trace.kind, trace.layer, trace.m, strict=True)
    kinds = [(Kind(int(kind)).name, trace.layers[layer], int(m)) for kind, layer, m in rows]
    assert kinds == [
        ("MATMUL", "encoder.affine", 20), ("ELEMENTWISE", "encoder.affine", 20),
        ("CONV1D", "encoder.layer0.linear", 19), ("CONV1D", "encoder.layer0.affine", 18),
        ("ELEMENTWISE", "encoder.layer0", 18),
        ("CONV1D", "encoder.layer1.linear", 6), ("CONV1D", "encoder.layer1.linear_late", 6),
        ("MATMUL", "encoder.layer1.affine", 6), ("ELEMENTWISE", "encoder.layer1", 6),
        ("MATMUL", "encoder.layer2.linear", 6), ("MATMUL", "encoder.layer2.affine", 6),
        ("ELEMENTWISE", "encoder.layer2", 6),
        ("CONV1D", "encoder.layer3.linear", 5), ("CONV1D", "encoder.layer3.affine", 4),
        ("ELEMENTWISE", "encoder.layer3", 4),
        ("MATMUL", "encoder.prefinal.linear", 4), ("MATMUL", "encoder.prefinal.affine", 4),
        ("ELEMENTWISE", "encoder.prefinal.affine", 4), ("MATMUL", "encoder.prefinal.small", 4),
    ]  # fmt: skip
    functions = [Function(int(f)) for f in trace.function if f]
    assert functions == [Function.RELU, *[Function.RELU_ADD] * 4, Function.RELU]
    assert trace.attributes["encoder.layer1"] == {"scale": 0.66, "first": 1, "step": 3}
    assert trace.attributes["encoder.layer1.linear_late"] == {"padding": [0, 0], "stride": 3, "dilation": 1, "first": 1}
    assert trace.attributes["encoder.layer3"] == {"scale": 0.66, "first": 1, "step": 1}
    late = next(t for t in trace.tensors if t.name == "encoder.layer1.linear_late.out")
    assert late.layer == "encoder.layer1.linear"  # of one precision with what is computed at the other phase


def test_a_late_phase_waits_for_its_input_and_the_affine_layer_for_both() -> None:
    trace = trace_of(spec(), 12)

    def waits(at: int) -> list[int]:
        return trace.dep[trace.dep_ptr[at] : trace.dep_ptr[at + 1]].tolist()

    assert [waits(at) for at in (5, 6, 7, 8)] == [[4], [4], [5, 6], [4, 7]]


def definition(encoder: TdnnfEncoderSpec, given: dict[str, np.ndarray], features: np.ndarray, vector: np.ndarray,
               t: int) -> np.ndarray:  # fmt: skip
    """What the encoder gives at frame t, by recursion over frames."""

    def matrix(name: str) -> np.ndarray:
        weight = given[f"encoder.{name}.weight"]
        return weight.reshape(-1, weight.shape[-1])

    def hidden(layer: int, at: int) -> np.ndarray:
        if layer < 0:
            spliced = [features[min(max(at + d, 0), len(features) - 1)] for d in (-1, 0, 1)]
            x = np.concatenate([*spliced, vector])
            return np.maximum(x @ matrix("affine") + given["encoder.affine.bias"], 0)
        name, s = f"layer{layer}", encoder.strides[layer]

        def z(when: int) -> np.ndarray:
            parts = [hidden(layer - 1, when - s), hidden(layer - 1, when)] if s else [hidden(layer - 1, when)]
            return np.concatenate(parts) @ matrix(f"{name}.linear")

        both = np.concatenate([z(at), z(at + s)]) if s else z(at)
        y = both @ matrix(f"{name}.affine") + given[f"encoder.{name}.affine.bias"]
        return np.maximum(y, 0) + encoder.bypass * hidden(layer - 1, at)

    small = hidden(len(encoder.strides) - 1, t) @ matrix("prefinal.linear")
    large = np.maximum(small @ matrix("prefinal.affine") + given["encoder.prefinal.affine.bias"], 0)
    return large @ matrix("prefinal.small")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=3), st.integers(1, 3), st.integers(1, 8))
def test_rows_are_those_of_the_definition(strides: list[int], factor: int, frames: int) -> None:
    assume(turns_late(strides, factor))
    encoder = spec(strides=tuple(strides), subsampling=factor)
    trace, rng = trace_of(encoder, frames), np.random.default_rng(0)
    given = {t.name: rng.standard_normal(t.shape) / 2 for t in trace.tensors if t.role in (Role.WEIGHT, Role.BIAS)}
    features, vector = rng.standard_normal((frames, 4)), rng.standard_normal(3)
    x = spliced_features(encoder, features, vector)
    out = Executable(trace, given, {}).run({"encoder.input.features": x})["encoder.prefinal.small.out"]
    for row, t in enumerate(range(0, frames, factor)):
        np.testing.assert_allclose(out[row], definition(encoder, given, features, vector, t), rtol=1e-9, atol=1e-9)


def test_spliced_frames_stand_between_their_neighbours() -> None:
    encoder = spec(strides=(1,), subsampling=1, input=1, ivector=2)
    x = spliced_features(encoder, [[1.0], [2.0], [4.0]], [7.0, 8.0])
    assert x.tolist() == [[1, 1, 1, 7, 8], [1, 1, 2, 7, 8], [1, 2, 4, 7, 8], [2, 4, 4, 7, 8], [4, 4, 4, 7, 8]]
    by_frame = spliced_features(encoder, [[1.0], [2.0], [4.0]], [[1, 0], [2, 0], [3, 0]])
    assert by_frame[:, 3].tolist() == [1, 1, 2, 3, 3]
    assert spliced_features(spec(strides=(3,), ivector=0), np.ones((4, 4))).shape == (4, 12)


def test_input_that_does_not_fit() -> None:
    encoder = spec()
    for features, vector, said in (
        (np.zeros((5, 3)), np.zeros(3), r"features must be \(frames, 4\), got \(5, 3\)"),
        (np.zeros((0, 4)), np.zeros(3), r"features must be \(frames, 4\), got \(0, 4\)"),
        (np.zeros((5, 4)), np.zeros(4), r"ivector must be \(3,\) or \(5, 3\), got \(4,\)"),
        (np.zeros((5, 4)), np.zeros((6, 3)), r"ivector must be \(3,\) or \(5, 3\), got \(6, 3\)"),
    ):
        with pytest.raises(HwsimError, match=said):
            spliced_features(encoder, features, vector)
    for rows in (10, 12, 3):
        with pytest.raises(HwsimError, match=f"frames of the input must be 11 and a multiple of 3 more, got {rows}"):
            outputs_of(encoder, rows)
    assert [outputs_of(encoder, rows) for rows in (11, 14, 20)] == [1, 2, 4]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bottlenecks": (5, 6)}, "such that bottlenecks are 4, as strides, not 2"),
        ({"bottlenecks": 0}, "greater than or equal to 1"),
        ({"strides": ()}, "at least 1 item"),
        ({"strides": (1, 4, 3)}, r"the last of strides that subsampling \(3\) does not divide is below it, not 4"),
        ({"strides": (1, -1)}, "greater than or equal to 0"),
        ({"subsampling": 4}, "less than or equal to 3"),
        ({"bypass": 0}, "greater than 0"),
        ({"stride": 3}, "stride"),
    ],
)
def test_a_definition_that_does_not_fit(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        spec(**change)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  bottlenecks: 160", "  bottlenecks: [160, 80]",
         "encoder must be such that bottlenecks are 14, as strides, not 2"),
        ("  subsampling: 3", "  subsampling: 4", "encoder.subsampling must be at most 3, got 4"),
        ("  small: 256", "  smal: 256", "encoder.smal must be a known key, got 'smal'"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_is_one_line(change: Change, old: str, new: str, said: str) -> None:
    with pytest.raises(HwsimError) as raised:
        load_workload(change({old: new}, "tdnnf_swbd"))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
