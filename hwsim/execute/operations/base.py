"""What all operations share: the network they belong to, the tensors of one run, and how a result is stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError, nearest
from hwsim.execute.dynamic import DynamicCodes
from hwsim.execute.operations.row import Row
from hwsim.execute.projection import (
    AnyGrid,
    AnyProjection,
    Sums,
    half_projection,
    narrow_codes,
    projection,
    real_projection,
    storage,
)
from hwsim.execute.recurrence import Grid, HiddenGrid, LstmRules, stored
from hwsim.execute.reference.half import Halves, half_round
from hwsim.execute.reference.linear import to_codes
from hwsim.execute.semantics import Semantics
from hwsim.numerics import NumberFormat
from hwsim.numerics.codebook import Codebook
from hwsim.numerics.dynamic import DynamicGrid
from hwsim.numerics.quantizers import Quantizer
from hwsim.numerics.rounding import Integers, Reals
from hwsim.trace import Role, Tensor

Array = npt.NDArray[Any]
INPUT = ".input"
FP16 = "fp16"


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """What the operations of an executable share: tensors and grids by name, the machine's rules."""

    tensors: Mapping[str, Tensor]
    quantizers: Mapping[str, AnyGrid]
    rules: LstmRules
    semantics: Semantics

    def grid(self, name: str) -> Quantizer | None:
        """The quantizer of an activation or a state, None when it holds reals, or codes of scales of their own."""
        found = self.quantizers.get(name)
        if isinstance(found, Codebook):
            raise HwsimError(f"{name}: only the weights of a product must have a codebook")
        return None if isinstance(found, DynamicGrid) else found

    def dynamic(self, name: str) -> DynamicGrid | None:
        """The grid of an activation or a state that is found at run time, if it has such a one."""
        found = self.quantizers.get(name)
        return found if isinstance(found, DynamicGrid) else None

    def quantizer(self, name: str) -> Quantizer:
        """The quantizer of an activation or a state that has one."""
        found = self.grid(name)
        assert found is not None
        return found

    def halves(self, name: str) -> Halves | None:
        """The grid of an activation or state that its format keeps in FP16, when it has no quantizer."""
        tensor = self.tensors.get(name)
        is_half = tensor is not None and tensor.format == FP16 and tensor.role in (Role.ACTIVATION, Role.STATE)
        return Halves() if is_half and name not in self.quantizers else None

    def state_grid(self, name: str) -> Grid:
        """On what a state is kept between steps: its quantizer, halves, or None for float64."""
        if self.dynamic(name) is not None:
            raise HwsimError(f"{name}: must have a grid that is fixed, got one of run time")
        return self.grid(name) or self.halves(name)

    def hidden_grid(self, name: str) -> HiddenGrid:
        """`state_grid` of a hidden state, which may also be on a grid that each row finds."""
        dynamic = self.dynamic(name)
        if dynamic is not None and dynamic.per != "row":
            raise HwsimError(f"{name}: a state must have a grid that is fixed or of each row, got one of the tensor")
        return dynamic or self.state_grid(name)

    def accept(self, name: str, array: Array, share: tuple[int, int] | None = None) -> Any:
        """A tensor that the user gives, checked and as it is stored: codes, labels, or reals, quantized here.

        `share`: how many rows are run, of how many that the trace has.
        """
        tensor, quantizer = self.tensors.get(name), self.grid(name)
        whole = array.dtype.kind in "iu"
        if not whole and not np.isfinite(array).all():
            raise HwsimError(f"{name}: values must be finite, got NaN or an infinity")
        by_row = tensor is not None and share is not None and len(tensor.shape) > 1 and tensor.shape[0] == share[1]
        if tensor is not None and (tensor.role == Role.ACTIVATION or by_row):
            shape = tensor.shape
            if share is not None:
                shape = _fewer_rows(shape, *share)
            if array.shape != shape:
                raise HwsimError(f"{name}: must be of shape {shape}, got {array.shape}")
        dynamic = self.dynamic(name)
        if dynamic is not None:
            if whole:
                raise HwsimError(f"{name}: must be reals, whose grid is found at run time, got {array.dtype}")
            return DynamicCodes.of(dynamic, np.asarray(array, np.float64))
        if quantizer is None:
            return array if whole else stored(self.halves(name), np.asarray(array, np.float64))
        if whole:
            return narrow_codes(array, quantizer.code_range, name).astype(storage(quantizer))
        return quantizer.quantize(array).astype(storage(quantizer))

    def reals(self, name: str, value: Any) -> Reals:
        """float64 reals of a stored value: of codes, of sums that were not stored, or as they are."""
        if isinstance(value, (Sums, DynamicCodes)):
            return value.values()
        quantizer = self.quantizers.get(name)
        if quantizer is not None and value.dtype.kind in "iu":
            if isinstance(quantizer, DynamicGrid):
                raise HwsimError(f"{name}: codes of a grid of run time must have their scales, got none")
            return quantizer.dequantize(value)
        return np.asarray(value, np.float64)

    def on_grid(self, name: str, value: Any, grid: Quantizer | None) -> Array:
        """A stored value as codes of another grid, or as reals when that is None."""
        if grid is None:
            return self.reals(name, value)
        own = self.grid(name)
        if own is not None and isinstance(value, np.ndarray) and value.dtype.kind in "iu" and same_codes(own, grid):
            return value
        return grid.quantize(self.reals(name, value)).astype(storage(grid))


def _fewer_rows(shape: tuple[int, ...], rows: int, most: int) -> tuple[int, ...]:
    """The shape of a tensor when fewer rows are run; attention's (heads, T, S) have them in T, and in S if it is T."""
    if len(shape) != 3:
        return (-(-rows * shape[0] // most), *shape[1:])
    frames = -(-rows * shape[1] // most)
    return (shape[0], frames, frames if shape[2] == shape[1] else shape[2])


class Parameters:
    """Codes and reals of weights, biases and tables while an executable is built from them."""

    def __init__(self, network: Network, codes: Mapping[str, Array]) -> None:
        self.network = network
        self._codes = codes
        self._projections: dict[str, AnyProjection] = {}
        self.products: dict[str, AnyProjection] = {}
        """The projection behind each product, by the name of its output."""

    @property
    def names(self) -> tuple[str, ...]:
        """All that were given."""
        return tuple(self._codes)

    def array(self, tensor: Tensor) -> Array:
        """Codes or reals of a tensor. Raises HwsimError when there are none, and for another shape."""
        if tensor.name not in self._codes:
            raise HwsimError(f"codes must hold every weight and bias, got no {tensor.name}"
                             f"{nearest(tensor.name, self._codes)}")  # fmt: skip
        array = np.asarray(self._codes[tensor.name])
        if array.shape != tensor.shape:
            raise HwsimError(f"{tensor.name}: codes must be of shape {tensor.shape}, got {array.shape}")
        return array

    def reals(self, tensor: Tensor) -> Reals:
        """Reals of a parameter that is used as such, dequantized when it has a grid; finite."""
        values = self.network.reals(tensor.name, self.array(tensor))
        if not np.isfinite(values).all():
            raise HwsimError(f"{tensor.name}: must be finite, got NaN or an infinity")
        return values

    def projection(self, weight: Tensor, bias: Tensor | None, x: str, matrix: bool = True) -> AnyProjection:
        """The packed weights of a product of activations `x`; one of the same weight is packed once.

        The grid of the activations is that of `"<weight>.input"`, else of `x`. Without `matrix` the weight is a
        convolution's, whose last axis is the output channel and whose others are flattened to K.
        """
        if weight.name not in self._projections:
            self._projections[weight.name] = self._projection(weight, bias, x, matrix)
        return self._projections[weight.name]

    def _projection(self, weight: Tensor, bias: Tensor | None, x: str, matrix: bool) -> AnyProjection:
        array = self.array(weight)
        array = array if matrix else array.reshape(-1, array.shape[-1])
        offsets = None if bias is None else self.array(bias)
        quantizer, network = self.network.quantizers.get(weight.name), self.network
        if isinstance(quantizer, DynamicGrid):
            raise HwsimError(f"{weight.name}: weights must have a grid that is fixed, got one of run time")
        grid = (network.grid(weight.name + INPUT) or network.dynamic(weight.name + INPUT) or network.grid(x)
                or network.dynamic(x))  # fmt: skip
        if quantizer is None:
            return (half_projection if weight.format == FP16 else real_projection)(weight.name, array, offsets)
        if grid is None:
            raise HwsimError(f"{weight.name}: a quantizer must be given for {x} or {weight.name}{INPUT}, got neither")
        sparsity = NumberFormat.parse(weight.format).sparsity
        return projection(weight.name, array, quantizer, grid, offsets, self.network.semantics, sparsity)


@dataclass(slots=True, eq=False)
class Run:
    """The tensors of one execution, as they are stored."""

    network: Network
    values: dict[str, Any]
    forced: Mapping[str, Array] | None = None
    """What every operation reads in place of what was computed; None when the run is free."""
    steps: dict[str, Reals] | None = None
    """When asked for: every tensor with a grid before it was rounded, in steps of the grid (its tie is at a half)."""
    first: Mapping[str, Array] = field(default_factory=dict)
    """States of recurrent loops before their first step, where they are not zero, and rows of the piece before."""
    written: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        if self.forced is not None and name in self.forced and name in self.written:
            return self.forced[name]
        return self.values[name]

    def reals(self, name: str) -> Reals:
        """A tensor's reals, float64."""
        return self.network.reals(name, self[name])

    def codes(self, name: str, grid: Quantizer | None) -> Array:
        """A tensor on a grid, see `Network.on_grid`."""
        return self.network.on_grid(name, self[name], grid)

    def with_past(self, name: str, grid: Quantizer | None) -> Array:
        """The rows of a tensor that were kept of the piece before, if any, then those of this run, on a grid."""
        value, past = self.codes(name, grid), self.first.get(name)
        return value if past is None else np.concatenate([self.network.on_grid(name, past, grid), value])

    def put(self, name: str, value: Sums | Reals) -> None:
        """Store a result: codes by the grid of its tensor, if it has one, by the machine's rules for sums."""
        quantizer = self.network.grid(name)
        if quantizer is None:
            self.keep(name, value)
            return
        reals = value.values() if isinstance(value, Sums) else value
        codes = value.codes(quantizer) if isinstance(value, Sums) else quantizer.quantize(reals)
        self.keep(name, codes.astype(storage(quantizer)), reals)

    def put_integers(self, name: str, integers: Integers, scale: float) -> None:
        """Store integers of one scale: codes by the rules of the machine (`to_codes`), reals without a grid."""
        quantizer = self.network.grid(name)
        if quantizer is None:
            self.keep(name, integers * scale)
            return
        codes = to_codes(integers, scale, quantizer, self.network.semantics)
        before = None if self.steps is None else np.asarray(integers * scale, np.float64)
        self.keep(name, codes.astype(storage(quantizer)), before)

    def keep(self, name: str, value: Any, before: Reals | None = None) -> None:
        """Store a result as it is, in FP16 rounded to halves; `before` are the reals that were rounded to it."""
        dynamic = self.network.dynamic(name)
        if dynamic is not None and not isinstance(value, DynamicCodes):
            before = self.network.reals(name, value)
            value = DynamicCodes.of(dynamic, before)
        if self.network.halves(name) is not None:
            value = half_round(self.network.reals(name, value))
        self.values[name] = self.written[name] = value
        quantizer = self.network.grid(name)
        if self.steps is None or before is None:
            return
        if isinstance(value, DynamicCodes):
            self.steps[name] = before / value.scales
        elif quantizer is not None:
            self.steps[name] = before / quantizer.scale + quantizer.zero_point


class Operation(ABC):
    """An operation, or a whole recurrent loop, that is ready to run: it holds its packed parameters."""

    streams = True
    """Whether a frame depends on no frame after it (or after its chunk), and on a bounded number of those before."""
    exact = True
    """Whether a frame's result is bit for bit the same in a run of any number of frames."""
    chunk = 1
    """Frames that see each other: a piece that is not the last must be a multiple of them."""

    def __init__(self, layer: str, reads: tuple[str, ...], writes: tuple[str, ...]) -> None:
        self.layer = layer
        self.reads = reads
        """Activations and states that it reads."""
        self.writes = writes

    @abstractmethod
    def run(self, run: Run) -> None:
        """Read its tensors from `run` and store what it computes there."""

    def carries(self) -> dict[str, int]:
        """Tensors of which it reads rows of the piece before, and how many of the last."""
        return {}

    def parameters(self) -> dict[str, Array]:
        """Codes, or reals, of its parameters by name: what an equal one is built from."""
        return {}

    def projections(self) -> dict[str, AnyProjection]:
        """Its packed weights by name."""
        return {}


def same_codes(a: Quantizer, b: Quantizer) -> bool:
    """Whether codes of one are codes of the other: scale, zero point and range; how reals round may differ."""
    if a is b:
        return True
    alike = a.code_range == b.code_range and a.half_step == b.half_step and a.group_size == b.group_size
    return alike and np.array_equal(a.scale, b.scale) and np.array_equal(a.zero_point, b.zero_point)


def names(row: Row) -> tuple[str, ...]:
    """Names of the activations that a row reads."""
    return tuple(tensor.name for tensor in row.activations)
