"""The operations of a trace, ready to run on codes: one class for each kind, chosen by `read_operations`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hwsim.execute.operations.attention import Context, Probabilities, RelativeAdd, Scores
from hwsim.execute.operations.base import Operation, Parameters
from hwsim.execute.operations.bypass import Bypass
from hwsim.execute.operations.constant import read_constants
from hwsim.execute.operations.convolution import Convolution, Depthwise
from hwsim.execute.operations.norm import Norm
from hwsim.execute.operations.pointwise import Elementwise, LogSoftmax, Lookup
from hwsim.execute.operations.product import Product
from hwsim.execute.operations.recurrent import Step, read_loop
from hwsim.execute.operations.row import Row, rows
from hwsim.trace import Function, Kind, Trace

Maker = Callable[[Row, Parameters], Operation]

MAKERS: dict[tuple[Kind, Function], Maker] = {
    (Kind.MATMUL, Function.NONE): Product,
    (Kind.MATMUL, Function.SCORES): Scores,
    (Kind.MATMUL, Function.CONTEXT): Context,
    (Kind.CONV1D, Function.NONE): Convolution,
    (Kind.CONV2D, Function.NONE): Convolution,
    (Kind.DEPTHWISE, Function.NONE): Depthwise,
    (Kind.NORM, Function.NONE): Norm,
    (Kind.ELEMENTWISE, Function.RELATIVE_ADD): RelativeAdd,
    (Kind.ELEMENTWISE, Function.RELU_ADD): Bypass,
    (Kind.LSTM, Function.NONE): Step,
    (Kind.GRU, Function.NONE): Step,
    (Kind.LOOKUP, Function.NONE): Lookup,
    (Kind.SOFTMAX, Function.NONE): LogSoftmax,
    (Kind.SOFTMAX, Function.PROBABILITIES): Probabilities,
    **{
        (Kind.ELEMENTWISE, function): Elementwise
        for function in (
            Function.NONE, Function.ADD, Function.MULTIPLY, Function.TANH, Function.SIGMOID, Function.RELU,
            Function.ADD_TANH, Function.MULTIPLY_TANH, Function.ADD_RELU, Function.MULTIPLY_RELU,
            Function.SWISH, Function.GLU, Function.ADD_HALF,
        )
    },
}  # fmt: skip

COPIES = (Kind.STATE_IN, Kind.STATE_OUT)
"""Copies of states that the caller keeps: outside loops, states are inputs and outputs by their own names."""


def read_operations(trace: Trace, given: Parameters) -> list[Operation]:
    """The operations of a trace in its order, constants first, with their parameters packed; a loop is one of them.

    Raises HwsimError for an operation that is not executed, naming its kind and layer.
    """
    operations: list[Operation] = []
    loops = trace.loop
    at = 0
    while at < len(trace):
        if loops[at] < 0:
            (row,) = rows(trace, at, at + 1)
            at += 1
            if row.kind in COPIES:
                continue
            make = MAKERS.get((row.kind, row.function))
            if make is None:
                raise row.refuse("is not executed")
            operations.append(make(row, given))
            continue
        end = at + int(np.argmax(np.append(loops[at:] != loops[at], True)))
        first = int(np.count_nonzero(trace.iteration[at:end] == 0))
        operations.append(read_loop(list(rows(trace, at, at + first)), given))
        at = end
    return [*read_constants(given, operations), *operations]
