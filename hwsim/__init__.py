"""hwsim: low-bit accelerators that run quantized speech recognition.

One operation trace is timed on an architecture and executed in integers. The names below are loaded
when they are first used, so `import hwsim` itself loads nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwsim.arch import load_arch
    from hwsim.errors import HwsimError
    from hwsim.extract import load_workload
    from hwsim.numerics import load_policy
    from hwsim.simulation import simulate

__version__ = "0.1.0"

__all__ = ["HwsimError", "__version__", "load_arch", "load_policy", "load_workload", "simulate"]

_HOMES = {
    "HwsimError": "hwsim.errors",
    "load_arch": "hwsim.arch",
    "load_policy": "hwsim.numerics",
    "load_workload": "hwsim.extract",
    "simulate": "hwsim.simulation",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hwsim' has no attribute '{name}'")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
