"""Building a trace: operations name the tensors they read and write, dependencies follow from that.

A recurrent loop is recorded once and repeated by NumPy, so that an utterance with tens of thousands of
operations is built in a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwsim.errors import HwsimError
from hwsim.trace.table import MAX_RANK, OP_COLUMNS, Function, IntArray, Kind, Role, Tensor, Trace

Rows = int | IntArray


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor that an operation touches: `per_row` elements for each of its m rows, and `fixed` beside."""

    tensor: int
    per_row: int = 0
    fixed: int = 0
    write: bool = False


@dataclass(slots=True)
class _Recorded:
    columns: dict[str, Rows]
    operands: list[Operand]
    after: list[int]


class TraceBuilder:
    """Collects tensors and operations; `build()` returns the validated trace.

    Inside `with builder.loop(n):` each operation is recorded once and stands for n iterations; its `m`
    may be an array of n row counts. Reading a tensor depends on its last writer: one earlier in the same
    iteration, else the one of the iteration before, else the last one before the loop.
    """

    def __init__(self, name: str, meta: Mapping[str, Any] | None = None) -> None:
        self.name = name
        self.meta = dict(meta or {})
        self._tensors: list[Tensor] = []
        self._tensor_names: set[str] = set()
        self._layers: dict[str, int] = {}
        self._attributes: dict[str, dict[str, Any]] = {}
        self._writer: dict[int, int] = {}
        self._count = 0
        self._columns: dict[str, list[IntArray]] = {name: [] for name in OP_COLUMNS}
        self._deps: list[tuple[IntArray, IntArray]] = []
        self._operands: list[tuple[IntArray, IntArray, IntArray, IntArray]] = []
        self._body: list[_Recorded] | None = None
        self._loops = 0

    def tensor(self, name: str, role: Role, shape: Sequence[int], layer: str | None = None) -> int:
        """Declare a tensor and return its index. `layer` defaults to the name without its last part."""
        shape = tuple(int(size) for size in shape)
        if not 1 <= len(shape) <= MAX_RANK or min(shape) < 1:
            raise HwsimError(f"tensor {name}: shape must have 1 to {MAX_RANK} sizes of at least 1, got {shape}")
        if name in self._tensor_names:
            raise HwsimError(f"tensor {name}: name must be given once, got it twice")
        layer = layer or name.rpartition(".")[0]
        self._layer(layer)
        self._tensor_names.add(name)
        self._tensors.append(Tensor(name, layer, role, shape))
        return len(self._tensors) - 1

    def _layer(self, layer: str) -> int:
        return self._layers.setdefault(layer, len(self._layers))

    def attributes(self, layer: str, **values: Any) -> None:
        """Say what the execution of a layer needs beside shapes, see `Trace.attributes`."""
        self._layer(layer)
        self._attributes.setdefault(layer, {}).update(values)

    def op(
        self,
        kind: Kind,
        layer: str,
        reads: Sequence[Operand],
        writes: Sequence[Operand] = (),
        *,
        m: Rows,
        k: Rows = 1,
        n: int = 1,
        batch: int = 1,
        function: Function = Function.NONE,
        branch: int = 0,
        after: Sequence[int] = (),
    ) -> int:
        """Add one operation and return its handle for `after` (only within the same loop, or from before it)."""
        columns: dict[str, Rows] = {
            "kind": int(kind), "function": int(function), "m": m, "k": k, "n": n, "batch": batch,
            "layer": self._layer(layer), "branch": branch,
        }  # fmt: skip
        operands = [*reads, *(Operand(w.tensor, w.per_row, w.fixed, True) for w in writes)]
        recorded = _Recorded(columns, operands, list(after))
        if self._body is not None:
            self._body.append(recorded)
            return self._count + len(self._body) - 1
        self._append([recorded], 1, -1)
        return self._count - 1

    def matmul(self, layer: str, x: Sequence[int], w: int, out: int, *, m: Rows, bias: int | None = None,
               branch: int = 0, needs: Sequence[int] = (), kept: int = 0) -> int:  # fmt: skip
        """`(m, K) @ (K, N)` by the weight `w`; the tensors of `x` share K in proportion to their last sizes.

        It waits for the tensors of `needs` without reading them. `kept`: rows of `out` of before that stay beside the
        new ones, so that a loop holds them from one iteration to the next.
        """
        k, n = self._tensors[w].shape[-2:]
        widths = [self._tensors[t].shape[-1] for t in x]
        parts = [k * width // sum(widths) for width in widths]
        parts[0] += k - sum(parts)
        reads = [Operand(t, per_row=part) for t, part in zip(x, parts, strict=True)]
        reads.append(Operand(w, fixed=k * n))
        if bias is not None:
            reads.append(Operand(bias, fixed=n))
        reads += [Operand(t) for t in needs]
        if kept:
            reads.append(Operand(out, fixed=kept * n))
        return self.op(Kind.MATMUL, layer, reads, [Operand(out, per_row=n)], m=m, k=k, n=n, branch=branch)

    @property
    def last(self) -> int:
        """Handle of the operation that was added last."""
        return self._count + len(self._body or ()) - 1

    @contextmanager
    def loop(self, iterations: int) -> Iterator[None]:
        """Repeat the operations recorded in this block `iterations` times."""
        if self._body is not None:
            raise HwsimError("loops of a trace must not be nested")
        if iterations < 1:
            raise HwsimError(f"a loop must have at least 1 iteration, got {iterations}")
        self._body = []
        try:
            yield
            body = self._body
        finally:
            self._body = None
        if body:
            self._append(body, iterations, self._loops)
            self._loops += 1

    def _append(self, body: list[_Recorded], iterations: int, loop: int) -> None:
        length = len(body)
        count = length * iterations
        for name in ("kind", "function", "m", "k", "n", "batch", "layer", "branch"):
            block = np.empty((iterations, length), dtype=np.int64)
            for j, recorded in enumerate(body):
                given = np.size(recorded.columns[name])
                if given not in (1, iterations):
                    rule = f"one number or {iterations} of them" if loop >= 0 else "one number"
                    raise HwsimError(f"operation {j} of its block: {name} must be {rule}, got {given}")
                block[:, j] = recorded.columns[name]
            self._columns[name].append(block.reshape(-1))
        rows = self._columns["m"][-1].reshape(iterations, length)
        self._columns["loop"].append(np.full(count, loop, dtype=np.int64))
        steps = np.arange(iterations, dtype=np.int64) if loop >= 0 else np.array([-1])
        self._columns["iteration"].append(np.repeat(steps, length))
        self._append_operands(body, iterations, rows)
        self._append_deps(body, iterations)
        self._count += count

    def _append_operands(self, body: list[_Recorded], iterations: int, rows: IntArray) -> None:
        flat = [(j, operand) for j, recorded in enumerate(body) for operand in recorded.operands]
        owner = np.array([j for j, _ in flat], dtype=np.int64)
        per_row = np.array([o.per_row for _, o in flat], dtype=np.int64)
        fixed = np.array([o.fixed for _, o in flat], dtype=np.int64)
        m = rows[:, owner]
        elements = np.where(m > 0, m * per_row + fixed, 0)
        counts = np.tile(np.array([len(r.operands) for r in body], dtype=np.int64), iterations)
        tensor = np.tile(np.array([o.tensor for _, o in flat], dtype=np.int64), iterations)
        write = np.tile(np.array([o.write for _, o in flat], dtype=np.int64), iterations)
        self._operands.append((counts, tensor, elements.reshape(-1), write))

    def _append_deps(self, body: list[_Recorded], iterations: int) -> None:
        """Dependencies of the first iteration, then of the others as one repeated block."""
        base, length = self._count, len(body)
        final: dict[int, int] = {o.tensor: j for j, r in enumerate(body) for o in r.operands if o.write}
        current: dict[int, int] = {}
        first: list[list[int]] = []
        later: list[list[tuple[int, bool]]] = []
        for j, recorded in enumerate(body):
            now, then = set(recorded.after), {(a, a >= base) for a in recorded.after}
            for operand in recorded.operands:
                tensor = operand.tensor
                if operand.write:
                    continue
                if tensor in current:
                    now.add(base + current[tensor])
                    then.add((base + current[tensor], True))
                    continue
                if tensor in self._writer:
                    now.add(self._writer[tensor])
                if tensor in final:
                    then.add((base + final[tensor] - length, True))
                elif tensor in self._writer:
                    then.add((self._writer[tensor], False))
            current.update({o.tensor: j for o in recorded.operands if o.write})
            first.append(sorted(now))
            later.append(sorted(then))
        counts = [np.array([len(d) for d in first], dtype=np.int64)]
        values = [np.array([x for d in first for x in d], dtype=np.int64)]
        if iterations > 1:
            target = np.array([x for d in later for x, _ in d], dtype=np.int64)
            moves = np.array([moving for d in later for _, moving in d], dtype=bool)
            shift = np.arange(1, iterations, dtype=np.int64)[:, None] * length
            values.append(np.where(moves, target + shift, target).reshape(-1))
            counts.append(np.tile(np.array([len(d) for d in later], dtype=np.int64), iterations - 1))
        self._deps.append((np.concatenate(counts), np.concatenate(values)))
        last = base + (iterations - 1) * length
        self._writer.update({tensor: last + j for tensor, j in final.items()})

    def build(self) -> Trace:
        """The finished trace, validated."""
        if self._count == 0:
            raise HwsimError(f"trace {self.name}: must have at least one operation, got none")
        trace = Trace(
            name=self.name,
            layers=tuple(self._layers),
            tensors=tuple(self._tensors),
            columns={name: np.concatenate(parts) for name, parts in self._columns.items()},
            dep_ptr=_pointer(np.concatenate([counts for counts, _ in self._deps])),
            dep=np.concatenate([values for _, values in self._deps]),
            operand_ptr=_pointer(np.concatenate([part[0] for part in self._operands])),
            operand_tensor=np.concatenate([part[1] for part in self._operands]),
            operand_elements=np.concatenate([part[2] for part in self._operands]),
            operand_write=np.concatenate([part[3] for part in self._operands]),
            input_formats=("fp32",) * len(self._layers),
            meta=self.meta,
            attributes=self._attributes,
        )
        trace.validate()
        return trace


def _pointer(counts: IntArray) -> IntArray:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])
