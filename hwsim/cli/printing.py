"""What goes to the terminal: reports on standard output, progress on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDTH = 100


class ReaderGone(Exception):
    """Nobody reads the output any more, as after `| head`."""


def say(*parts: RenderableType) -> None:
    """Print renderables, 100 columns wide whatever the terminal, and strings as they are."""
    from rich.console import Console

    console = Console(width=WIDTH, markup=False, highlight=False, emoji=False)
    with console.capture() as capture:
        for part in parts:
            console.print(part, soft_wrap=isinstance(part, str))
    text = "\n".join(line.rstrip() for line in capture.get().split("\n"))
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise ReaderGone from None


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error; yields `on_point(done, total)`. Silent when that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Without a refreshing thread, so that worker processes may be forked meanwhile.
    with Progress(
        *columns, console=console, transient=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False,
        disable=not console.is_terminal,
    ) as progress:  # fmt: skip
        task = progress.add_task(label, total=None)

        def on_point(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, refresh=True)

        yield on_point


def warn(message: str) -> None:
    """One line on standard error."""
    print(f"hwsim: {' '.join(message.split())}", file=sys.stderr)
