"""Beam search of transducers: what it is told, and how many rows of each network it evaluates."""

from hwsim.decode.measure import measured_statistics
from hwsim.decode.rows import DecodeSchedule, DecodeTotals
from hwsim.decode.settings import DecodeSettings, SpeechStatistics
from hwsim.decode.statistics import schedule

__all__ = ["DecodeSchedule", "DecodeSettings", "DecodeTotals", "SpeechStatistics", "measured_statistics", "schedule"]
