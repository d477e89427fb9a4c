"""Networks of the catalogue, changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hwsim import catalogue

Change = Callable[..., Path]


@pytest.fixture
def change(tmp_path: Path) -> Change:
    """Write a shipped network with some text replaced and return its path."""

    def write(replaced: dict[str, str], base: str = "rnnt_swb300") -> Path:
        text = catalogue.find("workloads", "workload", base).read_text(encoding="utf-8")
        for old, new in replaced.items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write
