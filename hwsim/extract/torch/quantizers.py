"""Fake quantizers: operators and modules of PyTorch, and modules of ours, as number formats with their scales."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hwsim.errors import HwsimError
from hwsim.extract.torch.calls import Call
from hwsim.extract.torch.draft import Draft
from hwsim.extract.torch.entries import Array, Computed, Constant, Entry, Grid, Held, as_array
from hwsim.numerics.codebook import Codebook
from hwsim.numerics.quantizers import Quantizer

BITS = (1, 2, 3, 4, 5, 6, 8, 16, 32)
LEARNED = ("_fake_quantize_learnable_per_tensor_affine", "_fake_quantize_learnable_per_channel_affine")


def on_grid(draft: Draft, call: Call, x: Entry, grid: Grid) -> Entry:
    """An operand behind a quantizer."""
    if isinstance(x, Computed):
        return replace(x, format=grid.format)
    if isinstance(x, Constant):
        return Constant(grid.reals(x.tensor), x.name, grid.format)
    return x.quantized(grid)


def affine(scale: Tensor, zero_point: Tensor, low: int, high: int, axis: int | None) -> Grid:
    """round(x / scale) + zero_point within [low, high], for one scale or one per channel along `axis`."""
    scale, zero = scale.detach().cpu(), zero_point.detach().cpu()
    channels = scale.numel() > 1
    least = max((high - low).bit_length(), 1)
    bits = next((each for each in BITS if each >= least), 32)
    text = f"int{bits}" + ("/channel" if channels else "") + ("/zp" if bool(zero.any()) else "")
    along = axis if channels else None

    def spread(part: Tensor, x: Tensor) -> Tensor:
        return part.reshape([-1 if at == along else 1 for at in range(x.ndim)])

    def codes(x: Tensor) -> Array:
        steps = torch.round(x.float() * (1.0 / spread(scale.float(), x))) + spread(zero, x)
        found = as_array(steps.clamp(low, high))
        return found.astype(np.int8 if low >= -128 and high <= 127 else np.int16 if bits <= 8 else np.int32)

    shape = (-1,) if channels else ()
    offsets = as_array(zero).reshape(shape).astype(np.int64) if zero.any() else None
    return Grid(text, codes, as_array(scale).reshape(shape), offsets, along)


def numeric(quantizer: Quantizer | Codebook, ndim: int, dtype: torch.dtype = torch.float32, suffix: str = "",
            codes: Callable[[Tensor], Array] | None = None) -> Grid:  # fmt: skip
    """A quantizer or codebook of `hwsim.numerics` for tensors of `ndim` axes, output channels last."""
    if isinstance(quantizer, Codebook):
        book = quantizer
        return Grid(f"codebook{book.bits}", codes or (lambda x: book.quantize(_reals(x))), np.asarray(book.scale),
                    values=book.dequantize)  # fmt: skip
    fixed = replace(quantizer, precision="float64" if dtype == torch.float64 else "float32")
    kind = np.int8 if fixed.bits <= 8 and fixed.signed else np.int32
    groups = bool(fixed.group_size) and fixed.scale.ndim == 2
    varies = [at for at, size in enumerate(fixed.scale.shape) if size > 1]
    channels = bool(varies) and not groups
    axis = ndim - fixed.scale.ndim + varies[-1] if channels else 0 if groups else None
    scale, zero = fixed.scale, fixed.zero_point
    if not groups:
        scale = scale.reshape(-1 if channels else ())
        zero = np.broadcast_to(zero, fixed.scale.shape).reshape(scale.shape)
    text = f"int{next(each for each in BITS if each >= fixed.bits)}"
    text += f"/group{fixed.group_size}" if groups else "/channel" if channels else ""
    text += "/zp" if np.any(zero) else ""
    return Grid(
        text + suffix, codes or (lambda x: fixed.quantize(_reals(x)).astype(kind)), scale,
        zero if np.any(zero) else None, axis, fixed.group_size if groups else None, fixed.dequantize,
    )  # fmt: skip


def module_grid(module: Any, x: Entry) -> Grid | None:
    """The grid that a quantizer module puts `x` on, None for one that is switched off."""
    if hasattr(module, "fake_quant_enabled"):
        if not int(module.fake_quant_enabled[0]):
            return None
        return affine(module.scale, module.zero_point, int(module.quant_min), int(module.quant_max),
                      int(getattr(module, "ch_axis", -1)) % max(len(x.shape), 1))  # fmt: skip
    if isinstance(x, Computed):
        return numeric(activation_quantizer(module), len(x.shape), x.dtype)
    tensor = x.tensor() if isinstance(x, Held) else x.tensor
    if hasattr(module, "codebook"):
        return numeric(module.codebook, tensor.ndim, tensor.dtype)
    if hasattr(module, "mask"):
        suffix = f"/{module.recipe.sparsity}"
        return numeric(
            module.quantizer(tensor), tensor.ndim, tensor.dtype, suffix, lambda x: _narrow(module.codes(x)[0])
        )
    return numeric(module.quantizer(tensor), tensor.ndim, tensor.dtype)


def activation_quantizer(module: Any) -> Quantizer:
    """The grid of an activation. Of one that is calibrated at run time only the format means something."""
    try:
        found: Quantizer = module.quantizer()
    except HwsimError as error:
        if "seen in training" in str(error):
            raise
        found = module.quantizer(torch.tensor([-1.0, 0.0, 1.0]))
    return found


def _narrow(codes: Any) -> Array:
    return np.asarray(codes).astype(np.int8)


def _reals(x: Tensor) -> Array:
    return as_array(x.detach().double())


def fake_quantize(draft: Draft, call: Call) -> Entry | tuple[Entry, ...]:
    """The operators of PyTorch, with one scale or one per channel, given or learned."""
    x = draft.entry(call["self"])
    switch = call.arguments.get("fake_quant_enabled", call.arguments.get("fake_quant_on"))
    if switch is not None and not bool(_tensor(draft, call, switch).any()):
        result = x
    else:
        scale, zero = (_tensor(draft, call, call[name]) for name in ("scale", "zero_point"))
        axis = call.arguments.get("axis", call.arguments.get("ch_axis"))
        grid = affine(scale, zero, call["quant_min"], call["quant_max"], None if axis is None else axis % len(x.shape))
        result = on_grid(draft, call, x, grid)
    if call.single:
        return result
    return result, Constant(torch.ones(x.shape, dtype=torch.bool), f"{call.name}.mask")


def _tensor(draft: Draft, call: Call, given: Any) -> Tensor:
    """A scale, a zero point or a switch: a number, a buffer, or a parameter that is learned."""
    entry = draft.operand(given)
    if entry is None:
        return torch.as_tensor(given)
    if isinstance(entry, Computed):
        raise call.refuse("must have a scale that is fixed before the network runs, got one that is computed")
    if isinstance(entry, Held):
        draft.weights.absorb(entry.sources)
        draft.counts["scales are parameters: {}"] += 1
        return entry.tensor()
    return entry.tensor


HANDLERS = dict.fromkeys(
    ("fake_quantize_per_tensor_affine", "fake_quantize_per_channel_affine", "fake_quantize_per_tensor_affine_cachemask",
     "fake_quantize_per_channel_affine_cachemask", "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
     "fused_moving_avg_obs_fake_quant", "_fused_moving_avg_obs_fq_helper", *LEARNED), fake_quantize,
)  # fmt: skip
