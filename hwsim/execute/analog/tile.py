"""The weights of one product on analog tiles at one time: what stands in the place of packed weights."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.execute.analog.settings import AnalogSettings
from hwsim.execute.analog.weights import Devices, Seed, generator
from hwsim.execute.projection import Sums
from hwsim.numerics.rounding import Reals

Array = npt.NDArray[Any]
ROWS = 32
"""Rows of inputs at once: their sums and noise stay small."""


class Tiles:
    """A matrix (K, N) on ceil(K / rows) x ceil(N / columns) tiles, read at `t_s` seconds since programming.

    `sums` of reals (M, K) are float64 reals (1, M, N): bias (N,) added digitally. `input_range`: alpha of all inputs,
    or 0, where each row's greatest |x| is its own. Noise of MVMs comes in the order of rows from a generator of its
    own, so that an utterance in pieces draws what the whole draws; `restart` begins it anew.
    Raises HwsimError for a negative time or range, and for a matrix that fits no tile.
    """

    def __init__(self, name: str, weights: Reals, bias: Reals, settings: AnalogSettings, seed: Seed, t_s: float = 0.0,
                 input_range: float = 0.0) -> None:  # fmt: skip
        if not (np.isfinite(input_range) and input_range >= 0):
            raise HwsimError(f"{name}: an input range must be above 0, or 0 for that of each input, got "
                             f"{input_range:g}")  # fmt: skip
        self.name, self.bias, self.settings, self.seed = name, bias, settings, seed
        self.input_range = input_range
        self.devices = Devices(name, weights, settings, seed)
        self.target = weights.astype(self.devices.programmed.dtype, copy=False)
        self._affine: tuple[Reals, Reals] | None = None
        self._reference: float | None = None
        self._calibrate()
        self._read_at(t_s)

    def at(self, t_s: float) -> Tiles:
        """The same devices at another time; noise begins anew."""
        found = copy.copy(self)
        found._read_at(t_s)
        return found

    def restart(self, number: int = 0) -> None:
        """Begin the noise of MVMs anew, as sequence `number`."""
        self._key = int(generator(self.seed, f"mvm {self.name}", number).integers(1 << 63))
        self._drawn = 0

    @property
    def outputs(self) -> int:
        """N."""
        return int(self.target.shape[1])

    def codes_of_weight(self) -> Array:
        """The weights (K, N) that were to be programmed, reals."""
        return self.target

    def __call__(self, x: Reals) -> Reals:
        """Reals (..., N) of reals (..., K)."""
        values = self._products(x.reshape(-1, x.shape[-1])) + self.bias
        return values.reshape(*x.shape[:-1], self.outputs)

    def sums(self, values: Array) -> Sums:
        """The products (1, M, N) of reals (M, K), with a scale of one."""
        products = self._products(np.asarray(values, np.float64))
        return Sums(products[None], np.ones((1, self.outputs)), self.bias)

    @property
    def noisy(self) -> bool:
        """Whether MVMs draw noise."""
        return bool(self.variance.size or self.settings.output_noise or self.settings.weight_noise)

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What `kernels.mvm` takes after the range and before the noise."""
        return self.weights, self.variance, self.slope, self.offset, self.size

    @property
    def rules(self) -> tuple[float, ...]:
        """What `kernels.mvm` takes as rules."""
        s = self.settings
        return (float(s.dac.levels), float(s.adc.levels), s.adc.bound, s.output_noise**2, s.weight_noise**2,
                s.ir_drop / s.wire_ratio, self.step)  # fmt: skip

    @property
    def split(self) -> tuple[int, int]:
        """What `kernels.mvm` takes after the noise: rows of a tile, and of a group of variances."""
        return self.settings.rows, self.settings.variance_group

    def draw(self, rows: int) -> Array:
        """Standard normal numbers of the next so many MVMs (rows, tiles, N), or none at all."""
        from hwsim.execute.analog.normals import normal_rows

        tiles, columns = self.slope.shape
        if not self.noisy:
            return np.empty((0, 0, 0), self.variance.dtype)
        out = np.empty((rows, tiles * columns), self.variance.dtype)
        normal_rows(self._key, self._drawn, out)
        self._drawn += rows
        return out.reshape(rows, tiles, columns)

    def _products(self, x: Reals) -> Reals:
        if self.settings.exact_redraw:
            return self._redrawn(x)
        out = np.empty((len(x), self.outputs))
        for at in range(0, len(x), ROWS):
            part = np.ascontiguousarray(x[at : at + ROWS], np.float64)
            self.multiply(part, self.input_range, self.draw(len(part)), out[at : at + ROWS])
        return out

    def multiply(self, x: Reals, input_range: float, noise: Array, out: Reals) -> None:
        """out (M, N) = the products of x (M, K), both float64, without bias, see `kernels.mvm`."""
        from hwsim.execute.analog.kernels import mvm

        mvm(x, input_range, *self.arguments, noise, *self.split, self.rules, out)

    def _redrawn(self, x: Reals) -> Reals:
        """The same with noise drawn for each weight and MVM: one row at a time on weights that are disturbed."""
        from hwsim.execute.analog.kernels import mvm

        settings, out = self.settings, np.empty((len(x), self.outputs))
        real = self.variance.dtype
        rules, weights = (*self.rules[:4], 0.0, self.rules[5], 1.0), (self.weights * self.step).astype(real)
        sigma = np.sqrt(self._variance_of_each() + real.type(settings.weight_noise) ** 2)
        for at in range(len(x)):
            rng = generator(self.seed, f"each {self.name}", self._key, self._drawn)
            noise = self.draw(1)
            disturbed = weights + rng.standard_normal(weights.shape, real) * sigma
            mvm(np.ascontiguousarray(x[at : at + 1], np.float64), self.input_range, disturbed, np.empty((0, 0), real),
                 self.slope, self.offset, self.size, noise, *self.split, rules, out[at : at + 1])  # fmt: skip
        return out

    def variance_of(self, tile: int) -> Array:
        """Variances of the readings of one tile, (groups, N), or (0, 0)."""
        by_tile = -(-self.settings.rows // self.settings.variance_group)
        return self.variance[tile * by_tile : (tile + 1) * by_tile]

    def _variance_of_each(self) -> Array:
        """Variances of readings (K, N), those of a group for each of its rows; zeros where they do not differ."""
        if not self.variance.size:
            return np.zeros(self.weights.shape, self.variance.dtype)
        group = self.settings.variance_group
        parts = [np.repeat(self.variance_of(tile), group, axis=0)[: rows.stop - rows.start]
                 for tile, rows in enumerate(self.devices.tiles())]  # fmt: skip
        return np.concatenate(parts)

    def _read(self, t_s: float) -> None:
        """Take the weights of a time, with the digital scales of the columns and the calibration so far."""
        reading = self.devices.reading(t_s)
        self.t_s, self.weights, self.step, self.variance = t_s, reading.weights, reading.step, reading.variance
        self.size = self.step * np.array([np.abs(self.weights[rows]).mean(axis=0, dtype=np.float64)
                                          for rows in self.devices.tiles()])  # fmt: skip
        slope, offset = self._affine or (1.0, 0.0)
        self.slope = self.devices.scale * slope
        self.offset = np.broadcast_to(self.devices.scale * offset, self.slope.shape).copy()
        self.restart()

    def _read_at(self, t_s: float) -> None:
        from hwsim.execute.analog.calibration import drift_factor

        self._read(t_s)
        if self._reference is not None:
            factor = drift_factor(self, self._reference)
            self.slope, self.offset = self.slope * factor, self.offset * factor
            self.restart()

    def _calibrate(self) -> None:
        """What is measured right after programming, with the converters and the noise that products have."""
        from hwsim.execute.analog.calibration import column_affine, mean_output

        if self.settings.column_affine:
            self._read(0.0)
            self._affine = column_affine(self)
        if self.settings.drift_compensation:
            self._read(0.0)
            self._reference = mean_output(self)
