"""Quantized LSTM and GRU modules, from zero states, over whole utterances."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from hwsim.errors import HwsimError
from hwsim.numerics.calibration import BoundAware, Sawb
from hwsim.numerics.quantizers import Quantizer
from hwsim.train.modules import Grid, QuantModule, Recipe, Recording, Weights, activation_grid, by_table, on_grid
from hwsim.train.quantizers import FakeQuantizer, fake_quantize

States = tuple[Tensor, ...]


class QuantRecurrent(QuantModule):
    """Recurrent layers: what an LSTM and a GRU share. x (T, K) or (T, B, K) -> (T, ..., H or 2H).

    `weight`: recipe of each matrix, None for reals; `input`: of the first layer's input; `between`: of the inputs of
    the layers after it, None to take h as it is; `hidden`: of h. With `dense_inputs` the layers after the first read
    the network's input beside the layer before, both on the grid of `between`.
    """

    GATES = 0
    STATES = 1

    def __init__(
        self, inputs: int, cells: int, layers: int = 1, *, bidirectional: bool = False,
        weight: Weights | None = Sawb(), input: Recipe | None = BoundAware(1.25), between: Recipe | None = None,
        hidden: Weights | None = BoundAware(1.0), dense_inputs: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if dense_inputs and weight is not None and between is None:
            raise HwsimError("between must be a grid with dense_inputs, got none")
        self.inputs, self.cells, self.layers, self.bidirectional = inputs, cells, layers, bidirectional
        self.dense_inputs = dense_inputs
        self.weight_hh_l0: Tensor
        self.input_grid, self.hidden_grid = activation_grid(input), activation_grid(hidden)
        self.between_grids = nn.ModuleList(
            [] if between is None else [activation_grid(between) for _ in range(layers - 1)]  # type: ignore[misc]
        )
        self.weight_grid = None if weight is None else FakeQuantizer(weight)
        bound, gates = 1 / math.sqrt(cells), self.GATES * cells
        for layer, suffix in self.parts():
            for part, shape in (("weight_ih", (gates, self.width(layer))), ("weight_hh", (gates, cells)),
                                ("bias_ih", (gates,)), ("bias_hh", (gates,))):  # fmt: skip
                value = nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))
                self.register_parameter(f"{part}_l{layer}{suffix}", value)

    @property
    def suffixes(self) -> tuple[str, ...]:
        """What the parameter names of each direction end in."""
        return ("", "_reverse") if self.bidirectional else ("",)

    def width(self, layer: int) -> int:
        """Inputs of a layer."""
        below = self.cells * len(self.suffixes)
        return self.inputs if layer == 0 else below + (self.inputs if self.dense_inputs else 0)

    def parts(self) -> Iterator[tuple[int, str]]:
        """(layer, suffix of its parameter names) of each direction of each layer."""
        for layer in range(self.layers):
            for suffix in self.suffixes:
                yield layer, suffix

    def parameter(self, part: str, layer: int, suffix: str) -> Tensor:
        """`weight_ih`, `weight_hh`, `bias_ih` or `bias_hh` of a direction, weights as (K, gates x H)."""
        value: Tensor = getattr(self, f"{part}_l{layer}{suffix}")
        return value.T if part.startswith("weight") else value

    def layer_grid(self, layer: int) -> Grid | None:
        """The grid of a layer's input, None when it takes its input as it is."""
        if layer == 0:
            return self.input_grid
        return self.between_grids[layer - 1] if len(self.between_grids) else None  # type: ignore[return-value]

    def evaluate(self, x: Tensor, name: str = "", recording: Recording | None = None) -> Tensor:
        """`forward`, recording (T, K) inputs only: hidden states of all steps of the last layer."""
        if recording is not None and x.ndim != 2:
            raise HwsimError(f"a recurrent layer is recorded on one utterance (T, K), got shape {tuple(x.shape)}")
        first = x = on_grid(x, self.input_grid)
        for layer in range(self.layers):
            if layer:
                x = torch.cat([first, x], dim=-1) if self.dense_inputs else x
                x = on_grid(x, self.layer_grid(layer))
            outputs = []
            for suffix in self.suffixes:
                prefix = "" if not self.bidirectional else "backward_" if suffix else "forward_"
                outputs.append(self._direction(x, layer, suffix, f"{name}.layer{layer}.{prefix}", recording))
            x = torch.cat(outputs, dim=-1)
        return x

    def start(self, rows: int) -> list[States]:
        """Zero states of each layer, (rows, H) each."""
        zeros = self.weight_hh_l0.new_zeros(rows, self.cells)
        return [(zeros,) * self.STATES] * self.layers

    def step(self, x: Tensor, states: Sequence[States]) -> tuple[Tensor, list[States]]:
        """h (R, H) of the last layer and the states of each layer after inputs (R, K), one step of a search.

        Raises HwsimError for a bidirectional layer and with `dense_inputs`.
        """
        if self.bidirectional or self.dense_inputs:
            raise HwsimError("a recurrent layer of one step must have one direction and no dense_inputs")
        after: list[States] = []
        for layer, before in enumerate(states):
            x = on_grid(x, self.layer_grid(layer))
            wx, wh = (on_grid(self.parameter(p, layer, ""), self.weight_grid) for p in ("weight_ih", "weight_hh"))
            sums = x @ wx + self.parameter("bias_ih", layer, "")
            real, *others = self._step(sums, before[0] @ wh + self.parameter("bias_hh", layer, ""), before)
            x = on_grid(real, self.hidden_grid)
            after.append((x, *others))
        return x, after

    def _direction(self, x: Tensor, layer: int, suffix: str, name: str, recording: Recording | None) -> Tensor:
        wx, wh = (on_grid(self.parameter(p, layer, suffix), self.weight_grid) for p in ("weight_ih", "weight_hh"))
        bias = self.parameter("bias_hh", layer, suffix)
        sums = x @ wx + self.parameter("bias_ih", layer, suffix)
        zeros = torch.zeros(*x.shape[1:-1], self.cells, dtype=x.dtype, device=x.device)
        states: States = (zeros,) * self.STATES
        before, cells, after = [], [], []
        fixed = None if self.hidden_grid is None or self.training else self.hidden_grid.quantizer()
        for t in range(len(x))[:: -1 if suffix else 1]:
            real, *others = self._step(sums[t], states[0] @ wh + bias, states)
            h = on_grid(real, self.hidden_grid) if fixed is None else fake_quantize(real, fixed)
            states = (h, *others)
            before.append(real)
            cells.extend(others)
            after.append(h)
        order = -1 if suffix else 1
        if recording is not None:
            recording.add(f"{name}h", torch.stack(before[::order]), fixed)
            if cells:
                recording.add(f"{name}c", torch.stack(cells[::order]), None)
        return torch.stack(after[::order])

    def _step(self, x: Tensor, y: Tensor, states: States) -> States:
        """The next h, before its grid, and the other states, from the gate sums of the input and of h."""
        raise NotImplementedError


class QuantLSTM(QuantRecurrent):
    """LSTM layers in gate order i, f, g, o: x (T, K) or (T, B, K) -> (T, ..., H or 2H), from zero states.

    gates = Q_x(x) Q_w(W_ih)^T + b_ih + (h Q_w(W_hh)^T + b_hh); c' = Q_c(sigmoid(f) c + sigmoid(i) tanh(g));
    h' = Q_h(sigmoid(o) tanh(c')), by the shared tables. `cell`: a grid of the cell state such as int16 in steps of
    2^-11, None for reals; the others are `QuantRecurrent`'s.
    """

    GATES = 4
    STATES = 2

    def __init__(
        self, inputs: int, cells: int, layers: int = 1, *, bidirectional: bool = False,
        weight: Weights | None = Sawb(), input: Recipe | None = BoundAware(1.25), between: Recipe | None = None,
        hidden: Weights | None = BoundAware(1.0), cell: Quantizer | None = None, gate_order: str = "ifgo",
        dense_inputs: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(inputs, cells, layers, bidirectional=bidirectional, weight=weight, input=input,
                         between=between, hidden=hidden, dense_inputs=dense_inputs)  # fmt: skip
        self.cell, self.gate_order = cell, gate_order

    def _step(self, x: Tensor, y: Tensor, states: States) -> States:
        parts = dict(zip(self.gate_order, (x + y).chunk(4, dim=-1), strict=True))
        i, f, o = (by_table(parts[gate], "sigmoid") for gate in "ifo")
        c = f * states[1] + i * by_table(parts["g"], "tanh")
        c = c if self.cell is None else fake_quantize(c, self.cell)
        return o * by_table(c, "tanh"), c


class QuantGRU(QuantRecurrent):
    """GRU layers in gate order r, z, n: x (T, K) or (T, B, K) -> (T, ..., H or 2H), from a zero state.

    x_* = Q_x(x) Q_w(W_ih)^T + b_ih and h_* = h Q_w(W_hh)^T + b_hh; r = sigmoid(x_r + h_r), z = sigmoid(x_z + h_z),
    n = tanh(x_n + r h_n), h' = Q_h((1 - z) n + z h), by the shared tables. Arguments are `QuantRecurrent`'s.
    """

    GATES = 3

    def _step(self, x: Tensor, y: Tensor, states: States) -> States:
        (x_r, x_z, x_n), (y_r, y_z, y_n) = x.chunk(3, dim=-1), y.chunk(3, dim=-1)
        r, z = by_table(x_r + y_r, "sigmoid"), by_table(x_z + y_z, "sigmoid")
        n = by_table(x_n + r * y_n, "tanh")
        return ((1 - z) * n + z * states[0],)
