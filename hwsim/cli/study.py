"""`hwsim study`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hwsim import catalogue
from hwsim.cli.options import choice, integer, integers, words
from hwsim.cli.printing import progress_bar, say
from hwsim.errors import HwsimError
from hwsim.report.files import check_output_folder
from hwsim.report.layout import facts_grid
from hwsim.report.plots import require_matplotlib
from hwsim.report.study import pareto_table, plot_study
from hwsim.report.units import plural
from hwsim.study import StudyRequest, run_study
from hwsim.study.run import TABLE
from hwsim.study.work import split_of

if TYPE_CHECKING:
    from rich.table import Table

PLOT = "study.png"
DECODERS = ("alsd", "tsd", "maes")
MODELS = ("none", "shallow", "density-ratio")


@dataclass(frozen=True)
class Words:
    """What the user typed."""

    workload: str
    out: Path
    arch: str
    precision: str
    beam: str
    lm: str
    utterances: str | None
    data: Path | None
    split: str
    recognizers: Path | None
    decoder: str


def run_grid(given: Words) -> None:
    """Run the study or the rest of it, write its table and its figure, print the points worth taking."""
    request = _request(given)
    require_matplotlib()
    check_output_folder(given.out)
    with progress_bar("study") as on_row:
        frame = run_study(request, given.out, on_row)
    plot = plot_study(frame, given.out / PLOT)
    tables = [part for arch in request.archs for part in (pareto_table(frame, arch), "")]
    say(_facts(request), "", *tables, str(given.out / TABLE), str(plot))


def _request(given: Words) -> StudyRequest:
    for value in words("--lm", given.lm):
        choice("--lm", value, MODELS)
    choice("--decoder", given.decoder, DECODERS)
    shipped = catalogue.data_folder("workloads") / given.workload
    if (given.data is None or given.recognizers is None) and not shipped.is_dir():
        raise HwsimError(f"{given.workload}: must be given --data and --recognizers, got a workload that ships none")
    request = StudyRequest(
        workload=given.workload,
        archs=tuple(words("--arch", given.arch)),
        precisions=tuple(words("--precision", given.precision)),
        beams=tuple(integers("--beam", given.beam)),
        lms=tuple(words("--lm", given.lm)),
        utterances=1,
        data=given.data or shipped,
        recognizers=given.recognizers or shipped,
        split=given.split,
        decoder=given.decoder,
    )
    asked = integer("--utterances", given.utterances)
    return replace(request, utterances=len(split_of(request)) if asked is None else asked)


def _facts(request: StudyRequest) -> Table:
    return facts_grid({
        "Recognizer": f"{request.workload}, {request.recognizers}",
        "Speech": f"{plural(request.utterances, 'utterance')} of {request.split}, {request.data}",
        "Search": f"{request.decoder}, greedy where the beam is 1; every decode is timed as it was done",
    })  # fmt: skip
