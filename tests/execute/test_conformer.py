"""A Conformer block in integers, free running, against its fake-quantized graph in float64.

The block: half a feed-forward layer, self-attention, a convolution module, half a feed-forward layer, each after a
layer norm and added to its input, then a layer norm. The same parameters drive two evaluations: `Codes` knows
integers only, `Graph` reals only; they share the tables of the non-linear functions.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hwsim.execute.reference.attention import Attention
from hwsim.execute.reference.linear import depthwise_conv, linear
from hwsim.execute.reference.pointwise import activation, add, glu, layer_norm
from hwsim.numerics.calibration import NativeQat
from hwsim.numerics.quantizers import Quantizer
from hwsim.numerics.tables import Table, build_table, exponential_table, grid, sigmoid, swish

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
SWISH = build_table("swish", swish, HIDDEN, HIDDEN)
GATE = build_table("sigmoid", sigmoid, HIDDEN, grid(2.0**-15))
HALVED = replace(HIDDEN, scale=HIDDEN.scale / 2)
MASK = np.abs(np.arange(FRAMES)[:, None] - np.arange(FRAMES)) <= 64


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
        q, k, v = (part.reshape(FRAMES, HEADS, -1).swapaxes(0, 1) for part in parts)
        return self.attention.run(q, k, v, MASK).swapaxes(0, 1).reshape(FRAMES, MODEL)

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
        q, k, v = (part.reshape(FRAMES, HEADS, -1).swapaxes(0, 1) for part in parts)
        scores = SCORES.quantize(q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1]))
        below = np.where(MASK, np.where(MASK, scores, -128).max(axis=-1, keepdims=True) - scores, 0)
        e = np.where(MASK, exponential_table(float(SCORES.scale))[below], 0) / 2.0**15
        p = np.minimum(np.floor(e / e.sum(axis=-1, keepdims=True) * 256 + 0.5), 255) / 256
        return ATTENDED.fake_quantize(p @ v).swapaxes(0, 1).reshape(FRAMES, MODEL)

    def glu(self, x: np.ndarray) -> np.ndarray:
        a, b = np.split(x, 2, axis=-1)
        return HIDDEN.fake_quantize(a * GATE(b))

    def depthwise(self, x: np.ndarray) -> np.ndarray:
        padded, kernel = np.pad(x, ((KERNEL - 1, 0), (0, 0))), DEPTHWISE_QUANTIZER.fake_quantize(DEPTHWISE)
        return HIDDEN.fake_quantize(sum(padded[k : k + FRAMES] * kernel[k] for k in range(KERNEL)))


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


def test_a_block_free_running() -> None:
    """5 x 172,800 codes, of which four are of the 16-bit residual stream: none differs."""
    x = STREAM.quantize(RNG.standard_normal((FRAMES, MODEL)))
    codes = block(Codes(), x)
    reals = block(Graph(), STREAM.dequantize(x))
    for ours, theirs, output in zip(codes, reals, [STREAM] * 4 + [NORMAL], strict=True):
        assert len(np.unique(ours)) > 100
        assert np.count_nonzero(ours != output.quantize(theirs)) == 0
