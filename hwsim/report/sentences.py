"""Short sentences about machines and searches."""

from __future__ import annotations

from collections.abc import Iterable

from hwsim.arch import Architecture
from hwsim.report.units import binary_bytes, plural, rate, si

SEARCHES = {
    "alsd": "alignment-length synchronous beam search (alsd)",
    "tsd": "time-synchronous beam search (tsd)",
    "greedy": "greedy search",
}
FUSIONS = {
    "none": "no language model",
    "shallow": "shallow fusion of the external LM",
    "density-ratio": "density-ratio fusion of source and external LM",
}


def geometry(arch: Architecture) -> str:
    """`4 cores at 1.60 GHz, 2 weight-stationary arrays each`."""
    arrays = plural(arch.array.arrays_per_core.value, f"{arch.array.dataflow.replace('_', '-')} array")
    each = " each" if arch.cores.value > 1 else ""
    point = f" ({arch.operating_point})" if len(arch.operating_points) > 1 else ""
    return f"{plural(arch.cores.value, 'core')} at {si(arch.clock_hz, 'Hz')}{point}, {arrays}{each}"


def peaks(arch: Architecture, formats: Iterable[str]) -> str:
    """Peak rates of some formats."""
    return ", ".join(rate(arch.peak_ops_per_s(fmt), fmt) for fmt in formats)


def memory_text(arch: Architecture) -> str:
    """Scratchpad and DRAM."""
    scratchpad, dram = arch.memory.scratchpad, arch.dram
    each = f", {binary_bytes(scratchpad.capacity_bytes.value)} a core" if scratchpad.scope == "core" else ", shared"
    reached = f"{100 * dram.efficiency.value:.0f} % reached"
    bandwidth = si(dram.bandwidth_bytes_per_s.value, "B/s")
    size = binary_bytes(arch.scratchpad_bytes)
    return f"scratchpad {size}{each if arch.cores.value > 1 else ''}; DRAM {bandwidth}, {reached}"
