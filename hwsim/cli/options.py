"""Options that are lists or `path=value`, read and checked."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from pathlib import Path

from hwsim.errors import HwsimError


def settings(texts: Sequence[str]) -> dict[str, str]:
    """`--set path=value`, given any number of times. Raises HwsimError for another form or a path given twice."""
    found: dict[str, str] = {}
    for text in texts:
        path, equals, value = (part.strip() for part in text.partition("="))
        path = path.removeprefix("arch.")
        if not (path and equals and value):
            raise HwsimError(f"--set must be path=value, got '{text}'")
        if path in found:
            raise HwsimError(f"--set {path} must be given once, got {found[path]} and {value}")
        found[path] = value
    return found


def setting_lists(texts: Sequence[str]) -> dict[str, list[str]]:
    """`--set path=v1,v2` of a sweep."""
    return {path: words(f"--set {path}", value) for path, value in settings(texts).items()}


def words(option: str, text: str) -> list[str]:
    """A list separated by commas. Raises HwsimError for an empty place in it and a value given twice."""
    found = [part.strip() for part in text.split(",")]
    if not all(found):
        raise HwsimError(f"{option} must be values separated by commas, got '{text}'")
    twice = [word for word in dict.fromkeys(found) if found.count(word) > 1]
    if twice:
        raise HwsimError(f"{option} must name each value once, got '{twice[0]}' twice")
    return found


def integer(option: str, text: str | None) -> int | None:
    """An integer, or None when it is not given. Raises HwsimError for anything else."""
    try:
        return None if text is None else int(text)
    except ValueError:
        raise HwsimError(f"{option} must be an integer, got '{text}'") from None


def positive(option: str, text: str) -> float:
    """A finite number above 0. Raises HwsimError for anything else."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise HwsimError(f"{option} must be a number above 0, got '{text}'")
    return value


def integers(option: str, text: str) -> list[int]:
    """A list of integers separated by commas. Raises HwsimError as `words`, and for anything else in it."""
    try:
        return [int(word) for word in words(option, text)]
    except ValueError:
        raise HwsimError(f"{option} must be integers separated by commas, got '{text}'") from None


def choice(option: str, value: str | None, known: Sequence[str]) -> str | None:
    """The value, if it is one of the known ones or not given. Raises HwsimError with the nearest ones."""
    if value is not None and value not in known:
        listed = f"{', '.join(known[:-1])} or {known[-1]}"
        close = difflib.get_close_matches(value, known, n=1)
        raise HwsimError(f"{option} must be {listed}, got '{value}'{f'; nearest: {close[0]}' if close else ''}")
    return value


def output_files(**files: Path | None) -> dict[str, Path]:
    """The output files that were asked for, by option. Raises HwsimError unless each can be written, and alone."""
    from hwsim.report.files import check_output_file

    found = {name: check_output_file(path) for name, path in files.items() if path is not None}
    seen: dict[Path, str] = {}
    for name, path in found.items():
        other = seen.setdefault(path.resolve(), name)
        if other != name:
            raise HwsimError(f"--{name} must be another file than --{other}, got {path} for both")
    return found
