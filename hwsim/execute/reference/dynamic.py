"""Products of activations whose grid is found at run time."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from hwsim.execute.reference.linear import integer_sums, product_scale
from hwsim.execute.semantics import TRAINING, Semantics
from hwsim.numerics.dynamic import DynamicGrid
from hwsim.numerics.quantizers import Quantizer
from hwsim.numerics.rounding import Reals


def dynamic_linear_values(
    x: ArrayLike, w: ArrayLike, input: DynamicGrid, weights: Quantizer, bias: ArrayLike | None = None,
    semantics: Semantics = TRAINING,
) -> Reals:  # fmt: skip
    """y[m, n] = sum_g sums_g[m, n] (sx[m] sw_g[n]) + bias[n], in float64, one rounding for each operation.

    `x` (..., K) reals, quantized row by row or as a whole: codes and sx by `DynamicGrid.quantize`. `w` (K, N) codes of
    `weights`, with one scale, N or G x N; `bias` (N,) float64. sums_g are the integers of `integer_sums`. First the
    two scales are multiplied, then the integers by them, then groups are added in their order, then the bias.
    Raises HwsimError for NaN, shapes that do not fit and codes out of range.
    """
    codes, scales = input.quantize(x)
    sums = integer_sums(codes, w, input.unit, weights, semantics)
    total = np.zeros(sums.shape[1:])
    for group_sums, scale in zip(sums, product_scale(input.unit, weights, np.shape(w)), strict=True):
        total = total + group_sums * (scales * scale)
    return total if bias is None else total + np.asarray(bias, np.float64)
