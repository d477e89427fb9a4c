"""How a matrix (rows, columns) of the trace lies in an ONNX value, which has axes of one and other orders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Layout:
    """A matrix of rows and columns, cut into atoms, as it lies in an ONNX value.

    `sizes`: of each atom. Atom 0 is the rows (frames); the others, outermost first, are the columns: one atom, or
    directions and cells. `axes`: for each axis of the value, the atoms it holds, outermost first. Atoms of size one
    may be left out.
    """

    axes: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, shape: Sequence[int], column_axis: int) -> Layout | None:
        """The layout of a value whose columns are in one axis and whose rows in another; None for more axes."""
        rows = [axis for axis, size in enumerate(shape) if size > 1 and axis != column_axis]
        if len(rows) > 1:
            return None
        axes = tuple((1,) if axis == column_axis else (0,) if axis in rows else () for axis in range(len(shape)))
        return cls(axes, (shape[rows[0]] if rows else 1, shape[column_axis]))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the ONNX value."""
        return tuple(prod(self.sizes[atom] for atom in axis) for axis in self.axes)

    @property
    def rows(self) -> int:
        """Rows of the matrix."""
        return self.sizes[0]

    @property
    def columns(self) -> int:
        """Columns of the matrix."""
        return prod(self.sizes[1:])

    @property
    def column_axis(self) -> int | None:
        """The axis that holds all columns in their order and nothing else, None when there is none."""
        wanted = tuple(atom for atom in range(1, len(self.sizes)) if self.sizes[atom] > 1)
        if not wanted:
            last = len(self.axes) - 1
            return last if self.shape and self.shape[last] == 1 else None
        return next((axis for axis in range(len(self.axes)) if self._real(axis) == wanted), None)

    @property
    def row_axis(self) -> int | None:
        """The axis of the rows, None when there is only one row."""
        return next((axis for axis in range(len(self.axes)) if self._real(axis) == (0,)), None)

    def _real(self, axis: int) -> tuple[int, ...]:
        return tuple(atom for atom in self.axes[axis] if self.sizes[atom] > 1)

    def with_columns(self, columns: int) -> Layout:
        """The same rows with another number of columns, in the axis that holds them now."""
        at = self.column_axis
        axes = tuple((1,) if axis == at else self._real(axis) for axis in range(len(self.axes)))
        return Layout(axes, (self.rows, columns))

    def permuted(self, order: Sequence[int]) -> Layout:
        """After Transpose."""
        return Layout(tuple(self.axes[axis] for axis in order), self.sizes)

    def reshaped(self, shape: Sequence[int]) -> Layout | None:
        """After Reshape to `shape`, None when that would cut an atom."""
        left = [atom for axis in range(len(self.axes)) for atom in self._real(axis)]
        axes: list[tuple[int, ...]] = []
        for size in shape:
            taken: list[int] = []
            while size > 1 and left and size % self.sizes[left[0]] == 0:
                size //= self.sizes[left[0]]
                taken.append(left.pop(0))
            if size != 1:
                return None
            axes.append(tuple(taken))
        return None if left else Layout(tuple(axes), self.sizes)

    def column_vector(self, constant: Array) -> Array | None:
        """A constant that broadcasts over the rows of this value, as (columns,); None when it does not."""
        at, rank = self.column_axis, len(self.axes)
        if constant.ndim > rank or at is None:
            return None
        if constant.size == 1:
            return np.full(self.columns, constant.reshape(-1)[0])
        shape = (1,) * (rank - constant.ndim) + constant.shape
        if constant.size != self.columns or shape[at] != constant.size:
            return None
        return constant.reshape(-1)


@dataclass(frozen=True, slots=True)
class View:
    """Where a tensor of the trace, of `shape`, is found in an ONNX value: its columns from `start` to `stop`."""

    value: str
    layout: Layout
    shape: tuple[int, ...]
    start: int
    stop: int

    def take(self, array: Array) -> Array:
        """The tensor, out of the ONNX value."""
        order = self._atoms()
        cut = array.reshape([self.layout.sizes[atom] for atom in order]).transpose(np.argsort(order))
        matrix = cut.reshape(self.layout.rows, self.layout.columns)
        return np.ascontiguousarray(matrix[:, self.start : self.stop]).reshape(self.shape)

    def give(self, array: Array) -> Array:
        """The ONNX value of a tensor that is all of it."""
        order = self._atoms()
        cut = array.reshape([self.layout.sizes[atom] for atom in sorted(order)])
        places = [sorted(order).index(atom) for atom in order]
        return np.ascontiguousarray(cut.transpose(places)).reshape(self.layout.shape)

    def _atoms(self) -> list[int]:
        return [atom for axis in self.layout.axes for atom in axis]
