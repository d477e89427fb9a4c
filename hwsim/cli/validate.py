"""`hwsim validate`."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.cli.options import choice, output_files
from hwsim.cli.printing import say
from hwsim.errors import HwsimError, nearest
from hwsim.execute.executor import Executable
from hwsim.execute.semantics import TRAINING, profile
from hwsim.execute.store import load_executable
from hwsim.numerics.quantizers import check_codes
from hwsim.report.files import write_json
from hwsim.report.units import plural
from hwsim.report.validation import semantics_text, validation_report
from hwsim.validate import Report, compare
from hwsim.validate.compare import MODES
from hwsim.validate.report import TIERS

Array = npt.NDArray[Any]
Arrays = dict[str, Array]
# Another name than `training`, so that the same rules take the readable path and not the compiled one.
READABLE = replace(TRAINING, name="readable")
PASSED, BREACH = 0, 1


def run_validate(model: Path, inputs: Path, reference: Path | None, tier: str | None, profile_name: str | None,
                 mode: str | None, json: Path | None) -> int:  # fmt: skip
    """Compare, write what was asked for, print the report; 0 when it passed, 1 on a breach.

    Without `reference` the tier is T0 unless told otherwise, with one T1.
    """
    files = output_files(json=json)
    choice("--tier", tier, TIERS)
    choice("--mode", mode, (*MODES, "both"))
    semantics = None if profile_name is None else profile(profile_name)
    executable = load_executable(model, semantics)
    given = read_inputs(executable, inputs)
    readable = load_executable(model, READABLE)
    wanted = computed(readable, given) if reference is None else read_reference(executable, reference)
    tier = tier or ("T0" if reference is None else "T1")
    report = compare(executable, wanted, given, tier, mode)  # type: ignore[arg-type]
    if report.mismatches:
        report = compare(executable, wanted, given, tier, mode, reals=readable.unrounded(given, wanted))  # type: ignore[arg-type]
    if files:
        sources = {"model": model, "inputs": inputs, "reference": reference}
        write_json(files["json"], document(report, executable, sources))
    source = "the readable NumPy reference, by the rules of training" if reference is None else str(reference)
    say(validation_report(report, compared(executable, model, source)))
    if files:
        say("", f"Wrote {files['json']}")
    return PASSED if report.passed else BREACH


def compared(executable: Executable, model: Path, reference: str) -> dict[str, str]:
    """The paragraphs that say what was compared with what."""
    trace = executable.trace
    tensors = plural(sum(name not in executable.cells for name in executable.outputs), "tensor")
    return {
        "Model": f"{model}: {trace.name}, {plural(len(trace), 'operation')}, {tensors}",
        "Reference": reference,
        "Profile": semantics_text(executable.semantics),
    }


def document(report: Report, executable: Executable, sources: Mapping[str, Path | None]) -> dict[str, Any]:
    """The report as JSON values, with the hashes of the files that made it."""
    made_of = {name: {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
               for name, path in sources.items() if path is not None}  # fmt: skip
    return {**made_of, "profile": executable.semantics.name, **report.to_dict()}


def computed(readable: Executable, inputs: Mapping[str, Array]) -> Arrays:
    """What the readable reference gives. Cell states are left out: it returns the last ones only."""
    return {name: array for name, array in readable.run(inputs).items() if name not in readable.cells}


def read_inputs(executable: Executable, path: Path) -> Arrays:
    """The arrays of an npz file that `executable` reads, of the shapes of its trace. Raises HwsimError."""
    arrays = _read_npz(path)
    _check_names(path, arrays, executable.inputs, "an input")
    for name in executable.inputs:
        if name not in arrays:
            raise HwsimError(f"{path}: must hold the array {name}{nearest(name, arrays)}")
    shapes = {tensor.name: tensor.shape for tensor in executable.trace.tensors}
    for name, array in arrays.items():
        _check_array(path, name, array, shapes.get(name))
    return arrays


def read_reference(executable: Executable, path: Path) -> Arrays:
    """Outputs of `executable` by name: codes, reals of tensors without a grid, cells (T, H). Raises HwsimError."""
    arrays = _read_npz(path)
    _check_names(path, arrays, executable.outputs, "an output")
    shapes = {tensor.name: tensor.shape for tensor in executable.trace.tensors}
    shapes |= {c: shapes[h] for c, h in executable.states.items()}
    for name, array in arrays.items():
        _check_array(path, name, array, shapes.get(name))
        if name in executable.quantizers and name not in executable.cells:
            check_codes(array, executable.quantizers[name].code_range, f"{path}: {name}")
    return arrays


def _check_names(path: Path, found: Iterable[str], known: tuple[str, ...], what: str) -> None:
    for name in found:
        if name not in known:
            raise HwsimError(f"{path}: '{name}' must be {what} of the network{nearest(name, known)}")


def _check_array(path: Path, name: str, array: Array, shape: tuple[int, ...] | None) -> None:
    if array.dtype.kind not in "iuf":
        raise HwsimError(f"{path}: {name} must be integers or reals, got {array.dtype}")
    if shape is not None and array.shape != shape:
        raise HwsimError(f"{path}: {name} must be of shape {shape}, got {array.shape}")
    wrong = ~np.isfinite(array)
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise HwsimError(f"{path}: {name} must be finite, got {array[at]} at {at}")


def _read_npz(path: Path) -> Arrays:
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
