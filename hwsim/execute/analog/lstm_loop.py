"""Steps of an LSTM whose recurrent products are done on analog tiles, in one compiled call."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwsim.execute.analog.compiled import compiled
from hwsim.execute.analog.kernels import mvm
from hwsim.execute.lstm_loop import (
    CODES,
    HALVES,
    cell_entries,
    cell_step,
    code_of,
    gate_entries_of_halves,
    look_up,
    round_halves,
)


@compiled
def lstm_cells(x: Any, y: Any, sigmoid: Any, sigmoid_grid: Any, tanh: Any, tanh_grid: Any, order: Any, grid: Any,
               cell_grid: Any, modes: Any, h: Any, c: Any) -> None:  # fmt: skip
    """New h and c (H,) in place from the gate sums x and y (4H,) of the input and of the hidden state."""
    hidden_mode, cell_mode, half_gates, form, ties, cell_form, cell_ties, table_ties = modes
    cells = c.size
    index, gates, room = np.empty(cells, np.int32), np.empty((4, cells), sigmoid.dtype), np.empty((2, cells))
    one, zero = np.ones(cells), np.zeros(cells)
    for gate in range(4):
        first = order[gate] * cells
        part = slice(first, first + cells)
        if half_gates:
            round_halves(y[part], room)
        gate_entries_of_halves(x[part], one, zero, y[part], tanh_grid if gate == 2 else sigmoid_grid, table_ties, index)
        look_up(tanh if gate == 2 else sigmoid, index, gates[gate])
    cell_step(gates[0], gates[1], gates[2], c, cell_grid, cell_mode == CODES, cell_form, cell_ties)
    if cell_mode == HALVES:
        round_halves(c, room)
    cell_entries(c, tanh_grid, table_ties, index)
    look_up(tanh, index, gates[0])
    for j in range(cells):
        value = gates[3, j] * gates[0, j]
        if hidden_mode == CODES:
            value = code_of(value, grid, form, ties) * grid[0]
        h[j] = value
    if hidden_mode == HALVES:
        round_halves(h, room)


@compiled
def analog_lstm_loop(
    sums_x: Any, order: Any, alpha: float, weights: Any, spreads: Any, slope: Any, offset: Any, size: Any, bias: Any,
    noise: Any, rows: int, group: int, rules: Any, sigmoid: Any, sigmoid_grid: Any, tanh: Any, tanh_grid: Any,
    gate_order: Any, grid: Any, cell_grid: Any, modes: Any, states: Any, out: Any,
) -> None:  # fmt: skip
    """The steps `order` of a direction: products as `kernels.mvm`, then the pointwise part.

    sums_x (T, 4H) float64; bias (4H,); noise (steps, tiles, 4H) or (0, 0, 0); `states` (2, H) float64, h and c, in
    place; out (T, H) float64, written at the steps.
    """
    sums = np.empty((1, bias.size))
    nothing = noise[:0]
    for at in range(order.size):
        drawn = noise[at : at + 1] if noise.size else nothing
        mvm(states[:1], alpha, weights, spreads, slope, offset, size, drawn, rows, group, rules, sums)
        for n in range(bias.size):
            sums[0, n] += bias[n]
        lstm_cells(sums_x[order[at]], sums[0], sigmoid, sigmoid_grid, tanh, tanh_grid, gate_order, grid, cell_grid,
                   modes, states[0], states[1])  # fmt: skip
        out[order[at]] = states[0]
