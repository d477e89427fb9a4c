"""Runs of fewer rows than a trace has: shorter utterances, pieces of a stream, and what is kept between pieces."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from hwsim.errors import HwsimError, nearest
from hwsim.execute.dynamic import SCALE, reals_of
from hwsim.execute.operations import COPIES
from hwsim.execute.operations.base import Array, Network, Operation
from hwsim.execute.operations.recurrent import Recurrence
from hwsim.execute.operations.row import Row
from hwsim.execute.operations.row import rows as read_rows
from hwsim.trace import Function, Kind, Role, Tensor, Trace

ROW_WISE = (Kind.MATMUL, Kind.LSTM, Kind.GRU, Kind.LOOKUP, Kind.ELEMENTWISE, Kind.SOFTMAX, Kind.NORM)
ATTENTION = (Function.SCORES, Function.CONTEXT, Function.RELATIVE_ADD, Function.PROBABILITIES)


class Pieces:
    """What a network keeps between the pieces of a stream: states of loops, and the last rows of some tensors."""

    def __init__(self, operations: Sequence[Operation], network: Network) -> None:
        self._network = network
        loops = [operation for operation in operations if isinstance(operation, Recurrence)]
        self._loops = {name: d.gates.h for loop in loops for d in loop.directions for name in d.gates.states}
        self._going = [name for loop in loops for d in loop.directions if not d.reverse for name in d.gates.states]
        self.whole = _whole_tensors(network)
        self.streams = all(operation.streams for operation in operations) and not self.whole
        self.exact = all(operation.exact for operation in operations)
        self.chunk = math.lcm(*(operation.chunk for operation in operations))
        self.carried: dict[str, int] = {}
        for operation in operations if self.streams else ():
            for name, count in operation.carries().items():
                self.carried[name] = max(count, self.carried.get(name, 0))

    def first(self, states: Mapping[str, Array]) -> dict[str, Array]:
        """States before the first step, as they are stored. Raises HwsimError for other names and shapes."""
        first: dict[str, Array] = {}
        if states:
            self._refuse_whole()
        known = (*self._loops, *self.carried)
        for name, array in states.items():
            if name not in known:
                raise HwsimError(f"unknown state '{name}'{nearest(name, known)}")
            first[name] = np.asarray(array)
            if name in self._loops:
                wanted = (1, self._width(self._loops[name]))
                if first[name].shape != wanted:
                    raise HwsimError(f"{name}: the state must be of shape {wanted}, got {first[name].shape}")
        self._check_carried({name: array for name, array in first.items() if name in self.carried})
        return first

    def _check_carried(self, given: Mapping[str, Array]) -> None:
        """Raises HwsimError unless all tensors have the rows of one number of frames before."""
        if not given:
            return
        frames = max((array.shape[0] if array.ndim else 0) for array in given.values())
        for name, count in self.carried.items():
            if name not in given:
                raise HwsimError(f"states must hold {', '.join(self.carried)}, got no {name}")
            wanted = (min(count, frames), self._width(name))
            if given[name].shape != wanted:
                raise HwsimError(f"{name}: the state must be of shape {wanted} after {frames} frames or more, "
                                 f"got {given[name].shape}")  # fmt: skip

    def after(self, outputs: Mapping[str, Array], states: Mapping[str, Array]) -> dict[str, Array]:
        """The states after a run that began with `states` and gave `outputs`."""
        self._refuse_whole()
        found = {name: self._rows(name, outputs)[-1:] for name in self._going}
        for name, count in self.carried.items():
            now = self._rows(name, outputs)
            rows = now if name not in states else np.concatenate([states[name], now])
            found[name] = rows[-count:]
        return found

    def _rows(self, name: str, outputs: Mapping[str, Array]) -> Array:
        """A tensor as the next piece takes it: codes, or the reals of codes whose scales are their own."""
        if self._network.dynamic(name) is None:
            return outputs[name]
        return reals_of(outputs[name], outputs[name + SCALE])

    def _refuse_whole(self) -> None:
        if self.whole:
            raise HwsimError(f"{self.whole}: a grid of a whole tensor is found over all of its rows, so an utterance "
                             "must be run whole, not in pieces")  # fmt: skip

    def _width(self, name: str) -> int:
        return self._network.tensors[name].shape[-1]


def _whole_tensors(network: Network) -> str:
    """The first name that has a grid of run time for a whole tensor, or nothing."""
    dynamic = ((name, network.dynamic(name)) for name in network.quantizers)
    return next((name for name, grid in dynamic if grid is not None and grid.per == "tensor"), "")


def most_rows(trace: Trace, constants: Iterable[str]) -> int | None:
    """The most rows of a run that may have fewer, or None where the trace's own number must be run.

    Every operation outside loops must work row by row, or be one of attention among its own frames or a depthwise
    convolution that keeps their number, on that many rows or on an even share of them. `constants`, and what is made
    of them alone, may only be keys of attention, and no input may be scores of pairs of frames.
    """
    fixed, found, written = set(constants), set[int](), set[str]()
    for at in np.flatnonzero((trace.loop < 0) & ~np.isin(trace.kind, COPIES)).tolist():
        (row,) = read_rows(trace, at, at + 1)
        reads = [tensor.name for tensor in row.activations]
        if any(len(tensor.shape) > 2 and tensor.name not in written for tensor in row.activations):
            return None
        written.update(tensor.name for tensor in row.writes)
        if reads and fixed.issuperset(reads):
            fixed.update(tensor.name for tensor in row.writes)
            continue
        counts = _row_counts(row, fixed)
        if counts is None:
            return None
        found |= counts
    most = max(found, default=0)
    return most if most and all(count and most % count == 0 for count in found) else None


def _row_counts(row: Row, fixed: set[str]) -> set[int] | None:
    """Rows of an operation and of its tensors, without those that never change; None when it needs all of them."""
    tensors = [t for t in (*row.reads, *row.writes) if t.role not in (Role.WEIGHT, Role.BIAS)]
    changing = [t for t in tensors if t.name not in fixed]
    if row.function in ATTENTION:
        return _attention_counts(row, changing, fixed)
    if len(changing) < len(tensors):
        return None
    if row.kind == Kind.DEPTHWISE:
        (x,) = row.activations
        return {row.m} if x.shape[0] == row.m else None
    if row.kind not in ROW_WISE or any(len(t.shape) > 2 for t in changing):
        return None
    return {row.m, *(t.shape[0] for t in changing)}


def _attention_counts(row: Row, changing: Sequence[Tensor], fixed: set[str]) -> set[int] | None:
    """Frames of an operation of attention, when its keys are of the same frames, or never change."""
    if row.function == Function.SCORES:
        query, keys = row.activations
        changes = query.name not in fixed and (keys.name in fixed or row.n == row.m)
        return {row.m} if changes else None
    if any(t.name in fixed for t in row.activations):
        return None
    if row.function == Function.CONTEXT:
        return {row.m} if row.k == row.m else None
    scores = row.writes[0].shape
    return {scores[1]} if len(scores) == 3 and scores[1] == scores[2] else None
