"""Plots of many runs, as PNG files."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.errors import HwsimError
from hwsim.report.files import check_output_file, replaced

if TYPE_CHECKING:
    import pandas as pd

# The palette of Okabe and Ito, told apart with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MOST_PANELS = 12
"""More of them cannot be read on one page."""

Key = tuple[Hashable, ...]


def require_matplotlib() -> None:
    """Raise HwsimError when plots cannot be drawn."""
    if find_spec("matplotlib") is None:
        raise HwsimError("plots need matplotlib, got an installation without it: install hwsim[plot]")


def plot_rtf_over_beam(frame: pd.DataFrame, path: str | Path) -> Path:
    """Draw the RTF over the beam width, one line for each precision, and return the path of the PNG.

    `frame` is the table of a sweep: the columns before `rtf` name a point (arch, workload, precision, decoder, beam,
    lm, and any setting), and a row without an RTF is left out. What takes several values beside precision and beam
    is told apart by line styles, or by panels. Both axes are logarithmic.
    Raises HwsimError without matplotlib, without a point, or for a path that cannot be written.
    """
    require_matplotlib()
    check_output_file(path)
    data = frame[frame["rtf"].notna()]
    if data.empty:
        raise HwsimError("a plot of RTF over beam width must have at least one point, got none")
    from matplotlib.figure import Figure

    across, inside = _arrangement(data)
    every = _values(data, across)
    shown = every[:MOST_PANELS]
    columns = min(len(shown), 3)
    rows = math.ceil(len(shown) / columns)
    # A Figure without pyplot draws with Agg and needs no display.
    figure = Figure(figsize=(2.9 + 3.6 * columns, 1.4 + 3.3 * rows), dpi=150, layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    styles = dict(zip(_values(data, inside), LINES, strict=False))
    for ax, key in zip(axes.flat, shown, strict=False):
        _draw_panel(ax, data[_matches(data, across, key)], inside, styles, _precisions(data))
        ax.set_title(_label(across, key), fontsize=9)
    for ax in axes.flat[len(shown) :]:
        ax.set_axis_off()
    figure.supxlabel("beam width", fontsize=10)
    figure.supylabel("real-time factor", fontsize=10)
    cut = f" (the first {len(shown)} of {len(every)} panels)" if len(shown) < len(every) else ""
    figure.suptitle(f"{_title(data)}{cut}", fontsize=11)
    _draw_legend(figure, data, inside, styles)
    with replaced(path) as partial:
        figure.savefig(partial, format="png")
    return Path(path)


def _arrangement(data: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Columns that are told apart by panels, and those by line styles."""
    inputs = [str(name) for name in data.columns[: list(data.columns).index("rtf")]]
    varying = [name for name in inputs if name not in ("precision", "beam") and data[name].nunique(dropna=False) > 1]
    across = [name for name in varying if name == "arch"]
    inside = [name for name in varying if name != "arch"]
    if len(_values(data, inside)) > len(LINES):
        return varying, []
    return across, inside


def _values(data: pd.DataFrame, columns: Sequence[str]) -> list[Key]:
    """Combinations of the values of some columns, in the order of the table; one empty combination for none."""
    if not columns:
        return [()]
    return list(dict.fromkeys(data[list(columns)].itertuples(index=False, name=None)))


def _matches(data: pd.DataFrame, columns: Sequence[str], key: Key) -> pd.Series[bool]:
    chosen = data["rtf"].notna()
    for name, value in zip(columns, key, strict=True):
        chosen &= data[name] == value
    return chosen


def _precisions(data: pd.DataFrame) -> dict[str, int]:
    """Index of each precision, for its colour and marker."""
    return {str(name): i for i, name in enumerate(dict.fromkeys(data["precision"]))}


def _draw_panel(ax: Any, data: pd.DataFrame, inside: Sequence[str], styles: dict[Key, str], colours: dict[str, int]
                ) -> None:  # fmt: skip
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for name, i in colours.items():
        for key, style in styles.items():
            line = data[(data["precision"] == name) & _matches(data, inside, key)].sort_values("beam")
            ax.plot(
                line["beam"], line["rtf"], style, color=COLOURS[i % len(COLOURS)], marker=MARKERS[i % len(MARKERS)],
                markersize=4.5, linewidth=1.6,
            )  # fmt: skip
    ax.axhline(1.0, color="0.35", linewidth=1.0, linestyle=(0, (1, 1)))
    ax.annotate("real time", (0.01, 1.0), xycoords=("axes fraction", "data"), xytext=(0, 2),
                textcoords="offset points", fontsize=8, color="0.35")  # fmt: skip
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(sorted(set(data["beam"].tolist())))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    low, high = ax.get_ylim()
    if high < 200 * low:
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_minor_formatter(FuncFormatter(lambda y, _: ""))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    ax.grid(True, which="major", color="0.85", linewidth=0.6)
    ax.grid(True, which="minor", axis="y", color="0.93", linewidth=0.4)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)


def _draw_legend(figure: Any, data: pd.DataFrame, inside: Sequence[str], styles: dict[Key, Any]) -> None:
    """Precisions by colour, slowest first as in the panels; under them the line styles, when there are several."""
    from matplotlib.lines import Line2D

    colours = _precisions(data)
    slowest = data.groupby("precision")["rtf"].max().sort_values(ascending=False)
    handles: list[Any] = [
        Line2D([], [], color=COLOURS[colours[str(name)] % len(COLOURS)], linewidth=1.6, markersize=4.5,
               marker=MARKERS[colours[str(name)] % len(MARKERS)], label=str(name))
        for name in slowest.index
    ]  # fmt: skip
    if len(styles) > 1:
        handles += [
            Line2D([], [], color="0.2", linestyle=style, label=_label(inside, key)) for key, style in styles.items()
        ]
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=9)


def _label(columns: Sequence[str], key: Key) -> str:
    """`rapid_4core`, `decoder alsd, lm none`, `dram.bandwidth_bytes_per_s = 1e+11`."""
    return ", ".join(_named(name, value) for name, value in zip(columns, key, strict=True))


def _named(name: str, value: Hashable) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    if name in ("arch", "workload"):
        return text
    return f"{name} = {text}" if "." in name else f"{name} {text}"


def _title(data: pd.DataFrame) -> str:
    """What all points have in common."""
    names = [name for name in ("workload", "arch", "decoder", "lm") if data[name].nunique() == 1]
    return f"RTF over beam width\n{_label(names, tuple(data[name].iloc[0] for name in names))}"
