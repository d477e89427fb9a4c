"""Results that the tests of reports share, and reports as plain text."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console, RenderableType

import hwsim
from hwsim.simulation import Result

Text = Callable[[RenderableType], str]


@pytest.fixture(scope="session")
def int4() -> Result:
    """A short utterance, with both language models."""
    return hwsim.simulate("rapid_4core", "rnnt_swb300", "int4", beam=4, frames=20)


@pytest.fixture(scope="session")
def fp16() -> Result:
    return hwsim.simulate("rapid_4core", "rnnt_swb300", "fp16", beam=4, frames=20)


@pytest.fixture(scope="session")
def int8() -> Result:
    """A format that the machine computes as another one."""
    return hwsim.simulate("rapid_4core", "rnnt_swb300", "int8", beam=4, frames=20, lm="none")


@pytest.fixture(scope="session")
def text() -> Text:
    """Render for 100 columns without a terminal; trailing blanks are cut."""

    def render(renderable: RenderableType) -> str:
        console = Console(file=io.StringIO(), width=100, markup=False, highlight=False, emoji=False)
        with console.capture() as capture:
            console.print(renderable)
        return "\n".join(line.rstrip() for line in capture.get().split("\n")).rstrip("\n")

    return render
