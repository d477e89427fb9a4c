"""What a chip measures of itself, and what is measured of a network: affine columns, drift, input ranges."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.execute.analog.weights import generator
from hwsim.execute.executor import Executable
from hwsim.execute.operations.base import Operation
from hwsim.execute.operations.recurrent import Recurrence
from hwsim.execute.projection import AnyProjection, RealProjection, Sums
from hwsim.numerics.rounding import Reals

if TYPE_CHECKING:
    from hwsim.execute.analog.tile import Tiles

Array = npt.NDArray[Any]
VECTORS = 128
"""Calibration inputs, uniform in -1 to 1."""


def column_affine(tiles: Tiles) -> tuple[Reals, Reals]:
    """Slopes and offsets (tiles, N) that take what each column's converter gives to what the weights should give.

    A line is fitted to readings of known inputs, adc = a y + b by least squares; slope 1 / a, offset -b / a. A column
    of zeros keeps slope 1. The noise of the readings is part of the fit, as on a chip.
    """
    from hwsim.execute.analog.kernels import mvm

    slopes, offsets = np.ones(tiles.slope.shape), np.zeros(tiles.slope.shape)
    x = _vectors(tiles)
    one, zero = np.ones((1, tiles.outputs)), np.zeros((1, tiles.outputs))
    for at, rows in enumerate(tiles.devices.tiles()):
        part = np.ascontiguousarray(x[:, rows])
        wanted = tiles.settings.dac.convert(part) @ (tiles.target[rows] / tiles.devices.scale[at])
        found = np.empty(wanted.shape)
        spread = tiles.variance_of(at)
        noise = np.ascontiguousarray(tiles.draw(len(x))[:, :1])
        mvm(part, 1.0, tiles.weights[rows], spread, one, zero, tiles.size[at : at + 1], noise, *tiles.split,
             tiles.rules, found)  # fmt: skip
        centred = wanted - wanted.mean(axis=0)
        power = np.square(centred).sum(axis=0)
        gain = np.where(power > 0, (centred * found).sum(axis=0) / np.where(power > 0, power, 1.0), 1.0)
        gain = np.where(gain > 0, gain, 1.0)
        slopes[at] = 1 / gain
        offsets[at] = wanted.mean(axis=0) - found.mean(axis=0) / gain
    return slopes, offsets


def mean_output(tiles: Tiles) -> float:
    """Mean |y| of the layer for its calibration inputs, without bias."""
    x = _vectors(tiles)
    out = np.empty((len(x), tiles.outputs))
    tiles.multiply(x, 1.0, tiles.draw(len(x)), out)
    return float(np.abs(out).mean())


def drift_factor(tiles: Tiles, reference: float) -> float:
    """By what the layer's outputs are multiplied so that calibration inputs give the `reference`; 1 of no output."""
    now = mean_output(tiles)
    return reference / now if now > 0 else 1.0


def _vectors(tiles: Tiles) -> Reals:
    return generator(tiles.seed, f"inputs {tiles.name}").uniform(-1.0, 1.0, (VECTORS, tiles.target.shape[0]))


class RangeRecorder:
    """An executable that runs in float64 and keeps the magnitudes of what its products take, to find their ranges."""

    def __init__(self, executable: Executable) -> None:
        self._products = {name: _Recorder(real_weights(executable, name, found))
                          for name, found in executable.projections.items()}  # fmt: skip
        self.executable = copy.copy(executable)
        self.executable.operations = with_projections(executable.operations, self._products)

    def ranges(self, percentile: float = 100.0) -> dict[str, float]:
        """alpha of each product by the name of its weight: a percentile of |x| over all that it took so far.

        Products that took nothing, or zeros alone, get 1. Raises HwsimError for a percentile outside 0 to 100.
        """
        if not 0 < percentile <= 100:
            raise HwsimError(f"percentile must be above 0 and at most 100, got {percentile:g}")
        return {name: found.percentile(percentile) for name, found in self._products.items()}


def input_ranges(executable: Executable, inputs: Mapping[str, Array], percentile: float = 100.0) -> dict[str, float]:
    """The ranges of a `RangeRecorder` after one run of `inputs`. Raises HwsimError as `ranges` and `run`."""
    recorder = RangeRecorder(executable)
    recorder.executable.run(inputs)
    return recorder.ranges(percentile)


class _Recorder:
    """A product in float64 that keeps the magnitudes of its inputs."""

    def __init__(self, real: RealProjection) -> None:
        self.real, self.bias, self.outputs = real, real.bias, real.outputs
        self.seen: list[Reals] = []

    def __call__(self, x: Reals) -> Reals:
        self.seen.append(np.abs(x).astype(np.float32).reshape(-1))
        return self.real(x)

    def sums(self, values: Reals) -> Sums:
        self.seen.append(np.abs(values).astype(np.float32).reshape(-1))
        return self.real.sums(values)

    def codes_of_weight(self) -> Array:
        return self.real.weight

    def percentile(self, percentile: float) -> float:
        return float(np.percentile(np.concatenate(self.seen), percentile)) or 1.0 if self.seen else 1.0


def real_weights(executable: Executable, name: str, projection: AnyProjection) -> RealProjection:
    """The float64 weights (K, N) and the bias of a product, dequantized when they are codes."""
    codes = projection.codes_of_weight()
    weights = executable.network.reals(name, codes)
    return RealProjection(weights.reshape(codes.shape), np.asarray(projection.bias, np.float64))


def with_projections(operations: list[Operation], projections: Mapping[str, Any]) -> list[Operation]:
    """Operations whose products are those of `projections`, by the name of the weight; the others as they are."""
    from hwsim.execute.analog.recurrence import AnalogRecurrence

    found = []
    for operation in operations:
        names = [name for name in operation.projections() if name in projections]
        changed = operation
        if names and isinstance(operation, Recurrence):
            changed = AnalogRecurrence(operation, projections)
        elif names:
            changed = copy.copy(operation)
            changed.projection = projections[names[0]]  # type: ignore[attr-defined]
        found.append(changed)
    return found
