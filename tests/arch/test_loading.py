"""Files that extend files, settings, and the message of every mistake."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import ValidationError

from hwsim import catalogue
from hwsim.arch import Architecture, load_arch
from hwsim.errors import ConfigError, HwsimError
from tests.arch.conftest import WriteFile

MODEL_KEYS = (
    "analog, array, cores, description, dram, host, interconnect, memory, name, operating_point, operating_points, "
    "reference_operating_point, static_power_w, vector"
)


def message(source: str | Path, settings: Mapping[str, str] | None = None) -> str:
    with pytest.raises(HwsimError) as raised:
        load_arch(source, settings)
    return str(raised.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            "dram:\n  bandwidth_bytes_per_s: {value: -1, source: s}",
            "5: dram.bandwidth_bytes_per_s must be greater than 0, got -1",
        ),
        (
            "array:\n  formats:\n    int8:\n      source: s\n      rows: 0",
            "8: array.formats.int8.rows must be greater than 0, got 0",
        ),
        (
            "array: {formats: {int8: {rows: 4}}}",
            "4: array.formats.int8.rows must be a number with a source or an assumption, got 4",
        ),
        ("cores: 1", "4: cores must be a number with a source or an assumption, got 1"),
        (
            "cores: {value: 1}",
            "4: cores must be given with exactly one of source and assumption, got {'value': 1}",
        ),
        (
            "cores: {value: 1, source: s, assumption: a}",
            "4: cores must be given with exactly one of source and assumption, "
            "got {'value': 1, 'source': 's', 'assumption': 'a'}",
        ),
        ("cores: {source: s}", "4: cores.value must be given in cores, got nothing"),
        ("cores: {value: 1.5, source: s}", "4: cores must be an integer, got 1.5"),
        ("cores: {value: true, source: s}", "4: cores must be a number, got True"),
        ("cores: {value: '4', source: s}", "4: cores must be a number, got '4'"),
        ("dram: {latency_s: {value: .inf, source: s}}", "4: dram.latency_s must be a finite number, got inf"),
        (
            "dram: {efficiency: {value: 1.2, source: s}}",
            "4: dram.efficiency must be at most 1, got 1.2",
        ),
        (
            "dram:\n  bandwith_bytes_per_s: {value: 1, source: s}",
            "5: dram.bandwith_bytes_per_s must be a known key, got 'bandwith_bytes_per_s'; "
            "nearest: bandwidth_bytes_per_s, burst_bytes",
        ),
        (
            "array: {formats: {int8: {sorce: s, rows: 3}}}",
            "4: array.formats.int8.sorce must be a known key, got 'sorce'; nearest: source",
        ),
        (
            "vector: {functions: {tahn: {energy_pj: 1}}}",
            "4: vector.functions.tahn must be a known key, got 'tahn'; nearest: tanh",
        ),
        ("source: s", f"4: source must be a known key, got 'source'; known: {MODEL_KEYS}"),
        (
            "array: {dataflow: ws}",
            "4: array.dataflow must be one of 'weight_stationary', 'output_stationary' or 'input_stationary', got 'ws'",
        ),
        ("operating_point: turbo", "4: operating_point must be one of 'nominal', got 'turbo'"),
        (
            "reference_operating_point: turbo",
            "4: reference_operating_point must be one of 'nominal', got 'turbo'",
        ),
        (
            "array:\n  fallback:\n    int4: int16",
            "6: array.fallback.int4 must be a format that the machine computes (int8, fp16), got 'int16'",
        ),
        (
            "array: {fallback: {int8: fp16}}",
            "4: array.fallback.int8 must be left out, as the machine computes int8, got 'fp16'",
        ),
        (
            "array: {timing: blocked}",
            "4: array.weight_blocks must be given when timing is blocked, got nothing",
        ),
        (
            "memory:\n  stream_buffer_fraction: {value: 0.8, source: s}",
            "5: memory.stream_buffer_fraction must be less than 0.75, what activation_fraction leaves of the "
            "scratchpad, got 0.8",
        ),
        (
            "memory:\n  stream_buffer_fraction: {value: 0.75, source: s}",
            "5: memory.stream_buffer_fraction must be less than 0.75, what activation_fraction leaves of the "
            "scratchpad, got 0.75",
        ),
        (
            "memory: {operand_buffer: {source: s, capacity_bytes: 9000000, bandwidth_bytes_per_cycle: 1, "
            "energy_pj_per_bit: 0}}",
            "4: memory.operand_buffer.capacity_bytes must be at most 8388608, the bytes of the scratchpad, got 9000000",
        ),
    ],
)
def test_a_mistake_in_a_file_is_one_line(change: WriteFile, changes: str, said: str) -> None:
    path = change(changes)
    assert message(path) == f"{path}:{said}"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            "array: {timing: systolic}",
            "array.weight_blocks must be left out when timing is systolic, got a block",
        ),
        (
            "array: {dataflow: output_stationary}",
            "array.dataflow must be 'weight_stationary' when timing is blocked, got 'output_stationary'",
        ),
        (
            "array: {weight_blocks: {register_block_bytes: {value: 4194304, source: s}}}",
            "array.weight_blocks.register_block_bytes must be at most 2097152, the bytes of the scratchpad, "
            "got 4194304",
        ),
        ("interconnect: null", "interconnect must be given when cores is more than 1, got nothing"),
    ],
)
def test_a_mistake_in_a_blocked_machine_is_one_line(change: WriteFile, changes: str, said: str) -> None:
    assert message(change(changes, "rapid_4core")).endswith(f": {said}")


def test_a_whole_file_names_the_line_of_its_mistake(write: WriteFile) -> None:
    text = catalogue.find("arch_configs", "architecture", "rapid_4core").read_text(encoding="utf-8")
    line = 1 + text.splitlines().index("    value: 68.3e9")
    path = write(text.replace("    value: 68.3e9", "    value: -68.3e9"))
    assert message(path) == f"{path}:{line}: dram.bandwidth_bytes_per_s must be greater than 0, got -68300000000.0"
    path = write(text.replace("static_power_w:", "static_power:"))
    assert message(path).endswith("static_power must be a known key, got 'static_power'; nearest: static_power_w")


def test_a_missing_key_is_named(write: WriteFile) -> None:
    path = write("name: x\ndescription: d\n")
    assert message(path) == f"{path}:1: operating_points must be given in the file, got nothing"


def test_an_unknown_architecture_names_the_nearest() -> None:
    nearest = "rapid_4core, rapid_1core, hermes_64core"
    assert message("rapid_8core") == f"unknown architecture 'rapid_8core'; nearest: {nearest}"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert message(tmp_path / "no.yaml") == f"{tmp_path / 'no.yaml'}: must be a file, got nothing there"


@pytest.mark.parametrize(
    ("dotted", "text", "said"),
    [
        ("cores", "-1", "--set: cores must be greater than 0, got -1"),
        ("cores.value", "-1", "--set: cores must be greater than 0, got -1"),
        ("cores", "two", "--set: cores must be a number, got 'two'"),
        ("cores", "[2", "--set cores: '[2' must be a YAML value: while parsing a flow sequence"),
        ("array.formats.int4.rows", "0", "--set: array.formats.int4.rows must be greater than 0, got 0"),
        (
            "operating_point",
            "turbo",
            "--set: operating_point must be one of 'efficient', 'fast', got 'turbo'",
        ),
        (
            "memory.weight_residency",
            "perhaps",
            "--set: memory.weight_residency must be true or false, got 'perhaps'",
        ),
        (
            "dram.bandwith",
            "1",
            "--set dram.bandwith: no key 'bandwith' in dram; nearest: bandwidth_bytes_per_s",
        ),
    ],
)
def test_a_mistake_in_a_setting_says_so(dotted: str, text: str, said: str) -> None:
    assert message("rapid_4core", {dotted: text}) == said


def test_a_setting_is_an_assumption_and_replaces_the_origin() -> None:
    settings = {"array.formats.int4.rows": "16", "cores.value": "2", "operating_point": "efficient"}
    arch = load_arch("rapid_4core", settings)
    assert arch.array_format("int4").rows.value == 16
    changed = [origin for origin in arch.assumptions() if origin.text == "set by the user with --set"]
    assert changed == [
        ("cores", 2, "set by the user with --set"),
        ("array.formats.int4.rows", 16, "set by the user with --set"),
    ]
    assert arch.clock_hz == 1e9


def test_a_setting_may_carry_its_source() -> None:
    arch = load_arch("rapid_4core", {"cores": "{value: 2, source: a die photograph}"})
    assert ("cores", 2, "a die photograph") in arch.sources()


def test_an_extending_file_changes_only_what_it_gives() -> None:
    one, four = load_arch("rapid_1core"), load_arch("rapid_4core")
    assert (one.cores.value, four.cores.value) == (1, 4)
    assert one.static_power_w.value == four.static_power_w.value / 4
    same = ("array", "vector", "memory", "dram", "interconnect", "host", "operating_points")
    assert all(getattr(one, block) == getattr(four, block) for block in same)


def test_files_may_extend_files_by_name_and_by_path(write: WriteFile) -> None:
    write("extends: rapid_4core\nname: a\ndescription: d\ncores: {value: 2, source: s}\n", "a.yaml")
    arch = load_arch(
        write("extends: ./a.yaml\nname: b\ndescription: d\narray: {formats: {int4: {source: t, rows: 16}}}\n")
    )
    int4 = arch.array_format("int4")
    assert (arch.name, arch.cores.value, int4.rows.value, int4.rows.source) == ("b", 2, 16, "t")
    assert int4.columns.source == load_arch("rapid_4core").array_format("int4").columns.source


def test_a_mistake_is_reported_in_the_file_that_made_it(write: WriteFile) -> None:
    base = write("extends: rapid_4core\nname: a\ndescription: d\ncores: {value: 0, source: s}\n", "a.yaml")
    middle = write("extends: a.yaml\nname: b\ndescription: d\n", "b.yaml")
    top = write("extends: b.yaml\nname: c\ndescription: d\ndram:\n  burst_bytes: {value: 0, source: s}\n")
    assert message(middle) == f"{base}:4: cores must be greater than 0, got 0"
    assert message(top, {"cores": "1"}) == f"{top}:5: dram.burst_bytes must be greater than 0, got 0"


def test_an_extending_file_has_its_own_name(write: WriteFile) -> None:
    path = write("extends: rapid_4core\ndescription: d\n")
    assert message(path) == f"{path}:1: name must be given in the file, got nothing"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "extends: rapid_8core",
            "a known architecture, got 'rapid_8core'; nearest: rapid_4core, rapid_1core, hermes_64core",
        ),
        ("extends: 4", "the name or the path of an architecture, got 4"),
        ("extends: mine.yaml", "a file that does not extend this one, got 'mine.yaml'"),
    ],
)
def test_a_wrong_base_is_named(write: WriteFile, text: str, said: str) -> None:
    path = write(text + "\n")
    assert message(path) == f"{path}:1: extends must be {said}"


def test_a_base_that_is_not_there_is_named(write: WriteFile) -> None:
    path = write("extends: sub/no.yaml\n")
    assert message(path) == f"{path}:1: extends must be a file, got nothing at {path.parent / 'sub/no.yaml'}"


def test_an_architecture_made_in_python_keeps_the_same_rules() -> None:
    data = load_arch("rapid_4core").model_dump()
    with pytest.raises(ValidationError, match="operating_point must be one of 'efficient', 'fast', got 'turbo'"):
        Architecture.model_validate(data | {"operating_point": "turbo"})


def test_a_mistake_is_a_config_error(change: WriteFile) -> None:
    with pytest.raises(ConfigError):
        load_arch(change("cores: 1"))
