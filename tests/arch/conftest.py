"""Architecture files written for one test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

WriteFile = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> WriteFile:
    """Write a YAML file into a fresh folder and return its path."""

    def write_file(text: str, name: str = "mine.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


@pytest.fixture
def change(write: WriteFile) -> WriteFile:
    """Write a file that changes `systolic_128`; the changes begin on line 4."""

    def write_change(changes: str, base: str = "systolic_128") -> Path:
        return write(f"extends: {base}\nname: mine\ndescription: changed\n{changes}\n")

    return write_change
