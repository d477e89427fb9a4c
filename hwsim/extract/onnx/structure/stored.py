"""A checked ONNX model whose weights stay in their files until somebody asks for them."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.extract.onnx.files import (
    LARGE_BYTES,
    check_external,
    check_versions,
    import_onnx,
    mapped,
    one_line,
    stored_tensors,
)
from hwsim.extract.onnx.structure.wire import Outside, outline

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

Array = npt.NDArray[Any]
RUNTIME_OPERATORS = ("SimplifiedLayerNormalization",)
"""What onnxruntime writes under ONNX's own domain, although ONNX does not know it."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An initializer: sizes, NumPy's type, and its content, a view of the file unless its type is packed."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[], Array]


def open_model(path: Path) -> tuple[ModelProto, dict[str, Stored]]:
    """A checked model and its initializers; in the model the large ones are inputs.

    Raises HwsimError as `load_model` does, and for an initializer whose content is too short or too long.
    """
    onnx = import_onnx()
    whole = mapped(path)
    try:
        content, outside = outline(memoryview(whole), LARGE_BYTES)
        model: ModelProto = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf raises one of several, by its implementation
        raise HwsimError(f"{path}: must be a whole ONNX file, got {one_line(error)}") from None
    if not model.HasField("graph") or not model.ir_version:
        raise HwsimError(f"{path}: must be a whole ONNX file, got one without a graph")
    check_versions(path, model)
    if model.graph.sparse_initializer:
        raise HwsimError(f"{path}: weights must be dense, got sparse initializer "
                         f"'{model.graph.sparse_initializer[0].values.name}'")  # fmt: skip
    stored = _external(path, model)
    for part in outside:
        tensor = _tensor(path, part)
        stored[tensor.name] = _mapped(path, tensor, whole, part.offset, part.length)
    _declare(model, stored)
    model = _checked(path, model)
    kept = {tensor.name: tensor for tensor in model.graph.initializer}
    return model, {**stored, **{name: _inside(tensor) for name, tensor in kept.items()}}


def _tensor(path: Path, part: Outside) -> TensorProto:
    onnx = import_onnx()
    try:
        tensor: TensorProto = onnx.TensorProto.FromString(part.tensor)
    except Exception as error:  # protobuf raises one of several, by its implementation
        raise HwsimError(f"{path}: must be a whole ONNX file, got {one_line(error)}") from None
    return tensor


def _external(path: Path, model: ModelProto) -> dict[str, Stored]:
    """Take the initializers out that lie in other files; what inner graphs have there is read."""
    onnx = import_onnx()
    outside = {t.name: t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL}
    files: dict[Path, mmap.mmap] = {}
    found = {}
    for tensor in stored_tensors(model.graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        target, offset, length = check_external(path, tensor)
        if tensor.name not in outside:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(path.resolve().parent))
            tensor.data_location = onnx.TensorProto.DEFAULT
            continue
        if target not in files:
            with target.open("rb") as file:
                files[target] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if length else mmap.mmap(-1, 1)
        found[tensor.name] = _mapped(path, tensor, files[target], offset, length or len(files[target]) - offset)
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in found]
    if found:
        copies = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
        del model.graph.initializer[:]
        model.graph.initializer.extend(copies)
    return found


def _mapped(path: Path, tensor: TensorProto, whole: mmap.mmap, offset: int, length: int) -> Stored:
    onnx = import_onnx()
    shape = tuple(tensor.dims)
    where = f"{path}: initializer '{tensor.name}'"
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    except KeyError:
        raise HwsimError(f"{where} must be of a known type, got {tensor.data_type}") from None
    bits = _bits(dtype)
    wanted = -(-prod(shape) * bits // 8)
    if length != wanted:
        raise HwsimError(f"{where} must have {wanted} bytes for {shape} {dtype.name}, got {length}")
    if bits >= 8:
        return Stored(tensor.name, shape, dtype,
                      lambda: np.frombuffer(whole, dtype, prod(shape), offset).reshape(shape))  # fmt: skip
    kind = tensor.data_type
    return Stored(tensor.name, shape, dtype, lambda: _unpacked(kind, shape, whole[offset : offset + length]))


def _unpacked(kind: int, shape: tuple[int, ...], content: bytes) -> Array:
    onnx = import_onnx()
    tensor = onnx.TensorProto(data_type=kind, dims=shape, raw_data=content)
    return np.asarray(onnx.numpy_helper.to_array(tensor))


def _bits(dtype: np.dtype[Any]) -> int:
    """Bits of an element as ONNX packs it: 4 and 2 for its narrow types."""
    digits = "".join(c for c in dtype.name.partition("_")[0] if c.isdigit())
    return int(digits) if dtype.name.startswith(("int", "uint")) and digits in ("2", "4") else dtype.itemsize * 8


def _inside(tensor: TensorProto) -> Stored:
    from onnx import numpy_helper

    array = numpy_helper.to_array(tensor)
    return Stored(tensor.name, tuple(array.shape), array.dtype, lambda: array)


def _declare(model: ModelProto, stored: dict[str, Stored]) -> None:
    """Give the graph an input for each initializer that was taken out."""
    from onnx import helper

    declared = {value.name for value in model.graph.input}
    for name, each in stored.items():
        if name not in declared:
            kind = helper.np_dtype_to_tensor_dtype(each.dtype)
            model.graph.input.append(helper.make_tensor_value_info(name, kind, each.shape))


def _checked(path: Path, model: ModelProto) -> ModelProto:
    onnx = import_onnx()
    for node in model.graph.node:
        if not node.domain and node.op_type in RUNTIME_OPERATORS:
            node.domain = "com.microsoft"
    domains = {opset.domain for opset in model.opset_import}
    missing = {node.domain for node in model.graph.node} - domains - {"", "ai.onnx"}
    model.opset_import.extend(onnx.helper.make_opsetid(domain, 1) for domain in sorted(missing))
    if model.functions:
        from onnx.inliner import inline_local_functions

        model = inline_local_functions(model)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise HwsimError(f"{path}: must be a valid ONNX model, got {one_line(error)}") from None
    return model
