"""Phase-change memory (PCM) devices: programming noise, drift and read noise of a conductance."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.execute.analog.times import check_time

Conductances = npt.NDArray[np.floating[Any]]
LEAST_RELATIVE = 1e-7
REFERENCE_US = 25.0
"""The g_max of the published polynomial."""


@dataclass(frozen=True, slots=True)
class PcmModel:
    """Statistics of a device that is programmed once and read at any time t after that. Conductances in uS.

    With r = g / g_max of the target, N a standard normal number of the device:

    - programmed: g + s (c0 + c1 r + c2 r^2) N, not below 0; the polynomial is in uS
    - drift: g(t) = g ((t + t0) / t0)^-nu, nu = |mu + s N|, mu and s clipped logarithms of r
    - read: sigma = g(t) min(a / max(r_p^b, 1e-3), q) sqrt(ln((t + t0 + t_read) / (2 t_read))), r_p = g / g_max as
      programmed

    Source: Nandakumar et al., ICECS 2019, for g_max = 25 uS; another g_max scales the programming noise with it.
    The scales multiply a part of the model: 1 as published, 0 without it. Not modelled: temperature, polarity, random
    telegraph noise as such, the iterations of programming, and any correlation between devices.
    """

    g_max_us: float = 25.0
    programming_us: tuple[float, float, float] = (0.26348, 1.9650, -1.1731)
    drift_mean: tuple[float, float, float, float] = (-0.0155, 0.0244, 0.049, 0.1)
    """Slope over ln r, offset, least and greatest value; the same of the spread."""
    drift_spread: tuple[float, float, float, float] = (-0.0125, -0.0059, 0.008, 0.045)
    t0_s: float = 20.0
    read: tuple[float, float, float] = (0.0088, 0.65, 0.2)
    """a, b and q."""
    t_read_s: float = 250e-9
    programming_scale: float = 1.0
    drift_scale: float = 1.0
    read_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("g_max_us", "t0_s", "t_read_s"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise HwsimError(f"{name} must be above 0, got {getattr(self, name):g}")
        for name in (each.name for each in fields(self) if each.name.endswith("_scale")):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise HwsimError(f"{name} must be 0 or more, got {getattr(self, name):g}")

    def programming_sigma_us(self, target_us: Conductances) -> Conductances:
        """Standard deviation of the programmed conductance before it is clipped at 0, for targets of any shape."""
        c0, c1, c2 = (c * self.programming_scale * self.g_max_us / REFERENCE_US for c in self.programming_us)
        r = target_us / self.g_max_us
        sigma: Conductances = c0 + r * (c1 + r * c2)
        return sigma

    def program(self, target_us: npt.ArrayLike, rng: np.random.Generator) -> tuple[Conductances, Conductances]:
        """Programmed conductances and drift exponents nu of targets of any shape and type: two draws for each device.

        Raises HwsimError for a target outside 0 to g_max.
        """
        target = np.asarray(target_us)
        target = target if target.dtype == np.float32 else target.astype(np.float64)
        wrong = ~((target >= 0) & (target <= self.g_max_us))
        if wrong.any():
            raise HwsimError(f"a target conductance must be 0 to {self.g_max_us:g} uS, got {target[wrong][0]:g}")
        noise = rng.standard_normal(target.shape, target.dtype)
        noise *= self.programming_sigma_us(target)
        noise += target
        np.maximum(noise, 0, out=noise)
        return noise, self._exponents(target, rng)

    def _exponents(self, target: Conductances, rng: np.random.Generator) -> Conductances:
        logs = np.log(np.maximum(target / self.g_max_us, LEAST_RELATIVE))
        mean, spread = (
            np.clip(slope * logs + offset, low, high)
            for slope, offset, low, high in (self.drift_mean, self.drift_spread)
        )
        spread *= rng.standard_normal(target.shape, target.dtype)
        spread += mean
        exponents: Conductances = np.abs(spread, out=spread)
        exponents *= self.drift_scale
        return exponents

    def drifted(self, programmed_us: Conductances, exponents: Conductances, t_s: float) -> Conductances:
        """Conductances at a time since programming. Raises HwsimError for a negative time."""
        age = -math.log((check_time(t_s) + self.t0_s) / self.t0_s)
        factor: Conductances = np.multiply(exponents, age)
        np.exp(factor, out=factor)
        factor *= programmed_us
        return factor

    def read_sigma_us(self, programmed_us: Conductances, now_us: Conductances, t_s: float) -> Conductances:
        """Standard deviation of a reading of the conductances `now_us`. Raises HwsimError for a negative time."""
        a, b, most = self.read
        noise = math.sqrt(math.log((check_time(t_s) + self.t0_s + self.t_read_s) / (2 * self.t_read_s)))
        relative: Conductances = programmed_us / self.g_max_us
        np.power(relative, b, out=relative)
        np.maximum(relative, 1e-3, out=relative)
        np.divide(a, relative, out=relative)
        np.minimum(relative, most, out=relative)
        relative *= now_us
        relative *= noise * self.read_scale
        return relative
