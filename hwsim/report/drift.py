"""A study of drift as people look at it: WER over the time since programming, with and without its remedies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from hwsim.errors import HwsimError
from hwsim.execute.analog.times import time_text
from hwsim.report.files import check_output_file, replaced
from hwsim.report.layout import plain_table
from hwsim.report.plots import COLOURS, require_matplotlib
from hwsim.study.drift.table import ANALOG, DIGITAL, over_chips

if TYPE_CHECKING:
    import pandas as pd

COMPENSATION = {True: "compensated", False: "uncompensated"}
TITLES = {True: "with drift compensation", False: "without"}


def drift_table(frame: pd.DataFrame) -> Table:
    """WER and energy of recognizers in digital, and over chips of each training, compensation and time."""
    table = plain_table(
        "Word error rate since programming",
        [("training", "left"), ("drift", "left"), ("time", "right"), ("chips", "right"), ("WER, %", "right"),
         ("deviation", "right"), ("least to greatest", "right"), ("mJ/s audio", "right"), ("host", "right")],
    )  # fmt: skip
    for _, row in frame[frame["reading"] == DIGITAL].iterrows():
        table.add_row(row["training"], "digital", "", "", f"{100 * row['wer']:.2f}", "", "", *_energies(row))
    for _, row in over_chips(frame).iterrows():
        table.add_row(
            row["training"], COMPENSATION[bool(row["compensated"])], time_text(row["t_s"]), str(row["chips"]),
            f"{100 * row['wer']:.2f}", f"{100 * row['wer_deviation']:.2f}",
            f"{100 * row['wer_low']:.2f} to {100 * row['wer_high']:.2f}", *_energies(row),
        )  # fmt: skip
    return table


def plot_drift(frame: pd.DataFrame, path: str | Path) -> Path:
    """Draw WER over the time since programming and return the path of the PNG.

    A panel with drift compensation and one without; a colour for each training, thin lines for chips, thick ones for
    their mean, dotted ones for recognizers in digital. The legend has energies per second of audio.
    Raises HwsimError without matplotlib, without a chip, and for a path that cannot be written.
    """
    require_matplotlib()
    check_output_file(path)
    if not (frame["reading"] == ANALOG).any():
        raise HwsimError("a plot of drift must have at least one chip, got none")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), dpi=150, layout="constrained")
    trainings = list(dict.fromkeys(frame["training"]))
    colours = dict(zip(trainings, COLOURS, strict=False))
    chips = frame[frame["reading"] == ANALOG]
    for ax, compensated in zip(figure.subplots(1, 2), COMPENSATION, strict=True):
        own = chips[chips["compensated"].astype(bool) == compensated]
        for training in trainings:
            _draw_chips(ax, own[own["training"] == training], colours[training])
        for _, row in frame[frame["reading"] == DIGITAL].iterrows():
            ax.axhline(100 * row["wer"], color=colours[row["training"]], linestyle=":", linewidth=1.4)
        _label(ax, sorted(set(chips["t_s"])))
        ax.set_title(TITLES[compensated], fontsize=9)
    figure.suptitle(f"{chips['arch'].iloc[0]}, noise {chips['noise'].iloc[0]}, chips (thin) and their mean", fontsize=9)
    figure.legend(handles=_legend(frame, colours), loc="outside lower center", ncols=1, fontsize=8, frameon=False)
    with replaced(path) as partial:
        figure.savefig(partial, format="png")
    return Path(path)


def _draw_chips(ax: Any, frame: pd.DataFrame, colour: str) -> None:
    """The chips of one training, with or without compensation, and their mean."""
    for _, chip in frame.groupby("chip"):
        line = chip.sort_values("t_s")
        ax.plot(line["t_s"], 100 * line["wer"], color=colour, linewidth=0.7, alpha=0.35)
    mean = 100 * frame.groupby("t_s")["wer"].mean()
    ax.plot(mean.index, mean.to_numpy(), color=colour, linewidth=2.0, marker="o", markersize=4)


def _label(ax: Any, times_s: list[float]) -> None:
    ax.set_xscale("log")
    ax.set_xticks(times_s, [time_text(t) for t in times_s])
    ax.minorticks_off()
    ax.set_xlabel("time since programming")
    ax.set_ylabel("word error rate, %")
    ax.set_ylim(bottom=0)
    ax.grid(True, alpha=0.25)


def _legend(frame: pd.DataFrame, colours: dict[str, str]) -> list[Any]:
    """One entry for each training on chips, with the mean energy where drift is compensated, and one in digital."""
    from matplotlib.lines import Line2D

    means = over_chips(frame)
    means = means[means["compensated"].astype(bool)]
    handles = []
    for training, own in means.groupby("training", sort=False):
        label = f"{training} on {own['chips'].max()} chips: {_energy_text(own.mean(numeric_only=True))}"
        handles.append(Line2D([], [], color=colours[str(training)], marker="o", linewidth=2.0, label=label))
    for _, row in frame[frame["reading"] == DIGITAL].iterrows():
        label = f"{row['training']} in digital, {row['arch']}: {_energy_text(row)}"
        handles.append(Line2D([], [], color=colours[row["training"]], linestyle=":", linewidth=1.4, label=label))
    return handles


def _energies(row: pd.Series[Any]) -> tuple[str, str]:
    total, host = row["energy_per_audio_second_j"], row["host_energy_per_audio_second_j"]
    return f"{1e3 * total:.3g}", f"{host / total:.0%}"


def _energy_text(row: pd.Series[Any]) -> str:
    total, host = _energies(row)
    return f"{total} mJ per second of audio, {host} of it the host's"
