"""Small executables for the oracles, with inputs: one for each kind of operation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from hwsim.execute.executor import Executable
from hwsim.execute.reference.attention import probability_grid
from hwsim.extract.gru import GruLayer
from hwsim.extract.lstm import LstmLayer
from hwsim.numerics.calibration import BoundAware, MinMax, Sawb
from hwsim.numerics.quantizers import Quantizer
from hwsim.trace import Function, Kind, Role, TraceBuilder
from tests.execute.single import Network

Case = tuple[Executable, dict[str, Any]]
FRAMES, WIDTH = 40, 24


def quantizer(scale: float, zero: int = 0, bits: int = 8, **more: Any) -> Quantizer:
    return Quantizer(np.asarray(scale), bits, np.asarray(zero), **more)


IN, OUT = quantizer(0.0311, 5), quantizer(0.0437, -9)


def noise(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def int_codes(*shape: int, limit: int = 7, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(-limit, limit + 1, shape)


def mlp(frames: int = 200, sizes: tuple[int, ...] = (40, 48, 32, 24), gain: float = 0.4) -> Case:
    """int4 by SAWB and a bias; int2 to unsigned codes of 4 bits and a bias; int8 by channel without one."""
    b, rng = TraceBuilder("mlp"), np.random.default_rng(0)
    codes: dict[str, Any] = {}
    grids = {"layer0.input": BoundAware(3.0, 8).calibrate()}
    x = b.tensor("layer0.input", Role.ACTIVATION, (frames, sizes[0]))
    recipes = (Sawb(4), MinMax(2), MinMax(8, axis=1))
    outputs = (quantizer(1 / 40, 11), quantizer(0.31, 4, 4, signed=False), quantizer(1 / 90, bits=6))
    for at, (depth, columns) in enumerate(pairwise(sizes)):
        name = f"layer{at}"
        weight = b.tensor(f"{name}.weight", Role.WEIGHT, (depth, columns))
        bias = b.tensor(f"{name}.bias", Role.BIAS, (columns,)) if at < 2 else None
        out = b.tensor(f"{name}.out", Role.ACTIVATION, (frames, columns))
        reals = rng.uniform(-gain, gain, (depth, columns))
        grids[f"{name}.weight"], grids[f"{name}.out"] = recipes[at].calibrate(reals), outputs[at]
        codes[f"{name}.weight"] = grids[f"{name}.weight"].quantize(reals)
        if bias is not None:
            codes[f"{name}.bias"] = rng.uniform(-0.5, 0.5, columns)
        b.matmul(name, [x], weight, out, m=frames, bias=bias)
        x = out
    return Executable(b.build(), codes, grids), {"layer0.input": noise(frames, sizes[0])}


def tied() -> Case:
    """One product on powers of two, of which many sums are ties: weights of int4 and int8 at once do not matter."""
    net = Network("joint")
    net.tensor("x", (64, 16), quantizer(2.0**-4))
    net.tensor("out", (64, 48), quantizer(2.0**-5, 3))
    net.op(Kind.MATMUL, ["x", net.weight("weight", int_codes(16, 48), quantizer(2.0**-3, bits=4))], "out",
           m=64, k=16, n=48)  # fmt: skip
    return net.build(), {"joint.x": int_codes(64, 16, limit=11, seed=1)}


def recurrent(
    kind: type[LstmLayer] | type[GruLayer] = LstmLayer, bits: int = 4, frames: int = FRAMES, cells: int = 16,
    eight_bit: bool = False,
) -> Case:  # fmt: skip
    """A bidirectional layer; with `eight_bit` of the grids that LiteRT's integer LSTM has."""
    b, rng = TraceBuilder("net"), np.random.default_rng(0)
    x = b.tensor("net.x", Role.ACTIVATION, (frames, WIDTH), "net")
    layers = [kind.declare(b, "net", WIDTH, cells, frames, prefix=d, steps=True) for d in ("forward_", "backward_")]
    for branch, layer in enumerate(layers):
        layer.project_input(b, [x], frames, branch)
    with b.loop(frames):
        for branch, layer in enumerate(layers):
            layer.step(b, 1, branch)
    trace = b.build()
    codes: dict[str, Any] = {}
    grids: dict[str, Quantizer] = {}
    for tensor in trace.tensors:
        reals = rng.uniform(-2.5, 2.5, tensor.shape) / np.sqrt(cells)
        if tensor.role == Role.WEIGHT:
            recipe = MinMax(8) if eight_bit else Sawb(4) if bits == 4 else MinMax(bits)
            grids[tensor.name] = recipe.calibrate(reals)
            codes[tensor.name] = grids[tensor.name].quantize(reals)
        elif tensor.role == Role.BIAS:
            codes[tensor.name] = reals
        elif tensor.role == Role.ACTIVATION:
            bound = BoundAware(3.0 if tensor.name == "net.x" else 1.0, bits).calibrate()
            grids[tensor.name] = quantizer(float(bound.scale), 3) if eight_bit else bound
        elif tensor.name.endswith("_c") and eight_bit:
            grids[tensor.name] = quantizer(2.0**-11, bits=16)
    return Executable(trace, codes, grids), {"net.x": noise(frames, WIDTH)}


def lookup() -> Case:
    net = Network("embedding")
    grid = quantizer(0.07, bits=4)
    table = net.weight("table", int_codes(9, WIDTH), grid)
    net.tensor("labels", (FRAMES,), role=Role.STATE)
    net.tensor("row", (FRAMES, WIDTH), grid)
    net.op(Kind.LOOKUP, [table, "labels"], "row", m=FRAMES, n=WIDTH)
    return net.build(), {"embedding.labels": np.arange(FRAMES) % 9}


def norm() -> Case:
    net = Network("norm")
    net.tensor("x", (FRAMES, WIDTH), IN)
    net.tensor("out", (FRAMES, WIDTH), OUT)
    vectors = [net.vector("gamma", 1 + noise(WIDTH, seed=1) / 4), net.vector("beta", noise(WIDTH, seed=2) / 4)]
    net.op(Kind.NORM, ["x", *vectors], "out", m=FRAMES, n=WIDTH)
    return net.build(epsilon=1e-5), {"norm.x": noise(FRAMES, WIDTH)}


def pointwise(function: Function) -> Callable[[], Case]:
    def build() -> Case:
        net, wide = Network("pointwise"), WIDTH * (2 if function == Function.GLU else 1)
        net.tensor("a", (FRAMES, wide), IN)
        reads, inputs = ["a"], {"pointwise.a": noise(FRAMES, wide)}
        if function in (Function.ADD, Function.MULTIPLY, Function.ADD_HALF, Function.ADD_TANH, Function.MULTIPLY_RELU):
            net.tensor("b", (FRAMES, WIDTH), OUT)
            reads.append("b")
            inputs["pointwise.b"] = noise(FRAMES, WIDTH, seed=1)
        net.tensor("out", (FRAMES, WIDTH), quantizer(0.0171, 2))
        net.op(Kind.ELEMENTWISE, reads, "out", function=function, m=FRAMES, n=WIDTH)
        return net.build(), inputs

    return build


def convolution(kind: Kind) -> Callable[[], Case]:
    def build() -> Case:
        net = Network("conv")
        by_channel = Quantizer(np.random.default_rng(0).uniform(0.01, 0.03, WIDTH), 4)
        shape, kernel, out = {
            Kind.DEPTHWISE: ((FRAMES, WIDTH), (5, WIDTH), (FRAMES, WIDTH)),
            Kind.CONV1D: ((FRAMES, 6), (3, 6, WIDTH), (20, WIDTH)),
            Kind.CONV2D: ((FRAMES, 9, 2), (3, 3, 2, WIDTH), (20, 5, WIDTH)),
        }[kind]
        net.tensor("x", shape, IN)
        reads = ["x", net.weight("weight", int_codes(*kernel), by_channel), net.vector("bias", noise(WIDTH, seed=3))]
        net.tensor("out", out, quantizer(0.05, 4))
        rows, depth = int(np.prod(out[:-1])), int(np.prod(kernel[:-1]))
        columns = {"n": 1, "batch": WIDTH} if kind == Kind.DEPTHWISE else {"n": WIDTH}
        net.op(kind, reads, "out", m=rows, k=depth, **columns)
        attributes: dict[str, Any] = {
            Kind.DEPTHWISE: {"padding": [3, 1], "stride": 1},
            Kind.CONV1D: {"padding": [1, 1], "stride": 2},
            Kind.CONV2D: {"padding": [[1, 1], [1, 1]], "stride": [2, 2]},
        }[kind]
        return net.build(**attributes), {"conv.x": noise(*shape)}

    return build


def dilated() -> Case:
    """Two taps three frames apart from the second frame on, and the bypass around them."""
    net, rows = Network("conv"), FRAMES - 6
    net.tensor("x", (FRAMES, WIDTH), IN)
    net.tensor("y", (rows, WIDTH))
    net.tensor("out", (rows, WIDTH), quantizer(0.05, 4))
    weight = net.weight("weight", int_codes(2, WIDTH, WIDTH), quantizer(0.02, bits=4))
    net.op(Kind.CONV1D, ["x", weight], "y", m=rows, k=2 * WIDTH, n=WIDTH)
    net.op(Kind.ELEMENTWISE, ["y", "x"], "out", function=Function.RELU_ADD, m=rows, n=WIDTH)
    return net.build(dilation=3, first=3, scale=0.66), {"conv.x": noise(FRAMES, WIDTH)}


def attention(relative: bool = True, grids: bool = True, **context: int) -> Callable[[], Case]:
    def build() -> Case:
        heads, depth, frames = 2, 12, 20
        net, shape = Network("block.attention"), (frames, heads * depth)
        given = (quantizer(0.0311), quantizer(0.0417), quantizer(0.0253), quantizer(0.0937), quantizer(0.0191))
        query, key, value, scores, out = given if grids else (None,) * 5
        for part, grid in (("q", query), ("k", key), ("v", value), ("out", out)):
            net.tensor(part, shape, grid)
        net.tensor("scores", (heads, frames, frames), scores)
        net.tensor("probabilities", (heads, frames, frames), probability_grid(8) if grids else None)
        sizes = {"m": frames, "k": depth, "batch": heads, "function": Function.SCORES}
        inputs = {f"block.attention.{part}": noise(*shape, seed=at) for at, part in enumerate("qkv")}
        if relative:
            net.tensor("p", (2 * frames - 1, heads * depth), key)
            net.tensor("content", (heads, frames, frames))
            net.tensor("position", (heads, frames, 2 * frames - 1))
            net.op(Kind.MATMUL, ["q", "k"], "content", n=frames, **sizes)
            net.op(Kind.MATMUL, ["q", "p"], "position", n=2 * frames - 1, **sizes)
            rows = {"m": heads * frames, "n": frames}
            net.op(Kind.ELEMENTWISE, ["content", "position"], "scores", function=Function.RELATIVE_ADD, **rows)
            inputs["block.attention.p"] = noise(2 * frames - 1, heads * depth, seed=4)
        else:
            net.op(Kind.MATMUL, ["q", "k"], "scores", n=frames, **sizes)
        net.op(Kind.SOFTMAX, ["scores"], "probabilities", function=Function.PROBABILITIES, m=heads * frames, n=frames)
        net.op(Kind.MATMUL, ["probabilities", "v"], "out", function=Function.CONTEXT, m=frames, k=frames, n=depth,
               batch=heads)  # fmt: skip
        return net.build(**(context or {"left": 8, "right": 4})), inputs

    return build


def head() -> Case:
    net = Network("head")
    net.tensor("x", (FRAMES, WIDTH), IN)
    net.tensor("logits", (FRAMES, 9), OUT)
    net.tensor("out", (FRAMES, 9), role=Role.STATE)
    net.op(Kind.MATMUL, ["x", net.weight("weight", int_codes(WIDTH, 9), quantizer(0.03, bits=4))], "logits",
           m=FRAMES, k=WIDTH, n=9)  # fmt: skip
    net.op(Kind.SOFTMAX, ["logits"], "out", m=FRAMES, n=9)
    return net.build(), {"head.x": noise(FRAMES, WIDTH)}


def step(kind: type[LstmLayer] | type[GruLayer]) -> Callable[[], Case]:
    """One step of many rows, outside a loop."""

    def build() -> Case:
        b, rows = TraceBuilder("step"), 12
        x = b.tensor("net.x", Role.ACTIVATION, (rows, WIDTH), "net")
        layer = kind.declare(b, "net", WIDTH, 8, rows)
        layer.project_input(b, [x], rows)
        layer.step(b, rows)
        trace, rng = b.build(), np.random.default_rng(0)
        reals = {t.name: rng.uniform(-0.4, 0.4, t.shape) for t in trace.tensors if t.role in (Role.WEIGHT, Role.BIAS)}
        grids = {name: Sawb(4).calibrate(value) for name, value in reals.items() if name.endswith(("wx", "wh"))}
        codes = {name: grids[name].quantize(value) if name in grids else value for name, value in reals.items()}
        grids |= {"net.x": IN, "net.h": BoundAware(1.0, 8).calibrate()}
        executable = Executable(trace, codes, grids)
        shapes = {t.name: t.shape for t in trace.tensors}
        return executable, {name: noise(*shapes[name]) / 3 for name in executable.inputs}

    return build


def halved() -> Case:
    """A product and its output in FP16."""
    net = Network("joint")
    net.tensor("x", (FRAMES, WIDTH))
    net.tensor("out", (FRAMES, 9))
    weight = net.weight("weight", noise(WIDTH, 9, seed=1) / 5, None)
    net.op(Kind.MATMUL, ["x", weight], "out", m=FRAMES, k=WIDTH, n=9)
    executable = net.build()
    trace = replace(executable.trace, tensors=tuple(replace(t, format="fp16") for t in executable.trace.tensors))
    return Executable(trace, net.codes, {}), {"joint.x": noise(FRAMES, WIDTH)}


FUNCTIONS = (Function.NONE, Function.ADD, Function.MULTIPLY, Function.TANH, Function.SIGMOID, Function.RELU,
             Function.ADD_TANH, Function.MULTIPLY_RELU, Function.SWISH, Function.GLU, Function.ADD_HALF)  # fmt: skip
CASES: dict[str, Callable[[], Case]] = {
    "mlp": mlp,
    "lstm": recurrent,
    "gru": lambda: recurrent(GruLayer),
    "lookup": lookup,
    "norm": norm,
    "head": head,
    "attention": attention(relative=False),
    "relative attention": attention(),
    "attention in chunks": attention(relative=False, left=4, chunk=3),
    "lstm step": step(LstmLayer),
    "gru step": step(GruLayer),
    "dilated": dilated,
    **{kind.name.lower(): convolution(kind) for kind in (Kind.DEPTHWISE, Kind.CONV1D, Kind.CONV2D)},
    **{function.name.lower(): pointwise(function) for function in FUNCTIONS},
}
