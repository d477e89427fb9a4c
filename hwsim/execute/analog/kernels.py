"""Compiled products on tiles: input codes, sums, and what the columns make of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from hwsim.execute.analog.compiled import compiled
from hwsim.execute.analog.sums import tile_sums


@njit(cache=True, nogil=True)
def to_codes(x: Any, alpha: float, levels: float, codes: Any) -> float:
    """Codes of one row of inputs by a DAC of so many levels (0: x / alpha as it is); returns the range that was used.

    `alpha` 0: the greatest |x| of the row, or 1 where all are 0.
    """
    used = alpha
    if used == 0.0:
        for k in range(x.size):
            used = max(used, abs(x[k]))
        if used == 0.0:
            used = 1.0
    if levels > 0.0:
        for k in range(x.size):
            codes[k] = min(max(np.rint(x[k] / used * levels), -levels), levels)
    else:
        for k in range(x.size):
            codes[k] = x[k] / used
    return used


@njit(cache=True, nogil=True)
def towards_far(codes: Any, rows: int, out: Any) -> None:
    """Codes times 1 - (k / K)^2 along the wire of each tile, k = 0 far from the amplifier, for IR drop."""
    depth = codes.size
    for k in range(depth):
        length = min(rows, depth - k // rows * rows)
        near = (k % rows + 0.5) / length
        out[k] = codes[k] * (1.0 - near * near)


@njit(cache=True, nogil=True)
def squares_of_groups(codes: Any, divisor: float, rows: int, group: int, out: Any) -> None:
    """Sums of (code / divisor)^2 over groups of `group` rows within each tile, (groups,)."""
    at = 0
    for first in range(0, codes.size, rows):
        last = min(codes.size, first + rows)
        for start in range(first, first + rows, group):
            total = 0.0
            for k in range(start, min(start + group, last)):
                total += codes[k] * codes[k]
            out[at] = total / (divisor * divisor)
            at += 1


@njit(cache=True, nogil=True)
def add_drop(values: Any, near: Any, size: Any, drop: float, scale: float) -> None:
    """IR drop of one row of sums, first order: y -= a / 2 sum_k w_k x_k (1 - (k / K)^2), a = `drop` size.

    `size` (N,): the mean |w| of the column; `near` (N,): the weighted sum, in units of `scale`.
    """
    for n in range(values.size):
        values[n] -= 0.5 * drop * size[n] * near[n] * scale


@njit(cache=True, nogil=True)
def add_noise(values: Any, variance: float, spread: Any, noise: Any) -> None:
    """values += sqrt(variance + spread) noise; `spread` is empty where it is 0."""
    if spread.size:
        for n in range(values.size):
            values[n] += np.sqrt(variance + spread[n]) * noise[n]
    else:
        sigma = np.sqrt(variance)
        for n in range(values.size):
            values[n] += sigma * noise[n]


@njit(cache=True, nogil=True)
def add_columns(values: Any, bound: float, levels: float, slope: Any, offset: Any, out: Any) -> None:
    """out += slope ADC(values) + offset; 0 levels: no converter."""
    if levels > 0.0:
        step = bound / levels
        for n in range(out.size):
            out[n] += slope[n] * (min(max(np.rint(values[n] / step), -levels), levels) * step) + offset[n]
    else:
        for n in range(out.size):
            out[n] += slope[n] * values[n] + offset[n]


@compiled
def mvm(x: Any, alpha: float, weights: Any, spreads: Any, slope: Any, offset: Any, size: Any, noise: Any, rows: int,
        group: int, rules: Any, out: Any) -> None:  # fmt: skip
    """out (M, N) float64: the products of x (M, K) float64 on the tiles of one matrix.

    weights (K, N) in steps of `rules`; spreads (groups, N), variances of a reading by groups of rows, or (0, 0); slope
    and offset (tiles, N) behind the ADC; size (tiles, N) mean |w|; noise (M, tiles, N) standard normal, or (0, 0, 0).
    `rules`: levels of the DAC, levels and bound of the ADC, sigma_out^2, sigma_w^2, the factor of IR drop over the wire
    ratio, and the step of the weights. Sums are in the type of `spreads`.
    """
    levels, adc_levels, bound, output, each, drop, step = rules
    count, depth = x.shape
    tiles, columns = slope.shape
    divisor, pairs = max(levels, 1.0), 2 if drop > 0.0 else 1
    scale = step / divisor
    codes = np.empty((pairs * count, depth), spreads.dtype)
    ranges, power = np.empty(count), np.empty((count, tiles))
    for m in range(count):
        ranges[m] = to_codes(x[m], alpha, levels, codes[pairs * m])
        squares_of_groups(codes[pairs * m], divisor, rows, rows, power[m])
        if drop > 0.0:
            towards_far(codes[pairs * m], rows, codes[pairs * m + 1])
    sums = np.empty((tiles, pairs * count, columns), spreads.dtype)
    tile_sums(codes, weights, rows, sums)
    by_tile = (rows + group - 1) // group
    spread = np.empty((tiles, count if spreads.size else 0, columns), spreads.dtype)
    if spreads.size:
        squares = np.empty((count, tiles * by_tile), spreads.dtype)
        for m in range(count):
            squares_of_groups(codes[pairs * m], divisor, rows, group, squares[m])
        tile_sums(squares, spreads, by_tile, spread)
    values, nothing = np.empty(columns), np.empty(0, spreads.dtype)
    for m in range(count):
        out[m] = 0.0
        for tile in range(tiles):
            for n in range(columns):
                values[n] = sums[tile, pairs * m, n] * scale
            if drop > 0.0:
                part = codes[pairs * m, tile * rows : min(depth, (tile + 1) * rows)]
                current = drop * part.size * np.abs(part).sum() / divisor
                add_drop(values, sums[tile, pairs * m + 1], size[tile], current, scale)
            if noise.size:
                variance = output + each * power[m, tile]
                add_noise(values, variance, spread[tile, m] if spreads.size else nothing, noise[m, tile])
            add_columns(values, bound, adc_levels, slope[tile], offset[tile], out[m])
        for n in range(columns):
            out[m, n] *= ranges[m]
