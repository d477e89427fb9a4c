"""The rooms of hwsim import down the list only, and each stays ignorant of what it must not know."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest

import hwsim

ROOT = Path(__file__).resolve().parent.parent

FOUNDATION = ("errors", "config", "catalogue", "workers")
ORDER = (
    "speech",
    "numerics",
    "trace",
    "extract",
    "decode",
    "arch",
    "cost",
    "engine",
    "simulation",
    "execute",
    "recognize",
    "train",
    "validate",
    "sweep",
    "study",
    "reproduce",
    "report",
    "cli",
)
# What the order alone would allow. With it no forbidden room can be reached through a third one either.
MUST_NOT_KNOW = {
    "arch": {"trace", "extract", "decode"},
    "execute": {"cost", "engine", "simulation"},
}


def imports(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of every import, wherever it stands in a module of `package`."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = resolve_name("." * level + (module or ""), package)
                dotted = [f"hwsim.{alias.name}" for alias in names] if base == "hwsim" else [base]
                yield from ((node.lineno, name) for name in dotted)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, resolve_name(name, package)


def refusal(importer: str, dotted: str) -> str | None:
    """Why the room or module `importer` must not import `dotted`, or None when it may."""
    if dotted.split(".")[0] != "hwsim" or dotted == "hwsim.__version__":
        return None
    dotted = hwsim._HOMES.get(dotted.removeprefix("hwsim."), dotted)
    if dotted in ("hwsim", "hwsim.*"):
        return "must import a room by its name, not the whole package"
    imported = dotted.split(".")[1]
    if imported in FOUNDATION:
        return None
    if imported not in ORDER:
        return f"must import a room of {', '.join(ORDER)}, got {imported}"
    if importer in FOUNDATION:
        return f"is below every room and must not import {imported}"
    if ORDER.index(imported) > ORDER.index(importer):
        return f"must not import {imported}, which comes after it"
    if imported in MUST_NOT_KNOW.get(importer, ()):
        return f"must not know {imported}"
    return None


def violations(source: str, file: str) -> list[str]:
    """Every wrong import of a module, given its text and its path from the root of the checkout."""
    parts = Path(file).with_suffix("").parts
    importer, package = parts[1], ".".join(parts[:-1])
    if importer not in (*FOUNDATION, *ORDER):
        return [f"{file}: must be in a room of {', '.join(ORDER)}"]
    return [
        f"{file}:{line}: {importer} {reason}"
        for line, dotted in imports(ast.parse(source, file), package)
        if (reason := refusal(importer, dotted))
    ]


def test_imports_go_down_the_list() -> None:
    files = sorted(path for path in (ROOT / "hwsim").rglob("*.py") if path != ROOT / "hwsim/__init__.py")
    found = [text for path in files for text in violations(path.read_text("utf-8"), path.relative_to(ROOT).as_posix())]
    assert files
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("file", "source", "message"),
    [
        ("trace/op.py", "import hwsim.cost", "trace must not import cost, which comes after it"),
        ("extract/onnx.py", "from hwsim import arch", "extract must not import arch, which comes after it"),
        ("decode/beam.py", "from hwsim.arch.schema import Core", "decode must not import arch"),
        ("arch/schema.py", "from hwsim.extract import catalogue", "arch must not know extract"),
        ("arch/schema.py", "from hwsim.decode import Beam", "arch must not know decode"),
        ("arch/load.py", "from ..trace import Trace", "arch must not know trace"),
        ("arch/__init__.py", "from hwsim import load_workload", "arch must not know extract"),
        ("cost/mac.py", "from ..engine.clock import Clock", "cost must not import engine"),
        ("engine/__init__.py", "from .. import report", "engine must not import report"),
        ("engine/run.py", "import numpy, hwsim.cli.main", "engine must not import cli"),
        ("simulation.py", "from hwsim.execute import run", "simulation must not import execute"),
        ("execute/run.py", "from hwsim.cost import mac", "execute must not know cost"),
        ("execute/run.py", "from hwsim import simulate", "execute must not know simulation"),
        ("execute/run.py", "import_module('hwsim.engine')", "execute must not know engine"),
        ("execute/run.py", "importlib.import_module('..engine', __package__)", "must not know engine"),
        ("config.py", "from hwsim.numerics import formats", "is below every room and must not import"),
        ("sweep/grid.py", "import hwsim", "must import a room by its name, not the whole package"),
        ("sweep/grid.py", "from hwsim import *", "must import a room by its name, not the whole package"),
        ("sweep/grid.py", "import hwsim.attic", "must import a room of speech, numerics, trace"),
        ("attic/old.py", "", "must be in a room of speech, numerics, trace"),
    ],
)
def test_a_wrong_import_is_found(file: str, source: str, message: str) -> None:
    (found,) = violations(source, f"hwsim/{file}")
    assert message in found


@pytest.mark.parametrize("body", ["def run():\n    {}", "if TYPE_CHECKING:\n    {}", "class A:\n    {}"])
def test_a_wrong_import_is_found_wherever_it_stands(body: str) -> None:
    found = violations(body.format("from hwsim.report import table"), "hwsim/engine/run.py")
    assert found == ["hwsim/engine/run.py:2: engine must not import report, which comes after it"]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        (
            "engine/run.py",
            "import numpy\nfrom hwsim.cost import mac\nfrom . import clock\nfrom .clock import Clock",
        ),
        ("engine/__init__.py", "from .run import run\nfrom ..arch import load_arch"),
        ("sweep/grid.py", "from hwsim import HwsimError, __version__, simulate"),
        ("catalogue.py", "from hwsim.errors import HwsimError"),
        ("trace/op.py", "from hwsim import errors, numerics"),
    ],
)
def test_a_right_import_is_allowed(file: str, source: str) -> None:
    assert violations(source, f"hwsim/{file}") == []
