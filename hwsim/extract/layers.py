"""Layers of feed-forward networks as operations: each declares its tensors and returns what it writes.

Tensors are named `<layer>.<part>`; activations have one row per frame.
"""

from __future__ import annotations

from collections.abc import Sequence

from hwsim.errors import HwsimError
from hwsim.trace import Function, Kind, Role, TraceBuilder
from hwsim.trace.builder import Operand

EPSILON = 1e-5


def linear(b: TraceBuilder, layer: str, x: Sequence[int], inputs: int, outputs: int, rows: int, *,
           bias: bool = True, role: Role = Role.ACTIVATION) -> int:  # fmt: skip
    """`out (rows, outputs) = x @ weight (inputs, outputs) + bias`."""
    weight = b.tensor(f"{layer}.weight", Role.WEIGHT, (inputs, outputs))
    offset = b.tensor(f"{layer}.bias", Role.BIAS, (outputs,)) if bias else None
    out = b.tensor(f"{layer}.out", role, (rows, outputs))
    b.matmul(layer, x, weight, out, m=rows, bias=offset)
    return out


def norm(b: TraceBuilder, layer: str, x: int, width: int, rows: int, epsilon: float = EPSILON) -> int:
    """Layer norm: `out (rows, width)` of x, with `gamma` and `beta` (width,)."""
    gamma, beta = (b.tensor(f"{layer}.{part}", Role.BIAS, (width,)) for part in ("gamma", "beta"))
    out = b.tensor(f"{layer}.out", Role.ACTIVATION, (rows, width))
    b.attributes(layer, epsilon=epsilon)
    reads = [Operand(x, width), Operand(gamma, fixed=width), Operand(beta, fixed=width)]
    b.op(Kind.NORM, layer, reads, [Operand(out, width)], m=rows, n=width)
    return out


def pointwise(b: TraceBuilder, layer: str, function: Function, operands: Sequence[int], width: int, rows: int, *,
              part: str = "out", role: Role = Role.ACTIVATION) -> int:  # fmt: skip
    """An element-wise function of tensors of `rows` rows: `<layer>.<part> (rows, width)`; GLU reads 2 width."""
    out = b.tensor(f"{layer}.{part}", role, (rows, width), layer)
    read = 2 * width if function == Function.GLU else width
    b.op(Kind.ELEMENTWISE, layer, [Operand(x, read) for x in operands], [Operand(out, width)], m=rows, n=width,
         function=function)  # fmt: skip
    return out


def conv_frames(frames: int, kernel: int, stride: int, padding: tuple[int, int]) -> int:
    """Output frames of a convolution: (frames + left + right - kernel) // stride + 1.

    Raises HwsimError when the kernel does not fit once.
    """
    padded = frames + sum(padding)
    if padded < kernel:
        raise HwsimError(f"a convolution must have at least as many frames as its kernel of {kernel}, got {padded}")
    return (padded - kernel) // stride + 1


def conv1d(b: TraceBuilder, layer: str, x: int, inputs: int, outputs: int, frames: int, *, kernel: int,
           stride: int = 1, padding: tuple[int, int] = (0, 0), depthwise: bool = False,
           bias: bool = True) -> int:  # fmt: skip
    """A convolution over time: `out (T', outputs)` of x (frames, inputs), see `conv_frames`.

    `weight` is (kernel, inputs, outputs); of a depthwise one, whose outputs are its inputs, (kernel, inputs).
    """
    if depthwise and inputs != outputs:
        raise HwsimError(f"{layer}: a depthwise convolution must have as many outputs as inputs, got {outputs}")
    shape = (kernel, inputs) if depthwise else (kernel, inputs, outputs)
    weight = b.tensor(f"{layer}.weight", Role.WEIGHT, shape)
    after = conv_frames(frames, kernel, stride, padding)
    reads = [Operand(x, fixed=frames * inputs), Operand(weight, fixed=kernel * inputs * (1 if depthwise else outputs))]
    if bias:
        reads.append(Operand(b.tensor(f"{layer}.bias", Role.BIAS, (outputs,)), fixed=outputs))
    out = b.tensor(f"{layer}.out", Role.ACTIVATION, (after, outputs))
    b.attributes(layer, padding=list(padding), stride=stride)
    kind = Kind.DEPTHWISE if depthwise else Kind.CONV1D
    k, n, batch = (kernel, 1, inputs) if depthwise else (kernel * inputs, outputs, 1)
    b.op(kind, layer, reads, [Operand(out, outputs)], m=after, k=k, n=n, batch=batch)
    return out
