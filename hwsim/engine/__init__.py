"""Many operations on a machine: two engines with one meaning, and the account of time and energy."""

from hwsim.engine.run import CAUSES, ENERGY_PARTS, Run, run_trace

__all__ = ["CAUSES", "ENERGY_PARTS", "Run", "run_trace"]
