"""Output files that appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from hwsim.errors import HwsimError


def check_output_file(path: str | Path) -> Path:
    """The path, if a file can be written there. Nothing is created. Raises HwsimError."""
    path = Path(path)
    if path.is_dir():
        raise HwsimError(f"{path}: must be a file to write to, got a folder")
    if path.exists() and not os.access(path, os.W_OK):
        raise _unwritable(path, errno.EACCES)
    if not path.exists() or path.is_file():
        _check_folder(path, path.parent)
    return path


def check_output_folder(path: str | Path) -> Path:
    """The path, if it is a folder to write in or can be made one. Nothing is created. Raises HwsimError."""
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise HwsimError(f"{path}: must be a folder to write to, got a file")
    existing = path
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    _check_folder(path, existing)
    return path


def make_folder(path: str | Path) -> Path:
    """Make a folder, and those above it. Raises HwsimError when it cannot be made."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, error.errno) from None
    return path


@contextmanager
def replaced(path: str | Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` when the block ends without a mistake.

    It is `<path>.partial`, and is removed when the block fails. A device or a pipe is written directly.
    Raises HwsimError when it cannot be written.
    """
    shown, path = path, Path(os.path.realpath(path))
    direct = path.exists() and not path.is_file() and not path.is_dir()
    partial = path if direct else path.with_name(path.name + ".partial")
    try:
        yield partial
        if not direct:
            os.replace(partial, path)
    except BaseException as error:
        if not direct:
            with suppress(OSError):
                partial.unlink()
        if isinstance(error, OSError):
            raise _unwritable(shown, error.errno) from None
        raise


@contextmanager
def written(path: str | Path) -> Iterator[TextIO]:
    """A text file to write in, under the rules of `replaced`."""
    with replaced(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        yield file


def write_json(path: str | Path, content: Any) -> None:
    """Write a JSON file. Raises HwsimError when it cannot be written."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with written(path) as file:
        file.write(text)


def _check_folder(path: Path, folder: Path) -> None:
    """Whether `path` can be made in `folder`."""
    existing = next(above for above in (folder, *folder.absolute().parents) if above.exists())
    if not existing.is_dir():
        raise HwsimError(f"{path}: must be in a folder, got the file {existing}")
    if existing != folder:
        raise HwsimError(f"{path}: must be in a folder that exists, got none at {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _unwritable(path, errno.EACCES)


def _unwritable(path: str | Path, code: int | None) -> HwsimError:
    reason = os.strerror(code) if code else "an input or output error"
    return HwsimError(f"{path}: must be writable, got {reason[0].lower()}{reason[1:]}")
