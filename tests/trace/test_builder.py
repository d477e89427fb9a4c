"""Dependencies, loops and refusals of the trace builder."""

from __future__ import annotations

import numpy as np
import pytest

from hwsim.errors import HwsimError
from hwsim.trace import Function, Kind, Role, Trace, TraceBuilder
from hwsim.trace.builder import Operand


def dependencies(trace: Trace) -> list[list[int]]:
    return [trace.dep[a:b].tolist() for a, b in zip(trace.dep_ptr, trace.dep_ptr[1:], strict=False)]


def operands(trace: Trace, op: int) -> list[tuple[str, int, bool]]:
    return [
        (trace.tensors[trace.operand_tensor[e]].name, int(trace.operand_elements[e]), bool(trace.operand_write[e]))
        for e in range(trace.operand_ptr[op], trace.operand_ptr[op + 1])
    ]


def builder(*names: str, rows: int = 4, width: int = 2) -> tuple[TraceBuilder, list[int]]:
    b = TraceBuilder("t")
    return b, [b.tensor(f"net.{name}", Role.ACTIVATION, (rows, width)) for name in names]


def copy(b: TraceBuilder, x: int, out: int, m: int | np.ndarray = 1, after: tuple[int, ...] = ()) -> int:
    reads, writes = [Operand(x, per_row=2)], [Operand(out, per_row=2)]
    return b.op(Kind.ELEMENTWISE, "net", reads, writes, m=m, n=2, function=Function.RELU, after=after)


def test_a_reader_waits_for_the_last_writer() -> None:
    b, (x, y, z) = builder("x", "y", "z")
    copy(b, x, y)
    copy(b, x, y)
    copy(b, y, z)
    copy(b, x, z)
    assert dependencies(b.build()) == [[], [], [1], []]


def test_inside_a_loop_a_reader_waits_for_the_same_iteration_else_the_one_before() -> None:
    b, (x, state, out) = builder("x", "state", "out")
    with b.loop(3):
        copy(b, state, out)  # the state of the iteration before
        copy(b, out, state)  # written in this iteration
    assert dependencies(b.build()) == [[], [0], [1], [2], [3], [4]]
    assert x == 0


def test_the_first_iteration_reads_what_was_written_before_the_loop() -> None:
    b, (x, state, out) = builder("x", "state", "out")
    first = copy(b, x, state)
    with b.loop(3):
        copy(b, state, out)
        copy(b, out, state)
    assert dependencies(b.build()) == [[], [first], [1], [2], [3], [4], [5]]


def test_every_iteration_reads_what_only_the_outside_writes() -> None:
    b, (x, y, z) = builder("x", "y", "z")
    copy(b, x, y)
    copy(b, x, z)
    with b.loop(3):
        copy(b, y, z)
    assert dependencies(b.build()) == [[], [], [0], [0], [0]]


def test_after_a_loop_the_last_iteration_is_read() -> None:
    b, (x, y, z) = builder("x", "y", "z")
    with b.loop(4):
        copy(b, x, y)
        copy(b, x, z)
    copy(b, y, x)
    assert dependencies(b.build())[-1] == [6]


def test_a_tensor_that_is_read_and_written_by_one_operation_chains_its_iterations() -> None:
    b, (x, _) = builder("x", "y")
    with b.loop(3):
        copy(b, x, x)
    assert dependencies(b.build()) == [[], [0], [1]]


def test_after_names_an_operation_of_the_same_iteration_or_from_before_the_loop() -> None:
    b, (x, y, z) = builder("x", "y", "z")
    outside = copy(b, x, y)
    with b.loop(3):
        inside = copy(b, x, z)
        assert b.last == inside == 1
        copy(b, x, z, after=(inside, outside))
    assert b.last == 6
    assert dependencies(b.build()) == [[], [], [0, 1], [], [0, 3], [], [0, 5]]


def test_a_loop_repeats_its_operations_with_their_own_row_counts() -> None:
    b, (x, y, z) = builder("x", "y", "z")
    copy(b, x, y, m=4)
    with b.loop(3):
        copy(b, x, y, m=np.array([2, 0, 3]))
        copy(b, y, z)
    with b.loop(2):
        copy(b, y, z, m=2)
    trace = b.build()
    assert trace.m.tolist() == [4, 2, 1, 0, 1, 3, 1, 2, 2]
    assert trace.loop.tolist() == [-1, 0, 0, 0, 0, 0, 0, 1, 1]
    assert trace.iteration.tolist() == [-1, 0, 0, 1, 1, 2, 2, 0, 1]
    assert trace.layers == ("net",)


def test_an_operation_without_rows_touches_nothing_and_still_orders_its_neighbours() -> None:
    b, (x, y, z) = builder("x", "y", "z")
    weight = b.tensor("net.w", Role.WEIGHT, (2, 2))
    with b.loop(2):
        b.matmul("net", [x], weight, y, m=np.array([0, 3]))
        copy(b, y, z)
    trace = b.build()
    assert operands(trace, 0) == [("net.x", 0, False), ("net.w", 0, False), ("net.y", 0, True)]
    assert operands(trace, 2) == [("net.x", 6, False), ("net.w", 4, False), ("net.y", 6, True)]
    assert dependencies(trace) == [[], [0], [], [2]]


def test_a_matmul_reads_its_inputs_side_by_side_its_weight_and_its_bias() -> None:
    b, (x, y) = builder("x", "y", rows=5, width=3)
    weight = b.tensor("net.w", Role.WEIGHT, (7, 6))
    bias = b.tensor("net.b", Role.BIAS, (6,))
    out, token = b.tensor("net.out", Role.ACTIVATION, (5, 6)), b.tensor("net.token", Role.STATE, (1,))
    b.matmul("net", [x, y], weight, out, m=5, bias=bias, needs=[token])
    trace = b.build()
    assert (trace.m[0], trace.k[0], trace.n[0], trace.batch[0]) == (5, 7, 6, 1)
    assert operands(trace, 0) == [
        ("net.x", 20, False), ("net.y", 15, False), ("net.w", 42, False), ("net.b", 6, False),
        ("net.token", 0, False), ("net.out", 30, True),
    ]  # fmt: skip


def test_what_is_needed_is_waited_for() -> None:
    b, (x, y) = builder("x", "y")
    token, weight = b.tensor("net.token", Role.STATE, (1,)), b.tensor("net.w", Role.WEIGHT, (2, 2))
    host = b.op(Kind.HOST, "net", [], [Operand(token, fixed=1)], m=1)
    b.matmul("net", [x], weight, y, m=1, needs=[token])
    assert dependencies(b.build()) == [[], [host]]


def test_a_tensor_belongs_to_the_layer_of_its_name_unless_one_is_given() -> None:
    b = TraceBuilder("t")
    x = b.tensor("encoder.layer0.wx", Role.ACTIVATION, (1, 2))
    y = b.tensor("encoder.layer0.forward_wx", Role.ACTIVATION, (1, 2), "encoder.layer1")
    copy(b, x, y)
    trace = b.build()
    assert [t.layer for t in trace.tensors] == ["encoder.layer0", "encoder.layer1"]
    assert [t.component for t in trace.tensors] == ["encoder", "encoder"]
    assert trace.components == ("net",)


def test_a_nested_loop_is_refused_and_leaves_the_builder_usable() -> None:
    b, (x, y) = builder("x", "y")
    with pytest.raises(HwsimError, match=r"^loops of a trace must not be nested$"), b.loop(2), b.loop(2):
        pass
    copy(b, x, y)
    assert b.build().loop.tolist() == [-1]


def test_an_empty_loop_adds_nothing() -> None:
    b, (x, y) = builder("x", "y")
    with b.loop(2):
        pass
    with b.loop(2):
        copy(b, x, y)
    assert b.build().loop.tolist() == [0, 0]


@pytest.mark.parametrize("count", [0, -3])
def test_a_loop_without_iterations_is_refused(count: int) -> None:
    b, _ = builder("x")
    with pytest.raises(HwsimError, match=f"^a loop must have at least 1 iteration, got {count}$"), b.loop(count):
        pass


@pytest.mark.parametrize(
    ("shape", "shown"), [((), "()"), ((4, 0), "(4, 0)"), ((2, -1), "(2, -1)"), ((1, 1, 1, 1, 1), "(1, 1, 1, 1, 1)")]
)
def test_a_bad_shape_is_refused(shape: tuple[int, ...], shown: str) -> None:
    with pytest.raises(HwsimError) as raised:
        TraceBuilder("t").tensor("net.x", Role.ACTIVATION, shape)
    assert str(raised.value) == f"tensor net.x: shape must have 1 to 4 sizes of at least 1, got {shown}"


def test_a_tensor_that_is_declared_twice_is_refused() -> None:
    b, _ = builder("x")
    with pytest.raises(HwsimError, match=r"^tensor net\.x: name must be given once, got it twice$"):
        b.tensor("net.x", Role.STATE, (1,))


def test_row_counts_must_be_one_or_as_many_as_iterations() -> None:
    b, (x, y) = builder("x", "y")
    with pytest.raises(HwsimError, match=r"^operation 0 of its block: m must be one number, got 2$"):
        copy(b, x, y, m=np.array([1, 2]))
    said = r"^operation 1 of its block: m must be one number or 3 of them, got 2$"
    with pytest.raises(HwsimError, match=said):
        two_copies_of_three_iterations(b, x, y, np.array([1, 2, 3]), np.array([1, 2]))


def two_copies_of_three_iterations(b: TraceBuilder, x: int, y: int, *rows: np.ndarray) -> None:
    with b.loop(3):
        for m in rows:
            copy(b, x, y, m=m)


def test_a_trace_without_operations_is_refused() -> None:
    with pytest.raises(HwsimError, match=r"^trace t: must have at least one operation, got none$"):
        TraceBuilder("t").build()


def test_what_is_built_carries_its_meta() -> None:
    b = TraceBuilder("t", {"frames": 3})
    copy(b, *[b.tensor(f"net.{name}", Role.STATE, (1, 2)) for name in "xy"])
    trace = b.build()
    assert (trace.name, trace.meta, len(trace)) == ("t", {"frames": 3}, 1)
