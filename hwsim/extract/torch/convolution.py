"""Convolutions over one or two axes."""

from __future__ import annotations

from math import prod
from typing import Any

from hwsim.extract.graph.nodes import NodeKind
from hwsim.extract.torch.calls import Call
from hwsim.extract.torch.draft import Draft
from hwsim.extract.torch.entries import Computed, Entry

MAX_DIMENSIONS = 2


def convolution(draft: Draft, call: Call) -> Entry:
    """conv1d, conv2d, convolution. Raises HwsimError for transposed ones, three axes and computed kernels."""
    weight, bias = draft.operand(call["weight"]), draft.operand(call["bias"])
    x = draft.lifted(draft.entry(call["input"]), call)
    if weight is None or isinstance(weight, Computed) or isinstance(bias, Computed):
        raise call.refuse("must have a kernel and a bias of parameters, got computed ones")
    outputs, inputs, *kernel = weight.shape
    axes = len(kernel)
    if call.arguments.get("transposed") or axes > MAX_DIMENSIONS:
        raise call.refuse(f"must be a convolution over one or two axes, got {'a transposed one' if axes < 3 else axes}")
    stride, dilation = (_spread(call[name], axes) for name in ("stride", "dilation"))
    padding = _padding(call["padding"], kernel, dilation)
    layer = draft.layer(call, weight)
    taps = prod(kernel)
    weights = {"weight": draft.weights.add(weight, (taps, inputs, outputs), f"{layer}.weight")}
    if bias is not None:
        weights["bias"] = draft.weights.add(bias, (outputs,), f"{layer}.bias")
    out = draft.value(call.name, call.meta)
    draft.node(
        NodeKind.CONV, call, [x], [out], layer=layer, weights=weights, positions=prod(out.shape) // outputs, taps=taps,
        inputs=inputs * call["groups"], outputs=outputs, groups=call["groups"], dimensions=axes, kernel=list(kernel),
        stride=stride, dilation=dilation, padding=padding,
    )  # fmt: skip
    return out


def _spread(value: Any, axes: int) -> list[int]:
    values = list(value) if isinstance(value, list | tuple) else [value]
    return [int(each) for each in (values * axes if len(values) == 1 else values)]


def _padding(value: Any, kernel: list[int], dilation: list[int]) -> list[tuple[int, int]]:
    """(before, after) of each axis; `same` pads after when it cannot pad both alike."""
    if value == "valid":
        return [(0, 0)] * len(kernel)
    if value == "same":
        totals = [step * (size - 1) for size, step in zip(kernel, dilation, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    return [(size, size) for size in _spread(value, len(kernel))]


HANDLERS = dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution", "_convolution"), convolution)
