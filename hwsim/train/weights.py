"""What stands between a trained matrix and its codes: a grid, a grid with N:M zeros, a codebook, or analog noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hwsim.errors import HwsimError
from hwsim.execute.projection import Coding
from hwsim.numerics.calibration import Calibration
from hwsim.numerics.codebook import UNIT, Codebook, MuLaw
from hwsim.numerics.formats import Sparsity
from hwsim.numerics.pruning import keep_largest, survivors
from hwsim.numerics.quantizers import Quantizer
from hwsim.train.analog import NoisyMatrix, NoisyWeights
from hwsim.train.quantizers import FakeQuantizer, fake_quantize


@dataclass(frozen=True, slots=True)
class SparseWeights:
    """N:M zeros along the reduction axis, and a grid for what is kept."""

    calibration: Calibration
    sparsity: Sparsity


class SparseQuantizer(nn.Module):
    """w (K, N) -> the codes' values with N:M zeros along K.

    Dense until `prepare`, which keeps the largest |w| of each group, for good, at whatever step of training it is
    called. The calibration sees what is kept. Raises HwsimError for rows that M does not divide.
    Source: Ding et al., ICASSP 2024, arXiv 2312.08553.
    """

    def __init__(self, recipe: SparseWeights, shape: tuple[int, int]) -> None:
        super().__init__()
        if shape[0] % recipe.sparsity.group:
            raise HwsimError(f"rows of an N:M matrix must be a multiple of {recipe.sparsity.group}, got {shape[0]}")
        self.recipe = recipe
        self.register_buffer("mask", torch.ones(shape, dtype=torch.bool))
        self.mask: Tensor

    def prepare(self, w: Tensor) -> None:
        """Fix the mask by the magnitudes of `w`; of equals the first is kept. Raises HwsimError for NaN or infinity."""
        mask = keep_largest(w.detach().double().cpu().numpy(), self.recipe.sparsity)
        self.mask = torch.as_tensor(mask, device=w.device)

    def quantizer(self, w: Tensor) -> Quantizer:
        """The grid of the weights that are kept. Raises HwsimError for one without a level at zero."""
        calibration, mask = self.recipe.calibration, self.mask.cpu().numpy()
        reals = (w.detach() * self.mask).double().cpu().numpy()
        if getattr(calibration, "axis", None) is not None:
            kept = reals if mask.all() else survivors(reals, mask, self.recipe.sparsity)
        else:
            # Scales of groups are counted over all rows; the zeros there do not move a range that holds zero.
            kept = reals if getattr(calibration, "group_size", 0) else reals[mask]
        grid = calibration.calibrate(kept)
        if grid.half_step:
            raise HwsimError(f"weights of {self.recipe.sparsity} must have a level at zero, got a half-step grid")
        return grid

    def forward(self, w: Tensor) -> Tensor:
        """w on its grid, zero where it is not kept."""
        return fake_quantize(w * self.mask, self.quantizer(w))

    def codes(self, w: Tensor) -> tuple[Any, Quantizer]:
        """Integer codes of w and their grid."""
        grid = self.quantizer(w)
        return grid.quantize((w.detach() * self.mask).double().cpu().numpy()), grid


class CodebookQuantizer(nn.Module):
    """w (K, N) -> sum over j of softmax_j(-sharpness |w / clip - z_j|) clip z_j; evaluated, the nearest centroid.

    `prepare` fits centroids z and clip to the matrix. `sharpness` rises from 10 to 400 over training.
    Source: Zhen et al., SLT 2022, arXiv 2210.09188.
    """

    FIRST, LAST = 10.0, 400.0

    def __init__(self, recipe: MuLaw) -> None:
        super().__init__()
        self.recipe = recipe
        self.register_buffer("table", torch.zeros(1 << recipe.bits, dtype=torch.int8))
        self.register_buffer("scale", torch.zeros((), dtype=torch.float64))
        self.table: Tensor
        self.scale: Tensor
        self.sharpness = self.FIRST

    def prepare(self, w: Tensor) -> None:
        """Fit the codebook to `w`."""
        fitted = self.recipe.calibrate(w.detach().double().cpu().numpy())
        self.table = torch.as_tensor(fitted.table.copy())
        self.scale = torch.as_tensor(fitted.scale)

    def anneal(self, progress: float) -> None:
        """Sharpen the assignment: `progress` is 0 at the start of training and 1 at its end."""
        self.sharpness = self.FIRST + (self.LAST - self.FIRST) * progress

    @property
    def codebook(self) -> Codebook:
        """The centroids. Raises HwsimError before they are fitted."""
        if float(self.scale) == 0:
            raise HwsimError("a codebook must be fitted to its matrix before it is used, got none")
        return Codebook(self.table.cpu().numpy(), self.scale.cpu().numpy())

    def forward(self, w: Tensor) -> Tensor:
        """w by its codebook: softly in training, the values of its codes in evaluation."""
        codebook = self.codebook
        if not self.training:
            hard = codebook.fake_quantize(w.detach().double().cpu().numpy())
            return torch.as_tensor(hard, dtype=w.dtype, device=w.device)
        centroids = (self.table.double() / UNIT).to(w.dtype)
        clip = float(self.scale) * UNIT
        distance = (w[..., None] / clip - centroids).abs()
        return torch.softmax(distance * -self.sharpness, dim=-1) @ centroids * clip

    def codes(self, w: Tensor) -> tuple[Any, Codebook]:
        """Places of w in the codebook, and the codebook."""
        codebook = self.codebook
        return codebook.quantize(w.detach().double().cpu().numpy()).astype(np.uint8), codebook


WeightGrid = FakeQuantizer | SparseQuantizer | CodebookQuantizer | NoisyMatrix
WeightRecipe = Calibration | SparseWeights | MuLaw | NoisyWeights


def weight_grid(recipe: WeightRecipe | Quantizer | None, shape: tuple[int, int]) -> WeightGrid | None:
    """A recipe, or a grid that is fixed, as the module of one matrix (K, N)."""
    if recipe is None:
        return None
    if isinstance(recipe, SparseWeights):
        return SparseQuantizer(recipe, shape)
    if isinstance(recipe, NoisyWeights):
        return NoisyMatrix(recipe)
    return CodebookQuantizer(recipe) if isinstance(recipe, MuLaw) else FakeQuantizer(recipe)


def weight_codes(w: Tensor, grid: WeightGrid | None) -> tuple[Any, Coding | None]:
    """Codes (K, N) of a matrix and their grid, or its reals, float64, and none."""
    if isinstance(grid, SparseQuantizer | CodebookQuantizer | NoisyMatrix):
        return grid.codes(w)
    reals = w.detach().double().cpu().numpy()
    if grid is None:
        return reals, None
    quantizer = grid.quantizer(w)
    codes = quantizer.quantize(reals)
    return codes.astype(np.int8) if quantizer.bits <= 8 else codes, quantizer
