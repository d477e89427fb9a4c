"""Constants of a file that are not read before somebody asks: where they come from and how they lie now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.extract.onnx.constants import code_type

Array = npt.NDArray[Any]
Move = Callable[[Array], Array]


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """How codes become reals: (code - zero) scale, along `axis` of the file's layout, in blocks of `group`.

    `along`: the axis of the constant as it lies now, None when it was mixed with others. `zero`: None when absent.
    """

    bits: int
    signed: bool
    scale: Array
    zero: Array | None = None
    axis: int | None = None
    along: int | None = None
    group: int | None = None

    @property
    def shifted(self) -> bool:
        """Whether a zero point is needed beside the scale, for codes that may be moved to two's complement."""
        middle = 0 if self.signed else 1 << (self.bits - 1)
        if self.zero is None:
            return middle != 0
        return bool((np.asarray(self.zero).astype(np.int64) != middle).any())


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A constant of a graph: `shape` and `dtype` as they are now, `file` reads what the file has.

    `moves` turn the file's layout into this one; `axes` say which axis of the file each axis of now is. `sources`:
    initializers of reals or codes that it is made of; `computed`: by arithmetic, so that `file` computes it.
    `stored`: the type in the file where a cast changed it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    file: Callable[[], Array]
    sources: frozenset[str] = frozenset()
    moves: tuple[Move, ...] = ()
    axes: tuple[int | None, ...] = ()
    computed: bool = False
    grid: Grid | None = None
    stored: str = ""

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def is_real(self) -> bool:
        """Whether it stands for reals: floats, or codes with a scale."""
        return self.grid is not None or self.dtype.name.startswith(("float", "bfloat"))

    def read(self) -> Array:
        """The array as it lies now: codes when it has a grid."""
        return self._moved(self.file())

    def reals(self) -> Array:
        """The array as it lies now, dequantized."""
        grid = self.grid
        if grid is None:
            return self.read()
        codes = self.file()
        if not np.issubdtype(np.asarray(codes).dtype, np.integer) and code_type(codes) is None:
            return self._moved(codes)
        zero = np.zeros((), np.int64) if grid.zero is None else spread(grid.zero.astype(np.int64), codes.shape, grid)
        steps = codes.astype(np.int64) - zero
        return self._moved((steps * spread(grid.scale, codes.shape, grid)).astype(grid.scale.dtype))

    def moved(self, shape: Sequence[int], move: Move, axes: Sequence[int | None], name: str) -> Constant:
        """The same numbers in another layout; `axes`: which axis of now each new one is."""
        grid = self.grid
        if grid is not None and grid.along is not None:
            along = next((new for new, old in enumerate(axes) if old == grid.along), None)
            grid = replace(grid, along=along)
        old_axes = tuple(None if old is None else self.axes[old] for old in axes)
        return replace(self, name=name, shape=tuple(shape), moves=(*self.moves, move), axes=old_axes, grid=grid)

    def reshaped(self, shape: Sequence[int], name: str) -> Constant:
        """The same order of elements in other sizes."""
        sizes = tuple(shape)
        return self.moved(sizes, lambda array: array.reshape(sizes), kept_axes(self.shape, sizes), name)

    def transposed(self, order: Sequence[int], name: str = "") -> Constant:
        """Another order of axes."""
        axes = tuple(order)
        return self.moved([self.shape[at] for at in axes], lambda array: array.transpose(axes), axes, name or self.name)

    def cast(self, dtype: np.dtype[Any], name: str) -> Constant:
        """The same reals in another float type."""
        moves = (*self.moves, lambda array: array.astype(dtype, copy=False))
        return replace(self, name=name, dtype=dtype, moves=moves, stored=self.stored or self.dtype.name)

    def small(self) -> Array | None:
        """The array if reading it costs nothing, else None."""
        return self.reals() if self.elements <= SMALL else None

    def _moved(self, array: Array) -> Array:
        for move in self.moves:
            array = move(array)
        return array


SMALL = 4096
"""Elements up to which a constant is computed when it is met."""


def kept_axes(old: Sequence[int], new: Sequence[int]) -> list[int | None]:
    """For each axis of a reshaped array the one it was, None for split or joined ones."""
    found: list[int | None] = []
    for at, size in enumerate(new):
        before = prod(new[:at])
        same = (i for i, was in enumerate(old) if was == size and prod(old[:i]) == before and size > 1)
        found.append(next(same, None))
    return found


def spread(parameter: Array, shape: Sequence[int], grid: Grid) -> Array:
    """A scale or zero point that broadcasts against codes of `shape`, both in the file's layout."""
    if parameter.size == 1:
        return parameter.reshape(())
    if parameter.ndim == len(shape):
        for axis, (given, wanted) in enumerate(zip(parameter.shape, shape, strict=True)):
            if 1 < given < wanted or (given == 1 and axis == grid.axis and grid.group):
                block = grid.group or -(-wanted // given)
                parameter = np.repeat(parameter, block, axis=axis).take(range(wanted), axis=axis)
        return parameter
    return parameter.reshape([-1 if axis == grid.axis else 1 for axis in range(len(shape))])
