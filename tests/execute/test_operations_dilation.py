"""Dilated convolutions over time, their first window, and the bypass around a layer: against loops, and refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.execute.executor import Executable
from hwsim.execute.reference.linear import layer_codes
from hwsim.execute.semantics import PROFILES, TRAINING, Semantics
from hwsim.extract.layers import conv1d, conv_frames
from hwsim.numerics.quantizers import Quantizer
from hwsim.trace import Function, Kind, Role, TraceBuilder

from tests.execute.single import Array, Network, assert_round_trip, quantizer, run, slow_sum  # isort: skip

INPUT, OUTPUT = quantizer(0.0311, 5), quantizer(0.0917, -9)


def dilated(rows: int, w: Array, semantics: Semantics = TRAINING, **attributes: Any) -> Executable:
    """One convolution of x (rows, Cin) by codes `w` (K, Cin, N)."""
    net, (taps, inputs, outputs) = Network(), w.shape
    net.tensor("x", (rows, inputs), INPUT)
    weight = net.weight("weight", w, quantizer(0.0071))
    span = (taps - 1) * attributes.get("dilation", 1) + 1
    padded = rows - attributes.get("first", 0) + sum(attributes.get("padding", (0, 0)))
    steps = (padded - span) // attributes.get("stride", 1) + 1
    net.tensor("out", (steps, outputs), OUTPUT)
    net.op(Kind.CONV1D, ["x", weight], "out", m=steps, k=taps * inputs, n=outputs)
    return net.build(semantics, **attributes)


@settings(max_examples=60, deadline=None)
@given(
    st.data(), st.sampled_from(["training", "onnx", "tflite-ruy", "rapid"]), st.integers(1, 3), st.integers(1, 4),
    st.integers(0, 3), st.integers(1, 3), st.tuples(st.integers(0, 3), st.integers(0, 3)),
)  # fmt: skip
def test_taps_are_rows_apart_from_the_first_window_on(
    data: st.DataObject, name: str, taps: int, dilation: int, first: int, stride: int, padding: tuple[int, int]
) -> None:
    span = (taps - 1) * dilation + 1
    rows = data.draw(st.integers(max(1, span + first - sum(padding)), span + first + 6))
    rng, semantics = np.random.default_rng(data.draw(st.integers(0, 99))), PROFILES[name]
    x, w = rng.integers(-128, 128, (rows, 3)), rng.integers(-128, 128, (taps, 3, 2))
    executable = dilated(rows, w, semantics, dilation=dilation, first=first, stride=stride, padding=list(padding))
    padded = np.pad(x, (padding, (0, 0)), constant_values=5)
    starts = range(first, len(padded) - span + 1, stride)
    sums = np.zeros((len(starts), 2), np.int64)
    for at, start in enumerate(starts):
        window = padded[start : start + span : dilation].reshape(-1)
        for n in range(2):
            column = w[..., n].reshape(-1)
            sums[at, n] = slow_sum(window.tolist(), column.tolist(), semantics) - 5 * column.sum()
    expected = layer_codes(sums, (1, 2), INPUT, quantizer(0.0071), OUTPUT, None, semantics)
    np.testing.assert_array_equal(run(executable, x=x), expected)


def test_a_dilated_convolution_is_saved(tmp_path: Any) -> None:
    rng = np.random.default_rng(0)
    x, w = rng.integers(-128, 128, (12, 3)), rng.integers(-8, 8, (2, 3, 4))
    assert_round_trip(dilated(12, w, dilation=3, first=2), {"block.part.x": x}, tmp_path / "e")


@pytest.mark.parametrize(
    ("attributes", "rule"),
    [
        ({"dilation": 0}, "must have a dilation of 1 or more, got 0"),
        ({"dilation": 1.0}, "must have a dilation of 1 or more, got 1.0"),
        ({"first": -1}, "must have a first of 0 or more, got -1"),
        ({"dilation": 9}, r"must have padded steps that hold a kernel of 10, got 8 padded by \(0, 0\)"),
        ({"dilation": 2}, r"must have shapes \(8, 3\), \(6, 4\), got \(8, 3\), \(7, 4\)"),
    ],
)
def test_attributes_that_do_not_fit_are_refused(attributes: dict[str, Any], rule: str) -> None:
    net = Network()
    net.tensor("x", (8, 3), INPUT)
    weight = net.weight("weight", np.zeros((2, 3, 4), np.int64), quantizer(0.01))
    net.tensor("out", (7, 4), OUTPUT)
    net.op(Kind.CONV1D, ["x", weight], "out", m=7, k=6, n=4)
    with pytest.raises(HwsimError, match=rf"layer block.part\) {rule}"):
        net.build(**attributes)


@pytest.mark.parametrize(("name", "value"), [("dilation", 2), ("first", 1)])
def test_a_convolution_over_two_axes_has_no_dilation(name: str, value: int) -> None:
    net = Network()
    net.tensor("x", (8, 3, 1), INPUT)
    weight = net.weight("weight", np.zeros((1, 1, 1, 4), np.int64), quantizer(0.01))
    net.tensor("out", (8, 3, 4), OUTPUT)
    net.op(Kind.CONV2D, ["x", weight], "out", m=24, k=1, n=4)
    with pytest.raises(HwsimError, match=rf"must have a {name} of {value - 1}, got {value}"):
        net.build(**{name: value})


def test_the_builder_says_the_dilation_only_where_there_is_one() -> None:
    b = TraceBuilder("t")
    x = b.tensor("net.x", Role.ACTIVATION, (20, 3))
    y = conv1d(b, "net.near", x, 3, 4, 20, kernel=3)
    z = conv1d(b, "net.far", y, 4, 5, 18, kernel=3, dilation=4, stride=2, role=Role.STATE)
    trace = b.build()
    assert [(t.name, t.shape, t.role) for t in trace.tensors if t.name.endswith("out")] == [
        ("net.near.out", (18, 4), Role.ACTIVATION), ("net.far.out", (5, 5), Role.STATE),
    ]  # fmt: skip
    assert trace.attributes == {
        "net.near": {"padding": [0, 0], "stride": 1}, "net.far": {"padding": [0, 0], "stride": 2, "dilation": 4},
    }  # fmt: skip
    assert conv_frames(18, 3, 2, (0, 0), 4) == trace.tensors[z].shape[0]
    with pytest.raises(HwsimError, match="at least as many frames as its kernel of 9, got 8"):
        conv1d(b, "net.long", x, 3, 4, 8, kernel=3, dilation=4)
    with pytest.raises(HwsimError, match=r"net\.deep: a depthwise convolution must have a dilation of 1, got 2"):
        conv1d(b, "net.deep", x, 3, 3, 8, kernel=3, dilation=2, depthwise=True)


def bypass(a: tuple[int, int], b: tuple[int, int], grids: tuple[Quantizer | None, ...] = (None,) * 3,
           **attributes: Any) -> Executable:  # fmt: skip
    net = Network()
    for part, shape, grid in zip(("a", "b", "out"), (a, b, a), grids, strict=True):
        net.tensor(part, shape, grid)
    net.op(Kind.ELEMENTWISE, ["a", "b"], "out", function=Function.RELU_ADD, m=a[0], n=a[1])
    return net.build(**attributes)


@pytest.mark.parametrize(("first", "step", "rows"), [(0, 1, 5), (2, 1, 9), (1, 3, 14)])
def test_a_bypass_reads_its_own_rows(first: int, step: int, rows: int) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(-128, 128, (5, 3)), rng.integers(-128, 128, (rows, 3))
    grids = (quantizer(0.013, 3), quantizer(0.021, -7), quantizer(0.03))
    got = run(bypass((5, 3), (rows, 3), grids, scale=0.66, first=first, step=step), a=a, b=b)
    left, right = grids[0].dequantize(a), grids[1].dequantize(b)
    for i in range(5):
        wanted = np.maximum(left[i], 0.0) + 0.66 * right[first + step * i]
        np.testing.assert_array_equal(got[i], grids[2].quantize(wanted))
    reals = rng.standard_normal((5, 3)), rng.standard_normal((rows, 3))
    plain = run(bypass((5, 3), (rows, 3), scale=2, first=first, step=step), a=reals[0], b=reals[1])
    np.testing.assert_array_equal(plain, np.maximum(reals[0], 0) + 2 * reals[1][first::step][:5])


@pytest.mark.parametrize(
    ("attributes", "rule"),
    [
        ({}, "must have a positive and finite scale, got None"),
        ({"scale": 0}, "must have a positive and finite scale, got 0"),
        ({"scale": float("inf")}, "must have a positive and finite scale, got inf"),
        ({"scale": 0.5, "first": -1}, "must have a first of 0 or more, got -1"),
        ({"scale": 0.5, "step": 0}, "must have a step of 1 or more, got 0"),
        ({"scale": 0.5, "first": 4}, "must read rows below 8, got row 8"),
    ],
)
def test_a_bypass_that_does_not_fit_is_refused(attributes: dict[str, Any], rule: str) -> None:
    with pytest.raises(HwsimError, match=rf"layer block.part\) {rule}"):
        bypass((5, 3), (8, 3), **attributes)
    with pytest.raises(HwsimError, match=r"must have shapes \(5, 3\), \(8, 3\), \(5, 3\), got"):
        bypass((5, 3), (8, 2), scale=0.66)
