"""Convolutions of one and two dimensions."""

from __future__ import annotations

from math import prod
from typing import Any

from hwsim.extract.graph.nodes import NodeKind
from hwsim.extract.onnx.graph import Node
from hwsim.extract.onnx.structure.constant import Constant
from hwsim.extract.onnx.structure.draft import Draft
from hwsim.extract.onnx.structure.grids import float_format
from hwsim.extract.onnx.structure.products import added_bias


def conv(draft: Draft, node: Node) -> None:
    """Conv with constant weights."""
    weight = draft.need_constant(node, 1, "weight")
    bias, out = draft.constant(node, 2), node.outputs[0]
    name = None
    if bias is not None:
        name = draft.weight(node, bias, bias.shape)
    else:
        out, name = added_bias(draft, node, out, weight.shape[0], len(weight.shape) - 2)
    convolution(draft, node, weight, out, name)


def convolution(draft: Draft, node: Node, weight: Constant, out: str, bias: str | None, *,
                codes: str | None = None, x: int = 0) -> None:  # fmt: skip
    """A convolution by the weight (outputs, inputs of a group, kernel)."""
    attributes, shape = sizes(draft, node, weight, x)
    # In the file's order the channels come first; in the graph's, last.
    order = (*range(2, len(weight.shape)), 1, 0)
    turned = weight.transposed(order)
    grid = turned.grid
    channel = len(order) - 1
    name = draft.weight(node, turned, shape, channel=channel, depth=channel - 1 if grid and grid.group else None)
    draft.emit(NodeKind.CONV, node, [draft.reference(node, x).value], [out], {"weight": name, "bias": bias},
               input_format=float_format(draft, node, x), codes=codes, **attributes)  # fmt: skip


def sizes(draft: Draft, node: Node, weight: Constant, x: int = 0) -> tuple[dict[str, Any], tuple[int, int, int]]:
    """Attributes of a CONV and the shape of its weight. Raises HwsimError for three dimensions."""
    outputs, group_inputs, *kernel = weight.shape
    dimensions = len(kernel)
    if dimensions not in (1, 2):
        raise node.refuse(f"must have 1 or 2 dimensions, got {dimensions}")
    result, source = draft.out_type(node).shape, draft.type(node, x).shape
    groups = int(node.attributes.get("group", 1))
    stride = [int(size) for size in node.attributes.get("strides") or [1] * dimensions]
    dilation = [int(size) for size in node.attributes.get("dilations") or [1] * dimensions]
    padding = _padding(node, source[2:], result[2:], kernel, stride, dilation)
    attributes = {
        "positions": result[0] * prod(result[2:]), "taps": prod(kernel), "inputs": source[1], "outputs": outputs,
        "groups": groups, "dimensions": dimensions, "kernel": list(kernel), "stride": stride, "dilation": dilation,
        "padding": padding,
    }  # fmt: skip
    return attributes, (prod(kernel), group_inputs, outputs)


def _padding(node: Node, source: Any, result: Any, kernel: Any, stride: Any, dilation: Any) -> list[tuple[int, int]]:
    """Elements before and after each dimension."""
    count, mode = len(kernel), node.attributes.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", "VALID"):
        pads = [int(pad) for pad in node.attributes.get("pads") or [0] * 2 * count]
        return [(0, 0)] * count if mode == "VALID" else list(zip(pads[:count], pads[count:], strict=True))
    found = []
    for size, out, taps, step, spread in zip(source, result, kernel, stride, dilation, strict=True):
        total = max(0, (out - 1) * step + (taps - 1) * spread + 1 - size)
        less, more = total // 2, total - total // 2
        found.append((less, more) if mode == "SAME_UPPER" else (more, less))
    return found
