"""The operation trace: what is computed, on which shapes, in which number formats, in which order."""

from hwsim.trace.builder import TraceBuilder
from hwsim.trace.store import load_trace, save_trace
from hwsim.trace.table import Function, Kind, Role, Tensor, Totals, Trace

__all__ = [
    "Function",
    "Kind",
    "Role",
    "Tensor",
    "Totals",
    "Trace",
    "TraceBuilder",
    "load_trace",
    "save_trace",
]
