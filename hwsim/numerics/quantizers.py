"""Affine quantizers as values: how reals become codes and codes become reals, to the last tie.

Two frameworks that print the same scale still differ in codes: by the division or the reciprocal, by where the
zero point is added, and by what happens to ties. All three are fields here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwsim.errors import HwsimError
from hwsim.numerics.formats import Granularity, NumberFormat
from hwsim.numerics.rounding import TIES, Integers, Reals, Ties, integer_range, round_real

Form = Literal["divide", "reciprocal", "unit"]
ZeroPointOrder = Literal["after", "before", "fused"]
Precision = Literal["float64", "float32"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "form": ("divide", "reciprocal", "unit"),
    "zero_point_order": ("after", "before", "fused"),
    "ties": TIES,
    "precision": ("float64", "float32"),
}


def _zero() -> Integers:
    return np.zeros((), np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Quantizer:
    """code = clip(round(x / scale) + zero_point), value = (code - zero_point) scale.

    `scale`: positive and finite, of any shape that broadcasts against x; with `group_size` g, of shape (K/g, ...)
    for x (K, ...). `zero_point`: integers of the scale's shape or none, inside the range of the codes.
    `bits` 1 to 32, `signed`; `narrow` drops the least signed code, so the range is +-(2^(bits-1) - 1).
    `half_step`: value = (code + 1/2) scale, 2^bits levels around zero without a zero; one bit is +-scale/2.
    `form`: `divide` is x / scale; `reciprocal` is x (1 / scale); `unit` is n (0.5 x / c + 0.5), rounded, then plus
    the least code, with n = number of levels - 1 and c = n scale / 2 the clip: its ties go to odd codes when the
    least code is odd, but for the rounding of n (...) itself.
    `zero_point_order`: added after rounding, or before; `fused` is before with x (1 / scale) + zero_point rounded
    once, for `reciprocal` in float32. `ties`: see `round_real`.
    `precision`: every step is computed in float64 or in float32.
    Raises HwsimError for a scale that is not positive and finite, and for a zero point outside the codes.
    """

    scale: Reals
    bits: int = 8
    zero_point: Integers = field(default_factory=_zero)
    signed: bool = True
    narrow: bool = False
    half_step: bool = False
    form: Form = "divide"
    zero_point_order: ZeroPointOrder = "after"
    ties: Ties = "half_even"
    precision: Precision = "float64"
    group_size: int = 0

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise HwsimError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)}")
        if not 1 <= self.bits <= 32:
            raise HwsimError(f"bits must be 1 to 32, got {self.bits}")
        object.__setattr__(self, "scale", np.asarray(self.scale, dtype=self.precision))
        object.__setattr__(self, "zero_point", np.asarray(self.zero_point, dtype=np.int64))
        wrong = ~(np.isfinite(self.scale) & (self.scale > 0))
        if wrong.any():
            raise HwsimError(f"scale must be positive and finite, got {_first(self.scale, wrong)}")
        low, high = self.code_range
        outside = (self.zero_point < low) | (self.zero_point > high)
        if outside.any():
            raise HwsimError(f"zero_point must be {low} to {high}, got {_first(self.zero_point, outside)}")
        if (self.half_step or self.form == "unit") and self.zero_point.any():
            raise HwsimError("zero_point must be 0 with half_step and with form unit")
        if self.form == "unit" and self.zero_point_order != "after":
            raise HwsimError(f"zero_point_order must be after with form unit, got {self.zero_point_order}")
        if self.zero_point_order == "fused" and (self.form, self.precision) != ("reciprocal", "float32"):
            raise HwsimError("zero_point_order fused must be used with form reciprocal and precision float32")

    @property
    def code_range(self) -> tuple[int, int]:
        """Least and greatest code."""
        low, high = integer_range(self.bits, self.signed)
        return (-high, high) if self.narrow and self.signed else (low, high)

    @property
    def number_format(self) -> NumberFormat:
        """How codes of weights (K..., N) are stored; its `stored_bits(shape)` counts scales and zero points too.

        Raises FormatError for bits that no format has.
        """
        granularity: Granularity = "group" if self.group_size else "channel" if self.scale.size > 1 else "tensor"
        return NumberFormat(f"int{self.bits}", granularity, self.group_size, bool(self.zero_point.any()))

    def quantize(self, x: ArrayLike) -> Integers:
        """Codes of `x`, int64 of its shape. Raises HwsimError when x holds NaN or an infinity."""
        values = np.asarray(x, dtype=self.precision)
        if not np.isfinite(values).all():
            raise HwsimError(f"values to quantize must be finite, got {_first(values, ~np.isfinite(values))}")
        low, high = self.code_range
        zero = (np.asarray(low) if self.form == "unit" else self._spread(self.zero_point, values)).astype(values.dtype)
        with np.errstate(over="ignore"):
            match self.zero_point_order:
                case "after":
                    rounded = round_real(self._scaled(values), self.ties) + zero
                case "before":
                    rounded = round_real(self._scaled(values) + zero, self.ties)
                case "fused":
                    inverse = (values.dtype.type(1) / self._spread(self.scale, values)).astype(np.float64)
                    # A product of two float32 is exact in float64, so the sum is rounded to float32 once.
                    rounded = round_real((values.astype(np.float64) * inverse + zero).astype(np.float32), self.ties)
        # float32 has no 2^31 - 1: the second clip is for codes of more than 24 bits.
        codes: Integers = np.clip(np.clip(rounded, low, high).astype(np.int64), low, high)
        return codes

    def dequantize(self, codes: ArrayLike) -> Reals:
        """(codes - zero_point) scale in the quantizer's precision. Raises HwsimError for a code out of range."""
        integers = check_codes(codes, self.code_range)
        steps = (integers - self._spread(self.zero_point, integers)).astype(self.precision)
        if self.half_step:
            steps = steps + steps.dtype.type(0.5)
        values: Reals = steps * self._spread(self.scale, integers)
        return values

    def fake_quantize(self, x: ArrayLike) -> Reals:
        """dequantize(quantize(x)), what a training graph evaluates."""
        return self.dequantize(self.quantize(x))

    def odd_codes(self, codes: ArrayLike) -> tuple[Integers, Quantizer]:
        """A half-step quantizer's codes as odd integers 2 code + 1, of one bit more, with half the scale."""
        if not self.half_step:
            raise HwsimError("odd_codes must be asked of a half_step quantizer")
        odd = 2 * check_codes(codes, self.code_range) + 1
        return odd, replace(self, scale=self.scale / 2, bits=self.bits + 1, half_step=False, form="divide")

    def _scaled(self, values: Reals) -> Reals:
        scale = self._spread(self.scale, values)
        if self.form == "unit":
            low, high = self.code_range
            levels = values.dtype.type(high - low)
            half = values.dtype.type(0.5)
            clip = levels * scale * half
            return levels * (half * values / clip + half)
        scaled = values * (values.dtype.type(1) / scale) if self.form == "reciprocal" else values / scale
        return scaled - values.dtype.type(0.5) if self.half_step else scaled

    def _spread(self, parameter: NDArray[Any], x: NDArray[Any]) -> NDArray[Any]:
        if not self.group_size or not parameter.ndim:
            return parameter
        if parameter.shape[0] * self.group_size != x.shape[0]:
            raise HwsimError(
                f"{parameter.shape[0]} groups of {self.group_size} must cover the first axis, got {x.shape[0]}"
            )
        return np.repeat(parameter, self.group_size, axis=0)


def check_codes(codes: ArrayLike, code_range: tuple[int, int], name: str = "codes") -> Integers:
    """`codes` as int64. Raises HwsimError unless they are integers inside the range."""
    array = np.asarray(codes)
    if array.dtype.kind not in "iu":
        raise HwsimError(f"{name} must be integers, got {array.dtype}")
    integers = array.astype(np.int64)
    low, high = code_range
    outside = (integers < low) | (integers > high)
    if outside.any():
        raise HwsimError(f"{name} must be {low} to {high}, got {_first(integers, outside)}")
    return integers


def _first(array: NDArray[Any], where: NDArray[np.bool_]) -> Any:
    return array[where].flat[0].item()
