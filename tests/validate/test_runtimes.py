"""Executables against onnxruntime and LiteRT: no mismatching code in the matching profile, a breach in another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")

from hwsim.errors import HwsimError
from hwsim.execute.executor import Executable
from hwsim.execute.semantics import PROFILES
from hwsim.numerics.quantizers import Quantizer
from hwsim.trace import Kind
from hwsim.validate import Report, against, compare
from hwsim.validate.oracles.base import with_rules
from hwsim.validate.oracles.litert_products import weight_kind
from tests.validate import networks

LITERT = ("tflite-xnnpack", "tflite-ruy", "tflite-reference")


def without_mismatch(case: networks.Case, runtime: str, profile: str | None = None) -> Report:
    executable, inputs = case
    report = compare(executable, against(runtime, profile), inputs, mode="both")
    assert report.tier == "T0"
    assert report.passed, str(report)
    assert report.mismatches == 0
    return report


@pytest.mark.parametrize(("runtime", "profile"), [("onnxruntime", "onnx"), *(("litert", name) for name in LITERT)])
@pytest.mark.parametrize("case", [networks.mlp, networks.tied])
def test_products(case: Any, runtime: str, profile: str) -> None:
    source = without_mismatch(case(), runtime, profile).source
    assert source is not None
    assert (source.oracle, source.profile, source.partly, source.not_compared) == (runtime, profile, {}, {})
    assert source.notes == ("scales are rounded to float32 on both sides, in which the runtime stores them",)
    assert source.version in source.text


@pytest.mark.parametrize(("runtime", "profile"), [("onnxruntime", "onnx"), *(("litert", name) for name in LITERT)])
def test_another_profile_is_a_breach(runtime: str, profile: str) -> None:
    given, inputs = networks.tied()
    oracle = against(runtime, profile)
    executable = oracle.executable(given)
    computed = oracle.compute(executable, inputs)
    alike = {"onnx": {"tflite-xnnpack", "training", "rapid"}, "tflite-xnnpack": {"onnx", "training", "rapid"}}
    for name, semantics in PROFILES.items():
        if name == "tflite-lstm":
            continue
        report = compare(with_rules(executable, semantics), computed.codes, inputs, "T0", reals=computed.steps)
        assert report.passed == (name == profile or name in alike.get(profile, ())), name
        if not report.passed:
            assert report.layers[0].max_delta == 1.0
            assert report.layers[0].tie_distance in (0.0, 0.25)  # ruy rounds twice: a quarter can become a half


@pytest.mark.parametrize("name", ["lstm", "gru", "lstm step"])
def test_the_sums_of_recurrent_layers_in_onnxruntime(name: str) -> None:
    report = without_mismatch(networks.CASES[name](), "onnxruntime")
    assert report.source is not None
    assert set(report.source.partly.values()) == {"MatMulInteger sums; the rest by the readable reference"}


@pytest.mark.parametrize("name", ["depthwise", "conv1d", "conv2d", "attention"])
def test_convolutions_and_attention_in_onnxruntime(name: str) -> None:
    report = without_mismatch(networks.CASES[name](), "onnxruntime")
    assert report.source is not None
    absent = {"block.attention.probabilities"} if name == "attention" else set()
    assert set(report.source.not_compared) == absent
    for reason in report.source.not_compared.values():
        assert reason == "no integer product with weights; computed by the readable reference"


@pytest.mark.parametrize("name", ["depthwise", "attention"])
def test_a_swapped_tie_rule_of_them_is_a_breach(name: str) -> None:
    given, inputs = networks.CASES[name]()
    powers = {key: replace(q, scale=2.0 ** np.round(np.log2(q.scale))) for key, q in given.quantizers.items()}
    oracle = against("onnxruntime")
    executable = oracle.executable(Executable(given.trace, given.parameters(), powers))
    computed = oracle.compute(executable, inputs)
    assert compare(executable, computed.codes, inputs, "T0").passed
    swapped = with_rules(executable, replace(PROFILES["onnx"], ties="toward_zero"))
    assert not compare(swapped, computed.codes, inputs, "T0").passed


def test_lstm_in_litert() -> None:
    case = networks.recurrent(bits=8, eight_bit=True)
    report = without_mismatch(case, "litert", "tflite-lstm")
    assert [layer.tensor for layer in report.layers][:2] == ["net.forward_h", "net.backward_h"]
    executable = against("litert", "tflite-lstm").executable(case[0])
    codes = against("litert", "tflite-lstm").compute(executable, case[1]).codes
    assert not compare(with_rules(executable, PROFILES["training"]), codes, case[1], "T0").passed


def test_what_litert_does_not_compute_is_listed() -> None:
    executable, inputs = networks.head()
    report = compare(executable, against("litert"), inputs)
    assert [layer.tensor for layer in report.layers] == ["head.logits"]
    assert report.source is not None
    said = "no integer product with weights; computed by the readable reference"
    assert report.source.not_compared == {"head.out": said}
    assert report.to_dict()["against"]["not_compared"] == {"head.out": said}
    assert f"head.out: not compared, {said}" in str(report)


def product(input: Quantizer, weight: Quantizer, output: Quantizer, bias: bool = False) -> networks.Case:
    net = networks.Network("joint")
    net.tensor("x", (30, 16), input)
    net.tensor("out", (30, 8), output)
    net.tensor("last", (30, 8), networks.OUT)
    reads = ["x", net.weight("weight", networks.int_codes(16, 8), weight)]
    reads += [net.vector("bias", networks.noise(8))] if bias else []
    net.op(Kind.MATMUL, reads, "out", m=30, k=16, n=8)
    last = net.weight("last_weight", networks.int_codes(8, 8), networks.quantizer(0.02))
    net.grids["joint.last_weight.input"] = networks.IN
    net.op(Kind.MATMUL, ["out", last], "last", m=30, k=8, n=8)
    return net.build(), {"joint.x": networks.noise(30, 16)}


WEIGHT, ZERO = networks.quantizer(0.03, bits=4), networks.quantizer(0.03, 2, 4)
WIDE = networks.quantizer(0.001, bits=16)
UNSIGNED = networks.quantizer(0.03, 99, signed=False)


@pytest.mark.parametrize(
    ("runtime", "case", "reason"),
    [
        ("onnxruntime", (WIDE, WEIGHT, networks.OUT), "activations of 16 bits have no product there"),
        ("litert", (WIDE, WEIGHT, networks.OUT), "activations of 16 bits have no product there"),
        ("litert", (networks.IN, WEIGHT, WIDE), "an output of 16 bits has no product there"),
        ("litert", (networks.IN, ZERO, networks.OUT), "weights with zero points have no product there"),
    ],
)
def test_products_that_a_runtime_has_not(runtime: str, case: Any, reason: str) -> None:
    report = without_mismatch(product(*case), runtime)
    assert [layer.tensor for layer in report.layers][:1] == ["joint.last"]
    assert report.source is not None
    said = f"joint.weight: {reason}; computed by the readable reference"
    assert report.source.not_compared == {"joint.out": said}


@pytest.mark.parametrize(
    "case", [(UNSIGNED, WEIGHT, networks.OUT), (networks.IN, WEIGHT, UNSIGNED), (UNSIGNED, WEIGHT, UNSIGNED, True)]
)
@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_unsigned_codes_are_moved(runtime: str, case: Any) -> None:
    report = without_mismatch(product(*case), runtime)
    assert len(report.layers) == 4


@pytest.mark.parametrize("output", [networks.OUT, WIDE])
def test_zero_points_of_weights_in_onnxruntime(output: Quantizer) -> None:
    """An output of 16 bits has no node of its own, its sums have."""
    source = without_mismatch(product(networks.IN, ZERO, output), "onnxruntime").source
    assert source is not None
    sums = {"joint.out": "MatMulInteger sums; the rest by the readable reference"}
    assert source.partly == (sums if output is WIDE else {})


def test_group_scales_need_a_real_bias() -> None:
    groups = Quantizer(np.full((4, 8), 0.03), 4, group_size=4)
    with pytest.raises(HwsimError, match=r"^weights with group scales must be run with a real bias, got onnx$"):
        compare(*_given(product(networks.IN, groups, networks.OUT), against("onnxruntime")))


def test_nothing_to_compare_is_refused() -> None:
    for name, runtime, reason in (
        ("swish", "onnxruntime", "pointwise.out: no integer product with weights"),
        ("lstm", "litert", "net.forward_h: recurrent layers are compared with --profile tflite-lstm"),
    ):
        said = f"^the reference must hold codes of at least one output for T0, got none from {runtime}: {reason}; comp"
        with pytest.raises(HwsimError, match=said):
            compare(*_given(networks.CASES[name](), against(runtime)))


def _given(case: networks.Case, oracle: Any) -> Any:
    executable, inputs = case
    return executable, oracle, inputs


@pytest.mark.parametrize(
    ("runtime", "profile", "message"),
    [
        ("onnxruntime", "rapid", "profile must be onnx against onnxruntime, got rapid"),
        ("litert", "onnx", "profile must be tflite-xnnpack or tflite-ruy or tflite-reference or tflite-lstm against"
                           " litert, got onnx"),
        ("litert", "tflite", "unknown semantics profile 'tflite'; nearest: tflite-ruy, tflite-lstm, tflite-xnnpack"),
    ],
)  # fmt: skip
def test_profiles_are_refused(runtime: str, profile: str, message: str) -> None:
    with pytest.raises(HwsimError) as caught:
        against(runtime, profile)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("codes", "scales", "profile", "kind"),
    [
        ([1, -1], 1, "tflite-ruy", "int2"), ([1, -1], 1, "tflite-xnnpack", "int4"),
        ([1, 0], 2, "tflite-xnnpack", "int2"),
        ([-7], 1, "tflite-ruy", "int4"), ([-8], 1, "tflite-ruy", "int8"), ([127], 1, "tflite-ruy", "int8"),
    ],
)  # fmt: skip
def test_the_type_of_litert_weights(codes: list[int], scales: int, profile: str, kind: str) -> None:
    assert weight_kind(np.asarray(codes), scales, profile) == kind
