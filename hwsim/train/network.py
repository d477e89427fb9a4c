"""Networks of quantized modules: their parts by name, and what they compute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from hwsim.errors import HwsimError
from hwsim.train.attention import QuantAttention
from hwsim.train.conformer import QuantConformerBlock
from hwsim.train.convolution import QuantConv1d
from hwsim.train.modules import QuantActivation, QuantEmbedding, QuantLayerNorm, QuantLinear, QuantModule, Recording
from hwsim.train.recurrent import QuantGRU, QuantLSTM
from hwsim.train.tdnnf import QuantTdnnf

PARTS: tuple[type[QuantModule], ...] = (
    QuantActivation, QuantAttention, QuantConformerBlock, QuantConv1d, QuantEmbedding, QuantGRU, QuantLayerNorm,
    QuantLinear, QuantLSTM, QuantTdnnf,
)  # fmt: skip
"""The modules that a network may be made of."""


def named_parts(module: nn.Module, name: str = "network") -> list[tuple[str, QuantModule]]:
    """The quantized modules of a network in their order, with their names in its trace.

    Raises HwsimError unless it is one of `PARTS`, or an `nn.Sequential` of them.
    """
    if isinstance(module, PARTS):
        return [(name, module)]
    if not isinstance(module, nn.Sequential):
        raise HwsimError(f"a network must be a quantized module or an nn.Sequential, got {type(module).__name__}")
    parts: list[tuple[str, QuantModule]] = []
    for child, part in module.named_children():
        title = f"{name}{child}" if child.isdigit() else child
        if not isinstance(part, PARTS):
            known = ", ".join(kind.__name__ for kind in PARTS)
            raise HwsimError(f"{title}: must be one of {known}, got {type(part).__name__}")
        parts.append((title, part))
    return parts


def record(module: nn.Module, inputs: Mapping[str, Any], name: str = "network") -> Recording:
    """Evaluate a network on one utterance in its own precision, and record every tensor of its trace.

    `inputs`: the one input of the exported trace by its name, reals (T, K) or labels (T,).
    """
    if len(inputs) != 1:
        raise HwsimError(f"a network must have one input, got {', '.join(inputs) or 'none'}")
    array = np.asarray(next(iter(inputs.values())))
    recording, was_training = Recording(), module.training
    module.eval()
    parameter = next(module.parameters())
    x = torch.as_tensor(array, device=parameter.device)
    x = x.long() if array.dtype.kind in "iu" else x.to(parameter.dtype)
    with torch.no_grad():
        for title, part in named_parts(module, name):
            x = part.evaluate(x, title, recording)
    module.train(was_training)
    return recording
