"""Small traces with one of everything that a trace can hold."""

from __future__ import annotations

import numpy as np

from hwsim.trace import Function, Kind, Role, Trace, TraceBuilder
from hwsim.trace.builder import Operand
from hwsim.trace.table import OP_COLUMNS

LISTS = ("dep_ptr", "dep", "operand_ptr", "operand_tensor", "operand_elements", "operand_write")


def small_trace() -> Trace:
    """A product, a convolution, two branches of a loop, a step of a search; 340 + 24 + 300 parameters."""
    b = TraceBuilder("small", {"workload": "small", "frames": 3, "audio_s": 0.06, "note": "sieben Zwerge, 7 µs"})
    x = b.tensor("encoder.input", Role.ACTIVATION, (3, 16), "encoder.layer0")
    h = b.tensor("encoder.layer0.h", Role.ACTIVATION, (3, 20))
    w, bias = b.tensor("encoder.layer0.w", Role.WEIGHT, (16, 20)), b.tensor("encoder.layer0.b", Role.BIAS, (20,))
    b.matmul("encoder.layer0", [x], w, h, m=3, bias=bias)
    kernel = b.tensor("encoder.conv.w", Role.WEIGHT, (3, 2, 4))
    y = b.tensor("encoder.conv.out", Role.ACTIVATION, (3, 8))
    reads = [Operand(h, per_row=20), Operand(kernel, fixed=24)]
    b.op(Kind.CONV1D, "encoder.conv", reads, [Operand(y, per_row=8)], m=3, k=6, n=2, batch=2)
    state = [b.tensor(f"encoder.layer1.c{i}", Role.STATE, (1, 10)) for i in (0, 1)]
    weights = [b.tensor(f"encoder.layer1.w{i}", Role.WEIGHT, (10, 10)) for i in (0, 1)]
    with b.loop(4):
        for branch in (0, 1):
            b.matmul("encoder.layer1", [state[branch]], weights[branch], state[branch], m=1, branch=branch)
    table = b.tensor("prediction.embedding.table", Role.WEIGHT, (10, 10))
    row = b.tensor("prediction.embedding.row", Role.ACTIVATION, (5, 10))
    rows = np.array([1, 0, 5])
    with b.loop(3):
        b.op(Kind.LOOKUP, "prediction.embedding", [Operand(table, 10)], [Operand(row, 10)], m=rows, n=10)
        b.op(Kind.SOFTMAX, "prediction.output", [Operand(row, 10)], [Operand(row, 10)], m=rows, n=10)
    sides = [Operand(row, 10), Operand(row, 10)]
    b.op(Kind.ELEMENTWISE, "joint", sides, [Operand(row, 10)], m=5, n=10, function=Function.ADD_TANH)
    return b.build()


def equal(one: Trace, other: Trace) -> bool:
    """Whether two traces are the same in everything that is saved."""
    parts = ("name", "layers", "tensors", "meta", "input_formats")
    return all(getattr(one, part) == getattr(other, part) for part in parts) and all(
        np.array_equal(mine, theirs)
        for mine, theirs in [
            *((one.columns[name], other.columns[name]) for name in OP_COLUMNS),
            *((getattr(one, name), getattr(other, name)) for name in LISTS),
        ]
    )
