"""A network of any toolkit as a graph of few kinds of nodes, of fixed sizes: what readers write and traces are made of.

A reader (`extract/onnx`, `extract/torch`) turns each operator of a file into one of these nodes or refuses it. The
graph knows shapes, number formats and weights, and nothing of a machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.numerics.formats import NumberFormat

Array = npt.NDArray[Any]


class NodeKind(StrEnum):
    """What a node computes. Sizes are in `attributes`, integers unless said otherwise; x is the first input.

    LINEAR       x (..., K) to (..., N). Weights: `weight` (K, N), `bias` (N,) or none.
    MATMUL       a (batch, m, k) by b (batch, k, n), both computed: `m`, `k`, `n`, `batch`.
    CONV         Weights: `weight` (taps, inputs of a group, outputs), `bias` or none. `positions`: output positions
                 (times utterances), `taps`: kernel elements, `inputs`, `outputs`: channels, `groups`, `dimensions`:
                 1 or 2; `kernel`, `stride`, `dilation`: lists, `padding`: list of (before, after).
    LSTM, GRU    x (steps, batch, inputs), whatever the order of its axes. `steps`, `batch`, `inputs`, `cells`,
                 `directions`: 1 or 2, `projection`: 0 or the outputs of a projected LSTM. Weights of each direction,
                 prefix "" or `forward_`, `backward_`: `wx` (inputs, G cells), `wh` (h, G cells), `bias_x`, `bias_h`
                 (G cells,) or none, `projection` (cells, projection). Inputs: x, then initial states if computed;
                 outputs: y, then final states that somebody reads, `""` for others.
    NORM         over rows: `rows`, `width`. Weights `gamma`, `beta` (width,) or none.
    SOFTMAX      `rows`, `width`; `log`: true for its logarithm.
    ELEMENTWISE  `function`: one of FUNCTIONS; `width`: of its rows. Every computed input is read; a constant operand
                 is the weight `constant`, or a number that is not recorded.
    REDUCE       sum, mean or maximum of x over some axes: `function` add, multiply or select.
    LOOKUP       rows of the weight `table` (V, D) by integers x.
    VIEW         x, or several inputs, in another order, shape or selection: no arithmetic, no traffic is counted.
    """

    LINEAR = "linear"
    MATMUL = "matmul"
    CONV = "conv"
    LSTM = "lstm"
    GRU = "gru"
    NORM = "norm"
    SOFTMAX = "softmax"
    ELEMENTWISE = "elementwise"
    REDUCE = "reduce"
    LOOKUP = "lookup"
    VIEW = "view"


FUNCTIONS = (
    "add", "multiply", "divide", "tanh", "sigmoid", "relu", "swish", "glu", "gelu", "exp", "sqrt", "select",
    "add_tanh", "multiply_tanh", "add_relu", "multiply_relu",
)  # fmt: skip
"""Of ELEMENTWISE and REDUCE: add stands for subtractions too, multiply for negation and powers of integers, select
for comparisons, clips, absolute values and `where`, exp for logarithms and the like, sqrt for its reciprocal."""


@dataclass(frozen=True, slots=True)
class Value:
    """What a node writes or the graph is given: `shape` as in the file; `format` in which it is stored."""

    name: str
    shape: tuple[int, ...]
    format: str = "fp32"
    integer: bool = False
    """Whether it holds labels, lengths or other indices, not reals."""

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """Parameters of the file in the layout of `NodeKind`. `name`: of the file, unique.

    `format`: as the file stores them (`fp32`, `int8/channel`, `int4/group32/zp`). `counted`: whether the toolkit
    counts them as parameters: statistics of a batch norm are not. `load`: codes as the file has them, or reals, in its
    own layout; `scale` and `zero_point` beside them, along `axis` of the file's layout (blocks of `group`).
    """

    name: str
    shape: tuple[int, ...]
    format: str = "fp32"
    counted: bool = True
    load: Callable[[], Array] | None = None
    scale: Array | None = None
    zero_point: Array | None = None
    axis: int | None = None
    group: int | None = None

    @property
    def elements(self) -> int:
        """Number of parameters."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Node:
    """One operation; `layer` is the dotted name that precision policies match, without the component."""

    kind: NodeKind
    layer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: Mapping[str, str] = field(default_factory=dict)
    """Part (`weight`, `bias`, `wx` ...) to the name of a `Weight`."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    input_format: str = "fp32"
    """Format in which a product takes its activations: of the quantizer in front of it."""

    def __getitem__(self, name: str) -> Any:
        return self.attributes[name]


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in an order in which they can run, their values and weights by name.

    `inputs`, `outputs`: names of values. `folded`: elements of constants that are no parameters (encodings of
    positions, masks), by name in the file; one that is a value too is read by nodes as an input is. `notes`: what was
    folded, merged or assumed, in sentences. Raises HwsimError when its parts do not fit.
    """

    name: str
    values: Mapping[str, Value]
    nodes: tuple[Node, ...]
    weights: Mapping[str, Weight]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    folded: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        known = {*self.inputs, *(name for name in self.folded if name in self.values)}
        for node in self.nodes:
            for name in node.inputs:
                if name not in known:
                    raise HwsimError(f"{self.name}: {node.layer} must read a value that is there, got '{name}'")
            for weight in node.weights.values():
                if weight not in self.weights:
                    raise HwsimError(f"{self.name}: {node.layer} must hold a known weight, got '{weight}'")
            function = node.attributes.get("function")
            if node.kind in (NodeKind.ELEMENTWISE, NodeKind.REDUCE) and function not in FUNCTIONS:
                raise HwsimError(f"{self.name}: {node.layer} must have a known function, got '{function}'")
            known.update(name for name in node.outputs if name)
        for name in self.outputs:
            if name not in known:
                raise HwsimError(f"{self.name}: output '{name}' must be computed, got none")
        for value in self.values.values():
            NumberFormat.parse(value.format)
        for held in self.weights.values():
            NumberFormat.parse(held.format)

    @property
    def parameters(self) -> int:
        """Counted parameters, each once."""
        return sum(weight.elements for weight in self.weights.values() if weight.counted)

    @cached_property
    def readers(self) -> Mapping[str, tuple[Node, ...]]:
        """Nodes that read a value, by its name."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found.setdefault(name, []).append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    @cached_property
    def producers(self) -> Mapping[str, Node]:
        """The node that writes a value, by its name."""
        return {name: node for node in self.nodes for name in node.outputs if name}


def check_parameters(graph: Graph, held: Mapping[str, int]) -> None:
    """Every parameter of a file is a weight of the graph. `held`: elements by name of the file's parameters.

    Raises HwsimError that lists what is missing or has another size.
    """
    found = {weight.name: weight.elements for weight in graph.weights.values() if weight.counted}
    wrong = [f"{name} ({count})" for name, count in held.items() if found.get(name) != count]
    wrong += [f"{name} (not in the file)" for name in found if name not in held]
    if wrong:
        total, shown = sum(held.values()), ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if wrong[5:] else "")
        raise HwsimError(
            f"{graph.name}: the network must have the {total} parameters of the file, got {graph.parameters}: {shown}"
        )


def weight_array(weight: Weight) -> Array:
    """The codes or reals of a weight as the file has them. Raises HwsimError for one without content."""
    if weight.load is None:
        raise HwsimError(f"weight '{weight.name}' must have its content, got a shape only")
    return np.asarray(weight.load())
