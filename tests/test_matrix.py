"""Every network of the catalogue at each precision on every machine: that it runs, and what must hold of the times."""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from functools import cache

import pytest

from hwsim import catalogue
from hwsim.arch import load_arch
from hwsim.cost.classes import operation_classes
from hwsim.cost.operation import Unit
from hwsim.errors import CapacityError
from hwsim.extract import load_workload
from hwsim.simulation import Result, simulate

PRECISIONS = ("fp16", "int8", "int4")
AUDIO_S = 1.0
"""Of each utterance; a 2 B network needs seconds of work for half a minute of audio."""
ONLY_TILES = ("analog_14nm_34tile", "analog_14nm_5chip", "analog_projected", "hermes_64core")
"""Machines whose matrices lie on analog tiles or nowhere: what they cannot hold they refuse."""
OTHERS = [name for name in catalogue.names("arch_configs") if name not in ONLY_TILES]


def run(arch: str, workload: str, precision: str) -> Result:
    network = load_workload(workload)
    return simulate(arch, network, precision, frames=round(AUDIO_S / network.frame_period_s))


def digital_macs(result: Result) -> int:
    """MACs that no analog tile does."""
    trace = result.run.trace
    unit = result.run.costs.unit[operation_classes(trace).of_operation]
    return int(trace.macs[unit != Unit.TILES].sum())


@pytest.mark.parametrize("workload", catalogue.names("workloads"))
@pytest.mark.parametrize("arch", OTHERS)
def test_every_network_runs_on_every_machine(arch: str, workload: str) -> None:
    """No product is faster than the peak, components add up, and fewer bits are no slower and need no more energy."""
    machine = load_arch(arch)
    can = [name for name in PRECISIONS if name in machine.native_formats or name in machine.array.fallback]
    results = [run(arch, workload, precision) for precision in can]
    assert results
    for result in results:
        macs = digital_macs(result)
        fastest = max(machine.macs_per_cycle(name) for name in result.formats)
        assert result.cycles >= macs / fastest
        assert sum(part.cycles for part in result.components.values()) == pytest.approx(result.cycles, abs=10)
        assert result.rtf == result.latency_s / result.audio_s
    for more, fewer in itertools.pairwise(results):
        assert fewer.cycles <= more.cycles
        assert fewer.energy_j <= more.energy_j
        assert fewer.compression > more.compression


def run_or_refused(arch: str, workload: str, precision: str) -> Result | None:
    """The run; None where the refusal says how many tiles are missing and with how many chips it would fit."""
    missing = r"tiles, the machine has \d+, and \d+ are missing for .*; it would fit with analog.chips of \d+"
    with pytest.raises(CapacityError, match=missing) if is_refused(arch, workload) else nullcontext():
        return run(arch, workload, precision)
    return None


@cache
def is_refused(arch: str, workload: str) -> bool:
    """Whether the matrices of a network need more tiles than a machine has."""
    try:
        run(arch, workload, PRECISIONS[0])
    except CapacityError:
        return True
    return False


@pytest.mark.parametrize("workload", catalogue.names("workloads"))
@pytest.mark.parametrize("arch", ONLY_TILES)
def test_every_network_fits_the_tiles_or_is_refused(arch: str, workload: str) -> None:
    """Tiles hold their weights in whatever precision their devices have, so that the policy decides only the rest."""
    machine = load_arch(arch)
    assert machine.analog is not None
    results = [result for precision in PRECISIONS if (result := run_or_refused(arch, workload, precision))]
    for result in results:
        mapping = result.run.mapping
        assert mapping is not None
        assert 0 < mapping.tiles <= machine.analog.tiles
        assert max(mapping.used) <= machine.analog.tiles_per_chip.value
        assert sum(part.tile_weights for part in result.components.values()) == mapping.weights
        assert sum(part.cycles for part in result.components.values()) == pytest.approx(result.cycles, abs=10)
        assert result.energy_by_part_j["analog"] == results[0].energy_by_part_j["analog"]


@pytest.mark.parametrize("arch", ONLY_TILES)
def test_every_machine_of_tiles_holds_some_network(arch: str) -> None:
    """`digits` is the smallest."""
    assert run(arch, "digits", "fp16").cycles > 0
