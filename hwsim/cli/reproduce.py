"""`hwsim reproduce`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from hwsim.cli.options import output_files
from hwsim.cli.printing import progress_bar, say
from hwsim.errors import HwsimError, nearest
from hwsim.report.files import check_output_file, check_output_folder, make_folder, write_json, written
from hwsim.report.reproduction import reproduction_report
from hwsim.reproduce import REPRODUCTIONS, Reproduction

COLUMNS = ("figure", "published", "simulated", "unit", "relative_difference", "source")
ENDINGS = ("json", "csv")
ALL = "all"


def run_reproduction(name: str, json: Path | None, out: Path | None, page: Path | None = None) -> None:
    """Reproduce a paper, or `all` of them: write what was asked for, print the tables, the one side by side last."""
    if name not in (ALL, *REPRODUCTIONS):
        raise HwsimError(f"unknown reproduction '{name}'{nearest(name, (*REPRODUCTIONS, ALL))}")
    names = list(REPRODUCTIONS) if name == ALL else [name]
    output_files(json=json, page=page)
    if out is not None:
        _check_folder(out, names)
    reproductions = []
    for chosen in names:
        with progress_bar(chosen) as on_step:
            reproductions.append(REPRODUCTIONS[chosen](on_step))
    files = _write(reproductions, json, out, single=name != ALL)
    if page is not None:
        from hwsim.report.reproduction_page import reproduction_page

        with written(page) as file:
            file.write(reproduction_page(reproductions))
        files.append(page)
    say(*(f"Wrote {path}" for path in files), *([""] if files else []))
    for index, reproduction in enumerate(reproductions):
        say(*([""] if index else []), reproduction_report(reproduction))


def _check_folder(out: Path, names: Sequence[str]) -> None:
    check_output_folder(out)
    if out.is_dir():
        for name in names:
            for ending in ENDINGS:
                check_output_file(out / f"{name}.{ending}")


def _write(reproductions: Sequence[Reproduction], json: Path | None, out: Path | None, single: bool) -> list[Path]:
    """One JSON file of a paper or a list of all; in a folder a JSON and a CSV file of each."""
    files = []
    if json is not None:
        found = [reproduction.to_dict() for reproduction in reproductions]
        write_json(json, found[0] if single else {"reproductions": found})
        files.append(json)
    if out is None:
        return files
    make_folder(out)
    for reproduction in reproductions:
        json_file, csv_file = (out / f"{reproduction.name}.{ending}" for ending in ENDINGS)
        write_json(json_file, reproduction.to_dict())
        with written(csv_file) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows([getattr(row, column) for column in COLUMNS] for row in reproduction.rows)
        files += [json_file, csv_file]
    return files
