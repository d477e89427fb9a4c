"""Word error rate of analog chips over the time since they were programmed, beside a digital machine."""

from hwsim.study.drift.request import Condition, DriftRequest
from hwsim.study.drift.run import run_drift

__all__ = ["Condition", "DriftRequest", "run_drift"]
