"""`hwsim reproduce`."""

from __future__ import annotations

import csv
from pathlib import Path

from hwsim.cli.options import output_files
from hwsim.cli.printing import progress_bar, say
from hwsim.errors import HwsimError, nearest
from hwsim.report.files import check_output_file, check_output_folder, make_folder, write_json, written
from hwsim.report.reproduction import reproduction_report
from hwsim.reproduce import REPRODUCTIONS, Reproduction

COLUMNS = ("figure", "published", "simulated", "unit", "relative_difference", "source")


def run_reproduction(name: str, json: Path | None, out: Path | None) -> None:
    """Reproduce a paper, write what was asked for, print the tables; the one side by side is the last."""
    if name not in REPRODUCTIONS:
        raise HwsimError(f"unknown reproduction '{name}'{nearest(name, REPRODUCTIONS)}")
    output_files(json=json)
    in_folder = [] if out is None else [out / f"{name}.json", out / f"{name}.csv"]
    if out is not None:
        check_output_folder(out)
        if out.is_dir():
            for path in in_folder:
                check_output_file(path)
    with progress_bar(name) as on_step:
        reproduction = REPRODUCTIONS[name](on_step)
    written_files = _write(reproduction, json, in_folder)
    say(*(f"Wrote {path}" for path in written_files), *([""] if written_files else []))
    say(reproduction_report(reproduction))


def _write(reproduction: Reproduction, json: Path | None, in_folder: list[Path]) -> list[Path]:
    files = [path for path in (json, *in_folder[:1]) if path is not None]
    if in_folder:
        make_folder(in_folder[0].parent)
    for path in files:
        write_json(path, reproduction.to_dict())
    for path in in_folder[1:]:
        with written(path) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows([getattr(row, column) for column in COLUMNS] for row in reproduction.rows)
    return [*files, *in_folder[1:]]
