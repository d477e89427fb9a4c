"""A quantized convolution over time."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwsim.errors import HwsimError
from hwsim.extract.conformer import same_padding
from hwsim.extract.layers import conv_frames
from hwsim.train.modules import QuantModule, Recipe, Recording, Weights, activation_grid, on_grid, stored
from hwsim.train.quantizers import FakeQuantizer

Padding = Literal["same", "causal", "none"]


class QuantConv1d(QuantModule):
    """y = Q_y(conv(Q_x(x), Q_w(W)) + b) over time: x (T, K) or (T, B, K) -> (T', ..., N).

    `depthwise`: one kernel per channel, N = K. `padding` with zeros: `same` (kernel - 1) // 2 before and kernel // 2
    after, `causal` kernel - 1 before, or `none`. `weight`: a recipe of the kernel as a matrix (kernel x inputs,
    outputs), of a depthwise one (kernel, channels); axis 1 gives a scale for every output.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, depthwise: bool = False,
        padding: Padding = "same", bias: bool = True, weight: Weights | None = None, input: Recipe | None = None,
        output: Recipe | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if padding not in get_args(Padding):
            raise HwsimError(f"padding must be one of {', '.join(get_args(Padding))}, got {padding}")
        if depthwise and inputs != outputs:
            raise HwsimError(f"a depthwise convolution must have as many outputs as inputs, got {outputs}")
        for name, size in (("kernel", kernel), ("stride", stride)):
            if size < 1:
                raise HwsimError(f"{name} must be at least 1, got {size}")
        self.inputs, self.outputs, self.kernel, self.stride = inputs, outputs, kernel, stride
        self.depthwise = depthwise
        self.padding = (0, 0) if padding == "none" else same_padding(kernel, padding == "causal")
        fan = 1 if depthwise else inputs
        bound = 1 / math.sqrt(fan * kernel)
        self.weight = nn.Parameter(torch.empty(outputs, fan, kernel).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound)) if bias else None
        self.weight_grid = None if weight is None else FakeQuantizer(weight)
        self.input_grid, self.output_grid = activation_grid(input), activation_grid(output)

    @property
    def matrix(self) -> Tensor:
        """The kernel (kernel x inputs, outputs), or (kernel, channels)."""
        return self.weight.permute(2, 1, 0).reshape(-1, self.outputs)

    def evaluate(self, x: Tensor, name: str = "", recording: Recording | None = None) -> Tensor:
        """`forward`, recording."""
        conv_frames(len(x), self.kernel, self.stride, self.padding)
        kernel = on_grid(self.matrix, self.weight_grid).reshape(self.kernel, -1, self.outputs).permute(2, 1, 0)
        padded = F.pad(on_grid(x, self.input_grid).movedim(0, -1), self.padding)
        groups = self.inputs if self.depthwise else 1
        y = F.conv1d(padded, kernel, self.bias, self.stride, groups=groups).movedim(-1, 0)
        return stored(y, self.output_grid, f"{name}.out", recording)
