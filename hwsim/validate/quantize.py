"""Float parameters on grids, by a precision policy and published recipes; every choice is noted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.execute.operations.base import INPUT, same_codes
from hwsim.execute.operations.row import Row, rows
from hwsim.numerics.calibration import BoundAware, MinMax, Sawb
from hwsim.numerics.formats import NumberFormat
from hwsim.numerics.policy import PrecisionPolicy
from hwsim.numerics.quantizers import Quantizer
from hwsim.trace import Kind, Role, Tensor, Trace
from hwsim.validate.weights import SCALE

Array = npt.NDArray[Any]
FEATURES = "encoder.input.features"
CELL_STEP = 2.0**-11
HIDDEN_BOUND = 1.0
FLOATS = {"fp16": np.float16, "fp32": np.float32}


@dataclass(slots=True)
class Quantized:
    """A network of LSTM layers while it is quantized: codes, grids, and what was assumed.

    Weights: SAWB for int4 and int2 with one scale, min-max otherwise. Hidden states: bound-aware, bound 1. Features:
    bound-aware of the largest input, or the scale that the weights file gives. Embeddings: bound-aware of the largest
    entry of their table. Cells: int16 in steps of 2^-11; fp16 states are halves, fp32 ones float64.
    """

    policy: PrecisionPolicy
    codes: dict[str, Array] = field(default_factory=dict)
    grids: dict[str, Quantizer] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)

    def parameter(self, tensor: Tensor, reals: Array) -> None:
        """Codes and grid of a weight, or reals, rounded to the format's float type. Raises HwsimError."""
        fmt = NumberFormat.parse(tensor.format)
        if fmt.is_float or tensor.role == Role.BIAS:
            if fmt.base not in FLOATS:
                raise HwsimError(f"{tensor.name}: its format must be fp16 or fp32, got {fmt}")
            if fmt.base == "fp32" and tensor.role == Role.WEIGHT:
                self.notes["products with weights of fp32 are computed in float64"] = None
            self.codes[tensor.name] = reals.astype(FLOATS[fmt.base]).astype(np.float64)
            return
        grid, recipe = weight_grid(tensor.name, fmt, reals)
        self.notes[f"weights of {fmt} by {recipe}"] = None
        codes = grid.quantize(reals)
        if self.policy.resolve(tensor.layer).activations.is_float:
            self.codes[tensor.name] = grid.dequantize(codes)
            self.notes["integer weights beside floating-point activations are multiplied as reals"] = None
            return
        self.grids[tensor.name], self.codes[tensor.name] = grid, codes.astype(np.int8)

    def activations(
        self, trace: Trace, found: Mapping[str, Array], inputs: Mapping[str, Array], reals: Mapping[str, Array]
    ) -> None:
        """Grids of features, hidden states and cells, and of what each product takes. Raises HwsimError."""
        bounds = {
            tensor.name: float(np.abs(reals[tensor.name.removesuffix("row") + "table"]).max())
            for tensor in trace.tensors
            if tensor.name.endswith(".embedding.row")
        }
        if FEATURES in inputs:
            bounds[FEATURES] = float(np.abs(inputs[FEATURES]).max()) or 1.0
        for tensor in trace.tensors:
            layer = self.policy.resolve(tensor.layer)
            if tensor.role == Role.ACTIVATION and not tensor.name.endswith(".embedding.row"):
                self._activation(tensor.name, _bits(layer.activations, tensor.name), found, bounds)
            elif tensor.role == Role.STATE and layer.state.base == "fp16":
                self.notes["gate sums, cells and logits of fp16 are halves"] = None
            elif tensor.role == Role.STATE and tensor.name.endswith("c") and layer.state.base == "int16":
                self.grids[tensor.name] = Quantizer(np.asarray(CELL_STEP), 16)
                self.notes["cells of int16 in steps of 2^-11"] = None
        for row in rows(trace, 0, len(trace)):
            if row.kind == Kind.MATMUL and row.weight is not None and row.weight.name in self.grids:
                self._product_input(row, bounds)

    def _activation(self, name: str, bits: int, found: Mapping[str, Array], bounds: Mapping[str, float]) -> None:
        """The grid of features or of a hidden state, unless its format is a float."""
        if not bits:
            return
        if name != FEATURES:
            self.grids[name] = BoundAware(HIDDEN_BOUND, bits).calibrate()
            self.notes["hidden states bound-aware, bound 1"] = None
        elif FEATURES + SCALE in found:
            scale = found[FEATURES + SCALE]
            if scale.size != 1:
                raise HwsimError(f"{FEATURES}{SCALE} must be one number, got shape {scale.shape}")
            self.grids[name] = Quantizer(scale.astype(np.float64).reshape(()), bits, narrow=True)
            self.notes[f"{FEATURES} with the scale of the weights file"] = None
        else:
            self.grids[name] = BoundAware(bounds[name], bits).calibrate()
            said = f"by the largest of these inputs, as the weights file has no {FEATURES}{SCALE}"
            self.notes[f"{FEATURES} bound-aware, {said}"] = None

    def _product_input(self, row: Row, bounds: Mapping[str, float]) -> None:
        """A grid for what a product takes, where that is not the one on which all of it is stored."""
        assert row.weight is not None
        bits = _bits(self.policy.resolve(row.weight.layer).activations, row.weight.name)
        names = [tensor.name for tensor in row.activations]
        own = [self.grids.get(name) for name in names]
        first = own[0]
        if first is not None and all(
            grid is not None and grid.bits == bits and same_codes(grid, first) for grid in own
        ):
            return
        bound = max(bounds.get(name, HIDDEN_BOUND) for name in names)
        self.grids[row.weight.name + INPUT] = BoundAware(bound, bits).calibrate()
        if any(name.endswith(".embedding.row") for name in names):
            self.notes["embeddings bound-aware, by the largest entry of their table"] = None


def weight_grid(name: str, fmt: NumberFormat, reals: Array) -> tuple[Quantizer, str]:
    """The grid of weights (K, N) in an integer format, and the recipe's name. Raises HwsimError for other formats."""
    if fmt.kind != "int" or fmt.sparsity is not None or not 2 <= fmt.code_bits <= 8:
        raise HwsimError(f"{name}: weights to quantize must have a dense format of 2 to 8 bits, got {fmt}")
    bits = int(fmt.code_bits)
    if fmt.granularity == "tensor" and bits in (2, 4) and not fmt.zero_point:
        return Sawb(bits, zero_aligned=bits == 4).calibrate(reals), "SAWB"
    recipe = MinMax(bits, symmetric=not fmt.zero_point, axis=None if fmt.granularity == "tensor" else -1)
    if fmt.granularity != "group":
        return recipe.calibrate(reals), f"min-max, one scale per {fmt.granularity}"
    size, (depth, columns) = fmt.group_size, reals.shape
    if depth % size:
        raise HwsimError(f"{name}: K must be a multiple of the scale group {size}, got {depth}")
    groups = depth // size
    by_group = recipe.calibrate(reals.reshape(groups, size, columns).transpose(1, 0, 2).reshape(size, -1))
    shape = (groups, columns)
    zero = by_group.zero_point.reshape(shape) if by_group.zero_point.size > 1 else by_group.zero_point
    grid = replace(by_group, scale=by_group.scale.reshape(shape), zero_point=zero, group_size=size)
    return grid, f"min-max, one scale per {size} of K"


def _bits(fmt: NumberFormat, name: str) -> int:
    """Bits of an integer format of activations, 0 of a float one. Raises HwsimError for other formats."""
    if fmt.is_float:
        return 0
    if fmt.granularity != "tensor" or fmt.zero_point or not 2 <= fmt.code_bits <= 8:
        raise HwsimError(f"{name}: activations to quantize must have one scale and 2 to 8 bits, got {fmt}")
    return int(fmt.code_bits)
