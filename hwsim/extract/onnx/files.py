"""ONNX files: what is read, what is refused unread, and a copy that shows every intermediate value."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.errors import HwsimError, nearest

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

LARGE_BYTES = 4096
"""Initializers from this size on may stay in the file."""
LARGEST_BYTES = 2**31 - 1
"""What one protocol buffer may hold."""


def load_model(path: str | Path) -> ModelProto:
    """A checked ONNX model with its external data, local functions inlined.

    External data is read from the model's own folder only. Raises HwsimError for a file that is missing, truncated
    or of another kind (a pickle is refused unread), for external data that is missing, short or elsewhere, for an
    opset or IR version that the installed onnx does not know, and for a graph that breaks ONNX's own rules.
    """
    onnx = import_onnx()
    path = Path(path)
    content = _read(path)
    try:
        model: ModelProto = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf raises one of several, by its implementation
        raise HwsimError(f"{path}: must be a whole ONNX file, got {one_line(error)}") from None
    if not model.HasField("graph") or not model.ir_version:
        raise HwsimError(f"{path}: must be a whole ONNX file, got one without a graph")
    check_versions(path, model)
    _load_external(path, model)
    if model.functions:
        from onnx.inliner import inline_local_functions

        model = inline_local_functions(model)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise HwsimError(f"{path}: must be a valid ONNX model, got {one_line(error)}") from None
    return model


def with_all_outputs(path: str | Path, names: Iterable[str]) -> bytes:
    """The model of a file with the values `names` as outputs too: what a runtime is given to show them.

    The file is not changed; external data is inside. Raises HwsimError for a name that no node computes.
    """
    onnx = import_onnx()
    model = load_model(path)
    computed = {name for node in model.graph.node for name in node.output if name}
    shown = {output.name for output in model.graph.output}
    for name in dict.fromkeys(names):
        if name in shown:
            continue
        if name not in computed:
            raise HwsimError(f"{path}: '{name}' must be a value that a node computes{nearest(name, computed)}")
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    if model.ByteSize() > LARGEST_BYTES:
        raise HwsimError(f"{path}: must be smaller than 2 GiB with its weights, got {model.ByteSize()} bytes")
    content: bytes = model.SerializeToString()
    return content


def import_onnx() -> Any:
    """The package onnx. Raises HwsimError, with how to install it, when it is missing."""
    try:
        import onnx
        import onnx.checker
    except ImportError:
        raise HwsimError("an ONNX file needs the package onnx: pip install 'hwsim[onnx]'") from None
    return onnx


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise HwsimError(f"{path}: must be an ONNX file, got {error.strerror}") from None
    if content[:1] == b"\x80" or (content[:2] == b"PK" and b"data.pkl" in content):
        raise HwsimError(f"{path}: must be an ONNX file, got a pickle, which could run code and is not read")
    if content[:2] == b"PK":
        raise HwsimError(f"{path}: must be an ONNX file, got a zip")
    return content


def mapped(path: Path) -> mmap.mmap:
    """A file as it lies on the disk. Raises HwsimError for one that is missing, empty, a pickle or a zip."""
    try:
        with path.open("rb") as file:
            whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        raise HwsimError(f"{path}: must be a whole ONNX file, got an empty one") from None
    except OSError as error:
        raise HwsimError(f"{path}: must be an ONNX file, got {error.strerror}") from None
    if whole[:1] == b"\x80" or (whole[:2] == b"PK" and whole.find(b"data.pkl") >= 0):
        raise HwsimError(f"{path}: must be an ONNX file, got a pickle, which could run code and is not read")
    if whole[:2] == b"PK":
        raise HwsimError(f"{path}: must be an ONNX file, got a zip")
    return whole


def check_versions(path: Path, model: ModelProto) -> None:
    """Raises HwsimError for an opset or IR version that the installed onnx does not know."""
    onnx = import_onnx()
    newest = onnx.defs.onnx_opset_version()
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version > newest:
            raise HwsimError(f"{path}: opset must be at most {newest}, the newest of onnx {onnx.__version__}, "
                             f"got {opset.version}: install a newer onnx")  # fmt: skip
    if model.ir_version > onnx.IR_VERSION:
        raise HwsimError(f"{path}: IR version must be at most {onnx.IR_VERSION}, the newest of onnx "
                         f"{onnx.__version__}, got {model.ir_version}: install a newer onnx")  # fmt: skip


def _load_external(path: Path, model: ModelProto) -> None:
    onnx = import_onnx()
    tensors = [t for t in stored_tensors(model.graph) if t.data_location == onnx.TensorProto.EXTERNAL]
    for tensor in tensors:
        check_external(path, tensor)
    if not tensors:
        return
    try:
        onnx.load_external_data_for_model(model, str(path.resolve().parent))
    except Exception as error:  # onnx raises one of several, by its version
        raise HwsimError(f"{path}: its external data must be readable, got {one_line(error)}") from None


def check_external(path: Path, tensor: TensorProto) -> tuple[Path, int, int]:
    """File, offset and length of a tensor outside the model. Raises HwsimError when missing, short or elsewhere."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location, folder = entries.get("location", ""), path.resolve().parent
    where = f"{path}: external data of '{tensor.name}'"
    target = folder / location
    if not location or not target.resolve().is_relative_to(folder):
        raise HwsimError(f"{where} must be inside the model's folder, got '{location}'")
    if not target.is_file():
        raise HwsimError(f"{where} must be beside the model, got no file {target}")
    offset, length = (entries.get(key, "0") for key in ("offset", "length"))
    if not (offset.isdecimal() and length.isdecimal()):
        raise HwsimError(f"{where} must have an offset and a length, got '{offset}' and '{length}'")
    end, size = int(offset) + int(length), target.stat().st_size
    if end > size:
        raise HwsimError(f"{where} must be whole, got {size} of at least {end} bytes in {target}")
    return target, int(offset), int(length)


def stored_tensors(graph: Any) -> Iterator[TensorProto]:
    """All stored tensors, those of attributes and of inner graphs too."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from stored_tensors(inner)


def one_line(error: Exception) -> str:
    """What a library says, in one line without its own stack."""
    text = str(error).partition("==> Context")[0]
    return re.sub(r"\s+", " ", text).strip()[:300] or type(error).__name__


def symbols(path: str | Path) -> tuple[str, ...]:
    """Names of the symbolic sizes of a file's inputs. Raises HwsimError as `load_model` for files that are none."""
    from hwsim.extract.onnx.structure.wire import outline

    onnx = import_onnx()
    path = Path(path)
    try:
        content, _ = outline(memoryview(mapped(path)), LARGE_BYTES)
        model = onnx.load_model_from_string(content)
    except HwsimError:
        raise
    except Exception as error:  # protobuf raises one of several, by its implementation
        raise HwsimError(f"{path}: must be a whole ONNX file, got {one_line(error)}") from None
    dims = (dim.dim_param for value in model.graph.input for dim in value.type.tensor_type.shape.dim)
    return tuple(dict.fromkeys(name for name in dims if name))
