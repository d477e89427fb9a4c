"""State dictionaries from files into modules, without running code of the file."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hwsim.errors import HwsimError

SHOWN = 5


def load_weights(module: nn.Module, path: str | Path) -> None:
    """Load a state dictionary, of safetensors or of `torch.save`, into a module: all of it, at equal shapes.

    Raises HwsimError for a file that is missing, broken or holds pickled objects, and for keys that are missing,
    unexpected or of another shape.
    """
    path = Path(path)
    if not path.is_file():
        raise HwsimError(f"{path}: weights must be a file, got none")
    state = _safetensors(path) if path.suffix == ".safetensors" else _state(path)
    wanted = module.state_dict()
    missing, unexpected = [key for key in wanted if key not in state], [key for key in state if key not in wanted]
    if missing or unexpected:
        raise HwsimError(f"{path}: keys must be those of the module, got {_listed('missing', missing)}"
                         f"{' and ' if missing and unexpected else ''}{_listed('unexpected', unexpected)}")  # fmt: skip
    for key, tensor in wanted.items():
        if tensor.shape != state[key].shape:
            raise HwsimError(f"{path}: '{key}' must have shape {tuple(tensor.shape)}, got {tuple(state[key].shape)}")
    module.load_state_dict(state)


def _listed(word: str, keys: list[str]) -> str:
    if not keys:
        return ""
    return f"{len(keys)} {word}: {', '.join(keys[:SHOWN])}" + (f" and {len(keys) - SHOWN} more" if keys[SHOWN:] else "")


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise HwsimError("reading .safetensors needs safetensors: install hwsim[train]") from None
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise HwsimError(f"{path}: must be a whole safetensors file, got {_line(error)}") from None


def _state(path: Path) -> dict[str, Tensor]:
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise HwsimError(f"{path}: must be a state dictionary of tensors, got pickled objects or another file "
                         f"({_line(error)}): save module.state_dict(), or use safetensors") from None  # fmt: skip
    except Exception as error:  # a torn archive raises of many kinds
        raise HwsimError(f"{path}: must be a whole file of torch.save, got {_line(error)}") from None
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(one, Tensor) for one in found.values()):
        raise HwsimError(f"{path}: must be a state dictionary of tensors, got {type(found).__name__}")
    return found


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120].rstrip(". ")
