"""`hwsim data`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hwsim import catalogue
from hwsim.cli.options import integer
from hwsim.cli.printing import progress_bar, say
from hwsim.errors import HwsimError
from hwsim.extract import load_network
from hwsim.report.files import check_output_folder
from hwsim.report.layout import facts_grid, plain_table
from hwsim.report.units import DASH, plural
from hwsim.speech.build import Request, build

if TYPE_CHECKING:
    from rich.table import Table

    from hwsim.speech.dataset import FileEntry, Manifest


def run_data(workload: str, out: Path, seed: str | None, utterances: str | None) -> None:
    """Build the set, or find it built, and print what is in it."""
    request = _request(workload, integer("--seed", seed), integer("--utterances", utterances))
    check_output_folder(out)
    with progress_bar("speech") as on_utterance:
        manifest, built = build(request, out, on_utterance=on_utterance)
    said = f"Wrote {out}" if built else f"{out} is whole and of these settings: nothing to do"
    say(_facts(manifest), "", _table(manifest), "", said)


def _request(workload: str, seed: int | None, utterances: int | None) -> Request:
    loaded = load_network(workload)
    if loaded.speech is None:
        have = [name for name in catalogue.names("workloads") if load_network(name).speech is not None]
        raise HwsimError(f"{workload}: must have a section speech, got none; those that have: {', '.join(have)}")
    for option, value, least in (("--seed", seed, 0), ("--utterances", utterances, 1)):
        if value is not None and value < least:
            raise HwsimError(f"{option} must be at least {least}, got {value}")
    return Request(loaded.name, loaded.speech, seed, utterances)


def _facts(manifest: Manifest) -> Table:
    frame_ms = 1e3 * manifest.features.stack * manifest.features.shift_s
    text = manifest.text
    return facts_grid({
        "Speech": f"{manifest.workload}, seed {manifest.seed}, settings {manifest.settings_sha256[:12]}",
        "Made by": f"{manifest.synthesizer}, {manifest.feature_library}",
        "Frames": f"{manifest.features.stack * manifest.features.bins} features each {frame_ms:g} ms",
        "Text": f"{plural(text.utterances, 'sentence')}, {plural(text.words, 'word')}",
    })  # fmt: skip


def _table(manifest: Manifest) -> Table:
    table = plain_table(
        "Splits",
        [("split", "left"), ("utterances", "right"), ("hours", "right"), ("words", "right"), ("mean frames", "right"),
         ("SNR, dB", "right"), ("voices", "right")],
    )  # fmt: skip
    for name, entry in manifest.splits.items():
        table.add_row(
            name, f"{entry.utterances:,}", f"{entry.seconds / 3600:.2f}", f"{entry.words:,}",
            f"{entry.frames / entry.utterances:.1f}", _snr(entry), str(entry.voices),
        )  # fmt: skip
    return table


def _snr(entry: FileEntry) -> str:
    if entry.snr_db is None:
        return DASH
    low, high = (f"{value:.1f}".removesuffix(".0") for value in entry.snr_db)
    return low if low == high else f"{low} to {high}"
