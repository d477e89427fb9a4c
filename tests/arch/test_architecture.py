"""Figures that follow from an architecture, the origin of its numbers, its digest."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hwsim.arch import Architecture, load_arch
from hwsim.errors import HwsimError
from tests.arch.conftest import WriteFile


def test_the_selected_operating_point_sets_clock_and_energy_scales() -> None:
    fast = load_arch("rapid_4core")
    efficient = load_arch("rapid_4core", {"operating_point": "efficient"})
    assert (fast.clock_hz, efficient.clock_hz) == (1.6e9, 1.0e9)
    assert fast.logic_energy_scale == pytest.approx((0.75 / 0.55) ** 2)
    assert fast.sram_energy_scale == pytest.approx((0.95 / 0.70) ** 2)
    assert fast.leakage_power_w == pytest.approx(0.3 * (0.75 / 0.55) ** 2)
    assert (efficient.logic_energy_scale, efficient.sram_energy_scale) == (1.0, 1.0)
    assert efficient.leakage_power_w == 0.3


def test_without_its_own_supply_the_memory_takes_that_of_the_logic(change: WriteFile) -> None:
    points = "operating_points: {low: {source: s, clock_hz: 5e8, core_voltage_v: 0.6}}\noperating_point: low"
    arch = load_arch(change(points))
    assert arch.sram_energy_scale == arch.logic_energy_scale == pytest.approx((0.6 / 0.8) ** 2)


def test_macs_of_an_array_are_its_engines_lanes_and_depth() -> None:
    rapid = load_arch("rapid_4core")
    assert rapid.native_formats == ("fp16", "hfp8", "int4", "int2")
    assert [rapid.array_format(fmt).macs_per_cycle for fmt in rapid.native_formats] == [512, 1024, 4096, 8192]
    assert (rapid.array_format("int4").inner_per_cycle, rapid.array_format("int4").outputs_per_cycle) == (
        64,
        64,
    )
    assert rapid.macs_per_cycle("int4") == 4 * 2 * 4096


@pytest.mark.parametrize(
    ("name", "fmt", "computed"),
    [
        ("rapid_4core", "int4", "int4"),
        ("rapid_4core", "int8", "fp16"),
        ("rapid_4core", "int3", "int4"),
        ("rapid_4core", "int1", "int2"),
        ("systolic_128", "int4", "int8"),
        ("edge_npu", "int2", "int4"),
    ],
)
def test_a_format_is_computed_natively_or_by_its_fallback(name: str, fmt: str, computed: str) -> None:
    assert load_arch(name).compute_format(fmt) == computed


def test_a_format_without_fallback_is_refused() -> None:
    with pytest.raises(HwsimError) as raised:
        load_arch("rapid_4core", {"array.fallback": "{}"}).peak_ops_per_s("int8")
    assert str(raised.value) == (
        "rapid_4core cannot compute int8: it computes fp16, hfp8, int4, int2; no fallback for int8 in its file"
    )


@settings(max_examples=20, deadline=None)
@given(cores=st.integers(1, 64), clock_hz=st.floats(1e6, 1e10))
def test_the_peak_is_proportional_to_cores_and_clock(cores: int, clock_hz: float) -> None:
    changed = {"cores": str(cores), "operating_points.fast.clock_hz": repr(clock_hz)}
    assert load_arch("rapid_4core", changed).peak_ops_per_s("int4") == 2 * cores * 8192 * clock_hz


def test_a_scratchpad_of_each_core_counts_once_per_core() -> None:
    assert load_arch("rapid_4core").scratchpad_bytes == 4 * 2**21
    shared = load_arch("rapid_4core", {"memory.scratchpad.scope": "shared"})
    assert shared.scratchpad_bytes == 2**21


def test_assumptions_and_sources_say_where_each_number_comes_from() -> None:
    rapid = load_arch("rapid_4core")
    assumed = {path: (value, text) for path, value, text in rapid.assumptions()}
    bandwidth, why = assumed["dram.bandwidth_bytes_per_s"]
    assert bandwidth == 68.3e9
    assert why.startswith("LPDDR4X-4266 on 128 bits")
    assert "array.formats.int4.rows" not in assumed
    sourced = {path: text for path, _, text in rapid.sources()}
    assert sourced["array.formats.int4.rows"] == sourced["array.formats.int4.columns"]
    assert sourced["cores"] == "RaPiD, ISSCC 2021 paper 9.1 (title)"


def test_the_way_networks_are_called_is_an_assumption_of_its_own() -> None:
    for text, value in (("false", 0.0), ("true", 1.0)):
        arch = load_arch("rapid_4core", {"host.persistent_kernel": text, "host.calls_assumption": "a guess"})
        assert arch.assumptions()[-1] == ("host.persistent_kernel", value, "a guess")


def test_an_architecture_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        setattr(load_arch("rapid_4core").cores, "value", 8)  # noqa: B010


def test_the_digest_depends_on_the_content_alone(write: WriteFile) -> None:
    rapid = load_arch("rapid_4core")
    again = write("# another file\nextends: rapid_4core\nname: rapid_4core\ndescription: >-\n  RaPiD\n")
    renamed = load_arch(again).model_copy(update={"description": rapid.description})
    assert renamed.digest == load_arch("rapid_4core").digest == rapid.digest
    assert len(rapid.digest) == 64
    reversed_keys = dict(reversed(list(rapid.model_dump().items())))
    assert Architecture.model_validate(reversed_keys).digest == rapid.digest
    assert pickle.loads(pickle.dumps(rapid)).digest == rapid.digest


@pytest.mark.parametrize(
    ("dotted", "text"), [("cores", "2"), ("cores", "4"), ("operating_point", "efficient"), ("name", "other")]
)
def test_the_digest_changes_with_any_value_or_origin(dotted: str, text: str) -> None:
    assert load_arch("rapid_4core", {dotted: text}).digest != load_arch("rapid_4core").digest
