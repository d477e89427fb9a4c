"""A graph that is being written: what each value of the file is, and the weights that nodes hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.extract.graph.nodes import NodeKind, Value, Weight
from hwsim.extract.onnx.graph import Node
from hwsim.extract.onnx.structure.constant import Constant
from hwsim.extract.onnx.structure.formats import activation_format, stored_format, weight_format
from hwsim.extract.onnx.structure.resolve import Resolved
from hwsim.extract.onnx.structure.types import Shape, Type

Array = npt.NDArray[Any]
INDICES = ("int64", "int32", "int16", "uint64", "uint32", "uint16", "int8", "uint8", "bool")
WHOLE = ("int64", "int32", "uint64", "uint32")
"""Types of sizes and indices."""


@dataclass(frozen=True, slots=True)
class Ref:
    """What a value of the file is: a value of the graph, and the format of the quantizer behind it, if any."""

    value: str
    format: str | None = None
    codes: bool = False
    """Whether the file has the codes here, not the reals."""


@dataclass(slots=True)
class Emitted:
    """A node of the graph before it has its layer."""

    kind: NodeKind
    node: Node
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: dict[str, str]
    attributes: dict[str, Any]
    input_format: str
    suffix: str


@dataclass(slots=True)
class Draft:
    """State of one reading."""

    resolved: Resolved
    refs: dict[str, Ref] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    weights: dict[str, Weight] = field(default_factory=dict)
    claims: dict[str, frozenset[str]] = field(default_factory=dict)
    """Initializers that a weight is made of."""
    computed: set[str] = field(default_factory=set)
    """Weights that are made by arithmetic."""
    packed: dict[str, int] = field(default_factory=dict)
    """Parameters of initializers that hold several in an element."""
    emitted: list[Emitted] = field(default_factory=list)
    absorbed: set[str] = field(default_factory=set)
    """First outputs of nodes that are part of another."""
    tails: dict[str, tuple[str, Any]] = field(default_factory=dict)
    """Of an integer product, by its output: the value of its reals, and the scale of its weight."""
    patterns: dict[str, Callable[[], None]] = field(default_factory=dict)
    """What to do instead at a node, by its first output."""
    folded: dict[str, int] = field(default_factory=dict)
    spent: set[str] = field(default_factory=set)
    """Initializers that are folded or are parameters of quantizers."""
    notes: list[str] = field(default_factory=list)
    consumers: dict[str, list[Node]] = field(default_factory=dict)
    producers: dict[str, Node] = field(default_factory=dict)
    quantized: bool = False
    holders: dict[str, list[str]] = field(default_factory=dict)
    """The nodes that hold a weight."""

    def __post_init__(self) -> None:
        for node in self.resolved.nodes:
            for name in dict.fromkeys(node.inputs):
                self.consumers.setdefault(name, []).append(node)
            self.producers.update((name, node) for name in node.outputs if name)
        for name in self.resolved.inputs:
            self.declare(name)

    # What the file has.

    def constant(self, node: Node, at: int) -> Constant | None:
        """An input that is a constant, else None."""
        return self.resolved.constants.get(node.input(at)) if node.input(at) else None

    def need_constant(self, node: Node, at: int, what: str) -> Constant:
        """An input that must be a constant. Raises HwsimError."""
        found = self.constant(node, at)
        if found is None:
            raise node.refuse(f"must have a constant {what}, got '{node.input(at) or 'none'}'")
        return found

    def number(self, node: Node, at: int) -> Any:
        """The content of a small constant input, None for others."""
        found = self.constant(node, at)
        return None if found is None else found.small()

    def type(self, node: Node, at: int) -> Type:
        """The type of an input."""
        return self.resolved.types[node.inputs[at]]

    def out_type(self, node: Node, at: int = 0) -> Type:
        """The type of an output."""
        return self.resolved.types[node.outputs[at]]

    def sole_reader(self, value: str) -> Node | None:
        """The one node that reads a value which the file does not show, else None."""
        readers = self.consumers.get(value, [])
        return readers[0] if len(readers) == 1 and value not in self.resolved.outputs else None

    # What the graph gets.

    def declare(self, name: str, dtype: np.dtype[Any] | None = None, shape: Shape | None = None,
                codes: str | None = None) -> str:  # fmt: skip
        """A value of the graph under the name of the file; `codes`: the format of a value that holds some."""
        known = self.resolved.types.get(name)
        if known is not None:
            dtype, shape = dtype or known.dtype, known.shape if shape is None else shape
        kind = np.dtype(np.float32) if dtype is None else dtype
        integer = codes is None and kind.name in INDICES
        self.values[name] = Value(name, shape or (), codes or stored_format(kind), integer)
        self.refs[name] = Ref(name, codes, codes is not None)
        return name

    def reference(self, node: Node, at: int) -> Ref:
        """What a computed input is; a constant becomes a value that is folded."""
        name = node.inputs[at]
        if name not in self.refs:
            self._source(node, replace(self.resolved.constants[name], name=name))
        return self.refs[name]

    def computed_inputs(self, node: Node) -> list[str]:
        """Values that a node reads and the graph computes, in order."""
        return [self.refs[name].value for name in node.inputs if name in self.refs]

    def emit(self, kind: NodeKind, node: Node, inputs: Sequence[str], outputs: Sequence[str],
             weights: Mapping[str, str | None] | None = None, /, *, input_format: str = "fp32", suffix: str = "",
             codes: str | None = None, **attributes: Any) -> None:  # fmt: skip
        """Add a node; its outputs become values, of codes if their format is given."""
        for name in outputs:
            if name and name not in self.values:
                self.declare(name, codes=codes)
        held = {part: weight for part, weight in (weights or {}).items() if weight}
        self.emitted.append(Emitted(kind, node, tuple(inputs), tuple(outputs), held, attributes, input_format, suffix))

    def temporary(self, node: Node, part: str, shape: Shape, dtype: np.dtype[Any]) -> str:
        """A value that the file does not name."""
        name = f"{node.outputs[0] or node.name}:{part}"
        self.declare(name, dtype, tuple(shape))
        return name

    def alias(self, name: str, ref: Ref, node: Node) -> None:
        """A value of the file is another one of the graph; a shown one gets its own name."""
        self.refs[name] = ref
        if name in self.resolved.outputs:
            self.values.pop(name, None)
            self.emit(NodeKind.VIEW, node, [ref.value], [name])
            self.refs[name] = Ref(name, ref.format, ref.codes)

    def set_format(self, value: str, text: str) -> None:
        """The format in which a value is stored."""
        old = self.values[value]
        self.values[value] = Value(old.name, old.shape, text, old.integer)

    def weight(self, node: Node, constant: Constant, shape: Sequence[int], *, channel: int | None = None,
               depth: int | None = None, part: str = "", counted: bool = True,
               load: Callable[[], Array] | None = None) -> str:  # fmt: skip
        """The weight of a constant, once for all that hold it in one layout and format.

        `shape`: as `NodeKind` has it. `channel`, `depth`: axes of outputs and inputs in the constant as it lies.
        `part`: of a constant that becomes several weights, with its own `load`.
        """
        name = self._weight_name(constant) + (f".{part}" if part else "")
        holders = self.holders.setdefault(name, [])
        if node.name not in holders:
            holders.append(node.name)
        sizes, text = tuple(int(size) for size in shape), weight_format(node, constant, channel, depth)
        first = self.weights.get(name)
        if first is not None and (first.shape, first.format) != (sizes, text):
            # The parameters are counted with the first that holds them; the layouts of a trace are two.
            name, counted = f"{name}.{'x'.join(map(str, sizes))}", False
        if name in self.weights:
            return name
        grid = constant.grid
        self.weights[name] = Weight(
            name, sizes, text, counted, load or constant.file,
            *((None, None, None, None) if grid is None else (grid.scale, grid.zero, grid.axis, grid.group)),
        )  # fmt: skip
        self.claims[name] = constant.sources or frozenset((constant.name,))
        if constant.computed:
            self.computed.add(name)
        self.quantized |= grid is not None
        return name

    def _weight_name(self, constant: Constant) -> str:
        """The initializer that a weight has all of, else the value of the file."""
        if len(constant.sources) == 1:
            (source,) = constant.sources
            stored = self.resolved.stored.get(source)
            if not constant.computed or (stored is not None and prod(stored.shape) == constant.elements):
                return source
        return constant.name

    def fold(self, constant: Constant | None) -> None:
        """A constant that is no parameter: its elements are written down unless it is one number or an index."""
        if constant is None:
            return
        self.spent.update(constant.sources)
        if constant.elements > 1 and (constant.is_real or constant.dtype.name not in WHOLE):
            self.folded[constant.name] = constant.elements

    def spend(self, node: Node, *at: int) -> None:
        """Constant inputs that say how codes become reals."""
        for each in at:
            constant = self.constant(node, each)
            if constant is not None:
                self.spent.update(constant.sources)

    def note(self, text: str) -> None:
        """Remember something assumed, once."""
        if text not in self.notes:
            self.notes.append(text)

    def _source(self, node: Node, constant: Constant) -> None:
        self.fold(constant)
        self.folded[constant.name] = constant.elements
        self.declare(constant.name)
        if constant.grid is not None:
            text = activation_format(node, constant.grid)
            self.set_format(constant.name, text)
            self.refs[constant.name] = Ref(constant.name, text)
        self.note(f"'{constant.name}' {constant.shape} is a constant that {node.name} reads as data")
