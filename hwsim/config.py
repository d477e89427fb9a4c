"""Reading YAML into frozen pydantic models, with the line of every mistake.

Three rules hold for every file that hwsim reads: unknown keys are refused, duplicate keys are refused,
and a wrong value is reported as `file:line: dotted.path must be <rule>, got <value>`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from hwsim.errors import ConfigError, HwsimError, nearest


class Frozen(BaseModel):
    """Base of every configuration model: immutable, no unknown keys, field strings are documentation."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, validate_default=True
    )


ModelT = TypeVar("ModelT", bound=BaseModel)
Location = tuple[str | int, ...]


class Document:
    """A YAML file as plain Python data, and the line (from 1) on which each value stands."""

    def __init__(self, data: Any, file: str, lines: Mapping[Location, int]) -> None:
        self.data = data
        self.file = file
        self._lines = dict(lines)

    def line(self, location: Location) -> int:
        """Line of the value at `location`, or of its nearest enclosing value."""
        while location and location not in self._lines:
            location = location[:-1]
        return self._lines.get(location, 1)

    def where(self, location: Location) -> str:
        """`file:line` of a value; a value that was set on the command line has no line."""
        line = self.line(location)
        return f"{self.file}:{line}" if line else "--set"

    def set(self, dotted: str, text: str) -> None:
        """Replace the value at a dotted path by a YAML scalar, as `--set path=value` does.

        A quantity `{value, source}` may be set by its own path; the new value is then an assumption.
        Raises HwsimError when no such path exists, with the nearest keys.
        """
        value = parse_scalar(text)
        keys = dotted.split(".")
        node: Any = self.data
        location: Location = ()
        for depth, key in enumerate(keys):
            step = _step(node, key)
            if step is None:
                raise HwsimError(
                    f"--set {dotted}: no key '{key}' in {'.'.join(keys[:depth]) or 'the file'}"
                    + nearest(key, map(str, node) if isinstance(node, dict) else ())
                )
            location += (step,)
            if depth < len(keys) - 1:
                node = node[step]
            elif isinstance(node[step], dict) and "value" in node[step]:
                if not isinstance(value, dict):
                    value = {"value": value, "assumption": "set by the user with --set"}
                node[step] = value
            else:
                node[step] = value
        for known in [k for k in self._lines if k[: len(location)] == location]:
            del self._lines[known]
        self._lines[location] = 0


def _step(node: Any, key: str) -> str | int | None:
    if isinstance(node, dict) and key in node:
        return key
    if isinstance(node, list):
        if key.isdigit() and int(key) < len(node):
            return int(key)
        named = [i for i, item in enumerate(node) if isinstance(item, dict) and item.get("name") == key]
        return named[0] if named else None
    return None


def parse_scalar(text: str) -> Any:
    """A YAML value written on a command line: `2e9` is a number, `true` a bool, `[1, 2]` a list."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise HwsimError(f"'{text}' must be a YAML value: {_first_line(error)}") from None


def read_document(path: str | Path) -> Document:
    """Read a YAML file. Raises ConfigError for a missing file, bad syntax or a duplicate key."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{path}: must be a readable YAML file, got {reason}") from None
    data, lines = _parse(text, str(path))
    return Document(copy.deepcopy(data), str(path), lines)


@lru_cache(maxsize=64)
def _parse(text: str, path: str) -> tuple[Any, dict[Location, int]]:
    """Plain data and lines of a YAML text; parsing is the slow part of loading a file."""
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import DuplicateKeyError
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        data = YAML(typ="rt", pure=True).load(text)
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        key = str(error.problem).split('"')[1] if '"' in str(error.problem) else "?"
        raise ConfigError(f"{path}:{line}: each key must be given once, got '{key}' twice") from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: must be valid YAML, got {error.problem}") from None
    except YAMLError as error:
        raise ConfigError(f"{path}: must be valid YAML, got {_first_line(error)}") from None
    if not isinstance(data, Mapping):
        raise ConfigError(f"{path}:1: must be a mapping of keys to values, got {_show(data)}")
    lines: dict[Location, int] = {(): 1}
    return _plain(data, (), lines, path), lines


def _plain(node: Any, location: Location, lines: dict[Location, int], file: str) -> Any:
    if isinstance(node, Mapping):
        result: dict[str, Any] = {}
        for key, value in node.items():
            name = str(key)
            # A key merged in by `<<` has no line of its own: the line of the mapping stands for it.
            known = node.lc.data and key in node.lc.data  # type: ignore[attr-defined]
            line = node.lc.key(key)[0] + 1 if known else lines[location]  # type: ignore[attr-defined]
            if name in result:
                raise ConfigError(f"{file}:{line}: each key must be given once, got '{name}' twice")
            lines[(*location, name)] = line
            result[name] = _plain(value, (*location, name), lines, file)
        return result
    if isinstance(node, Sequence) and not isinstance(node, str):
        for index in range(len(node)):
            lines[(*location, index)] = node.lc.item(index)[0] + 1  # type: ignore[attr-defined]
        return [_plain(value, (*location, i), lines, file) for i, value in enumerate(node)]
    if isinstance(node, bool) or node is None:
        return node
    for kind in (int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def validate(model: type[ModelT], document: Document) -> ModelT:
    """Build `model` from a document. Raises ConfigError that names file, line, path, rule and value."""
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        raise ConfigError(explain(error, model, document)) from None


def explain(error: ValidationError, model: type[BaseModel], document: Document) -> str:
    """One line for the first mistake of a validation error (unknown keys first: they cause the others)."""
    problems = error.errors(include_url=False)
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    location = tuple(problem["loc"])
    shown = _known_location(location, document.data)
    where, dotted = document.where(shown), ".".join(map(str, shown)) or "the file"
    if problem["type"] == "extra_forbidden":
        key = str(location[-1])
        known = nearest(key, _keys_at(model, location[:-1]))
        return f"{where}: {dotted} must be a known key, got '{key}'{known}"
    if problem["type"] == "missing":
        parent = ".".join(map(str, shown))
        full, inside = (f"{parent}.{location[-1]}", parent) if parent else (location[-1], "the file")
        return f"{where}: {full} must be given in {inside}, got nothing"
    return f"{where}: {dotted} must be {_rule(problem)}, got {_show(problem['input'])}"


def _known_location(location: Location, data: Any) -> Location:
    """Drop the parts of a pydantic location that are not keys of the file (union tags)."""
    kept: list[str | int] = []
    for part in location:
        in_list = isinstance(data, list) and isinstance(part, int) and part < len(data)
        if in_list or (isinstance(data, dict) and part in data):
            data = data[part]
            kept.append(part)
    return tuple(kept)


def _keys_at(model: type[BaseModel], location: Location) -> list[str]:
    """Field names that the schema allows at a location."""
    schema = model.model_json_schema()
    nodes = [schema]
    for part in (None, *location):
        following = [{"$ref": tags[part]} for tags in _tags(nodes, schema) if part in tags]
        for node in _resolve(nodes, schema):
            if part is None:
                following.append(node)
            elif isinstance(part, int):
                following.append(node.get("items", {}))
            elif part in node.get("properties", {}):
                following.append(node["properties"][part])
            elif isinstance(node.get("additionalProperties"), dict):
                following.append(node["additionalProperties"])
        nodes = following or nodes
    return sorted({key for node in _resolve(nodes, schema) for key in node.get("properties", {})})


def _tags(nodes: list[dict[str, Any]], schema: dict[str, Any]) -> list[dict[Any, str]]:
    """Schema references by tag, of the tagged unions among `nodes`."""
    found = [node["discriminator"]["mapping"] for node in nodes if "discriminator" in node]
    options = [option for node in nodes for option in node.get("anyOf", [])]
    return found + (_tags(options, schema) if options else [])


def _resolve(nodes: list[dict[str, Any]], schema: dict[str, Any]) -> list[dict[str, Any]]:
    resolved: list[dict[str, Any]] = []
    for node in nodes:
        while "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
        options = node.get("anyOf", []) + node.get("oneOf", []) + node.get("allOf", [])
        resolved += _resolve(options, schema) if options else [node]
    return resolved


_RULES = {
    "greater_than": "greater than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "literal_error": "one of {expected}",
    "enum": "one of {expected}",
    "int_parsing": "an integer",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "a string",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "union_tag_invalid": "given with {discriminator} one of {expected_tags}",
    "union_tag_not_found": "given with the key {discriminator}",
    "too_short": "at least {min_length} long",
}


def _rule(problem: Mapping[str, Any]) -> str:
    template = _RULES.get(problem["type"])
    if template:
        return template.format(**problem.get("ctx", {}))
    message = str(problem["msg"])
    return message.removeprefix("Value error, ").removeprefix("Assertion failed, ").removeprefix("must be ")


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
