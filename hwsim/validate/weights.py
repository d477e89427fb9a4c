"""Float weights from a safetensors file, by the names of a trace or of PyTorch modules. Nothing is unpickled.

PyTorch's names, for a part `P` (encoder, prediction, external_lm, source_lm):
    P.weight_ih_l0 (4H, K), P.weight_hh_l0 (4H, H), P.bias_ih_l0, P.bias_hh_l0 (4H,), with _reverse for the second
    direction, as `nn.LSTM` has them; P.embedding.weight (V, D); P.output.weight (N, K), P.output.bias (N,)
The trace's names are those of its tensors, with weights as (K, N): encoder.layer0.forward_wx (K, 4H) and so on.
A file has the one or the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError, nearest
from hwsim.trace import Role, Tensor, Trace

Array = npt.NDArray[Any]
PARTS = {"wx": "weight_ih", "wh": "weight_hh", "bias_x": "bias_ih", "bias_h": "bias_hh"}
SCALE = ".scale"
_PICKLES = {b"PK\x03\x04": "a zip that torch.save wrote", b"\x80": "a pickle"}
_TORCH_LSTM = re.compile(r"\.(weight|bias)_(ih|hh)_l\d+(_reverse)?$")
_LAYER = re.compile(
    r"(?P<part>.+)\.layer(?P<layer>\d+)\.(?P<direction>forward_|backward_)?(?P<what>wx|wh|bias_x|bias_h)$"
)


def read_weights(path: Path) -> dict[str, Array]:
    """Every tensor of a safetensors file. Raises HwsimError for any other file; a pickle is refused unread."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise HwsimError(f"{path}: must be a safetensors file, got {error.strerror or error}") from None
    for magic, what in _PICKLES.items():
        if start.startswith(magic):
            raise HwsimError(f"{path}: must be a safetensors file, got {what}, which could run code and is not read")
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError:
        raise HwsimError("--weights needs safetensors: install hwsim[train]") from None
    try:
        found: dict[str, Array] = load_file(str(path))
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise HwsimError(f"{path}: must be a safetensors file of numbers that NumPy has, got {error}") from None
    for name, array in found.items():
        if array.dtype.kind != "f":
            raise HwsimError(f"{path}: {name} must be finite reals, got {array.dtype}")
        if not np.isfinite(array).all():
            raise HwsimError(f"{path}: {name} must be finite reals, got {array.dtype} with NaN or an infinity")
    return found


def parameters_of(trace: Trace, found: Mapping[str, Array], path: Path) -> dict[str, Array]:
    """float64 of every weight and bias of a trace, (K, N). Tensors of parts that it has not are left out.

    Raises HwsimError for missing and unknown names and other shapes.
    """
    of_torch = any(_TORCH_LSTM.search(name) for name in found)
    tensors = [tensor for tensor in trace.tensors if tensor.role in (Role.WEIGHT, Role.BIAS)]
    names = {tensor.name: torch_name(tensor.name) if of_torch else tensor.name for tensor in tensors}
    scales = {t.name + SCALE for t in trace.tensors if t.role == Role.ACTIVATION}
    parts = {tensor.component for tensor in tensors}
    for name in found:
        if name.partition(".")[0] in parts and name not in {*names.values(), *scales}:
            raise HwsimError(f"{path}: '{name}' must be a parameter of the network{nearest(name, names.values())}")
    return {tensor.name: _parameter(tensor, names[tensor.name], found, path, of_torch) for tensor in tensors}


def torch_name(name: str) -> str:
    """The name that PyTorch's modules give a tensor of the trace."""
    match = _LAYER.match(name)
    if match is None:
        return name.removesuffix("table") + "weight" if name.endswith(".embedding.table") else name
    suffix = "_reverse" if match["direction"] == "backward_" else ""
    return f"{match['part']}.{PARTS[match['what']]}_l{match['layer']}{suffix}"


def _parameter(tensor: Tensor, name: str, found: Mapping[str, Array], path: Path, of_torch: bool) -> Array:
    if name not in found:
        raise HwsimError(f"{path}: must hold {name}{nearest(name, found)}")
    array = found[name]
    turned = of_torch and tensor.role == Role.WEIGHT and not tensor.name.endswith(".embedding.table")
    shape = tensor.shape[::-1] if turned else tensor.shape
    if array.shape != shape:
        raise HwsimError(f"{path}: {name} must be of shape {shape}, got {array.shape}")
    return np.ascontiguousarray(array.T if turned else array).astype(np.float64)
