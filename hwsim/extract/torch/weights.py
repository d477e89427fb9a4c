"""Parameters as weights of a graph: each counted once, however it is read."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
import torch
from torch import Tensor

from hwsim.errors import HwsimError
from hwsim.extract.graph.nodes import Weight
from hwsim.extract.torch.entries import Array, Constant, Held, as_array

SHOWN = 5
FLOATS = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32", torch.float64: "fp32"}
"""Formats of real types; float64 is counted as fp32."""


def format_of(dtype: torch.dtype) -> str:
    """The number format of a type: labels are int32, truth values int8."""
    return FLOATS.get(dtype, "int8" if dtype in (torch.bool, torch.int8, torch.uint8) else "int32")


class Weights:
    """Weights by name. `parameters`: of the module, each once; `aliases`: other names of tied ones."""

    def __init__(self, parameters: Mapping[str, Tensor], aliases: Mapping[str, str]) -> None:
        self.parameters, self.aliases = parameters, aliases
        self.found: dict[str, Weight] = {}
        self.folded: dict[str, int] = {}
        self.notes: list[str] = []
        self._covered: dict[str, Array] = {}
        self._names: dict[tuple[object, ...], str] = {}

    def parameter(self, name: str) -> Held:
        """A parameter as a program reads it."""
        tensor = self.parameters[self.aliases[name]]
        return Held((self.aliases[name],), lambda: tensor, tuple(tensor.shape), tensor.dtype)

    def add(self, entry: Held | Constant, shape: tuple[int, ...], fallback: str) -> str:
        """Name of the weight that holds an operand, of `shape` in the layout of its node.

        `fallback`: for what is no parameter, or follows from several.
        """
        if isinstance(entry, Constant):
            return self._constant(entry, shape, fallback)
        if entry.plain and not entry.selects:
            return self._whole(entry, shape)
        if entry.plain and entry.dtype == self.parameters[entry.sources[0]].dtype:
            return self._part(entry, shape)
        return self._derived(entry, shape, fallback)

    def absorb(self, names: tuple[str, ...]) -> None:
        """Count parameters that no node reads by themselves."""
        for name in names:
            if name not in self._covered:
                self._cover(name)
                self._keep(name, tuple(self.parameters[name].shape), self.parameter(name), counted=True)

    def finish(self, unused: str, name: str) -> None:
        """Count what is left of parameters that are read in part. Raises HwsimError for some that nobody reads."""
        left = [each for each in self.parameters if each not in self._covered]
        if left and unused != "note":
            shown = ", ".join(f"{each} ({self.parameters[each].numel()})" for each in left[:SHOWN])
            more = f" and {len(left) - SHOWN} more" if left[SHOWN:] else ""
            raise HwsimError(f"{name}: every parameter must be read, got {len(left)} that are not: {shown}{more}: "
                             'pass the part that runs, or unused="note"')  # fmt: skip
        if left:
            self.notes.append(f"not read: parameters {', '.join(left)}")
            self.absorb(tuple(left))
        for each, covered in self._covered.items():
            rest = int(covered.size - covered.sum())
            if rest:
                self.notes.append(f"{rest} of the {covered.size} elements of {each} are not read at these sizes")
                self.found[f"{each}.rest"] = Weight(f"{each}.rest", (rest,), format_of(self.parameters[each].dtype))

    def held(self) -> dict[str, int]:
        """Elements by weight, of every parameter of the module: what the graph must count."""
        sizes: dict[str, int] = {}
        for name, tensor in self.parameters.items():
            if name in self.found and self.found[name].counted:
                sizes[name] = tensor.numel()
                continue
            parts = [each for each, weight in self.found.items() if weight.counted and self._parent(each) == name]
            sizes |= {part: self.found[part].elements for part in parts}
            if sum(self.found[part].elements for part in parts) != tensor.numel():
                sizes[name] = tensor.numel()
        return sizes

    def _parent(self, part: str) -> str:
        head, _, tail = part.rpartition(".")
        return head if tail == "rest" or tail.startswith("part") else ""

    def _whole(self, entry: Held, shape: tuple[int, ...]) -> str:
        source = entry.sources[0]
        known = self._names.get((source, shape, entry.grid and entry.grid.format))
        if known is not None:
            return known
        free = source not in self._covered
        if free:
            self._cover(source)
        name = self._fresh(source if free else f"{source}.tied")
        if not free:
            self.notes.append(f"{source} is read in another layout too, as {name}: counted once")
        self._names[(source, shape, entry.grid and entry.grid.format)] = name
        return self._keep(name, shape, entry, counted=free)

    def _part(self, entry: Held, shape: tuple[int, ...]) -> str:
        source = entry.sources[0]
        tensor = self.parameters[source]
        places = as_array(entry.after(x=torch.arange(tensor.numel()).reshape(tensor.shape))).reshape(-1)
        key = (source, shape, entry.grid and entry.grid.format, hash(places.tobytes()))
        if key in self._names:
            return self._names[key]
        covered = self._covered.setdefault(source, np.zeros(tensor.numel(), np.bool_))
        free = not covered[places].any() and len(np.unique(places)) == len(places)
        if free:
            covered[places] = True
        count = sum(name.startswith(f"{source}.part") for name in self.found)
        self._names[key] = f"{source}.part{count}"
        return self._keep(f"{source}.part{count}", shape, entry, counted=free)

    def _derived(self, entry: Held, shape: tuple[int, ...], fallback: str) -> str:
        key = ("derived", shape, entry)
        if key in self._names:
            return self._names[key]
        own = [each for each in entry.sources
               if each not in self._covered and self.parameters[each].numel() == prod(shape)]  # fmt: skip
        for each in own[:1]:
            self._cover(each)
        self.absorb(entry.sources)
        name = own[0] if own else self._fresh(fallback)
        self.notes.append(f"{name} is computed once from {', '.join(entry.sources)}")
        self._names[key] = name
        return self._keep(name, shape, entry, counted=bool(own))

    def _constant(self, entry: Constant, shape: tuple[int, ...], fallback: str) -> str:
        tensor = entry.tensor
        key = ("constant", shape, tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), entry.name)
        if key in self._names:
            return self._names[key]
        name = self._fresh(entry.name or fallback)
        self._names[key] = name
        self.folded[name] = tensor.numel()
        text = entry.format or format_of(entry.dtype)
        self.found[name] = Weight(name, shape, text, counted=False, load=lambda: as_array(tensor))
        return name

    def _cover(self, name: str) -> None:
        self._covered[name] = np.broadcast_to(np.True_, (self.parameters[name].numel(),))

    def _keep(self, name: str, shape: tuple[int, ...], entry: Held, *, counted: bool) -> str:
        load, scale, zero, axis, group = entry.content()
        text = format_of(entry.dtype) if entry.grid is None else entry.grid.format
        if scale is not None and scale.ndim == 1 and scale.size != shape[-1]:
            self.notes.append(f"{name} has {scale.size} scales, not one for each of its {shape[-1]} outputs")
        self.found[name] = Weight(name, shape, text, counted, load, scale, zero, axis, group)
        return name

    def _fresh(self, name: str) -> str:
        found, count = name, 1
        while found in self.found or (found in self.parameters and found != name):
            count += 1
            found = f"{name}_{count}"
        return found
