"""Every network of the catalogue at each precision on every machine: that it runs, and what must hold of the times."""

from __future__ import annotations

import itertools

import pytest

from hwsim import catalogue
from hwsim.arch import load_arch
from hwsim.extract import load_workload
from hwsim.simulation import Result, simulate

PRECISIONS = ("fp16", "int8", "int4")
AUDIO_S = 1.0
"""Of each utterance; a 2 B network needs seconds of work for half a minute of audio."""


def run(arch: str, workload: str, precision: str) -> Result:
    network = load_workload(workload)
    return simulate(arch, network, precision, frames=round(AUDIO_S / network.frame_period_s))


@pytest.mark.parametrize("workload", catalogue.names("workloads"))
@pytest.mark.parametrize("arch", catalogue.names("arch_configs"))
def test_every_network_runs_on_every_machine(arch: str, workload: str) -> None:
    """No product is faster than the peak, components add up, and fewer bits are no slower and need no more energy."""
    machine = load_arch(arch)
    can = [name for name in PRECISIONS if name in machine.native_formats or name in machine.array.fallback]
    results = [run(arch, workload, precision) for precision in can]
    assert results
    for result in results:
        macs = sum(part.macs for part in result.components.values())
        fastest = max(machine.macs_per_cycle(name) for name in result.formats)
        assert result.cycles >= macs / fastest
        assert sum(part.cycles for part in result.components.values()) == pytest.approx(result.cycles, abs=10)
        assert result.rtf == result.latency_s / result.audio_s
    for more, fewer in itertools.pairwise(results):
        assert fewer.cycles <= more.cycles
        assert fewer.energy_j <= more.energy_j
        assert fewer.compression > more.compression
