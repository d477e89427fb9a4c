"""What a product of codes is, in int64 NumPy: the definition that the kernels equal."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.integer[Any]]
Int64 = npt.NDArray[np.int64]


def weight_values(
    codes: Integers, *, table: npt.ArrayLike | None = None, zero_point: npt.ArrayLike | None = None
) -> Int64:
    """The integers that codes (K, N) stand for: centroids of a codebook `table`, else the codes; minus zero points.

    `zero_point`: a scalar, (N,) per channel, or (G, N) for G groups of K/G consecutive rows.
    """
    values = codes.astype(np.int64)
    if table is not None:
        values = np.asarray(table, np.int64)[values]
    points = np.asarray(0 if zero_point is None else zero_point, np.int64)
    if points.ndim == 2:
        points = np.repeat(points, len(values) // len(points), axis=0)
    return values - points


def matmul(activation_codes: Integers, weights: Int64) -> Int64:
    """C[m, n] = sum over k of a[m, k] * w[k, n], (M, K) × (K, N) → (M, N) int64."""
    return activation_codes.astype(np.int64) @ weights


def group_products(activation_codes: Integers, weights: Int64, groups: int) -> Int64:
    """The same for each of G groups of K/G consecutive k: (G, M, N) int64."""
    parts = zip(np.split(activation_codes, groups, axis=1), np.split(weights, groups, axis=0), strict=True)
    return np.stack([matmul(activations, part) for activations, part in parts])
