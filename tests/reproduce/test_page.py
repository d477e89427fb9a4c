"""docs/systems.md is what the command writes."""

from __future__ import annotations

from pathlib import Path

from hwsim.report.reproduction_page import reproduction_page
from hwsim.reproduce import REPRODUCTIONS
from tests.reproduce.papers import reproduced

PAGE = Path(__file__).resolve().parents[2] / "docs" / "systems.md"


def test_the_page_of_all_systems_is_current() -> None:
    page = reproduction_page([reproduced(name)[0] for name in REPRODUCTIONS])
    assert PAGE.read_text(encoding="utf-8") == page, "run: make docs"
