"""One file per trace: a zip of a JSON header and NumPy arrays, whose comment is the SHA-256 of all before it.

A truncated, altered or newer file is refused with one line; nothing in it is ever unpickled.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.trace.table import OP_COLUMNS, IntArray, Role, Tensor, Trace

VERSION = 2
_LISTS = ("dep_ptr", "dep", "operand_ptr", "operand_tensor", "operand_elements", "operand_write")
_EPOCH = (1980, 1, 1, 0, 0, 0)
_ZIP = b"PK\x03\x04"
_DIGEST_SIZE = 64


def save_trace(trace: Trace, path: str | Path) -> None:
    """Write a trace to `path`; the same trace always gives the same bytes.

    The file appears whole or not at all. Raises HwsimError when it cannot be written.
    """
    write_whole(path, pack_trace(trace))


def load_trace(path: str | Path) -> Trace:
    """Read a trace. Raises HwsimError for a file that is missing, truncated, altered, or of another version."""
    return unpack_trace(read_checked(path, "a", "trace file"), path)


def write_whole(path: str | Path, content: bytes) -> None:
    """Write a file that appears whole or not at all. Raises HwsimError when it cannot be written."""
    path = Path(path)
    try:
        partial = path.with_name(path.name + ".partial")
    except ValueError:
        raise HwsimError(f"{path}: must be the path of a file, got a folder") from None
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except (OSError, ValueError) as error:
        with suppress(OSError, ValueError):
            partial.unlink()
        raise HwsimError(f"{path}: must be writable, got {_reason(error)}") from None


def read_checked(path: str | Path, article: str, kind: str) -> bytes:
    """The content of a sealed file, its checksum verified; `article` and `kind` say in messages what it must be.

    Raises HwsimError for a file that is missing, of another form, truncated or altered.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise HwsimError(f"{path}: must be {article} {kind}, got {_reason(error)}") from None
    if not content.startswith(_ZIP):
        raise HwsimError(f"{path}: must be {article} {kind}, got something else")
    if _digest(content[:-_DIGEST_SIZE]) != content[-_DIGEST_SIZE:]:
        raise HwsimError(f"{path}: must be a whole and unaltered {kind}, got one that fails its checksum")
    return content


def seal(members: Mapping[str, bytes]) -> bytes:
    """A zip of named members whose comment is the SHA-256 of all before it; the same members give the same bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)
        archive.comment = bytes(_DIGEST_SIZE)
    content = stream.getvalue()[:-_DIGEST_SIZE]
    return content + _digest(content)


def pack_trace(trace: Trace) -> bytes:
    """The bytes of a trace's file."""
    arrays = {name: trace.columns[name] for name in OP_COLUMNS} | {name: getattr(trace, name) for name in _LISTS}
    header: dict[str, Any] = {
        "hwsim_trace": VERSION,
        "name": trace.name,
        "layers": trace.layers,
        "input_formats": trace.input_formats,
        "tensors": [[t.name, t.layer, int(t.role), t.shape, t.format] for t in trace.tensors],
        "meta": trace.meta,
        "attributes": trace.attributes,
    }
    members = {"header.json": json.dumps(header, sort_keys=True).encode()}
    return seal(members | {f"{name}.npy": _encode(array) for name, array in arrays.items()})


def unpack_trace(content: bytes, path: str | Path) -> Trace:
    """The trace of such bytes; `path` stands in messages. Raises HwsimError for another version."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        header = json.loads(archive.read("header.json"))
        if header.get("hwsim_trace") != VERSION:
            raise HwsimError(f"{path}: trace version must be {VERSION}, got {header.get('hwsim_trace')}")
        arrays = {name: _decode(archive.read(f"{name}.npy")) for name in (*OP_COLUMNS, *_LISTS)}
    lists: dict[str, Any] = {name: arrays[name] for name in _LISTS}
    trace = Trace(
        name=header["name"],
        layers=tuple(header["layers"]),
        tensors=tuple(Tensor(n, la, Role(r), tuple(s), f) for n, la, r, s, f in header["tensors"]),
        columns={name: arrays[name] for name in OP_COLUMNS},
        meta=header["meta"],
        attributes=header["attributes"],
        input_formats=tuple(header["input_formats"]),
        **lists,
    )
    trace.validate()
    return trace


def encode_array(array: npt.NDArray[Any]) -> bytes:
    """An array as the bytes of an npy file. Raises ValueError for objects, which would be pickled."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def decode_array(content: bytes) -> npt.NDArray[Any]:
    """The array of such bytes; nothing is unpickled."""
    array: npt.NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    return array


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def _encode(array: IntArray) -> bytes:
    low, high = (int(array.min()), int(array.max())) if len(array) else (0, 0)
    narrow = np.result_type(np.min_scalar_type(low), np.min_scalar_type(high))
    return encode_array(array.astype(narrow))


def _decode(content: bytes) -> IntArray:
    array: IntArray = decode_array(content).astype(np.int64)
    return array


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
