"""One file per trace: a zip of a JSON header and NumPy arrays, each with its SHA-256.

A truncated, altered or newer file is refused with one line; nothing in it is ever unpickled.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.errors import HwsimError
from hwsim.trace.table import OP_COLUMNS, IntArray, Role, Tensor, Trace

VERSION = 1
_LISTS = ("dep_ptr", "dep", "operand_ptr", "operand_tensor", "operand_elements", "operand_write")
_EPOCH = (1980, 1, 1, 0, 0, 0)


def save_trace(trace: Trace, path: str | Path) -> None:
    """Write a trace to `path`; the same trace always gives the same bytes.

    The file appears whole or not at all. Raises HwsimError when it cannot be written.
    """
    path = Path(path)
    arrays = {name: trace.columns[name] for name in OP_COLUMNS} | {name: getattr(trace, name) for name in _LISTS}
    blobs = {f"{name}.npy": _encode(array) for name, array in arrays.items()}
    header = {
        "hwsim_trace": VERSION,
        "name": trace.name,
        "layers": trace.layers,
        "tensors": [[t.name, t.layer, int(t.role), t.shape, t.format] for t in trace.tensors],
        "meta": trace.meta,
        "sha256": {name: hashlib.sha256(blob).hexdigest() for name, blob in blobs.items()},
    }
    text = json.dumps(header, sort_keys=True).encode()
    blobs = {"header.json": text, "header.sha256": hashlib.sha256(text).hexdigest().encode(), **blobs}
    partial = path.with_name(path.name + ".partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, blob in blobs.items():
                archive.writestr(zipfile.ZipInfo(name, _EPOCH), blob, zipfile.ZIP_DEFLATED)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise HwsimError(f"{path}: must be writable, got {error.strerror}") from None


def load_trace(path: str | Path) -> Trace:
    """Read a trace. Raises HwsimError for a file that is missing, truncated, altered, or of another version."""
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            blobs = {name: archive.read(name) for name in archive.namelist()}
        header = _header(blobs, path)
        arrays = {name: _decode(blobs, name, header, path) for name in (*OP_COLUMNS, *_LISTS)}
    except OSError as error:
        raise HwsimError(f"{path}: must be a trace file, got {error.strerror or error}") from None
    except (zipfile.BadZipFile, EOFError, zipfile.zlib.error, NotImplementedError, KeyError) as error:  # type: ignore[attr-defined]
        raise HwsimError(f"{path}: must be a whole trace file, got a truncated or altered one ({error})") from None
    trace = Trace(
        name=header["name"],
        layers=tuple(header["layers"]),
        tensors=tuple(Tensor(n, la, Role(r), tuple(s), f) for n, la, r, s, f in header["tensors"]),
        columns={name: arrays[name] for name in OP_COLUMNS},
        meta=header["meta"],
        dep_ptr=arrays["dep_ptr"],
        dep=arrays["dep"],
        operand_ptr=arrays["operand_ptr"],
        operand_tensor=arrays["operand_tensor"],
        operand_elements=arrays["operand_elements"],
        operand_write=arrays["operand_write"],
    )
    trace.validate()
    return trace


def _header(blobs: dict[str, bytes], path: Path) -> dict[str, Any]:
    text = blobs["header.json"]
    if hashlib.sha256(text).hexdigest().encode() != blobs["header.sha256"]:
        raise HwsimError(f"{path}: must be an unaltered trace file, got a header that fails its checksum")
    header: dict[str, Any] = json.loads(text)
    if header.get("hwsim_trace") != VERSION:
        raise HwsimError(f"{path}: trace version must be {VERSION}, got {header.get('hwsim_trace')}")
    return header


def _encode(array: IntArray) -> bytes:
    low, high = (int(array.min()), int(array.max())) if len(array) else (0, 0)
    narrow = np.result_type(np.min_scalar_type(low), np.min_scalar_type(high))
    stream = io.BytesIO()
    np.save(stream, array.astype(narrow), allow_pickle=False)
    return stream.getvalue()


def _decode(blobs: dict[str, bytes], name: str, header: dict[str, Any], path: Path) -> IntArray:
    blob = blobs[f"{name}.npy"]
    if hashlib.sha256(blob).hexdigest() != header["sha256"][f"{name}.npy"]:
        raise HwsimError(f"{path}: must be an unaltered trace file, got a column '{name}' that fails its checksum")
    array: IntArray = np.load(io.BytesIO(blob), allow_pickle=False).astype(np.int64)
    return array
