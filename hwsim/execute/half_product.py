"""FP16 products at speed: `reference.half.half_matmul` with a float32 accumulator and no chunks, bit for bit.

A product of two halves is exact in float32, so a fused multiply-add would give the same sum; what must be kept is the
order of K, and it is: columns lie beside each other in a vector, K is the loop. Single-threaded, without the
interpreter's lock.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Half = npt.NDArray[np.float16]
COLUMNS = 512
"""Columns at once: their float32 weights and sums of a few rows stay in the cache."""
EXPONENT = np.float32(2.0**112)
"""Between the exponents of float32 and of half: 2^(127 - 15)."""


@njit(cache=True, nogil=True)
def unpack_halves(bits: Any, words: Any, values: Any) -> None:
    """Finite halves, by their bits, as float32: `words` and `values` are one buffer. Exact, subnormals included."""
    for n in range(bits.size):
        word = np.uint32(bits[n])
        words[n] = ((word & np.uint32(0x7FFF)) << np.uint32(13)) | ((word & np.uint32(0x8000)) << np.uint32(16))
    for n in range(bits.size):
        values[n] = values[n] * EXPONENT


@njit(cache=True, nogil=True)
def add_products(x: np.float32, values: Any, sums: Any) -> None:
    """sums + x values, each rounded to float32."""
    for n in range(sums.size):
        sums[n] += x * values[n]


@njit(cache=True, nogil=True)
def half_sums(x: Any, bits: Any, out: Any) -> None:
    """out (M, N) += x (M, K) float32 @ weights (K, N) as bits of finite halves, in the order of K."""
    rows, depth, columns = x.shape[0], x.shape[1], bits.shape[1]
    words = np.empty(COLUMNS, np.uint32)
    values = words.view(np.float32)
    for first in range(0, columns, COLUMNS):
        last = min(first + COLUMNS, columns)
        for k in range(depth):
            unpack_halves(bits[k, first:last], words, values)
            for m in range(rows):
                add_products(x[m, k], values[: last - first], out[m, first:last])


def half_product(x: Half, weight: Half, bias: Half) -> Half:
    """x @ weight + bias, (M, K), (K, N) and (N,) halves to halves (M, N); the weights are finite and C-contiguous."""
    with np.errstate(over="ignore", invalid="ignore"):
        sums = np.zeros((len(x), weight.shape[1]), np.float32)
        half_sums(x.astype(np.float32), weight.view(np.uint16), sums)
        return (sums + bias.astype(np.float32)).astype(np.float16)
