"""Traces small enough to follow by hand, in FP16, and one machine for them."""

from __future__ import annotations

from functools import cache

import numpy as np

from hwsim.arch import Architecture
from hwsim.numerics import NumberFormat
from hwsim.numerics.policy import uniform_policy
from hwsim.trace import Kind, Role, Trace, TraceBuilder
from hwsim.trace.builder import Operand
from tests.engine.machines import changed


@cache
def machine(cores: int = 1, capacity: int = 65536, residency: bool = True, persistent: bool = False) -> Architecture:
    """Half of each scratchpad is ring buffers: with 65,536 bytes, 32,768 are left for what stays."""
    return changed(
        "rapid_4core",
        {
            "cores": cores,
            "memory.scratchpad.capacity_bytes": capacity,
            "memory.stream_buffer_fraction": 0.25,
            "memory.activation_fraction": 0.25,
            "memory.weight_residency": residency,
            "host.persistent_kernel": persistent,
        },
    )


class Net:
    """A builder of products and vector operations in FP16, two bytes an element."""

    def __init__(self) -> None:
        self.b = TraceBuilder("net")

    def tensor(self, name: str, rows: int, width: int, role: Role = Role.ACTIVATION) -> int:
        return self.b.tensor(name, role, (rows, width))

    def weight(self, name: str, k: int, n: int) -> int:
        return self.tensor(name, k, n, Role.WEIGHT)

    def vector(self, x: int, out: int, width: int, m: int | np.ndarray = 1) -> int:
        return self.b.op(Kind.NORM, "net", [Operand(x, width)], [Operand(out, width)], m=m, n=width)

    def build(self) -> Trace:
        return self.b.build().with_precision(uniform_policy(NumberFormat("fp16")))
