"""What every shipped architecture keeps, and the published figures of RaPiD."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from hwsim import catalogue
from hwsim.arch import Architecture, architecture_names, load_arch
from hwsim.arch.export import json_schema, schema_text
from hwsim.arch.quantity import ORIGIN_KEYS, is_number, quantities
from hwsim.config import read_document

CALLS = "host.persistent_kernel"
"""A switch, listed among the assumptions beside the numbers."""

NAMES = (
    "analog_14nm_34tile", "analog_14nm_5chip", "analog_projected", "edge_npu", "edge_npu_sparse", "edge_npu_stream",
    "hermes_64core", "hybrid_analog_digital", "rapid_1core", "rapid_4core", "systolic_128",
)  # fmt: skip


def test_the_catalogue_lists_these_architectures() -> None:
    assert architecture_names() == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_file_is_named_as_its_architecture(name: str) -> None:
    assert load_arch(name).name == name


@pytest.mark.parametrize("name", NAMES)
def test_every_number_has_one_origin(name: str) -> None:
    arch = load_arch(name)
    found = list(quantities(arch))
    assert all(bool(number.source) != bool(number.assumption) for _, number in found)
    assert len(found) == len(arch.assumptions()) - 1 + len(arch.sources())
    assert len({path for path, _ in found}) == len(found)


def _loose_numbers(node: Any, path: str) -> list[str]:
    if is_number(node):
        return [path]
    if isinstance(node, dict) and not (set(node) >= {"value"} and set(node) & set(ORIGIN_KEYS)):
        return [hit for key, child in node.items() for hit in _loose_numbers(child, f"{path}.{key}")]
    return []


@pytest.mark.parametrize("name", NAMES)
def test_no_number_stands_outside_a_quantity(name: str) -> None:
    assert _loose_numbers(load_arch(name).model_dump(exclude_none=True), name) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_origins_are_sentences_and_paths_that_can_be_set(name: str) -> None:
    arch = load_arch(name)
    origins = arch.assumptions() + arch.sources()
    assert all(len(text) >= 5 for _, _, text in origins)
    changed = load_arch(name, {path: repr(value) for path, value, _ in origins})
    assert changed.sources() == []
    numbers = [(path, number.value) for path, number in quantities(arch)]
    assert [(path, value) for path, value, _ in changed.assumptions()] == [
        *numbers,
        (CALLS, float(arch.host.persistent_kernel)),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_file_begins_with_its_schema_and_fits_it(name: str) -> None:
    path = catalogue.find("arch_configs", "architecture", name)
    assert path.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=schema.json\n")
    Draft202012Validator(json_schema()).validate(read_document(path).data)


def test_the_committed_schema_is_current() -> None:
    committed = (catalogue.data_folder("arch_configs") / catalogue.SCHEMA_FILE).read_text(encoding="utf-8")
    assert committed == schema_text(), "run: python -c 'from hwsim.arch.export import *; write_json_schema()'"
    Draft202012Validator.check_schema(json.loads(committed))


@pytest.mark.parametrize(
    "data",
    [
        {"name": "x"},
        {"extends": "rapid_4core", "name": "x"},
        {"extends": "rapid_4core", "name": "x", "description": "d", "cores": {"value": 0, "source": "s"}},
        {"extends": "rapid_4core", "name": "x", "description": "d", "cores": {"value": 2}},
        {"extends": "rapid_4core", "name": "x", "description": "d", "dram": {"bandwith": 1}},
        {"extends": "rapid_4core", "name": "x", "description": "d", "array": {"dataflow": "ws"}},
    ],
)
def test_the_schema_refuses(data: dict[str, Any]) -> None:
    assert not Draft202012Validator(json_schema()).is_valid(data)


@pytest.mark.parametrize(
    ("fmt", "tops"), [("fp16", 13.1), ("hfp8", 26.2), ("int4", 104.9), ("int2", 209.7), ("int8", 13.1)]
)
def test_rapid_reaches_its_published_peak(fmt: str, tops: float) -> None:
    """RaPiD, JSSC 57(1), 2022, at 1.6 GHz; INT2 is assumed, INT8 runs as FP16. Rounded as printed."""
    assert round(load_arch("rapid_4core").peak_ops_per_s(fmt) / 1e12, 1) == tops


BITS = {"fp16": 16, "hfp8": 8, "int4": 4}


def efficiency_tops_per_w(arch: Architecture, fmt: str) -> float:
    """Peak over chip power for a large weight-stationary GEMM, TOPS/W, without DRAM.

    Per array and cycle: one activation row of `inner_per_cycle` elements is read and shared by the columns;
    `outputs_per_cycle` accumulators are written once for each block, whose depth is what the register block
    holds for them. Weights are read once per block, which vanishes for many rows.
    """
    array, scratchpad = arch.array_format(fmt), arch.memory.scratchpad
    blocks = arch.array.weight_blocks
    assert blocks is not None
    depth = 8 * blocks.register_block_bytes.value / (array.outputs_per_cycle * BITS[fmt])
    read_bits = array.inner_per_cycle * BITS[fmt]
    cycles_per_output = depth / array.inner_per_cycle
    written_bits = array.outputs_per_cycle * array.accumulator_bits.value / cycles_per_output
    array_pj = array.macs_per_cycle * array.energy_pj_per_mac.value * arch.logic_energy_scale
    scratchpad_pj = arch.sram_energy_scale * (
        read_bits * scratchpad.read_energy_pj_per_bit.value + written_bits * scratchpad.write_energy_pj_per_bit.value
    )
    arrays = arch.cores.value * arch.array.arrays_per_core.value
    power_w = arrays * (array_pj + scratchpad_pj) * 1e-12 * arch.clock_hz + arch.leakage_power_w
    return arch.peak_ops_per_s(fmt) / 1e12 / power_w


@pytest.mark.parametrize(
    ("fmt", "point", "published", "tolerance"),
    [
        ("int4", "efficient", 16.5, 0.01),
        ("hfp8", "efficient", 3.5, 0.01),
        ("hfp8", "fast", 1.9, 0.05),
    ],
)
def test_rapid_reaches_its_published_efficiency(fmt: str, point: str, published: float, tolerance: float) -> None:
    """ISCA 2021, abstract: 16.5 TOPS/W and 3.5 TFLOPS/W, which the table was made from; ISSCC 2021: 1.9."""
    arch = load_arch("rapid_4core", {"operating_point": point})
    assert efficiency_tops_per_w(arch, fmt) == pytest.approx(published, rel=tolerance)


def test_the_operands_of_a_peak_gemm_fit_the_scratchpad_bandwidth() -> None:
    for name in NAMES:
        arch = load_arch(name)
        arrays = arch.array.arrays_per_core.value
        for fmt in set(arch.native_formats) & {"int8", *BITS}:
            bits = arrays * arch.array_format(fmt).inner_per_cycle * {"int8": 8, **BITS}[fmt]
            assert bits <= 8 * arch.memory.scratchpad.bandwidth_bytes_per_cycle.value, (name, fmt)


def test_the_edge_npu_is_smaller_than_the_published_models() -> None:
    """Zhen et al., SLT 2022: 20.83 MB at 5 bit; weights are read again at every call."""
    edge = load_arch("edge_npu")
    assert edge.scratchpad_bytes < 20.83e6
    assert not edge.memory.weight_residency
