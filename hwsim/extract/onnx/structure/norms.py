"""Normalizations: over rows, or by statistics that are constants."""

from __future__ import annotations

from math import prod

import numpy as np

from hwsim.extract.graph.nodes import NodeKind
from hwsim.extract.onnx.graph import Node
from hwsim.extract.onnx.structure.accounts import is_named
from hwsim.extract.onnx.structure.constant import Constant
from hwsim.extract.onnx.structure.draft import Draft


def layer_norm(draft: Draft, node: Node) -> None:
    """LayerNormalization and RMSNormalization, the second without an offset."""
    shape = draft.type(node, 0).shape
    axis = int(node.attributes.get("axis", -1)) % len(shape)
    normalized(draft, node, draft.reference(node, 0).value, prod(shape[axis:]), draft.constant(node, 1),
               draft.constant(node, 2), node.outputs[0])  # fmt: skip
    for at in (1, 2):
        if node.input(at) and draft.constant(node, at) is None:
            raise node.refuse(f"must have constant scales and offsets, got '{node.input(at)}'")


def normalized(draft: Draft, node: Node, x: str, width: int, gamma: Constant | None, beta: Constant | None, out: str,
               suffix: str = "") -> None:  # fmt: skip
    """A NORM over rows of `width`, with the parameters that it has."""
    weights = {part: None if each is None else draft.weight(node, each, (each.elements,))
               for part, each in (("gamma", gamma), ("beta", beta))}  # fmt: skip
    draft.emit(NodeKind.NORM, node, [x], [out], weights, suffix=suffix, width=width,
               rows=draft.values[x].elements // width)  # fmt: skip


def skip_norm(draft: Draft, node: Node) -> None:
    """A sum of two values, and perhaps a bias, then a norm; the sum is an output too."""
    simple = "Simplified" in node.op
    x = draft.reference(node, 0)
    inputs = [x.value, draft.reference(node, 1).value]
    shape = draft.out_type(node).shape
    gamma, beta = draft.constant(node, 2), None if simple else draft.constant(node, 3)
    bias = draft.constant(node, 3 if simple else 4)
    total = node.output(3) or draft.temporary(node, "sum", shape, draft.type(node, 0).dtype)
    held = None if bias is None else draft.weight(node, bias, bias.shape)
    draft.emit(NodeKind.ELEMENTWISE, node, inputs, [total], {"constant": held}, suffix="add", function="add",
               width=shape[-1])  # fmt: skip
    normalized(draft, node, total, shape[-1], gamma, beta, node.outputs[0])


def batch_norm(draft: Draft, node: Node) -> None:
    """A scale and a shift of each channel; running statistics are weights that are not counted."""
    if node.attributes.get("training_mode", 0):
        raise node.refuse("must use its running statistics, got training_mode=1")
    channels = draft.type(node, 0).shape[1]
    gamma, beta, mean, variance = (draft.need_constant(node, at, part) for at, part in
                                   enumerate(("scale", "offset", "mean", "variance"), 1))  # fmt: skip
    for statistic in (mean, variance):
        draft.weight(node, statistic, (channels,), counted=False)
    draft.note("batch norms are a scale and a shift; their running statistics are no parameters")
    _scale_and_shift(draft, node, draft.reference(node, 0).value, gamma, beta)


def instance_norm(draft: Draft, node: Node) -> None:
    """A norm over all positions of each channel, then a scale and a shift if they are more than 1 and 0."""
    shape = draft.type(node, 0).shape
    _grouped(draft, node, prod(shape[2:]), draft.constant(node, 1), draft.constant(node, 2))


def group_norm(draft: Draft, node: Node) -> None:
    """A norm over groups of channels, then a scale and a shift of each channel."""
    shape, groups = draft.type(node, 0).shape, int(node.attributes["num_groups"])
    _grouped(draft, node, prod(shape[1:]) // groups, draft.constant(node, 1), draft.constant(node, 2))


def _grouped(draft: Draft, node: Node, width: int, gamma: Constant | None, beta: Constant | None) -> None:
    if gamma is None or beta is None:
        raise node.refuse("must have constant scales and offsets")
    x = draft.reference(node, 0).value
    if not any(is_named(each) for each in (gamma, beta)) and bool(np.all(gamma.read() == 1)) and not beta.read().any():
        draft.fold(gamma)
        draft.fold(beta)
        normalized(draft, node, x, width, None, None, node.outputs[0])
        return
    kind = draft.out_type(node)
    inner = draft.temporary(node, "normalized", kind.shape, kind.dtype)
    normalized(draft, node, x, width, None, None, inner, suffix="norm")
    _scale_and_shift(draft, node, inner, gamma, beta)


def _scale_and_shift(draft: Draft, node: Node, x: str, gamma: Constant, beta: Constant) -> None:
    kind = draft.out_type(node)
    scaled = draft.temporary(node, "scaled", kind.shape, kind.dtype)
    width = kind.shape[-1]
    draft.emit(NodeKind.ELEMENTWISE, node, [x], [scaled], {"constant": draft.weight(node, gamma, gamma.shape)},
               suffix="scale", function="multiply", width=width)  # fmt: skip
    shift = draft.weight(node, beta, beta.shape)
    draft.emit(NodeKind.ELEMENTWISE, node, [scaled], [node.outputs[0]], {"constant": shift}, suffix="shift",
               function="add", width=width)  # fmt: skip
