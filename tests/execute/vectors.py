"""The tables of docs/numerics.md as test vectors."""

from __future__ import annotations

from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "numerics.md"


def vectors(name: str, text: str | None = None) -> list[dict[str, str]]:
    """Rows of the table that follows `<!-- vectors: name -->`, by column."""
    lines = (DOCUMENT.read_text("utf-8") if text is None else text).splitlines()
    start = lines.index(f"<!-- vectors: {name} -->") + 1
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
    head, _, *body = rows
    assert body
    return [dict(zip(head, row, strict=True)) for row in body]


def numbers(cell: str) -> list[int]:
    """Integers of a cell, separated by spaces."""
    return [int(part) for part in cell.split()]
