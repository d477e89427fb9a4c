"""What a product of codes gives: integer sums, and the reals that they stand for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.execute.dynamic import DynamicCodes
from hwsim.execute.kernels.layout import LAYOUTS, load
from hwsim.execute.matmul import group_products, matmul, matmul_wide
from hwsim.execute.packing import INT32_MAX, PackedWeights, pack
from hwsim.execute.reference.half import Half, half_round
from hwsim.execute.reference.linear import integer_sums, layer_codes, product_scale
from hwsim.execute.semantics import TRAINING, Semantics
from hwsim.numerics import NumberFormat
from hwsim.numerics.codebook import Codebook
from hwsim.numerics.dynamic import DynamicGrid
from hwsim.numerics.formats import Sparsity
from hwsim.numerics.quantizers import Quantizer, check_codes
from hwsim.numerics.rounding import Integers, Reals

Array = npt.NDArray[Any]
Coding = Quantizer | Codebook
AnyGrid = Coding | DynamicGrid
HALF_MAX = 65504
WIDTHS = tuple(sorted(int(name[3:]) for name in LAYOUTS if name.startswith("int")))
WIDEST = 2 ** (WIDTHS[-1] - 1) - 1
MOST_BITS = 16


_STORAGE = tuple((int(np.iinfo(kind).min), int(np.iinfo(kind).max), np.dtype(kind)) for kind in ("i1", "u1", "i2"))


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """Products before they are reals: value = sum_g integers_g scale_g + bias, float64, group by group.

    `integers`: (G, M, N) int32 or int64; or float64, when the layer's weights are reals. `scale`: (G, N) float64.
    `bias`: (N,) float64. `grids`: of the activations and weights that were multiplied, unless they are reals.
    `rows`: scales of the activations, found at run time, (M, 1) or (1, 1); they multiply `scale`, see
    `reference.dynamic.dynamic_linear_values`.
    """

    integers: Array
    scale: Reals
    bias: Reals
    grids: tuple[Quantizer, Quantizer] | None = None
    semantics: Semantics = TRAINING
    rows: Reals | None = None

    def values(self) -> Reals:
        """The reals, float64 (M, N)."""
        total = np.zeros(self.integers.shape[1:])
        for part, scale in zip(self.integers, self.scale, strict=True):
            total = total + part * (scale if self.rows is None else self.rows * scale)
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
    unpacked and the sums are those of the machine's accumulator. Weights of 9 to 16 bits stay unpacked as well.
    Of a grid of run time (`dynamic`) `input` are its codes with a scale of 1.
    """

    packed: PackedWeights | None
    codes: Array | None
    weights: Quantizer
    input: Quantizer
    scale: Reals
    bias: Reals
    semantics: Semantics
    coding: Coding
    """What the weights' own codes are: those of `weights`, half steps, or places in a codebook."""
    dynamic: DynamicGrid | None = None

    @property
    def outputs(self) -> int:
        """N."""
        return len(self.bias)

    def __call__(self, x: Reals) -> Reals:
        """Reals (..., N) of reals (..., K), quantized first; exact for reals on the grid."""
        if self.dynamic is not None:
            rows = DynamicCodes.of(self.dynamic, x.reshape(-1, x.shape[-1]))
            return self.row_sums(rows).values().reshape(*x.shape[:-1], self.outputs)
        codes = self.input.quantize(x).astype(storage(self.input))
        return self.sums(codes.reshape(-1, codes.shape[-1])).values().reshape(*codes.shape[:-1], self.outputs)

    def codes_of_weight(self) -> Array:
        """The weight codes (K, N) that were packed, in the smallest type that holds them."""
        codes: Array = unpacked(self.packed) if self.packed is not None else np.asarray(self.codes)
        if isinstance(self.coding, Codebook):
            is_table = self.packed is not None and LAYOUTS[self.packed.layout].table_bits
            return _smallest(codes if is_table else np.searchsorted(self.coding.table, codes))
        return _smallest((codes - 1) // 2 if self.coding.half_step else codes)

    def row_sums(self, rows: DynamicCodes) -> Sums:
        """Integer sums of codes (M, K) whose scales were found at run time."""
        return replace(self.sums(rows.codes), grids=None, rows=rows.scales)

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
            products = products.astype(np.int64) - zero * self._column_sums().astype(np.int64)
            if np.abs(products).max(initial=0) <= INT32_MAX:
                products = products.astype(np.int32)
        return Sums(products, self.scale, self.bias, (self.input, self.weights), self.semantics)

    def _column_sums(self) -> Array:
        """Sums of each column of weights: (N,), or (G, 1, N) of each group."""
        assert self.packed is not None
        if self.packed.groups == 1:
            return self.packed.column_sums
        return group_products(np.ones((1, self.packed.shape[0]), np.int8), self.packed)


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


@dataclass(frozen=True, slots=True, eq=False)
class HalfProjection:
    """Weights that a policy leaves in FP16: `weight` (K, N) and `bias` (N,) float16.

    Activations are rounded to half on the way in; the sums are those of `reference.half.half_matmul` with a float32
    accumulator: in the order of K, bias last, one rounding to half at the end.
    """

    weight: Half
    bias: Half

    @property
    def outputs(self) -> int:
        """N."""
        return len(self.bias)

    def __call__(self, x: Reals) -> Reals:
        """Reals (..., N), which are halves, of reals (..., K)."""
        return self._product(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], self.outputs)

    def codes_of_weight(self) -> Array:
        """The weights (K, N), which have no codes: their halves."""
        return self.weight

    def sums(self, values: Array) -> Sums:
        """The products (1, M, N) of reals (M, K), bias included, with a scale of one."""
        return Sums(self._product(values)[None], np.ones((1, self.outputs)), np.zeros(self.outputs))

    def _product(self, values: Array) -> Reals:
        from hwsim.execute.half_product import half_product  # with it comes Numba

        return half_product(half_round(values), self.weight, self.bias).astype(np.float64)


AnyProjection = PackedProjection | RealProjection | HalfProjection


def storage(quantizer: Quantizer) -> np.dtype[Any]:
    """The smallest type in which `matmul` takes a quantizer's codes. Raises HwsimError when none holds them."""
    low, high = quantizer.code_range
    for least, greatest, kind in _STORAGE:
        if least <= low and high <= greatest:
            return kind
    raise HwsimError(f"activation codes must fit int8, uint8 or int16, got {low} to {high}")


def projection(
    name: str, codes: Array, coding: Coding, input: Quantizer | DynamicGrid, bias: Array | None,
    semantics: Semantics = TRAINING,
    sparsity: Sparsity | None = None,
) -> PackedProjection:  # fmt: skip
    """Pack the weight codes (K, N) of `coding` for activations on the grid of `input`.

    Half-step weights become odd integers of one bit more; codebook weights are looked up as they are multiplied.
    `sparsity`: the N:M rule that the weights keep. `name` stands in messages. Raises HwsimError for codes out of range
    or that break the rule, shapes that do not fit, and activations with more than one scale.
    """
    dynamic = input if isinstance(input, DynamicGrid) else None
    input = input.unit if isinstance(input, DynamicGrid) else input
    if input.scale.size != 1 or input.half_step:
        raise HwsimError(f"{name}: its activations must have one scale and a level at zero")
    integers = narrow_codes(codes, coding.code_range, f"{name}: weight codes")
    if integers.ndim != 2:
        raise HwsimError(f"{name}: weight codes must be (K, N), got {integers.shape}")
    weights = coding.expanded if isinstance(coding, Codebook) else coding
    if weights.bits > MOST_BITS:
        raise HwsimError(f"{name}: weights must have at most {MOST_BITS} bits, got {weights.bits}")
    if weights.half_step:
        integers, weights = weights.odd_codes(integers)
    depth, channels = integers.shape
    offsets = np.zeros(channels) if bias is None else _bias(name, bias, channels)
    scale = np.broadcast_to(product_scale(input, weights, integers.shape), (_groups(weights, depth), channels))
    packed = kept = None
    wide = not isinstance(coding, Codebook) and max(-weights.code_range[0] - 1, weights.code_range[1]) > WIDEST
    if wide and sparsity is not None:
        raise HwsimError(f"{name}: weights of {sparsity} must fit {WIDTHS[-1]} signed bits, got {coding.bits}")
    if semantics == TRAINING and not wide:
        packed = _pack(name, integers, coding, weights, sparsity)
    else:
        kept = coding.expand(integers) if isinstance(coding, Codebook) else _smallest(integers)
    return PackedProjection(packed, kept, weights, input, np.ascontiguousarray(scale), offsets, semantics, coding,
                            dynamic)  # fmt: skip


def _pack(name: str, codes: Array, coding: Coding, weights: Quantizer, sparsity: Sparsity | None) -> PackedWeights:
    if isinstance(coding, Codebook):
        return pack(codes, NumberFormat(f"codebook{coding.bits}", sparsity=sparsity), table=coding.table)
    one_bit = coding.bits == 1 and coding.half_step and not coding.group_size and coding.scale.size == 1
    fmt = NumberFormat("int1") if one_bit else _format(name, weights)
    return pack(codes, replace(fmt, sparsity=sparsity), zero_point=_zero_point(weights, *codes.shape))


def real_projection(name: str, weight: Array, bias: Array | None) -> RealProjection:
    """Real weights (K, N), in float64. Raises HwsimError for another rank and for values that are not finite."""
    values = np.asarray(weight, np.float64)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise HwsimError(f"{name}: weights must be a matrix (K, N) of finite values, got shape {values.shape}")
    return RealProjection(values, np.zeros(values.shape[1]) if bias is None else _bias(name, bias, values.shape[1]))


def half_projection(name: str, weight: Array, bias: Array | None) -> HalfProjection:
    """Weights (K, N) and a bias as halves. Raises HwsimError for another rank and for values beyond halves."""
    halves = np.ascontiguousarray(half_round(weight))
    if halves.ndim != 2 or not np.isfinite(halves).all():
        raise HwsimError(f"{name}: FP16 weights must be a matrix (K, N) of values within {HALF_MAX}, got shape "
                         f"{halves.shape} and up to {np.abs(weight).max(initial=0)}")  # fmt: skip
    offsets = np.zeros(halves.shape[1]) if bias is None else _bias(name, bias, halves.shape[1])
    if np.abs(offsets).max() > HALF_MAX:
        raise HwsimError(f"{name}: a bias in FP16 must be within {HALF_MAX}, got {np.abs(offsets).max()}")
    return HalfProjection(halves, half_round(offsets))


def unpacked(packed: PackedWeights) -> Array:
    """Codes (K, N) of packed weights, int16; places in the codebook where the layout has one."""
    layout, (depth, columns) = LAYOUTS[packed.layout], packed.shape
    stored = load(packed.data, layout).reshape(packed.groups, packed.padded_depth // packed.groups, -1)
    kept = stored[:, : depth // packed.groups, :columns].reshape(depth, columns)
    return kept.astype(np.int16) - (0 if layout.table_bits else layout.offset)


def narrow_codes(codes: Array, code_range: tuple[int, int], name: str) -> Array:
    """Integer codes in the type they have, checked: a copy in int64 would be 16 times the packed ones.

    Raises HwsimError as `check_codes`.
    """
    array = np.asarray(codes)
    low, high = code_range
    if array.dtype.kind not in "iu" or (array.size and (array.min() < low or array.max() > high)):
        check_codes(array, code_range, name)
    return array


def _smallest(codes: Array) -> Array:
    """A copy of integer codes in the smallest signed type that holds them."""
    low, high = int(codes.min(initial=0)), int(codes.max(initial=0))
    return codes.astype(np.min_scalar_type(min(low, -1 - high)))


def _groups(weights: Quantizer, depth: int) -> int:
    return depth // weights.group_size if weights.group_size else 1


def _format(name: str, weights: Quantizer) -> NumberFormat:
    wide = [bits for bits in WIDTHS if bits >= max(weights.bits, 2) and weights.code_range[1] < 1 << (bits - 1)]
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
