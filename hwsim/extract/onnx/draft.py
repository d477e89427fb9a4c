"""A trace that is being built from a graph: what each value of the graph is, and what its tensors hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.extract.onnx.constants import Constant, Constants
from hwsim.extract.onnx.graph import Graph, Node, unique
from hwsim.extract.onnx.layout import Layout, View
from hwsim.numerics.quantizers import Quantizer
from hwsim.trace import Role, TraceBuilder

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor of the trace with its columns."""

    index: int
    name: str
    columns: int


@dataclass(frozen=True, slots=True)
class Activation:
    """A value of the graph: tensors of the trace beside each other, and how they lie in it.

    `codes`: whether the value holds the codes themselves. `open`: whether a QuantizeLinear that reads it may become
    the grid of its tensor, because nothing else reads the reals. `labels`: whether it holds indices into a table.
    """

    layout: Layout
    parts: tuple[Part, ...]
    codes: bool = False
    open: bool = False
    labels: bool = False

    @property
    def rows(self) -> int:
        """Rows of the tensors."""
        return self.layout.rows

    @property
    def tensors(self) -> tuple[int, ...]:
        """Indices of the tensors."""
        return tuple(part.index for part in self.parts)


@dataclass(slots=True)
class Draft:
    """The trace, codes and grids so far, the values of the graph by name, and what was assumed."""

    builder: TraceBuilder
    graph: Graph
    constants: Constants
    exact_sums: bool = False
    """Whether the machine rounds sums by one multiplier, as QLinear operators do."""
    values: dict[str, Activation] = field(default_factory=dict)
    codes: dict[str, Array] = field(default_factory=dict)
    quantizers: dict[str, Quantizer] = field(default_factory=dict)
    views: dict[str, View] = field(default_factory=dict)
    entries: dict[str, View] = field(default_factory=dict)
    """How the tensor of a graph input lies in it, by the input's name."""
    formats: dict[str, str] = field(default_factory=dict)
    input_formats: dict[str, str] = field(default_factory=dict)
    tables: dict[str, str] = field(default_factory=dict)
    """The table of codes that a look-up's tensor is read from."""
    notes: list[str] = field(default_factory=list)
    gate_order: str = ""
    absorbed: set[str] = field(default_factory=set)
    """Layers of nodes that became part of an earlier operation."""
    names: set[str] = field(default_factory=set)
    readers: dict[str, str] = field(default_factory=dict)
    """The first layer that holds a weight, by its name in the file."""

    def constant(self, node: Node, at: int) -> Constant | None:
        """An input that is a constant, else None."""
        return self.constants.find(node.input(at)) if node.input(at) else None

    def need_constant(self, node: Node, at: int, what: str) -> Constant:
        """An input that must be a constant. Raises HwsimError."""
        found = self.constant(node, at)
        if found is None:
            raise node.refuse(f"must have a constant {what}, got '{node.input(at) or 'none'}'")
        return found

    def activation(self, node: Node, at: int) -> Activation:
        """An input that is computed. Raises HwsimError for a constant."""
        name = node.input(at)
        if name not in self.values:
            raise node.refuse(f"must read a computed value as input {at}, got "
                              f"{f'the constant {name!r}' if self.constants.find(name) else repr(name)}")  # fmt: skip
        return self.values[name]

    def single(self, node: Node, at: int) -> Activation:
        """An input of one tensor. Raises HwsimError for tensors beside each other, which only products join."""
        found = self.activation(node, at)
        if len(found.parts) > 1:
            raise node.refuse(f"must read one tensor as input {at}, got {len(found.parts)} that are concatenated: "
                              "only products and element-wise functions of one operand take those")  # fmt: skip
        return found

    def tensor(self, name: str, role: Role, shape: Sequence[int], layer: str) -> Part:
        """Declare a tensor of a name that is free, or becomes so by a number."""
        name = unique(name, self.names)
        return Part(self.builder.tensor(name, role, shape, layer), name, int(shape[-1]))

    def vector(self, name: str, values: Array, layer: str) -> Part:
        """A parameter vector of reals."""
        part = self.tensor(name, Role.BIAS, values.shape, layer)
        self.codes[part.name] = values.astype(np.float64)
        return part

    def show(self, activation: Activation, value: str) -> None:
        """Say in which value of the graph the tensors of an activation are seen."""
        start = 0
        for part in activation.parts:
            shape = (activation.rows, part.columns)
            self.views[part.name] = View(value, activation.layout, shape, start, start + part.columns)
            start += part.columns

    def computed(self, value: str, activation: Activation) -> None:
        """An activation that an operation has just written is the value of that name."""
        self.values[value] = activation
        self.show(activation, value)

    def absorb(self, node: Node) -> None:
        """The node is part of an operation that is already there."""
        self.absorbed.add(node.layer)

    def read_weight(self, source: str, node: Node) -> None:
        """A node holds the file's weight `source`; of one that several share the trace has a copy for each."""
        first = self.readers.setdefault(source, node.layer)
        if first != node.layer:
            self.note(f"weight '{source}' is shared: {first} and {node.layer} each hold a copy")

    def note(self, text: str) -> None:
        """Remember something assumed or folded, once."""
        if text not in self.notes:
            self.notes.append(text)
