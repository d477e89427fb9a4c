"""Element-wise operations on codes, layer normalization among them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from hwsim.errors import HwsimError
from hwsim.execute.reference.linear import to_codes
from hwsim.execute.semantics import TRAINING, Semantics
from hwsim.numerics.quantizers import Quantizer, check_codes
from hwsim.numerics.rounding import Integers, Reals
from hwsim.numerics.tables import Table


def add(a: ArrayLike, b: ArrayLike, first: Quantizer, second: Quantizer, output: Quantizer) -> Integers:
    """output.quantize((a - za) sa + (b - zb) sb), any shapes that broadcast.

    Computed in float64, or in float32 when both quantizers say so (ONNX's dequantize, add, quantize). The
    fixed-point addition of TensorFlow Lite is not modelled.
    """
    return output.quantize(first.dequantize(a) + second.dequantize(b))


def multiply(
    a: ArrayLike, b: ArrayLike, first: Quantizer, second: Quantizer, output: Quantizer,
    semantics: Semantics = TRAINING,
) -> Integers:  # fmt: skip
    """Codes of the integer products (a - za)(b - zb), of scale sa sb; any shapes that broadcast. See `to_codes`."""
    return to_codes(*products(a, b, first, second), output, semantics)


def products(a: ArrayLike, b: ArrayLike, first: Quantizer, second: Quantizer) -> tuple[Integers, float]:
    """The integers (a - za)(b - zb) and their scale sa sb; any shapes that broadcast."""
    left = check_codes(a, first.code_range) - first.zero_point
    right = check_codes(b, second.code_range) - second.zero_point
    return left * right, _scale(first) * _scale(second)


def requantize_codes(a: ArrayLike, input: Quantizer, output: Quantizer, semantics: Semantics = TRAINING) -> Integers:
    """Codes of one quantizer as codes of another, from the integers a - za of scale sa. See `to_codes`."""
    codes = check_codes(a, input.code_range) - input.zero_point
    return to_codes(codes, _scale(input), output, semantics)


def activation(codes: ArrayLike, table: Table) -> Integers:
    """A function of one variable by its table: sigmoid, tanh, swish, ReLU; codes of `table.output`."""
    return table.lookup(codes)


def glu(
    a: ArrayLike, b: ArrayLike, first: Quantizer, gate: Table, output: Quantizer, semantics: Semantics = TRAINING
) -> Integers:
    """Gated linear unit a sigmoid(b): `multiply` of a with gate[b], `gate` being a table over b's codes."""
    return multiply(a, gate.lookup(b), first, gate.output, output, semantics)


def layer_norm_values(x: ArrayLike, input: Quantizer, gamma: ArrayLike, beta: ArrayLike, epsilon: float) -> Reals:
    """u / sqrt(v + epsilon D^2 / sx^2) gamma + beta in float64, (..., D). See `layer_norm`."""
    codes = check_codes(x, input.code_range) - input.zero_point
    size = codes.shape[-1]
    if np.shape(gamma) != (size,) or np.shape(beta) != (size,):
        raise HwsimError(f"gamma and beta must be ({size},), got {np.shape(gamma)} and {np.shape(beta)}")
    total = codes.sum(axis=-1, keepdims=True)
    centred = size * codes - total
    variance = size * (codes**2).sum(axis=-1, keepdims=True) - total**2
    normal = centred / np.sqrt(variance + epsilon * (size / _scale(input)) ** 2)
    values: Reals = normal * np.asarray(gamma, np.float64) + np.asarray(beta, np.float64)
    return values


def layer_norm(
    x: ArrayLike, input: Quantizer, output: Quantizer, gamma: ArrayLike, beta: ArrayLike, epsilon: float = 1e-5
) -> Integers:
    """Layer normalization over the last axis: `x` (..., D) codes, `gamma` and `beta` (D,) float64.

    u = D (x - zx) - sum (x - zx), v = D sum (x - zx)^2 - (sum (x - zx))^2, exact integers;
    y = u / sqrt(v + epsilon D^2 / sx^2) gamma + beta in float64, then output.quantize(y).
    What is not exact is a chain of single IEEE operations, square root and division included, so the codes are
    the same everywhere. D below 2^15 with 16-bit codes. Raises HwsimError unless D fits gamma and beta.
    """
    return output.quantize(layer_norm_values(x, input, gamma, beta, epsilon))


def real_layer_norm(x: ArrayLike, gamma: Reals, beta: Reals, epsilon: float = 1e-5) -> Reals:
    """(x - mean) / sqrt(variance + epsilon) gamma + beta over the last axis of reals (..., D), in float64."""
    values = np.asarray(x, np.float64)
    centred = values - values.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    result: Reals = centred / np.sqrt(variance + epsilon) * gamma + beta
    return result


def _scale(quantizer: Quantizer) -> float:
    if quantizer.scale.size != 1:
        raise HwsimError(f"an element-wise operand must have one scale, got {quantizer.scale.size}")
    return float(quantizer.scale.reshape(()))
