"""What stays on chip, what leaves it, and what does not fit, on traces that are small enough to follow."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings

from hwsim.arch import Architecture
from hwsim.decode import DecodeSettings
from hwsim.engine import Run, run_trace
from hwsim.engine.lower import TaskKind
from hwsim.engine.plan import core_group, make_plan, passes, ring_bytes_per_core, scratchpad_bytes_per_core
from hwsim.engine.structure import structure
from hwsim.errors import CapacityError
from hwsim.simulation import simulate
from hwsim.trace import Kind, Role, Trace
from hwsim.trace.builder import Operand
from tests.engine.machines import changed, machines
from tests.engine.nets import Net, machine
from tests.engine.runs import Found, precise_traces, runs


def loop_of(*sizes: tuple[int, int], iterations: int = 10, launch: bool = False) -> Trace:
    """One recurrent loop of square products of these widths after another; each has so many weights in a step."""
    net = Net()
    for at, (width, weights) in enumerate(sizes):
        h = net.tensor(f"net.h{at}", 1, width)
        ws = [net.weight(f"net.w{at}{i}", width, width) for i in range(weights)]
        choice = net.tensor(f"net.choice{at}", 1, 1, Role.STATE)
        with net.b.loop(iterations):
            if launch:
                net.b.op(Kind.LAUNCH, "net", [], [Operand(choice, fixed=1)], m=1)
            for w in ws:
                net.b.matmul("net", [h], w, h, m=1)
    return net.build()


def test_weights_of_a_loop_are_read_once_when_they_fit() -> None:
    plan = make_plan(machine(), loop_of((100, 1)))
    assert plan.resident_bytes.tolist() == [20000] + 9 * [0]
    assert plan.stream_bytes.tolist() == 10 * [0]
    (placement,) = plan.placements
    assert (placement.tensor, placement.size_bytes, placement.segments) == ("net.w00", 20000, (0, 0))
    assert (placement.on_chip, placement.traffic_saved_bytes) == (True, 9 * 20000)


@pytest.mark.parametrize("why", ["too large", "no residency"])
def test_weights_of_a_loop_are_read_at_every_step_when_they_do_not(why: str) -> None:
    arch = machine(residency=why != "no residency")
    width = 128 if why == "too large" else 100
    plan = make_plan(arch, loop_of((width, 1)))
    assert plan.stream_bytes.tolist() == 10 * [2 * width * width]
    assert not plan.resident_bytes.any()
    assert not plan.resident.any()


def test_of_two_weights_the_one_that_fits_stays() -> None:
    plan = make_plan(machine(), loop_of((100, 2)))
    assert plan.resident_bytes.tolist() == [20000] + 19 * [0]
    assert plan.stream_bytes.tolist() == 10 * [0, 20000]
    assert [p.on_chip for p in plan.placements] == [True, False]


def test_weights_are_spread_over_the_cores() -> None:
    """A weight of 32,768 bytes fits beside the vectors of a step only when two cores share it."""
    one, two = (make_plan(machine(cores=cores), loop_of((128, 1))) for cores in (1, 2))
    assert not one.resident.any()
    assert two.resident_bytes.sum() == 32768
    assert two.placements[0].cores == 2


def test_a_launch_finds_empty_scratchpads_unless_the_kernel_persists() -> None:
    trace = loop_of((100, 1), launch=True)
    assert make_plan(machine(), trace).stream_bytes.sum() == 10 * 20000
    persistent = make_plan(machine(persistent=True), trace)
    assert (persistent.stream_bytes.sum(), persistent.resident_bytes.sum()) == (0, 20000)


def waits(arch: Architecture, trace: Trace) -> dict[int, list[int]]:
    """Operations that bring weights to stay, and those that they wait for."""
    plan = make_plan(arch, trace)
    return {int(op): [int(w) for w in plan.resident_wait[op] if w >= 0] for op in np.flatnonzero(plan.resident_bytes)}


def test_the_next_loop_is_prefetched_when_both_fit_else_it_waits() -> None:
    assert waits(machine(), loop_of((80, 1), (80, 1))) == {0: [], 10: []}
    assert waits(machine(), loop_of((100, 1), (100, 1))) == {0: [], 10: [9]}


def test_weights_wait_for_both_directions_of_the_loop_before() -> None:
    """The first direction takes long after the second one, which stands last in the program, has ended."""
    net = Net()
    hs = [net.tensor(f"both.h{i}", 24, width) for i, width in enumerate((200, 8))]
    ws = [net.weight(f"both.w{i}", width, width) for i, width in enumerate((200, 8))]
    with net.b.loop(20):
        for branch in (0, 1):
            net.b.matmul("both", [hs[branch]], ws[branch], hs[branch], m=24 if branch == 0 else 1, branch=branch)
    x, y = net.tensor("net.x", 1, 200), net.tensor("net.y", 1, 300)
    with net.b.loop(5):
        net.b.matmul("net", [x], net.weight("net.w", 200, 300), y, m=1)
    trace = net.build()
    arch = machine(cores=4, capacity=131072)
    assert waits(arch, trace) == {0: [], 1: [], 40: [38, 39]}
    run = run_trace(arch, trace)
    assert run.schedule.end[run.lowered.operation == 39].max() < run.schedule.end[run.lowered.operation == 38].max()
    assert most_resident_bytes(arch, run) <= 65536


def test_a_table_stays_only_when_its_rows_are_more_than_it_is() -> None:
    """100 rows of 50: steps that look up 2 rows read 200 bytes each, and the table has 10,000 bytes."""
    for steps, kept in ((40, False), (60, True)):
        net = Net()
        table, row = net.weight("net.table", 100, 50), net.tensor("net.row", 2, 50)
        with net.b.loop(steps):
            net.b.op(Kind.LOOKUP, "net", [Operand(table, 50)], [Operand(row, 50)], m=2, n=50)
        plan = make_plan(machine(), net.build())
        assert plan.resident_bytes.sum() == (10000 if kept else 0)
        assert plan.stream_bytes.sum() == (0 if kept else steps * 200)


def test_an_activation_that_does_not_fit_is_stored_once_and_loaded_by_each_reader() -> None:
    net = Net()
    x, big, out = net.tensor("net.x", 1, 500), net.tensor("net.big", 40, 500), net.tensor("net.out", 1, 500)
    net.vector(x, big, 500, m=40)
    net.vector(big, out, 500, m=10)
    net.vector(big, out, 500, m=3)
    plan = make_plan(machine(), net.build())
    assert plan.store_bytes.tolist() == [40000, 0, 0]
    assert plan.load_bytes.tolist() == [40000, 10000, 3000]  # x comes from outside, and as many rows as are read
    roomy = make_plan(machine(capacity=2**20), net.build())
    assert roomy.store_bytes.tolist() == [0, 0, 0]
    assert roomy.load_bytes.tolist() == [40000, 0, 0]


def test_what_a_loop_updates_in_place_is_loaded_when_another_loop_has_stored_it() -> None:
    net = Net()
    x, state, out = net.tensor("net.x", 1, 500), net.tensor("net.state", 40, 500), net.tensor("net.out", 1, 500)
    net.vector(x, state, 500, m=40)
    with net.b.loop(3):
        net.vector(state, state, 500)
    net.vector(state, out, 500)
    plan = make_plan(machine(), net.build())
    assert plan.store_bytes.tolist() == [40000, 1000, 1000, 1000, 0]
    assert plan.load_bytes.tolist() == [40000, 1000, 0, 0, 1000]


@pytest.mark.parametrize("hoisted", [True, False])
def test_only_what_products_contract_crosses_the_ring(hoisted: bool) -> None:
    """Not the host's choice, which an unhoisted projection waits for without reading it."""
    settings = DecodeSettings(beam=2, lm="none", hoisted_encoder_projection=hoisted)
    run = simulate("rapid_4core", "rnnt_swb300", "int4", frames=8, settings=settings).run
    crossing = np.flatnonzero(run.lowered.exchange_bytes)
    assert {Kind(kind) for kind in run.trace.kind[crossing]} <= {
        Kind.LSTM,
        Kind.ELEMENTWISE,
        Kind.LOOKUP,
        Kind.STATE_IN,
    }
    assert len(crossing) > 0


@pytest.mark.parametrize(
    ("weights", "activations", "rings", "moved"),
    [
        (50, 500, (100, 200), (50, 500)),  # the weights fit their ring
        (500, 200, (100, 200), (500, 200)),  # the activations fit theirs
        (500, 900, (100, 200), (5 * 500, 900)),  # 3,400 bytes, not 500 + 5 x 900
        (300, 900, (200, 100), (300, 2 * 900)),  # 2,100 bytes, not 900 + 9 x 300
        (0, 900, (100, 200), (0, 900)),
    ],
)
def test_when_neither_operand_fits_one_is_read_again_for_every_tile_of_the_other(
    weights: int, activations: int, rings: tuple[int, int], moved: tuple[int, int]
) -> None:
    plan = SimpleNamespace(stream_bytes=np.array([weights]), load_bytes=np.array([activations]))
    found = passes(plan, *(np.array([ring]) for ring in rings))  # type: ignore[arg-type]
    assert tuple(int(column[0]) for column in found) == moved


@pytest.mark.parametrize(
    ("cores", "halved", "branch", "wanted"),
    [
        (4, False, 0, [0, 1, 2, 3]), (4, True, 0, [0, 1]), (4, True, 1, [2, 3]), (5, True, 1, [2, 3]),
        (5, False, 1, [0, 1, 2, 3, 4]), (2, True, 1, [1]), (1, True, 1, [0]),
    ],
)  # fmt: skip
def test_two_directions_divide_the_cores(cores: int, halved: bool, branch: int, wanted: list[int]) -> None:
    assert list(core_group(machine(cores=cores), halved, branch)) == wanted


def test_a_shared_scratchpad_is_divided_equally() -> None:
    arch = changed("rapid_4core", {"memory.scratchpad.scope": "shared", "memory.stream_buffer_fraction": 0.25})
    assert scratchpad_bytes_per_core(arch) == 2**21 // 4
    assert ring_bytes_per_core(arch) == (2**17, 2**15)


def test_working_tensors_that_do_not_fit_are_one_line() -> None:
    """24 rows of 1,000 in FP16 are 48,000 bytes; 65,536 bytes have 32,768 beside their ring buffers."""
    net = Net()
    x, y = net.tensor("net.x", 1, 1000), net.tensor("net.layer1.y", 24, 1000)
    net.vector(x, y, 1000, m=24)
    with pytest.raises(CapacityError) as raised:
        run_trace(machine(), net.build())
    assert str(raised.value) == (
        "net does not fit rapid_4core: the working tensors at net.layer1 need 48000 bytes per core, the scratchpad has"
        " 32768 beside its ring buffers, 15232 short; it would fit with memory.scratchpad.capacity_bytes of 96000, or"
        " with a smaller beam"
    )
    assert run_trace(machine(capacity=96000), net.build()).plan.peak_bytes_per_core == 96000


def test_a_tensor_that_a_later_step_reads_lives_through_the_loop() -> None:
    """`kept` is written at the first step only and read at all: it needs room beside the tensors of every step."""
    net = Net()
    x, kept, other = (net.tensor(f"net.{name}", 1, 8000) for name in ("x", "kept", "other"))
    with net.b.loop(3):
        net.vector(x, kept, 8000, m=np.array([1, 0, 0]))
        net.vector(kept, x, 8000)
        net.vector(x, other, 8000)
    with pytest.raises(CapacityError, match="need 48000 bytes per core"):
        make_plan(machine(), net.build())


def test_a_ring_must_hold_a_burst() -> None:
    with pytest.raises(CapacityError) as raised:
        make_plan(changed("edge_npu", {"dram.burst_bytes": 2**20}), loop_of((8, 1)))
    assert re.fullmatch(
        r"ring buffers of edge_npu must hold a DRAM burst of 1048576 bytes per core, got \d+;"
        r" raise memory\.scratchpad\.capacity_bytes or the fractions of it",
        str(raised.value),
    )


@settings(max_examples=80, deadline=None)
@given(machines(), precise_traces())
def test_the_capacity_that_a_message_names_is_enough(arch: Architecture, trace: Trace) -> None:
    content = arch.model_dump()
    small = changed(arch.name, {}, content | {"memory": tight(content["memory"])})
    try:
        make_plan(small, trace)
    except CapacityError as error:
        wanted = re.search(r"capacity_bytes of (\d+)", str(error))
        if wanted:
            memory = content["memory"] | {"scratchpad": with_capacity(content["memory"], int(wanted[1]))}
            make_plan(changed(arch.name, {}, content | {"memory": memory}), trace)


def with_capacity(memory: dict, capacity: int) -> dict:
    capacity_bytes = memory["scratchpad"]["capacity_bytes"] | {"value": capacity}
    return memory["scratchpad"] | {"capacity_bytes": capacity_bytes}


def tight(memory: dict) -> dict:
    """65,536 bytes, the least that the register blocks of RaPiD allow."""
    return memory | {"scratchpad": with_capacity(memory, 65536)}


def most_resident_bytes(arch: Architecture, run: Run, activations: bool = False) -> int:
    """Most bytes that weights that stay (and activations that stay between loops) hold on one core at one time.

    A weight holds its room from the start of its load to the end of its last use, an activation from the start of
    its first operation to the end of its last one.
    """
    trace, s, lowered, schedule = run.trace, structure(run.trace), run.lowered, run.schedule
    worked = np.isin(lowered.kind, (TaskKind.WEIGHT_LOAD, TaskKind.ACTIVATION_LOAD, TaskKind.STORE), invert=True)
    index = {tensor.name: i for i, tensor in enumerate(trace.tensors)}
    owner = np.repeat(np.arange(len(trace)), np.diff(trace.operand_ptr))
    events: list[list[tuple[int, int]]] = [[] for _ in range(arch.cores.value)]
    for placement in run.plan.placements:
        tensor = index[placement.tensor]
        weight = trace.tensors[tensor].role == Role.WEIGHT
        if not placement.on_chip or not (weight or activations):
            continue
        users = np.unique(owner[(trace.operand_tensor == tensor) & (trace.operand_elements > 0)])
        if weight:
            users = users[s.segment[users] == placement.segments[1]]
            begins = (lowered.operation == users[0]) & (lowered.kind == TaskKind.WEIGHT_LOAD)
        else:
            begins = (lowered.operation == users[0]) & worked
        ends = np.isin(lowered.operation, users) & worked
        group = core_group(arch, bool(s.tensor_halved[tensor]), int(s.branch[tensor]))
        share = -(-placement.size_bytes // len(group))
        for core in group:
            events[core] += [(int(schedule.start[begins].min()), share), (int(schedule.release[ends].max()), -share)]
    return max(int(np.cumsum([size for _, size in sorted(core)]).max(initial=0)) for core in events)


def room(arch: Architecture) -> int:
    return scratchpad_bytes_per_core(arch) - sum(ring_bytes_per_core(arch))


@settings(max_examples=80, deadline=None)
@given(runs())
def test_weights_that_stay_never_need_more_room_than_there_is(found: Found) -> None:
    """At any time of the schedule, those that are prefetched and those that are still in use together."""
    assert most_resident_bytes(found.arch, found.run) <= room(found.arch)


@pytest.mark.parametrize("precision", ["fp16", "int8", "int4"])
@pytest.mark.parametrize("workload", ["rnnt_swb300", "rnnt_mlperf"])
@pytest.mark.parametrize("persistent", [True, False])
def test_weights_and_activations_of_a_real_network_have_room_at_any_time(
    workload: str, precision: str, persistent: bool
) -> None:
    for name in ("rapid_4core", "systolic_128"):
        arch = changed(name, {"host.persistent_kernel": persistent})
        result = simulate(arch, workload, precision, frames=16)
        assert most_resident_bytes(arch, result.run, activations=True) <= room(arch)
