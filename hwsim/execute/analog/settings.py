"""What a chip of analog tiles is: devices, mapping, converters, noises and calibrations, in named sets."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np

from hwsim.errors import HwsimError, nearest
from hwsim.execute.analog.converter import IDEAL_ADC, IDEAL_DAC, Converter
from hwsim.execute.analog.device import PcmModel

Mode = Literal["2-pcm", "4-pcm", "ab"]
MODES: tuple[str, ...] = get_args(Mode)
PLANES = {"2-pcm": 1, "4-pcm": 2, "ab": 2}
"""Devices of a weight for each sign."""
ReadNoise = Literal["mvm", "frozen", "off"]
Scaling = Literal["column", "layer"]
Precision = Literal["int16", "float32", "float64"]
CHOICES: dict[str, tuple[str, ...]] = {"mode": MODES, "read_noise": get_args(ReadNoise), "scaling": get_args(Scaling),
                                       "precision": get_args(Precision)}  # fmt: skip


@dataclass(frozen=True, slots=True)
class AnalogSettings:
    """One kind of chip. Noises are in units of a greatest weight times a greatest input, 1 x 1.

    y = gamma alpha ADC(sigma_out N + IR + sum_k (w_k + sigma_w N) DAC(x_k / alpha)) + beta for each tile and column,
    sums of the tiles of a column and the bias digital. Source: Rasch et al., Nat. Commun. 14, 2023.
    Raises HwsimError for values out of range and unknown names.
    """

    name: str = "custom"
    device: PcmModel = field(default_factory=PcmModel)
    mode: Mode = "2-pcm"
    """Devices of a weight: a pair, or two pairs whose currents are averaged; `ab`, two pairs programmed with W and -W
    and read with x and -x, averages as `4-pcm` does (the asymmetry that it balances is not modelled)."""
    rows: int = 512
    """Weights along an input column of a tile; deeper matrices are split and their partial sums added."""
    columns: int = 512
    partial_sums: bool = True
    """Whether a matrix deeper than a tile may be split."""
    scaling: Scaling = "column"
    """Of what the greatest |w| becomes g_max: each column of each tile, or the whole layer."""
    dac: Converter = IDEAL_DAC
    adc: Converter = IDEAL_ADC
    output_noise: float = 0.0
    """sigma_out, drawn for each column of each tile and MVM."""
    weight_noise: float = 0.0
    """sigma_w, drawn for each weight and MVM."""
    read_noise: ReadNoise = "mvm"
    """The device's own: drawn for each MVM, once for each time at which the chip is read, or left out."""
    variance_group: int = 32
    """Rows that share the mean of their variances in the noise of an MVM; 1 takes each row's own."""
    exact_redraw: bool = False
    """Whether noise of weights is drawn weight by weight, and not as its sum at the output: slow, for checks."""
    ir_drop: float = 0.0
    """Factor on the first-order IR drop, `kernels.add_drop`; 1 as in the source."""
    wire_ratio: float = 1 / (0.35 * 5e-6)
    """Conductance of the wire between two cells over that of a device: 0.35 ohm and 5 uS in the source."""
    stuck_at_zero: float = 0.0
    """Share of devices without conductance, and of devices at g_max for ever."""
    stuck_at_max: float = 0.0
    column_affine: bool = False
    """Slope and offset of each column of each tile, fitted at t = 0 to what calibration inputs should give."""
    drift_compensation: bool = False
    """One factor a layer: mean |y| of calibration inputs at t = 0 over that now."""
    precision: Precision = "int16"
    """In what products read weights: steps of the greatest / 32767, with sums in float32; float32; or float64, devices
    and sums too. A step is a thousandth of the programming noise."""
    digital: tuple[str, ...] = ()
    """Globs of layers that stay as the given executable computes them."""

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise HwsimError(f"{name} must be {', '.join(known[:-1])} or {known[-1]}, got '{getattr(self, name)}'"
                                 f"{nearest(str(getattr(self, name)), known)}")  # fmt: skip
        for name in ("rows", "columns", "variance_group"):
            if getattr(self, name) < 1:
                raise HwsimError(f"{name} of a tile must be at least 1, got {getattr(self, name)}")
        for name in ("output_noise", "weight_noise", "ir_drop"):
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise HwsimError(f"{name} must be 0 or more, got {getattr(self, name):g}")
        if not (np.isfinite(self.wire_ratio) and self.wire_ratio > 0):
            raise HwsimError(f"wire_ratio must be above 0, got {self.wire_ratio:g}")
        stuck = (self.stuck_at_zero, self.stuck_at_max)
        if not (min(stuck) >= 0 and sum(stuck) <= 1):
            raise HwsimError(f"stuck_at_zero and stuck_at_max must be shares of one, got {stuck[0]:g} and {stuck[1]:g}")

    @property
    def planes(self) -> int:
        """Devices of a weight for each sign."""
        return PLANES[self.mode]

    def check_fits(self, name: str, depth: int) -> None:
        """Raises HwsimError for a matrix of more rows than a tile has, where partial sums are not allowed."""
        if depth > self.rows and not self.partial_sums:
            most = ", ".join(f"{mode} {self.rows * self.planes // PLANES[mode]}" for mode in MODES)
            raise HwsimError(f"{name}: a matrix must fit the rows of a tile ({most}) or be split with partial sums, "
                             f"got {depth} rows")  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """JSON values of all fields."""
        from dataclasses import asdict

        return asdict(self)


_IDEAL_DEVICE = PcmModel(programming_scale=0.0, drift_scale=0.0, read_scale=0.0)
_STANDARD = {"dac": Converter(8), "adc": Converter(8, 10.0), "output_noise": 0.04, "weight_noise": 0.0175,
             "ir_drop": 1.0}  # fmt: skip
SETTINGS: dict[str, AnalogSettings] = {
    "ideal": AnalogSettings("ideal", _IDEAL_DEVICE, read_noise="off"),
    "pcm": AnalogSettings("pcm", drift_compensation=True),
    "rasch2023": AnalogSettings("rasch2023", read_noise="frozen", drift_compensation=True, **_STANDARD),  # type: ignore[arg-type]
}
"""ideal: no noise, ideal converters. pcm: the devices of Nandakumar et al. with a new reading in each MVM, and nothing
else. rasch2023: the same devices, their slow (1/f) noise frozen at the time of reading, and the standard MVM."""


def analog_settings(name: str, **changes: Any) -> AnalogSettings:
    """A named set, with changes. Raises HwsimError for an unknown name, with the nearest, and as `AnalogSettings`."""
    if name not in SETTINGS:
        raise HwsimError(f"unknown analog noise model '{name}'{nearest(name, SETTINGS)}")
    return replace(SETTINGS[name], **changes)
