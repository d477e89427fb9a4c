"""One LSTM layer that trains fast over batches, is evaluated exactly, and makes single steps for a search."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hwsim.numerics.quantizers import Quantizer
from hwsim.train.analog import NoisyMatrix, product
from hwsim.train.modules import Grid, Recording, activation_grid, by_table, on_grid
from hwsim.train.quantizers import FakeQuantizer, fake_quantize
from hwsim.train.recipes import NetworkRecipe
from hwsim.train.sequence import lstm_sequence
from hwsim.train.weights import weight_grid

States = tuple[Tensor, Tensor]


class LstmLayer(nn.Module):
    """A unidirectional LSTM layer with the parameters of a `torch.nn.LSTM` of one: gates i, f, g, o.

    The input is taken as it is, on a grid already. In training (T, B, K) goes through `lstm_sequence`; in evaluation
    steps are those of the executor, with its tables, in the precision of the module.
    """

    def __init__(self, inputs: int, cells: int, recipe: NetworkRecipe) -> None:
        super().__init__()
        self.inputs, self.cells, self.cell = inputs, cells, recipe.cell
        bound = 1 / math.sqrt(cells)
        self.weight_ih_l0 = nn.Parameter(torch.empty(4 * cells, inputs).uniform_(-bound, bound))
        self.weight_hh_l0 = nn.Parameter(torch.empty(4 * cells, cells).uniform_(-bound, bound))
        self.bias_ih_l0 = nn.Parameter(torch.empty(4 * cells).uniform_(-bound, bound))
        self.bias_hh_l0 = nn.Parameter(torch.empty(4 * cells).uniform_(-bound, bound))
        self.input_weight_grid = weight_grid(recipe.weight, (inputs, 4 * cells))
        self.hidden_weight_grid = weight_grid(recipe.weight, (cells, 4 * cells))
        self.hidden_grid: Grid | None = activation_grid(recipe.hidden)

    @property
    def input_weight(self) -> Tensor:
        """(K, 4H)."""
        return self.weight_ih_l0.T

    @property
    def hidden_weight(self) -> Tensor:
        """(H, 4H)."""
        return self.weight_hh_l0.T

    def project(self, x: Tensor) -> Tensor:
        """Gate sums (..., 4H) of the input with its bias."""
        return product(x, self.input_weight, self.input_weight_grid) + self.bias_ih_l0

    def forward(self, x: Tensor) -> Tensor:
        """h (T, B, H) of x (T, B, K), from zero states."""
        weight = on_grid(self.hidden_weight, self.hidden_weight_grid)
        if self.training:
            return self._sequence(self.project(x) + self.bias_hh_l0, weight)
        sums = self.project(x)
        states: States = (x.new_zeros(*x.shape[1:-1], self.cells),) * 2
        after = []
        for t in range(len(x)):
            states = self.advance(sums[t], states, weight)
            after.append(states[0])
        return torch.stack(after)

    def _sequence(self, gates: Tensor, weight: Tensor) -> Tensor:
        noisy, grid = self.hidden_weight_grid, self.hidden_grid
        if isinstance(noisy, NoisyMatrix) and noisy.training:
            gates = noisy.disturbed_gates(gates, self.hidden_weight)
            return lstm_sequence(gates, weight, noisy.hidden_grid() if grid is None else grid.quantizer())
        if isinstance(grid, FakeQuantizer) and grid.static:
            # What is seen before rounding lies within half a step of what is seen after it, and below 1.
            if not bool(grid.seen.any()):
                grid.observe(lstm_sequence(gates.detach(), weight.detach(), None))
            h = lstm_sequence(gates, weight, grid.quantizer())
            grid.observe(h)
            return h
        return lstm_sequence(gates, weight, None if grid is None else grid.quantizer())

    def step(self, x: Tensor, states: States, name: str = "", recording: Recording | None = None) -> States:
        """The next (h, c), (R, H) each, of inputs (R, K)."""
        weight = on_grid(self.hidden_weight, self.hidden_weight_grid)
        return self.advance(self.project(x), states, weight, name, recording)

    def advance(self, sums: Tensor, states: States, weight: Tensor, name: str = "",
                recording: Recording | None = None) -> States:  # fmt: skip
        """The next (h, c) of gate sums (R, 4H) of the input, with recurrent weights on their grid."""
        gates = sums + (states[0] @ weight + self.bias_hh_l0)
        i, f, g, o = gates.chunk(4, dim=-1)
        c = by_table(f, "sigmoid") * states[1] + by_table(i, "sigmoid") * by_table(g, "tanh")
        real_c = c
        c = c if self.cell is None else fake_quantize(c, self.cell)
        real = by_table(o, "sigmoid") * by_table(c, "tanh")
        grid: Quantizer | None = None if self.hidden_grid is None else self.hidden_grid.quantizer()
        h = real if grid is None else fake_quantize(real, grid)
        if recording is not None:
            recording.add(f"{name}.h", real, grid)
            recording.add(f"{name}.c", real_c, self.cell)
        return h, c
