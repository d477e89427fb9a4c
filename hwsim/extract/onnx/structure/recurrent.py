"""LSTM and GRU layers of one or two directions, in ONNX's order of gates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.extract.graph.nodes import NodeKind
from hwsim.extract.onnx.graph import Node
from hwsim.extract.onnx.structure.constant import Constant, Grid
from hwsim.extract.onnx.structure.draft import Draft
from hwsim.extract.onnx.structure.grids import float_format

Array = npt.NDArray[Any]
PREFIXES = {"bidirectional": ("forward_", "backward_")}
LSTM_GATES, GRU_GATES = "iofc", "zrh"


@dataclass(frozen=True, slots=True)
class Cell:
    """What differs between the two: kind, gates and their order, functions of a direction, states, peepholes."""

    kind: NodeKind
    gates: str
    functions: tuple[str, ...]
    states: tuple[int, ...]


LSTM_CELL = Cell(NodeKind.LSTM, LSTM_GATES, ("Sigmoid", "Tanh", "Tanh"), (5, 6))
GRU_CELL = Cell(NodeKind.GRU, GRU_GATES, ("Sigmoid", "Tanh"), (5,))


def lstm(draft: Draft, node: Node) -> None:
    """LSTM."""
    layer(draft, node, LSTM_CELL, draft.need_constant(node, 1, "W"), draft.need_constant(node, 2, "R"))


def gru(draft: Draft, node: Node) -> None:
    """GRU."""
    layer(draft, node, GRU_CELL, draft.need_constant(node, 1, "W"), draft.need_constant(node, 2, "R"))


def layer(draft: Draft, node: Node, cell: Cell, w: Constant, r: Constant) -> None:
    """A layer whose weights are (directions, gates cells, inputs) and (directions, gates cells, cells)."""
    prefixes = PREFIXES.get(node.attributes.get("direction", "forward"), ("",))
    shape = draft.type(node, 0).shape
    steps, batch = (shape[1], shape[0]) if node.attributes.get("layout", 0) else shape[:2]
    gates, cells = len(cell.gates), int(node.attributes.get("hidden_size", r.shape[-1]))
    if r.shape != (len(prefixes), gates * cells, cells) or w.shape != (len(prefixes), gates * cells, shape[2]):
        raise node.refuse(f"must have W and R of {len(prefixes)} directions and {gates * cells} rows for "
                          f"{shape[2]} inputs, got {w.shape} and {r.shape}")  # fmt: skip
    _check(draft, node, cell, len(prefixes))
    weights: dict[str, str | None] = {}
    for at, prefix in enumerate(prefixes):
        many = len(prefixes) > 1
        weights[f"{prefix}wx"] = _matrix(draft, node, w, at, f"{prefix}wx" if many else "")
        weights[f"{prefix}wh"] = _matrix(draft, node, r, at, f"{prefix}wh" if many else "")
        for part, name in _biases(draft, node, at, prefix, gates * cells):
            weights[part] = name
    more: dict[str, Any] = {} if cell.kind == NodeKind.LSTM else {
        "linear_before_reset": bool(node.attributes.get("linear_before_reset", 0))}  # fmt: skip
    if node.attributes.get("direction") == "reverse":
        more["reverse"] = True
    draft.emit(
        cell.kind, node, [draft.reference(node, 0).value, *_states(draft, node, cell)], _outputs(draft, node), weights,
        input_format=float_format(draft, node, 0), steps=steps, batch=batch, inputs=shape[2], cells=cells,
        directions=len(prefixes), projection=0, gate_order=cell.gates, **more,
    )  # fmt: skip


def _outputs(draft: Draft, node: Node) -> list[str]:
    """The sequence, then final states that somebody reads."""
    shown = set(draft.resolved.outputs)
    states = [name if name in draft.consumers or name in shown else "" for name in node.outputs[1:]]
    while states and not states[-1]:
        states.pop()
    if node.output(0):
        return [node.outputs[0], *states]
    shape, directions = draft.type(node, 0), 2 if node.attributes.get("direction") == "bidirectional" else 1
    hidden = (*shape.shape[:2], directions, int(node.attributes["hidden_size"]))
    sizes = hidden if node.attributes.get("layout", 0) else (hidden[0], hidden[2], hidden[1], hidden[3])
    name = f"{node.name}:Y"
    draft.declare(name, shape.dtype, sizes)
    return [name, *states]


def _states(draft: Draft, node: Node, cell: Cell) -> list[str]:
    """Initial states that are computed; constant ones are zeros, or written down."""
    found = []
    for at in cell.states:
        constant = draft.constant(node, at)
        if constant is not None:
            draft.fold(constant)
            if constant.reals().any():
                draft.note(f"{node.name}: starts from a constant state '{constant.name}'")
        elif node.input(at):
            found.append(draft.reference(node, at).value)
    return found


def _check(draft: Draft, node: Node, cell: Cell, directions: int) -> None:
    """Raises HwsimError for peepholes, other functions and coupled gates."""
    wanted = list(cell.functions) * directions
    given = [name.capitalize() for name in node.attributes.get("activations") or wanted]
    if given != wanted:
        raise node.refuse(f"must have the activations {', '.join(cell.functions)}, got {', '.join(given)}")
    if node.attributes.get("input_forget", 0):
        raise node.refuse("must have gates of their own for input and forget, got input_forget=1")
    peepholes = draft.constant(node, 7)
    if cell.kind == NodeKind.LSTM and node.input(7):
        if peepholes is None or peepholes.reals().any():
            raise node.refuse("must have no peepholes")
        draft.fold(peepholes)
    if node.attributes.get("clip"):
        draft.note(f"{node.name}: its clip of {node.attributes['clip']:g} is part of the layer")
    if node.input(4):
        draft.fold(draft.constant(node, 4))
        draft.note(f"{node.name}: its lengths '{node.input(4)}' are not read, it runs all its steps")


def _matrix(draft: Draft, node: Node, constant: Constant, at: int, part: str) -> str:
    """One direction as (inputs, gates cells)."""
    own = direction(constant, at)
    return draft.weight(node, own, (constant.shape[2], constant.shape[1]), channel=1, depth=2, part=part,
                        load=_slice(constant, at) if part else None)  # fmt: skip


def direction(constant: Constant, at: int) -> Constant:
    """A constant whose grid is that of one direction; its first axis is the directions."""
    grid = constant.grid
    if grid is None or grid.scale.size == 1 or constant.shape[0] == 1:
        return constant
    return replace(constant, grid=_own_grid(grid, at, constant.shape[0]))


def _own_grid(grid: Grid, at: int, directions: int) -> Grid:
    scale, zero = (None if each is None or each.size == 1 or len(each) != directions else each[at]
                   for each in (grid.scale, grid.zero))  # fmt: skip
    along = None if grid.along == 0 else grid.along
    return replace(grid, scale=grid.scale if scale is None else scale, zero=grid.zero if zero is None else zero,
                   along=along, axis=None if along is None else grid.axis)  # fmt: skip


def _biases(draft: Draft, node: Node, at: int, prefix: str, columns: int) -> list[tuple[str, str | None]]:
    """Both biases of a direction, out of one constant (directions, 2 gates cells); none if the file has none."""
    stored = draft.constant(node, 3)
    if stored is None:
        if node.input(3):
            raise node.refuse(f"must have a constant bias, got '{node.input(3)}'")
        return []
    if not stored.sources and not stored.reals().any():
        return []
    found: list[tuple[str, str | None]] = []
    for half, part in enumerate(("bias_x", "bias_h")):
        load = _slice(stored, at, slice(half * columns, (half + 1) * columns))
        name = draft.weight(node, direction(stored, at), (columns,), part=f"{prefix}{part}", load=load)
        found.append((f"{prefix}{part}", name))
    return found


def _slice(constant: Constant, at: int, columns: slice = slice(None)) -> Callable[[], Array]:
    return lambda: np.asarray(constant.read()[at][columns])
