"""The operations of a trace as steps that can be executed: products, recurrent loops, look-ups, element-wise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hwsim.errors import HwsimError
from hwsim.trace import Function, Kind, Role, Trace


@dataclass(frozen=True, slots=True)
class Product:
    """out (m, N) = [x ...] (m, K) @ weight (K, N) + bias; x of fewer columns than K is stacked row by row."""

    layer: str
    x: tuple[str, ...]
    weight: str
    bias: str | None
    out: str
    rows: int


@dataclass(frozen=True, slots=True)
class Direction:
    """One direction of a recurrent LSTM layer: gates_x + (h @ weight + bias), then c and h."""

    layer: str
    gates_x: str
    weight: str
    bias: str | None
    c: str
    h: str
    reverse: bool


@dataclass(frozen=True, slots=True)
class Recurrence:
    """A recurrent loop of one or two directions over `steps` time steps of one row."""

    directions: tuple[Direction, ...]
    steps: int


@dataclass(frozen=True, slots=True)
class Lookup:
    """out (m, N) = table[labels]."""

    layer: str
    table: str
    labels: str
    out: str
    rows: int


@dataclass(frozen=True, slots=True)
class Elementwise:
    """out = function(a[, b])."""

    layer: str
    function: Function
    inputs: tuple[str, ...]
    out: str


@dataclass(frozen=True, slots=True)
class LogSoftmax:
    """out = log softmax(x) over the last axis."""

    layer: str
    x: str
    out: str


Step = Product | Recurrence | Lookup | Elementwise | LogSoftmax


def read_steps(trace: Trace) -> list[Step]:
    """The steps of a trace, in its order.

    A recurrent loop must be an LSTM of one row a step: per branch a product with the recurrent weights and the
    pointwise part. Branch 1 of two runs from the last step to the first, as the builder of LSTM layers records it.
    Raises HwsimError for any other operation, naming its kind and layer.
    """
    steps: list[Step] = []
    loops = trace.loop
    at = 0
    while at < len(trace):
        if loops[at] < 0:
            steps.append(_single(trace, at))
            at += 1
            continue
        end = at + int(np.argmax(np.append(loops[at:] != loops[at], True)))
        steps.append(_recurrence(trace, at, end))
        at = end
    return steps


def _single(trace: Trace, at: int) -> Step:
    kind, layer = Kind(int(trace.kind[at])), trace.layers[trace.layer[at]]
    reads, writes = _operands(trace, at)
    if kind == Kind.MATMUL:
        return _product(trace, at)
    if kind == Kind.LOOKUP and len(writes) == 1 and reads:
        labels = reads[1] if len(reads) > 1 else f"{layer}.labels"
        return Lookup(layer, reads[0], labels, writes[0], int(trace.m[at]))
    if kind == Kind.ELEMENTWISE and len(writes) == 1 and trace.function[at] != Function.FUSE_SCORES:
        return Elementwise(layer, Function(int(trace.function[at])), tuple(reads[:2]), writes[0])
    if kind == Kind.SOFTMAX and len(writes) == 1:
        return LogSoftmax(layer, reads[0], writes[0])
    raise _unsupported(trace, at, "is not executed")


def _product(trace: Trace, at: int) -> Product:
    layer = trace.layers[trace.layer[at]]
    tensors = {t.name: t for t in trace.tensors}
    touched = _touched(trace, at)
    reads = [name for name, elements in touched if elements or not trace.m[at]]
    weights = [i for i, name in enumerate(reads) if tensors[name].role == Role.WEIGHT]
    _, writes = _operands(trace, at)
    if len(weights) != 1 or weights[0] == 0 or len(writes) != 1:
        raise _unsupported(trace, at, "must read activations, then one weight, and write one tensor")
    after = reads[weights[0] + 1 :]
    bias = after[0] if after and tensors[after[0]].role == Role.BIAS else None
    return Product(layer, tuple(reads[: weights[0]]), reads[weights[0]], bias, writes[0], int(trace.m[at]))


def _recurrence(trace: Trace, start: int, end: int) -> Recurrence:
    length = int(np.count_nonzero(trace.iteration[start:end] == 0))
    body = range(start, start + length)
    if np.any(trace.m[start:end] != 1):
        raise _unsupported(trace, start, "of a loop must have one row a step")
    directions = []
    branches = list(dict.fromkeys(int(trace.branch[at]) for at in body))
    for branch in branches:
        directions.append(_direction(trace, [at for at in body if trace.branch[at] == branch], branch == 1))
    return Recurrence(tuple(directions), (end - start) // length)


def _direction(trace: Trace, operations: Sequence[int], reverse: bool) -> Direction:
    kinds = [Kind(int(trace.kind[at])) for at in operations]
    if kinds != [Kind.MATMUL, Kind.LSTM]:
        wrong = next((i for i, kind in enumerate(kinds) if kind not in (Kind.MATMUL, Kind.LSTM)), 0)
        raise _unsupported(trace, operations[wrong], "in a loop is not executed: a loop must be an LSTM")
    product = _product(trace, operations[0])
    reads, writes = _operands(trace, operations[1])
    wanted = len(reads) == 3 and len(writes) == 2 and reads[1] == product.out and product.x == (writes[1],)
    if not wanted or reads[2] != writes[0]:
        raise _unsupported(trace, operations[1], "must read both gate sums and c, and write c and the h of its product")
    return Direction(product.layer, reads[0], product.weight, product.bias, writes[0], writes[1], reverse)


def _touched(trace: Trace, at: int) -> Iterator[tuple[str, int]]:
    for entry in range(int(trace.operand_ptr[at]), int(trace.operand_ptr[at + 1])):
        if not trace.operand_write[entry]:
            yield trace.tensors[trace.operand_tensor[entry]].name, int(trace.operand_elements[entry])


def _operands(trace: Trace, at: int) -> tuple[list[str], list[str]]:
    reads = [name for name, _ in _touched(trace, at)]
    entries = range(int(trace.operand_ptr[at]), int(trace.operand_ptr[at + 1]))
    writes = [trace.tensors[trace.operand_tensor[e]].name for e in entries if trace.operand_write[e]]
    return reads, writes


def _unsupported(trace: Trace, at: int, rule: str) -> HwsimError:
    kind = Kind(int(trace.kind[at])).name
    return HwsimError(f"operation {at} ({kind}, layer {trace.layers[trace.layer[at]]}) {rule}")
