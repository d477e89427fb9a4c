"""Products on several cores: the split, and the bounds that no split may beat."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hwsim.arch import Architecture, load_arch
from hwsim.cost.matmul import SPLITS, ProductCosts, Products, product_costs
from hwsim.cost.transfer import gather_cycles

MACHINES = (("rapid_4core", "int4"), ("rapid_4core", "fp16"), ("systolic_128", "int8"), ("edge_npu", "int4"))
BITS = {"int4": 4, "int8": 8, "fp16": 16}
machines = st.sampled_from(MACHINES)


@cache
def machine(name: str, cores: int = 0) -> Architecture:
    return load_arch(name, {"cores": str(cores)} if cores else None)


def cost(arch: Architecture, fmt: str, m: int, k: int, n: int, *, batch: int = 1, cores: int | None = None,
         copies: bool = True, bits: int | None = None) -> ProductCosts:  # fmt: skip
    def one(value: int) -> np.ndarray:
        return np.array([value], dtype=np.int64)

    cores = arch.cores.value if cores is None else cores
    bits = BITS[fmt] if bits is None else bits
    products = Products(one(m), one(k), one(n), one(batch), one(cores), one(bits), one(bits), np.array([copies]))
    return product_costs(arch, fmt, products)


def cycles(costs: ProductCosts) -> int:
    return int((costs.stream_cycles + costs.load_cycles + costs.overhead_cycles)[0])


@settings(max_examples=100, deadline=None)
@given(machines, st.integers(1, 200), st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 4), st.booleans())
def test_no_product_beats_the_macs_of_its_cores(
    named: tuple[str, str], m: int, k: int, n: int, batch: int, copies: bool
) -> None:
    arch, fmt = machine(named[0]), named[1]
    for cores in range(1, arch.cores.value + 1):
        found = cost(arch, fmt, m, k, n, batch=batch, cores=cores, copies=copies)
        per_core = arch.macs_per_cycle(fmt) // arch.cores.value
        assert cycles(found) * cores * per_core >= m * k * n * batch
        assert found.stream_cycles[0] > 0
        assert min(found.load_cycles[0], found.overhead_cycles[0], found.reduce_bytes[0]) >= 0


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(("int4", "fp16")), st.integers(1, 300), st.integers(256, 3000), st.integers(256, 3000),
       st.booleans())  # fmt: skip
@example("int4", 169, 769, 257, False)
def test_more_cores_are_never_slower(fmt: str, m: int, k: int, n: int, copies: bool) -> None:
    """With the exchange of partial sums, on a ring of as many cores as work."""
    times = []
    for cores in (1, 2, 4):
        arch = machine("rapid_4core", cores)
        found = cost(arch, fmt, m, k, n, copies=copies)
        times.append(cycles(found) + int(gather_cycles(arch, found.reduce_bytes)[0]))
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize(
    ("sizes", "split"),
    [
        ({"m": 1, "k": 640, "n": 2560}, "n"),
        ({"m": 1, "k": 8192, "n": 64}, "k"),
        ({"m": 512, "k": 64, "n": 64}, "m"),
        ({"m": 16, "k": 64, "n": 64, "batch": 8}, "batch"),
    ],
)
def test_the_long_dimension_is_split(sizes: dict[str, Any], split: str) -> None:
    found = cost(machine("rapid_4core"), "int4", **sizes)
    assert SPLITS[int(found.core_split[0])] == split


def test_rows_are_not_split_when_each_core_holds_a_part_of_the_weights() -> None:
    arch = machine("rapid_4core")
    free, fixed = (cost(arch, "int4", 512, 64, 64, copies=copies) for copies in (True, False))
    assert SPLITS[int(free.core_split[0])] == "m"
    assert SPLITS[int(fixed.core_split[0])] != "m"
    assert cycles(fixed) >= cycles(free)
    assert SPLITS[int(cost(arch, "int4", 512, 64, 64, cores=1, copies=False).core_split[0])] == "n"


def test_partial_sums_cross_the_ring_only_when_k_is_split_over_cores() -> None:
    arch = machine("rapid_4core")
    assert cost(arch, "int4", 2, 8192, 64).reduce_bytes.tolist() == [2 * 64 * 4]
    assert cost(arch, "int4", 2, 8192, 64, cores=1).reduce_bytes.tolist() == [0]
    assert cost(arch, "int4", 1, 640, 2560).reduce_bytes.tolist() == [0]


def test_mac_energy_is_that_of_every_mac_whatever_the_split() -> None:
    arch = machine("rapid_4core")
    per_mac = arch.array.formats["int4"].energy_pj_per_mac.value
    for cores in (1, 2, 4):
        found = cost(arch, "int4", 7, 100, 300, batch=3, cores=cores)
        assert found.mac_energy_pj.tolist() == [pytest.approx(7 * 100 * 300 * 3 * per_mac)]


@settings(max_examples=60, deadline=None)
@given(machines, st.integers(1, 64), st.integers(1, 2000), st.integers(1, 2000))
def test_every_operand_passes_the_scratchpad_at_least_once(named: tuple[str, str], m: int, k: int, n: int) -> None:
    arch, fmt = machine(named[0]), named[1]
    found = cost(arch, fmt, m, k, n)
    bits = BITS[fmt]
    accumulator = arch.array.formats[fmt].accumulator_bits.value
    assert found.scratchpad_read_bits[0] >= bits * (k * n + m * k)
    assert found.scratchpad_write_bits[0] >= accumulator * m * n


def test_a_product_of_one_array_by_hand() -> None:
    """systolic_128: two folds of k, one of n; every partial sum is written twice and read once."""
    found = cost(machine("systolic_128"), "int8", 5, 200, 100)
    assert cycles(found) == 2 * (5 + 2 * 128 + 128 - 2)
    assert (found.stream_cycles[0], found.load_cycles[0], found.overhead_cycles[0]) == (10, 256, 508)
    assert found.scratchpad_read_bits.tolist() == [8 * (200 * 100 + 5 * 200) + 32 * 5 * 100]
    assert found.scratchpad_write_bits.tolist() == [2 * 32 * 5 * 100]
