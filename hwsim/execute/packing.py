"""Weights packed for `matmul`: bits stay bits in memory, and everything a product needs beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.execute.kernels.layout import CODEBOOK_OFFSET, LAYOUTS, padded_columns, store
from hwsim.numerics import NumberFormat

Integers = npt.NDArray[np.integer[Any]]
Values = npt.NDArray[np.int16]

MAX_BITS = 8
TABLE_BYTES = 64
INT32_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True, eq=False)
class PackedWeights:
    """A weight matrix of K inputs and N output channels, as the kernels read it.

    `format`: what the codes were. `shape`: (K, N). `layout`: name in `kernels.layout.LAYOUTS`.
    `data`: (panels, slabs, slab_bytes) uint8, the packed codes; K and N padded to whole slabs and panels of 64.
    `offsets`: (G, N padded) int32, stored byte minus weight, zero point included; G is 1, or the scale groups.
    `table`: (64,) uint8, the centroids of a codebook + 128, zeros elsewhere.
    `column_sums`: (N,) int32, the sum of each column's weights, zero point subtracted.
    `largest_sum`: the largest over columns of the sum of |weight|, which bounds every product.
    `merged`: whether all groups may be summed as if they were one.
    `padded_depth`: K with each group padded to whole slabs.
    The arrays are not to be changed; they are not locked because Numba takes locked ones three times as slowly.
    """

    format: NumberFormat
    shape: tuple[int, int]
    layout: str
    data: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int32]
    table: npt.NDArray[np.uint8]
    column_sums: npt.NDArray[np.int32]
    largest_sum: int
    merged: bool
    padded_depth: int

    @property
    def groups(self) -> int:
        """Scale groups along K, 1 unless the format has groups."""
        return len(self.offsets)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together."""
        return sum(array.nbytes for array in (self.data, self.offsets, self.table, self.column_sums))


def pack(
    codes: Integers,
    format: NumberFormat | str,
    *,
    zero_point: npt.ArrayLike | None = None,
    table: npt.ArrayLike | None = None,
) -> PackedWeights:
    """Pack the integer codes of a weight matrix.

    `codes`: (K, N) integers in the range of the format: -2^(b-1) to 2^(b-1) - 1 for intB, -1 and +1 for int1
    (and 0 where N:M prunes), 0 to 2^b - 1 for codebookB, whose `table` is 2^b int8 centroids.
    `zero_point`: the code of the value 0, for a format with `/zp`: one integer, (N,) per channel, or (G, N) per group,
    in the range of the codes; the weight is then code - zero_point. Scales are not needed: the product is of codes.

    int1 to int6 and codebook1 to codebook6 keep their bits in memory; codebook7 and codebook8 are stored as their
    int8 centroids. Of an N:M format the rule is checked and the product done dense, pruned weights stored as zeros
    (int1 then takes 2 bits); `format.stored_bits` counts what the hardware would store.
    Raises HwsimError for wrong shapes, ranges and tables, and for a broken N:M rule.
    """
    fmt = NumberFormat.parse(format) if isinstance(format, str) else format
    codes = _checked_codes(codes, fmt)
    entries = _checked_table(table, fmt)
    groups = codes.shape[0] // fmt.group_size if fmt.granularity == "group" else 1
    points = _checked_zero_point(zero_point, fmt, groups, codes.shape[1])
    values = codes.astype(np.int16) if entries is None else entries.astype(np.int16)[codes]
    weights = _without_zero_point(values, points)
    _check_sparsity(weights, fmt)
    return _packed(codes if fmt.kind == "codebook" else values, weights, points, fmt, entries)


def _packed(
    codes: Integers, weights: Values, points: npt.NDArray[np.int32], fmt: NumberFormat, entries: Integers | None
) -> PackedWeights:
    name = _layout_name(fmt)
    layout = LAYOUTS[name]
    (depth, columns), groups = weights.shape, len(points)
    if entries is not None and not layout.table_bits:
        codes = entries.astype(np.int16)[codes]
    group = depth // groups
    stored = np.zeros((groups, layout.depth(group), padded_columns(columns)), np.uint8)
    shift = 0 if layout.table_bits else layout.offset
    stored[:, :group, :columns] = (codes + shift).reshape(groups, group, columns)
    offsets = np.zeros((groups, padded_columns(columns)), np.int32)
    offsets[:, :columns] = layout.offset + points
    centroids = np.zeros(TABLE_BYTES, np.uint8)
    if entries is not None and layout.table_bits:
        centroids[: len(entries)] = entries.astype(np.int16) + CODEBOOK_OFFSET
    largest = int(np.abs(weights).sum(axis=0, dtype=np.int64).max())
    if largest > INT32_MAX:
        raise HwsimError(f"{fmt} weights {weights.shape}: the sum of a column must be below 2^31, got {largest:,}")
    arrays = (
        store(stored.reshape(-1, stored.shape[2]), layout),
        offsets,
        centroids,
        weights.sum(axis=0, dtype=np.int32),
    )
    merged = layout.depth(group) == group and bool((points == points[:1]).all())
    return PackedWeights(fmt, (depth, columns), name, *arrays, largest, merged, groups * layout.depth(group))


def _layout_name(fmt: NumberFormat) -> str:
    if fmt.base == "int1" and fmt.sparsity:
        return "int2"
    return fmt.base if fmt.base in LAYOUTS else "int8"


def code_range(fmt: NumberFormat) -> tuple[int, int]:
    """Smallest and largest code of an integer or codebook format, both included."""
    if fmt.kind == "codebook":
        return 0, (1 << fmt.code_bits) - 1
    return (-1, 1) if fmt.base == "int1" else (-(1 << (fmt.code_bits - 1)), (1 << (fmt.code_bits - 1)) - 1)


def _checked_codes(codes: Integers, fmt: NumberFormat) -> Integers:
    if fmt.is_float or fmt.code_bits > MAX_BITS:
        raise HwsimError(f"{fmt}: weights must be of an integer or codebook format of at most {MAX_BITS} bits")
    codes = np.asarray(codes)
    if codes.dtype.kind not in "iu":
        raise HwsimError(f"{fmt} codes must be integers, got {codes.dtype}")
    if codes.ndim != 2 or not codes.size:
        raise HwsimError(f"{fmt} codes must be a matrix (K, N) with K and N at least 1, got shape {codes.shape}")
    fmt.stored_bits(codes.shape)
    low, high = code_range(fmt)
    wrong = (codes < low) | (codes > high)
    if fmt.base == "int1" and not fmt.sparsity:
        wrong |= codes == 0
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        allowed = "-1 or 1" if fmt.base == "int1" else f"{low} to {high}"
        raise HwsimError(f"{fmt} codes must be {allowed}, got {codes[row, column]} at ({row}, {column})")
    return codes


def _checked_table(table: npt.ArrayLike | None, fmt: NumberFormat) -> Integers | None:
    if fmt.kind != "codebook":
        if table is not None:
            raise HwsimError(f"{fmt} has no codebook: table must be None")
        return None
    if table is None:
        raise HwsimError(f"{fmt} needs its table of {1 << fmt.code_bits} int8 centroids, got None")
    entries = np.asarray(table)
    whole = entries.dtype.kind in "iu" and entries.shape == (1 << fmt.code_bits,)
    if not whole or entries.min() < -128 or entries.max() > 127:
        got = f"{entries.dtype} of shape {entries.shape}"
        if whole:
            got = f"{entries.min()} to {entries.max()}"
        raise HwsimError(f"{fmt}: table must be {1 << fmt.code_bits} integers from -128 to 127, got {got}")
    return entries.astype(np.int8)


def _checked_zero_point(
    zero_point: npt.ArrayLike | None, fmt: NumberFormat, groups: int, columns: int
) -> npt.NDArray[np.int32]:
    """(G, N) int32."""
    if zero_point is None:
        return np.zeros((groups, columns), np.int32)
    points = np.asarray(zero_point)
    if not fmt.zero_point:
        raise HwsimError(f"{fmt} has no zero point: zero_point must be None, or the format must end in /zp")
    shapes: dict[str, list[tuple[int, ...]]] = {
        "tensor": [()],
        "channel": [(), (columns,)],
        "group": [(), (columns,), (groups, columns)],
    }
    allowed = shapes[fmt.granularity]
    if points.dtype.kind not in "iu" or points.shape not in allowed:
        got = f"{points.dtype} of shape {points.shape}"
        raise HwsimError(f"{fmt}: zero_point must be integers of shape {' or '.join(map(str, allowed))}, got {got}")
    low, high = code_range(fmt)
    if points.min() < low or points.max() > high:
        raise HwsimError(f"{fmt}: zero_point must be {low} to {high}, got {points.min()} to {points.max()}")
    return np.broadcast_to(points, (groups, columns)).astype(np.int32)


def _without_zero_point(values: Values, points: npt.NDArray[np.int32]) -> Values:
    depth, columns = values.shape
    grouped = values.reshape(len(points), -1, columns) - points[:, None, :].astype(np.int16)
    return grouped.reshape(depth, columns)


def _check_sparsity(weights: Values, fmt: NumberFormat) -> None:
    if not fmt.sparsity:
        return
    rule = fmt.sparsity
    kept = (weights.reshape(-1, rule.group, weights.shape[1]) != 0).sum(axis=1)
    if kept.max() > rule.keep:
        group, column = np.argwhere(kept > rule.keep)[0]
        where = f"K {group * rule.group} to {(group + 1) * rule.group - 1} of column {column}"
        raise HwsimError(
            f"{fmt}: at most {rule.keep} of {rule.group} weights along K must be nonzero, "
            f"got {kept[group, column]} at {where}"
        )
