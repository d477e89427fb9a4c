"""What more of something may not make worse.

More bandwidth or less latency can make a schedule of several channels longer: requests come in another order, as in
any list schedule. So the law is exact for as long as the channels serve in the same order, which is tested on random
traces; the networks of the catalogue are never slower, whatever the order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hwsim.arch import Architecture
from hwsim.engine import Run, run_trace
from hwsim.errors import CapacityError
from hwsim.numerics import NumberFormat
from hwsim.numerics.policy import uniform_policy
from hwsim.simulation import simulate
from hwsim.trace import Trace
from tests.engine.machines import changed, machines
from tests.engine.runs import Found, precise_traces, run_if_it_fits, runs
from tests.trace.strategies import traces


def kept(run: Run) -> set[tuple[str, int]]:
    """Tensors that stay on chip, with the last segment in which they do."""
    return {(p.tensor, p.segments[1]) for p in run.plan.placements if p.on_chip}


some = settings(max_examples=80, deadline=None)
BETTER = {
    "dram.bandwidth_bytes_per_s": lambda value: 2 * value,
    "dram.latency_s": lambda value: value / 2,
    "dram.efficiency": lambda value: min(1.0, 1.5 * value),
    "host.per_step_s": lambda value: value / 2,
    "host.link_latency_s": lambda value: value / 2,
    "host.link_bandwidth_bytes_per_s": lambda value: 2 * value,
}


def value_at(arch: Architecture, path: str) -> Any:
    node: Any = arch
    for key in path.split("."):
        node = getattr(node, key)
    return getattr(node, "value", node)


def with_value(arch: Architecture, path: str, value: Any) -> Architecture:
    return changed(arch.name, {path: value}, arch.model_dump())


def served(run: Run) -> list[np.ndarray]:
    """The order in which each channel serves its tasks."""
    graph, start = run.lowered.graph, run.schedule.start
    of_channel = [np.flatnonzero(graph.channel == channel) for channel in range(len(graph.channels))]
    return [tasks[np.argsort(start[tasks])] for tasks in of_channel]


@some
@given(runs(), st.sampled_from(tuple(BETTER)))
def test_a_better_part_is_never_slower_while_channels_serve_in_the_same_order(found: Found, path: str) -> None:
    arch, run = found
    better = run_trace(with_value(arch, path, BETTER[path](value_at(arch, path))), run.trace)
    assume(all(np.array_equal(one, other) for one, other in zip(served(run), served(better), strict=True)))
    assert better.schedule.cycles <= run.schedule.cycles
    assert np.all(better.schedule.end <= run.schedule.end)
    assert np.array_equal(better.dram_bytes, run.dram_bytes)


@pytest.mark.parametrize("path", BETTER)
@pytest.mark.parametrize("workload", ["rnnt_swb300", "rnnt_mlperf"])
@pytest.mark.parametrize("name", ["rapid_4core", "systolic_128"])
def test_a_better_part_is_never_slower_on_a_real_network(name: str, workload: str, path: str) -> None:
    cycles = []
    for factor in (1 / 8, 1 / 2, 1, 2, 8):
        value = value_at(changed(name, {}), path)
        worse = BETTER[path](1.0) < 1
        scaled = value / factor if worse else value * factor
        arch = changed(name, {path: min(scaled, 1.0) if path == "dram.efficiency" else scaled})
        cycles.append(simulate(arch, workload, "int4", frames=16).cycles)
    assert cycles == sorted(cycles, reverse=True)


@some
@given(machines(), traces(), st.sampled_from((("int2", "int4"), ("int4", "int8"), ("bf16", "fp16"))))
def test_fewer_bits_never_move_more_bytes(arch: Architecture, trace: Trace, formats: tuple[str, str]) -> None:
    """While all stays that stayed before: the plan is greedy, so a tensor that newly fits may displace a larger one."""
    few, many = (run_if_it_fits(arch, trace.with_precision(uniform_policy(NumberFormat(name)))) for name in formats)
    assume(kept(many) <= kept(few))
    assert few.dram_bytes.sum() <= many.dram_bytes.sum()


@some
@given(machines(), precise_traces())
def test_weights_that_may_stay_never_move_more_bytes(arch: Architecture, trace: Trace) -> None:
    """While the same activations stay; see above."""
    stay, stream = (run_if_it_fits(with_value(arch, "memory.weight_residency", may), trace) for may in (True, False))
    assume(kept(stream) <= kept(stay))
    assert stay.dram_bytes.sum() <= stream.dram_bytes.sum()


@pytest.mark.parametrize("workload", ["rnnt_swb300", "rnnt_mlperf"])
@pytest.mark.parametrize("persistent", [True, False])
def test_a_larger_scratchpad_never_moves_more_bytes_of_a_real_network(workload: str, persistent: bool) -> None:
    moved = []
    for kib in (64, 128, 256, 512, 1024, 2048, 4096, 16384):
        changes = {"memory.scratchpad.capacity_bytes": kib * 1024, "host.persistent_kernel": persistent}
        try:
            result = simulate(changed("rapid_4core", changes), workload, "int4", beam=None, frames=16)
        except CapacityError:
            assert not moved, "what fits a small scratchpad must fit a larger one"
            continue
        moved.append(int(result.run.dram_bytes.sum()))
    assert len(moved) >= 4
    assert moved == sorted(moved, reverse=True)
