"""Cycles of one matrix product on one MAC array. All functions take integers or integer arrays.

A product `(m, k) @ (k, n)` is cut into folds that fill the array. What stays in the array names the dataflow:
the weights (`weight_stationary`), the outputs, or the inputs. Scratchpad stalls are not in here, and neither
is the time to move partial sums between arrays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwsim.arch.blocks import ArrayFormat, MacArray
from hwsim.errors import HwsimError

IntArray = npt.NDArray[np.int64]
Ints = int | IntArray

_NAMES = {
    "ws": "ws", "os": "os", "is": "is",
    "weight_stationary": "ws", "output_stationary": "os", "input_stationary": "is",
}  # fmt: skip


@dataclass(frozen=True)
class ArrayCycles:
    """Where the cycles of an array go; `total` is their sum unless loading is hidden behind computing."""

    stream: IntArray
    """Cycles in which operands stream through and MACs are done."""
    load: IntArray
    """Cycles in which stationary operands are loaded and nothing else happens."""
    overhead: IntArray
    """Pipeline fill and drain, idle cycles at a swap of weight blocks."""

    @property
    def total(self) -> IntArray:
        """All cycles."""
        return self.stream + self.load + self.overhead


def ceil_div(a: Ints, b: Ints) -> IntArray:
    """`ceil(a / b)` in integers."""
    return np.asarray(-(-np.asarray(a, dtype=np.int64) // np.asarray(b, dtype=np.int64)))


def systolic_cycles(dataflow: str, rows: Ints, cols: Ints, m: Ints, k: Ints, n: Ints) -> Ints:
    """Compute cycles of `(m, k) @ (k, n)` on a skewed rows x cols array, a count.

    weight_stationary  ceil(k/rows) ceil(n/cols) (m + 2 rows + cols - 2)
    output_stationary  ceil(m/rows) ceil(n/cols) (k + rows + cols - 2)
    input_stationary   ceil(k/rows) ceil(m/cols) (n + 2 rows + cols - 2)

    `dataflow` may also be ws, os or is. Source: SCALE-Sim 3.0.0 in CALC mode, whose compute_cycles is the index
    of the last cycle, one less. Raises HwsimError for an unknown dataflow or a size below 1.
    """
    parts = systolic(dataflow, rows, cols, m, k, n)
    total = parts.total
    return int(total) if total.ndim == 0 else total


def systolic(dataflow: str, rows: Ints, cols: Ints, m: Ints, k: Ints, n: Ints, *, charge_fill: bool = True,
             charge_drain: bool = True) -> ArrayCycles:  # fmt: skip
    """The parts of `systolic_cycles`: stationary load, stream, and the skew of rows (fill) and columns (drain)."""
    name = _NAMES.get(dataflow)
    if name is None:
        raise HwsimError(f"dataflow must be weight_stationary, output_stationary or input_stationary, got {dataflow!r}")
    for label, size in (("rows", rows), ("cols", cols), ("m", m), ("k", k), ("n", n)):
        if np.any(np.asarray(size) < 1):
            raise HwsimError(f"{label} must be at least 1, got {int(np.min(size))}")
    along_rows, along_cols, streamed = {"ws": (k, n, m), "os": (m, n, k), "is": (k, m, n)}[name]
    folds = ceil_div(along_rows, rows) * ceil_div(along_cols, cols)
    rows_, cols_ = np.asarray(rows, dtype=np.int64), np.asarray(cols, dtype=np.int64)
    load = folds * (0 if name == "os" or not charge_fill else rows_)
    skew = (rows_ - 1 if charge_fill else 0) + (cols_ - 1 if charge_drain else 0)
    return ArrayCycles(folds * np.asarray(streamed, dtype=np.int64), load, folds * skew)


def blocked(array: MacArray, fmt: ArrayFormat, element_bits: Ints, m: Ints, k: Ints, n: Ints) -> ArrayCycles:
    """Cycles of one array whose weights sit in register blocks, loaded over a path that arrays share.

    A spatial tile is (rows x MACs per lane) by (columns x lanes) weights and takes one cycle per row of m. A
    block holds as many tiles as its registers do. With double-buffered blocks the first load, the longer of loading
    and streaming for each further block, and the last streaming count; otherwise all of both. `block_swap_cycles`
    count once per block. Without `charge_fill`, first load and swaps are free, and loading counts as far as the path
    is slower than streaming.
    """
    blocks_spec = array.weight_blocks
    assert blocks_spec is not None
    tiles = ceil_div(k, fmt.inner_per_cycle) * ceil_div(n, fmt.outputs_per_cycle)
    tile_bits = fmt.inner_per_cycle * fmt.outputs_per_cycle * element_bits
    tiles_per_block = np.maximum(1, 8 * blocks_spec.register_block_bytes.value // np.asarray(tile_bits))
    blocks = ceil_div(tiles, tiles_per_block)
    path_bits = 8 * blocks_spec.weight_path_bytes_per_cycle.value / array.arrays_per_core.value
    weight_bits = np.asarray(k, dtype=np.int64) * np.asarray(n, dtype=np.int64) * element_bits
    load = np.asarray(np.ceil(weight_bits / path_bits).astype(np.int64))
    stream = np.asarray(m, dtype=np.int64) * tiles
    beyond_stream = np.maximum(load - stream, 0)
    if not array.charge_fill:
        return ArrayCycles(stream, beyond_stream, np.zeros_like(stream))
    if blocks_spec.double_buffered_weights:
        load = np.maximum(ceil_div(load, blocks), load + ceil_div(stream, blocks) - stream)
    return ArrayCycles(stream, load, blocks * blocks_spec.block_swap_cycles.value)


def array_cycles(array: MacArray, fmt: ArrayFormat, element_bits: Ints, m: Ints, k: Ints, n: Ints) -> ArrayCycles:
    """Cycles of `(m, k) @ (k, n)` on one array of a machine, by its timing and dataflow."""
    if array.timing == "blocked":
        return blocked(array, fmt, element_bits, m, k, n)
    inner = ceil_div(k, fmt.macs_per_lane.value)
    outputs = ceil_div(n, fmt.lanes.value)
    rows, cols = fmt.rows.value, fmt.columns.value
    return systolic(array.dataflow, rows, cols, m, inner, outputs, charge_fill=array.charge_fill,
                    charge_drain=array.charge_drain)  # fmt: skip
