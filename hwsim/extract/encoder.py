"""Conformer encoders as operations: subsampling, then blocks, over a whole utterance or chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence
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
from hwsim.extract.windows import all_pairs, windows
from hwsim.trace import Function, Kind, Role, TraceBuilder
from hwsim.trace.builder import Operand

ENCODER = "encoder"
"""Component of an encoder that is the only one; those of several have a suffix."""


def encoder_frames(spec: AnyEncoderSpec, frames: int) -> int:
    """Output frames of an encoder for a number of input frames."""
    return -(-frames // spec.reduction)


def block_spec(spec: ConformerEncoderSpec, index: int) -> ConformerSpec:
    """A block of an encoder, counted from 0; all are alike but for attention, which the first may lack."""
    relative = spec.positions == "relative"
    attention = AttentionSpec(spec.width, spec.heads, spec.left, spec.right, relative, spec.chunk)
    return ConformerSpec(attention, spec.kernel, spec.feed_forward, spec.causal, index >= spec.attention_from)


def emit_conformer_encoder(
    b: TraceBuilder, spec: ConformerEncoderSpec, frames: int, whole: bool = False, *, name: str = ENCODER,
    x: int | None = None,
) -> int:  # fmt: skip
    """Add a Conformer encoder over `frames` input frames; return the tensor (T', width) of its last norm.

    One with a chunk is a loop over whole chunks, the last of them filled up; keys, values and inputs of convolutions
    that later chunks need stay in their tensors. Projected positions are computed once, before it. `whole`: without
    that loop, the utterance at once, as it is executed: with all pairs of frames and masks, where attention of limited
    context is timed in windows. `x`: the tensor (frames, K) that it reads, in place of features of its own.
    """
    after = encoder_frames(spec, frames)
    if x is None:
        x = b.tensor("encoder.input.features", Role.ACTIVATION, (frames, spec.input), f"{name}.subsampling.linear")
    blocks = [(f"{name}.layer{index}", block_spec(spec, index)) for index in range(spec.layers)]
    if spec.chunk is None or whole:
        x = subsample(b, spec, x, frames, name)
        pairs = all_pairs(after) if whole else windows(after, spec.left, spec.right, spec.query_block)
        encoding = _encoding(b, name, blocks, pairs.distances)
        for layer, block in blocks:
            x = conformer_block(b, layer, block, x, after, encoding, pairs=pairs)
        return x
    keys = spec.left or 0
    distances = keys + 2 * spec.chunk - 1
    encoding = _encoding(b, name, blocks, distances)
    pieces = []
    for layer, block in blocks:
        positions = None
        if encoding is not None and block.attend:
            positions = project_positions(b, f"{layer}.attention", block.attention, encoding, distances)
        pieces.append(Piece(keys, positions))
    pieces[-1] = replace(pieces[-1], out_rows=after)
    with b.loop(-(-after // spec.chunk)):
        x = subsample(b, spec, x, spec.chunk * spec.reduction, name)
        for (layer, block), piece in zip(blocks, pieces, strict=True):
            x = conformer_block(b, layer, block, x, spec.chunk, encoding, piece=piece)
    return x


def subsample(b: TraceBuilder, spec: ConformerEncoderSpec, x: int, frames: int, encoder: str = ENCODER) -> int:
    """The first layers on x (frames, K): `<encoder>.subsampling.linear.out` (T', width), the residual stream."""
    after, way, name = encoder_frames(spec, frames), spec.subsampling, f"{encoder}.subsampling"
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


def _encoding(b: TraceBuilder, name: str, blocks: Sequence[tuple[str, ConformerSpec]], distances: int) -> int | None:
    """Encodings (distances, width) that no operation writes; pairs of a frame and a key have as many distances."""
    attending = [block for _, block in blocks if block.attend and block.attention.relative]
    if not attending:
        return None
    own = "position" + name.removeprefix(ENCODER)
    return b.tensor(f"{own}.encoding", Role.ACTIVATION, (distances, attending[0].width))
