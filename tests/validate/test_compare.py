"""The comparison itself: that it finds nothing where nothing is, and each rule that is swapped."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from hwsim.errors import HwsimError  # noqa: E402
from hwsim.execute.executor import Executable  # noqa: E402
from hwsim.execute.recurrence import LstmRules  # noqa: E402
from hwsim.numerics.calibration import BoundAware, Sawb  # noqa: E402
from hwsim.numerics.quantizers import Quantizer  # noqa: E402
from hwsim.numerics.tables import fixed_table  # noqa: E402
from hwsim.train import QuantEmbedding, QuantLinear, QuantLSTM, convert, export, record  # noqa: E402
from hwsim.train.export import Converted  # noqa: E402
from hwsim.validate import Budget, compare  # noqa: E402

X = "encoder.input.features"


def power(step: float, bits: int = 8) -> Quantizer:
    return Quantizer(np.asarray(step), bits, narrow=True)


def features(frames: int, inputs: int, seed: int = 0) -> dict[str, Any]:
    return {X: np.random.default_rng(seed).standard_normal((frames, inputs))}


def bidirectional(layers: int, cells: int, inputs: int, gain: float = 2.5) -> QuantLSTM:
    torch.manual_seed(0)
    network = QuantLSTM(inputs, cells, layers, bidirectional=True).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(gain)
    return network


def free_running(layers: int, frames: int) -> None:
    network = bidirectional(layers, 640, 340)
    report = compare(export(network, frames, "encoder"), network, features(frames, 340), "T1", "free-running")
    assert report.passed, str(report)
    assert report.mismatches == 0
    assert report.elements == frames * 1280 * layers


def test_t1_two_layers_of_640() -> None:
    free_running(2, 80)


def test_t1_six_layers_of_640_over_400_steps() -> None:
    """3,072,000 hidden codes, free running."""
    free_running(6, 400)


def test_t1_language_model_of_2_by_2048_over_400_steps() -> None:
    """1,861,600 codes: embeddings, hidden states of two layers, 8-bit logits."""
    torch.manual_seed(1)
    network = torch.nn.Sequential(OrderedDict(
        embedding=QuantEmbedding(46, 512, weight=Sawb()), lm=QuantLSTM(512, 2048, 2, input=None),
        output=QuantLinear(2048, 46, weight=Sawb(), output=BoundAware(4.0, 8)),
    )).double()  # fmt: skip
    labels = {"embedding.labels": np.random.default_rng(0).integers(0, 46, 400)}
    report = compare(export(network, 400), network, labels)
    assert report.passed, str(report)
    assert report.mismatches == 0
    assert report.elements >= 1_000_000


def mutable() -> tuple[torch.nn.Module, Converted, dict[str, Any]]:
    """A network on powers of two, so that exact ties are common."""
    torch.manual_seed(2)
    network = torch.nn.Sequential(OrderedDict(
        encoder=QuantLSTM(24, 48, 1, input=power(2.0**-3, 4), hidden=power(2.0**-6), weight=power(2.0**-5, 4),
                          cell=Quantizer(np.asarray(2.0**-8), 16)),
        joint=QuantLinear(48, 32, weight=power(2.0**-5, 4), output=power(2.0**-7), bias=False),
    )).double()  # fmt: skip
    x = np.random.default_rng(3).integers(-14, 15, (60, 24)) * 2.0**-4
    return network, convert(network, 60), {X: x}


def changed(converted: Converted, which: Callable[[str], bool], **fields: Any) -> Executable:
    grids = {k: replace(q, **fields) if which(k) else q for k, q in converted.quantizers.items()}
    return Executable(converted.trace, converted.codes, grids, rules=converted.rules)


MUTATIONS: dict[str, Callable[[Converted], Executable]] = {
    "input ties up": lambda c: changed(c, lambda k: k in (X, "encoder.layer0.wx.input"), ties="half_up"),
    "input ties away": lambda c: changed(c, lambda k: k in (X, "encoder.layer0.wx.input"), ties="half_away"),
    "output ties up": lambda c: changed(c, lambda k: k == "joint.out", ties="half_up"),
    "output ties down": lambda c: changed(c, lambda k: k == "joint.out", ties="half_down"),
    "output truncated": lambda c: changed(c, lambda k: k == "joint.out", ties="toward_zero"),
    "hidden truncated": lambda c: changed(c, lambda k: k == "encoder.layer0.h", ties="toward_zero"),
    "cell truncated": lambda c: changed(c, lambda k: k == "encoder.layer0.c", ties="toward_zero"),
    "output form": lambda c: changed(c, lambda k: k == "joint.out", form="unit"),
    "weight scale": lambda c: changed(c, lambda k: k == "encoder.layer0.wh", scale=np.asarray(2.0**-5 * 1.01)),
    "input scale": lambda c: changed(c, lambda k: k in (X, "encoder.layer0.wx.input"), scale=np.asarray(0.126)),
    "gate order": lambda c: Executable(c.trace, c.codes, c.quantizers, rules=LstmRules(gate_order="igfo")),
    "tables truncated": lambda c: Executable(c.trace, c.codes, c.quantizers, rules=LstmRules(
        fixed_table("sigmoid", ties="toward_zero"), fixed_table("tanh", ties="toward_zero"))),
    "one weight": lambda c: Executable(c.trace, {**c.codes, "encoder.layer0.wh": one_off(c.codes)}, c.quantizers),
}  # fmt: skip


def one_off(codes: dict[str, Any]) -> Any:
    weights = codes["encoder.layer0.wh"].copy()
    largest = np.unravel_index(np.abs(weights).argmax(), weights.shape)
    weights[largest] *= -1
    return weights


def test_the_unchanged_network_passes() -> None:
    network, converted, inputs = mutable()
    report = compare(converted.executable(), network, inputs, mode="both")
    assert report.passed, str(report)
    steps = record(network, inputs).steps["joint.out"]
    assert np.count_nonzero(np.abs(steps) % 1 == 0.5) > 20


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_swapped_rule_fails(name: str) -> None:
    network, converted, inputs = mutable()
    report = compare(MUTATIONS[name](converted), network, inputs)
    assert not report.passed, name
    assert report.mismatches > 0
    broken = next(layer for layer in report.layers if not layer.passed)
    assert broken.first_index is not None
    assert broken.tie_distance is not None
    assert "T1 broken" in broken.verdict


def test_ties_are_seen_as_ties() -> None:
    network, converted, inputs = mutable()
    report = compare(MUTATIONS["output ties up"](converted), network, inputs)
    layer = next(layer for layer in report.layers if not layer.passed)
    assert (layer.tensor, layer.max_delta, layer.tie_distance) == ("joint.out", 1.0, 0.0)


def test_t2_against_float32() -> None:
    network = bidirectional(2, 160, 80).float()
    report = compare(export(network, 100, "encoder"), network, features(100, 80), "T2")
    assert report.passed, str(report)
    assert {layer.mode for layer in report.layers} == {"teacher-forced"}


def test_t2_refuses_what_is_not_a_tie() -> None:
    network = bidirectional(1, 16, 8)
    executable, inputs = export(network, 30, "encoder"), features(30, 8)
    recording = record(network, inputs, "encoder")
    name = "encoder.layer0.forward_h"
    for delta, message in ((2, "differ by more than one"), (1, "not shown to be within")):
        codes = {name: recording.codes[name].copy()}
        codes[name][29, 3] += delta
        layer = compare(executable, codes, inputs, "T2", reals={name: recording.steps[name]},
                        budget=None if delta == 2 else Budget(0.1)).layers[0]  # fmt: skip
        assert not layer.passed
        assert message in layer.verdict
        assert (layer.first_index, layer.first_step) == ((29, 3), 29)
    assert compare(executable, codes, inputs, "T3").passed
    assert "more than 0.0001 of the codes" in compare(executable, codes, inputs, "T2").layers[0].verdict


def test_the_first_step_of_a_reversed_layer_is_its_last_frame() -> None:
    network = bidirectional(1, 16, 8)
    executable, inputs = export(network, 30, "encoder"), features(30, 8)
    codes = record(network, inputs, "encoder").codes
    codes["encoder.layer0.backward_h"][[4, 20]] += 1
    layer = next(la for la in compare(executable, codes, inputs, "T3").layers if la.mismatches)
    assert (layer.first_step, layer.mismatches) == (20, 32)


def test_the_report() -> None:
    network = bidirectional(1, 16, 8)
    executable, inputs = export(network, 30, "encoder"), features(30, 8)
    report = compare(executable, network, inputs, mode="both")
    assert "0 of 480, < 6.3e-03 at 95 %; equal" in str(report)
    assert str(report).endswith("passed: 0 of 1,920 codes, < 1.6e-03 at 95 %")
    assert len(report.to_frame()) == 4
    document = report.to_dict()
    assert (document["tier"], document["passed"], document["elements"]) == ("T1", True, 1920)
    assert document["layers"][0]["count"] == "0 of 480, < 6.3e-03 at 95 %"


def test_what_it_refuses() -> None:
    network = bidirectional(1, 4, 3)
    executable, inputs = export(network, 5, "encoder"), features(5, 3)
    codes = {"encoder.layer0.forward_h": np.zeros((5, 4), int)}
    for reference, options, message in (
        ({"encoder.layer0.foward_h": codes}, {}, "'encoder.layer0.foward_h' must be an output of the trace; nearest"),
        (codes, {"tier": "T4"}, "tier must be one of T0, T1, T2, T3, got 'T4'"),
        (codes, {"mode": "free"}, "mode must be one of free-running, teacher-forced, both, got 'free'"),
        ({}, {}, "must hold codes of at least one output for T1, got none"),
        ({k: v[1:] for k, v in codes.items()}, {}, r"the reference must be of shape \(5, 4\), got \(4, 4\)"),
        ({k: v * 1.0 for k, v in codes.items()}, {}, "the reference must hold codes, got float64"),
    ):
        with pytest.raises(HwsimError, match=message):
            compare(executable, reference, inputs, **options)
