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
def look_up(values: Any, index: Any, out: Any) -> None:
    """out = values[index], for entries that are in range."""
    for j in range(index.size):
        out[j] = values[np.uint32(index[j])]


@njit(cache=True, nogil=True)
def cell_step(i: Any, f: Any, g: Any, cell: Any, grid: Any, has_cell: bool, form: int, ties: int) -> None:
    """c' = f c + i g, on its grid when it has one."""
    for j in range(cell.size):
        kept = np.float64(f[j]) * cell[j] + np.float64(i[j]) * np.float64(g[j])
        if has_cell:
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
def lstm_loop(isa: Isa, base: str, has_cell: bool, plain: bool) -> Loop:
    """The compiled loop for weights in the layout `base`, with or without a grid of the cell state.

    `plain` fixes the rules to division and ties to even, which makes vector code; otherwise they are read at run time.

    Called with: sums_x (T, R, 4H) int32 or float64, its scale and bias (4H,) float64; weights, offsets, table
    of the packed recurrent weights (H, 4H), their scale and bias; sigmoid and tanh values and their grids;
    order, the positions of i, f, g, o; grids of hidden and cell codes; c (R, H) float64, changed;
    h (T, R, H) int8, written, zero before the first step; rules: form and ties of hidden codes, of the cell's, and
    ties of the tables' entries; reverse, whether time runs from the last step to the first.
    """
    spec = f"{isa.name} {base} {_revision():08x}"
    _PRODUCTS[spec] = product(isa, base)
    slab_depth = LAYOUTS[base].slab_depth

    @njit(cache=True, nogil=True)
    def run(
        sums_x: Any, scale_x: Any, bias_x: Any, weights: Any, offsets: Any, table: Any, scale_h: Any,
        bias_h: Any, sigmoid: Any, sigmoid_grid: Any, tanh: Any, tanh_grid: Any, order: Any, grid: Any, cell_grid: Any,
        c: Any, h: Any, rules: tuple[int, int, int, int, int], reverse: bool,
    ) -> None:  # fmt: skip
        form, ties = (DIVIDE, HALF_EVEN) if plain else (rules[0], rules[1])
        cell_form, cell_ties = (DIVIDE, HALF_EVEN) if plain else (rules[2], rules[3])
        table_ties = HALF_EVEN if plain else rules[4]
        steps, rows, cells = h.shape
        before = np.zeros((rows, weights.shape[1] * slab_depth), np.int8)
        sums_h = np.empty((1, rows, 4 * cells), np.int32)
        index = np.empty(cells, np.int32)
        gates = np.empty((4, cells), sigmoid.dtype)
        for step in range(steps):
            t = steps - 1 - step if reverse else step
            recurrent_product(spec, before, weights, offsets, table, sums_h)
            for row in range(rows):
                for gate in range(4):
                    first = np.uint64(order[gate]) * np.uint64(cells)
                    part = slice(first, first + np.uint64(cells))
                    grid_in = tanh_grid if gate == 2 else sigmoid_grid
                    gate_entries(sums_x[t, row, part], scale_x[part], bias_x[part], sums_h[0, row, part],
                                 scale_h[part], bias_h[part], grid_in, table_ties, index)  # fmt: skip
                    look_up(tanh if gate == 2 else sigmoid, index, gates[gate])
                cell_step(gates[0], gates[1], gates[2], c[row], cell_grid, has_cell, cell_form, cell_ties)
                cell_entries(c[row], tanh_grid, table_ties, index)
                look_up(tanh, index, gates[0])
                hidden_codes(gates[3], gates[0], grid, form, ties, h[t, row])
                for j in range(cells):
                    before[row, j] = h[t, row, j]

    return run
