"""A trace that is being built from a module, with what its tensors hold."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor

from hwsim.errors import HwsimError
from hwsim.execute.projection import AnyGrid
from hwsim.numerics.codebook import Codebook
from hwsim.numerics.dynamic import DynamicGrid
from hwsim.numerics.quantizers import Quantizer
from hwsim.trace import Role, TraceBuilder
from hwsim.train.modules import Grid
from hwsim.train.quantizers import DynamicQuantizer, FakeQuantizer, precision_of
from hwsim.train.weights import WeightGrid, weight_codes


@dataclass(slots=True)
class Draft:
    """The builder, the codes and grids by tensor name, and what the module before has written.

    `x`: the tensors that the next module reads side by side, `frames` rows of `width` channels in all.
    """

    builder: TraceBuilder
    frames: int
    codes: dict[str, Any] = field(default_factory=dict)
    quantizers: dict[str, AnyGrid] = field(default_factory=dict)
    x: list[int] = field(default_factory=list)
    width: int = 0
    gate_order: str = ""
    encodings: dict[tuple[int, int], int] = field(default_factory=dict)
    """Tensors of position encodings by their width and number of frames."""

    def weight(self, name: str, value: Tensor, grid: WeightGrid | None, shape: tuple[int, ...] | None = None) -> None:
        """Codes of a weight (K, N) with its grid, or its reals, in the `shape` of its tensor."""
        if grid is not None and not isinstance(grid, FakeQuantizer):
            codes, found = weight_codes(value, grid)
            self.codes[name] = codes.reshape(shape or codes.shape)
            if found is not None:
                self.quantizers[name] = found
            return
        reals = value.detach().cpu().double().numpy()
        if grid is None:
            self.codes[name] = reals.reshape(shape or reals.shape)
            return
        quantizer = replace(grid.quantizer(value), precision=precision_of(value))
        codes = quantizer.quantize(reals).reshape(shape or reals.shape)
        self.codes[name] = codes.astype(np.int8) if quantizer.bits <= 8 else codes
        self.quantizers[name] = quantizer

    def reals(self, name: str, value: Tensor) -> None:
        """A bias, or another vector that is used as it is."""
        self.codes[name] = value.detach().cpu().double().numpy()

    def activation(self, name: str, grid: Grid | AnyGrid | None) -> None:
        """The grid of an activation, if it has one."""
        if grid is not None:
            self.quantizers[name] = grid if isinstance(grid, Quantizer | Codebook | DynamicGrid) else _grid(grid)

    def product_input(self, weight: str, grid: Grid | None) -> None:
        """The grid on which a product takes x, where that is not the one x is stored on."""
        if isinstance(grid, DynamicQuantizer) and weight not in self.quantizers:
            raise HwsimError(f"{weight}: must be on a grid where its input finds one at run time, got reals")
        if grid is not None and weight in self.quantizers:
            self.quantizers[weight + ".input"] = _grid(grid)

    def start(self, name: str, layer: str, width: int, grid: Grid | None) -> None:
        """Declare the network's input `<name>.input.features` for its first module."""
        if self.x:
            return
        title = f"{name}.input.features"
        self.x, self.width = [self.builder.tensor(title, Role.ACTIVATION, (self.frames, width), layer)], width
        self.activation(title, grid)

    def expect(self, name: str, width: int) -> None:
        """Raises HwsimError unless x has as many channels as the module `name` reads."""
        if self.width != width:
            raise HwsimError(f"{name}: must read {width} channels, got {self.width} of the module before")

    def single(self, name: str, width: int, grid: Grid | None) -> int:
        """The one tensor that a module reads as it is stored; the network's input, when the module is the first.

        Raises HwsimError for several, for a grid of its own on an input that another module has written, and for
        another width.
        """
        if self.x and grid is not None:
            raise HwsimError(f"{name}: input must be none but in the first module, whose input has no grid yet")
        self.start(name, name, width, grid)
        if len(self.x) > 1:
            raise HwsimError(f"{name}: its input must be one tensor, got {len(self.x)}, as from both directions of a "
                             "recurrent layer: put a QuantLinear between")  # fmt: skip
        self.expect(name, width)
        return self.x[0]


def _grid(grid: Grid) -> Quantizer | DynamicGrid:
    """What an executable is given for the grid of an activation."""
    return grid.found if isinstance(grid, DynamicQuantizer) else grid.quantizer()
