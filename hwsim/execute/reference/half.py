"""FP16 layers, with the accumulation that the machine states: IEEE half operands, sums in half or single."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwsim.errors import HwsimError

HalfAccumulator = Literal["float16", "float32"]
Half = NDArray[np.float16]
Reals = NDArray[np.floating[Any]]


def half_matmul(
    a: ArrayLike, w: ArrayLike, bias: ArrayLike | None = None, accumulator: HalfAccumulator = "float32", chunk: int = 0
) -> Half:
    """a @ w + bias of halves: `a` (..., K), `w` (K, N), `bias` (N,) -> half (..., N).

    Products of two halves are exact in single. They are added in the order of K, each sum rounded to single and,
    with a float16 `accumulator`, then to half, ties to even. With a `chunk`, that many are summed from zero, and
    the sums of chunks are added in order in the same precision. The bias comes last, and one rounding to half ends.
    NaN and infinities follow IEEE. Raises HwsimError for shapes that do not fit.
    """
    left, right = np.asarray(a, np.float16), np.asarray(w, np.float16)
    if left.ndim < 1 or right.ndim != 2 or left.shape[-1] != right.shape[0] or chunk < 0:
        raise HwsimError(f"shapes must be (..., K) and (K, N), got {left.shape} and {right.shape}")
    precision = np.dtype(accumulator)
    depth = right.shape[0]
    size = chunk or max(depth, 1)
    total = np.zeros((*left.shape[:-1], right.shape[1]), precision)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, depth, size):
            part = np.zeros_like(total)
            for k in range(start, min(start + size, depth)):
                product = left[..., k, None].astype(np.float32) * right[k].astype(np.float32)
                part = (part.astype(np.float32) + product).astype(precision)
            total = (total.astype(np.float32) + part.astype(np.float32)).astype(precision)
        if bias is not None:
            total = (total.astype(np.float32) + np.asarray(bias, np.float16).astype(np.float32)).astype(precision)
        return total.astype(np.float16)


def half_round(x: ArrayLike) -> Half:
    """Reals to the nearest half, ties to even; beyond 65504 an infinity."""
    with np.errstate(over="ignore"):
        return np.asarray(x).astype(np.float16)


@dataclass(frozen=True, slots=True)
class Halves:
    """The grid of a tensor that is stored as halves, in the place of a quantizer."""

    def fake_quantize(self, x: ArrayLike) -> Reals:
        """`half_round` as float64."""
        return half_round(x).astype(np.float64)
