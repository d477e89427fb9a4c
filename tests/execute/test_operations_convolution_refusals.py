"""Convolutions that do not fit their trace, their grids or their parameters: one clear line each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hwsim.errors import HwsimError
from hwsim.trace import Kind

from tests.execute.single import Network, quantizer  # isort: skip
from tests.execute.test_operations_convolution import INPUT, OUTPUT, channels, convolution  # isort: skip


@pytest.mark.parametrize(
    ("padding", "stride", "rule"),
    [
        ([1], 1, r"must have a padding \[before, after\] of 0 or more, got \[1\]"),
        ([0, -1], 1, r"must have a padding \[before, after\] of 0 or more, got \[0, -1\]"),
        (2, 1, r"must have a padding \[before, after\] of 0 or more, got 2"),
        ([0, 0], 0, "must have a stride of 1 numbers of 1 or more, got 0"),
        ([0, 0], [1, 1], r"must have a stride of 1 numbers of 1 or more, got \[1, 1\]"),
        ([0, 0], 2, r"must have shapes \(4, 3\), \(1, 4\), got \(4, 3\), \(2, 4\)"),
    ],
)
def test_attributes_that_do_not_fit_are_refused(padding: Any, stride: Any, rule: str) -> None:
    net = Network()
    net.tensor("x", (4, 3), INPUT)
    net.weight("weight", np.zeros((3, 3, 4), np.int64), quantizer(0.01))
    net.tensor("out", (2, 4), OUTPUT)
    net.op(Kind.CONV1D, ["x", "weight"], "out", m=2, k=9, n=4)
    with pytest.raises(HwsimError, match=rf"layer block.part\) {rule}"):
        net.build(padding=padding, stride=stride)


def test_an_attribute_of_two_axes_is_refused() -> None:
    w = np.zeros((1, 1, 1, 2), np.int64)
    net = Network()
    net.tensor("x", (4, 3, 1), INPUT)
    net.weight("weight", w, quantizer(0.01))
    net.tensor("out", (4, 3, 2), OUTPUT)
    net.op(Kind.CONV2D, ["x", "weight"], "out", m=12, k=1, n=2)
    with pytest.raises(HwsimError, match=r"must have a padding \[\[before, after\], \[before, after\]\] of 0 or more"):
        net.build(padding=[0, 0])


@pytest.mark.parametrize(
    ("kind", "x", "w", "out", "sizes", "rule"),
    [
        (Kind.CONV1D, (4, 3), (3, 2, 5), (2, 5), {"m": 2, "k": 6, "n": 5}, r"must have shapes \(4, 2\), \(2, 5\), got"),
        (Kind.CONV1D, (4, 3), (9, 5), (2, 5), {"m": 2, "k": 9, "n": 5}, r"must have weights of 3 axes, got \(9, 5\)"),
        (Kind.CONV1D, (4, 3), (3, 3, 5), (2, 5), {"m": 3, "k": 9, "n": 5},
         r"must have m, k, n and batch \(2, 9, 5, 1\) by its shapes, got \(3, 9, 5, 1\)"),
        (Kind.CONV2D, (4,), (2, 2, 1, 5), (3, 5), {"m": 3, "k": 4, "n": 5},
         r"must read an activation of 3 axes, got \(4,\)"),
        (Kind.DEPTHWISE, (4, 3), (2, 2), (3, 2), {"m": 3, "k": 2, "batch": 2},
         r"must have shapes \(4, 2\), \(3, 2\)"),
        (Kind.DEPTHWISE, (4, 2), (2, 2), (3, 2), {"m": 3, "k": 1, "n": 4},
         r"must have m, k, n and batch \(3, 2, 1, 2\)"),
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit_are_refused(
    kind: Kind, x: tuple[int, ...], w: tuple[int, ...], out: tuple[int, ...], sizes: dict[str, int], rule: str
) -> None:
    net = Network()
    net.tensor("x", x, INPUT)
    net.weight("weight", np.zeros(w, np.int64), quantizer(0.01))
    net.tensor("out", out, OUTPUT)
    net.op(kind, ["x", "weight"], "out", **sizes)
    with pytest.raises(HwsimError, match=rf"layer block.part\) {rule}"):
        net.build()


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"weights": channels(3)}, "depthwise weights must have one scale or 2, no zero point and no groups"),
        ({"weights": quantizer(0.01, 1)}, "depthwise weights must have one scale or 2, no zero point and no groups"),
        ({"weights": quantizer(0.01, bits=2)}, "weight codes must be -2 to 1, got 3"),
        ({"input": None}, "a quantizer must be given for block.part.x or block.part.weight.input, got neither"),
        ({"input": replace(INPUT, scale=np.ones(2))}, "its activations must have one scale and a level at zero"),
        ({"bias": np.array([0.0, np.nan])}, "block.part.bias: must be finite, got NaN or an infinity"),
        ({"bias": np.zeros(3)}, r"must have a bias of \(2,\), got \(3,\)"),
    ],
)
def test_depthwise_parameters_that_do_not_fit_are_refused(change: dict[str, Any], rule: str) -> None:
    with pytest.raises(HwsimError, match=rule):
        convolution((4, 2), np.full((3, 2), 3), [0, 0], 1, **{"weights": quantizer(0.01), "depthwise": True, **change})
