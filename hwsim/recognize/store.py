"""A recognizer in one file: its executables beside what its labels mean, sealed by a checksum."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from dataclasses import asdict
from pathlib import Path

from hwsim.decode.settings import Fusion
from hwsim.errors import HwsimError
from hwsim.execute.store import load_executable, save_executable
from hwsim.recognize.recognizer import Recognizer
from hwsim.trace.store import read_checked, seal, write_whole

VERSION = 1
KIND = "recognizer file"
SUFFIX = ".recognizer"
_HEADER, _SUFFIX = "recognizer.json", ".hwsim"


def recognizer_file(precision: str) -> str:
    """Name of the file of a precision: `int4-2:4` is `int4-2of4.recognizer`, which every file system takes."""
    return precision.replace(":", "of") + SUFFIX


def save_recognizer(recognizer: Recognizer, path: str | Path) -> None:
    """Write a recognizer to `path`; the same one always gives the same bytes. Raises HwsimError as executables do."""
    header = {
        "hwsim_recognizer": VERSION,
        "words": recognizer.words,
        "stack": recognizer.stack,
        "fusions": {name: asdict(fusion) for name, fusion in recognizer.fusions.items()},
        "about": recognizer.about,
    }
    members = {_HEADER: json.dumps(header, sort_keys=True).encode()}
    with tempfile.TemporaryDirectory() as folder:
        for name, executable in recognizer.networks.items():
            save_executable(executable, Path(folder) / name)
            members[name + _SUFFIX] = (Path(folder) / name).read_bytes()
    write_whole(path, seal(members))


def load_recognizer(path: str | Path) -> Recognizer:
    """Read a recognizer, ready to decode.

    Raises HwsimError for a file that is missing, of another kind, altered or of another version; nothing is unpickled.
    """
    content = read_checked(path, "a", KIND)
    with zipfile.ZipFile(io.BytesIO(content)) as archive, tempfile.TemporaryDirectory() as folder:
        if _HEADER not in archive.namelist():
            raise HwsimError(f"{path}: must be a {KIND}, got something else")
        header = json.loads(archive.read(_HEADER))
        if header["hwsim_recognizer"] != VERSION:
            raise HwsimError(f"{path}: recognizer version must be {VERSION}, got {header['hwsim_recognizer']}")
        networks = {}
        for member in archive.namelist():
            if member.endswith(_SUFFIX):
                (Path(folder) / member).write_bytes(archive.read(member))
                networks[member.removesuffix(_SUFFIX)] = load_executable(Path(folder) / member)
    fusions = {name: Fusion(**values) for name, values in header["fusions"].items()}
    return Recognizer(networks, tuple(header["words"]), header["stack"], fusions, header["about"])
