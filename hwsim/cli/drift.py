"""`hwsim drift`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hwsim import catalogue
from hwsim.cli.options import integer, words
from hwsim.cli.printing import progress_bar, say
from hwsim.errors import HwsimError
from hwsim.execute.analog import parse_time
from hwsim.report.drift import drift_table, plot_drift
from hwsim.report.files import check_output_folder
from hwsim.report.layout import facts_grid
from hwsim.report.plots import require_matplotlib
from hwsim.report.units import plural
from hwsim.study.drift import DriftRequest, run_drift
from hwsim.study.drift.run import TABLE
from hwsim.study.drift.work import tile_layers
from hwsim.study.work import split_of

if TYPE_CHECKING:
    from rich.table import Table

PLOT = "drift.png"


@dataclass(frozen=True)
class Words:
    """What the user typed."""

    workload: str
    out: Path
    arch: str
    versus: str
    precision: str
    digital: str
    noise: str
    chips: str
    times: str
    seed: str
    utterances: str | None
    data: Path | None
    split: str
    recognizers: Path | None


def run_chips(given: Words) -> None:
    """Run the study or the rest of it, write its table and its figure, print means over chips."""
    request = _request(given)
    require_matplotlib()
    check_output_folder(given.out)
    with progress_bar("drift") as on_row:
        frame = run_drift(request, given.out, on_row)
    plot = plot_drift(frame, given.out / PLOT)
    say(_facts(request), "", drift_table(frame), "", str(given.out / TABLE), str(plot))


def _request(given: Words) -> DriftRequest:
    shipped = catalogue.data_folder("workloads") / given.workload
    if (given.data is None or given.recognizers is None) and not shipped.is_dir():
        raise HwsimError(f"{given.workload}: must be given --data and --recognizers, got a workload that ships none")
    chips, seed = integer("--chips", given.chips), integer("--seed", given.seed)
    assert chips is not None
    assert seed is not None
    request = DriftRequest(
        workload=given.workload,
        arch=given.arch,
        digital_arch=given.versus,
        analog=tuple(words("--precision", given.precision)),
        digital=given.digital,
        chips=chips,
        times_s=tuple(parse_time(time) for time in words("--times", given.times)),
        utterances=1,
        data=given.data or shipped,
        recognizers=given.recognizers or shipped,
        split=given.split,
        noise=given.noise,
        seed=seed,
    )
    asked = integer("--utterances", given.utterances)
    return replace(request, utterances=len(split_of(request)) if asked is None else asked)


def _facts(request: DriftRequest) -> Table:
    return facts_grid({
        "Recognizers": f"{', '.join(request.analog)} on chips, {request.digital} in digital; {request.recognizers}",
        "Speech": f"{plural(request.utterances, 'utterance')} of {request.split}, {request.data}",
        "Chips": f"{request.chips} of seed {request.seed}, noise {request.noise}; energy on {request.arch}",
        "On tiles": ", ".join(sorted(tile_layers(request.arch, request.workload))),
        "Digital": f"energy on {request.digital_arch}; every search is greedy and has no language model",
    })  # fmt: skip
