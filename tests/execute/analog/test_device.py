"""Statistics of devices against the closed forms of `devices`: z-tests, each at a level of 1e-6 (|z| < 4.9)."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hwsim.errors import HwsimError
from hwsim.execute.analog import PcmModel
from tests.execute.analog.devices import TIMES_S, conductance_moments, exponent_law, programmed_moments, read_sigma

TARGETS_US = (0.0, 0.5, 2.0, 6.0, 12.5, 20.0, 25.0)
DEVICES = 60_000
LEVEL_Z = 4.9
"""Two-sided 1e-6. With the some 100 comparisons of this file, one of 10,000 seeds would fail by chance."""


def programmed(target: float, seed: int = 0, model: PcmModel | None = None) -> tuple[np.ndarray, np.ndarray]:
    return (model or PcmModel()).program(np.full(DEVICES, target, np.float32), np.random.default_rng(seed))


def z_of_mean(values: np.ndarray, mean: float, variance: float) -> float:
    return (values.mean() - mean) / math.sqrt(variance / values.size)


def z_of_variance(values: np.ndarray, mean: float, variance: float) -> float:
    """Of the mean of (x - mean)^2, with the deviation that those squares have in the sample."""
    squares = (values - mean) ** 2
    return (squares.mean() - variance) / (squares.std() / math.sqrt(values.size))


@pytest.mark.parametrize("target", TARGETS_US)
def test_programmed_conductances(target: float) -> None:
    g = programmed(target, seed=1)[0].astype(np.float64)
    mean, square = programmed_moments(target)
    variance = square - mean**2
    assert abs(z_of_mean(g, mean, variance)) < LEVEL_Z
    assert abs(z_of_variance(g, mean, variance)) < LEVEL_Z
    assert g.min() >= 0


@pytest.mark.parametrize("t_s", TIMES_S.values(), ids=TIMES_S)
@pytest.mark.parametrize("target", TARGETS_US)
def test_conductances_over_time(target: float, t_s: float) -> None:
    """The same devices at every time."""
    model = PcmModel()
    g = model.drifted(*programmed(target, seed=2), t_s).astype(np.float64)
    mean, variance = conductance_moments(target, t_s)
    assert abs(z_of_mean(g, mean, variance)) < LEVEL_Z
    assert abs(z_of_variance(g, mean, variance)) < LEVEL_Z


def test_the_closed_form_tells_other_laws_apart() -> None:
    """Noise in relative units, or exponents without their spread, are found out at once."""
    g = PcmModel(programming_scale=1 / 25).drifted(*programmed(25.0, 2, PcmModel(programming_scale=1 / 25)), 3600.0)
    assert abs(z_of_variance(g.astype(np.float64), *conductance_moments(25.0, 3600.0))) > 100
    flat = PcmModel(drift_spread=(0.0, 0.0, 0.0, 0.0))
    g = flat.drifted(*programmed(2.0, 2, flat), 86400.0)
    assert abs(z_of_variance(g.astype(np.float64), *conductance_moments(2.0, 86400.0))) > LEVEL_Z


@pytest.mark.parametrize("target", TARGETS_US)
def test_exponents(target: float) -> None:
    """The folded normal distribution."""
    nu = programmed(target, seed=3)[1].astype(np.float64)
    mu, s = exponent_law(target)
    mean = s * math.sqrt(2 / math.pi) * math.exp(-mu * mu / (2 * s * s)) + mu * math.erf(mu / s / math.sqrt(2))
    variance = mu * mu + s * s - mean * mean
    assert nu.min() >= 0
    assert abs(z_of_mean(nu, mean, variance)) < LEVEL_Z
    assert abs(z_of_variance(nu, mean, variance)) < LEVEL_Z


@pytest.mark.parametrize("t_s", TIMES_S.values(), ids=TIMES_S)
def test_the_deviation_of_a_reading(t_s: float) -> None:
    model = PcmModel()
    g0, nu = model.program(np.array([0.0, 1e-4, 0.3, 4.0, 11.0, 25.0]), np.random.default_rng(4))
    now = model.drifted(g0, nu, t_s)
    found = model.read_sigma_us(g0, now, t_s)
    wanted = [read_sigma(float(a), float(b), t_s) for a, b in zip(g0, now, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_figures_by_hand() -> None:
    """25 uS are programmed within 1.05 uS, so the polynomial is in uS; nothing within 0.26 uS of 0."""
    sigma = PcmModel().programming_sigma_us(np.array([0.0, 12.5, 25.0]))
    np.testing.assert_allclose(sigma, [0.26348, 0.952705, 1.05538], rtol=1e-12)
    sigma = PcmModel(g_max_us=50.0).programming_sigma_us(np.array([50.0]))
    np.testing.assert_allclose(sigma, [2 * 1.05538], rtol=1e-12)
    ideal = PcmModel(programming_scale=0, drift_scale=0)
    target = np.linspace(0, 25, 9)
    g, nu = ideal.program(target, np.random.default_rng(0))
    assert np.array_equal(ideal.drifted(g, nu, 1e9), target)


def test_a_device_stays_itself() -> None:
    model = PcmModel()
    g, nu = programmed(10.0, 5)
    again, exponents = programmed(10.0, 5)
    assert np.array_equal(g, again)
    assert np.array_equal(nu, exponents)
    assert np.array_equal(model.drifted(g, nu, 0.0), g)
    hour, day = (model.drifted(g, nu, t) for t in (3600.0, 86400.0))
    ratio = math.log((86400 + 20) / 20) / math.log((3600 + 20) / 20)
    np.testing.assert_allclose(np.log(day / g), ratio * np.log(hour / g), rtol=1e-4, atol=1e-6)
    assert not np.array_equal(g, programmed(10.0, 6)[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: programmed(-0.1), "a target conductance must be 0 to 25 uS, got -0.1"),
        (lambda: programmed(25.5), "a target conductance must be 0 to 25 uS, got 25.5"),
        (lambda: programmed(float("nan")), "a target conductance must be 0 to 25 uS, got nan"),
        (lambda: PcmModel().drifted(*programmed(1.0), -1.0), "t_s must be 0 or more seconds since programming, got -1"),
        (lambda: PcmModel(g_max_us=0), "g_max_us must be above 0, got 0"),
        (lambda: PcmModel(read_scale=-1), "read_scale must be 0 or more, got -1"),
    ],
)  # fmt: skip
def test_refusals(call: object, message: str) -> None:
    with pytest.raises(HwsimError) as error:
        call()  # type: ignore[operator]
    assert str(error.value) == message
