"""Cycles of one product on one array: SCALE-Sim's for systolic arrays, by hand for register blocks."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.arch import load_arch
from hwsim.arch.blocks import ArrayFormat, MacArray
from hwsim.cost import systolic_cycles
from hwsim.cost.array import array_cycles, blocked, ceil_div, systolic
from hwsim.errors import HwsimError

GOLDEN = Path(__file__).with_name("scalesim_golden.csv")
DATAFLOWS = {"ws": "weight_stationary", "os": "output_stationary", "is": "input_stationary"}
sizes = st.integers(1, 300)


def golden_rows() -> list[dict[str, Any]]:
    with GOLDEN.open(encoding="utf-8") as file:
        return [{key: text if key == "dataflow" else int(text) for key, text in row.items()}
                for row in csv.DictReader(file)]  # fmt: skip


def test_every_row_of_scale_sim_is_met() -> None:
    """SCALE-Sim 3.0.0, CALC mode: compute_cycles is the index of the last cycle, one less than the count."""
    rows = golden_rows()
    assert len(rows) == 150
    assert {row["dataflow"] for row in rows} == set(DATAFLOWS)
    for row in rows:
        sizes = (row["rows"], row["cols"], row["M"], row["K"], row["N"])
        wanted = row["compute_cycles"] + 1
        assert systolic_cycles(row["dataflow"], *sizes) == wanted, row
        assert systolic_cycles(DATAFLOWS[row["dataflow"]], *sizes) == wanted, row


def test_arrays_of_sizes_give_arrays_of_cycles() -> None:
    rows = [row for row in golden_rows() if row["dataflow"] == "ws"]
    columns = [np.array([row[key] for row in rows]) for key in ("rows", "cols", "M", "K", "N")]
    cycles = systolic_cycles("ws", *columns)
    assert np.array_equal(cycles, [row["compute_cycles"] + 1 for row in rows])
    assert isinstance(systolic_cycles("ws", 4, 4, 1, 1, 1), int)


@pytest.mark.parametrize(
    ("dataflow", "cycles"),
    [
        ("ws", 2 * 2 * (5 + 4 + 4 + 3 - 2)),  # k 6 over 4 rows, n 4 over 3 columns, m streams
        ("os", 2 * 2 * (6 + 4 + 3 - 2)),  # m 5 over 4 rows, n 4 over 3 columns, k streams
        ("is", 2 * 2 * (4 + 4 + 4 + 3 - 2)),  # k 6 over 4 rows, m 5 over 3 columns, n streams
    ],
)
def test_a_product_by_hand(dataflow: str, cycles: int) -> None:
    assert systolic_cycles(dataflow, 4, 3, 5, 6, 4) == cycles


def test_an_unknown_dataflow_is_refused() -> None:
    with pytest.raises(HwsimError) as raised:
        systolic_cycles("row_stationary", 4, 4, 1, 1, 1)
    assert str(raised.value) == (
        "dataflow must be weight_stationary, output_stationary or input_stationary, got 'row_stationary'"
    )


@pytest.mark.parametrize(("at", "label"), list(enumerate(("rows", "cols", "m", "k", "n"))))
def test_a_size_below_one_is_refused(at: int, label: str) -> None:
    sizes: list[Any] = [4, 4, 4, 4, 4]
    for value in (0, -2, np.array([3, -2])):
        sizes[at] = value
        with pytest.raises(HwsimError) as raised:
            systolic_cycles("ws", *sizes)
        assert str(raised.value) == f"{label} must be at least 1, got {int(np.min(value))}"


@given(st.sampled_from(tuple(DATAFLOWS)), sizes, sizes, sizes, sizes, sizes)
def test_fill_and_drain_are_parts_of_the_whole(dataflow: str, rows: int, cols: int, m: int, k: int, n: int) -> None:
    whole = systolic(dataflow, rows, cols, m, k, n)
    bare = systolic(dataflow, rows, cols, m, k, n, charge_fill=False, charge_drain=False)
    no_fill, no_drain = (systolic(dataflow, rows, cols, m, k, n, **{switch: False})
                         for switch in ("charge_fill", "charge_drain"))  # fmt: skip
    assert bare.load == bare.overhead == 0
    assert int(bare.total) * rows * cols >= m * k * n
    assert bare.total <= no_fill.total <= whole.total
    assert bare.total <= no_drain.total <= whole.total
    assert whole.total - no_fill.total + whole.total - no_drain.total == whole.total - bare.total


def machine(changes: Mapping[str, Any], fill: bool = True) -> tuple[MacArray, ArrayFormat]:
    """Two arrays of 2 x 2 engines with 2 lanes of 2 MACs: 4 of k and 4 of n a cycle, 4 tiles of int8 a block."""
    array = _machine(tuple(changes.items())).model_copy(update={"charge_fill": fill})
    return array, array.formats["int4"]


@cache
def _machine(changes: tuple[tuple[str, Any], ...]) -> MacArray:
    values: dict[str, Any] = {
        "array.weight_blocks.register_block_bytes": 64,
        "array.weight_blocks.weight_path_bytes_per_cycle": 8,
        "array.weight_blocks.block_swap_cycles": 3,
        "array.weight_blocks.double_buffered_weights": "true",
        **{f"array.formats.int4.{key}": 2 for key in ("rows", "columns", "lanes", "macs_per_lane")},
        **dict(changes),
    }
    return load_arch("rapid_4core", {path: str(value) for path, value in values.items()}).array


SINGLE = {"array.weight_blocks.double_buffered_weights": "false"}


@pytest.mark.parametrize(
    ("m", "k", "n", "changes", "parts"),
    [
        # One tile of 16 bytes: 4 bytes a cycle for this array are 4 cycles to load, m to stream, one swap.
        (1, 4, 4, {}, (1, 4, 3)),
        (9, 4, 4, {}, (9, 4, 3)),
        (9, 4, 4, SINGLE, (9, 4, 3)),
        # Ragged: 5 x 3 needs two tiles, and loads 15 bytes in ceil(15 / 4) cycles.
        (1, 5, 3, {}, (2, 4, 3)),
        # Six tiles in two blocks, 96 bytes: 24 cycles to load; streaming 60 hides all but the first half.
        (10, 8, 12, {}, (60, 12, 6)),
        (10, 8, 12, SINGLE, (60, 24, 6)),
        # The same for one row: the path is the longer one.
        (1, 8, 12, SINGLE, (6, 24, 6)),
        # A whole path for the only array, and a swap that costs nothing.
        (10, 8, 12, {"array.arrays_per_core": 1, "array.weight_blocks.block_swap_cycles": 0}, (60, 6, 0)),
    ],
)
def test_register_blocks_by_hand(m: int, k: int, n: int, changes: Mapping[str, Any], parts: tuple[int, ...]) -> None:
    array, fmt = machine(changes)
    cycles = blocked(array, fmt, 8, m, k, n)
    assert (int(cycles.stream), int(cycles.load), int(cycles.overhead)) == parts
    assert int(array_cycles(array, fmt, 8, m, k, n).total) == sum(parts)


def double_buffered(load: int, stream: int, blocks: int) -> int:
    """Two register blocks in turn, without swaps: load the next one while computing on the other."""
    loaded, computed = [0], [0]
    for block in range(blocks):
        free = computed[block - 1] if block >= 2 else 0
        loaded.append(max(loaded[-1], free) + load)
        computed.append(max(loaded[-1], computed[-1]) + stream)
    return computed[-1]


@given(m=st.integers(1, 60), blocks=st.integers(1, 9))
def test_double_buffered_blocks_are_a_pipeline_of_two(m: int, blocks: int) -> None:
    """Exact where streaming is the longer one; where loading is, the last block's streaming may be left out."""
    array, fmt = machine({})
    k, n = 8, 8 * blocks  # four tiles, 16 cycles to load, m to stream each
    cycles = blocked(array, fmt, 8, m, k, n)
    pipeline = double_buffered(16, 4 * m, blocks)
    found = int(cycles.total - cycles.overhead)
    assert pipeline - 4 * m <= found <= pipeline
    if 4 * m >= 16 or blocks == 1:
        assert found == pipeline


@given(m=sizes, k=sizes, n=sizes, bits=st.sampled_from((2, 4, 8, 16)))
def test_double_buffering_is_never_slower_and_no_array_beats_its_macs_or_its_path(
    m: int, k: int, n: int, bits: int
) -> None:
    (array, fmt), (single, _) = machine({}), machine(SINGLE)
    two, one = blocked(array, fmt, bits, m, k, n), blocked(single, fmt, bits, m, k, n)
    assert two.total <= one.total
    assert two.total * fmt.macs_per_cycle >= m * k * n
    assert two.total * 32 >= k * n * bits


@given(m=sizes, k=sizes, n=sizes)
def test_fewer_bits_are_never_slower_in_register_blocks(m: int, k: int, n: int) -> None:
    array, fmt = machine({})
    cycles = [int(blocked(array, fmt, bits, m, k, n).total) for bits in (1, 2, 4, 8, 16)]
    assert cycles == sorted(cycles)


@given(m=sizes, k=sizes, n=sizes, double=st.booleans())
def test_without_fill_register_blocks_are_faster_but_not_than_their_path(m: int, k: int, n: int, double: bool) -> None:
    switches = {} if double else SINGLE
    (array, fmt), (bare, _) = machine(switches), machine(switches, fill=False)
    fast = blocked(bare, fmt, 8, m, k, n)
    assert fast.total <= blocked(array, fmt, 8, m, k, n).total
    assert fast.total * 32 >= k * n * 8
    assert fast.total * fmt.macs_per_cycle >= m * k * n


@given(m=sizes, k=sizes, n=sizes, fmt=st.sampled_from(("int8", "int4", "fp16")))
def test_a_systolic_machine_counts_its_lanes_and_its_depth(m: int, k: int, n: int, fmt: str) -> None:
    array = edge_array()
    shape = array.formats[fmt]
    depth, lanes = shape.macs_per_lane.value, shape.lanes.value
    rows, columns = shape.rows.value, shape.columns.value
    wanted = systolic_cycles("ws", rows, columns, m, ceil_div(k, depth), ceil_div(n, lanes))
    assert array_cycles(array, shape, 8, m, k, n).total == wanted


@cache
def edge_array() -> MacArray:
    return load_arch("edge_npu").array
