"""Inputs and references as npz files: arrays by tensor name, checked before anything runs. Nothing is unpickled."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError, nearest
from hwsim.execute.executor import Executable
from hwsim.numerics.quantizers import check_codes

Array = npt.NDArray[Any]
Arrays = dict[str, Array]


def read_inputs(executable: Executable, path: Path) -> Arrays:
    """The arrays of an npz file that `executable` reads, of the shapes of its trace. Raises HwsimError."""
    arrays = read_npz(path)
    check_inputs(executable, arrays, path)
    return arrays


def check_inputs(executable: Executable, arrays: Arrays, path: Path) -> None:
    """Raises HwsimError unless the arrays are the inputs of `executable`, of the shapes of its trace."""
    _check_names(path, arrays, executable.inputs, "an input")
    for name in executable.inputs:
        if name not in arrays:
            raise HwsimError(f"{path}: must hold the array {name}{nearest(name, arrays)}")
    shapes = {tensor.name: tensor.shape for tensor in executable.trace.tensors}
    for name, array in arrays.items():
        check_array(path, name, array, shapes.get(name))


def read_reference(executable: Executable, path: Path) -> Arrays:
    """Outputs of `executable` by name: codes, reals of tensors without a grid, cells (T, H). Raises HwsimError."""
    arrays = read_npz(path)
    _check_names(path, arrays, executable.outputs, "an output")
    shapes = {tensor.name: tensor.shape for tensor in executable.trace.tensors}
    shapes |= {c: shapes[h] for c, h in executable.states.items()}
    for name, array in arrays.items():
        check_array(path, name, array, shapes.get(name))
        if name in executable.quantizers and name not in executable.cells:
            check_codes(array, executable.quantizers[name].code_range, f"{path}: {name}")
    return arrays


def _check_names(path: Path, found: Iterable[str], known: tuple[str, ...], what: str) -> None:
    for name in found:
        if name not in known:
            raise HwsimError(f"{path}: '{name}' must be {what} of the network{nearest(name, known)}")


def check_array(path: Path, name: str, array: Array, shape: tuple[int, ...] | None) -> None:
    """Raises HwsimError unless an array of a file holds finite numbers, of `shape` when it is given."""
    if array.dtype.kind not in "iuf":
        raise HwsimError(f"{path}: {name} must be integers or reals, got {array.dtype}")
    if shape is not None and array.shape != shape:
        raise HwsimError(f"{path}: {name} must be of shape {shape}, got {array.shape}")
    wrong = ~np.isfinite(array)
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise HwsimError(f"{path}: {name} must be finite, got {array[at]} at {at}")


def read_npz(path: Path) -> Arrays:
    """All arrays of an npz file; nothing is unpickled."""
    try:
        with path.open("rb") as file:
            start = file.read(2)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise HwsimError(f"{path}: must be an npz file, got {reason}") from None
    if start != b"PK":
        what = "a pickle, which could run code and is not read" if start[:1] == b"\x80" else "something else"
        raise HwsimError(f"{path}: must be an npz file, got {what}")
    arrays: Arrays = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                arrays[name] = _member(path, name, archive)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError) as error:
        raise HwsimError(f"{path}: must be a whole npz file, got {error}") from None
    return arrays


def _member(path: Path, name: str, archive: Any) -> Array:
    try:
        array = archive[name]
    except ValueError as error:
        what = "a pickle, which could run code and is not read" if "allow_pickle" in str(error) else str(error)
        raise HwsimError(f"{path}: {name} must be an array of numbers, got {what}") from None
    if not isinstance(array, np.ndarray):
        raise HwsimError(f"{path}: {name} must be an array of numbers, got a file of another kind")
    return array
