"""The wheel carries the whole package and every data file, and finds them when installed."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

CATALOGUES = ("arch_configs", "workloads", "workloads/policies")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


def members(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.mark.parametrize("catalogue", CATALOGUES)
def test_every_data_file_is_in_the_wheel(wheel: Path, catalogue: str) -> None:
    files = [path for path in (ROOT / catalogue).rglob("*") if path.is_file()]
    expected = {f"hwsim/_data/{path.relative_to(ROOT).as_posix()}" for path in files}
    assert f"hwsim/_data/{catalogue}/schema.json" in expected
    assert len(expected) > 1
    assert {name for name in members(wheel) if name.startswith(f"hwsim/_data/{catalogue}/")} == expected


def test_every_module_is_in_the_wheel(wheel: Path) -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "hwsim").rglob("*.py")}
    found = members(wheel)
    assert {name for name in found if name.endswith(".py")} == modules
    assert "hwsim/py.typed" in found


def test_the_wheel_holds_only_the_package_and_its_licence(wheel: Path) -> None:
    found = members(wheel)
    assert {name.split("/")[0].split("-")[0] for name in found} == {"hwsim"}
    assert any(name.endswith("/licenses/LICENSE") for name in found)


@pytest.mark.parametrize("catalogue", CATALOGUES)
def test_the_installed_package_finds_its_catalogues(wheel: Path, catalogue: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import sys; from hwsim import catalogue; "
        "sys.stdout.write(' '.join([str(catalogue.data_folder(sys.argv[1])), *catalogue.names(sys.argv[1])]))"
    )
    command = [sys.executable, "-c", code, catalogue]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    folder, *names = done.stdout.split()
    assert Path(folder) == tmp_path.resolve() / "hwsim/_data" / catalogue
    assert names == sorted(path.stem for path in (ROOT / catalogue).glob("*.yaml"))
