"""A module's parameters in a safetensors file. Nothing is ever unpickled."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from hwsim.errors import HwsimError, nearest

_PICKLES = {b"PK\x03\x04": "a zip that torch.save wrote", b"\x80": "a pickle"}


def save_parameters(module: nn.Module, path: str | Path) -> None:
    """Write the parameters and buffers of a module. Raises HwsimError when the file cannot be written."""
    from safetensors.torch import save_file

    tensors = {name: value.detach().contiguous() for name, value in module.state_dict().items()}
    try:
        save_file(tensors, str(path))
    except Exception as error:  # safetensors raises its own type for a failed write
        raise HwsimError(f"{path}: must be writable, got {str(error).splitlines()[0]}") from None


def load_parameters(module: nn.Module, path: str | Path) -> None:
    """Read parameters into a module, all of them and no others.

    Raises HwsimError for a file that is missing or not safetensors (a pickle is refused unread), for names that the
    module has and the file has not or the other way round, and for other shapes.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise HwsimError(f"{path}: must be a safetensors file, got {(error.strerror or str(error)).lower()}") from None
    for magic, what in _PICKLES.items():
        # A header of safetensors begins at byte 8, after its length, which may look like the start of a pickle.
        if start.startswith(magic) and start[8:] != b"{":
            raise HwsimError(f"{path}: must be a safetensors file, got {what}, which could run code and is not read")
    try:
        found = load_file(str(path))
    except SafetensorError as error:
        raise HwsimError(f"{path}: must be a safetensors file, got {error}") from None
    wanted = module.state_dict()
    for name in wanted:
        if name not in found:
            raise HwsimError(f"{path}: must hold {name}{nearest(name, found)}")
    for name, value in found.items():
        if name not in wanted:
            raise HwsimError(f"{path}: unknown tensor '{name}'{nearest(name, wanted)}")
        if value.shape != wanted[name].shape:
            raise HwsimError(f"{path}: {name} must be {tuple(wanted[name].shape)}, got {tuple(value.shape)}")
    module.load_state_dict(found)
