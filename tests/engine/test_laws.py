"""What holds for any trace on any machine: two engines agree, nothing beats the roofline, nothing is lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.arch import Architecture
from hwsim.engine import CAUSES, ENERGY_PARTS
from hwsim.engine.event import run_event
from hwsim.engine.lower import TaskKind
from hwsim.engine.plan import ring_bytes_per_core
from hwsim.numerics import NumberFormat
from hwsim.numerics.formats import mac_format
from hwsim.trace import Kind, Role, Trace
from tests.engine.machines import changed
from tests.engine.runs import Found, account, operands, runs

many = settings(max_examples=80, deadline=None)


@many
@given(runs())
def test_both_engines_agree_to_the_cycle(found: Found) -> None:
    _, run = found
    run.lowered.graph.validate()
    event = run_event(run.lowered.graph)
    for column in ("ready", "start", "release", "end"):
        assert np.array_equal(getattr(run.schedule, column), getattr(event, column)), column


def array_cycles_at_peak(arch: Architecture, trace: Trace) -> float:
    """Cycles of all products if every array of the machine did a MAC on every multiplier in every cycle."""
    cycles = 0.0
    for op in range(len(trace)):
        if trace.kind[op] not in (Kind.MATMUL, Kind.CONV1D, Kind.CONV2D) or trace.m[op] == 0:
            continue
        read = [trace.tensors[tensor] for tensor, _, write in operands(trace, op) if not write]
        weights = [t for t in read if t.role == Role.WEIGHT]
        activations = [t.format for t in read if t.role not in (Role.WEIGHT, Role.BIAS)]
        if weights:
            second, first = weights[0].format, trace.input_formats[trace.layers.index(weights[0].layer)]
        else:
            second, first = activations[0], activations[0]
        cycles += trace.macs[op] / arch.macs_per_cycle(
            mac_format(NumberFormat.parse(second), NumberFormat.parse(first))
        )
    return cycles


@many
@given(runs())
def test_nothing_is_faster_than_the_roofline(found: Found) -> None:
    arch, run = found
    trace, cycles = run.trace, run.schedule.cycles
    assert cycles >= array_cycles_at_peak(arch, trace) * (1 - 1e-12)
    dram = arch.dram.bandwidth_bytes_per_s.value * arch.dram.efficiency.value
    assert cycles >= int(run.dram_bytes.sum()) / dram * arch.clock_hz * (1 - 1e-9)
    hosted = trace.kind == Kind.HOST
    host_s = arch.host.per_step_s.value * (hosted & (trace.m > 0)).sum()
    host_s += arch.host.per_hypothesis_s.value * trace.m[hosted].sum()
    if not arch.host.persistent_kernel:
        host_s += arch.host.per_launch_s.value * (trace.m[trace.kind == Kind.LAUNCH] > 0).sum()
    assert cycles >= host_s * arch.clock_hz * (1 - 1e-12)


@many
@given(runs())
def test_the_critical_path_is_the_length_of_the_run(found: Found) -> None:
    _, run = found
    path, schedule = run.path, run.schedule
    assert int(path.busy.sum() + path.latency.sum()) == schedule.cycles
    assert min(path.busy.min(), path.latency.min()) >= 0
    assert schedule.start[path.task[0]] == 0
    assert np.array_equal(schedule.start[path.task[1:]], (schedule.start[path.task] + path.busy + path.latency)[:-1])
    assert run.critical_cycles.shape == (len(run.trace), len(CAUSES))
    assert run.critical_cycles.sum() == pytest.approx(schedule.cycles, rel=1e-9, abs=1e-6)
    assert run.critical_cycles.min() >= -1e-9


@many
@given(runs())
def test_energy_adds_up_and_no_part_is_negative(found: Found) -> None:
    arch, run = found
    energy = run.energy_pj
    assert energy.shape == (len(run.trace), len(ENERGY_PARTS))
    assert energy.min() >= 0
    component = np.bincount(run.trace.component, energy.sum(axis=1))
    assert component.sum() == pytest.approx(energy.sum(axis=0).sum(), rel=1e-9)
    part = dict(zip(ENERGY_PARTS, energy.sum(axis=0), strict=True))
    seconds = run.schedule.cycles / arch.clock_hz
    assert part["leakage"] == pytest.approx(arch.leakage_power_w * seconds * 1e12, rel=1e-9)
    assert part["dram"] == pytest.approx(8 * int(run.dram_bytes.sum()) * arch.dram.energy_pj_per_bit.value, rel=1e-9)


ONE_BYTE_A_CYCLE = {"dram.bandwidth_bytes_per_s": 3.2e9, "dram.efficiency": 0.5, "dram.burst_bytes": 1}


@st.composite
def counting_machines(draw: st.DrawFn) -> Architecture:
    """One byte of DRAM a cycle at 1.6 GHz: a transfer lasts as many cycles as it has bytes."""
    changes = {
        "cores": draw(st.integers(1, 5)),
        "memory.scratchpad.capacity_bytes": draw(st.sampled_from((2**16, 2**17, 2**21))),
        "memory.weight_residency": draw(st.booleans()),
        "host.persistent_kernel": draw(st.booleans()),
        "host.state_cache": draw(st.sampled_from(("device", "host"))),
    }
    return changed("rapid_4core", ONE_BYTE_A_CYCLE | changes)


MOVES = {TaskKind.WEIGHT_LOAD: "weight_bytes", TaskKind.ACTIVATION_LOAD: "load_bytes", TaskKind.STORE: "store_bytes"}


@many
@given(runs(counting_machines()))
def test_the_transfers_of_an_operation_move_its_bytes(found: Found) -> None:
    """Every tile of a transfer moves at least the burst of one byte."""
    run, lowered = found.run, found.run.lowered
    count = len(run.trace)
    for kind, column in MOVES.items():
        chosen = lowered.kind == kind
        lasted = np.bincount(lowered.operation[chosen], lowered.graph.duration[chosen], count).astype(np.int64)
        tiles = np.bincount(lowered.operation[chosen], minlength=count)
        wanted = getattr(lowered, column)
        assert np.array_equal(lasted, np.maximum(wanted, tiles)), kind
        assert np.array_equal(tiles > 0, wanted > 0), kind
    parts = lowered.weight_bytes + lowered.load_bytes + lowered.store_bytes
    assert np.array_equal(run.dram_bytes, parts)


@many
@given(runs())
def test_every_byte_of_the_plan_is_accounted_for(found: Found) -> None:
    """Weights are read at every use or once a loop; what leaves the chip is written once and read back when used."""
    _, run = found
    traffic = account(run.trace, run)
    assert run.plan.stream_bytes.tolist() == traffic.streamed
    assert run.plan.resident_bytes.tolist() == traffic.resident
    assert run.plan.store_bytes.tolist() == traffic.stored
    assert run.plan.load_bytes.tolist() == traffic.loaded


@many
@given(runs())
def test_an_operand_is_read_again_only_when_neither_fits(found: Found) -> None:
    arch, run = found
    plan, lowered = run.plan, run.lowered
    copied = np.isin(run.trace.kind, (Kind.STATE_IN, Kind.STATE_OUT))
    weights_again = lowered.weight_bytes - plan.resident_bytes - plan.stream_bytes
    loads_again = np.where(copied, 0, lowered.load_bytes - plan.load_bytes)
    assert min(weights_again.min(), loads_again.min()) >= 0
    assert not np.any((weights_again > 0) & (loads_again > 0))
    again = (weights_again > 0) | (loads_again > 0)
    weight_ring, load_ring = ring_bytes_per_core(arch)
    assert np.all(plan.stream_bytes[again] > weight_ring)
    assert np.all(plan.load_bytes[again] > load_ring)
