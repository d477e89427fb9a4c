"""A graph that is being made of an exported program."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch

from hwsim.extract.graph.nodes import Node, NodeKind, Value
from hwsim.extract.torch.calls import Call, Meta, Ref
from hwsim.extract.torch.entries import Computed, Constant, Entry, Held
from hwsim.extract.torch.weights import FLOATS, Weights, format_of
from hwsim.numerics.formats import NumberFormat, mac_format


class Draft:
    """Nodes, values and weights so far; `entries`: what names of the program stand for.

    `leaves`: paths of modules that are one operation, which has their name; `holders`: of those whose product has.
    """

    def __init__(self, weights: Weights, leaves: frozenset[str], holders: frozenset[str] = frozenset()) -> None:
        self.weights, self.leaves, self.holders = weights, leaves, holders
        self.values: dict[str, Value] = {}
        self.nodes: list[Node] = []
        self.entries: dict[str, Entry | tuple[Entry, ...]] = {}
        self.inputs: list[str] = []
        self.notes: list[str] = []
        self.counts: Counter[str] = Counter()
        """Of what was left out or assumed, by sentence."""
        self._reads: list[tuple[int, str, str]] = []
        self._layers: set[str] = set()
        self._lifted: dict[object, Computed] = {}

    def entry(self, ref: Ref) -> Entry:
        """What a name stands for; of a tuple its first."""
        return self.entry_of(ref.name)

    def entry_of(self, name: str) -> Entry:
        """What a name stands for; of a tuple its first."""
        found = self.entries[name]
        return found[0] if isinstance(found, tuple) else found

    def operand(self, given: Any) -> Entry | None:
        """What an argument stands for, None for numbers and what is left out."""
        return self.entry(given) if isinstance(given, Ref) else None

    def value(self, name: str, meta: Meta, text: str | None = None) -> Computed:
        """Declare a value of a node, `text` its format."""
        title, count = name, 1
        while title in self.values:
            count += 1
            title = f"{name}_{count}"
        integer = not (meta.dtype.is_floating_point or meta.dtype.is_complex)
        form = text or format_of(meta.dtype)
        self.values[title] = Value(title, meta.shape, form, integer)
        return Computed(title, meta.shape, meta.dtype, form)

    def input(self, name: str, meta: Meta) -> None:
        """Declare an input of the network."""
        self.entries[name] = self.value(name, meta)
        self.inputs.append(name)

    def node(self, kind: NodeKind, call: Call, reads: Sequence[Computed], writes: Sequence[Computed], /, *,
             layer: str = "", weights: Mapping[str, str] | None = None, **attributes: Any) -> None:  # fmt: skip
        """Add a node."""
        self._reads += [(len(self.nodes), one.name, one.format) for one in reads]
        self.nodes.append(Node(
            kind, layer or self.layer(call), tuple(one.name for one in reads),
            tuple(one.name for one in writes), dict(weights or {}), attributes,
            input_format(reads[:2] if kind == NodeKind.MATMUL else reads[:1], writes[0].dtype),
        ))  # fmt: skip

    def layer(self, call: Call, *weights: Entry | None, operation: str | None = None) -> str:
        """A name of its own for an operation: of the module whose it is alone, or `<module>.<operation>`.

        A module within the one that runs counts as it when it holds the first of `weights`.
        """
        path, leaf = call.path, call.path in self.leaves
        owner = next((one.sources[0].rpartition(".")[0] for one in weights if isinstance(one, Held)), "")
        owner = owner.removesuffix(".parametrizations.weight")
        if owner and owner in self.leaves | self.holders and f"{owner}.".startswith(f"{path}." if path else ""):
            path, leaf = owner, True
        title = path if leaf and path else f"{path}.{operation or call.kind}".strip(".")
        return self.unique(re.sub(r"[^A-Za-z0-9_.-]", "_", title))

    def unique(self, title: str) -> str:
        """`title`, with a number behind it when a layer has it already."""
        found, count = title, 1
        while found in self._layers:
            count += 1
            found = f"{title}_{count}"
        self._layers.add(found)
        return found

    def lifted(self, entry: Entry, call: Call) -> Computed:
        """An operand as a value: a constant becomes one that is folded, parameters too."""
        if isinstance(entry, Computed):
            return entry
        key: object = entry
        if isinstance(entry, Constant):
            tensor = entry.tensor
            key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), entry.name)
        if key not in self._lifted:
            name = entry.name if isinstance(entry, Constant) else f"{entry.sources[0]}.value"
            if isinstance(entry, Held):
                self.weights.absorb(entry.sources)
                self.counts["parameters are read as a value: {}"] += 1
            text = entry.format if isinstance(entry, Constant) else ""
            self._lifted[key] = self.value(
                name or f"{call.name}.constant", Meta(entry.shape, entry.dtype), text or None
            )
            self.weights.folded[self._lifted[key].name] = prod(entry.shape)
        return self._lifted[key]

    def view(self, call: Call, inputs: Sequence[Entry], meta: Meta, name: str | None = None) -> Computed:
        """Inputs in another order, shape or selection; constants among them are not recorded."""
        read = [one for one in inputs if isinstance(one, Computed)]
        for one in inputs:
            if isinstance(one, Held):
                self.weights.absorb(one.sources)
                self.counts["parameters stand in a view beside computed values: {}"] += 1
        same = read and all(one.dtype == meta.dtype for one in read)
        out = self.value(name or call.name, meta, common_format(read) if same else None)
        self.node(NodeKind.VIEW, call, read, [out], layer=self.unique(f"{call.path}.{call.kind}".strip(".")))
        return out

    def pointwise(self, call: Call, function: str, operands: Sequence[Entry | None], meta: Meta,
                  name: str | None = None, layer: str | None = None) -> Computed:  # fmt: skip
        """An element-wise function of operands; constants of more than one element become weights, numbers nothing."""
        out = self.value(name or call.name, meta)
        weights: dict[str, str] = {}
        for one in operands:
            if isinstance(one, Held) or (isinstance(one, Constant) and prod(one.shape) > 1):
                part = "constant" if not weights else f"constant_{len(weights) + 1}"
                weights[part] = self.weights.add(one, one.shape, f"{call.name}.{part}")
        read = [one for one in operands if isinstance(one, Computed)]
        title = layer or self.layer(call)
        self.node(NodeKind.ELEMENTWISE, call, read, [out], layer=title, weights=weights, function=function,
                  width=meta.width)  # fmt: skip
        return out

    def stored_formats(self, outputs: Sequence[Computed]) -> None:
        """A value that is read through one quantizer only is stored in its format, views of it too."""
        read: dict[str, set[str]] = {}
        for one in outputs:
            read.setdefault(one.name, set()).add(one.format)
        reads: dict[int, list[tuple[str, str]]] = {}
        for at, name, text in self._reads:
            reads.setdefault(at, []).append((name, text))
        for at in reversed(range(len(self.nodes))):
            node = self.nodes[at]
            for name in node.outputs:
                self._store(name, read)
            through = self.values[node.outputs[0]].format if node.kind == NodeKind.VIEW else ""
            for name, text in reads.get(at, []):
                same = through and self.values[name].integer == self.values[node.outputs[0]].integer
                read.setdefault(name, set()).add(through if same and text == self.values[name].format else text)
        for name in [*self.inputs, *(one.name for one in self._lifted.values())]:
            self._store(name, read)

    def _store(self, name: str, read: Mapping[str, set[str]]) -> None:
        texts = read.get(name, set())
        if len(texts) == 1:
            value = self.values[name]
            self.values[name] = Value(name, value.shape, next(iter(texts)), value.integer)


def input_format(reads: Sequence[Computed], result: torch.dtype) -> str:
    """The format in which an operation takes activations: the widest of theirs, or that of autocast around it."""
    text = common_format(reads)
    return format_of(result) if FLOATS.get(reads[0].dtype) == text and result in FLOATS else text


def common_format(inputs: Sequence[Computed]) -> str:
    """One format for several values: theirs if they agree, else the widest base."""
    texts = [one.format for one in inputs]
    if not texts:
        return "fp32"
    widest = texts[0]
    for text in texts[1:]:
        widest = widest if text == widest else mac_format(NumberFormat.parse(widest), NumberFormat.parse(text))
    return widest
