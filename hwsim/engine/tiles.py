"""Tiles of an operation as tasks: one each, or where there are very many, groups of them in the middle.

A group of g tiles takes the units and channels for as long as its tiles do one after another, to the cycle. Its loads
stream through the ring buffer: they hold as many tiles as leave room for `IN_FLIGHT` groups, at least one, and wait for
the latency of DRAM once for each time that they fill what they hold. So a long run of equal groups takes as long as
the run of its tiles, whether transfers, computation or latency bind it: its schedule is that of single tiles, with g
times the cycles. Only where it starts and ends does the size of a group show. There tiles are single, and groups grow
slowly.

Not modelled in a group: a computation that starts before all of its loads are there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

MOST_TILES = 1024
"""An operation of more tiles is grouped; nothing that has fewer is changed."""
SINGLE_PARTS = 32
"""Of each `most` tiles, one in so many stays single at either end."""
GROWTH = 1.125
"""A group over the one before it, where they grow: faster, and the pipeline would run dry where they shrink again."""
IN_FLIGHT = 8
"""Groups for which a ring buffer has room, if it has room for as many tiles."""


@dataclass(frozen=True)
class Groups:
    """The groups of all operations, one after another; `count` of operation, the others of group."""

    count: IntArray
    """Groups of each operation."""
    operation: IntArray
    part: IntArray
    """Which group of its operation."""
    begin: IntArray
    """Its first tile."""
    size: IntArray
    """Its tiles."""


@lru_cache(maxsize=1024)
def group_sizes(tiles: int, most: int | None) -> tuple[int, ...]:
    """Tiles of each group of an operation, in order; all 1 up to `most` tiles, or with None.

    The largest has ceil(2 tiles / most), so that the middle is about `most` / 2 groups; at both ends they grow alike.
    """
    if most is None or tiles <= most:
        return (1,) * tiles
    largest = -(-2 * tiles // most)
    ramp, size = [1] * max(most // SINGLE_PARTS, 1), GROWTH
    while int(size) < largest and 2 * (sum(ramp) + int(size)) + largest <= tiles:
        ramp.append(int(size))
        size *= GROWTH
    middle = tiles - 2 * sum(ramp)
    parts = -(-middle // largest)
    inner = [(i + 1) * middle // parts - i * middle // parts for i in range(parts)]
    return (*ramp, *inner, *ramp[::-1])


def grouped(tiles: IntArray, most: int | None) -> Groups:
    """Group the tiles of operations, at least one each."""
    count, many = tiles, np.zeros(0, dtype=np.int64)
    if most is not None:
        many = np.flatnonzero(tiles > most)
        count = tiles.copy()
        count[many] = [len(group_sizes(n, most)) for n in tiles[many].tolist()]
    first = np.cumsum(count) - count
    operation = np.repeat(np.arange(len(tiles)), count)
    part = np.arange(len(operation)) - first[operation]
    begin, size = part.copy(), np.ones_like(part)
    for op in many.tolist():
        sizes = np.array(group_sizes(int(tiles[op]), most), dtype=np.int64)
        chosen = slice(first[op], first[op] + count[op])
        begin[chosen], size[chosen] = np.cumsum(sizes) - sizes, sizes
    return Groups(count, operation, part, begin, size)


def share(total: IntArray, begin: IntArray, size: IntArray, parts: IntArray) -> IntArray:
    """Parts `begin` ... `begin + size - 1` of a total that is divided into `parts` as equally as integers allow."""
    return (begin + size) * total // parts - begin * total // parts


def sum_of_tiles(measure: Callable[[IntArray], IntArray], total: IntArray, begin: IntArray, size: IntArray,
                 parts: IntArray) -> IntArray:  # fmt: skip
    """Sum of `measure` of the share of each tile, for groups; the shares are of two sizes, 1 apart."""
    smaller = total // parts
    larger_tiles = share(total, begin, size, parts) - smaller * size
    return np.asarray((size - larger_tiles) * measure(smaller) + larger_tiles * measure(smaller + 1))


def held_tiles(tile_bytes: IntArray, ring_bytes: int, size: IntArray) -> IntArray:
    """Tiles for which a group of `size` tiles of `tile_bytes` takes room in a ring buffer."""
    fit = ring_bytes // np.maximum(tile_bytes, 1)
    return np.asarray(np.minimum(size, np.maximum(fit // IN_FLIGHT, 1)))
