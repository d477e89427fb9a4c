"""Attention of limited context in windows: what is computed, that nothing seen is left out, what stays as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.execute.executor import Executable
from hwsim.extract import load_workload
from hwsim.extract.encoder_spec import ConformerEncoderSpec
from hwsim.extract.rnnt import emit_encoder
from hwsim.extract.windows import Pairs, all_pairs, windows
from hwsim.simulation import simulate
from hwsim.trace import Function, Kind, Role, Trace, TraceBuilder

HEADS, WIDTH = 3, 12


def trace_of(frames: int, whole: bool = False, **changes: Any) -> Trace:
    values: dict[str, Any] = {
        "kind": "conformer", "input": 10, "subsampling": {"kind": "stack", "factor": 1}, "layers": 1, "width": WIDTH,
        "heads": HEADS, "kernel": 4, "source": "test",
    }  # fmt: skip
    b = TraceBuilder("t")
    emit_encoder(b, ConformerEncoderSpec(**(values | changes)), frames, whole=whole)
    return b.build()


def macs(trace: Trace, *functions: Function) -> int:
    return int(trace.macs[np.isin(trace.function, functions)].sum())


def same(one: Trace, other: Trace) -> bool:
    columns = [(getattr(one, name), getattr(other, name)) for name in
               ("operand_ptr", "operand_tensor", "operand_elements", "operand_write", "dep_ptr", "dep")]  # fmt: skip
    columns += [(one.columns[name], other.columns[name]) for name in one.columns]
    return one.tensors == other.tensors and all(np.array_equal(*pair) for pair in columns)


sides = st.one_of(st.integers(0, 40), st.none())


@given(st.integers(1, 400), sides, sides, st.one_of(st.none(), st.integers(1, 50)))
def test_windows_hold_every_key_that_is_seen_and_never_more_than_all_pairs(
    frames: int, left: int | None, right: int | None, queries: int | None
) -> None:
    found = windows(frames, left, right, queries)
    assert found.rows * found.keys <= frames * frames
    assert found.rows * found.distances <= frames * all_pairs(frames).distances
    if found == all_pairs(frames):
        return
    assert left is not None
    assert right is not None
    assert left + right < frames
    assert found.rows - found.queries < frames <= found.rows
    query = np.arange(frames)
    first_key = query // found.queries * found.queries - left
    assert np.all(query - left >= first_key)
    assert np.all(query + right < first_key + found.keys)
    assert found.distances == len(range(-right, left + 1))


def test_a_block_is_as_long_as_the_longer_side_and_what_covers_the_utterance_is_all_of_it() -> None:
    assert windows(750, 128, 128) == Pairs(6, 128, 384, 257)
    assert windows(750, 0, 64) == Pairs(12, 64, 128, 65)
    assert windows(750, 0, 0) == Pairs(750, 1, 1, 1)
    assert windows(750, 128, 128, 32) == Pairs(24, 32, 288, 257)
    for left, right, queries in ((None, 0, None), (0, None, None), (250, 250, None), (10, 10, 730), (375, 374, 1)):
        assert windows(750, left, right, queries) == all_pairs(750) == Pairs(1, 750, 750, 1499)
    # 740 keys are fewer than 750, but for 6 x 140 queries they are more pairs.
    assert windows(750, 300, 300, 140) == all_pairs(750)


@pytest.mark.parametrize("positions", ["relative", "none"])
@pytest.mark.parametrize("query_block", [None, 7])
def test_macs_are_those_of_the_windows(positions: str, query_block: int | None) -> None:
    """50 frames, 6 before and 2 after: blocks of 6 queries and 14 keys are 9, blocks of 7 and 15 are 8."""
    trace = trace_of(50, left=6, right=2, positions=positions, query_block=query_block)
    whole = trace_of(50, whole=True, left=6, right=2, positions=positions, query_block=query_block)
    rows, keys = (9 * 6, 14) if query_block is None else (8 * 7, 15)
    relative = positions == "relative"
    assert macs(trace, Function.CONTEXT) == WIDTH * rows * keys
    assert macs(trace, Function.SCORES) == WIDTH * rows * (keys + (9 if relative else 0))
    softmax = np.flatnonzero(trace.kind == Kind.SOFTMAX)
    assert [(trace.m[at], trace.n[at]) for at in softmax] == [(HEADS * rows, keys)]
    products = (Function.SCORES, Function.CONTEXT)
    rest = [each.macs.sum() - macs(each, *products) for each in (whole, trace)]
    assert rest[0] - rest[1] == (WIDTH**2 * (99 - 9) if relative else 0)
    shapes = {t.name.removeprefix("encoder.layer0.attention."): t.shape for t in trace.tensors}
    assert shapes["scores"] == shapes["probabilities"] == (HEADS, rows, keys)
    assert shapes["output.out"] == (50, WIDTH)


def test_queries_keys_and_values_are_read_once() -> None:
    trace = trace_of(50, left=6, right=2, positions="none")
    names = [t.name.removeprefix("encoder.layer0.attention.") for t in trace.tensors]
    read = {}
    for op in np.flatnonzero(np.isin(trace.function, (Function.SCORES, Function.CONTEXT))):
        entries = range(trace.operand_ptr[op], trace.operand_ptr[op + 1])
        read |= {names[trace.operand_tensor[e]]: int(trace.operand_elements[e]) for e in entries}
    values, pairs = 50 * WIDTH, HEADS * 9 * 6 * 14
    assert read == {
        "query.out": values, "key.out": values, "value.out": values, "scores": pairs, "probabilities": pairs,
        "context": 9 * 6 * WIDTH,
    }  # fmt: skip


@pytest.mark.parametrize("changes", [{"left": 30, "right": 25}, {"left": 4}, {"right": 0}, {}])
def test_windows_that_cover_everything_and_open_sides_are_all_pairs(changes: dict[str, int]) -> None:
    assert same(trace_of(50, **changes), trace_of(50, whole=True, **changes))


def test_all_pairs_are_executed_and_windows_are_only_timed() -> None:
    limited, free = (trace_of(50, whole=True, **changes) for changes in ({"left": 6, "right": 2}, {}))
    assert same(limited, free)
    assert limited.attributes["encoder.layer0.attention"] == {"left": 6, "right": 2}
    timed = trace_of(50, left=6, right=2)
    codes = {t.name: np.zeros(t.shape) for t in timed.tensors if t.role in (Role.WEIGHT, Role.BIAS)}
    Executable(limited, codes, {})
    with pytest.raises(HwsimError, match=r"layer encoder.layer0.attention\) must have shapes"):
        Executable(timed, codes, {})


def test_attention_of_usm_is_3_percent_of_its_macs() -> None:
    """What its file says; 750 frames of 16 heads in 6 windows of 384 keys, 257 distances."""
    trace = simulate("rapid_4core", load_workload("usm_2b"), "int4", frames=3000).run.trace
    products = macs(trace, Function.SCORES, Function.CONTEXT)
    assert products == 32 * 1536 * 768 * (2 * 384 + 257)
    assert products / trace.macs.sum() == pytest.approx(0.028, abs=0.0005)


def test_a_block_of_queries_needs_a_context_on_both_sides() -> None:
    for changes in ({}, {"left": 4}, {"causal": True, "left": 4, "chunk": 2}):
        with pytest.raises(ValueError, match="such that left and right are given, as it has a query_block"):
            trace_of(9, query_block=4, **changes)
