"""What a study of drift is asked: recognizers on analog chips, the times at which they are read, and the speech."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

from hwsim.errors import HwsimError
from hwsim.execute.analog import AnalogSettings, analog_settings
from hwsim.execute.analog.times import check_time

TRAININGS = {"fp16": "float", "analog": "noise-aware"}
"""How recognizers of a precision were trained, where their name does not say it."""


@dataclass(frozen=True, order=True)
class Condition:
    """One recognizer on one chip at one time; or, without a chip, in digital."""

    precision: str
    chip: int | None = None
    """From 0; its seed is that of the request and this number."""
    t_s: float = 0.0
    """Since programming."""
    compensated: bool = False
    """Whether outputs of each layer are scaled by what calibration inputs give now (global drift compensation)."""

    @property
    def training(self) -> str:
        """How the recognizer was trained."""
        return TRAININGS.get(self.precision, self.precision)


@dataclass(frozen=True)
class DriftRequest:
    """Recognizers of one workload in digital and on chips.

    Raises HwsimError for an empty list, a value given twice, a time that is not above 0, and an unknown noise model.
    """

    workload: str
    arch: str
    """Machine of the chips, of which the energy is that of each decode."""
    digital_arch: str
    """Machine of the digital recognizers."""
    analog: tuple[str, ...]
    """Precisions of the recognizers that are programmed."""
    digital: str
    """Precision of the recognizer that they are compared with."""
    chips: int
    times_s: tuple[float, ...]
    utterances: int
    """The first so many of the split."""
    data: Path
    """Folder of the speech set."""
    recognizers: Path
    """Folder of `<precision>.recognizer` files."""
    split: str = "test_mild"
    noise: str = "rasch2023"
    """Name of the analog settings."""
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("analog", "times_s"):
            values = getattr(self, name)
            if not values:
                raise HwsimError(f"{name} must hold at least one value, got none")
            twice = next((value for at, value in enumerate(values) if value in values[:at]), None)
            if twice is not None:
                raise HwsimError(f"{name} must hold each value once, got {twice} twice")
        for t_s in map(check_time, self.times_s):
            if not t_s:
                raise HwsimError("times_s must be above 0 seconds since programming, got 0")
        for name in ("chips", "utterances"):
            if getattr(self, name) < 1:
                raise HwsimError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise HwsimError(f"seed must be 0 or more, got {self.seed}")
        self.settings(True)

    def settings(self, compensated: bool) -> AnalogSettings:
        """The chips, with or without drift compensation."""
        return analog_settings(self.noise, drift_compensation=compensated)

    @property
    def precisions(self) -> tuple[str, ...]:
        """Of all recognizers, each once."""
        return tuple(dict.fromkeys((*self.analog, self.digital)))

    @property
    def conditions(self) -> list[Condition]:
        """All recognizers in digital, then each chip at each time with and without compensation."""
        grid = product(self.analog, range(self.chips), (True, False), self.times_s)
        chips = [Condition(precision, chip, t_s, compensated) for precision, chip, compensated, t_s in grid]
        return [*map(Condition, self.precisions), *chips]

    def digest(self, hashes: dict[str, str]) -> str:
        """SHA-256 over what decides a row: not over which rows were asked for."""
        own = {"workload": self.workload, "split": self.split, "arch": self.arch, "digital_arch": self.digital_arch,
               "seed": self.seed, "noise": self.settings(True).to_dict()}  # fmt: skip
        return hashlib.sha256(json.dumps([own, hashes], sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, object]:
        """JSON values."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}
