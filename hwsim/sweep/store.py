"""The folder of a sweep: made before the first run, whole or untouched after the last."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd

from hwsim.errors import HwsimError

TABLE = "sweep.csv"


@contextmanager
def output_folder(out: Path) -> Iterator[Path]:
    """A folder that can be written; folders made for it are taken away again when the sweep fails.

    Raises HwsimError when it cannot be made or written.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        _make(out)
        yield out
    except BaseException:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except FileExistsError:
        raise HwsimError(f"{out}: must be a folder to write to, got a file") from None
    except OSError as error:
        raise HwsimError(f"{out}: must be a folder to write to, got {error.strerror}") from None
    if (out / TABLE).is_dir():
        raise HwsimError(f"{out / TABLE}: must be a file to write to, got a folder")


def write_table(frame: pd.DataFrame, out: Path) -> Path:
    """Write `sweep.csv` at once: readers see the old file or the new one. Raises HwsimError when it cannot."""
    target = out / TABLE
    partial = out / f".{TABLE}.{os.getpid()}"
    try:
        frame.to_csv(partial, index=False)
        partial.replace(target)
    except OSError as error:
        raise HwsimError(f"{target}: must be a file to write to, got {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
    return target
