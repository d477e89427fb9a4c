"""What one operation costs on one unit: cycles, bytes, energy. Nothing about scheduling."""

from hwsim.cost.array import systolic_cycles

__all__ = ["systolic_cycles"]
