"""Executed codes against training, layer by layer."""

from hwsim.validate.compare import Budget, compare
from hwsim.validate.oracles import against
from hwsim.validate.report import LayerReport, Report, Source, Tier

__all__ = ["Budget", "LayerReport", "Report", "Source", "Tier", "against", "compare"]
