"""Command lines run in this process, and what they printed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from hwsim.cli.run import run


class Outcome(NamedTuple):
    """What a command line came to."""

    code: int
    out: str
    err: str


Call = Callable[..., Outcome]

SHORT = ("simulate", "rapid_4core", "rnnt_swb300", "--frames", "20", "--beam", "2")
"""A simulation that takes a few milliseconds."""


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run `hwsim` with some words."""

    def run_words(*words: str | Path) -> Outcome:
        code = run([str(word) for word in words])
        return Outcome(code, *capsys.readouterr())

    return run_words


@pytest.fixture
def refused(call: Call) -> Callable[..., str]:
    """Run `hwsim` with words that are wrong; returns the message of the one line that it prints."""

    def run_wrong(*words: str | Path) -> str:
        outcome = call(*words)
        assert outcome.code == 2
        assert outcome.out == ""
        assert outcome.err.startswith("hwsim: error: ")
        assert outcome.err.count("\n") == 1
        return outcome.err.removeprefix("hwsim: error: ").removesuffix("\n")

    return run_wrong
