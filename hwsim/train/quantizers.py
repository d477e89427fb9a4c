"""Fake quantization in PyTorch, with straight-through gradients and the codes of `hwsim.numerics`.

The same formulas as `numerics.quantizers.Quantizer`, written in torch operations in the precision of the tensor:
float64 tensors meet a float64 quantizer, float32 tensors a float32 one.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hwsim.errors import HwsimError
from hwsim.numerics.calibration import BoundAware, Calibration, NativeQat, Pact
from hwsim.numerics.dynamic import MOST_BITS, DynamicGrid, Per
from hwsim.numerics.quantizers import Precision, Quantizer
from hwsim.numerics.tables import Table

_PRECISIONS: dict[torch.dtype, Precision] = {torch.float32: "float32", torch.float64: "float64"}


def precision_of(x: Tensor) -> Precision:
    """float32 or float64. Raises HwsimError for another type."""
    if x.dtype not in _PRECISIONS:
        raise HwsimError(f"tensors to quantize must be float32 or float64, got {x.dtype}")
    return _PRECISIONS[x.dtype]


def quantize(x: Tensor, quantizer: Quantizer) -> Tensor:
    """Codes of `x` as whole numbers in its precision: clip(round(x / scale) + zero_point) and its variants.

    Raises HwsimError for NaN, an infinity, or a type that is not float32 or float64.
    """
    return _codes(x, _at(quantizer, precision_of(x)))[0]


def fake_quantize(x: Tensor, quantizer: Quantizer) -> Tensor:
    """Values of the codes of `x`; the gradient passes where the code was not clipped, and is zero elsewhere."""
    result: Tensor = _StraightThrough.apply(x, quantizer)  # type: ignore[no-untyped-call]
    return result


def table_function(x: Tensor, table: Table, name: str) -> Tensor:
    """A function by its table, as the executor reads it; the gradient is that of sigmoid or tanh (`name`)."""
    result: Tensor = _ByTable.apply(x, table, name)  # type: ignore[no-untyped-call]
    return result


@lru_cache(maxsize=256)
def _at(quantizer: Quantizer, precision: Precision) -> Quantizer:
    return quantizer if quantizer.precision == precision else replace(quantizer, precision=precision)


@lru_cache(maxsize=32)
def _table_values(table: Table, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.as_tensor(table.output.dequantize(table.codes), dtype=dtype, device=device)


def _codes(x: Tensor, quantizer: Quantizer) -> tuple[Tensor, Tensor]:
    """Codes, and where they were not clipped."""
    if not bool(torch.isfinite(x).all()):
        raise HwsimError("values to quantize must be finite, got NaN or an infinity")
    low, high = quantizer.code_range
    scale, zero = _parameter(quantizer.scale, quantizer, x), _parameter(quantizer.zero_point, quantizer, x)
    if quantizer.form == "unit":
        levels = float(high - low)
        free = _rounded(levels * (0.5 * x / (levels * scale * 0.5) + 0.5), quantizer.ties) + low
    else:
        scaled = x * (1.0 / scale) if quantizer.form == "reciprocal" else x / scale
        scaled = scaled - 0.5 if quantizer.half_step else scaled
        if quantizer.zero_point_order == "fused":
            raise HwsimError("zero_point_order fused is not a rule of training")
        before = quantizer.zero_point_order == "before"
        free = _rounded(scaled + zero, quantizer.ties) if before else _rounded(scaled, quantizer.ties) + zero
    return free.clamp(low, high), (free >= low) & (free <= high)


def _values(codes: Tensor, quantizer: Quantizer) -> Tensor:
    steps = codes - _parameter(quantizer.zero_point, quantizer, codes)
    steps = steps + 0.5 if quantizer.half_step else steps
    return steps * _parameter(quantizer.scale, quantizer, codes)


def _parameter(array: Any, quantizer: Quantizer, x: Tensor) -> Tensor:
    spread = np.repeat(array, quantizer.group_size, axis=0) if quantizer.group_size and array.ndim else array
    return torch.as_tensor(np.asarray(spread, quantizer.precision), device=x.device)


def _rounded(x: Tensor, ties: str) -> Tensor:
    if ties == "half_even":
        return torch.round(x)
    if ties == "half_up":
        return torch.floor(x + 0.5)
    if ties == "half_down":
        return torch.ceil(x - 0.5)
    whole = torch.trunc(x)
    if ties == "toward_zero":
        return whole
    return whole + torch.copysign(((x - whole).abs() >= 0.5).to(x.dtype), x)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, quantizer: Quantizer) -> Tensor:
        quantizer = _at(quantizer, precision_of(x))
        codes, inside = _codes(x, quantizer)
        ctx.save_for_backward(inside)
        return _values(codes, quantizer)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (inside,) = ctx.saved_tensors
        return gradient * inside, None


class _ByTable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, table: Table, name: str) -> Tensor:
        low = table.input.code_range[0]
        entries = (quantize(x, table.input) - low).long()
        y = _table_values(table, x.dtype, x.device)[entries]
        ctx.save_for_backward(y)
        ctx.name = name
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (y,) = ctx.saved_tensors
        slope = 1 - y * y if ctx.name == "tanh" else y * (1 - y)
        return gradient * slope, None, None


class FakeQuantizer(nn.Module):
    """A recipe as a module: SAWB, BAC, PACT with fixed bounds, min-max, native QAT, a table by least squares.

    A `Quantizer` in its place is a grid that is fixed.

    With `static` (activations) the grid is measured in training, over all that was seen, and kept for evaluation;
    otherwise (weights) it is calibrated at every call. BAC and fixed PACT bounds measure nothing.
    """

    def __init__(self, calibration: Calibration | Quantizer, *, static: bool = False) -> None:
        super().__init__()
        self.calibration = calibration
        self.static = static and not isinstance(calibration, (BoundAware, Pact, Quantizer))
        if self.static and getattr(calibration, "axis", None) is not None:
            raise HwsimError("activations must have one scale, got a calibration with an axis")
        self.register_buffer("seen", torch.zeros(2, dtype=torch.float64))
        self.seen: Tensor

    def observe(self, x: Tensor) -> None:
        """Widen the range that was seen to hold `x`, in single precision.

        A range measured in float64 on sums of products is an exact multiple of their step: half of it would be a tie,
        on which sums in another order disagree.
        """
        extremes = torch.stack([x.detach().amin(), x.detach().amax()]).float().double()
        self.seen = torch.stack([torch.minimum(self.seen[0], extremes[0]), torch.maximum(self.seen[1], extremes[1])])

    def quantizer(self, x: Tensor | None = None) -> Quantizer:
        """The grid: of the range that was seen, or of `x` (in the layout of codes: output channels last)."""
        if isinstance(self.calibration, Quantizer):
            return self.calibration
        if self.static:
            if not bool(self.seen.any()):
                raise HwsimError("an activation's range must be seen in training before it is used, got none")
            return self.calibration.calibrate(self.seen.cpu().numpy())
        return self.calibration.calibrate(() if x is None else x.detach().double().cpu().numpy())

    def forward(self, x: Tensor) -> Tensor:
        """x on its grid."""
        if self.static and self.training:
            self.observe(x)
        return fake_quantize(x, self.quantizer(x))


class LearnedBounds(nn.Module):
    """PACT: bounds that are trained. dy/d upper is 1 where x >= upper, dy/d lower is 1 where x <= lower, else 0.

    dy/dx is 1 between the bounds and 0 beyond. Scale and zero point as `numerics.calibration.Pact`.
    Source: Choi et al., arXiv 1805.06085.
    """

    def __init__(self, lower: float = -1.0, upper: float = 1.0, bits: int = 4) -> None:
        super().__init__()
        self.bits = bits
        self.lower = nn.Parameter(torch.tensor(float(lower)))
        self.upper = nn.Parameter(torch.tensor(float(upper)))
        self.quantizer()

    def quantizer(self, x: Tensor | None = None) -> Quantizer:
        """The grid of the bounds. Raises HwsimError unless lower <= 0 < upper."""
        return Pact(self.lower.item(), self.upper.item(), self.bits).calibrate()

    def forward(self, x: Tensor) -> Tensor:
        """x on its grid."""
        if not bool(torch.isfinite(x).all()):
            raise HwsimError("values to quantize must be finite, got NaN or an infinity")
        # Not minimum and maximum: they would share the gradient of a value on the bound.
        bounded = torch.where(x >= self.upper, self.upper, torch.where(x <= self.lower, self.lower, x))
        # The grid is of x itself; bounded - bounded.detach() is zero and carries the gradient to x and the bounds.
        return fake_quantize(x.detach(), self.quantizer()) + (bounded - bounded.detach())


class DynamicQuantizer(nn.Module):
    """A recipe calibrated on every activation at run time, as native QAT does: x -> x on the grid of x itself.

    `per`: one grid for each row (the last axis), or for the tensor, which is the whole batch. Of `NativeQat` the grid
    is a `DynamicGrid`, which an executable finds as well; other recipes, per tensor alone, train and are not converted.
    Raises HwsimError for rows on the grid of another recipe.
    """

    def __init__(self, calibration: Calibration, per: Per = "tensor") -> None:
        super().__init__()
        self.calibration = calibration
        is_native = isinstance(calibration, NativeQat) and calibration.axis is None and calibration.bits <= MOST_BITS
        self.grid = DynamicGrid(calibration.bits, per) if is_native else None  # type: ignore[attr-defined]
        if self.grid is None and per != "tensor":
            raise HwsimError(f"a grid of each row must be NativeQat of 2 to 8 bits without an axis, got {calibration}")

    @property
    def found(self) -> DynamicGrid:
        """What an executable is given. Raises HwsimError for a recipe that is not `NativeQat`."""
        if self.grid is None:
            raise HwsimError("a grid that an executable finds at run time must be NativeQat of 2 to 8 bits without an "
                             f"axis, got {self.calibration}")  # fmt: skip
        return self.grid

    def quantizer(self, x: Tensor | None = None) -> Quantizer:
        """The grid of `x`. Raises HwsimError without one."""
        if x is None:
            raise HwsimError("this grid must be fixed before it is used, got one of run time: give its recipe without "
                             "DynamicQuantizer")  # fmt: skip
        reals = x.detach().double().cpu().numpy()
        return self.calibration.calibrate(reals) if self.grid is None else self.grid.quantizer(reals)

    def forward(self, x: Tensor) -> Tensor:
        """x on its grid."""
        return fake_quantize(x, self.quantizer(x))
