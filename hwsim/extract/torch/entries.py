"""What a name of an exported program stands for: something computed, a constant, or parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hwsim.extract.torch.calls import Meta

Array = npt.NDArray[Any]
Move = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """A quantizer: `codes` of a tensor in its layout; `scale`, `zero_point` along `axis`, in blocks of `group`."""

    format: str
    codes: Callable[[Tensor], Array]
    scale: Array
    zero_point: Array | None = None
    axis: int | None = None
    group: int | None = None
    values: Callable[[Array], Array] | None = None
    """Reals of codes, unless they are (codes - zero point) scale."""

    def reals(self, x: Tensor) -> Tensor:
        """x on the grid."""
        if self.values is not None:
            return torch.as_tensor(np.asarray(self.values(self.codes(x)), np.float64)).to(x.dtype)
        scale, zero = (self.spread(part, x) for part in (self.scale, self.zero_point))
        codes = torch.as_tensor(self.codes(x).astype(np.float64))
        return ((codes - zero) * scale).to(x.dtype)

    def spread(self, part: Array | None, x: Tensor) -> Tensor:
        """Scale or zero point with the shape of `x`."""
        if part is None:
            return torch.zeros(()).expand(x.shape)
        values = torch.as_tensor(np.asarray(part, np.float64))
        if values.ndim == 2 and self.group:
            return values.repeat_interleave(self.group, 0).reshape(x.shape)
        if values.ndim == 1 and self.axis is not None:
            values = values.reshape([-1 if at == self.axis else 1 for at in range(x.ndim)])
        return values.expand(x.shape)


@dataclass(frozen=True, slots=True)
class Computed:
    """A value of the graph. `format`: of the quantizer through which it is read, or as it is stored."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    format: str


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A tensor that depends neither on inputs nor on parameters. `name`: of a buffer, or of what computed it."""

    tensor: Tensor
    name: str
    format: str = ""
    """Of the quantizer that it went through."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> torch.dtype:
        """Its type."""
        return self.tensor.dtype


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """Parameters, or what follows from them alone, computed when it is asked for.

    `sources`: names of parameters. `base` gives the tensor; `moves` put it in another order or shape, or select of it
    (`selects`). `grid` quantizes what the first `grid_at` moves give.
    """

    sources: tuple[str, ...]
    base: Callable[[], Tensor]
    shape: tuple[int, ...]
    dtype: torch.dtype
    moves: tuple[Move, ...] = ()
    selects: bool = False
    grid: Grid | None = None
    grid_at: int = 0
    plain: bool = True
    """Whether it is one parameter, moved only."""

    def moved(self, move: Move, meta: Meta, selects: bool = False) -> Held:
        """After one more move."""
        return replace(self, shape=meta.shape, dtype=meta.dtype, moves=(*self.moves, move),
                       selects=self.selects or selects)  # fmt: skip

    def quantized(self, grid: Grid) -> Held:
        """On a grid."""
        return replace(self, grid=grid, grid_at=len(self.moves))

    def after(self, start: int = 0, stop: int | None = None, x: Tensor | None = None) -> Tensor:
        """`x` (the base unless given) after some of the moves."""
        x = self.base().detach() if x is None else x
        for move in self.moves[start:stop]:
            x = move(x)
        return x

    def tensor(self) -> Tensor:
        """The reals that the program computes with."""
        if self.grid is None:
            return self.after()
        return self.after(self.grid_at, None, self.grid.reals(self.after(0, self.grid_at)))

    def content(self) -> tuple[Callable[[], Array], Array | None, Array | None, int | None, int | None]:
        """How to load it, its scale, zero point, axis and group: codes with a grid, reals without.

        In the layout of the parameter, or of the quantizer behind a transposition; of a selection, as it is read.
        """
        grid = self.grid
        if grid is None:
            return (lambda: as_array(self.after() if self.selects else self.base())), None, None, None, None
        if not self.selects:
            return (lambda: grid.codes(self.after(0, self.grid_at))), grid.scale, grid.zero_point, grid.axis, grid.group

        def load() -> Array:
            return as_array(self.after(self.grid_at, None, torch.as_tensor(grid.codes(self.after(0, self.grid_at)))))

        whole = self.after(0, self.grid_at)
        scale, axis = _along(self.after(self.grid_at, None, grid.spread(grid.scale, whole)))
        zero = None
        if grid.zero_point is not None:
            spread = self.after(self.grid_at, None, grid.spread(grid.zero_point, whole))
            zero = as_array(spread[tuple(slice(None) if at == axis else 0 for at in range(spread.ndim))])
        return load, scale, zero, axis, None


Entry = Computed | Constant | Held


def as_array(x: Tensor) -> Array:
    """A NumPy view of a tensor; of bfloat16, which NumPy lacks, a copy in float32."""
    x = x.detach().cpu()
    array: Array = (x.float() if x.dtype == torch.bfloat16 else x).numpy()
    return array


def _along(scales: Tensor) -> tuple[Array, int | None]:
    """Scales of every element as the numbers along the axis in which they differ."""
    for axis in range(scales.ndim):
        if not bool((scales == scales.narrow(axis, 0, 1)).all()):
            return as_array(scales[tuple(slice(None) if at == axis else 0 for at in range(scales.ndim))]), axis
    return as_array(scales.flatten()[0]), None
