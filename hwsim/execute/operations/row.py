"""One operation of a trace by names, as those that execute it read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hwsim.errors import HwsimError
from hwsim.trace import Function, Kind, Role, Tensor, Trace


@dataclass(frozen=True, slots=True)
class Row:
    """An operation: its columns, the tensors it reads in their order, those it writes, its layer's attributes."""

    index: int
    kind: Kind
    function: Function
    layer: str
    m: int
    k: int
    n: int
    batch: int
    branch: int
    reads: tuple[Tensor, ...]
    writes: tuple[Tensor, ...]
    attributes: Mapping[str, Any]

    @property
    def activations(self) -> tuple[Tensor, ...]:
        """Tensors read that are no parameters."""
        return tuple(t for t in self.reads if t.role not in (Role.WEIGHT, Role.BIAS))

    @property
    def weight(self) -> Tensor | None:
        """The one weight that it reads."""
        return next((t for t in self.reads if t.role == Role.WEIGHT), None)

    @property
    def biases(self) -> tuple[Tensor, ...]:
        """Biases and other vectors that it reads."""
        return tuple(t for t in self.reads if t.role == Role.BIAS)

    def refuse(self, rule: str) -> HwsimError:
        """The error of an operation that is not executed."""
        return HwsimError(f"operation {self.index} ({self.kind.name}, layer {self.layer}) {rule}")

    def expect(self, activations: int, *, weights: int = 0, biases: tuple[int, ...] = (0,), writes: int = 1) -> None:
        """Raises HwsimError unless it reads and writes that many tensors."""
        found = (len(self.activations), sum(t.role == Role.WEIGHT for t in self.reads), len(self.writes))
        if found != (activations, weights, writes) or len(self.biases) not in biases:
            raise self.refuse(
                f"must read {activations} activations, {weights} weights and {' or '.join(map(str, biases))} biases "
                f"and write {writes}, got {found[0]}, {found[1]}, {len(self.biases)} and {found[2]}"
            )

    def expect_shapes(self, *wanted: tuple[int, ...]) -> None:
        """Raises HwsimError unless the activations that it reads, then what it writes, have these shapes."""
        found = tuple(tensor.shape for tensor in (*self.activations, *self.writes))
        if found != wanted:
            raise self.refuse(f"must have shapes {', '.join(map(str, wanted))}, got {', '.join(map(str, found))}")


def rows(trace: Trace, start: int, end: int) -> Iterator[Row]:
    """The operations from `start` to before `end`. Tensors that are only waited for, not read, are left out."""
    columns = trace.columns
    for at in range(start, end):
        layer = trace.layers[columns["layer"][at]]
        entries = range(int(trace.operand_ptr[at]), int(trace.operand_ptr[at + 1]))
        empty = columns["m"][at] == 0
        found: dict[bool, list[Tensor]] = {False: [], True: []}
        for entry in entries:
            if trace.operand_elements[entry] or empty:
                found[bool(trace.operand_write[entry])].append(trace.tensors[trace.operand_tensor[entry]])
        kind, function = Kind(int(columns["kind"][at])), Function(int(columns["function"][at]))
        m, k, n, batch, branch = (int(columns[name][at]) for name in ("m", "k", "n", "batch", "branch"))
        reads, writes = tuple(found[False]), tuple(found[True])
        yield Row(at, kind, function, layer, m, k, n, batch, branch, reads, writes, trace.attributes.get(layer, {}))
