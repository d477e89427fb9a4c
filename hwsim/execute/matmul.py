"""Exact products of activation codes with packed weights, one thread, without the interpreter's lock.

C[m, n] = sum over k of a[m, k] * (w[k, n] - z[n]), in integers. The definition is `reference.matmul`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.execute.kernels.target import isa_of
from hwsim.execute.packing import INT32_MAX, PackedWeights

if TYPE_CHECKING:
    from hwsim.execute.kernels.product import Product

Integers = npt.NDArray[np.integer[Any]]
Int32 = npt.NDArray[np.int32]

# By NumPy's character of a dtype, which costs a call less than its hash: a product may take only 6 µs.
INT8, UINT8, INT16, INT32 = "b", "B", "h", np.dtype(np.int32).char
LARGEST = {INT8: 128, UINT8: 255, INT16: 32768}


def matmul(
    activation_codes: Integers, packed: PackedWeights, *, path: str | None = None, out: Int32 | None = None
) -> Int32:
    """Activation codes times packed weights, exactly.

    `activation_codes`: (M, K) int8, uint8 or int16; codes of fewer bits come as int8. Returns (M, N) int32, in
    `out` when it is given, C-contiguous. `path`: None for the fastest that the target has, or one of
    `vnni`, `avx2`, `portable`; the integers are the same.

    No sum may leave int32: max|a| * largest column sum of |w| < 2^31. By types alone that is K * max|a| * max|w|:
    K up to 131,071 for int8 with int8, 2,097,151 with int4, 511 for int16 with int8, 8,191 with int4; above that
    the actual values are looked at. Raises HwsimError where they can overflow, naming bound and worst case (then
    take `matmul_wide`), for other types and shapes, and for a path that the target has not.
    """
    kind = _check(activation_codes, packed)
    if LARGEST[kind] * packed.largest_sum > INT32_MAX:
        _check_overflow(activation_codes, packed)
    shape = len(activation_codes), packed.shape[1]
    if out is None:
        out = np.empty(shape, np.int32)
    elif out.shape != shape or out.dtype.char != INT32 or not out.flags.c_contiguous:
        raise HwsimError(f"out must be C-contiguous int32 of shape {shape}, got {out.dtype} {out.shape}")
    if kind == INT8:
        _multiply(activation_codes, packed, path, out[None])
        return out
    if kind == UINT8:
        _multiply((activation_codes ^ np.uint8(128)).view(np.int8), packed, path, out[None])
        np.add(out, np.int32(128) * packed.column_sums, out=out)
        return out
    high, low = _halves(activation_codes, packed, path)
    np.multiply(high, np.int32(256), out=out)  # modulo 2^32 on the way, in range at the end
    np.add(out, low, out=out)
    return out


def matmul_wide(activation_codes: Integers, packed: PackedWeights, *, path: str | None = None) -> npt.NDArray[np.int64]:
    """`matmul` into int64, (M, N): for int16 activations over a K too large for int32.

    Exact while 255 * largest column sum of |w| < 2^31: K up to 65,793 with int8 weights, whatever the activations.
    Raises HwsimError beyond that, and as `matmul` for types, shapes and paths.
    """
    kind = _check(activation_codes, packed)
    if LARGEST[UINT8] * packed.largest_sum > INT32_MAX:
        raise HwsimError(_overflow(packed, LARGEST[UINT8], "each byte of the activations"))
    if kind != INT16:
        return matmul(activation_codes, packed, path=path).astype(np.int64)
    high, low = _halves(activation_codes, packed, path)
    return high.astype(np.int64) * 256 + low


def group_products(activation_codes: Integers, packed: PackedWeights, *, path: str | None = None) -> Integers:
    """The partial products of each scale group along K, not yet added: (G, M, N) int32, int64 of int16 activations.

    `activation_codes`: (M, K). Group g is K from g * K/G to (g + 1) * K/G; the groups add to `matmul`, or to
    `matmul_wide` for int16. Raises HwsimError as those do; a format without groups has one.
    """
    kind = _check(activation_codes, packed)
    if kind == INT16:
        if LARGEST[UINT8] * packed.largest_sum > INT32_MAX:
            raise HwsimError(_overflow(packed, LARGEST[UINT8], "each byte of the activations"))
        bytes_ = _bytes(activation_codes)
        rows = len(activation_codes)
        parts = _group_products(bytes_, packed, path)
        low = parts[:, rows:].astype(np.int64) + 128 * _group_sums(packed, path)
        return parts[:, :rows].astype(np.int64) * 256 + low
    if LARGEST[kind] * packed.largest_sum > INT32_MAX:
        _check_overflow(activation_codes, packed)
    if kind == INT8:
        return _group_products(activation_codes, packed, path)
    signed = (activation_codes ^ np.uint8(128)).view(np.int8)
    return _group_products(signed, packed, path) + np.int32(128) * _group_sums(packed, path)


def _group_products(activations: Integers, packed: PackedWeights, path: str | None) -> Int32:
    """int8 activations."""
    out = np.empty((packed.groups, len(activations), packed.shape[1]), np.int32)
    _multiply(activations, packed, path, out)
    return out


def _group_sums(packed: PackedWeights, path: str | None) -> Int32:
    """Sums of each column of weights in each group, (G, 1, N)."""
    return _group_products(np.ones((1, packed.shape[0]), np.int8), packed, path)


@lru_cache
def _kernel(path: str | None, layout: str) -> Product:
    from hwsim.execute.kernels.product import product  # with it comes Numba, which importing this room does not need

    return product(isa_of(path), layout)


def _multiply(activations: Integers, packed: PackedWeights, path: str | None, out: Int32) -> None:
    """int8 activations; out (1, M, N) or (G, M, N)."""
    depth, padded = packed.shape[0], packed.padded_depth
    if padded != depth:
        rows, groups = len(activations), packed.groups
        wide = np.zeros((rows, groups, padded // groups), np.int8)
        wide[:, :, : depth // groups] = activations.reshape(rows, groups, depth // groups)
        activations = wide.reshape(rows, padded)
    elif not activations.flags.carray:  # C-contiguous, aligned and writeable: the one kind that is compiled for
        activations = activations.copy()
    offsets = packed.offsets
    if len(offsets) > 1 and len(out) == 1 and packed.merged:
        offsets = offsets[:1]
    _kernel(path, packed.layout)(activations, packed.data, offsets, packed.table, out)


def _halves(activations: Integers, packed: PackedWeights, path: str | None) -> tuple[Int32, Int32]:
    """Products of the upper and of the lower byte of int16 activations: a = 256 * high + low, low from 0 to 255."""
    rows = len(activations)
    bytes_ = _bytes(activations)
    out = np.empty((1, 2 * rows, packed.shape[1]), np.int32)
    _multiply(bytes_, packed, path, out)
    return out[0, :rows], out[0, rows:] + np.int32(128) * packed.column_sums


def _bytes(activations: Integers) -> Integers:
    """Upper bytes of int16 above lower bytes less 128, (2 M, K) int8."""
    rows = len(activations)
    bytes_ = np.empty((2 * rows, activations.shape[1]), np.int8)
    bytes_[:rows] = activations >> 8
    bytes_[rows:] = ((activations & 255) - 128).astype(np.int8)
    return bytes_


def _check(activations: Integers, packed: PackedWeights) -> str:
    """The character of the dtype, a key of LARGEST."""
    kind = activations.dtype.char if isinstance(activations, np.ndarray) else ""
    if kind not in LARGEST:
        got = getattr(activations, "dtype", type(activations).__name__)
        raise HwsimError(f"activation codes must be an array of int8, uint8 or int16, got {got}")
    if activations.ndim != 2 or activations.shape[1] != packed.shape[0]:
        raise HwsimError(f"activation codes must be (M, K) with K {packed.shape[0]}, got shape {activations.shape}")
    return kind


def _check_overflow(activations: Integers, packed: PackedWeights) -> None:
    largest = max(-int(activations.min(initial=0)), int(activations.max(initial=0)))
    if largest * packed.largest_sum > INT32_MAX:
        raise HwsimError(_overflow(packed, largest, str(activations.dtype)))


def _overflow(packed: PackedWeights, largest: int, what: str) -> str:
    return (
        f"matmul of {what} with {packed.format} weights, K {packed.shape[0]:,}: sums must be below 2^31 = "
        f"{INT32_MAX + 1:,} for an int32 accumulator, got a worst case of max|a| {largest:,} × column sum of |w| "
        f"{packed.largest_sum:,} = {largest * packed.largest_sum:,}"
    )
