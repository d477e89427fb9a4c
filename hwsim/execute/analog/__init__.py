"""The same trace with its products on analog tiles: devices, converters, calibration, and the executable of a chip."""

from hwsim.execute.analog.calibration import RangeRecorder, input_ranges
from hwsim.execute.analog.converter import Converter
from hwsim.execute.analog.device import PcmModel
from hwsim.execute.analog.executable import AnalogExecutable
from hwsim.execute.analog.settings import SETTINGS, AnalogSettings, analog_settings
from hwsim.execute.analog.times import parse_time

__all__ = ["SETTINGS", "AnalogExecutable", "AnalogSettings", "Converter", "PcmModel", "RangeRecorder",
           "analog_settings", "input_ranges", "parse_time"]  # fmt: skip
