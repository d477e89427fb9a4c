"""Codebooks and N:M sparse weights on machines that expand them, skip their zeros, or neither; by hand."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.arch import Architecture, load_arch
from hwsim.cost.matmul import ProductCosts, Products, product_costs
from hwsim.cost.storage import weight_storage
from hwsim.errors import HwsimError
from hwsim.numerics import NumberFormat
from hwsim.simulation import simulate

FORMATS = ("int8", "int4", "codebook5", "int8/2:4", "int8/1:4", "int8/2:8", "int8/1:4-index", "codebook5/2:4")


@cache
def machine(name: str, changes: tuple[tuple[str, str], ...] = ()) -> Architecture:
    return load_arch(name, dict(changes))


def cost(arch: Architecture, text: str, m: int, k: int, n: int) -> ProductCosts:
    fmt = NumberFormat.parse(text)

    def one(value: int) -> np.ndarray:
        return np.array([value], dtype=np.int64)

    storage = weight_storage(arch, [fmt], "int8")
    products = Products(one(m), one(k), one(n), one(1), one(arch.cores.value), one(fmt.code_bits), one(8),
                        np.array([True]), storage)  # fmt: skip
    return product_costs(arch, "int8", products)


def cycles(costs: ProductCosts) -> int:
    return int((costs.stream_cycles + costs.load_cycles + costs.overhead_cycles)[0])


@pytest.mark.parametrize(
    ("text", "bits"),
    [("int4", 4), ("codebook5", 5), ("int4/2:4", 3), ("int4/2:4-index", 3), ("int4/1:4", 2), ("int4/1:4-index", 1.5)],
)
def test_a_weight_takes_the_scratchpad_bits_of_its_codes_and_its_place(text: str, bits: float) -> None:
    storage = weight_storage(machine("edge_npu"), [NumberFormat.parse(text)], "int8")
    assert storage.bits.tolist() == [bits]


@pytest.mark.parametrize(
    ("text", "share"),
    [("int8", (1, 1)), ("int8/2:4", (2, 4)), ("int8/1:4", (2, 4)), ("int8/3:4", (1, 1)), ("int8/2:8", (1, 1))],
)
def test_zeros_are_skipped_in_the_pattern_of_the_machine(text: str, share: tuple[int, int]) -> None:
    fmt = NumberFormat.parse(text)
    storage = weight_storage(machine("edge_npu_sparse"), [fmt], "int8")
    assert (storage.keep[0], storage.group[0]) == share
    dense = weight_storage(machine("edge_npu"), [fmt], "int8")
    assert (dense.keep[0], dense.group[0]) == (1, 1)


def test_skipping_zeros_halves_the_folds_by_hand() -> None:
    """k = 128 is four folds of 32 dense and two sparse; a fold of m rows takes m + 2 x 32 + 32 - 2 cycles."""
    arch = machine("edge_npu_sparse")
    assert cycles(cost(arch, "int8", 100, 128, 32)) == 4 * (100 + 94)
    assert cycles(cost(arch, "int8/2:4", 100, 128, 32)) == 2 * (100 + 94)
    assert cycles(cost(machine("edge_npu"), "int8/2:4", 100, 128, 32)) == 4 * (100 + 94)


def test_macs_that_are_done_cost_energy_and_those_skipped_do_not() -> None:
    sparse, dense = (cost(machine(name), "int8/2:4", 10, 128, 32) for name in ("edge_npu_sparse", "edge_npu"))
    assert sparse.mac_energy_pj.tolist() == [pytest.approx(10 * 64 * 32 * (0.16 + 0.016))]
    assert dense.mac_energy_pj.tolist() == [pytest.approx(10 * 128 * 32 * 0.16)]
    assert sparse.decode_energy_pj.tolist() == [pytest.approx(64 * 32 * 0.1)]
    assert dense.decode_energy_pj.tolist() == [pytest.approx(128 * 32 * 0.1)]


def test_the_decoder_limits_how_fast_weights_reach_the_array() -> None:
    """Outputs stay and a row of weights enters each cycle: 128 cycles for 128 x 32; 4 weights a cycle take 1,024."""
    slow = (("array.weight_decoder.weights_per_cycle", "4"),)
    assert cycles(cost(machine("edge_npu_stream"), "codebook5", 1, 128, 32)) == 128
    found = cost(machine("edge_npu_stream", slow), "codebook5", 1, 128, 32)
    assert (cycles(found), found.stream_cycles[0], found.load_cycles[0]) == (1024, 128, 896)
    assert cycles(cost(machine("edge_npu_stream", slow), "int8", 1, 128, 32)) == 128


def test_codes_are_read_and_bytes_pass_the_operand_buffer() -> None:
    found = cost(machine("edge_npu"), "codebook5", 1, 32, 32)
    assert found.scratchpad_read_bits.tolist() == [5 * 32 * 32 + 8 * 32]
    assert found.buffer_bits.tolist() == [8 * 32 * 32 + 8 * 32]


def test_without_a_decoder_weights_expand_for_nothing() -> None:
    found = cost(machine("systolic_128"), "codebook5", 1, 128, 128)
    assert found.decode_energy_pj.tolist() == [0.0]
    assert cycles(found) == cycles(cost(machine("systolic_128"), "int8", 1, 128, 128))


NO_ENERGY = ("array.structured_sparsity.energy_pj_per_mac", "0")
STREAM = (("array.dataflow", "output_stationary"), ("array.charge_fill", "false"), ("array.charge_drain", "false"))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FORMATS), st.integers(1, 100), st.integers(1, 400), st.integers(1, 1000), st.booleans())
def test_skipping_zeros_is_never_slower_and_at_most_halves_the_stream(
    text: str, m: int, k8: int, n: int, stream: bool
) -> None:
    dense = cost(machine("edge_npu_stream" if stream else "edge_npu"), text, m, 8 * k8, n)
    sparse = cost(machine("edge_npu_sparse", (NO_ENERGY, *(STREAM if stream else ()))), text, m, 8 * k8, n)
    # Stalls may shrink by more: half of the blocks leave fewer partial sums to read again.
    assert cycles(sparse) <= cycles(dense)
    assert sparse.stream_cycles[0] <= dense.stream_cycles[0] <= 2 * sparse.stream_cycles[0]
    share = 0.5 if text.endswith((":4", ":4-index")) else 1
    assert sparse.mac_energy_pj[0] == pytest.approx(share * dense.mac_energy_pj[0])


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(FORMATS), st.floats(0.5, 200), st.integers(1, 50), st.integers(1, 300), st.integers(1, 500))
def test_a_faster_decoder_is_never_slower(text: str, rate: float, m: int, k8: int, n: int) -> None:
    rates = (rate, 2 * rate)
    found = [
        cost(machine("edge_npu_stream", (("array.weight_decoder.weights_per_cycle", repr(r)),)), text, m, 8 * k8, n)
        for r in rates
    ]
    assert cycles(found[1]) <= cycles(found[0])
    decoded = "codebook" in text or ":" in text
    assert cycles(found[0]) >= (8 * k8 * n / rate if decoded else 0)
    assert found[0].decode_energy_pj[0] == found[1].decode_energy_pj[0]


def test_a_run_counts_decoding_as_energy_of_macs_and_skipped_zeros_as_work() -> None:
    dense, sparse = (simulate("edge_npu_sparse", "rnnt_mlperf", text, frames=20) for text in ("int8", "int8/2:4"))
    assert sparse.latency_s < dense.latency_s
    assert sum(part.macs for part in sparse.components.values()) == sum(p.macs for p in dense.components.values())
    assert all(part.utilization <= 1 for part in sparse.components.values())
    free = load_arch("edge_npu_sparse", {"array.weight_decoder.energy_pj_per_weight": "0"})
    saved = sparse.energy_by_part_j["mac"] - simulate(
        free, "rnnt_mlperf", "int8/2:4", frames=20).energy_by_part_j["mac"]  # fmt: skip
    assert saved > 0


def test_a_pattern_must_leave_something_out() -> None:
    with pytest.raises(HwsimError, match=r"structured_sparsity\.keep must be less than the group of 4, got 4"):
        load_arch("edge_npu_sparse", {"array.structured_sparsity.keep": "4"})
