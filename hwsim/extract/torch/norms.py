"""Norms. The norm of a batch, whose statistics are fixed, is a factor and an offset of each channel."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import torch

from hwsim.extract.graph.nodes import NodeKind
from hwsim.extract.torch.calls import Call
from hwsim.extract.torch.draft import Draft
from hwsim.extract.torch.entries import Computed, Constant, Entry, Held


def layer_norm(draft: Draft, call: Call) -> Entry:
    """layer_norm, rms_norm: over the last axes."""
    x = draft.lifted(draft.entry(call["input"]), call)
    gamma, beta = draft.operand(call.arguments.get("weight")), draft.operand(call.arguments.get("bias"))
    width = prod(call["normalized_shape"])
    layer, weights = draft.layer(call, gamma), {}
    for part, held in (("gamma", gamma), ("beta", beta)):
        if isinstance(held, Computed):
            raise call.refuse(f"must have {part} of parameters, got computed ones")
        if held is not None:
            weights[part] = draft.weights.add(held, (width,), f"{layer}.{part}")
    out = draft.value(call.name, call.outputs[0] or call.meta)
    draft.node(NodeKind.NORM, call, [x], [out], layer=layer, weights=weights, rows=prod(x.shape) // width, width=width)
    return out


def group_norm(draft: Draft, call: Call) -> Entry:
    """group_norm, instance_norm: over groups of channels and all positions, then a factor and an offset per channel."""
    x = draft.lifted(draft.entry(call["input"]), call)
    batch, channels = x.shape[0], x.shape[1]
    if call.kind == "instance_norm" and not call["use_input_stats"]:
        return batch_norm(draft, call)
    rows = batch * (call["num_groups"] if call.kind == "group_norm" else channels)
    return _own_statistics(draft, call, x, rows)


def _own_statistics(draft: Draft, call: Call, x: Computed, rows: int) -> Entry:
    factors = [(function, held) for function, name in (("multiply", "weight"), ("add", "bias"))
               if (held := draft.operand(call.arguments.get(name))) is not None]  # fmt: skip
    layer = draft.layer(call)
    y = draft.value(f"{call.name}.norm" if factors else call.name, call.meta)
    draft.node(NodeKind.NORM, call, [x], [y], layer=layer, rows=rows, width=prod(x.shape) // rows)
    for at, (function, held) in enumerate(factors):
        name = call.name if at == len(factors) - 1 else f"{call.name}.{function}"
        y = draft.pointwise(call, function, [y, held], call.meta, name)
    return y


def batch_norm(draft: Draft, call: Call) -> Entry:
    """x scale + offset with scale = gamma / sqrt(variance + eps), offset = beta - mean scale, folded beforehand."""
    x = draft.lifted(draft.entry(call["input"]), call)
    mean, variance = draft.operand(call["running_mean"]), draft.operand(call["running_var"])
    if call.arguments.get("training") or not isinstance(mean, Constant) or not isinstance(variance, Constant):
        return _own_statistics(draft, call, x, x.shape[1])
    for statistic in (mean, variance):
        draft.weights.add(statistic, statistic.shape, f"{call.name}.statistic")
    gamma, beta = draft.operand(call["weight"]), draft.operand(call["bias"])
    spread, average, epsilon = variance.tensor, mean.tensor, call["eps"]
    layer = draft.layer(call)

    def scale(weight: torch.Tensor | None = None) -> torch.Tensor:
        root = torch.rsqrt(spread + epsilon)
        return root if weight is None else root * weight

    def offset(bias: torch.Tensor | None = None) -> torch.Tensor:
        gain = scale(gamma.tensor() if isinstance(gamma, Held) else None)
        return -average * gain if bias is None else bias - average * gain

    draft.counts["norms of a batch became a factor and an offset: {}"] += 1
    y = x
    for function, held, change in (("multiply", gamma, scale), ("add", beta, offset)):
        part: Held | Constant = Constant(change().contiguous(), f"{layer}.{function}")
        if isinstance(held, Held):
            part = replace(held, base=lambda held=held, change=change: change(held.tensor()), moves=())  # type: ignore[misc]
        name = call.name if function == "add" else f"{call.name}.scaled"
        title = layer if function == "multiply" else draft.unique(layer)
        y = draft.pointwise(call, function, [y, part], call.meta, name, title)
    return y


HANDLERS = {
    **dict.fromkeys(("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm"), layer_norm),
    **dict.fromkeys(("group_norm", "instance_norm"), group_norm),
    **dict.fromkeys(("batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"), batch_norm),
}  # fmt: skip
