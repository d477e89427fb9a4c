"""Groups of tiles: what they add up to, that both engines run them alike, and how near they come to single tiles."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hwsim.arch import Architecture, load_arch
from hwsim.decode.search import default_settings, utterance_trace
from hwsim.engine import CAUSES, Run, run_trace
from hwsim.engine.event import run_event
from hwsim.engine.lower import TaskKind
from hwsim.engine.plan import ring_bytes_per_core
from hwsim.engine.tiles import IN_FLIGHT, MOST_TILES, group_sizes, grouped, held_tiles, share, sum_of_tiles
from hwsim.errors import CapacityError
from hwsim.extract import load_workload
from hwsim.numerics import load_policy
from hwsim.trace import Trace
from tests.engine.machines import changed, machines
from tests.engine.runs import MOST_TASKS, precise_traces, runs
from tests.engine.test_lower import product

FEW = 4
"""A cap that random traces pass often."""
some = settings(max_examples=40, deadline=None)


@given(st.integers(1, 40_000), st.integers(2, 600))
def test_groups_are_all_tiles_and_grow_slowly_from_both_ends(tiles: int, most: int) -> None:
    sizes = group_sizes(tiles, most)
    assert sum(sizes) == tiles
    if tiles <= most:
        assert set(sizes) == {1}
        return
    assert sizes[0] == sizes[-1] == 1
    assert max(sizes) <= -(-2 * tiles // most)
    assert min(sizes) == 1
    assert group_sizes(tiles, None) == (1,) * tiles


def test_the_groups_of_the_default_cap() -> None:
    assert group_sizes(MOST_TILES, MOST_TILES) == (1,) * MOST_TILES
    for tiles in (MOST_TILES + 1, 5000, 27_000, 10**7):
        sizes = group_sizes(tiles, MOST_TILES)
        assert len(sizes) < MOST_TILES
        assert sizes[:32] == sizes[::-1][:32] == (1,) * 32
        assert all(after <= before + max(1, before / 4) for before, after in pairwise(sizes))


def test_the_tiles_of_operations_in_order() -> None:
    found = grouped(np.array([2, 40, 1]), 16)
    assert found.count.tolist() == [2, len(group_sizes(40, 16)), 1]
    assert found.operation.tolist() == [0] * 2 + [1] * found.count[1] + [2]
    middle = found.operation == 1
    assert found.size[middle].tolist() == list(group_sizes(40, 16))
    assert found.begin[middle].tolist() == np.cumsum([0, *group_sizes(40, 16)])[:-1].tolist()
    for op in (0, 2):
        assert found.begin[found.operation == op].tolist() == found.part[found.operation == op].tolist()


@given(st.integers(0, 10**6), st.integers(1, 300), st.integers(0, 300), st.integers(1, 300))
def test_a_sum_over_tiles_is_that_of_each(total: int, parts: int, begin: int, size: int) -> None:
    begin = min(begin, parts - 1)
    size = min(size, parts - begin)
    one = np.ones(size, dtype=np.int64)
    each = share(total * one, begin + np.arange(size), one, parts * one)
    together = (np.array([number]) for number in (total, begin, size, parts))
    assert (
        sum_of_tiles(lambda x: -(-np.maximum(x, 64) * 3 // 7), *together) == (-(-np.maximum(each, 64) * 3 // 7)).sum()
    )


def test_what_a_group_holds_of_its_ring() -> None:
    """Two or three tiles fit: one is held, so that as many groups fit. 1,000 fit: 125, of which 8 groups fit."""
    size = np.array([1, 5, 5, 5, 500])
    tile = np.array([500, 500, 333, 1, 1])
    assert held_tiles(tile, 1000, size).tolist() == [1, 1, 1, 5, 1000 // IN_FLIGHT]


@some
@given(runs(), st.sampled_from((FEW, 16, 64)))
def test_grouping_keeps_bytes_energy_and_busy_time(found: tuple[Architecture, Run], most: int) -> None:
    arch, single = found
    run = run_trace(arch, single.trace, most_tiles=most)
    few, many = run.lowered, single.lowered
    for column in ("weight_bytes", "load_bytes", "store_bytes", "exchange_bytes"):
        assert np.array_equal(getattr(few, column), getattr(many, column)), column
    assert np.array_equal(run.energy_pj[:, :-1], single.energy_pj[:, :-1])
    count, kinds = len(run.trace), len(TaskKind)
    busy = [np.bincount(low.operation * kinds + low.kind, low.graph.duration, count * kinds) for low in (few, many)]
    assert np.array_equal(*busy)
    if len(few.graph) == len(many.graph):
        assert np.array_equal(run.schedule.end, single.schedule.end)


def grouped_run(arch: Architecture, trace: Trace) -> Run:
    """A run in which something is grouped; an example without it is dropped."""
    try:
        run = run_trace(arch, trace, most_tiles=FEW)
    except CapacityError:
        assume(False)
    assume(len(run.lowered.graph) <= MOST_TASKS)
    return run


@some
@given(machines(), precise_traces())
def test_both_engines_agree_and_every_cycle_has_a_cause(arch: Architecture, trace: Trace) -> None:
    run = grouped_run(arch, trace)
    run.lowered.graph.validate()
    event = run_event(run.lowered.graph)
    for column in ("ready", "start", "release", "end"):
        assert np.array_equal(getattr(run.schedule, column), getattr(event, column)), column
    assert int(run.path.busy.sum() + run.path.latency.sum()) == run.schedule.cycles
    assert run.critical_cycles.sum() == pytest.approx(run.schedule.cycles, rel=1e-9, abs=1e-6)
    assert run.critical_cycles.min() >= -1e-9


@some
@given(machines(), precise_traces(), st.sampled_from((("dram.bandwidth_bytes_per_s", 2.0), ("dram.latency_s", 0.5))))
def test_a_better_dram_is_never_slower_while_channels_serve_in_the_same_order(
    arch: Architecture, trace: Trace, change: tuple[str, float]
) -> None:
    path, factor = change
    before = getattr(arch.dram, path.removeprefix("dram.")).value
    other = changed(arch.name, {path: factor * before}, arch.model_dump())
    worse, better = grouped_run(arch, trace), grouped_run(other, trace)
    orders = []
    for run in (worse, better):
        graph, start = run.lowered.graph, run.schedule.start
        of_channel = [np.flatnonzero(graph.channel == channel) for channel in range(len(graph.channels))]
        orders.append([tasks[np.argsort(start[tasks])].tolist() for tasks in of_channel])
    assume(orders[0] == orders[1])
    assert np.all(better.schedule.end <= worse.schedule.end)


def narrow(**dram: float) -> Architecture:
    """One core with 2 MiB and rings of 20,971 bytes for weights and for activations."""
    changes = {
        "memory.scratchpad.capacity_bytes": 2**21,
        "memory.stream_buffer_fraction": 0.01,
        "memory.activation_fraction": 0.01,
    }
    return changed("edge_npu", changes | {f"dram.{name}": value for name, value in dram.items()})


def test_loads_of_a_group_stream_through_half_a_ring_at_most() -> None:
    """Activations are read 96 times, in 7,325 tiles of half their ring, beside 274 bytes of weights each."""
    arch = narrow()
    run = run_trace(arch, product(400, 1000, 1000).build())
    graph, (weight_ring, load_ring) = run.lowered.graph, ring_bytes_per_core(arch)
    sizes = np.array(group_sizes(7325, MOST_TILES))
    weights, loads = (run.lowered.kind == kind for kind in (TaskKind.WEIGHT_LOAD, TaskKind.ACTIVATION_LOAD))
    assert np.count_nonzero(weights) == np.count_nonzero(loads) == len(sizes)
    assert 2 * graph.acquire[loads].max() <= load_ring
    assert IN_FLIGHT * graph.acquire[weights].max() <= weight_ring
    single = graph.latency[loads].min()
    assert np.array_equal(graph.latency[loads], single * sizes)
    assert np.array_equal(graph.latency[weights], single * sizes // np.minimum(sizes, 9))


@pytest.mark.parametrize("bytes_per_s", [1e9, 1e10, 1e11, 1e12])
@pytest.mark.parametrize("latency_s", [0.0, 1e-7, 1e-5])
def test_a_long_operation_takes_as_long_as_its_tiles_whatever_binds_it(bytes_per_s: float, latency_s: float) -> None:
    """Transfers, computation, or the latency of tiles of which only two fit their ring."""
    arch = narrow(bandwidth_bytes_per_s=bytes_per_s, latency_s=latency_s)
    trace = product(400, 1000, 1000).build()
    near(run_trace(arch, trace), run_trace(arch, trace, most_tiles=None), 0.01)


def near(run: Run, single: Run, tolerance: float) -> None:
    """Cycles, and the cycles of each cause, differ by a share of all cycles at most."""
    assert len(run.lowered.graph) < len(single.lowered.graph)
    cycles = single.schedule.cycles
    assert abs(run.schedule.cycles - cycles) <= tolerance * cycles
    causes = [each.critical_cycles.sum(axis=0) for each in (run, single)]
    for name, one, other in zip(CAUSES, *causes, strict=True):
        assert abs(one - other) <= tolerance * cycles, name


@pytest.mark.parametrize(
    ("name", "workload", "precision", "audio_s"),
    [
        ("edge_npu", "usm_600m", "int8", 30),
        ("edge_npu_stream", "usm_2b", "int4", 30),
        ("rapid_1core", "conformer_l", "fp16", 12),
        ("edge_npu", "conformer_l", "fp16", 12),
        ("rapid_1core", "usm_600m", "fp16", 30),
    ],
)
def test_a_network_takes_as_long_as_in_single_tiles(name: str, workload: str, precision: str, audio_s: float) -> None:
    """Half a percent of all cycles, in total and for each cause."""
    network = load_workload(workload)
    settings = default_settings(network, beam=None, algorithm=None, lm=None)
    trace = utterance_trace(network, settings, round(audio_s / network.frame_period_s))
    arch, trace = load_arch(name), trace.with_precision(load_policy(precision))
    run, single = run_trace(arch, trace), run_trace(arch, trace, most_tiles=None)
    near(run, single, 0.005)
    assert np.array_equal(run.dram_bytes, single.dram_bytes)
    assert np.array_equal(run.energy_pj[:, :-1], single.energy_pj[:, :-1])
