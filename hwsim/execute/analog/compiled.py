"""Compiling functions that call those of other files: none is taken from the cache when what it calls has changed."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

from numba import njit

from hwsim.execute import lstm_loop


@cache
def revision() -> int:
    """A number of the source of these kernels: Numba's cache on disk sees only the file of the jitted function."""
    files = [*sorted(Path(__file__).parent.glob("*.py")), Path(str(lstm_loop.__file__))]
    return zlib.crc32(b"".join(file.read_bytes() for file in files))


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Compiled and cached on disk under a name that changes with any of the files."""
    function.__qualname__ = f"{function.__name__}_{revision():08x}"
    result: Callable[..., None] = njit(cache=True, nogil=True)(function)
    return result
