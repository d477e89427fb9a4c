"""LSTM and GRU modules as operations."""

from __future__ import annotations

from hwsim.errors import HwsimError
from hwsim.extract.gru import GruLayer
from hwsim.extract.lstm import LstmLayer
from hwsim.train.draft import Draft
from hwsim.train.recurrent import QuantGRU, QuantLSTM


def recurrent(draft: Draft, name: str, part: QuantLSTM | QuantGRU) -> None:
    """Layers over whole utterances: the input's products at once, then a loop over the steps."""
    kind = LstmLayer if isinstance(part, QuantLSTM) else GruLayer
    if isinstance(part, QuantLSTM):
        _gate_order(draft, name, part)
    if draft.x and part.dense_inputs and part.input_grid is not None:
        raise HwsimError(f"{name}: input must be none with dense_inputs but in the first module of a network")
    draft.start(name, f"{name}.layer0", part.inputs, part.input_grid)
    draft.expect(name, part.inputs)
    b, first = draft.builder, draft.x
    directions = {"forward_": "", "backward_": "_reverse"} if part.bidirectional else {"": ""}
    for layer in range(part.layers):
        title = f"{name}.layer{layer}"
        declared = [kind.declare(b, title, part.width(layer), part.cells, draft.frames, prefix=prefix, steps=True)
                    for prefix in directions]  # fmt: skip
        x = [*first, *draft.x] if layer and part.dense_inputs else draft.x
        for branch, (prefix, direction) in enumerate(zip(directions, declared, strict=True)):
            _fill(draft, f"{title}.{prefix}", part, layer, directions[prefix])
            direction.project_input(b, x, draft.frames, branch)
        with b.loop(draft.frames):
            for branch, direction in enumerate(declared):
                direction.step(b, 1, branch)
        draft.x, draft.width = [direction.h for direction in declared], part.cells * len(declared)


def recurrent_step(draft: Draft, name: str, part: QuantLSTM | QuantGRU) -> None:
    """Layers as one step of `draft.frames` hypotheses: states are read and written anew."""
    if part.bidirectional or part.dense_inputs:
        raise HwsimError(f"{name}: a recurrent layer of one step must have one direction and no dense_inputs")
    kind = LstmLayer if isinstance(part, QuantLSTM) else GruLayer
    if isinstance(part, QuantLSTM):
        _gate_order(draft, name, part)
    draft.expect(name, part.inputs)
    for layer in range(part.layers):
        title = f"{name}.layer{layer}"
        declared = kind.declare(draft.builder, title, part.width(layer), part.cells, draft.frames)
        _fill(draft, f"{title}.", part, layer, "")
        declared.project_input(draft.builder, draft.x, draft.frames)
        declared.step(draft.builder, draft.frames)
        draft.x, draft.width = [declared.h], part.cells


def _gate_order(draft: Draft, name: str, part: QuantLSTM) -> None:
    if draft.gate_order not in ("", part.gate_order):
        raise HwsimError(f"{name}: gate orders must be the same in all modules, got {part.gate_order}")
    draft.gate_order = part.gate_order


def _fill(draft: Draft, name: str, part: QuantLSTM | QuantGRU, layer: int, suffix: str) -> None:
    """Codes and grids of one direction of a layer."""
    draft.weight(f"{name}wx", part.parameter("weight_ih", layer, suffix), part.weight_grid)
    draft.weight(f"{name}wh", part.parameter("weight_hh", layer, suffix), part.weight_grid)
    draft.product_input(f"{name}wx", part.layer_grid(layer))
    for ours, theirs in (("bias_x", "bias_ih"), ("bias_h", "bias_hh")):
        draft.reals(f"{name}{ours}", part.parameter(theirs, layer, suffix))
    draft.activation(f"{name}h", part.hidden_grid)
    if isinstance(part, QuantLSTM):
        draft.activation(f"{name}c", part.cell)
