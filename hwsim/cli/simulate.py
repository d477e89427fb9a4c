"""`hwsim simulate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from hwsim.arch import load_arch
from hwsim.cli.options import choice, integer, output_files, settings
from hwsim.cli.printing import say
from hwsim.decode.search import default_settings, split_changes
from hwsim.decode.settings import Algorithm, LanguageModel
from hwsim.engine.run import Engine
from hwsim.extract import load_workload
from hwsim.numerics import load_policy
from hwsim.report.files import write_json, written
from hwsim.report.tables import result_report
from hwsim.report.timeline import write_timeline
from hwsim.simulation import Result
from hwsim.simulation import simulate as run_simulation


@dataclass(frozen=True)
class Search:
    """How the utterance is decoded and timed, as written by the user; None is the workload's own."""

    beam: str | None
    decoder: str | None
    lm: str | None
    frames: str | None
    engine: str


def run_simulate(arch: str, workload: str, precision: str, versus: str | None, search: Search, set_: Sequence[str],
                 *, json: Path | None, csv: Path | None, timeline: Path | None) -> None:  # fmt: skip
    """Simulate, write what was asked for, print the report. Raises HwsimError before anything is written."""
    files = output_files(json=json, csv=csv, timeline=timeline)
    choice("--decoder", search.decoder, get_args(Algorithm))
    choice("--lm", search.lm, get_args(LanguageModel))
    choice("--engine", search.engine, get_args(Engine))
    beam, frames = integer("--beam", search.beam), integer("--frames", search.frames)
    changed = settings(set_)
    of_machine, of_decode = split_changes(changed)
    machine, network = load_arch(arch, of_machine), load_workload(workload)
    decode = default_settings(network, beam=beam, algorithm=search.decoder, lm=search.lm, changes=of_decode)
    policies = [load_policy(name) for name in (precision, versus) if name is not None]
    results = [
        run_simulation(
            machine, network, policy, settings=decode, frames=frames,
            engine=search.engine,  # type: ignore[arg-type]
        )
        for policy in policies
    ]  # fmt: skip
    result, other = results[0], results[1] if len(results) > 1 else None
    write_outputs(result, other, files)
    say(result_report(result, other, changed))
    if files:
        say("", *(f"Wrote {path}" for path in files.values()))


def write_outputs(result: Result, versus: Result | None, files: dict[str, Path]) -> None:
    """Write the files that were asked for, each whole or not at all."""
    if "json" in files:
        write_json(files["json"], result.to_dict(versus))
    if "csv" in files:
        frame = result.to_frame()
        if versus:
            frame["speedup"] = frame.index.map(result.speedup_over(versus).get)
        with written(files["csv"]) as file:
            frame.to_csv(file)
    if "timeline" in files:
        write_timeline(result, files["timeline"])
