"""A study as people look at it: word error rate against real-time factor and energy, and the points worth taking."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from hwsim.errors import HwsimError
from hwsim.report.files import check_output_file, replaced
from hwsim.report.layout import plain_table
from hwsim.report.plots import COLOURS, MARKERS, require_matplotlib
from hwsim.report.units import plural

if TYPE_CHECKING:
    import pandas as pd

AXES = (("rtf", "real-time factor"), ("energy_per_audio_second_j", "energy per second of audio, J"))
LEAST_AREA, AREA = 14, 9


def pareto_table(frame: pd.DataFrame, arch: str) -> Table:
    """The Pareto points of one machine, fastest first."""
    own = frame[frame["arch"] == arch]
    table = plain_table(
        f"{arch}: points that no other beats, of {plural(len(own), 'point')}",
        [("precision", "left"), ("beam", "right"), ("lm", "left"), ("WER", "right"), ("95 %", "right"),
         ("RTF", "right"), ("mJ/s audio", "right"), ("p90 latency, ms", "right")],
    )  # fmt: skip
    for _, row in own[own["pareto"]].sort_values("rtf").iterrows():
        table.add_row(
            row["precision"], str(row["beam"]), row["lm"], f"{row['wer']:.1%}",
            f"{row['wer_low']:.1%} to {row['wer_high']:.1%}", f"{row['rtf']:.2g}",
            f"{1e3 * row['energy_per_audio_second_j']:.3g}", f"{1e3 * row['latency_p90_s']:.3g}",
        )  # fmt: skip
    return table


def plot_study(frame: pd.DataFrame, path: str | Path) -> Path:
    """Draw WER over RTF and over energy, a row of panels for each machine, and return the path of the PNG.

    Colours are precisions, markers language models, areas beams; Pareto points have a black rim, the bars of one of
    each precision are the 95 % interval. Raises HwsimError without matplotlib, and for a path that cannot be written.
    """
    require_matplotlib()
    check_output_file(path)
    if frame.empty:
        raise HwsimError("a plot of a study must have at least one point, got none")
    from matplotlib.figure import Figure

    archs = list(dict.fromkeys(frame["arch"]))
    figure = Figure(figsize=(11, 1.2 + 3.6 * len(archs)), dpi=150, layout="constrained")
    panels = figure.subplots(len(archs), len(AXES), sharey=True, squeeze=False)
    for row, arch in zip(panels, archs, strict=True):
        for ax, (column, label) in zip(row, AXES, strict=True):
            _draw(ax, frame[frame["arch"] == arch], column)
            ax.set_xscale("log")
            ax.set_xlabel(label)
            ax.set_title(arch, fontsize=9)
            ax.grid(True, which="both", alpha=0.25)
        row[0].set_ylabel("word error rate, %")
    figure.legend(handles=_legend(frame), loc="outside right upper", fontsize=8, frameon=False)
    with replaced(path) as partial:
        figure.savefig(partial, format="png")
    return Path(path)


def _draw(ax: Any, frame: pd.DataFrame, column: str) -> None:
    precisions, lms = sorted(set(frame["precision"])), sorted(set(frame["lm"]))
    for precision, colour in zip(precisions, COLOURS, strict=False):
        own = frame[frame["precision"] == precision]
        best = own.loc[own["wer"].idxmin()]
        bars = [[100 * (best["wer"] - best["wer_low"])], [100 * (best["wer_high"] - best["wer"])]]
        ax.errorbar([best[column]], [100 * best["wer"]], yerr=bars, color=colour, linewidth=0.8, capsize=2, zorder=1)
        for lm, marker in zip(lms, MARKERS, strict=False):
            part = own[own["lm"] == lm]
            for points, style in (
                (part, {"facecolors": colour, "edgecolors": "none", "alpha": 0.6, "zorder": 2}),
                (part[part["pareto"]], {"facecolors": "none", "edgecolors": "black", "linewidths": 1.4, "zorder": 3}),
            ):
                area = LEAST_AREA + AREA * points["beam"]
                ax.scatter(points[column], 100 * points["wer"], s=area, marker=marker, **style)


def _legend(frame: pd.DataFrame) -> list[Any]:
    from matplotlib.lines import Line2D

    def mark(label: str, **style: Any) -> Any:
        return Line2D([], [], linestyle="none", label=label, **style)

    precisions, lms = sorted(set(frame["precision"])), sorted(set(frame["lm"]))
    handles = [mark(name, marker="o", color=c) for name, c in zip(precisions, COLOURS, strict=False)]
    handles += [mark(f"lm {name}", marker=m, color="grey") for name, m in zip(lms, MARKERS, strict=False)]
    for beam in sorted(set(frame["beam"])):
        size = (LEAST_AREA + AREA * beam) ** 0.5
        handles.append(mark(f"beam {beam}", marker="o", color="lightgrey", markersize=size))
    rim = mark("Pareto", marker="o", color="white", markeredgecolor="black")
    return [*handles, rim]
