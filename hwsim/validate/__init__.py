"""Executed codes against training, layer by layer."""

from hwsim.validate.compare import Budget, compare
from hwsim.validate.report import LayerReport, Report, Tier

__all__ = ["Budget", "LayerReport", "Report", "Tier", "compare"]
