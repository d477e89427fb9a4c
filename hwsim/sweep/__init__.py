"""Many runs: a grid of machines, precisions and searches, one row of figures for each point."""

from hwsim.sweep.grid import SweepPoint, SweepRequest, points
from hwsim.sweep.run import run_sweep

__all__ = ["SweepPoint", "SweepRequest", "points", "run_sweep"]
