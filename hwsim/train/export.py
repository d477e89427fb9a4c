"""From a trained module to an executable trace: its operations, its codes and its grids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from hwsim.errors import HwsimError
from hwsim.execute.executor import Executable
from hwsim.execute.operations.base import INPUT
from hwsim.execute.recurrence import LstmRules
from hwsim.extract.lstm import LstmLayer
from hwsim.numerics.quantizers import Quantizer
from hwsim.trace import Kind, Role, Trace, TraceBuilder
from hwsim.trace.builder import Operand
from hwsim.train.modules import Grid, QuantEmbedding, QuantLinear, QuantLSTM, named_parts
from hwsim.train.quantizers import FakeQuantizer, precision_of


@dataclass(slots=True)
class _Draft:
    """A trace that is being built, with what its tensors hold."""

    builder: TraceBuilder
    frames: int
    codes: dict[str, Any] = field(default_factory=dict)
    quantizers: dict[str, Quantizer] = field(default_factory=dict)
    grids: dict[str, Quantizer | None] = field(default_factory=dict)
    x: list[tuple[int, str]] = field(default_factory=list)
    gate_order: str = ""

    def weight(self, name: str, value: Tensor, grid: FakeQuantizer | None) -> None:
        """Codes of a weight (K, N) with its grid, or its reals."""
        reals = value.detach().cpu().double().numpy()
        if grid is None:
            self.codes[name] = reals
            return
        quantizer = replace(grid.quantizer(value), precision=precision_of(value))
        codes = quantizer.quantize(reals)
        self.codes[name] = codes.astype(np.int8) if quantizer.bits <= 8 else codes
        self.quantizers[name] = quantizer

    def activation(self, name: str, quantizer: Quantizer | None) -> None:
        """The grid of an activation, if it has one."""
        self.grids[name] = quantizer
        if quantizer is not None:
            self.quantizers[name] = quantizer

    def product_input(self, weight: str, grid: Grid | None) -> None:
        """The grid on which a product takes x, where that is not the one x is stored on."""
        if grid is not None and weight in self.quantizers:
            self.quantizers[weight + INPUT] = grid.quantizer()

    def start(self, name: str, layer: str, width: int, grid: Grid | None) -> None:
        """Declare the network's input for its first module."""
        if self.x:
            return
        index = self.builder.tensor(name, Role.ACTIVATION, (self.frames, width), layer)
        self.x = [(index, name)]
        self.activation(name, None if grid is None else grid.quantizer())


@dataclass(frozen=True, slots=True, eq=False)
class Converted:
    """A network as a trace, the codes (or reals) of its parameters, and its grids: what an `Executable` is made of."""

    trace: Trace
    codes: dict[str, Any]
    quantizers: dict[str, Quantizer]
    rules: LstmRules

    def executable(self) -> Executable:
        """Packed, ready to run."""
        return Executable(self.trace, self.codes, self.quantizers, rules=self.rules)


def export(module: nn.Module, frames: int, name: str = "network") -> Executable:
    """The executable of `convert`, whose arguments these are."""
    return convert(module, frames, name).executable()


def convert(module: nn.Module, frames: int, name: str = "network") -> Converted:
    """The trace, codes and grids of a network for utterances of `frames` steps.

    `module`: a `QuantLSTM`, `QuantLinear` or `QuantEmbedding`, or an `nn.Sequential` of them with names, which become
    layer names: `encoder` gives `encoder.layer0.forward_wx` and so on, as the catalogue's networks have them. The
    input is `<first>.input.features` (frames, K), or `<first>.labels` (frames,) of an embedding. Weights have
    the codes that the module's own precision gives them, activations float64 grids: convert `module.double()` for T1.
    Raises HwsimError for other modules, and for grids that were never calibrated.
    """
    if frames < 1:
        raise HwsimError(f"frames must be at least 1, got {frames}")
    draft = _Draft(TraceBuilder(name, {"frames": frames}), frames)
    for title, part in named_parts(module, name):
        emit: dict[type, Callable[..., None]] = {QuantEmbedding: _embedding, QuantLSTM: _lstm, QuantLinear: _linear}
        emit[type(part)](draft, title, part)
    rules = LstmRules(gate_order=draft.gate_order or "ifgo")
    return Converted(draft.builder.build(), draft.codes, draft.quantizers, rules)


def _embedding(draft: _Draft, name: str, part: QuantEmbedding) -> None:
    labels, size = part.weight.shape
    b = draft.builder
    if draft.x:
        raise HwsimError(f"{name}: an embedding must be the first module")
    index = b.tensor(f"{name}.labels", Role.STATE, (draft.frames,), name)
    table = b.tensor(f"{name}.table", Role.WEIGHT, (labels, size), name)
    row = b.tensor(f"{name}.row", Role.ACTIVATION, (draft.frames, size), name)
    draft.weight(f"{name}.table", part.weight, part.weight_grid)
    draft.activation(f"{name}.row", draft.quantizers.get(f"{name}.table"))
    b.op(Kind.LOOKUP, name, [Operand(table, size), Operand(index, 1)], [Operand(row, size)], m=draft.frames, n=size)
    draft.x = [(row, f"{name}.row")]


def _lstm(draft: _Draft, name: str, part: QuantLSTM) -> None:
    if draft.gate_order not in ("", part.gate_order):
        raise HwsimError(f"{name}: gate orders must be the same in all modules, got {part.gate_order}")
    draft.gate_order = part.gate_order
    draft.start(f"{name}.input.features", f"{name}.layer0", part.inputs, part.input_grid)
    b, hidden = draft.builder, None if part.hidden_grid is None else part.hidden_grid.quantizer()
    directions = {"forward_": "", "backward_": "_reverse"} if part.bidirectional else {"": ""}
    for layer in range(part.layers):
        width = part.inputs if layer == 0 else part.cells * len(directions)
        title = f"{name}.layer{layer}"
        lstms = [LstmLayer.declare(b, title, width, part.cells, draft.frames, prefix=d, steps=True) for d in directions]
        for branch, (prefix, lstm) in enumerate(zip(directions, lstms, strict=True)):
            _direction(draft, f"{title}.{prefix}", part, layer, directions[prefix])
            lstm.project_input(b, [index for index, _ in draft.x], draft.frames, branch)
            draft.activation(f"{title}.{prefix}h", hidden)
            if part.cell is not None:
                draft.quantizers[f"{title}.{prefix}c"] = part.cell
        with b.loop(draft.frames):
            for branch, lstm in enumerate(lstms):
                lstm.step(b, 1, branch)
        draft.x = [(lstm.h, f"{title}.{prefix}h") for prefix, lstm in zip(directions, lstms, strict=True)]


def _direction(draft: _Draft, name: str, part: QuantLSTM, layer: int, suffix: str) -> None:
    draft.weight(f"{name}wx", part.parameter("weight_ih", layer, suffix), part.weight_grid)
    draft.weight(f"{name}wh", part.parameter("weight_hh", layer, suffix), part.weight_grid)
    draft.product_input(f"{name}wx", part.layer_grid(layer))
    for ours, theirs in (("bias_x", "bias_ih"), ("bias_h", "bias_hh")):
        draft.codes[f"{name}{ours}"] = part.parameter(theirs, layer, suffix).detach().cpu().double().numpy()


def _linear(draft: _Draft, name: str, part: QuantLinear) -> None:
    outputs, inputs = part.weight.shape
    draft.start(f"{name}.input.features", name, inputs, part.input_grid)
    b = draft.builder
    weight = b.tensor(f"{name}.weight", Role.WEIGHT, (inputs, outputs), name)
    draft.weight(f"{name}.weight", part.weight.T, part.weight_grid)
    draft.product_input(f"{name}.weight", part.input_grid)
    bias = None
    if part.bias is not None:
        bias = b.tensor(f"{name}.bias", Role.BIAS, (outputs,), name)
        draft.codes[f"{name}.bias"] = part.bias.detach().cpu().double().numpy()
    grid = None if part.output_grid is None else part.output_grid.quantizer()
    out = b.tensor(f"{name}.out", Role.STATE if grid is None else Role.ACTIVATION, (draft.frames, outputs), name)
    draft.activation(f"{name}.out", grid)
    b.matmul(name, [index for index, _ in draft.x], weight, out, m=draft.frames, bias=bias)
    draft.x = [(out, f"{name}.out")]
