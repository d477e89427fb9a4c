"""One file per extracted model: a zip of a JSON header and the weights as the files had them.

Weights are written and read one by one, each when it is asked for; nothing is ever unpickled.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.errors import HwsimError
from hwsim.extract.graph.model import ExtractedModel
from hwsim.extract.graph.nodes import Array, Graph, Node, NodeKind, Value, Weight
from hwsim.extract.spec import DecodeDefaults

VERSION = 1
SUFFIX = ".hwsim"
_HEADER = "model.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def save_model(model: ExtractedModel, path: str | Path, extra: Mapping[str, bytes] | None = None) -> None:
    """Write a model to `path`, with further members by name; the same model always gives the same bytes.

    The file appears whole or not at all. Raises HwsimError when it cannot be written.
    """
    path = Path(path)
    part = path.with_name(path.name + ".partial")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
            graphs = {name: _graph_to_json(archive, name, graph) for name, graph in model.graphs.items()}
            header = {"hwsim_model": VERSION, "name": model.name, "frames": model.frames,
                      "frame_period_s": model.frame_period_s, "decode": model.decode.model_dump(mode="json"),
                      "graphs": graphs}  # fmt: skip
            for name, content in (extra or {}).items():
                archive.writestr(_member(name), content)
            archive.writestr(_member(_HEADER), json.dumps(header).encode(), zipfile.ZIP_DEFLATED)
        os.replace(part, path)
    except OSError as error:
        raise HwsimError(f"{path}: must be writable, got {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            part.unlink()


def load_model(path: str | Path) -> ExtractedModel:
    """Read a model. Raises HwsimError for a file that is missing, damaged, of another kind or of another version."""
    header = _header(Path(path))
    if header["hwsim_model"] != VERSION:
        raise HwsimError(f"{path}: model version must be {VERSION}, got {header['hwsim_model']}")
    graphs = {name: _graph_from_json(Path(path), name, values) for name, values in header["graphs"].items()}
    decode = DecodeDefaults.model_validate(header["decode"])
    return ExtractedModel(header["name"], graphs, header["frames"], header["frame_period_s"], decode)


def extra_member(path: str | Path, name: str) -> bytes | None:
    """A further member of a model's file, None when it is not there."""
    _header(Path(path))
    with zipfile.ZipFile(path) as archive:
        return archive.read(name) if name in archive.namelist() else None


def is_model(path: str | Path) -> bool:
    """Whether a file is an extracted model."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _HEADER in archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def _header(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            if _HEADER not in archive.namelist():
                raise HwsimError(f"{path}: must be an extracted model, got another file of hwsim: "
                                 "write one with hwsim extract")  # fmt: skip
            found: dict[str, Any] = json.loads(archive.read(_HEADER))
    except OSError as error:
        raise HwsimError(f"{path}: must be an extracted model, got {error.strerror or error}") from None
    except (zipfile.BadZipFile, ValueError) as error:
        raise HwsimError(f"{path}: must be a whole and unaltered extracted model, got {error}") from None
    return found


def _member(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(name, _EPOCH)


def _write_array(archive: zipfile.ZipFile, name: str, array: Array) -> str:
    with archive.open(_member(name), "w", force_zip64=True) as file:
        if array.dtype.hasobject or array.dtype.kind == "V" or array.dtype.isbuiltin != 1:
            array = array.astype(np.int8 if array.dtype.itemsize == 1 else np.float32)
        np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
    return name


def _read_array(path: Path, name: str) -> Array:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(name) as file:
            found: Array = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise HwsimError(f"{path}: must hold weight {name} whole, got {error}") from None
    return found


def _graph_to_json(archive: zipfile.ZipFile, component: str, graph: Graph) -> dict[str, Any]:
    weights = []
    for at, weight in enumerate(graph.weights.values()):
        entry: dict[str, Any] = {"name": weight.name, "shape": weight.shape, "format": weight.format,
                                 "counted": weight.counted, "axis": weight.axis, "group": weight.group}  # fmt: skip
        parts = {"scale": weight.scale, "zero_point": weight.zero_point,
                 "content": weight.load() if weight.load is not None else None}  # fmt: skip
        for part, array in parts.items():
            if array is not None:
                entry[part] = _write_array(archive, f"{component}/{at}.{part}.npy", np.asarray(array))
        weights.append(entry)
    return {
        "name": graph.name, "inputs": graph.inputs, "outputs": graph.outputs, "folded": dict(graph.folded),
        "notes": graph.notes, "values": [asdict(value) for value in graph.values.values()],
        "nodes": [_node_to_json(node) for node in graph.nodes], "weights": weights,
    }  # fmt: skip


def _node_to_json(node: Node) -> dict[str, Any]:
    return {
        "kind": node.kind.value, "layer": node.layer, "inputs": node.inputs, "outputs": node.outputs,
        "weights": dict(node.weights), "attributes": dict(node.attributes), "format": node.input_format,
    }  # fmt: skip


def _graph_from_json(path: Path, component: str, held: dict[str, Any]) -> Graph:
    values = {one["name"]: Value(one["name"], tuple(one["shape"]), one["format"], one["integer"])
              for one in held["values"]}  # fmt: skip
    nodes = tuple(
        Node(NodeKind(one["kind"]), one["layer"], tuple(one["inputs"]), tuple(one["outputs"]), one["weights"],
             one["attributes"], one["format"])
        for one in held["nodes"]
    )  # fmt: skip
    weights = {}
    for one in held["weights"]:
        load = partial(_read_array, path, one["content"]) if "content" in one else None
        scale, zero = (_read_array(path, one[part]) if part in one else None for part in ("scale", "zero_point"))
        weights[one["name"]] = Weight(one["name"], tuple(one["shape"]), one["format"], one["counted"], load, scale,
                                      zero, one["axis"], one["group"])  # fmt: skip
    return Graph(held["name"], values, nodes, weights, tuple(held["inputs"]), tuple(held["outputs"]),
                 held["folded"], tuple(held["notes"]))  # fmt: skip
