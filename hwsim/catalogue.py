"""Where the files that ship with hwsim are, and how a name or a path becomes a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hwsim.errors import HwsimError, nearest

SCHEMA_FILE = "schema.json"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PACKAGE = Path(__file__).resolve().parent


def data_folder(kind: str) -> Path:
    """Folder of a catalogue (`arch_configs`, `workloads/policies`), in a checkout or in the wheel."""
    for root in (_PACKAGE / "_data", _PACKAGE.parent):
        if (root / kind).is_dir():
            return root / kind
    raise HwsimError(f"the folder {kind} must ship with hwsim, got an installation without it")


def names(kind: str) -> list[str]:
    """Names in a catalogue, sorted."""
    return sorted(path.stem for path in data_folder(kind).glob("*.yaml"))


def find(kind: str, what: str, name_or_path: str | Path) -> Path:
    """The file of a catalogue name or of a path (anything with a `/` or a `.yaml` ending is a path).

    `what` is the word used in the message, for example `architecture`.
    Raises HwsimError with the nearest names.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or "/" in text or text.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
        if not path.is_file():
            raise HwsimError(f"{path}: must be a file, got nothing there")
        return path
    path = data_folder(kind) / f"{text}.yaml"
    if not path.is_file():
        raise HwsimError(f"unknown {what} '{text}'{nearest(text, names(kind))}")
    return path


def schema_text(schema: Mapping[str, Any]) -> str:
    """The committed form of a JSON Schema."""
    return json.dumps({"$schema": _DIALECT, **schema}, indent=1, ensure_ascii=False) + "\n"


def write_schema(kind: str, schema: Mapping[str, Any]) -> Path:
    """Write the JSON Schema of a catalogue's files beside them and return its path."""
    path = data_folder(kind) / SCHEMA_FILE
    path.write_text(schema_text(schema), encoding="utf-8")
    return path
