"""The device equations once more, written apart from hwsim: scalars, closed forms of moments, statistics of tests."""

from __future__ import annotations

import math
import random
from statistics import NormalDist

PHI = NormalDist().cdf
DENSITY = NormalDist().pdf
TIMES_S = {"1 s": 1.0, "1 h": 3600.0, "1 day": 86400.0, "30 days": 2592000.0}
T0_S = 20.0


def programmed_moments(target: float, scale: float = 1.0) -> tuple[float, float]:
    """Mean and mean square of max(target + sigma N, 0), the censored normal distribution."""
    r = target / 25
    sigma = scale * (0.26348 + 1.965 * r - 1.1731 * r * r)
    if sigma == 0:
        return target, target * target
    at = target / sigma
    mean = target * PHI(at) + sigma * DENSITY(at)
    return mean, (target * target + sigma * sigma) * PHI(at) + target * sigma * DENSITY(at)


def exponent_law(target: float) -> tuple[float, float]:
    """mu and s of nu = |mu + s N|."""
    log = math.log(max(target / 25, 1e-7))
    return min(max(0.0244 - 0.0155 * log, 0.049), 0.1), min(max(-0.0059 - 0.0125 * log, 0.008), 0.045)


def decay_moment(target: float, t_s: float, power: int) -> float:
    """E[((t + t0) / t0)^(-power nu)]: the moment generating function of a folded normal number."""
    mu, s = exponent_law(target)
    rate = power * math.log1p(t_s / T0_S)
    common = rate * rate * s * s / 2
    return math.exp(common - rate * mu) * PHI(mu / s - rate * s) + math.exp(common + rate * mu) * PHI(
        -mu / s - rate * s
    )


def conductance_moments(target: float, t_s: float) -> tuple[float, float]:
    """Mean and variance of g(t) of one device."""
    mean, square = programmed_moments(target)
    first = mean * decay_moment(target, t_s, 1)
    return first, square * decay_moment(target, t_s, 2) - first * first


def read_sigma(programmed: float, now: float, t_s: float) -> float:
    """Standard deviation of one reading of one device."""
    relative = max((programmed / 25) ** 0.65, 1e-3)
    quality = 0.0088 / relative
    if quality > 0.2:
        quality = 0.2
    return now * quality * math.sqrt(math.log((t_s + 20 + 250e-9) / 500e-9))


def simulated_reading(target: float, t_s: float, draw: random.Random) -> float:
    """One device, programmed, aged and read once, in uS."""
    r = target / 25
    programmed = max(draw.gauss(target, 0.26348 + 1.965 * r - 1.1731 * r * r), 0.0)
    nu = abs(draw.gauss(*exponent_law(target)))
    now = programmed / (1 + t_s / T0_S) ** nu
    return max(draw.gauss(now, read_sigma(programmed, now, t_s)), 0.0)
