"""Linear layers, convolutions and lookups: integer products, then codes by the rules of a machine."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwsim.errors import HwsimError
from hwsim.execute.semantics import TRAINING, Semantics, accumulate, requantize
from hwsim.numerics.quantizers import Quantizer, check_codes
from hwsim.numerics.rounding import Integers, Reals, round_real, wrap


def integer_sums(
    x: ArrayLike, w: ArrayLike, input: Quantizer, weights: Quantizer, semantics: Semantics = TRAINING
) -> Integers:
    """sum_k (x - zx)(w - zw) = sum x w - zx sum w - zw sum x + K zx zw, as the accumulator holds sum x w.

    `x` (..., K) codes of `input`, which has one scale; `w` (K, N) codes of `weights`, with one scale, N of them
    (any shape that squeezes to (N,)), or K/g x N groups. Returns int64 (G, ..., N), G = 1 without groups.
    The terms with a zero point are exact in 32 bits; only sum x w sees a narrow accumulator.
    Raises HwsimError for codes out of range, shapes that do not fit and more than one input scale.
    """
    codes_x = check_codes(x, input.code_range, "activation codes")
    codes_w = check_codes(w, weights.code_range, "weight codes")
    if input.scale.size != 1 or input.half_step or weights.half_step:
        raise HwsimError("a product must have one input scale and no half_step codes (use odd_codes)")
    if codes_w.ndim != 2 or codes_x.ndim < 1 or codes_x.shape[-1] != codes_w.shape[0]:
        raise HwsimError(f"shapes must be (..., K) and (K, N), got {codes_x.shape} and {codes_w.shape}")
    zero_x = input.zero_point.reshape(())
    zero_w = _per_group(weights.zero_point, weights, codes_w.shape)
    size = weights.group_size or codes_w.shape[0]
    sums = []
    for group, zero in enumerate(zero_w):
        part = slice(group * size, (group + 1) * size)
        a, b = codes_x[..., part], codes_w[part]
        products = accumulate(a, b, semantics)
        corrections = zero_x * b.sum(axis=0) + zero * a.sum(axis=-1, keepdims=True) - a.shape[-1] * zero_x * zero
        sums.append(products - corrections)
    return np.stack(sums)


def activation_sums(
    a: ArrayLike, b: ArrayLike, first: Quantizer, second: Quantizer, semantics: Semantics = TRAINING
) -> Integers:
    """sum_k (a - za)(b - zb) of two activations, `a` (..., M, K) and `b` (..., K, N): int64 (..., M, N).

    As in `integer_sums`, only sum a b sees a narrow accumulator. Raises HwsimError for codes out of range, shapes
    that do not fit, and grids with more than one scale or no level at zero.
    """
    left = check_codes(a, first.code_range, "activation codes")
    right = check_codes(b, second.code_range, "activation codes")
    if any(grid.scale.size != 1 or grid.half_step for grid in (first, second)):
        raise HwsimError("a product of activations must have one scale and a level at zero on both sides")
    sums = accumulate(left, right, semantics)
    zero_a, zero_b = int(first.zero_point.reshape(())), int(second.zero_point.reshape(()))
    if zero_a:
        sums = sums - zero_a * (right.sum(axis=-2, keepdims=True) - right.shape[-2] * zero_b)
    return sums - zero_b * left.sum(axis=-1, keepdims=True) if zero_b else sums


def product_scale(input: Quantizer, weights: Quantizer, shape: tuple[int, ...]) -> Reals:
    """sx sw in float64 for weights of `shape` (K, N): (G, 1) or (G, N)."""
    return _per_group(weights.scale.astype(np.float64), weights, shape) * np.float64(input.scale.reshape(()))


def linear_values(
    x: ArrayLike,
    w: ArrayLike,
    input: Quantizer,
    weights: Quantizer,
    bias: ArrayLike | None = None,
    semantics: Semantics = TRAINING,
) -> Reals:
    """y = sum_g sums_g (sx sw_g) + bias in float64: what a fake-quantized layer computes, (..., N).

    `bias` (N,) float64, not quantized. Shapes and errors of `integer_sums`.
    """
    sums = integer_sums(x, w, input, weights, semantics)
    scales = product_scale(input, weights, np.shape(w))
    total = np.zeros(sums.shape[1:])
    for group_sums, scale in zip(sums, scales, strict=True):
        total = total + group_sums * scale
    return total if bias is None else total + np.asarray(bias, np.float64)


def linear(
    x: ArrayLike,
    w: ArrayLike,
    input: Quantizer,
    weights: Quantizer,
    output: Quantizer,
    bias: ArrayLike | None = None,
    semantics: Semantics = TRAINING,
) -> Integers:
    """Codes of `output` of a linear layer, int64 (..., N).

    With a `real` bias: output.quantize(linear_values(...)), the order of the training graph. With an `integer`
    bias: requantize(wrap32(sums + bias_codes), sx sw / sy, zy), which needs one scale per tensor or channel and
    one output scale; HwsimError otherwise.
    """
    if weights.group_size and semantics.bias == "real":
        return output.quantize(linear_values(x, w, input, weights, bias, semantics))
    if weights.group_size:
        raise HwsimError(f"weights with group scales must be run with a real bias, got profile {semantics.name}")
    sums = integer_sums(x, w, input, weights, semantics)[0]
    return layer_codes(sums, np.shape(w), input, weights, output, bias, semantics)


def layer_codes(
    sums: Integers, shape: tuple[int, ...], input: Quantizer, weights: Quantizer, output: Quantizer,
    bias: ArrayLike | None, semantics: Semantics,
) -> Integers:  # fmt: skip
    """Codes (..., N) of a layer's sums with weights of `shape` (K, N) without groups. See `linear`."""
    scale = product_scale(input, weights, shape)[0]
    if semantics.bias == "real":
        return output.quantize(sums * scale if bias is None else sums * scale + np.asarray(bias, np.float64))
    if bias is not None:
        sums = wrap(sums + bias_codes(bias, scale), 32)
    return requantize_to(sums, combined_multiplier(input, weights, output, shape, semantics), output, semantics)


def combined_multiplier(
    input: Quantizer, weights: Quantizer, output: Quantizer, shape: tuple[int, ...], semantics: Semantics
) -> Reals:
    """sx sw / sy: every step in float32 when the requantization is, otherwise in float64."""
    if output.scale.size != 1:
        raise HwsimError(f"the output must have one scale, got {output.scale.size}")
    precision = np.float32 if semantics.requantize == "float32" else np.float64
    scale_w: Reals = _per_group(weights.scale.astype(precision), weights, shape)[0]
    scale: Reals = scale_w * input.scale.reshape(()).astype(precision) / output.scale.reshape(()).astype(precision)
    return scale.astype(np.float64)


def bias_codes(bias: ArrayLike, scale: ArrayLike) -> Integers:
    """A bias in int32 steps of the product's scale: round half even, saturated."""
    steps = round_real(np.asarray(bias, np.float64) / np.asarray(scale, np.float64))
    return np.clip(steps, -(2**31), 2**31 - 1).astype(np.int64)


def to_codes(sums: ArrayLike, scale: float, output: Quantizer, semantics: Semantics) -> Integers:
    """Codes of sums of one scale: output.quantize(sums scale) in the training order, else one multiplier.

    The training order is that of a `real` bias: a real value, then the output's own quantizer.
    """
    if semantics.bias == "real":
        return output.quantize(np.asarray(sums, np.int64) * scale)
    if output.scale.size != 1:
        raise HwsimError(f"the output must have one scale, got {output.scale.size}")
    return requantize_to(sums, scale / float(output.scale.reshape(())), output, semantics)


def requantize_to(sums: ArrayLike, multiplier: ArrayLike, output: Quantizer, semantics: Semantics) -> Integers:
    """`requantize` to the bits, sign, zero point and narrow range of a quantizer."""
    codes = requantize(sums, multiplier, output.zero_point, output.bits, semantics, output.signed)
    return np.maximum(codes, output.code_range[0])


def depthwise_sums(
    x: ArrayLike, w: ArrayLike, input: Quantizer, left: int, right: int, stride: int = 1,
    semantics: Semantics = TRAINING,
) -> Integers:  # fmt: skip
    """sum_k (x[t stride + k - left, c] - zx) w[k, c]: `x` (T, C), `w` (K, C), padded with the zero point -> int64.

    `left`, `right`: steps of padding; a causal convolution has left = K - 1. Output
    ((T + left + right - K) // stride + 1, C). As in `integer_sums`, the accumulator holds sum x w, in the order of k.
    """
    codes = check_codes(x, input.code_range, "activation codes")
    kernel = np.asarray(w, np.int64)
    if codes.ndim != 2 or kernel.ndim != 2 or codes.shape[1] != kernel.shape[1]:
        raise HwsimError(f"shapes must be (T, C) and (K, C), got {codes.shape} and {kernel.shape}")
    zero = int(input.zero_point.reshape(()))
    windows = unfold(codes, kernel.shape[0], stride, left, right, zero).reshape(-1, *kernel.shape)
    products = accumulate(windows.transpose(2, 0, 1), kernel.T[:, :, None], semantics)
    sums: Integers = products[:, :, 0].T - zero * kernel.sum(axis=0)
    return sums


def depthwise_conv(
    x: ArrayLike, w: ArrayLike, input: Quantizer, weights: Quantizer, output: Quantizer, bias: ArrayLike | None = None,
    semantics: Semantics = TRAINING, left: int = 0, right: int = 0, stride: int = 1,
) -> Integers:  # fmt: skip
    """Depthwise convolution over time, with bias and codes as in `linear`; weights symmetric, one or C scales."""
    if weights.zero_point.any() or weights.group_size:
        raise HwsimError("depthwise weights must have no zero point and no groups")
    codes = check_codes(w, weights.code_range, "weight codes")
    sums = depthwise_sums(x, codes, input, left, right, stride, semantics)
    return layer_codes(sums, np.shape(w), input, weights, output, bias, semantics)


def unfold(x: ArrayLike, kernel: int, stride: int = 1, left: int = 0, right: int = 0, fill: int = 0) -> Integers:
    """Windows of a sequence: `x` (T, C) -> (steps, kernel C), steps = (T + left + right - kernel) // stride + 1.

    Padding is `fill`, the zero point. A 1-D convolution is `linear` of it with weights (kernel C, N).
    """
    codes = np.asarray(x, np.int64)
    padded = np.pad(codes, ((left, right), (0, 0)), constant_values=fill)
    if padded.shape[0] < kernel:
        raise HwsimError(f"{padded.shape[0]} padded steps must hold a kernel of {kernel}")
    starts = range(0, padded.shape[0] - kernel + 1, stride)
    return np.stack([padded[start : start + kernel].reshape(-1) for start in starts])


def embedding(labels: ArrayLike, table: ArrayLike) -> Integers:
    """Rows of a table of codes: `labels` (...,) in [0, V), `table` (V, D) -> (..., D)."""
    indices = check_codes(labels, (0, np.shape(table)[0] - 1), "labels")
    return np.asarray(table, np.int64)[indices]


def _per_group(parameter: NDArray[Any], weights: Quantizer, shape: tuple[int, ...]) -> NDArray[Any]:
    """(G, 1) or (G, N) of a weight quantizer's scale or zero point."""
    depth, channels = shape
    groups = depth // weights.group_size if weights.group_size else 1
    if weights.group_size and depth % weights.group_size:
        raise HwsimError(f"K must be a multiple of the scale group {weights.group_size}, got {depth}")
    if parameter.size == 1:
        return np.broadcast_to(parameter.reshape(1, 1), (groups, 1))
    if parameter.size != groups * channels:
        raise HwsimError(f"scales must be 1, {channels} or {groups} x {channels}, got {parameter.shape}")
    return parameter.reshape(groups, channels)
