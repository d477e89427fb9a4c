"""The loops around the register tile: panels of columns, runs of K that stay in cache, rows of activations.

Single-threaded and without the interpreter's lock, so that utterances run beside each other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

from hwsim.execute.kernels.layout import LAYOUTS, PANEL
from hwsim.execute.kernels.target import Isa
from hwsim.execute.kernels.tile import WORD_BYTES, row_sum, specification, tile

Product = Callable[..., None]
PANEL_BYTES = PANEL * WORD_BYTES
RUN_DEPTH = 4096  # stays in cache, and `tile` relies on no more


@njit(cache=True, nogil=True)
def widen(activations: Any, pairs: Any) -> None:
    """Each quad of int8 as int16 in the order 0, 2, 1, 3: the even ones in one word, the odd ones in the next.

    `activations`: C-contiguous int8, a multiple of 4. `pairs`: (size / 4,) uint64. Signs are extended by
    arithmetic within the word, which the compiler turns into vectors.
    """
    words = activations.reshape(activations.size).view(np.uint32)
    for index in range(words.size):
        even = np.uint64(words[index] & np.uint32(0x00FF00FF))
        odd = np.uint64((words[index] >> np.uint32(8)) & np.uint32(0x00FF00FF))
        both = even | odd << np.uint64(32)
        signs = both & np.uint64(0x0080008000800080)
        pairs[index] = both | ((signs << np.uint64(9)) - (signs << np.uint64(1)))


@lru_cache
def product(isa: Isa, base: str) -> Product:
    """The compiled product of int8 activations with weights in one layout.

    Called with activations (M, G * slabs * slab_depth) int8, each group of K padded with zeros to whole slabs;
    weights (N/64, G * slabs, slab_bytes) uint8; column offsets (G, N padded) int32; table (64,) uint8; out (1, M, N)
    int32, or (G, M, N) with the groups apart. All are C-contiguous. Nothing is checked.
    """
    spec, layout = specification(isa, base), LAYOUTS[base]
    slab_bytes, run_slabs = layout.slab_bytes, RUN_DEPTH // layout.slab_depth
    paired, max_rows = isa.paired, isa.max_rows(layout.unpacking)
    operand_bytes = layout.slab_depth * (2 if paired else 1)

    def multiply(activations: Any, weights: Any, offsets: Any, table: Any, out: Any) -> None:
        # Loops over elements and not slices: an assignment of a slice takes Numba 1.5 s to compile.
        groups, rows, columns = offsets.shape[0], activations.shape[0], out.shape[2]
        panels, all_slabs = weights.shape[0], weights.shape[1]
        if paired:
            operand = np.empty(activations.size // 4, np.uint64)
            widen(activations, operand)
        else:
            operand = activations
        slabs = all_slabs // groups
        run = -(-slabs // -(-slabs // run_slabs))
        runs = -(-slabs // run)
        # One kind of array and no `min`: each more that Numba has to compile takes up to 0.1 s.
        sums, edge = np.empty((1, groups * runs, rows), np.int32), np.empty((1, rows, PANEL), np.int32)
        tiles, apart = -(-rows // max_rows), out.shape[0] > 1
        for panel in range(panels):
            left = columns - panel * PANEL
            target, stride = (out, columns) if left >= PANEL else (edge, PANEL)
            for part in range(groups * runs):
                group, turn = part // runs, part % runs
                layer = group if apart else 0
                start = layer * rows * columns + panel * PANEL if left >= PANEL else 0
                first = group * slabs + turn * run
                count = run if turn < runs - 1 else slabs - turn * run
                row = 0
                for step in range(tiles):
                    height = rows // tiles + (1 if step < rows % tiles else 0)
                    if panel == 0:
                        for one in range(row, row + height):
                            at = (one * all_slabs + first) * operand_bytes
                            sums[0, part, one] = row_sum(spec, operand, at, count * operand_bytes)
                    tile(
                        spec, height, count,
                        operand, (row * all_slabs + first) * operand_bytes, all_slabs * operand_bytes,
                        weights, (panel * all_slabs + first) * slab_bytes,
                        offsets, (group * panels + panel) * PANEL_BYTES,
                        table, sums, (part * rows + row) * WORD_BYTES,
                        target, (start + row * stride) * WORD_BYTES, stride * WORD_BYTES,
                        turn == 0 and (apart or group == 0),
                    )  # fmt: skip
                    row += height
                if left < PANEL and turn == runs - 1:  # the sum so far, or the whole layer
                    for m in range(rows):
                        for n in range(left):
                            out[layer, m, panel * PANEL + n] = edge[0, m, n]

    # Symbols of a process that have one name are one: code from the disk cache would call another layout's product.
    multiply.__qualname__ = f"multiply_{spec.replace(' ', '_')}"
    compiled: Product = njit(cache=True, nogil=True)(multiply)
    return compiled
