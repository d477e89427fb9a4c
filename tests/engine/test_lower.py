"""Operations as tasks: tiles, what they wait for, and what they take."""

from __future__ import annotations

import numpy as np

from hwsim.cost.classes import operation_classes
from hwsim.engine import Run, run_trace
from hwsim.engine.lower import TaskKind
from hwsim.trace import Kind
from hwsim.trace.builder import Operand
from tests.engine.nets import Net, machine


def tasks(run: Run, op: int, kind: TaskKind) -> np.ndarray:
    return np.flatnonzero((run.lowered.operation == op) & (run.lowered.kind == kind))


def cost_cycles(run: Run, op: int) -> int:
    return int(run.costs.cycles[operation_classes(run.trace).of_operation[op]])


def product(m: int, k: int, n: int) -> Net:
    net = Net()
    x, y = net.tensor("net.x", m, k), net.tensor("net.y", m, n)
    net.b.matmul("net", [x], net.weight("net.w", k, n), y, m=m)
    return net


def test_streamed_weights_come_in_tiles_of_half_their_ring() -> None:
    """200 x 200 in FP16 are 80,000 bytes; tiles of at most 8,192 bytes are 10, of 8,000 bytes each."""
    run = run_trace(machine(), product(1, 200, 200).build())
    loads, computed = tasks(run, 0, TaskKind.WEIGHT_LOAD), tasks(run, 0, TaskKind.COMPUTE)
    graph, schedule = run.lowered.graph, run.schedule
    assert (len(loads), len(computed)) == (10, 10)
    assert graph.acquire[loads].tolist() == 10 * [8000]
    assert int(graph.duration[computed].sum()) == cost_cycles(run, 0)
    assert np.array_equal(graph.frees[computed, 1], loads)
    assert np.all(schedule.start[computed] >= schedule.end[loads])
    # Two tiles fit the ring: the second is loaded ahead, the third waits until the first is used up.
    assert schedule.start[loads[1]] < schedule.start[computed[0]]
    assert schedule.start[loads[2]] >= schedule.release[computed[0]]


def test_activations_from_dram_come_beside_the_weights() -> None:
    run = run_trace(machine(), product(40, 200, 64).build())
    loads, activations = tasks(run, 0, TaskKind.WEIGHT_LOAD), tasks(run, 0, TaskKind.ACTIVATION_LOAD)
    assert run.lowered.load_bytes.tolist() == [40 * 200 * 2]
    assert run.lowered.weight_bytes.tolist() == [200 * 64 * 2]
    assert len(loads) == len(activations) == 4  # 25,600 bytes in tiles of 8,192
    assert run.lowered.graph.acquire[activations].tolist() == 4 * [4000]


def test_a_load_waits_until_what_it_reads_is_stored() -> None:
    net = Net()
    x, big, out = net.tensor("net.x", 1, 500), net.tensor("net.big", 40, 500), net.tensor("net.out", 1, 500)
    net.vector(x, big, 500, m=40)
    net.vector(big, out, 500, m=10)
    run = run_trace(machine(), net.build())
    stores, loads = tasks(run, 0, TaskKind.STORE), tasks(run, 1, TaskKind.ACTIVATION_LOAD)
    assert len(stores) > 0
    assert run.schedule.start[loads].min() >= run.schedule.end[stores].max()


def test_a_result_that_a_product_contracts_is_gathered_by_all_cores() -> None:
    net = Net()
    x, h, y = net.tensor("net.x", 3, 100), net.tensor("net.h", 3, 100), net.tensor("net.y", 3, 1024)
    net.vector(x, h, 100, m=3)
    net.b.matmul("net", [h], net.weight("net.w", 100, 1024), y, m=3)
    run = run_trace(machine(cores=4), net.build())
    assert run.lowered.exchange_bytes.tolist() == [3 * 100 * 2, 0]
    (gather,) = tasks(run, 0, TaskKind.EXCHANGE)
    # 600 bytes, 3/4 of them to each core, both ways round a ring of 128 bytes a cycle.
    assert run.lowered.graph.duration[gather] == 2
    computed = tasks(run, 1, TaskKind.COMPUTE)
    assert run.schedule.start[computed].min() >= run.schedule.end[gather]
    alone = run_trace(machine(), net.build())
    assert len(tasks(alone, 0, TaskKind.EXCHANGE)) == 0


def test_every_core_takes_all_weights_when_rows_are_split_and_dram_sends_them_once() -> None:
    """512 rows over four cores: each holds the 8,192 bytes of weights, which are read once."""
    run = run_trace(machine(cores=4), product(512, 64, 64).build())
    loads = tasks(run, 0, TaskKind.WEIGHT_LOAD)
    assert run.lowered.weight_bytes.tolist() == [8192]
    assert int(run.lowered.graph.acquire[loads].sum()) == 8192
    split = run_trace(machine(cores=4), product(1, 64, 64).build())
    assert int(split.lowered.graph.acquire[tasks(split, 0, TaskKind.WEIGHT_LOAD)].sum()) == 2048


def test_what_is_sent_in_tiles_crosses_the_link_once() -> None:
    """40,000 bytes that were spilled come back in five tiles."""
    net = Net()
    x, big = net.tensor("net.x", 1, 500), net.tensor("net.big", 40, 500)
    net.vector(x, big, 500, m=40)
    net.b.op(Kind.SEND, "net", [Operand(big, 500)], [Operand(big, 500)], m=40, n=500)
    run = run_trace(machine(), net.build())
    sent = tasks(run, 1, TaskKind.LINK)
    assert len(sent) == 5
    assert int(run.lowered.graph.duration[sent].sum()) == cost_cycles(run, 1) == 4000


def test_an_operation_without_rows_only_passes_on_what_it_waits_for() -> None:
    net = Net()
    x, y, z = (net.tensor(f"net.{name}", 3, 100) for name in "xyz")
    net.vector(x, y, 100, m=3)
    net.vector(y, z, 100, m=0)
    net.vector(z, x, 100, m=3)
    run = run_trace(machine(), net.build())
    (idle,) = np.flatnonzero(run.lowered.operation == 1)
    assert run.lowered.kind[idle] == TaskKind.WAIT
    assert run.lowered.graph.duration[idle] == 0
    assert run.schedule.start[idle] == run.schedule.end[run.lowered.operation == 0].max()
    assert run.dram_bytes[1] == 0
    assert not run.energy_pj[1].any()
