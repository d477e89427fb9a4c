"""A quantized network as what its weights are: codes of as few bits as they need, for checkpoints that ship."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hwsim.errors import HwsimError
from hwsim.numerics.codebook import Codebook
from hwsim.numerics.quantizers import Quantizer
from hwsim.train.quantizers import FakeQuantizer
from hwsim.train.transducer import weight_places
from hwsim.train.weights import CodebookQuantizer, SparseQuantizer, weight_codes

PACKED, TABLE, SCALE = ".packed", ".table", ".scale"
INT8_BITS = 8


def pack_indices(indices: npt.NDArray[np.int64], bits: int) -> npt.NDArray[np.uint8]:
    """Unsigned numbers of `bits` bits, 0 to 8, end to end, most significant bit first."""
    single = np.unpackbits(indices.astype(np.uint8).reshape(-1, 1), axis=1)[:, 8 - bits :]
    return np.packbits(single.reshape(-1))


def unpack_indices(packed: npt.NDArray[np.uint8], bits: int, count: int) -> npt.NDArray[np.int64]:
    """The inverse of `pack_indices`. Raises HwsimError for another number of bytes."""
    if packed.size != -(-bits * count // 8):
        raise HwsimError(f"{count} codes of {bits} bits must be {-(-bits * count // 8)} bytes, got {packed.size}")
    single = np.unpackbits(packed)[: bits * count].reshape(count, bits)
    whole = np.pad(single, ((0, 0), (8 - bits, 0)))
    return np.packbits(whole, axis=1)[:, 0].astype(np.int64) if count else np.zeros(0, np.int64)


def compact_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Codes, tables of the codes that occur, and scales of all weights on a grid; the other parameters as they are.

    Raises HwsimError for a network with weights that have no grid, or codes of more than 8 bits.
    """
    found: dict[str, Tensor] = {}
    for name, value, module, attribute in weight_places(network):
        codes, quantizer = weight_codes(value, getattr(module, attribute))
        if isinstance(quantizer, Codebook):
            found |= _tensors(name, codes, quantizer.table, quantizer.scale)
            continue
        if quantizer is None or quantizer.bits > INT8_BITS or quantizer.half_step or quantizer.zero_point.any():
            raise HwsimError(f"{name}: must be on a symmetric grid of at most 8 bits to be kept as codes")
        table, indices = np.unique(codes, return_inverse=True)
        found |= _tensors(name, indices, table, quantizer.scale)
    rest = _rest(network)
    return found | {name: value for name, value in network.state_dict().items() if name in rest}


def _tensors(name: str, indices: Any, table: Any, scale: Any) -> dict[str, Tensor]:
    packed = pack_indices(indices, int(table.size - 1).bit_length())
    parts = {PACKED: packed, TABLE: table.astype(np.int8), SCALE: np.array(scale, np.float64)}
    return {name + part: torch.as_tensor(array) for part, array in parts.items()}


def load_compact(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a network the weights that `compact_tensors` kept; their grids are fixed from now on.

    Raises HwsimError for tensors of other names, types or sizes than the network's.
    """
    left = dict(tensors)
    for name, value, module, attribute in weight_places(network):
        packed, table, scale = (_take(left, name + part) for part in (PACKED, TABLE, SCALE))
        if (packed.dtype, table.dtype, scale.dtype) != (torch.uint8, torch.int8, torch.float64) or not table.numel():
            raise HwsimError(f"{name}: must have bytes of codes, an int8 table and float64 scales")
        centres = table.numpy()
        bits = int(centres.size - 1).bit_length()
        indices = unpack_indices(packed.numpy(), bits, value.numel())
        if indices.max(initial=0) >= centres.size:
            raise HwsimError(f"{name}: codes must be below {centres.size}, got {indices.max()}")
        if scale.ndim and tuple(scale.shape) != (1, value.shape[1]):
            raise HwsimError(f"{name}: scales must be one or (1, {value.shape[1]}), got {tuple(scale.shape)}")
        grid = getattr(module, attribute)
        quantizer = _quantizer(name, grid, value, scale.numpy(), centres)
        codes = centres[indices].reshape(tuple(value.shape)).astype(np.int64)
        with torch.no_grad():
            value.copy_(torch.as_tensor(quantizer.dequantize(codes)))
        if isinstance(grid, CodebookQuantizer):
            grid.table, grid.scale = table, scale
        else:
            setattr(module, attribute, FakeQuantizer(quantizer))
    wanted = {name: value for name, value in network.state_dict().items() if name in left}
    for name, value in left.items():
        if name not in wanted or value.shape != wanted[name].shape or value.dtype != wanted[name].dtype:
            raise HwsimError(f"{name}: must be a tensor of the network, of its shape and type")
        wanted[name].copy_(value)
    missing = _rest(network) - set(left)
    if missing:
        raise HwsimError(f"tensors must hold {min(missing)}, got none")


def _take(tensors: dict[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise HwsimError(f"tensors must hold {name}, got none")
    return tensors.pop(name)


def _rest(network: nn.Module) -> set[str]:
    """Names of the tensors that are no weights and no part of a weight's grid."""
    places = weight_places(network)
    weights = {value.data_ptr() for _, value, _, _ in places}
    grids = {id(getattr(module, attribute)) for _, _, module, attribute in places}
    inside = tuple(f"{name}." for name, module in network.named_modules() if id(module) in grids)
    return {name for name, value in network.state_dict().items()
            if value.data_ptr() not in weights and not (inside and name.startswith(inside))}  # fmt: skip


def _quantizer(name: str, grid: Any, value: Tensor, scale: npt.NDArray[np.float64],
               table: npt.NDArray[np.int8]) -> Quantizer:  # fmt: skip
    """The grid of the network's recipe with the scale that was kept; of a codebook, one that holds its table."""
    if isinstance(grid, CodebookQuantizer):
        return Quantizer(scale, _bits(table))
    calibration = grid.recipe.calibration if isinstance(grid, SparseQuantizer) else grid.calibration
    declared = calibration if isinstance(calibration, Quantizer) else calibration.calibrate(value.detach().numpy())
    low, high = declared.code_range
    if table.min() < low or table.max() > high:
        raise HwsimError(f"{name}: codes must be {low} to {high}, got {table.min()} to {table.max()}")
    return replace(declared, scale=scale)


def _bits(table: npt.NDArray[np.int8]) -> int:
    """Bits of the two's complement numbers that hold a table."""
    low, high = int(table.min()), int(table.max())
    return max((-1 - low).bit_length() if low < 0 else 0, high.bit_length() if high > 0 else 0) + 1
