"""Layers of feed-forward networks as operations: each declares its tensors and returns what it writes.

Tensors are named `<layer>.<part>`; activations have one row per frame.
"""

from __future__ import annotations

from collections.abc import Sequence

from hwsim.errors import HwsimError
from hwsim.trace import Function, Kind, Role, TraceBuilder
from hwsim.trace.builder import Operand

EPSILON = 1e-5


def linear(b: TraceBuilder, layer: str, x: Sequence[int], inputs: int, outputs: int, rows: int, *, bias: bool = True,
           role: Role = Role.ACTIVATION, kept: int = 0, owner: str | None = None) -> int:  # fmt: skip
    """`out (rows, outputs) = x @ weight (inputs, outputs) + bias`, beside `kept` rows of before.

    `owner`: the layer whose precision `out` takes, when it is not this one.
    """
    weight = b.tensor(f"{layer}.weight", Role.WEIGHT, (inputs, outputs))
    offset = b.tensor(f"{layer}.bias", Role.BIAS, (outputs,)) if bias else None
    out = b.tensor(f"{layer}.out", role, (kept + rows, outputs), owner)
    b.matmul(layer, x, weight, out, m=rows, bias=offset, kept=kept)
    return out


def norm(b: TraceBuilder, layer: str, x: int, width: int, rows: int, epsilon: float = EPSILON,
         out_rows: int | None = None) -> int:  # fmt: skip
    """Layer norm: `out (rows, width)` of x, with `gamma` and `beta` (width,); `out_rows`: of `out`, if they differ."""
    gamma, beta = (b.tensor(f"{layer}.{part}", Role.BIAS, (width,)) for part in ("gamma", "beta"))
    out = b.tensor(f"{layer}.out", Role.ACTIVATION, (out_rows or rows, width))
    b.attributes(layer, epsilon=epsilon)
    reads = [Operand(x, width), Operand(gamma, fixed=width), Operand(beta, fixed=width)]
    b.op(Kind.NORM, layer, reads, [Operand(out, width)], m=rows, n=width)
    return out


def pointwise(b: TraceBuilder, layer: str, function: Function, operands: Sequence[int], width: int, rows: int, *,
              part: str = "out", role: Role = Role.ACTIVATION, kept: int = 0) -> int:  # fmt: skip
    """An element-wise function of tensors of `rows` rows: `<layer>.<part> (rows, width)`; GLU reads 2 width.

    `kept`: rows of before that stay beside the new ones.
    """
    out = b.tensor(f"{layer}.{part}", role, (kept + rows, width), layer)
    read = 2 * width if function == Function.GLU else width
    reads = [Operand(x, read) for x in operands] + [Operand(out, fixed=kept * width)] * (kept > 0)
    b.op(Kind.ELEMENTWISE, layer, reads, [Operand(out, width)], m=rows, n=width, function=function)
    return out


def conv_frames(frames: int, kernel: int, stride: int, padding: tuple[int, int], dilation: int = 1) -> int:
    """Output frames of a convolution: (frames + left + right - span) // stride + 1, span = (kernel - 1) dilation + 1.

    Raises HwsimError when the kernel does not fit once.
    """
    padded, span = frames + sum(padding), (kernel - 1) * dilation + 1
    if padded < span:
        raise HwsimError(f"a convolution must have at least as many frames as its kernel of {span}, got {padded}")
    return (padded - span) // stride + 1


def conv1d(b: TraceBuilder, layer: str, x: int, inputs: int, outputs: int, frames: int, *, kernel: int,
           stride: int = 1, padding: tuple[int, int] = (0, 0), depthwise: bool = False, bias: bool = True,
           kept: int = 0, dilation: int = 1, role: Role = Role.ACTIVATION) -> int:  # fmt: skip
    """A convolution over time: `out (T', outputs)` of x (frames, inputs), see `conv_frames`.

    `weight` is (kernel, inputs, outputs); of a depthwise one, whose outputs are its inputs, (kernel, inputs). `kept`:
    rows of x of before, which it reads in place of padding. `dilation`: frames from tap to tap, 1 if depthwise.
    """
    if depthwise and inputs != outputs:
        raise HwsimError(f"{layer}: a depthwise convolution must have as many outputs as inputs, got {outputs}")
    if depthwise and dilation != 1:
        raise HwsimError(f"{layer}: a depthwise convolution must have a dilation of 1, got {dilation}")
    shape = (kernel, inputs) if depthwise else (kernel, inputs, outputs)
    weight = b.tensor(f"{layer}.weight", Role.WEIGHT, shape)
    after = conv_frames(frames, kernel, stride, padding, dilation)
    read = (kept + frames) * inputs
    reads = [Operand(x, fixed=read), Operand(weight, fixed=kernel * inputs * (1 if depthwise else outputs))]
    if bias:
        reads.append(Operand(b.tensor(f"{layer}.bias", Role.BIAS, (outputs,)), fixed=outputs))
    out = b.tensor(f"{layer}.out", role, (after, outputs))
    b.attributes(layer, padding=list(padding), stride=stride, **({} if dilation == 1 else {"dilation": dilation}))
    kind = Kind.DEPTHWISE if depthwise else Kind.CONV1D
    k, n, batch = (kernel, 1, inputs) if depthwise else (kernel * inputs, outputs, 1)
    b.op(kind, layer, reads, [Operand(out, outputs)], m=after, k=k, n=n, batch=batch)
    return out


def conv2d(b: TraceBuilder, layer: str, x: int, shape: tuple[int, int, int], outputs: int, *, stride: int = 1,
           before: int = 1, depthwise: bool = False) -> tuple[int, tuple[int, int, int]]:  # fmt: skip
    """A 3 x 3 convolution over time and features, `out (T', F', outputs)` of x of `shape` (T, F, C), and its shape.

    Two zeros pad the time, `before` of them at its start, and one each side of the features: T' = ceil(T / stride).
    `weight` is (3, 3, C, outputs); of a depthwise one, whose outputs are its inputs, (3, 3, C).
    """
    frames, features, channels = shape
    padding = [[before, 2 - before], [1, 1]]
    after = (conv_frames(frames, 3, stride, (before, 2 - before)), conv_frames(features, 3, stride, (1, 1)), outputs)
    weight = b.tensor(f"{layer}.weight", Role.WEIGHT, (3, 3, channels) if depthwise else (3, 3, channels, outputs))
    bias = b.tensor(f"{layer}.bias", Role.BIAS, (outputs,))
    out = b.tensor(f"{layer}.out", Role.ACTIVATION, after)
    b.attributes(layer, padding=padding, stride=[stride, stride])
    k, n, batch = (9, 1, channels) if depthwise else (9 * channels, outputs, 1)
    reads = [Operand(x, fixed=frames * features * channels), Operand(weight, fixed=k * n * batch),
             Operand(bias, fixed=outputs)]  # fmt: skip
    kind = Kind.DEPTHWISE if depthwise else Kind.CONV2D
    b.op(kind, layer, reads, [Operand(out, outputs)], m=after[0] * after[1], k=k, n=n, batch=batch)
    return out, after
