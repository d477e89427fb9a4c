"""From a name or a path to an `Architecture`: files that extend files, and `--set`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hwsim import catalogue
from hwsim.arch.architecture import Architecture
from hwsim.arch.quantity import spell_out
from hwsim.config import Document, Location, explain, parse_scalar, read_document
from hwsim.errors import ConfigError, HwsimError, nearest

FOLDER = "arch_configs"


class LayeredDocument(Document):
    """A document laid over the one that it extends; each value is reported where it was written."""

    def __init__(self, base: Document, over: Document) -> None:
        replaced: list[Location] = []
        data = _merge(base.data, over.data, (), replaced)
        # A number that is written anew must not be reported at a line inside the old one.
        kept = {
            location: line
            for location, line in base._lines.items()
            if not any(location[: len(old)] == old for old in replaced)
        }
        super().__init__(data, over.file, kept | over._lines)
        base_files: dict[Location, str] = base._files if isinstance(base, LayeredDocument) else {}
        self._files: dict[Location, str] = {location: base_files.get(location, base.file) for location in kept}
        self._files |= dict.fromkeys(over._lines, over.file)

    def where(self, location: Location) -> str:
        """`file:line` of a value, in the file that wrote it; `--set` for one from the command line."""
        while location and location not in self._lines:
            location = location[:-1]
        line = self._lines.get(location, 1)
        return "--set" if line == 0 else f"{self._files.get(location, self.file)}:{line}"


def _merge(base: Any, over: Any, location: Location, replaced: list[Location]) -> Any:
    """Lay `over` on `base`, key by key; a quantity, a scalar or a list is replaced as a whole."""
    mergeable = all(isinstance(node, dict) and "value" not in node for node in (base, over))
    if not mergeable:
        replaced.append(location)
        return over
    merged = dict(base)
    for key, value in over.items():
        merged[key] = _merge(base[key], value, (*location, key), replaced) if key in base else value
    return merged


def load_arch(name_or_path: str | Path, settings: Mapping[str, str] | None = None) -> Architecture:
    """Load an architecture by its name in the catalogue or by the path of a YAML file.

    `settings` maps dotted paths to YAML values, as `--set dram.bandwidth_bytes_per_s=1e11` does; a number
    that is set becomes an assumption. A file may say `extends: <name or path>` and then gives `name`,
    `description` and what differs.
    Raises HwsimError for an unknown name, ConfigError for a file or a setting that breaks the schema.
    """
    document = _read(catalogue.find(FOLDER, "architecture", name_or_path), ())
    for dotted, text in (settings or {}).items():
        _set(document, dotted, text)
    try:
        return Architecture.model_validate(document.data)
    except ValidationError as error:
        raise ConfigError(_explain(error, document)) from None


def architecture_names() -> list[str]:
    """Names in the catalogue, sorted."""
    return catalogue.names(FOLDER)


def _set(document: Document, dotted: str, text: str) -> None:
    try:
        parse_scalar(text)
    except HwsimError as error:
        raise HwsimError(f"--set {dotted}: {error}") from None
    # Setting only the value would leave the old source beside it.
    document.set(dotted.removesuffix(".value"), text)


def _read(path: Path, below: tuple[Path, ...]) -> Document:
    """Read a file and those it extends; `below` are the files that led here."""
    document = read_document(path)
    document.data = {key: spell_out(value) for key, value in document.data.items()}
    if "extends" not in document.data:
        return document
    parent = document.data.pop("extends")
    base_path = _base_path(parent, path, document)
    if base_path.resolve() in [file.resolve() for file in (*below, path)]:
        where = document.where(("extends",))
        raise ConfigError(f"{where}: extends must be a file that does not extend this one, got {parent!r}")
    base = _read(base_path, (*below, path))
    for key in ("name", "description"):
        base.data.pop(key, None)
    return LayeredDocument(base, document)


def _base_path(parent: Any, path: Path, document: Document) -> Path:
    where = document.where(("extends",))
    if not isinstance(parent, str):
        raise ConfigError(f"{where}: extends must be the name or the path of an architecture, got {parent!r}")
    if "/" in parent or parent.endswith((".yaml", ".yml")):
        base_path = path.parent / parent
        if not base_path.is_file():
            raise ConfigError(f"{where}: extends must be a file, got nothing at {base_path}")
        return base_path
    known = architecture_names()
    if parent not in known:
        raise ConfigError(f"{where}: extends must be a known architecture, got '{parent}'{nearest(parent, known)}")
    return catalogue.find(FOLDER, "architecture", parent)


def _explain(error: ValidationError, document: Document) -> str:
    for problem in error.errors(include_url=False):
        if problem["type"] == "inconsistent":
            context = problem["ctx"]
            return f"{document.where(context['location'])}: {context['problem']}"
    # A quantity is known by its own path, whether the file wrote it bare or with its origin.
    text = explain(error, Architecture, document)
    return re.sub(r"\.value must be (?!given in)", " must be ", text, count=1)
