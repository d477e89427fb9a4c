"""Weights as conductances: which devices hold a matrix, what was programmed, and what they are at some time."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.execute.analog.settings import AnalogSettings
from hwsim.numerics.rounding import Reals

Array = npt.NDArray[Any]
Seed = tuple[int, ...]
INT16_MAX = 32767


def generator(seed: Seed, name: str, *part: int) -> np.random.Generator:
    """The generator of one thing of a chip, such as the devices of a tile: the same for the same words."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence((*seed, zlib.crc32(name.encode()), *part))))


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """A matrix at one time: `weights` (K, N), in units of g_max / `step`, and the `variance` of one MVM's reading.

    `variance`: (groups, N), means over groups of rows, or (0, 0) where readings do not differ.
    """

    weights: Array
    step: float
    variance: Array


class Devices:
    """The devices of a matrix (K, N): `planes` pairs of conductances for each weight, programmed once.

    w = scale (mean of the devices for plus - mean of those for minus) / g_max; a positive weight has its magnitude on
    the plus side and targets of 0 on the minus side. `scale` (tiles, N): the greatest |w| of a column of a tile, or of
    the matrix. Draws belong to tile and plane, so the same `seed` and `name` is the same chip.
    """

    def __init__(self, name: str, weights: Reals, settings: AnalogSettings, seed: Seed) -> None:
        if weights.ndim != 2 or not weights.size or not np.isfinite(weights).all():
            raise HwsimError(f"{name}: weights must be a matrix (K, N) of finite values, got shape {weights.shape}")
        settings.check_fits(name, len(weights))
        self.name, self.settings, self.seed = name, settings, seed
        self.shape = weights.shape
        self.scale = self._scales(weights)
        sides = (2, settings.planes, *self.shape)
        real = "float64" if settings.precision == "float64" else "float32"
        self.programmed, self.exponents = np.empty(sides, real), np.empty(sides, real)
        for tile, rows in enumerate(self.tiles()):
            unit = weights[rows] / self.scale[tile]
            for side, sign in enumerate((1.0, -1.0)):
                target = (np.clip(sign * unit, 0.0, 1.0) * settings.device.g_max_us).astype(real)
                for plane in range(settings.planes):
                    self._program(target, (side, plane, rows), generator(seed, f"devices {name}", tile, side, plane))

    def _program(self, target: Array, at: tuple[int, int, slice], rng: np.random.Generator) -> None:
        model, settings = self.settings.device, self.settings
        conductances, exponents = model.program(target, rng)
        if settings.stuck_at_zero or settings.stuck_at_max:
            drawn = rng.random(target.shape, np.float32)
            zero, full = drawn < settings.stuck_at_zero, drawn >= 1 - settings.stuck_at_max
            conductances[zero], conductances[full] = 0.0, model.g_max_us
            exponents[zero | full] = 0.0
        self.programmed[at], self.exponents[at] = conductances, exponents

    def tiles(self) -> Iterator[slice]:
        """The rows of each tile of a column of tiles."""
        depth, step = self.shape[0], self.settings.rows
        yield from (slice(at, min(at + step, depth)) for at in range(0, depth, step))

    @property
    def tile_count(self) -> tuple[int, int]:
        """Tiles along K and along N."""
        return -(-self.shape[0] // self.settings.rows), -(-self.shape[1] // self.settings.columns)

    def _scales(self, weights: Reals) -> Reals:
        if self.settings.scaling == "layer":
            found = np.full((self.tile_count[0], weights.shape[1]), np.abs(weights).max())
        else:
            found = np.array([np.abs(weights[rows]).max(axis=0) for rows in self.tiles()])
        return np.where(found > 0, found, 1.0)

    def reading(self, t_s: float) -> Reading:
        """The matrix at a time since programming; a reading of the same time is the same. Raises HwsimError for t < 0.

        Noise that is frozen is part of the weights; noise that each MVM draws is the variance.
        """
        settings, model = self.settings, self.settings.device
        by_mvm = settings.read_noise == "mvm" and model.read_scale > 0
        real = self.programmed.dtype
        weights = np.zeros(self.shape, real)
        groups = -(-settings.rows // settings.variance_group)
        variance = np.zeros((groups * self.tile_count[0], self.shape[1]) if by_mvm else (0, 0), real)
        share = 1 / (settings.planes * model.g_max_us)
        for tile, rows in enumerate(self.tiles()):
            for side, plane in np.ndindex(2, settings.planes):
                programmed = self.programmed[side, plane, rows]
                now = model.drifted(programmed, self.exponents[side, plane, rows], t_s)
                if settings.read_noise != "off" and model.read_scale > 0:
                    sigma = model.read_sigma_us(programmed, now, t_s)
                    if by_mvm:
                        square = _group_means(np.square(sigma * share), settings.variance_group)
                        variance[tile * groups : tile * groups + len(square)] += square
                    else:
                        now = self._frozen(now, sigma, t_s, (tile, side, plane))
                now *= share if side == 0 else -share
                weights[rows] += now
        if settings.precision != "int16":
            return Reading(weights, 1.0, variance)
        step = float(np.abs(weights).max()) / INT16_MAX or 1.0
        return Reading(np.rint(weights / step).astype(np.int16), step, variance)

    def _frozen(self, now: Array, sigma: Array, t_s: float, part: tuple[int, ...]) -> Array:
        """Conductances with the noise that a reading at this time has, not below 0."""
        rng = generator(self.seed, f"read {self.name}", *part, int(np.float64(t_s).view(np.uint64)))
        sigma *= rng.standard_normal(now.shape, now.dtype)
        sigma += now
        return np.maximum(sigma, 0, out=sigma)


def _group_means(values: Array, group: int) -> Array:
    """Means over each `group` of rows, (ceil(K / group), N); the last group may be smaller."""
    if group == 1:
        return values
    starts = np.arange(0, len(values), group)
    sizes = np.diff(np.append(starts, len(values)))
    means: Array = np.add.reduceat(values, starts, axis=0) / sizes[:, None].astype(values.dtype)
    return means
