"""Configuration files: every mistake is one line that names file, line, path, rule and value."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError

from hwsim.config import Document, Frozen, parse_scalar, read_document, validate
from hwsim.errors import ConfigError, HwsimError, nearest


class Quantity(Frozen):
    value: float = Field(gt=0)
    source: str | None = None
    assumption: str | None = None


class Mac(Frozen):
    kind: Literal["mac"]
    name: str = "mac"
    rows: int = Field(ge=1)


class Vector(Frozen):
    kind: Literal["vector"]
    name: str = "vector"
    lanes: int = Field(le=64)


class Chip(Frozen):
    name: str
    clock_hz: Quantity = Quantity(value=1e9)
    dataflow: Literal["output", "weight"] = "weight"
    doubled: bool = False
    units: list[Annotated[Mac | Vector, Field(discriminator="kind")]] = Field(default_factory=list)
    memories: dict[str, Quantity] = Field(default_factory=dict)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chip.yaml"


def document(path: Path, text: str) -> Document:
    path.write_text(text, encoding="utf-8")
    return read_document(path)


def refusal(path: Path, text: str) -> str:
    """The message for a wrong file, with the file called FILE."""
    with pytest.raises(ConfigError) as caught:
        validate(Chip, document(path, text))
    return str(caught.value).replace(str(path), "FILE")


def test_a_right_file(path: Path) -> None:
    text = "name: one\nclock_hz: {value: 2e9, source: a table}\nunits:\n  - {kind: mac, rows: 8}\n"
    chip = validate(Chip, document(path, text))
    assert chip.clock_hz == Quantity(value=2e9, source="a table")
    assert chip.units == [Mac(kind="mac", rows=8)]


def test_models_are_frozen(path: Path) -> None:
    chip = validate(Chip, document(path, "name: one\n"))
    with pytest.raises(ValidationError, match="frozen"):
        chip.name = "two"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nam: one\n", "FILE:1: nam must be a known key, got 'nam'; nearest: name"),
        (
            "name: one\n\nclock_hz:\n  valeu: 3\n",
            "FILE:4: clock_hz.valeu must be a known key, got 'valeu'; nearest: value",
        ),
        (
            "name: one\ncolour: red\n",
            "FILE:2: colour must be a known key, got 'colour'; "
            "known: clock_hz, dataflow, doubled, memories, name, units",
        ),
        (
            "name: one\nmemories:\n  l2: {value: 1, sourec: x}\n",
            "FILE:3: memories.l2.sourec must be a known key, got 'sourec'; nearest: source",
        ),
        (
            "name: one\nunits:\n  - kind: mac\n    rows: 8\n  - kind: vector\n    rows: 8\n    lanes: 2\n",
            "FILE:6: units.1.rows must be a known key, got 'rows'; known: kind, lanes, name",
        ),
    ],
)
def test_a_wrong_key(path: Path, text: str, message: str) -> None:
    assert refusal(path, text) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataflow: weight\n", "FILE:1: name must be given in the file, got nothing"),
        (
            "name: one\nmemories:\n  l2:\n    source: x\n",
            "FILE:3: memories.l2.value must be given in memories.l2, got nothing",
        ),
        ("name: one\nunits:\n  - kind: mac\n", "FILE:3: units.0.rows must be given in units.0, got nothing"),
        (
            "name: one\nunits:\n  - rows: 4\n",
            "FILE:3: units.0 must be given with the key 'kind', got {'rows': 4}",
        ),
    ],
)
def test_a_missing_key(path: Path, text: str, message: str) -> None:
    assert refusal(path, text) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: 3\n", "FILE:1: name must be a string, got 3"),
        ("name: one\ndoubled: maybe\n", "FILE:2: doubled must be true or false, got 'maybe'"),
        ("name: one\nclock_hz: 5\n", "FILE:2: clock_hz must be a mapping, got 5"),
        ("name: one\nmemories: 5\n", "FILE:2: memories must be a mapping, got 5"),
        ("name: one\nunits: 5\n", "FILE:2: units must be a list, got 5"),
        ("name: one\nclock_hz:\n  value: fast\n", "FILE:3: clock_hz.value must be a number, got 'fast'"),
        (
            "name: one\nunits:\n  - kind: mac\n    rows: eight\n",
            "FILE:4: units.0.rows must be an integer, got 'eight'",
        ),
        ("name: one\nunits: [{kind: mac, rows: 1.5}]\n", "FILE:2: units.0.rows must be an integer, got 1.5"),
    ],
)
def test_a_wrong_type(path: Path, text: str, message: str) -> None:
    assert refusal(path, text) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: one\nclock_hz:\n  value: 0\n", "FILE:3: clock_hz.value must be greater than 0, got 0"),
        ("name: one\nclock_hz: {value: .nan}\n", "FILE:2: clock_hz.value must be a finite number, got nan"),
        ("name: one\nclock_hz: {value: .inf}\n", "FILE:2: clock_hz.value must be a finite number, got inf"),
        ("name: one\nunits: [{kind: mac, rows: 0}]\n", "FILE:2: units.0.rows must be at least 1, got 0"),
        (
            "name: one\nunits: [{kind: vector, lanes: 65}]\n",
            "FILE:2: units.0.lanes must be at most 64, got 65",
        ),
        (
            "name: one\ndataflow: row\n",
            "FILE:2: dataflow must be one of 'output' or 'weight', got 'row'",
        ),
        (
            "name: one\nunits:\n  - kind: dsp\n",
            "FILE:3: units.0 must be given with 'kind' one of 'mac', 'vector', got {'kind': 'dsp'}",
        ),
        (
            f"name: [{'a' * 90}]\n",
            f"FILE:1: name must be a string, got ['{'a' * 75}...",
        ),
    ],
)
def test_a_wrong_value(path: Path, text: str, message: str) -> None:
    assert refusal(path, text) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: one\nname: two\n", "FILE:2: each key must be given once, got 'name' twice"),
        (
            "name: one\nclock_hz:\n  value: 1\n  source: x\n  value: 2\n",
            "FILE:5: each key must be given once, got 'value' twice",
        ),
        (
            "name: one\nmemories:\n  1: {value: 1}\n  '1': {value: 2}\n",
            "FILE:4: each key must be given once, got '1' twice",
        ),
        ("name: one\n  two: 3\n", "FILE:2: must be valid YAML, got mapping values are not allowed here"),
        (
            'name: "\x01"\n',
            "FILE: must be valid YAML, got unacceptable character #x0001: special characters are not allowed",
        ),
        ("", "FILE:1: must be a mapping of keys to values, got None"),
        ("# only a comment\n", "FILE:1: must be a mapping of keys to values, got None"),
        ("- one\n", "FILE:1: must be a mapping of keys to values, got ['one']"),
    ],
)
def test_a_file_that_is_no_mapping(path: Path, text: str, message: str) -> None:
    assert refusal(path, text) == message


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.write_bytes(b"name: \xff\n"), "not UTF-8 text"),
    ],
)
def test_a_file_that_cannot_be_read(path: Path, make: Any, reason: str) -> None:
    make(path)
    with pytest.raises(ConfigError) as caught:
        read_document(path)
    assert str(caught.value) == f"{path}: must be a readable YAML file, got {reason}"


def test_values_are_plain_and_numbers_are_numbers(path: Path) -> None:
    read = document(path, "a: 2e-15\nb: 010\nc: yes\nd: null\ne: [1, 2.0, 'x', true]\n3: t\n")
    assert read.data == {"a": 2e-15, "b": 10, "c": "yes", "d": None, "e": [1, 2.0, "x", True], "3": "t"}
    kinds = [type(value) for value in (*read.data.values(), *read.data["e"])]
    assert kinds == [float, int, str, type(None), list, str, int, float, str, bool]


def test_lines_of_values(path: Path) -> None:
    read = document(path, "a:\n  b:\n    - 1\n    - c: 2\n")
    assert [read.line(at) for at in ((), ("a",), ("a", "b"), ("a", "b", 0), ("a", "b", 1, "c"))] == [
        1,
        1,
        2,
        3,
        4,
    ]
    assert read.line(("a", "b", 1, "c", "deeper")) == 4
    assert read.where(("a", "b")) == f"{path}:2"


def test_a_merged_key_has_the_line_of_its_mapping(path: Path) -> None:
    text = "name: one\nmemories:\n  l1: &l1 {value: 1}\n  l2:\n    <<: *l1\n    source: x\n"
    read = document(path, text)
    assert validate(Chip, read).memories["l2"] == Quantity(value=1, source="x")
    assert read.line(("memories", "l2", "value")) == 4
    assert refusal(path, text.replace("value: 1", "value: -1")) == (
        "FILE:3: memories.l1.value must be greater than 0, got -1"
    )


CHIP = (
    "name: one\nclock_hz: {value: 1e9, source: a table}\nunits:\n"
    "  - {kind: mac, rows: 8}\n  - {kind: mac, name: big, rows: 64}\n"
)


@pytest.mark.parametrize(
    ("dotted", "text", "expected"),
    [
        ("name", "two", {"name": "two"}),
        ("clock_hz.value", "2e9", {"clock_hz": Quantity(value=2e9, source="a table")}),
        ("clock_hz", "2e9", {"clock_hz": Quantity(value=2e9, assumption="set by the user with --set")}),
        ("clock_hz", "{value: 3, source: mine}", {"clock_hz": Quantity(value=3, source="mine")}),
        ("units.0.rows", "16", {"units": [Mac(kind="mac", rows=16), Mac(kind="mac", name="big", rows=64)]}),
        ("units.big.rows", "16", {"units": [Mac(kind="mac", rows=8), Mac(kind="mac", name="big", rows=16)]}),
    ],
)
def test_set_replaces_a_value(path: Path, dotted: str, text: str, expected: dict[str, object]) -> None:
    changed = document(path, CHIP)
    before = validate(Chip, changed)
    changed.set(dotted, text)
    assert validate(Chip, changed) == before.model_copy(update=expected)


@pytest.mark.parametrize(
    ("dotted", "text", "message"),
    [
        ("clock_hz", "-2", "--set: clock_hz.value must be greater than 0, got -2"),
        ("clock_hz.value", "fast", "--set: clock_hz.value must be a number, got 'fast'"),
        ("units.big.rows", "0", "--set: units.1.rows must be at least 1, got 0"),
        ("units.0", "{kind: mac}", "--set: units.0.rows must be given in units.0, got nothing"),
    ],
)
def test_a_wrong_value_that_was_set(path: Path, dotted: str, text: str, message: str) -> None:
    changed = document(path, CHIP)
    changed.set(dotted, text)
    with pytest.raises(ConfigError) as caught:
        validate(Chip, changed)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("dotted", "text", "message"),
    [
        ("clock", "1", "--set clock: no key 'clock' in the file; nearest: clock_hz"),
        ("clock_hz.valeu", "1", "--set clock_hz.valeu: no key 'valeu' in clock_hz; nearest: value"),
        ("units.2.rows", "1", "--set units.2.rows: no key '2' in units"),
        ("name.first", "x", "--set name.first: no key 'first' in name"),
        ("name", "[1", "'[1' must be a YAML value: while parsing a flow sequence"),
    ],
)
def test_a_value_that_cannot_be_set(path: Path, dotted: str, text: str, message: str) -> None:
    changed = document(path, CHIP)
    with pytest.raises(HwsimError) as caught:
        changed.set(dotted, text)
    assert str(caught.value) == message


def test_set_leaves_the_lines_of_the_others(path: Path) -> None:
    changed = document(path, CHIP.replace("rows: 64", "rows: -1"))
    changed.set("clock_hz", "5")
    with pytest.raises(ConfigError) as caught:
        validate(Chip, changed)
    assert str(caught.value) == f"{path}:5: units.1.rows must be at least 1, got -1"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e9", 2e9),
        ("7", 7),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ("{a: 1}", {"a": 1}),
        ("int4/2:4", "int4/2:4"),
    ],
)
def test_scalars_of_the_command_line(text: str, value: object) -> None:
    assert parse_scalar(text) == value
    assert type(parse_scalar(text)) is type(value)


def test_nearest_names() -> None:
    assert nearest("encodr", ["encoder", "joint"]) == "; nearest: encoder"
    assert nearest("zzz", ["joint", "encoder"]) == "; known: encoder, joint"
    assert nearest("zzz", []) == ""
