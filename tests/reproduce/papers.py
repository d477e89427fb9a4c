"""Each paper, reproduced once for all tests."""

from __future__ import annotations

from functools import cache

from hwsim.reproduce import REPRODUCTIONS, Reproduction


@cache
def reproduced(name: str) -> tuple[Reproduction, list[tuple[int, int]]]:
    """The reproduction of a paper, and what it said of its progress."""
    steps: list[tuple[int, int]] = []
    return REPRODUCTIONS[name](on_step=lambda done, total: steps.append((done, total))), steps
