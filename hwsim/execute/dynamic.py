"""Codes whose scales were found at run time, as one stored value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.numerics.dynamic import DynamicGrid
from hwsim.numerics.rounding import Reals

Array = npt.NDArray[Any]
SCALE = ".scale"
"""After the name of a tensor on a grid of run time: its scales."""


@dataclass(frozen=True, slots=True, eq=False)
class DynamicCodes:
    """`codes` int8 (..., D) and `scales` float64, (..., 1) of rows or (1, ..., 1) of all: value = code scale."""

    codes: Array
    scales: Reals

    @classmethod
    def of(cls, grid: DynamicGrid, x: Reals) -> DynamicCodes:
        """Reals (..., D) on the grid that they find."""
        return cls(*grid.quantize(x))

    def values(self) -> Reals:
        """The reals, float64."""
        reals: Reals = self.codes * self.scales
        return reals

    def first(self, rows: int) -> DynamicCodes:
        """The first rows."""
        shared = self.scales.shape[0] < self.codes.shape[0]
        return DynamicCodes(self.codes[:rows], self.scales if shared else self.scales[:rows])


def plain(name: str, value: Any) -> dict[str, Array]:
    """A stored value as arrays by name: codes with their scales as `<name>.scale`, others as they are."""
    return {name: value.codes, name + SCALE: value.scales} if isinstance(value, DynamicCodes) else {name: value}


def reals_of(array: Array, scales: Array) -> Reals:
    """The reals of codes and scales as `plain` gives them."""
    return np.asarray(array, np.float64) * scales
