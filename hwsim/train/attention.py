"""Quantized self-attention, with the integer softmax that the executor computes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from hwsim.errors import HwsimError
from hwsim.execute.reference.attention import probability_grid
from hwsim.extract.conformer import AttentionSpec
from hwsim.numerics.calibration import BoundAware, MinMax, NativeQat, Sawb
from hwsim.numerics.quantizers import Quantizer
from hwsim.numerics.rounding import Reals
from hwsim.numerics.tables import exponential_table
from hwsim.train.modules import (
    MatrixWeights,
    QuantLinear,
    QuantModule,
    Recipe,
    Recording,
    Weights,
    on_grid,
    own_grid,
    run_time,
    stored,
)
from hwsim.train.quantizers import fake_quantize, quantize

PROBABILITIES = replace(probability_grid(), ties="half_up")
"""The grid of an integer softmax, with its rounding: min(floor(p 2^8 + 1/2), 2^8 - 1)."""


@dataclass(frozen=True, slots=True, eq=False)
class Recipes:
    """The recipes of a Conformer block; every activation has a grid of its own, None leaves reals.

    Give grids that are not simple ratios of each other: `context` with the scale of the values, say, makes exact ties,
    which a graph in floating point does not reproduce.
    """

    weight: MatrixWeights | None = field(default_factory=Sawb)
    """Matrices of linear layers."""
    kernel: Weights | None = field(default_factory=lambda: NativeQat(8, axis=1))
    """The depthwise kernel (kernel, channels)."""
    stream: Recipe | None = field(default_factory=lambda: MinMax(16))
    """Residual sums."""
    normal: Recipe | None = field(default_factory=lambda: MinMax(8))
    """What norms write."""
    hidden: Recipe | None = field(default_factory=lambda: MinMax(8))
    """What other layers write."""
    scores: Recipe | None = field(default_factory=lambda: MinMax(8))
    """Attention scores; with reals the softmax is one of reals."""
    context: Recipe | None = field(default_factory=lambda: MinMax(8))
    """Weighted values."""
    encoding: Recipe | None = field(default_factory=lambda: BoundAware(1.0, 8))
    """Encodings of relative positions."""
    active: Recipe | Literal["hidden"] | None = "hidden"
    """What swish writes, before a product; by default as what other layers write."""

    @property
    def swish(self) -> Recipe | None:
        """The recipe of what swish writes."""
        return self.hidden if isinstance(self.active, str) else self.active

    @property
    def kept(self) -> Recipe | None:
        """The recipe of norms that no product reads alone: where others find their grids at run time, `hidden`."""
        return self.hidden if run_time(self.normal) is not None else self.normal

    def __post_init__(self) -> None:
        if run_time(self.scores) is not None or run_time(self.encoding) is not None:
            raise HwsimError("scores and encodings of positions must have grids that are fixed, got one of run time")


@lru_cache(maxsize=8)
def position_encoding(frames: int, width: int) -> Reals:
    """Encodings (2 frames - 1, width) of the distances d = frames - 1 ... 1 - frames, float64, not to be written to.

    Columns 2 i and 2 i + 1 hold sin and cos of d / 10000^(2 i / width).
    """
    distance = np.arange(frames - 1, -frames, -1.0)[:, None]
    angles = distance * np.exp(np.arange(0, width, 2) * (-math.log(10000.0) / width))
    both: Reals = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(len(distance), -1)[:, :width]
    both.setflags(write=False)
    return both


def context_mask(frames: int, left: int | None, right: int | None, device: torch.device | None = None,
                 chunk: int | None = None) -> Tensor:  # fmt: skip
    """(frames, frames): whether query i sees key j, i - left <= j <= i + right.

    With a chunk, i is the first frame of the query's chunk on the left side and its last one on the right.
    """
    at = torch.arange(frames, device=device)
    first = at if chunk is None else at - at % chunk
    kept = torch.ones(frames, frames, dtype=torch.bool, device=device)
    if left is not None:
        kept = kept & (at[None, :] - first[:, None] >= -left)
    after = right if chunk is None else chunk - 1
    return kept if after is None else kept & (at[None, :] - first[:, None] <= after)


def real_frames(kept: Tensor, counts: Tensor) -> Tensor:
    """(B, 1, T, T) of a mask (T, T): no frame of an utterance sees those that fill it up to the batch's length."""
    inside = torch.arange(len(kept), device=kept.device) < counts[:, None]
    return (kept & (inside[:, None, :] | ~inside[:, :, None]))[:, None]


def relative_shift(x: Tensor) -> Tensor:
    """y[..., i, j] = x[..., i, T - 1 - i + j] of x (..., T, 2T - 1): by distances to by keys."""
    frames = x.shape[-2]
    at = torch.arange(frames, device=x.device)
    index = frames - 1 - at[:, None] + at[None, :]
    return torch.gather(x, -1, index.expand(*x.shape[:-2], frames, frames))


class QuantAttention(QuantModule):
    """Self-attention x (T, D) or (T, B, D) -> the same, x as it is: see `AttentionSpec` for the scores.

    With a grid of scores the softmax is that of integers: e = E[max - code] by the shared exponential table,
    p = min(floor(e 2^8 / sum e + 1/2), 255) / 2^8; its gradient is that of the softmax of the scores.
    """

    def __init__(self, spec: AttentionSpec, recipes: Recipes | None = None, *, input: Recipe | None = None) -> None:
        super().__init__()
        recipes, width = recipes or Recipes(), spec.width
        self.spec = spec

        def linear(into: Recipe | None, bias: bool = True) -> QuantLinear:
            return QuantLinear(width, width, bias=bias, weight=recipes.weight, input=into,
                               output=own_grid(recipes.hidden))  # fmt: skip

        self.input_grid = own_grid(input)
        self.query, self.key, self.value = (linear(run_time(recipes.normal)) for _ in range(3))
        self.output = linear(run_time(recipes.context))
        if spec.relative:
            self.position = linear(own_grid(recipes.encoding), bias=False)
            self.content_bias = nn.Parameter(torch.randn(width) * 0.1)
            self.position_bias = nn.Parameter(torch.randn(width) * 0.1)
            self.content_query_grid, self.position_query_grid = own_grid(recipes.hidden), own_grid(recipes.hidden)
        self.scores_grid, self.context_grid = own_grid(recipes.scores), own_grid(recipes.context)

    def evaluate(self, x: Tensor, name: str = "", recording: Recording | None = None,
                 counts: Tensor | None = None) -> Tensor:  # fmt: skip
        """`forward`, recording. `counts` (B,): frames of each utterance of a batch (T, B, D), the rest is unseen."""
        x = on_grid(x, self.input_grid)
        query, key, value = (
            getattr(self, part).evaluate(x, f"{name}.{part}", recording) for part in ("query", "key", "value")
        )
        make = self._relative_scores if self.spec.relative else self._scores
        scores = stored(make(query, key, name, recording), self.scores_grid, f"{name}.scores", recording)
        mask = context_mask(len(x), self.spec.left, self.spec.right, x.device, self.spec.chunk)
        mask = mask if counts is None else real_frames(mask, counts)
        if self.scores_grid is None:
            probabilities = stored(scores.masked_fill(~mask, -math.inf).softmax(-1), None, f"{name}.probabilities",
                                   recording)  # fmt: skip
        else:
            ratios = integer_softmax(scores, self.scores_grid.quantizer(scores), mask)
            probabilities = fake_quantize(ratios, PROBABILITIES)
            if recording is not None:
                recording.add(f"{name}.probabilities", ratios, PROBABILITIES)
        context = (probabilities @ self._heads(value)).movedim(-2, 0).flatten(-2)
        context = stored(context, self.context_grid, f"{name}.context", recording)
        return self.output.evaluate(context, f"{name}.output", recording)

    def _heads(self, x: Tensor) -> Tensor:
        """(T, ..., D) as (..., heads, T, D / heads)."""
        return x.reshape(*x.shape[:-1], self.spec.heads, self.spec.head_width).movedim(0, -2)

    def _products(self, query: Tensor, keys: Tensor) -> Tensor:
        products = self._heads(query) @ self._heads(keys).transpose(-1, -2)
        return products / math.sqrt(self.spec.head_width)

    def _scores(self, query: Tensor, key: Tensor, name: str, recording: Recording | None) -> Tensor:
        return self._products(query, key)

    def _relative_scores(self, query: Tensor, key: Tensor, name: str, recording: Recording | None) -> Tensor:
        # Constants are put on their grid in float64, whatever the precision of the module: one constant, one code.
        encoding = torch.as_tensor(position_encoding(len(query), self.spec.width).copy(), device=query.device)
        encoding = on_grid(encoding, self.position.input_grid).to(query.dtype)
        positions = self.position.evaluate(encoding, f"{name}.position", recording)
        with_u = stored(query + self.content_bias, self.content_query_grid, f"{name}.content_query", recording)
        with_v = stored(query + self.position_bias, self.position_query_grid, f"{name}.position_query", recording)
        content = stored(self._products(with_u, key), None, f"{name}.content_scores", recording)
        position = stored(self._products(with_v, positions), None, f"{name}.position_scores", recording)
        return content + relative_shift(position)


def integer_softmax(scores: Tensor, grid: Quantizer, mask: Tensor) -> Tensor:
    """e / sum e over the last axis, e = E[max - code] of the codes of `scores`, 0 where `mask` is False.

    The gradient is that of the softmax of the scores.
    """
    result: Tensor = _IntegerSoftmax.apply(scores, grid, mask)  # type: ignore[no-untyped-call]
    return result


class _IntegerSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, grid: Quantizer, mask: Tensor) -> Tensor:
        codes = quantize(scores, grid).long()
        table = torch.as_tensor(exponential_table(float(grid.scale), grid.bits), device=scores.device)
        kept = codes.masked_fill(~mask, grid.code_range[0])
        below = (kept.amax(dim=-1, keepdim=True) - codes).masked_fill(~mask, 0)
        numerators = table[below].masked_fill(~mask, 0)
        ctx.save_for_backward(scores, mask)
        return numerators.to(scores.dtype) / numerators.sum(dim=-1, keepdim=True).clamp(min=1).to(scores.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        scores, mask = ctx.saved_tensors
        p = scores.masked_fill(~mask, -math.inf).softmax(-1)
        return p * (gradient - (gradient * p).sum(dim=-1, keepdim=True)), None, None
