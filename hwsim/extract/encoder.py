"""Conformer encoders as operations: subsampling, then blocks, over a whole utterance or chunk by chunk."""

from __future__ import annotations

from dataclasses import replace

from hwsim.extract.conformer import (
    AttentionSpec,
    ConformerSpec,
    Piece,
    conformer_block,
    project_positions,
)
from hwsim.extract.encoder_spec import AnyEncoderSpec, ConformerEncoderSpec, ConvolvedFrames, StackedFrames
from hwsim.extract.layers import conv2d, linear
from hwsim.trace import Function, Kind, Role, TraceBuilder
from hwsim.trace.builder import Operand


def encoder_frames(spec: AnyEncoderSpec, frames: int) -> int:
    """Output frames of an encoder for a number of input frames."""
    return -(-frames // spec.reduction)


def block_spec(spec: ConformerEncoderSpec) -> ConformerSpec:
    """One block of an encoder; all are alike."""
    relative = spec.positions == "relative"
    attention = AttentionSpec(spec.width, spec.heads, spec.left, spec.right, relative, spec.chunk)
    return ConformerSpec(attention, spec.kernel, spec.feed_forward, spec.causal)


def emit_conformer_encoder(b: TraceBuilder, spec: ConformerEncoderSpec, frames: int, whole: bool = False) -> int:
    """Add a Conformer encoder over `frames` input frames; return the tensor (T', width) of its last norm.

    One with a chunk is a loop over whole chunks, the last of them filled up; keys, values and inputs of convolutions
    that later chunks need stay in their tensors. Projected positions are computed once, before it. `whole`: without
    that loop, the utterance at once.
    """
    after = encoder_frames(spec, frames)
    x = b.tensor("encoder.input.features", Role.ACTIVATION, (frames, spec.input), "encoder.subsampling.linear")
    block = block_spec(spec)
    if spec.chunk is None or whole:
        x = subsample(b, spec, x, frames)
        encoding = _encoding(b, block.attention, 2 * after - 1)
        for index in range(spec.layers):
            x = conformer_block(b, f"encoder.layer{index}", block, x, after, encoding)
        return x
    keys = spec.left or 0
    distances = keys + 2 * spec.chunk - 1
    encoding = _encoding(b, block.attention, distances)
    pieces = [Piece(keys)] * spec.layers
    if encoding is not None:
        names = [f"encoder.layer{index}.attention" for index in range(spec.layers)]
        pieces = [Piece(keys, project_positions(b, name, block.attention, encoding, distances)) for name in names]
    pieces[-1] = replace(pieces[-1], out_rows=after)
    with b.loop(-(-after // spec.chunk)):
        x = subsample(b, spec, x, spec.chunk * spec.reduction)
        for index, piece in enumerate(pieces):
            x = conformer_block(b, f"encoder.layer{index}", block, x, spec.chunk, encoding, piece=piece)
    return x


def subsample(b: TraceBuilder, spec: ConformerEncoderSpec, x: int, frames: int) -> int:
    """The first layers on x (frames, K): `encoder.subsampling.linear.out` (T', width), the residual stream."""
    after, way, name = encoder_frames(spec, frames), spec.subsampling, "encoder.subsampling"
    inputs = spec.input
    if isinstance(way, StackedFrames):
        inputs *= way.factor
    else:
        x, inputs = _convolved(b, name, way, x, frames, spec.input, spec.causal)
    return linear(b, f"{name}.linear", [x], inputs, spec.width, after, role=Role.STATE)


def _convolved(b: TraceBuilder, name: str, way: ConvolvedFrames, x: int, frames: int, features: int,
               causal: bool) -> tuple[int, int]:  # fmt: skip
    """The last ReLU (T', F', C), and F' C."""
    shape, before = (frames, features, 1), 2 if causal else 1
    for index, channels in enumerate(way.layer_channels):
        separable = way.separable and index > 0
        layer = f"{name}.depthwise{index}" if separable else f"{name}.conv{index}"
        outputs = shape[2] if separable else channels
        x, shape = conv2d(b, layer, x, shape, outputs, stride=2, before=before, depthwise=separable)
        if separable:
            x, shape = _over_channels(b, f"{name}.pointwise{index}", x, shape, channels)
        positions = shape[0] * shape[1]
        out = b.tensor(f"{name}.relu{index}.out", Role.ACTIVATION, shape)
        b.op(Kind.ELEMENTWISE, f"{name}.relu{index}", [Operand(x, channels)], [Operand(out, channels)], m=positions,
             n=channels, function=Function.RELU)  # fmt: skip
        x = out
    return x, shape[1] * shape[2]


def _over_channels(b: TraceBuilder, layer: str, x: int, shape: tuple[int, int, int],
                   outputs: int) -> tuple[int, tuple[int, int, int]]:  # fmt: skip
    """A product over the channels of x (T, F, C), `out` (T, F, outputs), and its shape."""
    frames, features, channels = shape
    weight = b.tensor(f"{layer}.weight", Role.WEIGHT, (channels, outputs))
    bias = b.tensor(f"{layer}.bias", Role.BIAS, (outputs,))
    after = (frames, features, outputs)
    out = b.tensor(f"{layer}.out", Role.ACTIVATION, after)
    b.matmul(layer, [x], weight, out, m=frames * features, bias=bias)
    return out, after


def _encoding(b: TraceBuilder, spec: AttentionSpec, distances: int) -> int | None:
    """Encodings (distances, width) that no operation writes; pairs of a frame and a key have as many distances."""
    if not spec.relative:
        return None
    return b.tensor("position.encoding", Role.ACTIVATION, (distances, spec.width))
