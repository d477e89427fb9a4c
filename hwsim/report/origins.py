"""Lists of numbers with their sources or assumptions, wrapped for reading."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from itertools import groupby

WIDTH = 100
_LISTED = 6


def assumption_lines(assumptions: Iterable[str], width: int = WIDTH, listed: int = _LISTED) -> str:
    """Entries `path = value: why`, wrapped with a hanging indent.

    Neighbours with the same reason become one entry; more than `listed` of them are only counted.
    """
    split = [entry.removeprefix("arch.").partition(": ")[::2] for entry in assumptions]
    entries = []
    for why, group in groupby(split, key=lambda entry: entry[1]):
        heads = [head for head, _ in group]
        entries.append(f"{_joined(heads, listed)}: {' '.join(why.split())}")
    return "\n".join(_hanging(entry, width) for entry in entries)


def _joined(heads: list[str], listed: int) -> str:
    if len(heads) == 1:
        return heads[0]
    parts = [head.partition(" = ")[0].split(".") for head in heads]
    depth = next((i for i, names in enumerate(zip(*parts, strict=False)) if len(set(names)) > 1), 0)
    prefix = ".".join(parts[0][:depth])
    if len(heads) > listed:
        return f"{prefix}.* ({len(heads)} numbers)" if prefix else f"{len(heads)} numbers from {heads[0]} on"
    if not prefix:
        return ", ".join(heads)
    return f"{prefix}: " + ", ".join(head.removeprefix(f"{prefix}.") for head in heads)


def _hanging(text: str, width: int) -> str:
    return textwrap.fill(
        text, width, initial_indent="  ", subsequent_indent="      ", break_long_words=False, break_on_hyphens=False
    )
