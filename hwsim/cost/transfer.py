"""Moving data: DRAM, and the ring between the cores."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hwsim.arch import Architecture

IntArray = npt.NDArray[np.int64]


def dram_rate(arch: Architecture) -> tuple[int, int]:
    """DRAM time as a fraction of integers: cycles = ceil(bytes * clock_hz / bytes_per_s)."""
    return round(arch.clock_hz), round(arch.dram.bandwidth_bytes_per_s.value * arch.dram.efficiency.value)


def gather_cycles(arch: Architecture, moved_bytes: IntArray) -> IntArray:
    """Cycles in which every core gets what the others computed (all-gather; a reduce-scatter takes as long).

    Each byte travels both ways round the ring: bytes * (cores - 1) / cores / (2 * bytes per cycle and direction).
    """
    cores = arch.cores.value
    if cores < 2 or arch.interconnect is None:
        return np.zeros_like(moved_bytes)
    rate = 2 * arch.interconnect.bytes_per_cycle.value * cores
    return np.asarray(np.ceil(moved_bytes * (cores - 1) / rate).astype(np.int64))


def gather_latency_cycles(arch: Architecture) -> int:
    """Cycles to the farthest core of the ring."""
    if arch.cores.value < 2 or arch.interconnect is None:
        return 0
    return arch.cores.value // 2 * arch.interconnect.hop_latency_cycles.value


def gather_energy_pj(arch: Architecture, moved_bytes: IntArray) -> npt.NDArray[np.float64]:
    """Energy of the same: every byte crosses cores - 1 links, pJ."""
    if arch.cores.value < 2 or arch.interconnect is None:
        return np.zeros(len(moved_bytes))
    per_bit = arch.interconnect.energy_pj_per_bit.value * arch.logic_energy_scale
    return np.asarray(moved_bytes * 8.0 * (arch.cores.value - 1) * per_bit)
