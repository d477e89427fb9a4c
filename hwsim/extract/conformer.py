"""Conformer blocks as operations, over a whole utterance or a chunk of a stream, with limited context.

Source: Gulati et al., arXiv 2005.08100, with a layer norm after the depthwise convolution. Linear layers and
convolutions have biases, but for the projection of positions.
"""

from __future__ import annotations

from dataclasses import dataclass

from hwsim.errors import HwsimError
from hwsim.extract.layers import conv1d, linear, norm, pointwise
from hwsim.extract.windows import Pairs, all_pairs
from hwsim.trace import Function, Kind, Role, TraceBuilder
from hwsim.trace.builder import Operand


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """Self-attention of `heads` heads over `width` channels.

    A frame sees `left` frames before it and `right` after it, None for all. With a `chunk` frames are in chunks of as
    many, and a frame sees all of its own chunk and `left` frames before that. With `relative` positions scores are
    ((q + u) k^T + (q + v) p^T) / sqrt(width / heads), p being projected encodings of the distances.
    Raises HwsimError for sizes below 1, for a context below 0, for heads that do not divide the width, and for a
    right context beside a chunk.
    """

    width: int
    heads: int
    left: int | None = None
    right: int | None = None
    relative: bool = True
    chunk: int | None = None

    def __post_init__(self) -> None:
        _positive(width=self.width, heads=self.heads, chunk=1 if self.chunk is None else self.chunk)
        if self.width % self.heads:
            raise HwsimError(f"heads must divide the width of {self.width}, got {self.heads}")
        for name in ("left", "right"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise HwsimError(f"{name} must be 0 frames or more, or none, got {value}")
        if self.chunk is not None and self.right is not None:
            raise HwsimError(f"right must be none with a chunk of {self.chunk} frames, got {self.right}")

    @property
    def head_width(self) -> int:
        """Channels of a head."""
        return self.width // self.heads

    @property
    def parameters(self) -> int:
        """4 D^2 + 4 D of query, key, value and output; with relative positions D^2 + 2 D more."""
        d = self.width
        return 4 * d * d + 4 * d + (d * d + 2 * d if self.relative else 0)


@dataclass(frozen=True, slots=True)
class ConformerSpec:
    """One block: half a feed-forward layer of `feed_forward` times the width, attention, a convolution module of
    `kernel` frames, half a feed-forward layer, each after a norm and added to its input; then a norm.

    One that does not `attend` leaves attention and its norm out. A `causal` convolution sees no later frame;
    otherwise (kernel - 1) // 2 earlier and kernel // 2 later ones. Raises HwsimError for sizes below 1.
    """

    attention: AttentionSpec
    kernel: int
    feed_forward: int = 4
    causal: bool = False
    attend: bool = True

    def __post_init__(self) -> None:
        _positive(kernel=self.kernel, feed_forward=self.feed_forward)

    @property
    def width(self) -> int:
        """Channels of the residual stream."""
        return self.attention.width

    @property
    def padding(self) -> tuple[int, int]:
        """Frames of zeros before and after the depthwise convolution."""
        return same_padding(self.kernel, self.causal)

    @property
    def matrix_parameters(self) -> int:
        """Weights of linear layers: (4 f + 3) D^2, 4 D^2 of attention, and D^2 of relative positions.

        What the papers quantize: with f = 4 it is 24 D^2, and 19 D^2 without attention.
        """
        d = self.width
        attention = 4 + int(self.attention.relative) if self.attend else 0
        return (4 * self.feed_forward + 3 + attention) * d * d

    @property
    def parameters(self) -> int:
        """All weights, biases and norms: `matrix_parameters` + k D + (2 f + 22) D, and 2 D of relative positions.

        Biases: 2 (f + 1) of the feed-forward layers, 4 of attention, 2 + 1 + 1 of the convolution module; norms:
        2 each, six of them. With relative positions and f = 4 it is 24 D^2 + (k + 32) D; without attention, whose
        norm and biases are 6 D and 2 D more, 19 D^2 + (k + 24) D.
        """
        attention = 4 + 2 + (2 if self.attention.relative else 0)
        vectors = 2 * (self.feed_forward + 1) + 4 + 10 + (attention if self.attend else 0)
        return self.matrix_parameters + (self.kernel + vectors) * self.width


def same_padding(kernel: int, causal: bool) -> tuple[int, int]:
    """Zeros before and after, for as many outputs as inputs at stride 1."""
    return (kernel - 1, 0) if causal else ((kernel - 1) // 2, kernel // 2)


def position_encoding(b: TraceBuilder, name: str, width: int, frames: int) -> int:
    """Declare the encodings (2 frames - 1, width) of distances frames - 1 ... 1 - frames, which no operation writes."""
    return b.tensor(name, Role.ACTIVATION, (2 * frames - 1, width))


def conformer_block(
    b: TraceBuilder, name: str, spec: ConformerSpec, x: int, frames: int, encoding: int | None = None, *,
    piece: Piece | None = None, pairs: Pairs | None = None,
) -> int:  # fmt: skip
    """Emit one block on x (frames, D); returns its output. `encoding`: of relative positions, shared by blocks.

    Layers: `<name>.feed_forward1`, `.attention` if it attends, `.convolution`, `.feed_forward2`, `.norm`; the tensor
    `sum` of each is the residual stream after it, which takes the policy's state format. `piece`: what is kept of the
    pieces before, when `frames` are one of a stream. `pairs`: the pairs of frames that attention computes, by default
    all of them.
    """
    x = feed_forward(b, f"{name}.feed_forward1", spec, x, frames)
    if spec.attend:
        part = f"{name}.attention"
        normal = norm(b, f"{part}.norm", x, spec.width, frames)
        attended = attention(b, part, spec.attention, normal, frames, encoding, piece=piece, pairs=pairs)
        x = _residual(b, part, Function.ADD, x, attended, spec.width, frames)
    x = convolution(b, f"{name}.convolution", spec, x, frames, kept=0 if piece is None else spec.kernel - 1)
    x = feed_forward(b, f"{name}.feed_forward2", spec, x, frames)
    return norm(b, f"{name}.norm", x, spec.width, frames, out_rows=None if piece is None else piece.out_rows)


@dataclass(frozen=True, slots=True)
class Piece:
    """What a block has beside the frames of one piece of a stream."""

    keys: int
    """Frames of keys and values that are kept."""
    position: int | None = None
    """The projected encodings of the distances, from before the loop over pieces."""
    out_rows: int | None = None
    """Rows of the block's output, where it holds the whole utterance."""


def feed_forward(b: TraceBuilder, name: str, spec: ConformerSpec, x: int, frames: int) -> int:
    """sum = x + down(swish(up(norm(x)))) / 2."""
    width, inner = spec.width, spec.feed_forward * spec.width
    normal = norm(b, f"{name}.norm", x, width, frames)
    up = linear(b, f"{name}.up", [normal], width, inner, frames)
    active = pointwise(b, f"{name}.swish", Function.SWISH, [up], inner, frames)
    down = linear(b, f"{name}.down", [active], inner, width, frames)
    return _residual(b, name, Function.ADD_HALF, x, down, width, frames)


def convolution(b: TraceBuilder, name: str, spec: ConformerSpec, x: int, frames: int, kept: int = 0) -> int:
    """sum = x + pointwise2(swish(norm(depthwise(glu(pointwise1(norm(x)))))))."""
    width = spec.width
    normal = norm(b, f"{name}.norm", x, width, frames)
    doubled = linear(b, f"{name}.pointwise1", [normal], width, 2 * width, frames)
    gated = pointwise(b, f"{name}.glu", Function.GLU, [doubled], width, frames, kept=kept)
    deep = conv1d(b, f"{name}.depthwise", gated, width, width, frames, kernel=spec.kernel, padding=spec.padding,
                  depthwise=True, kept=kept)  # fmt: skip
    normal = norm(b, f"{name}.depthwise_norm", deep, width, frames)
    active = pointwise(b, f"{name}.swish", Function.SWISH, [normal], width, frames)
    out = linear(b, f"{name}.pointwise2", [active], width, width, frames)
    return _residual(b, name, Function.ADD, x, out, width, frames)


def attention(
    b: TraceBuilder, layer: str, spec: AttentionSpec, x: int, frames: int, encoding: int | None = None, *,
    piece: Piece | None = None, pairs: Pairs | None = None,
) -> int:  # fmt: skip
    """Self-attention on x (frames, D): `<layer>.output.out`. `pairs` are timed in windows; executed are all of them.

    What its products of two activations read, queries, keys, values and positions, has the precision of `layer`.
    Raises HwsimError for relative positions without an encoding.
    """
    width, kept = spec.width, 0 if piece is None else piece.keys
    b.attributes(layer, left=spec.left, right=spec.right, **({} if spec.chunk is None else {"chunk": spec.chunk}))
    query, key, value = (
        linear(b, f"{layer}.{part}", [x], width, width, frames, kept=0 if part == "query" else kept, owner=layer)
        for part in ("query", "key", "value")
    )
    held, pairs = kept + frames, pairs or all_pairs(frames, kept)
    if spec.relative:
        position = None if piece is None else piece.position
        if position is None:
            position = project_positions(b, layer, spec, encoding, pairs.distances)
        scores = _relative_scores(b, layer, spec, (query, key, position), (frames, held), pairs)
    else:
        scores = _scores(b, layer, spec, "scores", Role.ACTIVATION, (query, key), (frames, held), pairs)
    heads, keys, rows = spec.heads, pairs.keys, pairs.rows
    probabilities = b.tensor(f"{layer}.probabilities", Role.ACTIVATION, (heads, rows, keys))
    b.op(Kind.SOFTMAX, layer, [Operand(scores, keys)], [Operand(probabilities, keys)], m=heads * rows, n=keys,
         function=Function.PROBABILITIES)  # fmt: skip
    context = b.tensor(f"{layer}.context", Role.ACTIVATION, (rows, width))
    reads = [Operand(probabilities, fixed=heads * rows * keys), Operand(value, fixed=held * width)]
    b.op(Kind.MATMUL, layer, reads, [Operand(context, fixed=rows * width)], m=pairs.queries, k=keys, n=spec.head_width,
         batch=heads * pairs.blocks, function=Function.CONTEXT)  # fmt: skip
    return linear(b, f"{layer}.output", [context], width, width, frames)


def project_positions(b: TraceBuilder, layer: str, spec: AttentionSpec, encoding: int | None, distances: int) -> int:
    """`<layer>.position.out` (distances, D): the encodings, projected. Raises HwsimError without an encoding."""
    if encoding is None:
        raise HwsimError(f"{layer}: relative positions must have an encoding, got none")
    return linear(b, f"{layer}.position", [encoding], spec.width, spec.width, distances, bias=False, owner=layer)


def _relative_scores(b: TraceBuilder, layer: str, spec: AttentionSpec, tensors: tuple[int, int, int],
                     held: tuple[int, int], pairs: Pairs) -> int:  # fmt: skip
    """`tensors`: queries, keys and projected positions; `held`: frames of the first two."""
    query, key, position = tensors
    frames, width = held[0], spec.width
    # Positions are those of every block, so that all queries go against them at once.
    against_positions = Pairs(1, pairs.rows, pairs.distances, pairs.distances)
    parts = []
    for name, against, count, counted in (
        ("content", key, held[1], pairs),
        ("position", position, pairs.distances, against_positions),
    ):
        bias = b.tensor(f"{layer}.{name}_bias", Role.BIAS, (width,))
        biased = b.tensor(f"{layer}.{name}_query", Role.ACTIVATION, (frames, width))
        b.op(Kind.ELEMENTWISE, layer, [Operand(query, width), Operand(bias, fixed=width)], [Operand(biased, width)],
             m=frames, n=width, function=Function.ADD)  # fmt: skip
        part = _scores(b, layer, spec, f"{name}_scores", Role.STATE, (biased, against), (frames, count), counted)
        parts.append(Operand(part, min(counted.keys, pairs.keys)))
    scores = b.tensor(f"{layer}.scores", Role.ACTIVATION, (spec.heads, pairs.rows, pairs.keys))
    b.op(Kind.ELEMENTWISE, layer, parts, [Operand(scores, pairs.keys)], m=spec.heads * pairs.rows, n=pairs.keys,
         function=Function.RELATIVE_ADD)  # fmt: skip
    return scores


def _scores(b: TraceBuilder, layer: str, spec: AttentionSpec, part: str, role: Role, tensors: tuple[int, int],
            held: tuple[int, int], pairs: Pairs) -> int:  # fmt: skip
    """`tensors`: queries and what they go against, each read once; `held`: rows of each."""
    scores = b.tensor(f"{layer}.{part}", role, (spec.heads, pairs.rows, pairs.keys))
    reads = [Operand(tensor, fixed=rows * spec.width) for tensor, rows in zip(tensors, held, strict=True)]
    b.op(Kind.MATMUL, layer, reads, [Operand(scores, fixed=spec.heads * pairs.rows * pairs.keys)], m=pairs.queries,
         k=spec.head_width, n=pairs.keys, batch=spec.heads * pairs.blocks, function=Function.SCORES)  # fmt: skip
    return scores


def _residual(b: TraceBuilder, layer: str, function: Function, x: int, y: int, width: int, frames: int) -> int:
    return pointwise(b, layer, function, [x, y], width, frames, part="sum", role=Role.STATE)


def _positive(**sizes: int) -> None:
    for name, value in sizes.items():
        if value < 1:
            raise HwsimError(f"{name} must be at least 1, got {value}")
