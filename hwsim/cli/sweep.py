"""`hwsim sweep`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from hwsim.arch import load_arch
from hwsim.cli.options import choice, integer, integers, setting_lists, words
from hwsim.cli.printing import progress_bar, say, warn
from hwsim.decode.settings import Algorithm, LanguageModel
from hwsim.engine.run import Engine
from hwsim.errors import HwsimError
from hwsim.numerics import load_policy
from hwsim.report.facts import policy_fallbacks
from hwsim.report.files import check_output_file, check_output_folder
from hwsim.report.plots import plot_rtf_over_beam, require_matplotlib
from hwsim.report.sweep import rtf_table
from hwsim.report.units import plural
from hwsim.sweep import SweepRequest, run_sweep

if TYPE_CHECKING:
    import pandas as pd

TABLE, PLOT = "sweep.csv", "rtf_over_beam.png"


def run_grid(names: Sequence[str], out: Path, precision: str, lists: Mapping[str, str | None], frames: str | None,
             engine: str, set_: Sequence[str]) -> None:  # fmt: skip
    """Run a grid, write its table and its plot, print the RTFs and where both files are."""
    request = _request(names, precision, lists, frames, engine, set_)
    require_matplotlib()
    check_output_folder(out)
    if out.is_dir():
        check_output_file(out / PLOT)
    with progress_bar("sweep") as on_point:
        frame = run_sweep(request, out, on_point)
    _report_failures(frame)
    plot = plot_rtf_over_beam(frame, out / PLOT)
    say(rtf_table(frame), "", *_notes(request), str(out / TABLE), str(plot))


def _request(names: Sequence[str], precision: str, lists: Mapping[str, str | None], frames: str | None, engine: str,
             set_: Sequence[str]) -> SweepRequest:  # fmt: skip
    if len(names) < 2:
        raise HwsimError(f"sweep must be given at least one architecture and then the workload, got '{names[0]}' only")
    beam, decoder, lm = (lists[name] for name in ("beam", "decoder", "lm"))
    decoders = None if decoder is None else words("--decoder", decoder)
    models = None if lm is None else words("--lm", lm)
    for option, values, known in (("--decoder", decoders, Algorithm), ("--lm", models, LanguageModel)):
        for value in values or ():
            choice(option, value, get_args(known))
    choice("--engine", engine, get_args(Engine))
    return SweepRequest(
        archs=list(names[:-1]),
        workload=names[-1],
        precisions=words("--precision", precision),
        beams=None if beam is None else integers("--beam", beam),
        lms=models,
        decoders=decoders,
        frames=integer("--frames", frames),
        settings=setting_lists(set_),
        engine=engine,  # type: ignore[arg-type]
    )


def _notes(request: SweepRequest) -> list[str]:
    """Fallbacks that points of the sweep used."""
    notes: dict[str, None] = {}
    for name, policy in product(request.archs, request.precisions):
        # A machine that cannot compute the format at all has its points reported already.
        with suppress(HwsimError):
            notes |= dict.fromkeys(policy_fallbacks(load_arch(name), load_policy(policy)))
    return [*notes, ""] if notes else []


def _report_failures(frame: pd.DataFrame) -> None:
    failed = frame[frame["error"].notna()]
    if len(failed):
        first = failed["error"].iloc[0]
        warn(f"{plural(len(failed), 'point')} of {len(frame)} cannot run, see the column error; the first: {first}")
