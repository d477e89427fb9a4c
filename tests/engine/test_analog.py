"""Runs on analog tiles: engines agree, layers work side by side, the steps of a recurrent layer never do."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.arch import Architecture, load_arch
from hwsim.cost.analog import in_cycles, mvm_s, programming_pj, programming_s, tile_energy_pj
from hwsim.cost.classes import first_operands
from hwsim.cost.operation import Unit
from hwsim.decode.search import decode_trace, default_settings, speech_statistics
from hwsim.decode.statistics import schedule
from hwsim.decode.streaming import stream_trace
from hwsim.engine import ENERGY_PARTS
from hwsim.engine.event import run_event
from hwsim.engine.lower import TaskKind
from hwsim.errors import HwsimError
from hwsim.extract import load_workload
from hwsim.extract.frames import frame_encoder
from hwsim.numerics import load_policy
from hwsim.simulation import Result, simulate
from hwsim.trace import Kind, Role
from tests.engine.machines import changed
from tests.engine.runs import Found, runs

FIVE, HYBRID, NETWORK = "analog_14nm_5chip", "hybrid_analog_digital", "rnnt_mlperf"
FRAMES = 21
few = settings(max_examples=40, deadline=None)


@st.composite
def tiled_machines(draw: st.DrawFn) -> Architecture:
    """Few and small tiles, which hold some matrices of a trace, all, or one after another."""
    size = draw(st.sampled_from((4, 16, 64)))
    changes = {
        "analog.chips": draw(st.integers(1, 3)),
        "analog.tiles_per_chip": draw(st.sampled_from((1, 3, 34, 1000))),
        "analog.modes.two_pcm.rows": size,
        "analog.modes.two_pcm.columns": size,
        "analog.placement.default_mode": "two_pcm",
        "analog.placement.overflow": draw(st.sampled_from(("digital", "reprogram"))),
        "analog.partial_sums": draw(st.sampled_from(("analog", "digital"))),
        "analog.mesh.latency_s": draw(st.sampled_from((0.0, 1e-8))),
        "memory.scratchpad.capacity_bytes": draw(st.sampled_from((2**16, 2**21))),
        "host.persistent_kernel": draw(st.booleans()),
        "host.state_cache": draw(st.sampled_from(("device", "host"))),
    }
    return changed(HYBRID, changes)


@few
@given(runs(tiled_machines()))
def test_both_engines_agree_to_the_cycle(found: Found) -> None:
    graph = found.run.lowered.graph
    graph.validate()
    event = run_event(graph)
    for column in ("ready", "start", "release", "end"):
        assert np.array_equal(getattr(found.run.schedule, column), getattr(event, column)), column


@few
@given(runs(tiled_machines()))
def test_weights_on_tiles_move_nothing_and_energy_adds_up(found: Found) -> None:
    arch, run = found
    trace, energy = run.trace, dict(zip(ENERGY_PARTS, run.energy_pj.sum(axis=0), strict=True))
    assert run.mapping is not None
    assert run.stations is not None
    assert arch.analog is not None
    assert run.energy_pj.min() >= 0
    assert run.critical_cycles.sum() == pytest.approx(run.schedule.cycles, rel=1e-9, abs=1e-6)
    on_tiles = np.isin(run.stations.station, [i for i, name in enumerate(run.stations.names) if "tiles" in name])
    assert not run.lowered.weight_bytes[on_tiles].any()
    products = {m.tensor: int(trace.m[on_tiles & (_weights(found) == m.tensor)].sum()) for m in run.mapping.matrices}
    inside = sum(products[m.tensor] * tile_energy_pj(arch.analog, m.block) for m in run.mapping.matrices)
    written = float(run.stations.programming_pj.sum())
    assert energy["analog"] >= (inside + written) * (1 - 1e-12)
    assert (energy["analog"] > 0) == any(products.values())


@few
@given(runs(tiled_machines()))
def test_a_matrix_does_one_product_after_another(found: Found) -> None:
    """Its time is that of its products, and shared tiles also take that of writing."""
    arch, run = found
    assert run.mapping is not None
    assert run.stations is not None
    assert arch.analog is not None
    spans = _spans(found.run)
    blocks = {matrix.tensor: matrix.block for matrix in run.mapping.matrices}
    products = np.flatnonzero(run.lowered.kind == TaskKind.ANALOG)
    for name, tasks in spans.items():
        assert all(one[1] <= other[0] for one, other in pairwise(tasks)), name
    for op in np.unique(run.lowered.operation[products]).tolist():
        tasks_of = products[run.lowered.operation[products] == op]
        block = blocks[int(_weights(found)[op])]
        lasts = int(run.trace.m[op]) * in_cycles(mvm_s(arch.analog, block), arch.clock_hz)
        assert run.lowered.graph.duration[tasks_of].sum() == lasts + run.stations.programming_cycles[op]


def _weights(found: Found) -> np.ndarray:
    return first_operands(found.run.trace)[0]


def _spans(run) -> dict[str, list[tuple[int, int]]]:  # type: ignore[no-untyped-def]
    """Start and release of the tasks on each unit that belongs to tiles, in time order."""
    graph, schedule = run.lowered.graph, run.schedule
    owner = np.repeat(np.arange(len(graph)), np.diff(graph.unit_ptr))
    found = {}
    for index, name in enumerate(graph.units):
        if name.startswith(("tiles.", "gates.")):
            tasks = owner[graph.unit == index]
            found[name] = sorted(zip(schedule.start[tasks].tolist(), schedule.release[tasks].tolist(), strict=True))
    return found


@cache
def five() -> Result:
    return simulate(FIVE, NETWORK, frames=FRAMES)


def test_layers_work_side_by_side_and_steps_do_not() -> None:
    spans = _spans(five().run)
    layers = [spans[f"tiles.encoder.layer{i}.wh"] for i in range(5)]
    assert [len(tasks) for tasks in layers] == [21, 21, 11, 11, 11]
    for lower, upper in pairwise(layers):
        assert upper[0][0] < lower[-1][1]
    for index in range(5):
        steps = list(zip(layers[index], spans[f"gates.encoder.layer{index}"], strict=True))
        for (product, gate), (following, _) in pairwise(steps):
            assert product[1] <= gate[0]
            assert gate[1] <= following[0]


def test_the_encoder_takes_its_steps_and_the_way_through_its_layers() -> None:
    """T + 4 steps of 2.1 + 0.3 us after the first features are there; then comes the search of the last frames."""
    result = five()
    end = _spans(result.run)["gates.encoder.layer4"][-1][1]
    features = int(result.run.schedule.end[result.run.lowered.kind == TaskKind.ACTIVATION_LOAD].min())
    assert end == features + (FRAMES + 4) * 2400
    assert end < result.cycles < end + 20_000


def test_the_search_runs_beside_the_encoder() -> None:
    run = five().run
    joint = np.flatnonzero((run.trace.kind == Kind.TOPK) & (run.trace.m > 0))
    tasks = np.isin(run.lowered.operation, joint) & (run.lowered.kind == TaskKind.VECTOR)
    encoder = _spans(run)["tiles.encoder.layer4.wh"]
    assert run.schedule.start[tasks].min() < encoder[-1][0]


def test_both_engines_agree_on_a_network() -> None:
    for arch in (FIVE, HYBRID):
        fast, event = (simulate(arch, NETWORK, frames=9, engine=engine) for engine in ("fast", "event"))
        assert np.array_equal(fast.run.schedule.start, event.run.schedule.start)
        assert fast.energy_j == event.energy_j


def test_frame_by_frame_changes_the_order_and_not_the_work() -> None:
    workload = load_workload(NETWORK)
    decode = default_settings(workload)
    plan = schedule(decode, speech_statistics(workload, FRAMES))
    frames, layers = (emit(workload, decode, FRAMES, plan) for emit in (stream_trace, decode_trace))
    assert frames.totals().macs == layers.totals().macs
    weights = [(t.name, t.shape) for t in layers.tensors if t.role in (Role.WEIGHT, Role.BIAS)]
    assert [(t.name, t.shape) for t in frames.tensors if t.role in (Role.WEIGHT, Role.BIAS)] == weights
    for kind in (Kind.HOST, Kind.LSTM, Kind.TOPK, Kind.LOOKUP):
        rows = [int(trace.m[trace.kind == kind].sum()) for trace in (frames, layers)]
        assert rows[0] == rows[1], kind


@pytest.mark.parametrize("algorithm", ["alsd", "tsd", "maes"])
def test_every_search_can_follow_the_frames(algorithm: str) -> None:
    """A search with a tail keeps it: steps of the last frame that others have not come after all frames."""
    workload = load_workload("rnnt_gq")
    decode = default_settings(workload, algorithm=algorithm, beam=4)
    plan = schedule(decode, speech_statistics(workload, 60))
    frames, layers = (emit(workload, decode, 60, plan) for emit in (stream_trace, decode_trace))
    assert frames.totals().macs == layers.totals().macs
    rows = [trace.m[trace.kind == Kind.HOST] for trace in (frames, layers)]
    assert rows[0][rows[0] > 0].tolist() == rows[1].tolist()


@pytest.mark.parametrize("workload", ["rnnt_swb300", "conformer_s", "usm_2b"])
def test_what_reads_later_frames_is_not_emitted_frame_by_frame(workload: str) -> None:
    network = load_workload(workload)
    assert frame_encoder(network) is None
    decode = default_settings(network)
    with pytest.raises(HwsimError) as raised:
        stream_trace(network, decode, 8, schedule(decode, speech_statistics(network, 8)))
    said = f"{workload}: must have unidirectional LSTM layers to be emitted frame by frame"
    assert str(raised.value) == said


def test_shared_tiles_are_written_when_another_matrix_was_there() -> None:
    changes = {"analog.chips": 1, "analog.placement.overflow": "reprogram"}
    machine = changed(HYBRID, changes)
    run = simulate(machine, NETWORK, frames=FRAMES).run
    assert run.mapping is not None
    assert run.stations is not None
    assert machine.analog is not None
    shared = [matrix for matrix in run.mapping.matrices if matrix.shared]
    assert run.stations.writes == len(shared)  # layer after layer: each is needed in one stretch
    written = [programming_pj(machine.analog, matrix.block) for matrix in shared]
    assert run.stations.programming_pj.sum() == pytest.approx(sum(written))
    cycles = [in_cycles(programming_s(machine.analog, matrix.block), machine.clock_hz) for matrix in shared]
    assert run.schedule.cycles > sum(cycles)


def test_precision_decides_only_what_is_not_on_tiles() -> None:
    fp16, int4 = (simulate(FIVE, NETWORK, policy, frames=FRAMES) for policy in ("fp16", "int4"))
    assert fp16.energy_by_part_j["analog"] == int4.energy_by_part_j["analog"]
    assert any(text.startswith("precision.analog = 45261568: ") for text in int4.assumptions)
    tiles = int4.run.costs.unit == Unit.TILES
    assert not int4.run.costs.scratchpad_pj[tiles].any()
    assert sum(part.tile_weights for part in int4.components.values()) == 45_261_568
    trace = load_workload(NETWORK).networks.with_precision(load_policy("int4"))
    stays = [t.format for t in trace.tensors if t.name == "joint.output.weight"]
    assert stays == ["int4"]
    assert int4.components["joint"].weight_bits < fp16.components["joint"].weight_bits


def test_a_machine_whose_encoder_is_not_whole_on_tiles_works_layer_after_layer() -> None:
    partly = simulate(load_arch(HYBRID, {"analog.chips": "2"}), NETWORK, frames=FRAMES)
    assert "frame_by_frame" in simulate(HYBRID, NETWORK, frames=FRAMES).run.trace.meta
    assert "frame_by_frame" not in partly.run.trace.meta
    assert partly.run.mapping is not None
    assert partly.run.mapping.digital
