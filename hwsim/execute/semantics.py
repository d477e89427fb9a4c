"""What a product of integers means on a machine: accumulator, requantization and ties, as one value.

`PROFILES` holds the machines and runtimes that are known; the same operation runs as each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from hwsim.errors import HwsimError, nearest
from hwsim.numerics.quantizers import ZeroPointOrder
from hwsim.numerics.rounding import (
    TIES,
    Integers,
    Reals,
    Ties,
    integer_range,
    multiply_double,
    multiply_single,
    quantized_multiplier,
    round_real,
    saturate,
    wrap,
)

Requantize = Literal["float64", "float32", "fixed_single", "fixed_double"]
Overflow = Literal["wrap", "saturate"]
Bias = Literal["real", "integer"]


@dataclass(frozen=True, slots=True)
class Semantics:
    """The rules by which integer operations are computed.

    `requantize`: the accumulator times a real multiplier in `float64` or `float32`, or times a 31-bit mantissa
    with one rounding (`fixed_single`) or two (`fixed_double`). `ties`: of the last rounding.
    `zero_point`: added `after` the last rounding or `before` it; the fixed-point forms only know after.
    `accumulator_bits` 16, 24, 32 or 64, and `overflow`: after every addition the sum wraps or saturates; 64 holds any
    sum of codes, as the training graph does.
    `accumulator_chunk`: that many products are summed in the accumulator, then moved to a sum of 32 bits (64 with 64)
    of the same overflow rule and the accumulator is cleared; 0 for one chunk.
    `bias`: `real` is added to the scaled sum, which the output's quantizer then rounds, as training does;
    `integer` is rounded to steps of the product's scale and added to the sum before one multiplier.
    """

    name: str
    ties: Ties = "half_even"
    requantize: Requantize = "float64"
    zero_point: ZeroPointOrder = "after"
    accumulator_bits: int = 32
    overflow: Overflow = "wrap"
    accumulator_chunk: int = 0
    bias: Bias = "real"

    def __post_init__(self) -> None:
        rules = {
            "ties": TIES,
            "requantize": ("float64", "float32", "fixed_single", "fixed_double"),
            "zero_point": ("after", "before"),
            "accumulator_bits": (16, 24, 32, 64),
            "overflow": ("wrap", "saturate"),
            "bias": ("real", "integer"),
        }
        for name, known in rules.items():
            if getattr(self, name) not in known:
                raise HwsimError(f"{name} must be one of {', '.join(map(str, known))}, got {getattr(self, name)}")
        if self.accumulator_chunk < 0:
            raise HwsimError(f"accumulator_chunk must be 0 or more, got {self.accumulator_chunk}")
        if self.is_fixed and self.zero_point == "before":
            raise HwsimError(f"zero_point must be after with {self.requantize}, got before")
        if self.bias == "real" and self.requantize != "float64":
            raise HwsimError(f"bias must be integer with {self.requantize}, got real")

    @property
    def is_fixed(self) -> bool:
        """Whether the multiplier is a fixed-point number."""
        return self.requantize.startswith("fixed")


TRAINING = Semantics("training", accumulator_bits=64)
RAPID_CHUNK = 64

PROFILES: dict[str, Semantics] = {
    profile.name: profile
    for profile in (
        TRAINING,
        Semantics("tflite-reference", ties="half_away", requantize="float64", bias="integer"),
        Semantics("tflite-xnnpack", requantize="float32", bias="integer"),
        Semantics("tflite-ruy", ties="half_up", requantize="fixed_double", bias="integer"),
        Semantics("tflite-lstm", ties="half_away", requantize="fixed_double", bias="integer"),
        Semantics("onnx", requantize="float32", bias="integer"),
        Semantics("rapid", accumulator_bits=16, overflow="saturate", accumulator_chunk=RAPID_CHUNK),
    )
}


def profile(name: str) -> Semantics:
    """The semantics of a name. Raises HwsimError with the nearest names."""
    if name not in PROFILES:
        raise HwsimError(f"unknown semantics profile '{name}'{nearest(name, PROFILES)}")
    return PROFILES[name]


def accumulate(a: ArrayLike, w: ArrayLike, semantics: Semantics = TRAINING) -> Integers:
    """Sum of products as the machine's accumulator holds it: `a` (..., M, K), `w` (K, N) -> (..., M, N) int64.

    `a` (K,) gives (N,), and `w` may be stacked as `a` is, (..., K, N). Products enter in the
    order of K. A sum that cannot leave the accumulator is the plain one.
    Raises HwsimError when the shapes do not fit.
    """
    left, right = np.asarray(a, np.int64), np.asarray(w, np.int64)
    if left.ndim < 1 or right.ndim < 2 or left.shape[-1] != right.shape[-2]:
        raise HwsimError(f"shapes must be (..., K) and (K, N), got {left.shape} and {right.shape}")
    depth = left.shape[-1]
    chunk = semantics.accumulator_chunk or max(depth, 1)
    shape = (left[..., :1] @ right[..., :1, :]).shape
    total, wide = np.zeros(shape, np.int64), max(32, semantics.accumulator_bits)
    for start in range(0, depth, chunk):
        part = slice(start, start + chunk)
        total = _fit(total + _chunk_sum(left[..., part], right[..., part, :], semantics), wide, semantics.overflow)
    return total


def _chunk_sum(a: Integers, w: Integers, semantics: Semantics) -> Integers:
    """One visit of the accumulator. Wrapping commutes with addition; saturation does not."""
    bits = semantics.accumulator_bits
    low, high = integer_range(bits)
    if semantics.overflow == "wrap" or _largest_sum(a, w) <= high:
        return _fit(_product(a, w), bits, semantics.overflow)
    total = np.zeros((a[..., :1] @ w[..., :1, :]).shape, np.int64)
    for k in range(a.shape[-1]):
        row = w[..., k, :] if a.ndim == 1 else w[..., k, None, :]
        total = np.clip(total + a[..., k, None] * row, low, high)
    return total


def _largest_sum(a: Integers, w: Integers) -> int:
    """No sum of products in any order exceeds it in magnitude."""
    return int(a.shape[-1]) * int(np.abs(a).max(initial=0)) * int(np.abs(w).max(initial=0))


def _product(a: Integers, w: Integers) -> Integers:
    """a @ w. Integers below 2^53 are exact in float64, whose product is two orders of magnitude faster."""
    if _largest_sum(a, w) < 2**53:
        exact: Integers = (a.astype(np.float64) @ w.astype(np.float64)).astype(np.int64)
        return exact
    return a @ w


def _fit(total: Integers, bits: int, overflow: Overflow) -> Integers:
    return wrap(total, bits) if overflow == "wrap" else saturate(total, bits)


@dataclass(frozen=True, slots=True)
class AccumulatorBound:
    """How large a sum can become: for any codes of the ranges, for these weights, and what the accumulator holds."""

    worst_case: int
    actual: int
    limit: int

    @property
    def fits(self) -> bool:
        """Whether these weights cannot overflow the accumulator, whatever the activations."""
        return self.actual <= self.limit


def accumulator_bound(
    w: ArrayLike, activation_range: tuple[int, int], weight_range: tuple[int, int], semantics: Semantics = TRAINING
) -> AccumulatorBound:
    """The bound of one visit of the accumulator, for `w` (K, N) and activations in a range of codes.

    worst_case = min(K, chunk) max|a| max|w|. actual = the largest max|a| sum|w| over columns and chunks.
    limit = 2^(accumulator_bits - 1) - 1.
    """
    weights = np.abs(np.asarray(w, np.int64))
    depth = weights.shape[0]
    chunk = semantics.accumulator_chunk or max(depth, 1)
    largest = max(abs(code) for code in activation_range)
    sums = [int(weights[start : start + chunk].sum(axis=0).max(initial=0)) for start in range(0, depth, chunk)]
    worst = min(depth, chunk) * largest * max(abs(code) for code in weight_range)
    return AccumulatorBound(worst, largest * max(sums, default=0), integer_range(semantics.accumulator_bits)[1])


def check_accumulator(
    w: ArrayLike, activation_range: tuple[int, int], weight_range: tuple[int, int], semantics: Semantics = TRAINING
) -> AccumulatorBound:
    """The bound, when these weights cannot overflow. Raises HwsimError with all three numbers otherwise."""
    bound = accumulator_bound(w, activation_range, weight_range, semantics)
    if not bound.fits:
        raise HwsimError(
            f"K = {np.shape(w)[0]}: sums must stay within {bound.limit} of a {semantics.accumulator_bits}-bit "
            f"accumulator, got up to {bound.actual} with these weights (worst case {bound.worst_case})"
        )
    return bound


def requantize(
    accumulator: ArrayLike,
    multiplier: ArrayLike,
    zero_point: ArrayLike = 0,
    bits: int = 8,
    semantics: Semantics = TRAINING,
    signed: bool = True,
) -> Integers:
    """clip(round(accumulator multiplier) + zero_point): int32 sums to codes of `bits` bits, int64.

    `accumulator` any shape; `multiplier` float64 and positive, `zero_point` integers, both of a shape that
    broadcasts. Raises HwsimError when a multiplier is not positive and finite.
    """
    sums, zero = np.asarray(accumulator, np.int64), np.asarray(zero_point, np.int64)
    factor = np.asarray(multiplier, np.float64)
    if not (np.isfinite(factor) & (factor > 0)).all():
        raise HwsimError("multiplier must be positive and finite")
    if semantics.is_fixed:
        return saturate(fixed_multiply(sums, factor, semantics) + zero, bits, signed)
    low, high = integer_range(bits, signed)
    scaled: Reals = sums.astype(semantics.requantize) * factor.astype(semantics.requantize)
    before = semantics.zero_point == "before"
    offset = zero.astype(scaled.dtype)
    rounded = round_real(scaled + offset, semantics.ties) if before else round_real(scaled, semantics.ties) + offset
    codes: Integers = np.clip(rounded, low, high).astype(np.int64)
    return codes


def fixed_multiply(sums: Integers, multiplier: Reals, semantics: Semantics) -> Integers:
    """int32 sums times multipliers in fixed point, with one rounding or two; not clipped to codes."""
    parts = np.array([quantized_multiplier(m) for m in np.ravel(multiplier).tolist()], np.int64)
    mantissa, exponent = (parts[:, i].reshape(np.shape(multiplier)) for i in range(2))
    multiply = multiply_single if semantics.requantize == "fixed_single" else multiply_double
    return multiply(sums, mantissa, exponent, semantics.ties)
