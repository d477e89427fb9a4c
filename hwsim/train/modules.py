"""Quantized linear, LSTM and embedding modules: fake-quantized reals, the graph that integers must equal.

Parameters have the names and layouts of `torch.nn`, so that its state dictionaries load.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hwsim.errors import HwsimError
from hwsim.numerics.calibration import BoundAware, Calibration, Sawb
from hwsim.numerics.quantizers import Quantizer
from hwsim.numerics.tables import fixed_table
from hwsim.train.quantizers import FakeQuantizer, LearnedBounds, fake_quantize, quantize, table_function

Grid = FakeQuantizer | LearnedBounds
Weights = Calibration | Quantizer
Recipe = Calibration | Quantizer | LearnedBounds


@dataclass(slots=True)
class Recording:
    """What a module computed, by the tensor names of its exported trace.

    `codes`: integer codes, or float64 reals of tensors without a grid. `steps`: of tensors with a grid, the reals
    before rounding, in steps of it (x / scale + zero point), for distances to a tie.
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
    if recipe is None or isinstance(recipe, LearnedBounds):
        return recipe
    return FakeQuantizer(recipe, static=True)


class QuantEmbedding(nn.Module):
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

    def forward(self, x: Tensor) -> Tensor:
        """Rows of `x`."""
        return self.evaluate(x)


class QuantLinear(nn.Module):
    """y = Q_y(Q_x(x) Q_w(W)^T + b): x (..., K) -> (..., N).

    `weight`, `input`, `output`: recipes; None leaves reals (an input of None takes what it is given as it is).
    """

    def __init__(
        self, inputs: int, outputs: int, *, bias: bool = True, weight: Weights | None = None,
        input: Recipe | None = None, output: Recipe | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound)) if bias else None
        self.weight_grid = None if weight is None else FakeQuantizer(weight)
        self.input_grid, self.output_grid = activation_grid(input), activation_grid(output)

    def evaluate(self, x: Tensor, name: str = "", recording: Recording | None = None) -> Tensor:
        """`forward`, recording."""
        y = on_grid(x, self.input_grid) @ on_grid(self.weight.T, self.weight_grid)
        y = y if self.bias is None else y + self.bias
        z = on_grid(y, self.output_grid)
        if recording is not None:
            grid = None if self.output_grid is None else self.output_grid.quantizer()
            recording.add(f"{name}.out", y, grid)
        return z

    def forward(self, x: Tensor) -> Tensor:
        """y of x."""
        return self.evaluate(x)


class QuantLSTM(nn.Module):
    """LSTM layers in gate order i, f, g, o: x (T, K) or (T, B, K) -> (T, ..., H or 2H), from zero states.

    gates = Q_x(x) Q_w(W_ih)^T + b_ih + (h Q_w(W_hh)^T + b_hh); c' = Q_c(sigmoid(f) c + sigmoid(i) tanh(g));
    h' = Q_h(sigmoid(o) tanh(c')), by the shared tables. `weight`: recipe of each matrix, None for reals;
    `input`: of the first layer's input; `between`: of the inputs of the layers after it, None to take h as it is;
    `hidden`: of h; `cell`: a grid of the cell state such as int16 in steps of 2^-11, None for reals.
    """

    def __init__(
        self, inputs: int, cells: int, layers: int = 1, *, bidirectional: bool = False,
        weight: Weights | None = Sawb(), input: Recipe | None = BoundAware(1.25), between: Recipe | None = None,
        hidden: Weights | None = BoundAware(1.0), cell: Quantizer | None = None, gate_order: str = "ifgo",
    ) -> None:  # fmt: skip
        super().__init__()
        self.inputs, self.cells, self.layers, self.bidirectional = inputs, cells, layers, bidirectional
        self.cell, self.gate_order = cell, gate_order
        self.input_grid, self.hidden_grid = activation_grid(input), activation_grid(hidden)
        self.between_grids = nn.ModuleList(
            [] if between is None else [activation_grid(between) for _ in range(layers - 1)]  # type: ignore[misc]
        )
        self.weight_grid = None if weight is None else FakeQuantizer(weight)
        bound = 1 / math.sqrt(cells)
        for layer, suffix in self.parts():
            width = inputs if layer == 0 else cells * (2 if bidirectional else 1)
            for part, shape in (("weight_ih", (4 * cells, width)), ("weight_hh", (4 * cells, cells)),
                                ("bias_ih", (4 * cells,)), ("bias_hh", (4 * cells,))):  # fmt: skip
                value = nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))
                self.register_parameter(f"{part}_l{layer}{suffix}", value)

    def parts(self) -> Iterator[tuple[int, str]]:
        """(layer, suffix of its parameter names) of each direction of each layer."""
        for layer in range(self.layers):
            for suffix in ("", "_reverse") if self.bidirectional else ("",):
                yield layer, suffix

    def parameter(self, part: str, layer: int, suffix: str) -> Tensor:
        """`weight_ih`, `weight_hh`, `bias_ih` or `bias_hh` of a direction, weights as (K, 4H)."""
        value: Tensor = getattr(self, f"{part}_l{layer}{suffix}")
        return value.T if part.startswith("weight") else value

    def layer_grid(self, layer: int) -> Grid | None:
        """The grid of a layer's input, None when it takes its input as it is."""
        if layer == 0:
            return self.input_grid
        return self.between_grids[layer - 1] if len(self.between_grids) else None  # type: ignore[return-value]

    def evaluate(self, x: Tensor, name: str = "", recording: Recording | None = None) -> Tensor:
        """`forward`, recording (T, K) inputs only."""
        if recording is not None and x.ndim != 2:
            raise HwsimError(f"an LSTM is recorded on one utterance (T, K), got shape {tuple(x.shape)}")
        for layer in range(self.layers):
            x = on_grid(x, self.layer_grid(layer))
            outputs = []
            for suffix in ("", "_reverse") if self.bidirectional else ("",):
                prefix = "" if not self.bidirectional else "backward_" if suffix else "forward_"
                outputs.append(self._direction(x, layer, suffix, f"{name}.layer{layer}.{prefix}", recording))
            x = torch.cat(outputs, dim=-1)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Hidden states of all steps of the last layer."""
        return self.evaluate(x)

    def _direction(self, x: Tensor, layer: int, suffix: str, name: str, recording: Recording | None) -> Tensor:
        wx, wh = (on_grid(self.parameter(p, layer, suffix), self.weight_grid) for p in ("weight_ih", "weight_hh"))
        bias = self.parameter("bias_hh", layer, suffix)
        sums = x @ wx + self.parameter("bias_ih", layer, suffix)
        h = c = torch.zeros(*x.shape[1:-1], self.cells, dtype=x.dtype, device=x.device)
        before, cells, after = [], [], []
        fixed = None if self.hidden_grid is None or self.training else self.hidden_grid.quantizer()
        for t in range(len(x))[:: -1 if suffix else 1]:
            real, c = self._step(sums[t] + (h @ wh + bias), c)
            h = on_grid(real, self.hidden_grid) if fixed is None else fake_quantize(real, fixed)
            before.append(real)
            cells.append(c)
            after.append(h)
        order = -1 if suffix else 1
        if recording is not None:
            recording.add(f"{name}h", torch.stack(before[::order]), fixed)
            recording.add(f"{name}c", torch.stack(cells[::order]), None)
        return torch.stack(after[::order])

    def _step(self, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """The next h, before its grid, and the next c."""
        sigmoid, tanh = fixed_table("sigmoid"), fixed_table("tanh")
        parts = dict(zip(self.gate_order, gates.chunk(4, dim=-1), strict=True))
        i, f, o = (table_function(parts[gate], sigmoid, "sigmoid") for gate in "ifo")
        c = f * c + i * table_function(parts["g"], tanh, "tanh")
        c = c if self.cell is None else fake_quantize(c, self.cell)
        return o * table_function(c, tanh, "tanh"), c


def on_grid(x: Tensor, grid: nn.Module | None) -> Tensor:
    """x, on a grid when there is one."""
    return x if grid is None else grid(x)


QuantModule = QuantEmbedding | QuantLSTM | QuantLinear


def named_parts(module: nn.Module, name: str = "network") -> list[tuple[str, QuantModule]]:
    """The quantized modules of a network in their order, with their names in its trace.

    Raises HwsimError unless it is one of them, or an `nn.Sequential` of them.
    """
    if isinstance(module, (QuantEmbedding, QuantLSTM, QuantLinear)):
        return [(name, module)]
    if not isinstance(module, nn.Sequential):
        raise HwsimError(f"a network must be a quantized module or an nn.Sequential, got {type(module).__name__}")
    parts: list[tuple[str, QuantModule]] = []
    for child, part in module.named_children():
        title = f"{name}{child}" if child.isdigit() else child
        if isinstance(part, nn.Sequential) or not isinstance(part, (QuantEmbedding, QuantLSTM, QuantLinear)):
            raise HwsimError(f"{title}: must be QuantEmbedding, QuantLSTM or QuantLinear, got {type(part).__name__}")
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
