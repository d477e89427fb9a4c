"""What a product of codes gives: integer sums, and the reals that they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.execute.kernels.layout import LAYOUTS, load
from hwsim.execute.matmul import group_products, matmul, matmul_wide
from hwsim.execute.packing import INT32_MAX, PackedWeights, pack
from hwsim.execute.reference.linear import integer_sums, layer_codes, product_scale
from hwsim.execute.semantics import TRAINING, Semantics
from hwsim.numerics import NumberFormat
from hwsim.numerics.quantizers import Quantizer, check_codes
from hwsim.numerics.rounding import Integers, Reals

Array = npt.NDArray[Any]
WIDTHS = tuple(sorted(int(name[3:]) for name in LAYOUTS if name.startswith("int")))


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """Products before they are reals: value = sum_g integers_g scale_g + bias, float64, group by group.

    `integers`: (G, M, N) int32 or int64; or float64, when the layer's weights are reals. `scale`: (G, N) float64.
    `bias`: (N,) float64. `grids`: of the activations and weights that were multiplied, unless they are reals.
    """

    integers: Array
    scale: Reals
    bias: Reals
    grids: tuple[Quantizer, Quantizer] | None = None
    semantics: Semantics = TRAINING

    def values(self) -> Reals:
        """The reals, float64 (M, N)."""
        total = np.zeros(self.integers.shape[1:])
        for part, scale in zip(self.integers, self.scale, strict=True):
            total = total + part * scale
        result: Reals = total + self.bias
        return result

    def codes(self, output: Quantizer) -> Integers:
        """Codes (M, N) of an output grid by the rules of the machine, see `reference.linear.linear`."""
        if self.grids is None or self.semantics.bias == "real":
            return output.quantize(self.values())
        if len(self.integers) > 1:
            raise HwsimError(f"weights with group scales must be run with a real bias, got {self.semantics.name}")
        bias = self.bias if self.bias.any() else None
        shape = (1, self.integers.shape[-1])
        return layer_codes(self.integers[0], shape, *self.grids, output, bias, self.semantics)


@dataclass(frozen=True, slots=True, eq=False)
class PackedProjection:
    """Weights of one layer, packed, and the grid of the codes that meet them.

    sum (x - zx)(w - zw) in int32, times sx sw, plus the bias. With `semantics` other than `training` the codes stay
    unpacked and the sums are those of the machine's accumulator.
    """

    packed: PackedWeights | None
    codes: Integers | None
    weights: Quantizer
    input: Quantizer
    scale: Reals
    bias: Reals
    semantics: Semantics
    half_step: bool = False
    """Whether the codes were half steps before they became odd integers."""

    @property
    def outputs(self) -> int:
        """N."""
        return len(self.bias)

    def __call__(self, x: Reals) -> Reals:
        """Reals (..., N) of reals (..., K), quantized first; exact for reals on the grid."""
        codes = self.input.quantize(x).astype(storage(self.input))
        return self.sums(codes.reshape(-1, codes.shape[-1])).values().reshape(*codes.shape[:-1], self.outputs)

    def codes_of_weight(self) -> Array:
        """The weight codes (K, N) that were packed, in the smallest type that holds them."""
        codes: Array = unpacked(self.packed) if self.packed is not None else np.asarray(self.codes)
        if self.half_step:
            codes = (codes - 1) // 2
        low, high = int(codes.min(initial=0)), int(codes.max(initial=0))
        return codes.astype(np.min_scalar_type(min(low, -1 - high)))

    def sums(self, codes: Array) -> Sums:
        """Integer sums of codes (M, K) in the storage type of `input`."""
        if self.packed is None:
            sums: Array = integer_sums(codes, self.codes, self.input, self.weights, self.semantics)  # type: ignore[arg-type]
            return Sums(sums, self.scale, self.bias, (self.input, self.weights), self.semantics)
        if self.packed.groups > 1:
            products: Array = group_products(codes, self.packed)
        elif codes.dtype == np.int16 and 32768 * self.packed.largest_sum > INT32_MAX:
            products = matmul_wide(codes, self.packed)[None]
        else:
            products = matmul(codes, self.packed)[None]
        zero = int(self.input.zero_point)
        if zero:
            products = products.astype(np.int64) - zero * self.packed.column_sums.astype(np.int64)
            if np.abs(products).max(initial=0) <= INT32_MAX:
                products = products.astype(np.int32)
        return Sums(products, self.scale, self.bias, (self.input, self.weights), self.semantics)


@dataclass(frozen=True, slots=True, eq=False)
class RealProjection:
    """Weights that a policy leaves in floating point: x @ weight + bias in float64, `weight` (K, N)."""

    weight: Reals
    bias: Reals

    @property
    def outputs(self) -> int:
        """N."""
        return len(self.bias)

    def __call__(self, x: Reals) -> Reals:
        """Reals (..., N) of reals (..., K)."""
        values: Reals = x @ self.weight + self.bias
        return values

    def codes_of_weight(self) -> Array:
        """The weights (K, N), which have no codes: their reals."""
        return self.weight

    def sums(self, values: Reals) -> Sums:
        """The products (1, M, N) of reals (M, K), with a scale of one."""
        return Sums((values @ self.weight)[None], np.ones((1, self.outputs)), self.bias)


AnyProjection = PackedProjection | RealProjection


def storage(quantizer: Quantizer) -> np.dtype[Any]:
    """The smallest type in which `matmul` takes a quantizer's codes. Raises HwsimError when none holds them."""
    low, high = quantizer.code_range
    for name in ("int8", "uint8", "int16"):
        limits = np.iinfo(name)
        if limits.min <= low and high <= limits.max:
            return np.dtype(name)
    raise HwsimError(f"activation codes must fit int8, uint8 or int16, got {low} to {high}")


def projection(
    name: str, codes: Array, weights: Quantizer, input: Quantizer, bias: Array | None, semantics: Semantics = TRAINING
) -> PackedProjection:
    """Pack the weight codes (K, N) of `weights` for activations on the grid of `input`.

    Half-step weights become odd integers of one bit more. `name` stands in messages. Raises HwsimError for codes
    outside the quantizer's range, shapes that do not fit, and activations with more than one scale.
    """
    if input.scale.size != 1 or input.half_step:
        raise HwsimError(f"{name}: its activations must have one scale and a level at zero")
    integers = check_codes(codes, weights.code_range, f"{name}: weight codes")
    if integers.ndim != 2:
        raise HwsimError(f"{name}: weight codes must be (K, N), got {integers.shape}")
    half_step = weights.half_step
    if half_step:
        integers, weights = weights.odd_codes(integers)
    depth, channels = integers.shape
    offsets = np.zeros(channels) if bias is None else _bias(name, bias, channels)
    scale = np.broadcast_to(product_scale(input, weights, integers.shape), (_groups(weights, depth), channels))
    packed = None
    if semantics == TRAINING:
        packed = pack(integers, _format(name, weights), zero_point=_zero_point(weights, depth, channels))
    kept = integers if packed is None else None
    return PackedProjection(packed, kept, weights, input, np.ascontiguousarray(scale), offsets, semantics, half_step)


def real_projection(name: str, weight: Array, bias: Array | None) -> RealProjection:
    """Real weights (K, N), in float64. Raises HwsimError for another rank and for values that are not finite."""
    values = np.asarray(weight, np.float64)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise HwsimError(f"{name}: weights must be a matrix (K, N) of finite values, got shape {values.shape}")
    return RealProjection(values, np.zeros(values.shape[1]) if bias is None else _bias(name, bias, values.shape[1]))


def unpacked(packed: PackedWeights) -> Array:
    """Codes (K, N) of packed integer weights, int16."""
    layout, (depth, columns) = LAYOUTS[packed.layout], packed.shape
    stored = load(packed.data, layout).reshape(packed.groups, packed.padded_depth // packed.groups, -1)
    kept = stored[:, : depth // packed.groups, :columns].reshape(depth, columns)
    return kept.astype(np.int16) - layout.offset


def _groups(weights: Quantizer, depth: int) -> int:
    return depth // weights.group_size if weights.group_size else 1


def _format(name: str, weights: Quantizer) -> NumberFormat:
    wide = [bits for bits in WIDTHS if bits >= max(weights.bits, 2) and weights.code_range[1] < 1 << (bits - 1)]
    if not wide:
        raise HwsimError(f"{name}: weights must have at most {WIDTHS[-1]} signed bits, got {weights.bits}")
    if weights.group_size:
        return NumberFormat(f"int{wide[0]}", "group", weights.group_size, zero_point=bool(weights.zero_point.any()))
    per_channel = weights.scale.size > 1 or weights.zero_point.size > 1
    return NumberFormat(
        f"int{wide[0]}", "channel" if per_channel else "tensor", zero_point=bool(weights.zero_point.any())
    )


def _zero_point(weights: Quantizer, depth: int, channels: int) -> Integers | None:
    if not weights.zero_point.any():
        return None
    if weights.zero_point.size == 1:
        return weights.zero_point.reshape(())
    return weights.zero_point.reshape(_groups(weights, depth), channels) if weights.group_size else (
        weights.zero_point.reshape(channels))  # fmt: skip


def _bias(name: str, bias: Array, channels: int) -> Reals:
    values = np.asarray(bias, np.float64)
    if values.shape != (channels,) or not np.isfinite(values).all():
        raise HwsimError(f"{name}: bias must be {channels} finite values, got shape {values.shape}")
    return values
