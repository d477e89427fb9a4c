"""Functions of one variable as tables: the training graph and the executor read the same one.

Two correct libraries give sigmoid(x) with different last bits, so codes agree only when both sides share the
result. A table is that result: a function over every code of an input grid, rounded to an output grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from hwsim.errors import HwsimError, nearest
from hwsim.numerics.quantizers import Quantizer, check_codes
from hwsim.numerics.rounding import Integers, Reals, Ties, integer_range, round_real

Function = Callable[[Reals], Reals]


def sigmoid(x: ArrayLike) -> Reals:
    """1 / (1 + exp(-x)) in float64, without overflow."""
    values = np.asarray(x, np.float64)
    small = np.exp(-np.abs(values))
    result: Reals = np.where(values >= 0, 1, small) / (1 + small)
    return result


def tanh(x: ArrayLike) -> Reals:
    """Hyperbolic tangent in float64."""
    result: Reals = np.tanh(np.asarray(x, np.float64))
    return result


def swish(x: ArrayLike) -> Reals:
    """x sigmoid(x) in float64."""
    return np.asarray(x, np.float64) * sigmoid(x)


def relu(x: ArrayLike) -> Reals:
    """max(x, 0) in float64."""
    return np.maximum(np.asarray(x, np.float64), 0.0)


def exponential(x: ArrayLike) -> Reals:
    """exp(x) in float64; an overflow becomes the top of the output grid."""
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(np.asarray(x, np.float64)))


FUNCTIONS: dict[str, Function] = {
    "exponential": exponential,
    "relu": relu,
    "sigmoid": sigmoid,
    "swish": swish,
    "tanh": tanh,
}


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A function over the codes of `input`, as codes of `output`.

    `codes`: int64 (2^bits,), entry i is the output code of input code least + i.
    """

    name: str
    input: Quantizer
    output: Quantizer
    codes: Integers = field(repr=False)

    def lookup(self, codes: ArrayLike) -> Integers:
        """Output codes of input codes, any shape. Raises HwsimError for a code outside the input grid."""
        integers = check_codes(codes, self.input.code_range)
        return self.codes[integers - self.input.code_range[0]]

    def __call__(self, x: ArrayLike) -> Reals:
        """Values of the output grid for reals, which are first rounded to the input grid and saturated."""
        return self.output.dequantize(self.lookup(self.input.quantize(x)))


@dataclass(frozen=True, slots=True)
class Exact:
    """A function of `FUNCTIONS` without a table, in float64: two libraries may give it different last bits."""

    name: str

    def __post_init__(self) -> None:
        if self.name not in FUNCTIONS:
            raise HwsimError(f"unknown function '{self.name}'{nearest(self.name, FUNCTIONS)}")

    def __call__(self, x: ArrayLike) -> Reals:
        """Values of reals, any shape."""
        return FUNCTIONS[self.name](np.asarray(x, np.float64))


def build_table(name: str, function: Function, input: Quantizer, output: Quantizer) -> Table:
    """table[q] = output.quantize(function(input.dequantize(q))) for every code q; at most 16 bits of input.

    Raises HwsimError for a wider input, or for one with more than one scale.
    """
    if input.bits > 16 or input.scale.ndim:
        raise HwsimError(f"the input of a table must be one scale and at most 16 bits, got {input.bits} bits")
    low, high = input.code_range
    values = np.minimum(function(input.dequantize(np.arange(low, high + 1))), np.finfo(np.float64).max)
    return Table(name, input, output, output.quantize(values))


def grid(step: float, bits: int = 16, ties: Ties = "half_even", signed: bool = True) -> Quantizer:
    """The quantizer of a fixed-point grid: multiples of `step` in `bits` bits."""
    return Quantizer(np.asarray(step), bits, ties=ties, signed=signed)


@lru_cache(maxsize=32)
def fixed_table(
    name: str, input_step: float = 2**-12, output_step: float = 2**-15, bits: int = 16, ties: Ties = "half_even"
) -> Table:
    """A function of `FUNCTIONS` from one fixed-point grid to a 16-bit one: Q3.12 to Q0.15 unless told otherwise.

    `ties` is the rule by which reals reach the input grid. Sigmoid and tanh saturate at 32767 / 32768.
    Raises HwsimError for an unknown name.
    """
    if name not in FUNCTIONS:
        raise HwsimError(f"unknown function '{name}'{nearest(name, FUNCTIONS)}")
    return build_table(name, FUNCTIONS[name], grid(input_step, bits, ties), grid(output_step))


@lru_cache(maxsize=32)
def exponential_table(step: float, bits: int = 8, fraction_bits: int = 15) -> Integers:
    """round(2^fraction_bits exp(-d step)) for d = 0 ... 2^bits - 1, int64: the numerators of a softmax.

    d is how far a code lies below the greatest of its row. `bits` 1 to 16, `fraction_bits` 1 to 30.
    """
    if not (1 <= bits <= 16 and 1 <= fraction_bits <= 30 and np.isfinite(step) and step > 0):
        raise HwsimError(f"step must be positive, bits 1 to 16 and fraction_bits 1 to 30, got {step}, {bits}, "
                         f"{fraction_bits}")  # fmt: skip
    low, high = integer_range(bits, signed=False)
    distances = np.arange(low, high + 1, dtype=np.float64)
    return round_real(np.exp(-distances * step) * 2.0**fraction_bits).astype(np.int64)
