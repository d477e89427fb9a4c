"""The forms that all reports share: paragraphs beside headings, tables, sections, wrapped lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import fill

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from hwsim.report.origins import WIDTH, assumption_lines


def facts_grid(rows: Mapping[str, str]) -> Table:
    """Paragraphs beside their headings, at most 100 columns wide."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    heading = max(map(len, rows))
    grid.add_column(max_width=WIDTH - heading - 4)
    for name, text in rows.items():
        grid.add_row(name, text)
    return grid


class TitledTable(Table):
    """A table under a heading that may be wider than the table, where rich would break it."""

    heading = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self.heading, style="bold")
        yield from super().__rich_console__(console, options)


def plain_table(title: str, columns: Sequence[tuple[str, str]]) -> Table:
    """A table of `(heading, justify)` columns; headings may have two lines.

    `justify` is `left`, `right`, or `wrap` for text on the left that may be broken; numbers never are.
    """
    table = TitledTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="")
    table.heading = title
    for heading, justify in columns:
        wraps = justify == "wrap"
        table.add_column(heading, justify="right" if justify == "right" else "left", no_wrap=not wraps,
                         overflow="fold" if wraps else "ellipsis")  # fmt: skip
    return table


def section(title: str, body: RenderableType) -> Group:
    """A heading over text."""
    return Group(Text(title, style="bold"), body)


def bullets(lines: Iterable[str], mark: str = "- ") -> str:
    """Wrapped lines, each after a mark."""
    indent = " " * (2 + len(mark))
    return "\n".join(
        fill(line, WIDTH, initial_indent=f"  {mark}", subsequent_indent=f"{indent}  " if not mark else indent,
             break_on_hyphens=False)
        for line in lines
    )  # fmt: skip


def assumption_text(assumptions: Sequence[str], listed: int = 6) -> Text:
    """The assumptions, wrapped, with their paths in bold."""
    text = Text(assumption_lines(assumptions, listed=listed))
    text.highlight_regex(r"(?m)^  [^ ][^:]*", "bold")
    return text


def spaced(parts: Iterable[RenderableType]) -> Group:
    """Parts with an empty line between them."""
    return Group(*[part for item in parts for part in (item, Text())][:-1])
