"""Noise-aware training: what analog tiles do to a product, in training alone, so that weights learn to bear it.

In training each matrix product is y = gamma alpha ADC(sigma_out N + sum_k (w_k + sigma_w N) DAC(x_k / alpha)), with
w in units of gamma, the greatest |w| of its column, and x of alpha, the greatest |x| of its row. Weights are drawn
anew for each batch, outputs for each product; gradients pass converters where nothing is clipped. In evaluation
weights are clipped and nothing else happens, so that the network is the one that is programmed.

Source: Rasch et al., Nat. Commun. 14, 2023 (the standard tile; training with more noise than a chip has).
Not modelled in training: drift, IR drop, and errors that stay with a device from batch to batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hwsim.errors import HwsimError
from hwsim.numerics.calibration import BoundAware
from hwsim.numerics.quantizers import Quantizer

LEAST_BITS, MOST_BITS = 2, 16


@dataclass(frozen=True, slots=True)
class NoisyWeights:
    """How products are disturbed in training. Raises HwsimError for values out of range."""

    weight_noise: float = 0.0175
    """sigma_w, of the greatest |w| of the column."""
    output_noise: float = 0.04
    """sigma_out, of the greatest |w| of the column times the greatest |x|."""
    deviations: float = 2.5
    """Weights of a column are clipped to this multiple of their root mean square."""
    dac_bits: int = 8
    adc_bits: int = 8
    adc_bound: float = 10.0
    """Greatest output, in units of sigma_out."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name.endswith("_bits"):
                if not LEAST_BITS <= value <= MOST_BITS:
                    raise HwsimError(f"{each.name} must be {LEAST_BITS} to {MOST_BITS}, got {value}")
            elif each.name.endswith("_noise"):
                if not 0 <= value < math.inf:
                    raise HwsimError(f"{each.name} must be 0 or more, got {value:g}")
            elif not 0 < value < math.inf:
                raise HwsimError(f"{each.name} must be above 0, got {value:g}")

    @property
    def adc_step(self) -> float:
        """Step of the outputs, in units of sigma_out."""
        return self.adc_bound / _levels(self.adc_bits)


class NoisyMatrix(nn.Module):
    """w (K, N) -> clipped, and in training with noise; the place of a weight grid.

    Noise is drawn from the seed of the matrix, which comes from torch's generator when the network is made, and the
    step of training (`begin`), so that a run that goes on draws what an unbroken one draws.
    """

    def __init__(self, recipe: NoisyWeights) -> None:
        super().__init__()
        self.recipe = recipe
        self.seed = int(torch.randint(2**31 - 1, ()))
        self.begin(0)

    def begin(self, step: int) -> None:
        """Draw the noise of this step from now on."""
        self._at, self._draws = step, 0

    def clipped(self, w: Tensor) -> Tensor:
        """w within its bounds, by column; no gradient where it is clipped."""
        bound = w.detach().square().mean(dim=0).sqrt() * self.recipe.deviations
        return torch.minimum(torch.maximum(w, -bound), bound)

    def forward(self, w: Tensor) -> Tensor:
        """The weights of one batch."""
        w = self.clipped(w)
        return w + self._normal(w) * (self.recipe.weight_noise * _greatest(w)) if self.training else w

    def codes(self, w: Tensor) -> tuple[npt.NDArray[np.float64], None]:
        """The reals (K, N) that are programmed, float64, and no grid."""
        return self.clipped(w).detach().double().cpu().numpy(), None

    def product(self, x: Tensor, w: Tensor) -> Tensor:
        """x (..., K) by w (K, N) as a tile gives it in training."""
        recipe = self.recipe
        alpha = x.detach().abs().amax(dim=-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
        unit = _greatest(self.clipped(w)) * alpha
        y = converted(x, alpha / _levels(recipe.dac_bits), recipe.dac_bits) @ self(w)
        y = y + self._normal(y) * (unit * recipe.output_noise)
        return converted(y, unit * recipe.adc_step, recipe.adc_bits)

    def disturbed_gates(self, gates: Tensor, w: Tensor) -> Tensor:
        """Gate sums (T, B, N) with the noise that the product of hidden states by w (K, N) adds at each step.

        Hidden states are within -1 to 1. Noise that does not depend on the sum can be added before it; the rounding
        of the ADC is taken as noise of its variance, step^2 / 12, and its bound, which is far, is left out.
        """
        recipe = self.recipe
        sigma = math.sqrt(recipe.output_noise**2 + recipe.adc_step**2 / 12)
        return gates + self._normal(gates) * (_greatest(self.clipped(w)) * sigma)

    def hidden_grid(self) -> Quantizer:
        """The steps of the DAC on hidden states."""
        return BoundAware(1.0, self.recipe.dac_bits).calibrate()

    def _normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers of the shape of `like`, other ones at each call of a step."""
        entropy = np.random.SeedSequence((self.seed, self._at, self._draws)).generate_state(1, np.uint64)
        self._draws += 1
        source = torch.Generator().manual_seed(int(entropy[0] >> np.uint64(1)))
        return torch.randn(like.shape, generator=source, dtype=like.dtype).to(like.device)


def converted(x: Tensor, step: Tensor, bits: int) -> Tensor:
    """x after a symmetric converter of 2^bits - 2 steps; the gradient passes where it does not clip."""
    levels = _levels(bits)
    step = step.clamp_min(torch.finfo(x.dtype).tiny)
    inside = torch.minimum(torch.maximum(x, -levels * step), levels * step)
    return inside + (torch.round(inside.detach() / step) * step - inside.detach())


def product(x: Tensor, w: Tensor, grid: nn.Module | None) -> Tensor:
    """x (..., K) by w (K, N) on its grid, if any; in training by a noisy one as a tile gives it."""
    if isinstance(grid, NoisyMatrix) and grid.training:
        return grid.product(x, w)
    values: Tensor = w if grid is None else grid(w)
    return x @ values


def _levels(bits: int) -> int:
    return (1 << (bits - 1)) - 1


def _greatest(w: Tensor) -> Tensor:
    """The greatest |w| of each column, (N,), which is no variable of training."""
    return w.detach().abs().amax(dim=0)
