from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.report import units


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.05898, "0.0590"), (4.363, "4.36"), (157.9, "158"), (61_432, "61,400"), (9.999, "10.0"), (99.96, "100"),
     (0.0009999, "0.00100"), (-12.345, "-12.3"), (0, "0"), (math.nan, "nan")],
)  # fmt: skip
def test_significant_digits(value: float, shown: str) -> None:
    assert units.significant(value) == shown


@given(st.floats(1e-6, 1e12))
def test_significant_digits_stay_close(value: float) -> None:
    assert float(units.significant(value).replace(",", "")) == pytest.approx(value, rel=0.005)


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [(68.3e9, "B/s", "68.3 GB/s"), (999.9e6, "Hz", "1.00 GHz"), (8e-12, "J", "8.00 pJ"), (0.1793, "s", "179 ms"),
     (2e-6, "s", "2.00 µs"), (0, "s", "0 s"), (5e-15, "s", "0.00500 ps"), (2e18, "B", "2,000 PB")],
)  # fmt: skip
def test_si_prefixes(value: float, unit: str, shown: str) -> None:
    assert units.si(value, unit) == shown


@pytest.mark.parametrize(
    ("size", "shown"),
    [(512, "512 B"), (65536, "64 KiB"), (2**21, "2 MiB"), (3 * 2**29, "1.5 GiB"), (700_000, "683.6 KiB")],
)
def test_memory_sizes(size: int, shown: str) -> None:
    assert units.binary_bytes(size) == shown


def test_peak_rates_name_their_operations() -> None:
    assert units.rate(104.8576e12, "int4") == "104.9 TOPS int4"
    assert units.rate(13.1072e12, "fp16") == "13.1 TFLOPS fp16"
    assert units.rate(26.2144e12, "hfp8") == "26.2 TFLOPS hfp8"


@pytest.mark.parametrize(
    ("largest", "decimals"), [(0, 3), (0.01, 3), (8.7, 3), (57.4, 3), (179.3, 2), (10_456, 0), (1e7, 0)]
)
def test_decimals_of_a_column(largest: float, decimals: int) -> None:
    assert units.column_decimals(largest) == decimals


def test_small_forms() -> None:
    assert units.fixed(1234.567, 1) == "1,234.6"
    assert (units.percent(1, 3), units.percent(1, 3, 0), units.percent(1, 0)) == ("33.3", "33", "–")
    assert (units.signed(11.4, 0), units.signed(-1.66, 1), units.signed(-0.01, 1)) == ("+11", "-1.7", "0")
    assert (units.number(2097152), units.number(6.83e10), units.number(0.5)) == ("2097152", "6.83e+10", "0.5")
    assert (units.plural(1, "core"), units.plural(1200, "core")) == ("1 core", "1,200 cores")
