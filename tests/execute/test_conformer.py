"""A Conformer block as a trace, free running, against its definition in integers and its graph in float64.

The block: half a feed-forward layer, self-attention, a convolution module, half a feed-forward layer, each after a
layer norm and added to its input, then a layer norm. The same parameters drive three evaluations: the executor reads
a trace, `Codes` knows integers only, `Graph` reals only; they share the tables of the non-linear functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from hwsim.execute import operations
from hwsim.execute.executor import Executable
from hwsim.execute.reference.attention import Attention
from hwsim.execute.reference.linear import depthwise_conv, linear
from hwsim.execute.reference.pointwise import activation, add, glu, layer_norm
from hwsim.numerics.calibration import NativeQat
from hwsim.numerics.quantizers import Quantizer
from hwsim.numerics.tables import Table, build_table, exponential_table, fixed_table, grid
from hwsim.trace import Function, Kind, Role, Trace, TraceBuilder
from hwsim.trace.builder import Operand

FRAMES, MODEL, HEADS, INNER, KERNEL = 1200, 144, 4, 576, 15
RNG = np.random.default_rng(0)


def quantizer(bound: float, bits: int = 8) -> Quantizer:
    """Scales with long mantissas: short decimals make products that are ties but for the last bit."""
    return Quantizer(np.asarray(bound * RNG.uniform(0.9, 1.1) / (2 ** (bits - 1) - 1)), bits)


STREAM, NORMAL, HIDDEN, SCORES = quantizer(6.0, 16), quantizer(4.0), quantizer(3.0), quantizer(8.0)
# With the scale of the values it would be in the ratio 1/256 to the products: exact ties, where a graph in floats
# does not reproduce itself.
ATTENDED = quantizer(2.0)
SHAPES = {
    **{f"{name}{i}": shape for i in (1, 2) for name, shape in (("up", (MODEL, INNER)), ("down", (INNER, MODEL)))},
    **dict.fromkeys(("q", "k", "v", "out", "point"), (MODEL, MODEL)),
    "gated": (MODEL, 2 * MODEL),
}
WEIGHTS = {name: RNG.standard_normal(shape) / np.sqrt(shape[0]) for name, shape in SHAPES.items()}
BIASES = {name: RNG.standard_normal(shape[1]) * 0.1 for name, shape in SHAPES.items()}
WEIGHT_QUANTIZERS = {name: NativeQat(4, axis=1).calibrate(w) for name, w in WEIGHTS.items()}
DEPTHWISE = RNG.standard_normal((KERNEL, MODEL)) / np.sqrt(KERNEL)
DEPTHWISE_QUANTIZER = NativeQat(8, axis=1).calibrate(DEPTHWISE)
NORMS = [(RNG.uniform(0.5, 1.5, MODEL), RNG.standard_normal(MODEL) * 0.1) for _ in range(5)]
SIGMOID = fixed_table("sigmoid")
SWISH = build_table("swish", lambda x: x * SIGMOID(x), HIDDEN, HIDDEN)
GATE = build_table("sigmoid", SIGMOID, HIDDEN, grid(2.0**-15))
HALVED = replace(HIDDEN, scale=HIDDEN.scale / 2)
CONTEXT = 64


def mask(frames: int) -> np.ndarray:
    return np.abs(np.arange(frames)[:, None] - np.arange(frames)) <= CONTEXT


def heads(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), HEADS, -1).swapaxes(0, 1)


class Codes:
    """The block on codes."""

    attention = Attention(HIDDEN, HIDDEN, HIDDEN, SCORES, ATTENDED)

    def norm(self, x: np.ndarray, index: int, output: Quantizer = NORMAL) -> np.ndarray:
        return layer_norm(x, STREAM, output, *NORMS[index])

    def linear(self, x: np.ndarray, name: str, input: Quantizer = NORMAL) -> np.ndarray:
        weights = WEIGHT_QUANTIZERS[name]
        return linear(x, weights.quantize(WEIGHTS[name]), input, weights, HIDDEN, BIASES[name])

    def table(self, x: np.ndarray, table: Table) -> np.ndarray:
        return activation(x, table)

    def add(self, x: np.ndarray, y: np.ndarray, second: Quantizer = HIDDEN) -> np.ndarray:
        return add(x, y, STREAM, second, STREAM)

    def attend(self, *parts: np.ndarray) -> np.ndarray:
        q, k, v = (heads(part) for part in parts)
        return self.attention.run(q, k, v, mask(len(parts[0]))).swapaxes(0, 1).reshape(-1, MODEL)

    def glu(self, x: np.ndarray) -> np.ndarray:
        a, b = np.split(x, 2, axis=-1)
        return glu(a, b, HIDDEN, GATE, HIDDEN)

    def depthwise(self, x: np.ndarray) -> np.ndarray:
        codes = DEPTHWISE_QUANTIZER.quantize(DEPTHWISE)
        return depthwise_conv(x, codes, HIDDEN, DEPTHWISE_QUANTIZER, HIDDEN, left=KERNEL - 1)


class Graph:
    """The same block on reals, as a training graph evaluates it."""

    def norm(self, x: np.ndarray, index: int, output: Quantizer = NORMAL) -> np.ndarray:
        gamma, beta = NORMS[index]
        normal = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
        return output.fake_quantize(normal * gamma + beta)

    def linear(self, x: np.ndarray, name: str, input: Quantizer = NORMAL) -> np.ndarray:
        return HIDDEN.fake_quantize(x @ WEIGHT_QUANTIZERS[name].fake_quantize(WEIGHTS[name]) + BIASES[name])

    def table(self, x: np.ndarray, table: Table) -> np.ndarray:
        return table(x)

    def add(self, x: np.ndarray, y: np.ndarray, second: Quantizer = HIDDEN) -> np.ndarray:
        return STREAM.fake_quantize(x + y * float(second.scale / HIDDEN.scale))

    def attend(self, *parts: np.ndarray) -> np.ndarray:
        q, k, v = (heads(part) for part in parts)
        kept = mask(len(parts[0]))
        scores = SCORES.quantize(q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1]))
        below = np.where(kept, np.where(kept, scores, -128).max(axis=-1, keepdims=True) - scores, 0)
        e = np.where(kept, exponential_table(float(SCORES.scale))[below], 0) / 2.0**15
        p = np.minimum(np.floor(e / e.sum(axis=-1, keepdims=True) * 256 + 0.5), 255) / 256
        return ATTENDED.fake_quantize(p @ v).swapaxes(0, 1).reshape(-1, MODEL)

    def glu(self, x: np.ndarray) -> np.ndarray:
        a, b = np.split(x, 2, axis=-1)
        return HIDDEN.fake_quantize(a * GATE(b))

    def depthwise(self, x: np.ndarray) -> np.ndarray:
        padded, kernel = np.pad(x, ((KERNEL - 1, 0), (0, 0))), DEPTHWISE_QUANTIZER.fake_quantize(DEPTHWISE)
        return HIDDEN.fake_quantize(sum(padded[k : k + len(x)] * kernel[k] for k in range(KERNEL)))


def block(run: Codes | Graph, x: np.ndarray) -> list[np.ndarray]:
    """What leaves each of the five parts."""
    stages = []
    for index, name in ((0, "1"), (3, "2")):
        hidden = run.table(run.linear(run.norm(x, index), f"up{name}"), SWISH)
        x = run.add(x, run.linear(hidden, f"down{name}", HIDDEN), HALVED)
        stages.append(x)
        if index == 0:
            normal = run.norm(x, 1)
            attended = run.attend(*(run.linear(normal, part) for part in "qkv"))
            x = run.add(x, run.linear(attended, "out", ATTENDED))
            stages.append(x)
            gated = run.glu(run.linear(run.norm(x, 2), "gated"))
            x = run.add(x, run.linear(run.table(run.depthwise(gated), SWISH), "point", HIDDEN))
            stages.append(x)
    return [*stages, run.norm(x, 4)]


class Emitter:
    """The block as a trace, with the codes and grids of its tensors."""

    def __init__(self, frames: int) -> None:
        self.builder, self.frames = TraceBuilder("block"), frames
        self.codes: dict[str, np.ndarray] = {}
        self.grids: dict[str, Quantizer] = {}
        self.widths: dict[int, int] = {}

    def tensor(self, name: str, width: int, output: Quantizer, *shape: int) -> int:
        self.grids[name] = output
        index = self.builder.tensor(name, Role.ACTIVATION, shape or (self.frames, width))
        self.widths[index] = width
        return index

    def weight(self, name: str, reals: np.ndarray, quantizer: Quantizer) -> int:
        self.grids[name], self.codes[name] = quantizer, quantizer.quantize(reals)
        return self.builder.tensor(name, Role.WEIGHT, reals.shape)

    def vector(self, name: str, reals: np.ndarray) -> int:
        self.codes[name] = reals
        return self.builder.tensor(name, Role.BIAS, reals.shape)

    def rowwise(self, kind: Kind, layer: str, reads: list[int], out: int, function: Function, *fixed: int) -> int:
        width = self.widths[out]
        operands = [Operand(x, self.widths[x]) for x in reads] + [Operand(v, fixed=MODEL) for v in fixed]
        self.builder.op(kind, layer, operands, [Operand(out, width)], m=self.frames, n=width, function=function)
        return out

    def norm(self, x: int, index: int) -> int:
        layer = f"block.norm{index}"
        vectors = [self.vector(f"{layer}.{n}", v) for n, v in zip(("gamma", "beta"), NORMS[index], strict=True)]
        out = self.tensor(f"{layer}.out", MODEL, NORMAL)
        return self.rowwise(Kind.NORM, layer, [x], out, Function.NONE, *vectors)

    def linear(self, x: int, name: str) -> int:
        layer = f"block.{name}"
        w = self.weight(f"{layer}.weight", WEIGHTS[name], WEIGHT_QUANTIZERS[name])
        bias, out = self.vector(f"{layer}.bias", BIASES[name]), self.tensor(f"{layer}.out", SHAPES[name][1], HIDDEN)
        self.builder.matmul(layer, [x], w, out, m=self.frames, bias=bias)
        return out

    def pointwise(self, name: str, function: Function, reads: list[int], output: Quantizer = HIDDEN) -> int:
        width = self.widths[reads[0]] // (2 if function == Function.GLU else 1)
        out = self.tensor(f"block.{name}.out", width, output)
        return self.rowwise(Kind.ELEMENTWISE, f"block.{name}", reads, out, function)

    def attend(self, q: int, k: int, v: int) -> int:
        layer, frames, depth = "block.attention", self.frames, MODEL // HEADS
        shape = (HEADS, frames, frames)
        scores = self.tensor(f"{layer}.scores", frames, SCORES, *shape)
        probability = Quantizer(np.asarray(2.0**-8), signed=False)
        probabilities = self.tensor(f"{layer}.probabilities", frames, probability, *shape)
        out, op = self.tensor(f"{layer}.out", MODEL, ATTENDED), self.builder.op
        keys, rows = frames * MODEL, Operand(q, MODEL)
        op(Kind.MATMUL, layer, [rows, Operand(k, fixed=keys)], [Operand(scores, HEADS * frames)], m=frames, k=depth,
           n=frames, batch=HEADS, function=Function.SCORES)  # fmt: skip
        op(Kind.SOFTMAX, layer, [Operand(scores, frames)], [Operand(probabilities, frames)], m=HEADS * frames, n=frames,
           function=Function.PROBABILITIES)  # fmt: skip
        op(Kind.MATMUL, layer, [Operand(probabilities, HEADS * frames), Operand(v, fixed=keys)], [Operand(out, MODEL)],
           m=frames, k=frames, n=depth, batch=HEADS, function=Function.CONTEXT)  # fmt: skip
        self.builder.attributes(layer, left=CONTEXT, right=CONTEXT)
        return out

    def depthwise(self, x: int) -> int:
        layer = "block.depthwise"
        w = self.weight(f"{layer}.weight", DEPTHWISE, DEPTHWISE_QUANTIZER)
        out = self.tensor(f"{layer}.out", MODEL, HIDDEN)
        reads = [Operand(x, MODEL), Operand(w, fixed=KERNEL * MODEL)]
        self.builder.op(Kind.DEPTHWISE, layer, reads, [Operand(out, MODEL)], m=self.frames, k=KERNEL, batch=MODEL)
        self.builder.attributes(layer, padding=[KERNEL - 1, 0], stride=1)
        return out

    def feed_forward(self, x: int, index: int, name: str) -> int:
        hidden = self.linear(self.norm(x, index), f"up{name}")
        down = self.linear(self.pointwise(f"swish{name}", Function.SWISH, [hidden]), f"down{name}")
        return self.pointwise(f"stage{name}", Function.ADD_HALF, [x, down], STREAM)

    def block(self) -> Trace:
        x = self.feed_forward(self.tensor("block.input.x", MODEL, STREAM), 0, "1")
        normal = self.norm(x, 1)
        attended = self.linear(self.attend(*(self.linear(normal, part) for part in "qkv")), "out")
        x = self.pointwise("stage_attention", Function.ADD, [x, attended], STREAM)
        gated = self.pointwise("glu", Function.GLU, [self.linear(self.norm(x, 2), "gated")])
        point = self.linear(self.pointwise("swish", Function.SWISH, [self.depthwise(gated)]), "point")
        x = self.pointwise("stage_convolution", Function.ADD, [x, point], STREAM)
        self.norm(self.feed_forward(x, 3, "2"), 4)
        return self.builder.build()


STAGES = ("stage1", "stage_attention", "stage_convolution", "stage2", "norm4")


def run_trace(x: np.ndarray, change: Callable[[Trace, dict[str, np.ndarray]], Trace] | None = None) -> list[np.ndarray]:
    """What leaves each of the five parts of the trace, which `change` may spoil."""
    emitter = Emitter(len(x))
    trace = emitter.block()
    if change is not None:
        trace = change(trace, emitter.codes)
    outputs = Executable(trace, emitter.codes, emitter.grids).run({"block.input.x": x})
    return [outputs[f"block.{name}.out"] for name in STAGES]


def features(frames: int) -> np.ndarray:
    return STREAM.quantize(np.random.default_rng(1).standard_normal((frames, MODEL)))


def test_a_block_free_running() -> None:
    """5 x 172,800 codes, of which four are of the 16-bit residual stream: none differs."""
    x = features(FRAMES)
    executed, codes, reals = run_trace(x), block(Codes(), x), block(Graph(), STREAM.dequantize(x))
    for ours, defined, real, output in zip(executed, codes, reals, [STREAM] * 4 + [NORMAL], strict=True):
        assert ours.size == 172_800
        assert len(np.unique(ours)) > 100
        assert np.count_nonzero(ours != defined) == 0
        assert np.count_nonzero(ours != output.quantize(real)) == 0


def of_layer(layer: str, **values: object) -> Callable[[Trace, dict[str, np.ndarray]], Trace]:
    return lambda trace, _: replace(trace, attributes={**trace.attributes, f"block.{layer}": values})


def halves_exchanged(trace: Trace, codes: dict[str, np.ndarray]) -> Trace:
    """GLU as sigmoid(a) b: the layer before it gives b beside a."""
    for name in ("block.gated.weight", "block.gated.bias"):
        codes[name] = np.roll(codes[name], MODEL, axis=-1)
    return trace


def whole_steps(trace: Trace, _: dict[str, np.ndarray]) -> Trace:
    function = np.where(trace.function == Function.ADD_HALF, Function.ADD, trace.function)
    return replace(trace, columns={**trace.columns, "function": function})


@pytest.mark.parametrize(
    ("change", "stage"),
    [
        (whole_steps, 0),
        (of_layer("norm0", epsilon=1e-2), 0),
        (of_layer("attention"), 1),
        (of_layer("attention", left=CONTEXT - 1, right=CONTEXT), 1),
        (of_layer("attention", left=CONTEXT, right=CONTEXT - 1), 1),
        (halves_exchanged, 2),
        (of_layer("depthwise", padding=[0, KERNEL - 1]), 2),
        (of_layer("depthwise", padding=[KERNEL // 2, KERNEL // 2]), 2),
    ],
)
def test_a_spoiled_block_is_seen(change: Callable[[Trace, dict[str, np.ndarray]], Trace], stage: int) -> None:
    """The first stage that differs is the one that was spoiled."""
    x = features(80)
    same = [np.array_equal(a, b) for a, b in zip(run_trace(x, change), block(Codes(), x), strict=True)]
    assert same == [True] * stage + [False] * (5 - stage)


@pytest.mark.parametrize("factor", [0.5, 2.0, 1 / np.sqrt(HEADS)])
def test_another_root_of_d_is_seen(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """1 / sqrt(H d) in place of 1 / sqrt(d), and other powers of two."""
    x = features(20)
    expected, own = block(Codes(), x), operations.attention.score_scale
    assert np.array_equal(run_trace(x)[1], expected[1])
    monkeypatch.setattr(operations.attention, "score_scale", lambda *a: own(*a) * factor)
    assert not np.array_equal(run_trace(x)[1], expected[1])
