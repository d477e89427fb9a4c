"""A whole LSTM direction in one compiled call: recurrent products, gates, cell and hidden codes, step after step.

Equal to `reference.recurrent.LstmLayer` bit for bit: the same float64 operations in the same order, no fused
multiply-add. Single-threaded and without the interpreter's lock.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from hwsim.execute import kernels
from hwsim.execute.kernels.layout import LAYOUTS
from hwsim.execute.kernels.product import product
from hwsim.execute.kernels.target import Isa

Loop = Callable[..., None]
DIVIDE, RECIPROCAL, UNIT = range(3)
FORMS = {"divide": DIVIDE, "reciprocal": RECIPROCAL, "unit": UNIT}
HALF_EVEN, HALF_AWAY, HALF_UP, HALF_DOWN, TOWARD_ZERO = range(5)
TIES = {"half_even": HALF_EVEN, "half_away": HALF_AWAY, "half_up": HALF_UP, "half_down": HALF_DOWN,
        "toward_zero": TOWARD_ZERO}  # fmt: skip
PLAIN = (DIVIDE, HALF_EVEN, DIVIDE, HALF_EVEN, HALF_EVEN)
"""Rules of the hidden codes, of the cell's, and of the tables' entries, that most networks have."""
REALS, CODES, HALVES = range(3)
DROPPED = np.int64(52 - 10)
DROPPED_MASK, HALF_ULP_LESS = np.int64(2**42 - 1), np.int64(2**41 - 1)

_PRODUCTS: dict[str, Callable[..., None]] = {}


@njit(cache=True, nogil=True)
def rounded(x: float, ties: int) -> float:
    """`numerics.rounding.round_real` of one number."""
    if ties == HALF_EVEN:
        return np.rint(x)  # type: ignore[no-any-return]
    if ties == HALF_UP:
        return np.floor(x + 0.5)  # type: ignore[no-any-return]
    if ties == HALF_DOWN:
        return np.ceil(x - 0.5)  # type: ignore[no-any-return]
    whole = np.trunc(x)
    if ties == HALF_AWAY and abs(x - whole) >= 0.5:
        return whole + np.copysign(1.0, x)  # type: ignore[no-any-return]
    return whole  # type: ignore[no-any-return]


@njit(cache=True, nogil=True)
def clipped(x: float, low: float, high: float) -> float:
    """x within [low, high], by two selects that become vector instructions."""
    above = low if x < low else x
    return high if above > high else above


@njit(cache=True, nogil=True)
def code_of(x: float, grid: Any, form: int, ties: int) -> float:
    """`Quantizer.quantize` of one number without zero point; `grid`: scale, 1 / scale, clip, least, greatest code."""
    if form == UNIT:
        levels = grid[4] - grid[3]
        code = rounded(levels * (0.5 * x / grid[2] + 0.5), ties) + grid[3]
    elif form == RECIPROCAL:
        code = rounded(x * grid[1], ties)
    else:
        code = rounded(x / grid[0], ties)
    return clipped(code, grid[3], grid[4])


@njit(cache=True, nogil=True)
def index_of(x: float, grid: tuple[float, float, float], ties: int) -> np.int32:
    """Entry of a table; `grid`: 1 / step (a power of two), least, greatest code."""
    return np.int32(clipped(rounded(x * grid[0], ties), grid[1], grid[2]) - grid[1])


@njit(cache=True, nogil=True)
def gate_entries(x: Any, scale_x: Any, bias_x: Any, y: Any, scale_y: Any, bias_y: Any, at: Any, ties: int,
                 index: Any) -> None:  # fmt: skip
    """Table entries of the gates of one row: (x sx + bx) + (y sy + by), each (H,)."""
    for j in range(index.size):
        index[j] = index_of((x[j] * scale_x[j] + bias_x[j]) + (y[j] * scale_y[j] + bias_y[j]), at, ties)


@njit(cache=True, nogil=True)
def gate_entries_of_halves(x: Any, scale_x: Any, bias_x: Any, y: Any, at: Any, ties: int, index: Any) -> None:
    """The same for gate sums y of the hidden state that are reals already."""
    for j in range(index.size):
        index[j] = index_of((x[j] * scale_x[j] + bias_x[j]) + y[j], at, ties)


@njit(cache=True, nogil=True)
def scaled(y: Any, scale: Any, bias: Any, out: Any) -> None:
    """out = y scale + bias."""
    for j in range(out.size):
        out[j] = y[j] * scale[j] + bias[j]


@njit(cache=True, nogil=True)
def round_halves(values: Any, room: Any) -> None:
    """float64 values to the nearest half, ties to even, in place; beyond 65504 an infinity. `room`: (2, H) float64.

    A normal half keeps 10 of the 52 bits of the fraction; a subnormal one is a multiple of 2^-24.
    """
    words, spare = room.view(np.int64), room[1]
    for j in range(values.size):
        room[0, j] = values[j]
    for j in range(values.size):
        word = words[0, j]
        words[1, j] = (word + HALF_ULP_LESS + ((word >> DROPPED) & 1)) & ~DROPPED_MASK
    for j in range(values.size):
        near = values[j]
        rounded_value = np.rint(near * 2.0**24) * 2.0**-24 if abs(near) < 2.0**-14 else spare[j]
        values[j] = np.copysign(np.inf, near) if abs(rounded_value) > 65504.0 else rounded_value


@njit(cache=True, nogil=True)
def look_up(values: Any, index: Any, out: Any) -> None:
    """out = values[index], for entries that are in range."""
    for j in range(index.size):
        out[j] = values[np.uint32(index[j])]


@njit(cache=True, nogil=True)
def cell_step(i: Any, f: Any, g: Any, cell: Any, grid: Any, on_codes: bool, form: int, ties: int) -> None:
    """c' = f c + i g, on its grid of codes when it has one."""
    for j in range(cell.size):
        kept = np.float64(f[j]) * cell[j] + np.float64(i[j]) * np.float64(g[j])
        if on_codes:
            kept = code_of(kept, grid, form, ties) * grid[0]
        cell[j] = kept


@njit(cache=True, nogil=True)
def cell_entries(cell: Any, at: Any, ties: int, index: Any) -> None:
    """Table entries of the cell state."""
    for j in range(index.size):
        index[j] = index_of(cell[j], at, ties)


@njit(cache=True, nogil=True)
def hidden_codes(o: Any, tangent: Any, grid: Any, form: int, ties: int, out: Any) -> None:
    """Codes of o tanh(c')."""
    for j in range(out.size):
        out[j] = np.int8(np.int32(code_of(np.float64(o[j]) * np.float64(tangent[j]), grid, form, ties)))


@lru_cache
def lstm_row(cell: int, plain: bool, half_gates: bool = False) -> Loop:
    """The compiled pointwise part of one row; what is fixed here becomes vector code. See `lstm_loop`.

    Called with: gate sums x and y (4H,) with scales and biases; tables, order and grids; c (H,) float64, changed;
    h (H,) int8, written; rules; room to work in.
    """

    def row(x: Any, scale_x: Any, bias_x: Any, y: Any, scale_y: Any, bias_y: Any, sigmoid: Any, sigmoid_grid: Any,
            tanh: Any, tanh_grid: Any, order: Any, grid: Any, cell_grid: Any, c: Any, h: Any, rules: Any, index: Any,
            gates: Any, room: Any) -> None:  # fmt: skip
        form, ties, cell_form, cell_ties, table_ties = PLAIN if plain else rules
        cells = c.size
        for gate in range(4):
            first = np.uint64(order[gate]) * np.uint64(cells)
            part = slice(first, first + np.uint64(cells))
            grid_in = tanh_grid if gate == 2 else sigmoid_grid
            if half_gates:
                scaled(y[part], scale_y[part], bias_y[part], room[2])
                round_halves(room[2], room[:2])
                gate_entries_of_halves(x[part], scale_x[part], bias_x[part], room[2], grid_in, table_ties, index)
            else:
                gate_entries(x[part], scale_x[part], bias_x[part], y[part], scale_y[part], bias_y[part], grid_in,
                             table_ties, index)  # fmt: skip
            look_up(tanh if gate == 2 else sigmoid, index, gates[gate])
        cell_step(gates[0], gates[1], gates[2], c, cell_grid, cell == CODES, cell_form, cell_ties)
        if cell == HALVES:
            round_halves(c, room[:2])
        cell_entries(c, tanh_grid, table_ties, index)
        look_up(tanh, index, gates[0])
        hidden_codes(gates[3], gates[0], grid, form, ties, h)

    return _named(row, f"lstm_row_{cell}_{plain:d}_{half_gates:d}")


def recurrent_product(spec: str, h: Any, weights: Any, offsets: Any, table: Any, out: Any) -> None:
    """`kernels.product` by name, which lets compiled code that calls it be cached on disk."""
    raise NotImplementedError("compiled code only")


@overload(recurrent_product, prefer_literal=True)
def _recurrent_product(
    spec: Any, h: Any, weights: Any, offsets: Any, table: Any, out: Any
) -> Callable[..., None] | None:
    if not isinstance(spec, types.StringLiteral):
        return None
    multiply = _PRODUCTS[spec.literal_value]

    def call(spec: Any, h: Any, weights: Any, offsets: Any, table: Any, out: Any) -> None:
        multiply(h, weights, offsets, table, out)

    return call


@cache
def _revision() -> int:
    """A number of the kernels' source: Numba's cache on disk sees only the file of the jitted function."""
    files = sorted(Path(str(kernels.__file__)).parent.glob("*.py"))
    return zlib.crc32(b"".join(file.read_bytes() for file in files))


@lru_cache
def lstm_loop(isa: Isa, base: str, cell: int, plain: bool, half_gates: bool = False) -> Loop:
    """The compiled loop for weights in the layout `base`, the cell state kept as REALS, CODES or HALVES.

    `half_gates`: the gate sums of the hidden state are rounded to half before they are added.
    `plain` fixes the rules to division and ties to even, which makes vector code; otherwise they are read at run time.

    Called with: sums_x (T, R, 4H) int32 or float64, its scale and bias (4H,) float64; weights, offsets, table
    of the packed recurrent weights (H, 4H), their scale and bias; sigmoid and tanh values and their grids;
    order, the positions of i, f, g, o; grids of hidden and cell codes; h (R, H) int8 before the first step; c (R, H)
    float64, changed; h (T, R, H) int8, written; rules: form and ties of hidden codes, of the cell's, and
    ties of the tables' entries; reverse, whether time runs from the last step to the first.
    """
    spec = f"{isa.name} {base} {_revision():08x}"
    _PRODUCTS[spec] = product(isa, base)
    slab_depth = LAYOUTS[base].slab_depth
    step_row = lstm_row(cell, plain, half_gates)

    def run(
        sums_x: Any, scale_x: Any, bias_x: Any, weights: Any, offsets: Any, table: Any, scale_h: Any,
        bias_h: Any, sigmoid: Any, sigmoid_grid: Any, tanh: Any, tanh_grid: Any, order: Any, grid: Any, cell_grid: Any,
        first: Any, c: Any, h: Any, rules: tuple[int, int, int, int, int], reverse: bool,
    ) -> None:  # fmt: skip
        steps, rows, cells = h.shape
        before = np.zeros((rows, weights.shape[1] * slab_depth), np.int8)
        for row in range(rows):
            for j in range(cells):
                before[row, j] = first[row, j]
        sums_h = np.empty((1, rows, 4 * cells), np.int32)
        index = np.empty(cells, np.int32)
        gates, room = np.empty((4, cells), sigmoid.dtype), np.empty((3, cells))
        for step in range(steps):
            t = steps - 1 - step if reverse else step
            recurrent_product(spec, before, weights, offsets, table, sums_h)
            for row in range(rows):
                step_row(sums_x[t, row], scale_x, bias_x, sums_h[0, row], scale_h, bias_h, sigmoid, sigmoid_grid,
                         tanh, tanh_grid, order, grid, cell_grid, c[row], h[t, row], rules, index, gates,
                         room)  # fmt: skip
                for j in range(cells):
                    before[row, j] = h[t, row, j]

    return _named(run, f"lstm_loop_{spec.replace(' ', '_')}_{cell}_{plain:d}_{half_gates:d}")


@lru_cache
def lstm_step(cell: int, plain: bool) -> Loop:
    """The compiled pointwise part of one step of rows, outside a loop; `cell` and `plain` as in `lstm_loop`.

    Called with: sums_x (R, 4H) and sums_h (R, 4H) int32 or float64, each with its scale and bias (4H,); tables, order,
    grids and rules of `lstm_loop`; c (R, H) float64, changed; h (R, H) int8, written.
    """

    step_row = lstm_row(cell, plain)

    def run(
        sums_x: Any, scale_x: Any, bias_x: Any, sums_h: Any, scale_h: Any, bias_h: Any, sigmoid: Any,
        sigmoid_grid: Any, tanh: Any, tanh_grid: Any, order: Any, grid: Any, cell_grid: Any, c: Any, h: Any,
        rules: tuple[int, int, int, int, int],
    ) -> None:  # fmt: skip
        index, gates = np.empty(c.shape[1], np.int32), np.empty((4, c.shape[1]), sigmoid.dtype)
        room = np.empty((3, c.shape[1]))
        for row in range(len(c)):
            step_row(sums_x[row], scale_x, bias_x, sums_h[row], scale_h, bias_h, sigmoid, sigmoid_grid, tanh,
                     tanh_grid, order, grid, cell_grid, c[row], h[row], rules, index, gates, room)  # fmt: skip

    return _named(run, f"lstm_step_{cell}_{plain:d}")


def _named(function: Loop, name: str) -> Loop:
    """Compiled under a name of its own, see `kernels.product`."""
    function.__qualname__ = name
    compiled: Loop = njit(cache=True, nogil=True)(function)
    return compiled
