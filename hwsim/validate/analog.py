"""How far chips of analog tiles are from the digital network, layer by layer, and how that spreads over chips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError, nearest
from hwsim.execute.analog import AnalogExecutable, AnalogSettings, Converter, analog_settings, parse_time
from hwsim.execute.analog.times import time_text
from hwsim.execute.executor import Executable
from hwsim.validate.compare import MODES, Mode

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]
DEFAULT_SET = "rasch2023"
SWITCHES = {"split": "partial_sums", "affine": "column_affine", "compensation": "drift_compensation"}
"""Keys that are on or off, and their fields."""
KEYS = ("t", "noise", "mode", "bits", "dac", "adc", "rows", "columns", "split", "drop", "affine", "compensation",
        "digital")  # fmt: skip


@dataclass(frozen=True, slots=True)
class LayerDeviation:
    """One tensor of one mode: rms(analog - digital) / rms(digital) in reals, of each chip; NaN where digital is 0."""

    tensor: str
    layer: str
    mode: str
    elements: int
    relative_rms: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over chips."""
        return float(np.mean(self.relative_rms))

    @property
    def spread(self) -> float | None:
        """Standard deviation over chips; None of one chip."""
        return float(np.std(self.relative_rms, ddof=1)) if len(self.relative_rms) > 1 else None


@dataclass(frozen=True, slots=True)
class AnalogReport:
    """Deviations of all layers over chips; nothing is judged. `tiles`: of one chip."""

    settings: AnalogSettings
    t_s: float
    seed: int
    chips: int
    tiles: int
    layers: tuple[LayerDeviation, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values; NaN is null."""
        layers = [
            {"tensor": each.tensor, "layer": each.layer, "mode": each.mode, "elements": each.elements,
             "mean": _number(each.mean), "spread": _number(each.spread),
             "relative_rms": [_number(value) for value in each.relative_rms]}
            for each in self.layers
        ]  # fmt: skip
        return {"t_s": self.t_s, "seed": self.seed, "chips": self.chips, "tiles": self.tiles,
                "settings": self.settings.to_dict(), "layers": layers}  # fmt: skip

    def to_frame(self) -> pd.DataFrame:
        """One row per layer, mode and chip."""
        import pandas as pd

        rows = [{"tensor": each.tensor, "layer": each.layer, "mode": each.mode, "chip": chip, "relative_rms": value}
                for each in self.layers for chip, value in enumerate(each.relative_rms)]  # fmt: skip
        return pd.DataFrame(rows)


def parse_analog(text: str) -> tuple[AnalogSettings, float]:
    """Settings and seconds since programming of `t=1d[,key=value ...]`.

    Keys: t; noise, a named set (rasch2023); mode; bits of both converters, or dac and adc; rows and columns of a tile;
    split, on unless a matrix deeper than a tile is to be refused; drop, the factor of IR drop; affine and
    compensation, on or off; digital, globs of layers joined by `+`.
    Raises HwsimError for anything else.
    """
    given = _pairs(text)
    if "t" not in given:
        raise HwsimError("--analog must hold t, the time since programming, such as t=1d, got none")
    t_s = parse_time(given.pop("t"))
    base = analog_settings(given.pop("noise", DEFAULT_SET))
    changes: dict[str, Any] = {}
    if "bits" in given:
        if "dac" in given or "adc" in given:
            raise HwsimError("--analog must hold bits, or dac and adc, got both")
        bits = _bits("bits", given.pop("bits"))
        changes = {name: Converter(bits, getattr(base, name).bound) for name in ("dac", "adc")}
    for key, value in given.items():
        if key in ("dac", "adc"):
            changes[key] = Converter(_bits(key, value), getattr(base, key).bound)
        elif key in ("rows", "columns"):
            changes[key] = _whole(key, value)
        elif key == "drop":
            changes["ir_drop"] = _real(key, value)
        elif key in SWITCHES:
            if value not in ("on", "off"):
                raise HwsimError(f"--analog {key} must be on or off, got '{value}'")
            changes[SWITCHES[key]] = value == "on"
        else:
            changes[key] = tuple(value.split("+")) if key == "digital" else value
    return analog_settings(base.name, **changes), t_s


def compare_analog(
    executable: Executable, inputs: Mapping[str, Array], settings: AnalogSettings, t_s: float, *, chips: int = 1,
    seed: int = 0, mode: Mode | None = None,
) -> AnalogReport:  # fmt: skip
    """Run `chips` chips, of the seeds (`seed`, 0), (`seed`, 1) ..., beside the digital network on the same inputs.

    `mode`: free-running by default; teacher-forced gives each layer and step what the digital network computed before
    it, so that deviations are its own. Raises HwsimError for no chip, an unknown mode, and as `AnalogExecutable`.
    """
    if chips < 1:
        raise HwsimError(f"chips must be at least 1, got {chips}")
    if mode not in (None, *MODES, "both"):
        raise HwsimError(f"mode must be one of {', '.join(MODES)}, both, got '{mode}'")
    modes = MODES if mode == "both" else (mode or MODES[0],)
    digital = executable.run(inputs)
    layers = {tensor.name: tensor.layer for tensor in executable.trace.tensors}
    judged = [name for name in executable.outputs if name not in executable.cells and name in layers]
    wanted = {name: executable.reals(name, digital) for name in judged}
    found: dict[tuple[str, str], list[float]] = {(each, name): [] for each in modes for name in judged}
    forced = {name: found for name, found in digital.items() if name not in executable.cells}
    tiles = 0
    for number in range(chips):
        chip = AnalogExecutable(executable, settings, (seed, number), t_s)
        tiles = chip.tile_count
        for each in modes:
            chip.restart()
            outputs = chip.run(inputs, forced=forced if each == "teacher-forced" else None)
            for name in judged:
                found[each, name].append(_relative_rms(chip.reals(name, outputs), wanted[name]))
    return AnalogReport(settings, t_s, seed, chips, tiles, tuple(
        LayerDeviation(name, layers[name], each, wanted[name].size, tuple(values))
        for (each, name), values in found.items()
    ))  # fmt: skip


def settings_text(settings: AnalogSettings, t_s: float) -> str:
    """What a chip is, in one sentence."""
    bits = ["ideal" if each.bits is None else f"{each.bits}-bit" for each in (settings.dac, settings.adc)]
    switches = [name for name, on in (("column affine calibration", settings.column_affine),
                                      ("drift compensation", settings.drift_compensation)) if on]  # fmt: skip
    return (f"{settings.name}, {time_text(t_s)} after programming: {settings.mode} weights on tiles of "
            f"{settings.rows} x {settings.columns}, {bits[0]} DAC, {bits[1]} ADC; "
            f"{' and '.join(switches) or 'no calibration'}")  # fmt: skip


def _relative_rms(got: Array, wanted: Array) -> float:
    level = float(np.sqrt(np.square(wanted).mean())) if wanted.size else 0.0
    return float(np.sqrt(np.square(got - wanted).mean())) / level if level else float("nan")


def _number(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else value


def _pairs(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not (key and equals and value):
            raise HwsimError(f"--analog must be key=value separated by commas, such as t=1d,noise=pcm, got '{text}'")
        if key not in KEYS:
            raise HwsimError(f"--analog: unknown key '{key}'{nearest(key, KEYS)}")
        if key in found:
            raise HwsimError(f"--analog {key} must be given once, got {found[key]} and {value}")
        found[key] = value
    return found


def _bits(key: str, text: str) -> int | None:
    return None if text == "none" else _whole(key, text)


def _whole(key: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise HwsimError(f"--analog {key} must be an integer, got '{text}'") from None


def _real(key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise HwsimError(f"--analog {key} must be a number, got '{text}'") from None
