"""What a user did wrong, said in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HwsimError(Exception):
    """A mistake of the user's, or a thing that does not fit; its text is one complete line.

    The command line prints it and exits with 2; it never shows a stack trace for one of these.
    """


class ConfigError(HwsimError):
    """A file that breaks its schema: `file:line: dotted.path must be <rule>, got <value>`."""


class CapacityError(HwsimError):
    """A network or an operation that does not fit a machine: what is short, by how much, what would help."""


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """`; nearest: a, b` for the known names closest to `name`, or the whole list when none is close."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=count, cutoff=0.5)
    if close:
        return f"; nearest: {', '.join(close)}"
    return f"; known: {', '.join(names)}" if names else ""
