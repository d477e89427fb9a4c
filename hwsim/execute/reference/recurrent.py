"""LSTM, GRU and plain recurrent layers: gate sums from integers, pointwise part by shared tables.

A layer is the weights, how their products become gate sums, and the pointwise functions. Where a policy leaves a
layer in floating point the projections are float and the same step runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from hwsim.errors import HwsimError
from hwsim.execute.reference.half import Halves
from hwsim.execute.reference.linear import linear_values
from hwsim.execute.semantics import TRAINING, Semantics
from hwsim.numerics.quantizers import Quantizer
from hwsim.numerics.rounding import Integers, Reals
from hwsim.numerics.tables import fixed_table

Activation = Callable[[Reals], Reals]


class Projection(Protocol):
    """What multiplies a layer's input or hidden state by its weights."""

    @property
    def outputs(self) -> int:
        """Number of gate sums of one row."""
        ...

    def __call__(self, x: Reals) -> Reals:
        """Gate sums (..., outputs) of rows (..., K) of reals on the input grid."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class IntegerProjection:
    """sum (x - zx)(w - zw) sx sw + bias, with the integer sum as the machine's accumulator holds it.

    `codes` (K, N) of `weights`; rows are quantized by `input` first, which for values on its grid is exact.
    """

    codes: Integers
    input: Quantizer
    weights: Quantizer
    bias: Reals | None = None
    semantics: Semantics = TRAINING

    @property
    def outputs(self) -> int:
        """N."""
        return int(self.codes.shape[1])

    def __call__(self, x: Reals) -> Reals:
        """Gate sums, float64 (..., N)."""
        return linear_values(self.input.quantize(x), self.codes, self.input, self.weights, self.bias, self.semantics)


@dataclass(frozen=True, slots=True, eq=False)
class FloatProjection:
    """x @ weight + bias in the precision of the weights (K, N), for layers that stay in floating point."""

    weight: Reals
    bias: Reals | None = None

    @property
    def outputs(self) -> int:
        """N."""
        return int(self.weight.shape[1])

    def __call__(self, x: Reals) -> Reals:
        """Gate sums (..., N)."""
        sums: Reals = x.astype(self.weight.dtype) @ self.weight
        return sums if self.bias is None else sums + self.bias


@dataclass(frozen=True, slots=True, eq=False)
class Pointwise:
    """The functions between the gate sums and the states.

    `sigmoid`, `tanh`: Q3.12 to Q0.15 tables unless told otherwise. `hidden`: quantizer of what leaves the cell and
    meets the recurrent weights; `cell`: quantizer of the cell state, such as int16 with a scale of 2^-11. `Halves`
    keeps a state in FP16, None leaves it in float64.
    """

    sigmoid: Activation = field(default_factory=lambda: fixed_table("sigmoid"))
    tanh: Activation = field(default_factory=lambda: fixed_table("tanh"))
    hidden: Quantizer | Halves | None = None
    cell: Quantizer | Halves | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LstmLayer:
    """One direction of an LSTM layer of H cells.

    gates = input(x) + recurrent(h), (rows, 4H) in the order of `gate_order` (`ifgo` in PyTorch and TensorFlow's
    kernels, `iofg` in ONNX); c' = Q_c(sigmoid(f) c + sigmoid(i) tanh(g)); h' = Q_h(sigmoid(o) tanh(c')).
    `peephole`: (3, H) for i, o, f, times c, c', c, added to those gates; None for none.
    """

    input: Projection
    recurrent: Projection
    pointwise: Pointwise
    gate_order: str = "ifgo"
    peephole: Reals | None = None

    def __post_init__(self) -> None:
        if sorted(self.gate_order) != sorted("ifgo"):
            raise HwsimError(f"gate_order must hold i, f, g and o once each, got {self.gate_order}")
        _check_outputs(self.input, self.recurrent, 4)

    @property
    def cells(self) -> int:
        """H."""
        return self.input.outputs // 4

    def states(self, rows: int) -> tuple[Reals, ...]:
        """Zero h and c, (rows, H) each."""
        return np.zeros((rows, self.cells)), np.zeros((rows, self.cells))

    def step(self, sums: Reals, states: tuple[Reals, ...]) -> tuple[Reals, ...]:
        """The next (h, c), from the input's gate sums (rows, 4H) and the states before."""
        h, c = states
        parts = np.split(sums + self.recurrent(h), 4, axis=-1)
        i, f, g, o = (parts[self.gate_order.index(gate)] for gate in "ifgo")
        sigmoid, tanh = self.pointwise.sigmoid, self.pointwise.tanh
        peephole_i, peephole_o, peephole_f = (0.0, 0.0, 0.0) if self.peephole is None else self.peephole
        c = _on_grid(sigmoid(f + peephole_f * c) * c + sigmoid(i + peephole_i * c) * tanh(g), self.pointwise.cell)
        h = _on_grid(sigmoid(o + peephole_o * c) * tanh(c), self.pointwise.hidden)
        return h, c


@dataclass(frozen=True, slots=True, eq=False)
class GruLayer:
    """One direction of a GRU layer of H cells.

    z = sigmoid(x_z + h_z), r = sigmoid(x_r + h_r), n = tanh(x_n + r h_n), h' = Q_h((1 - z) n + z h), where x_* are
    gate sums of the input and h_* of the hidden state, in the order of `gate_order` (`rzn` in PyTorch, `zrn` in
    ONNX). `reset_after` False multiplies before the matrix, h_n = recurrent_n(Q_h(r h)), with `recurrent_n`
    (H -> H) apart and no h_n in `recurrent`, which then gives 2H sums.
    """

    input: Projection
    recurrent: Projection
    pointwise: Pointwise
    gate_order: str = "rzn"
    recurrent_n: Projection | None = None

    def __post_init__(self) -> None:
        if sorted(self.gate_order) != sorted("rzn"):
            raise HwsimError(f"gate_order must hold r, z and n once each, got {self.gate_order}")
        if self.recurrent_n is None:
            _check_outputs(self.input, self.recurrent, 3)
        elif self.gate_order[-1] != "n":
            raise HwsimError(f"gate_order must end in n with recurrent_n, got {self.gate_order}")

    @property
    def cells(self) -> int:
        """H."""
        return self.input.outputs // 3

    def states(self, rows: int) -> tuple[Reals, ...]:
        """Zero h, (rows, H)."""
        return (np.zeros((rows, self.cells)),)

    def step(self, sums: Reals, states: tuple[Reals, ...]) -> tuple[Reals, ...]:
        """The next (h,), from the input's gate sums (rows, 3H) and the state before."""
        (h,) = states
        sigmoid, tanh = self.pointwise.sigmoid, self.pointwise.tanh
        x = dict(zip(self.gate_order, np.split(sums, 3, axis=-1), strict=True))
        gates = self.gate_order if self.recurrent_n is None else self.gate_order[:2]
        y = dict(zip(gates, np.split(self.recurrent(h), len(gates), axis=-1), strict=True))
        r, z = sigmoid(x["r"] + y["r"]), sigmoid(x["z"] + y["z"])
        if self.recurrent_n is None:
            n = tanh(x["n"] + r * y["n"])
        else:
            n = tanh(x["n"] + self.recurrent_n(_on_grid(r * h, self.pointwise.hidden)))
        return (_on_grid((1 - z) * n + z * h, self.pointwise.hidden),)


@dataclass(frozen=True, slots=True, eq=False)
class RnnLayer:
    """One direction of a plain recurrent layer: h' = Q_h(tanh(input(x) + recurrent(h)))."""

    input: Projection
    recurrent: Projection
    pointwise: Pointwise

    def __post_init__(self) -> None:
        _check_outputs(self.input, self.recurrent, 1)

    def states(self, rows: int) -> tuple[Reals, ...]:
        """Zero h, (rows, H)."""
        return (np.zeros((rows, self.input.outputs)),)

    def step(self, sums: Reals, states: tuple[Reals, ...]) -> tuple[Reals, ...]:
        """The next (h,), from the input's sums (rows, H) and the state before."""
        (h,) = states
        return (_on_grid(self.pointwise.tanh(sums + self.recurrent(h)), self.pointwise.hidden),)


Layer = LstmLayer | GruLayer | RnnLayer


def run_layer(
    layer: Layer, x: ArrayLike, states: tuple[Reals, ...] | None = None, reverse: bool = False
) -> tuple[Reals, tuple[Reals, ...]]:
    """Outputs (T, rows, H) and last states of a layer over `x` (T, rows, K), values on the input grid.

    `reverse` runs from the last step to the first; the outputs stay in the order of time. The outputs are values;
    `layer.pointwise.hidden.quantize` gives their codes, exactly.
    """
    values = np.asarray(x, np.float64)
    if values.ndim != 3:
        raise HwsimError(f"x must be (T, rows, K), got {values.shape}")
    sums = layer.input(values)
    current = states or layer.states(values.shape[1])
    outputs = np.zeros((*values.shape[:2], current[0].shape[-1]))
    for t in range(len(values))[:: -1 if reverse else 1]:
        current = layer.step(sums[t], current)
        outputs[t] = current[0]
    return outputs, current


def run_bidirectional(forward: Layer, backward: Layer, x: ArrayLike) -> Reals:
    """Outputs (T, rows, 2H) of a bidirectional layer: forward beside backward."""
    return np.concatenate([run_layer(forward, x)[0], run_layer(backward, x, reverse=True)[0]], axis=-1)


def with_semantics(layer: LstmLayer, semantics: Semantics) -> LstmLayer:
    """The layer with its integer projections run by other rules."""
    if not isinstance(layer.input, IntegerProjection) or not isinstance(layer.recurrent, IntegerProjection):
        raise HwsimError("semantics must be set on a layer of integer projections")
    return replace(
        layer,
        input=replace(layer.input, semantics=semantics),
        recurrent=replace(layer.recurrent, semantics=semantics),
    )


def _on_grid(x: Reals, quantizer: Quantizer | Halves | None) -> Reals:
    return x if quantizer is None else quantizer.fake_quantize(x)


def _check_outputs(first: Projection, second: Projection, gates: int) -> None:
    if first.outputs != second.outputs or first.outputs % gates:
        raise HwsimError(f"projections must give {gates} H sums each, got {first.outputs} and {second.outputs}")
