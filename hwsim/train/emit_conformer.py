"""Attention and Conformer blocks as operations."""

from __future__ import annotations

from hwsim.extract import conformer
from hwsim.extract.conformer import AttentionSpec, position_encoding
from hwsim.train import attention as positions
from hwsim.train.attention import PROBABILITIES, QuantAttention
from hwsim.train.conformer import QuantConformerBlock, QuantConvolution, QuantFeedForward
from hwsim.train.draft import Draft
from hwsim.train.emit_layers import fill_conv1d, fill_linear, fill_norm


def attention(draft: Draft, name: str, part: QuantAttention) -> None:
    """Self-attention of what the module before has written."""
    x = draft.single(name, part.spec.width, part.input_grid)
    encoding = _encoding(draft, part.spec)
    draft.x = [conformer.attention(draft.builder, name, part.spec, x, draft.frames, encoding)]
    fill_attention(draft, name, part)


def conformer_block(draft: Draft, name: str, part: QuantConformerBlock) -> None:
    """One block."""
    x = draft.single(name, part.spec.width, part.input_grid)
    encoding = _encoding(draft, part.spec.attention) if part.spec.attend else None
    draft.x = [conformer.conformer_block(draft.builder, name, part.spec, x, draft.frames, encoding)]
    _fill_feed_forward(draft, f"{name}.feed_forward1", part.feed_forward1)
    if part.spec.attend:
        fill_norm(draft, f"{name}.attention.norm", part.attention_norm)
        fill_attention(draft, f"{name}.attention", part.attention)
        draft.activation(f"{name}.attention.sum", part.stream_grid)
    _fill_convolution(draft, f"{name}.convolution", part.convolution)
    _fill_feed_forward(draft, f"{name}.feed_forward2", part.feed_forward2)
    fill_norm(draft, f"{name}.norm", part.norm)


def _encoding(draft: Draft, spec: AttentionSpec) -> int | None:
    """The constant encodings of positions, which all blocks of one width and number of frames share."""
    if not spec.relative:
        return None
    key = (spec.width, draft.frames)
    if key not in draft.encodings:
        name = "position.encoding" + (f"{len(draft.encodings)}" if draft.encodings else "")
        draft.encodings[key] = position_encoding(draft.builder, name, *key)
        draft.codes[name] = positions.position_encoding(draft.frames, spec.width)
    return draft.encodings[key]


def _fill_feed_forward(draft: Draft, name: str, part: QuantFeedForward) -> None:
    fill_norm(draft, f"{name}.norm", part.norm)
    fill_linear(draft, f"{name}.up", part.up)
    draft.activation(f"{name}.swish.out", part.swish.output_grid)
    fill_linear(draft, f"{name}.down", part.down)
    draft.activation(f"{name}.sum", part.stream_grid)


def _fill_convolution(draft: Draft, name: str, part: QuantConvolution) -> None:
    fill_norm(draft, f"{name}.norm", part.norm)
    fill_linear(draft, f"{name}.pointwise1", part.pointwise1)
    draft.activation(f"{name}.glu.out", part.glu.output_grid)
    fill_conv1d(draft, f"{name}.depthwise", part.depthwise)
    fill_norm(draft, f"{name}.depthwise_norm", part.depthwise_norm)
    draft.activation(f"{name}.swish.out", part.swish.output_grid)
    fill_linear(draft, f"{name}.pointwise2", part.pointwise2)
    draft.activation(f"{name}.sum", part.stream_grid)


def fill_attention(draft: Draft, name: str, part: QuantAttention) -> None:
    """Codes and grids of self-attention."""
    for linear in ("query", "key", "value", "output", *(("position",) if part.spec.relative else ())):
        fill_linear(draft, f"{name}.{linear}", getattr(part, linear))
    if part.spec.relative:
        for side in ("content", "position"):
            draft.reals(f"{name}.{side}_bias", getattr(part, f"{side}_bias"))
            draft.activation(f"{name}.{side}_query", getattr(part, f"{side}_query_grid"))
    draft.activation(f"{name}.scores", part.scores_grid)
    draft.activation(f"{name}.probabilities", None if part.scores_grid is None else PROBABILITIES)
    draft.activation(f"{name}.context", part.context_grid)
