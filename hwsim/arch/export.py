"""The JSON Schema of architecture files, for editors and other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hwsim import catalogue
from hwsim.arch.architecture import Architecture
from hwsim.arch.loading import FOLDER

_REFERENCE = "#/$defs/"
_PARTIAL = "Changes"


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of an architecture file: a whole one, or the changes to one that it extends.

    It knows keys, types and ranges. Rules over several fields, and that a bare number stands in a block with
    a source or an assumption, are checked only by `load_arch`.
    """
    whole = Architecture.model_json_schema()
    definitions: dict[str, Any] = whole.pop("$defs")
    blocks = {name for name, schema in definitions.items() if "anyOf" not in schema}
    changes = _partial(whole, blocks)
    changes["properties"]["extends"] = {
        "type": "string",
        "description": "Architecture that this one changes: a catalogue name, or a path beside this file.",
    }
    changes["required"] = ["extends", "name", "description"]
    partials = {name + _PARTIAL: _partial(definitions[name], blocks) for name in blocks}
    return {
        "title": "hwsim architecture",
        "if": {"required": ["extends"]},
        "then": changes,
        "else": whole,
        "$defs": dict(sorted((definitions | partials).items())),
    }


def schema_text() -> str:
    """The committed form of the schema."""
    return catalogue.schema_text(json_schema())


def write_json_schema() -> Path:
    """Write the schema beside the architecture files and return its path."""
    return catalogue.write_schema(FOLDER, json_schema())


def _partial(node: Any, blocks: set[str]) -> Any:
    """The schema with nothing required, and with its blocks partial too; a quantity stays whole."""
    if isinstance(node, list):
        return [_partial(item, blocks) for item in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if isinstance(reference, str) and reference.removeprefix(_REFERENCE) in blocks:
        return node | {"$ref": reference + _PARTIAL}
    return {key: _partial(value, blocks) for key, value in node.items() if key != "required"}
