"""One file per executable: its trace, codes, grids and rules, sealed by a checksum as a trace file is.

A truncated, altered or newer file is refused with one line; nothing in it is ever unpickled.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.errors import HwsimError
from hwsim.execute.executor import Executable
from hwsim.execute.operations.base import Array
from hwsim.execute.projection import AnyGrid
from hwsim.execute.recurrence import LstmRules
from hwsim.execute.semantics import PROFILES, Semantics, profile
from hwsim.numerics.codebook import Codebook
from hwsim.numerics.dynamic import DynamicGrid
from hwsim.numerics.quantizers import Quantizer
from hwsim.numerics.tables import Exact, Table, fixed_table
from hwsim.trace.store import decode_array, encode_array, pack_trace, read_checked, seal, unpack_trace, write_whole

VERSION = 1
KIND = "executable file"
_HEADER, _TRACE = "header.json", "network.trace"


def save_executable(executable: Executable, path: str | Path) -> None:
    """Write an executable to `path`; the same executable always gives the same bytes.

    The file appears whole or not at all. Raises HwsimError when it cannot be written, for tables that are not
    `fixed_table`'s, and for semantics that are not a named profile.
    """
    name = executable.semantics.name
    if PROFILES.get(name) != executable.semantics:
        raise HwsimError(f"semantics must be one of {', '.join(PROFILES)} to be saved, got {name}")
    codes = executable.parameters()
    header = {
        "hwsim_executable": VERSION,
        "arrays": list(codes),
        "quantizers": {key: _grid_to_json(grid) for key, grid in executable.quantizers.items()},
        "rules": {
            "gate_order": executable.rules.gate_order,
            "sigmoid": _table_to_json(executable.rules.sigmoid),
            "tanh": _table_to_json(executable.rules.tanh),
        },
        "semantics": name,
    }
    members = {_HEADER: json.dumps(header, sort_keys=True).encode(), _TRACE: pack_trace(executable.trace)}
    members |= {f"{at}.npy": encode_array(array) for at, array in enumerate(codes.values())}
    write_whole(path, seal(members))


def load_executable(path: str | Path, semantics: Semantics | None = None) -> Executable:
    """Read an executable and pack its weights, ready to run; it gives the codes of the one that was saved.

    `semantics`: the rules of another machine than the file's, which need not have a name.
    Raises HwsimError for a file that is missing, of another kind (a pickle is refused unread), truncated, altered
    or of another version.
    """
    _refuse_pickles(path)
    content = read_checked(path, "an", KIND)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        header = json.loads(archive.read(_HEADER))
        if "hwsim_executable" not in header:
            what = "a trace without weights" if "hwsim_trace" in header else "something else"
            raise HwsimError(f"{path}: must be an {KIND}, got {what}")
        if header["hwsim_executable"] != VERSION:
            raise HwsimError(f"{path}: executable version must be {VERSION}, got {header['hwsim_executable']}")
        trace = unpack_trace(archive.read(_TRACE), path)
        rules = header["rules"]
        sigmoid, tanh = (_table_from_json(rules[name], path) for name in ("sigmoid", "tanh"))
        grids = {name: _grid_from_json(values) for name, values in header["quantizers"].items()}
        own = LstmRules(sigmoid, tanh, rules["gate_order"])
        codes = _Codes(archive, header["arrays"])
        return Executable(trace, codes, grids, rules=own, semantics=semantics or profile(header["semantics"]))


class _Codes(Mapping[str, Array]):
    """The arrays of a file, each decoded when it is asked for: unpacked, all at once are twice an INT4 network."""

    def __init__(self, archive: zipfile.ZipFile, names: Sequence[str]) -> None:
        self._archive = archive
        self._places = {name: at for at, name in enumerate(names)}

    def __getitem__(self, name: str) -> Array:
        return decode_array(self._archive.read(f"{self._places[name]}.npy"))

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _grid_from_json(values: dict[str, Any]) -> AnyGrid:
    if "per" in values:
        return DynamicGrid(**values)
    return Codebook(**values) if "table" in values else Quantizer(**values)


def _grid_to_json(grid: AnyGrid) -> dict[str, Any]:
    values = {field.name: getattr(grid, field.name) for field in fields(grid)}
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}


def _table_to_json(table: Table | Exact) -> dict[str, Any]:
    """The arguments of `fixed_table`, and a checksum of what it must give wherever the file is read."""
    if isinstance(table, Exact):
        return {"exact": table.name}
    own = {"name": table.name, "input_step": float(table.input.scale), "output_step": float(table.output.scale),
           "bits": table.input.bits, "ties": table.input.ties}  # fmt: skip
    rebuilt = fixed_table(**own)
    grids = ((rebuilt.input, table.input), (rebuilt.output, table.output))
    if any(_grid_to_json(a) != _grid_to_json(b) for a, b in grids) or not np.array_equal(rebuilt.codes, table.codes):
        raise HwsimError(f"table {table.name} must be one of fixed_table to be saved, got other codes or grids")
    return {**own, "crc32": _crc32(table)}


def _table_from_json(values: dict[str, Any], path: str | Path) -> Table | Exact:
    if "exact" in values:
        return Exact(values["exact"])
    table = fixed_table(**{name: value for name, value in values.items() if name != "crc32"})
    if _crc32(table) != values["crc32"]:
        raise HwsimError(f"{path}: table {table.name} must be the one that was saved, got other codes on this computer")
    return table


def _crc32(table: Table) -> int:
    return zlib.crc32(table.codes.astype("<i8").tobytes())


def _refuse_pickles(path: str | Path) -> None:
    """Raises HwsimError for a pickle, and for the zip of one that torch.save writes."""
    what = ""
    try:
        with Path(path).open("rb") as file:
            if file.read(1) == b"\x80":
                what = "a pickle"
        if not what and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
            what = "a zip that torch.save wrote" if any(name.endswith("data.pkl") for name in names) else ""
    except (OSError, ValueError, zipfile.BadZipFile):
        return
    if what:
        raise HwsimError(f"{path}: must be an {KIND}, got {what}, which could run code and is not read")
