"""Products whose activations find their grid at run time, in the order in which the executor computes them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from hwsim.execute.reference.linear import product_scale
from hwsim.numerics.codebook import Codebook
from hwsim.numerics.quantizers import Quantizer
from hwsim.train.analog import product
from hwsim.train.quantizers import DynamicQuantizer, quantize
from hwsim.train.weights import WeightGrid, weight_codes


def dynamic_product(x: Tensor, input: DynamicQuantizer, w: Tensor, weights: WeightGrid) -> Tensor:
    """x (..., K) by w (K, N), both quantized: `reference.dynamic.dynamic_linear_values` without its bias.

    Integers are summed in float64, which holds them exactly. The gradient is that of the product of both grids'
    values.
    """
    if torch.compiler.is_compiling():  # a program that is read has no values to find scales of
        return product(input(x), w, weights)
    exact = _exact(x.detach(), input, w.detach(), weights)
    if not torch.is_grad_enabled():
        return exact
    smooth = product(input(x), w, weights)
    return exact + (smooth - smooth.detach())


def _exact(x: Tensor, input: DynamicQuantizer, w: Tensor, weights: WeightGrid) -> Tensor:
    stored, coding = weight_codes(w, weights)
    if coding is None:
        return product(input(x), w, weights)
    integers, grid = (coding.expand(stored), coding.expanded) if isinstance(coding, Codebook) else (stored, coding)
    if grid.half_step:
        integers, grid = grid.odd_codes(integers)
    found = input.quantizer(x)
    codes, rows = quantize(x, found).double() - int(found.zero_point), _like(x, found.scale)
    size = grid.group_size or len(integers)
    zero = np.repeat(grid.zero_point, size, axis=0) if grid.group_size and grid.zero_point.ndim else grid.zero_point
    steps = _like(x, integers - zero)
    total = torch.zeros(*x.shape[:-1], integers.shape[1], dtype=torch.float64, device=x.device)
    for group, scale in enumerate(product_scale(_UNIT, grid, integers.shape)):
        part = slice(group * size, (group + 1) * size)
        total = total + (codes[..., part] @ steps[part]) * (rows * _like(x, scale))
    return total.to(x.dtype)


_UNIT = Quantizer(np.asarray(1.0))


def _like(x: Tensor, array: ArrayLike) -> Tensor:
    return torch.as_tensor(np.asarray(array, np.float64), device=x.device)
