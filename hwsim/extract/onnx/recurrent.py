"""LSTM and GRU layers over a sequence: weights by direction, in ONNX's order of gates or in the executor's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwsim.extract.gru import GruLayer
from hwsim.extract.lstm import LstmLayer
from hwsim.extract.onnx.constants import Constant, as_reals
from hwsim.extract.onnx.draft import Activation, Draft, Part
from hwsim.extract.onnx.graph import Node
from hwsim.extract.onnx.grids import common_grid
from hwsim.extract.onnx.layout import Layout
from hwsim.extract.onnx.product import number_format, signed_codes
from hwsim.numerics.rounding import Reals

LSTM_GATES = "iofg"
"""ONNX's order, i, o, f and the cell gate, in which the weights stay."""
GRU_ORDER = (1, 0, 2)
"""Reset, update, new: the executor's order, from ONNX's update, reset, new."""


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """One direction: (K, gates cells) and (cells, gates cells), biases of the same columns."""

    wx: Constant
    wh: Constant
    bias_x: Reals
    bias_h: Reals


def lstm(draft: Draft, node: Node) -> None:
    """An LSTM layer of one or two directions, from zero states, with sigmoid and tanh."""
    _plain(draft, node, ("Sigmoid", "Tanh", "Tanh"), initial=(5, 6))
    for name in ("input_forget",):
        if node.attributes.get(name, 0):
            raise node.refuse(f"must have {name}=0, got {node.attributes[name]}")
    peephole = draft.constant(node, 7)
    if node.input(7) and (peephole is None or as_reals(peephole).any()):
        raise node.refuse("must have no peepholes")
    draft.gate_order = LSTM_GATES
    _layer(draft, node, LstmLayer, [_direction(draft, node, at, 4, None) for at in range(_directions(node))])


def gru(draft: Draft, node: Node) -> None:
    """A GRU layer of one or two directions, from zero states, whose reset gate follows the product."""
    _plain(draft, node, ("Sigmoid", "Tanh"), initial=(5,))
    if not node.attributes.get("linear_before_reset", 0):
        raise node.refuse("must have linear_before_reset=1, as PyTorch exports it, got 0: a reset gate before the "
                          "recurrent product is not executed")  # fmt: skip
    draft.note("GRU: gates are put in the order reset, update, new")
    _layer(draft, node, GruLayer, [_direction(draft, node, at, 3, GRU_ORDER) for at in range(_directions(node))])


def _layer(draft: Draft, node: Node, kind: type[LstmLayer] | type[GruLayer], weights: list[Weights]) -> None:
    x, b = draft.activation(node, 0), draft.builder
    rows_axis, batch_axis = (1, 0) if node.attributes.get("layout", 0) else (0, 1)
    shape = x.layout.shape
    inputs, cells = weights[0].wx.array.shape[0], weights[0].wh.array.shape[0]
    fits = (
        len(shape) == 3 and x.layout.column_axis == 2 and shape[2] == inputs and x.layout.row_axis in (rows_axis, None)
    )
    if not fits or shape[batch_axis] != 1:
        raise node.refuse(f"must read a batch of one, with {inputs} columns and its frames in axis {rows_axis}, "
                          f"got {shape}")  # fmt: skip
    branches = _branches(node)
    layers = []
    for (branch, prefix), own in zip(branches, weights, strict=True):
        layer = kind.declare(b, node.layer, inputs, cells, x.rows, prefix=prefix, steps=True)
        _store(draft, node, f"{node.layer}.{prefix}", own, x)
        layer.project_input(b, x.tensors, x.rows, branch)
        layers.append((layer, branch))
    with b.loop(x.rows):
        for layer, branch in layers:
            layer.step(b, 1, branch)
    _finish(draft, node, x, cells, [(layer.h, f"{node.layer}.{prefix}h")
                                    for (layer, _), (_, prefix) in zip(layers, branches, strict=True)])  # fmt: skip


def _finish(draft: Draft, node: Node, x: Activation, cells: int, hidden: list[tuple[int, str]]) -> None:
    """Say what Y is, and that no other output is read."""
    for at, what in ((1, "last hidden state"), (2, "last cell state")):
        name = node.output(at)
        if name and name in draft.graph.consumers:
            raise node.refuse(f"must have a {what} '{name}' that no node reads: states of a sequence are not read")
        if name and name in draft.graph.outputs:
            draft.note(f"{node.layer}: the output '{name}', its {what}, is not compared")
    if not node.output(0):
        return
    count = len(hidden)
    cut = ((1,), (), (2,)) if count == 2 else ((), (), (1,))
    batch_first = bool(node.attributes.get("layout", 0))
    axes = ((), (0,), cut[0], cut[2]) if batch_first else ((0,), *cut)
    sizes = (x.rows, count, cells) if count == 2 else (x.rows, cells)
    parts = tuple(Part(index, name, cells) for index, name in hidden)
    draft.computed(node.outputs[0], Activation(Layout(axes, sizes), parts))


def _store(draft: Draft, node: Node, name: str, weights: Weights, x: Activation) -> None:
    """Codes of the input's weights if x has a grid, else reals; reals of the recurrent ones, whose h has none."""
    met = common_grid(draft, x)
    wx = signed_codes(weights.wx)
    grid = wx.grid()
    if grid is not None and met is not None:
        draft.codes[f"{name}wx"], draft.quantizers[f"{name}wx"] = wx.array.astype(np.int64), grid
    else:
        draft.codes[f"{name}wx"] = as_reals(wx)
    draft.codes[f"{name}wh"] = as_reals(weights.wh)
    draft.codes |= {f"{name}bias_x": weights.bias_x, f"{name}bias_h": weights.bias_h}
    for part, constant in (("wx", wx), ("wh", signed_codes(weights.wh))):
        own = constant.grid()
        if own is not None:
            draft.formats[f"{name}{part}"] = number_format(own)
    draft.input_formats[node.layer] = "fp32"
    for constant in (weights.wx, weights.wh):
        draft.read_weight(constant.source, node)
    draft.note(f"{node.layer}: its recurrent product and its states are computed in reals, as in the file")


def _direction(draft: Draft, node: Node, at: int, gates: int, order: tuple[int, ...] | None) -> Weights:
    wx, wh = (draft.need_constant(node, i, what).at(at).transposed() for i, what in ((1, "W"), (2, "R")))
    cells = int(node.attributes.get("hidden_size", wh.array.shape[0]))
    if wh.array.shape != (cells, gates * cells) or wx.array.shape[1] != gates * cells:
        raise node.refuse(f"must have W and R of {gates} x {cells} rows, got {wx.array.shape[1]} "
                          f"and {wh.array.shape[1]}")  # fmt: skip
    stored = draft.constant(node, 3)
    if node.input(3) and stored is None:
        raise node.refuse(f"must have a constant bias, got '{node.input(3)}'")
    bias = np.zeros(2 * gates * cells) if stored is None else as_reals(stored)[at]
    bias_x, bias_h = np.split(bias, 2)
    if order is None:
        return Weights(wx, wh, bias_x, bias_h)
    columns: npt.NDArray[np.int64] = np.concatenate([np.arange(cells) + gate * cells for gate in order])
    return Weights(wx.columns(columns), wh.columns(columns), bias_x[columns], bias_h[columns])


def _plain(draft: Draft, node: Node, functions: tuple[str, ...], initial: tuple[int, ...]) -> None:
    """Raises HwsimError for what the executor's layers have not: clips, other functions, states that are given."""
    wanted = list(functions) * _directions(node)
    given = [name.capitalize() for name in node.attributes.get("activations", wanted)]
    if given != wanted:
        raise node.refuse(f"must have the activations {', '.join(functions)}, got {', '.join(given)}")
    if node.attributes.get("clip"):
        raise node.refuse(f"must have no clip, got {node.attributes['clip']:g}")
    lengths = draft.constant(node, 4)
    frames = draft.activation(node, 0).rows
    if node.input(4) and (lengths is None or (lengths.array != frames).any()):
        raise node.refuse(f"must run over all {frames} frames, got the lengths '{node.input(4)}'")
    for at in initial:
        state = draft.constant(node, at)
        if node.input(at) and (state is None or as_reals(state).any()):
            raise node.refuse(f"must start from zero states, got '{node.input(at)}'")


def _directions(node: Node) -> int:
    return len(_branches(node))


def _branches(node: Node) -> tuple[tuple[int, str], ...]:
    """Branch and prefix of each direction; branch 1 runs from the last frame to the first."""
    match node.attributes.get("direction", "forward"):
        case "bidirectional":
            return (0, "forward_"), (1, "backward_")
        case "reverse":
            return ((1, "backward_"),)
        case _:
            return ((0, ""),)
