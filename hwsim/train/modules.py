"""Quantized embedding, linear, norm and element-wise modules: fake-quantized reals, the graph that integers must equal.

Parameters have the names and layouts of `torch.nn`, so that its state dictionaries load. Time is the first axis.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwsim.errors import HwsimError, nearest
from hwsim.execute.dynamic import SCALE
from hwsim.extract.layers import EPSILON
from hwsim.numerics.calibration import Calibration
from hwsim.numerics.quantizers import Quantizer
from hwsim.numerics.tables import fixed_table
from hwsim.train.analog import product
from hwsim.train.dynamic import dynamic_product
from hwsim.train.quantizers import DynamicQuantizer, FakeQuantizer, LearnedBounds, quantize, table_function
from hwsim.train.weights import WeightRecipe, weight_grid

Grid = FakeQuantizer | LearnedBounds | DynamicQuantizer
Weights = Calibration | Quantizer
MatrixWeights = WeightRecipe | Quantizer
Recipe = Calibration | Quantizer | LearnedBounds | DynamicQuantizer | FakeQuantizer


@dataclass(slots=True)
class Recording:
    """What a module computed, by the tensor names of its exported trace.

    `codes`: integer codes, or float64 reals of tensors without a grid; scales found at run time as `<name>.scale`.
    `steps`: of tensors with a grid, the reals before rounding, in steps of it (x / scale + zero point), for distances
    to a tie.
    """

    codes: dict[str, Any] = field(default_factory=dict)
    steps: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, x: Tensor, quantizer: Quantizer | None) -> None:
        """Record a tensor, quantized when it has a grid."""
        reals = x.detach().cpu().double().numpy()
        if quantizer is None:
            self.codes[name] = reals
            return
        self.codes[name] = quantize(x.detach(), quantizer).cpu().numpy().astype(np.int64)
        self.steps[name] = reals / quantizer.scale + quantizer.zero_point


def activation_grid(recipe: Recipe | None) -> Grid | None:
    """A recipe for activations as a module."""
    if recipe is None or isinstance(recipe, (LearnedBounds, DynamicQuantizer, FakeQuantizer)):
        return recipe
    return FakeQuantizer(recipe, static=True)


def own_grid(recipe: Recipe | None) -> Grid | None:
    """A recipe that several activations share, as a module of its own for one of them."""
    return activation_grid(deepcopy(recipe) if isinstance(recipe, nn.Module) else recipe)


def run_time(recipe: object) -> DynamicQuantizer | None:
    """A recipe whose grid is found at run time, None for others: a product that reads it must have it as its input."""
    return deepcopy(recipe) if isinstance(recipe, DynamicQuantizer) else None


def on_grid(x: Tensor, grid: nn.Module | None) -> Tensor:
    """x, on a grid when there is one."""
    return x if grid is None else grid(x)


def stored(x: Tensor, grid: Grid | None, name: str, recording: Recording | None) -> Tensor:
    """x as the tensor `name` of a trace: on its grid when there is one, recorded."""
    y = on_grid(x, grid)
    if recording is not None:
        quantizer = None if grid is None else grid.quantizer(x)
        recording.add(name, x, quantizer)
        if isinstance(grid, DynamicQuantizer) and quantizer is not None:
            recording.codes[name + SCALE] = quantizer.scale
    return y


def before(x: Tensor, counts: Tensor) -> Tensor:
    """(T, B, 1): 1 where step t is before the count of utterance b, else 0."""
    steps = torch.arange(len(x), device=x.device)
    return (steps[:, None] < counts).to(x.dtype)[..., None]


class QuantModule(nn.Module):
    """A module that knows the tensor names of its exported trace."""

    def evaluate(self, x: Tensor, name: str = "", recording: Recording | None = None) -> Tensor:
        """`forward`, recording under the layer's name; recordings are of one utterance, without a batch axis."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """The output of x."""
        return self.evaluate(x)


class QuantEmbedding(QuantModule):
    """Rows of a table on a grid: labels (...) -> (..., D)."""

    def __init__(self, labels: int, size: int, *, weight: Weights | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(labels, size))
        self.weight_grid = None if weight is None else FakeQuantizer(weight)

    def evaluate(self, x: Tensor, name: str = "", recording: Recording | None = None) -> Tensor:
        """`forward`, recording."""
        table = self.weight if self.weight_grid is None else self.weight_grid(self.weight)
        y: Tensor = table[x]
        if recording is not None:
            grid = None if self.weight_grid is None else self.weight_grid.quantizer(self.weight)
            recording.add(f"{name}.row", self.weight[x], grid)
        return y


class QuantLinear(QuantModule):
    """y = Q_y(Q_x(x) Q_w(W)^T + b): x (..., K) -> (..., N).

    `weight`, `input`, `output`: recipes; None leaves reals (an input of None takes what it is given as it is). With an
    input of `DynamicQuantizer` integers are multiplied, then scales; give it also where x is on such a grid already.
    """

    def __init__(
        self, inputs: int, outputs: int, *, bias: bool = True, weight: MatrixWeights | None = None,
        input: Recipe | None = None, output: Recipe | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound)) if bias else None
        self.weight_grid = weight_grid(weight, (inputs, outputs))
        self.input_grid, self.output_grid = activation_grid(input), activation_grid(output)

    def evaluate(self, x: Tensor, name: str = "", recording: Recording | None = None) -> Tensor:
        """`forward`, recording."""
        if isinstance(self.input_grid, DynamicQuantizer) and self.weight_grid is not None and not self.training:
            y = dynamic_product(x, self.input_grid, self.weight.T, self.weight_grid)
        else:
            y = product(on_grid(x, self.input_grid), self.weight.T, self.weight_grid)
        y = y if self.bias is None else y + self.bias
        return stored(y, self.output_grid, f"{name}.out", recording)


class QuantLayerNorm(QuantModule):
    """Q_y((x - mean) / sqrt(variance + epsilon) weight + bias) over the last axis: x (..., D) -> (..., D)."""

    def __init__(self, width: int, *, epsilon: float = EPSILON, input: Recipe | None = None,
                 output: Recipe | None = None) -> None:  # fmt: skip
        super().__init__()
        self.epsilon = epsilon
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.input_grid, self.output_grid = activation_grid(input), activation_grid(output)

    def evaluate(self, x: Tensor, name: str = "", recording: Recording | None = None) -> Tensor:
        """`forward`, recording."""
        y = F.layer_norm(on_grid(x, self.input_grid), self.weight.shape, self.weight, self.bias, self.epsilon)
        return stored(y, self.output_grid, f"{name}.out", recording)


class QuantActivation(QuantModule):
    """Q_y(f(x)), f one of relu, sigmoid, tanh, swish (x sigmoid(x)) and glu (a sigmoid(b) of x = a beside b).

    Sigmoid and tanh by the shared tables, in training as they are; (..., D) -> (..., D), of glu (..., 2D) -> (..., D).
    """

    FUNCTIONS = ("glu", "relu", "sigmoid", "swish", "tanh")

    def __init__(self, function: str, *, output: Recipe | None = None) -> None:
        super().__init__()
        if function not in self.FUNCTIONS:
            raise HwsimError(f"unknown function '{function}'{nearest(function, self.FUNCTIONS)}")
        self.function, self.output_grid = function, activation_grid(output)

    def evaluate(self, x: Tensor, name: str = "", recording: Recording | None = None) -> Tensor:
        """`forward`, recording."""
        return stored(self._values(x), self.output_grid, f"{name}.out", recording)

    def _values(self, x: Tensor) -> Tensor:
        match self.function:
            case "relu":
                return torch.relu(x)
            case "sigmoid" | "tanh":
                return self._curve(x, self.function)
            case "swish":
                return x * self._curve(x, "sigmoid")
        a, b = x.chunk(2, dim=-1)
        return a * self._curve(b, "sigmoid")

    def _curve(self, x: Tensor, name: str) -> Tensor:
        return getattr(torch, name)(x) if self.training else by_table(x, name)


def by_table(x: Tensor, name: str) -> Tensor:
    """sigmoid or tanh of x by the shared table."""
    return table_function(x, fixed_table(name), name)
