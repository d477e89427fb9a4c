"""Conformer blocks and GRU layers as operations: counts against published models, work by hand, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.extract.conformer import AttentionSpec, ConformerSpec, attention, conformer_block, position_encoding
from hwsim.extract.gru import GruLayer
from hwsim.extract.layers import conv1d, conv_frames
from hwsim.trace import Function, Kind, Role, Trace, TraceBuilder

LARGE, SMALL = (ConformerSpec(AttentionSpec(width, heads), kernel=32) for width, heads in ((512, 8), (144, 4)))


def trace_of(spec: ConformerSpec, frames: int, blocks: int = 1) -> Trace:
    b = TraceBuilder("t")
    x = b.tensor("x.features", Role.ACTIVATION, (frames, spec.width))
    encoding = position_encoding(b, "position.encoding", spec.width, frames) if spec.attention.relative else None
    for index in range(blocks):
        x = conformer_block(b, f"encoder.block{index}", spec, x, frames, encoding)
    return b.build()


def parameters(trace: Trace) -> int:
    return sum(t.elements for t in trace.tensors if t.role in (Role.WEIGHT, Role.BIAS))


@given(
    st.integers(1, 4), st.integers(1, 5), st.integers(1, 7), st.integers(1, 5), st.booleans(), st.booleans(),
    st.integers(1, 6),
)  # fmt: skip
def test_the_formulas_count_the_tensors(
    heads: int, depth: int, kernel: int, factor: int, relative: bool, causal: bool, frames: int
) -> None:
    spec = ConformerSpec(AttentionSpec(heads * depth, heads, relative=relative), kernel, factor, causal)
    trace = trace_of(spec, frames)
    assert parameters(trace) == spec.parameters
    matrices = [t for t in trace.tensors if t.role == Role.WEIGHT and not t.layer.endswith("depthwise")]
    assert sum(t.elements for t in matrices) == spec.matrix_parameters
    alone = [t for t in trace.tensors if ".attention." in t.name and ".norm." not in t.name]
    assert sum(t.elements for t in alone if t.role in (Role.WEIGHT, Role.BIAS)) == spec.attention.parameters


def test_published_blocks() -> None:
    """24 D^2 + (k + 32) D of the original block; L and S of the 4-bit Conformer paper, 118.8 M and 10.3 M in all."""
    assert (LARGE.parameters, SMALL.parameters) == (6_324_224, 506_880)
    assert 17 * LARGE.parameters < 118.8e6
    assert 16 * SMALL.parameters < 10.3e6


@pytest.mark.parametrize(
    ("spec", "layers", "sizes_mb"), [(LARGE, 17, (475, 139, 82)), (SMALL, 16, (42, 17, 13))], ids=["L", "S"]
)
def test_the_quantized_matrices_explain_the_published_sizes(
    spec: ConformerSpec, layers: int, sizes_mb: tuple[int, int, int]
) -> None:
    """float32 to int8 saves 3 bytes of a quantized weight, int8 to int4 half a byte; sizes are printed to 0.5 MB.

    Beside the blocks the front end's projection of 20 frequencies is quantized: 80 log-mel, halved twice.
    """
    quantized = layers * spec.matrix_parameters + 20 * spec.width**2
    whole, eighth, fourth = (1e6 * size for size in sizes_mb)
    assert abs((whole - eighth) / 3 - quantized) <= 1e6 / 3
    assert abs((eighth - fourth) * 2 - quantized) <= 2e6


def test_the_operations_of_a_block() -> None:
    frames, spec = 50, ConformerSpec(AttentionSpec(32, 4, left=8, right=2), kernel=7, causal=True)
    trace = trace_of(spec, frames)
    d, t = 32, frames
    macs = dict.fromkeys(trace.layers, 0)
    for kind, layer, m, k, n, batch in zip(
        trace.kind, trace.layer, trace.m, trace.k, trace.n, trace.batch, strict=True
    ):
        if kind in (Kind.MATMUL, Kind.CONV1D, Kind.DEPTHWISE):
            macs[trace.layers[layer]] += int(m * k * n * batch)
    block = "encoder.block0"
    assert macs[f"{block}.feed_forward1.up"] == macs[f"{block}.feed_forward2.down"] == t * d * 4 * d
    assert macs[f"{block}.attention.position"] == (2 * t - 1) * d * d
    assert macs[f"{block}.attention"] == t * d * (t + (2 * t - 1) + t)
    assert macs[f"{block}.convolution.depthwise"] == t * 7 * d
    assert dict(trace.attributes[f"{block}.attention"]) == {"left": 8, "right": 2}
    assert dict(trace.attributes[f"{block}.convolution.depthwise"]) == {"padding": [6, 0], "stride": 1}
    kinds = [Kind(kind).name for kind in trace.kind]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "NORM": 6, "MATMUL": 14, "DEPTHWISE": 1, "SOFTMAX": 1, "ELEMENTWISE": 11,
    }  # fmt: skip
    functions = [Function(f) for f in trace.function]
    assert [functions.count(f) for f in (Function.SWISH, Function.GLU, Function.ADD_HALF, Function.ADD)] == [3, 1, 2, 4]


def test_blocks_share_one_encoding_and_follow_each_other() -> None:
    trace = trace_of(ConformerSpec(AttentionSpec(8, 2), kernel=3), 5, blocks=2)
    encodings = [t for t in trace.tensors if t.name.endswith("encoding")]
    assert [t.shape for t in encodings] == [(9, 8)]
    of_layer = {trace.layers[layer]: at for at, layer in enumerate(trace.layer)}
    first = int(np.flatnonzero(trace.layer == trace.layers.index("encoder.block1.feed_forward1.norm"))[0])
    assert trace.dep[trace.dep_ptr[first] : trace.dep_ptr[first + 1]].tolist() == [of_layer["encoder.block0.norm"]]


def test_without_relative_positions_there_is_one_product_of_scores() -> None:
    trace = trace_of(ConformerSpec(AttentionSpec(8, 2, relative=False), kernel=3), 5)
    assert np.count_nonzero(trace.function == Function.SCORES) == 1
    assert not any("position" in t.name for t in trace.tensors)


@given(st.integers(1, 30), st.integers(1, 6), st.integers(1, 4), st.booleans())
def test_frames_of_a_convolution(frames: int, kernel: int, stride: int, causal: bool) -> None:
    padding = ConformerSpec(AttentionSpec(1, 1), kernel, causal=causal).padding
    assert conv_frames(frames, kernel, stride, padding) == len(range(0, frames, stride))


def test_a_strided_convolution() -> None:
    b = TraceBuilder("t")
    x = b.tensor("x.features", Role.ACTIVATION, (20, 80))
    conv1d(b, "front", x, 80, 32, 20, kernel=3, stride=2, padding=(1, 1))
    trace = b.build()
    assert (int(trace.m[0]), int(trace.k[0]), int(trace.n[0])) == (10, 240, 32)
    assert {t.name: t.shape for t in trace.tensors}["front.weight"] == (3, 80, 32)


def test_a_gru_layer() -> None:
    b = TraceBuilder("t")
    x = b.tensor("x.features", Role.ACTIVATION, (6, 5))
    gru = GruLayer.declare(b, "encoder.layer0", 5, 7, 6, steps=True)
    gru.project_input(b, [x], 6)
    with b.loop(6):
        gru.step(b, 1)
    trace = b.build()
    assert parameters(trace) == 3 * 7 * (5 + 7 + 2)
    assert [Kind(kind) for kind in trace.kind[:3]] == [Kind.MATMUL, Kind.MATMUL, Kind.GRU]
    product, pointwise = 3, 4
    assert pointwise - 2 in trace.dep[trace.dep_ptr[product] : trace.dep_ptr[product + 1]]


def test_refusals() -> None:
    for make, message in (
        (lambda: AttentionSpec(10, 3), "heads must divide the width of 10, got 3"),
        (lambda: AttentionSpec(0, 1), "width must be at least 1, got 0"),
        (lambda: AttentionSpec(4, 2, left=-1), "left must be 0 frames or more, or none, got -1"),
        (lambda: ConformerSpec(AttentionSpec(4, 2), 0), "kernel must be at least 1, got 0"),
        (lambda: ConformerSpec(AttentionSpec(4, 2), 3, 0), "feed_forward must be at least 1, got 0"),
        (lambda: conv_frames(2, 5, 1, (1, 1)), "at least as many frames as its kernel of 5, got 4"),
        (lambda: attention(TraceBuilder("t"), "a", AttentionSpec(4, 2), 0, 3), "a: relative positions must have an"),
        (lambda: conv1d(TraceBuilder("t"), "c", 0, 4, 5, 9, kernel=3, depthwise=True),
         "c: a depthwise convolution must have as many outputs as inputs, got 5"),
    ):  # fmt: skip
        with pytest.raises(HwsimError, match=message):
            make()
