"""`import hwsim` is light, its lazy names exist, and only the command line prints."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hwsim

ROOT = Path(__file__).resolve().parent.parent

HEAVY = {"matplotlib", "numba", "numpy", "pandas", "pydantic", "rich", "simpy", "torch", "typer"}


def modules_after(statement: str) -> set[str]:
    """Names of the modules that a fresh interpreter holds after running `statement`."""
    code = f"import sys; {statement}; sys.stdout.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_loads_nothing_heavy() -> None:
    loaded = modules_after("import hwsim")
    assert not HEAVY & loaded
    assert {name for name in loaded if name.startswith("hwsim")} == {"hwsim"}


def test_the_check_sees_a_loaded_module() -> None:
    assert "pydantic" in modules_after("import hwsim.config")


@pytest.mark.parametrize("name", hwsim.__all__)
def test_public_names_exist(name: str) -> None:
    assert name in dir(hwsim)
    assert getattr(hwsim, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'hwsim' has no attribute 'simulat'"):
        _ = hwsim.simulat


def prints(source: str) -> list[int]:
    """Lines on which `print` is used."""
    names = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)]
    return sorted(node.lineno for node in names if node.id == "print")


def test_only_the_command_line_prints() -> None:
    package = ROOT / "hwsim"
    found = [
        f"{path.relative_to(ROOT)}:{line}: must not print outside hwsim/cli"
        for path in sorted(package.rglob("*.py"))
        if path.relative_to(package).parts[0] != "cli"
        for line in prints(path.read_text("utf-8"))
    ]
    assert not found, "\n".join(found)


def test_a_print_is_found() -> None:
    assert prints("def run():\n    print('x')\n    show = print\n    'print(1)'\n") == [2, 3]
