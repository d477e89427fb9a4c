"""Quantized Conformer blocks."""

from __future__ import annotations

from torch import Tensor

from hwsim.extract.conformer import ConformerSpec
from hwsim.train.attention import QuantAttention, Recipes
from hwsim.train.convolution import QuantConv1d
from hwsim.train.modules import (
    QuantActivation,
    QuantLayerNorm,
    QuantLinear,
    QuantModule,
    Recipe,
    Recording,
    before,
    on_grid,
    own_grid,
    run_time,
    stored,
)


def _linear(inputs: int, outputs: int, recipes: Recipes, reads: Recipe | None) -> QuantLinear:
    """A product of what was written on the grid of `reads`."""
    return QuantLinear(inputs, outputs, weight=recipes.weight, input=run_time(reads), output=own_grid(recipes.hidden))


def _norm(width: int, recipes: Recipes) -> QuantLayerNorm:
    return QuantLayerNorm(width, output=own_grid(recipes.normal))


class QuantFeedForward(QuantModule):
    """Q(x + down(swish(up(norm(x)))) / 2): (..., D) -> (..., D)."""

    def __init__(self, spec: ConformerSpec, recipes: Recipes) -> None:
        super().__init__()
        width, inner = spec.width, spec.width * spec.feed_forward
        self.norm, self.up = _norm(width, recipes), _linear(width, inner, recipes, recipes.normal)
        self.swish = QuantActivation("swish", output=own_grid(recipes.swish))
        self.down = _linear(inner, width, recipes, recipes.swish)
        self.stream_grid = own_grid(recipes.stream)

    def evaluate(self, x: Tensor, name: str = "", recording: Recording | None = None) -> Tensor:
        """`forward`, recording."""
        y = x
        for part in ("norm", "up", "swish", "down"):
            y = getattr(self, part).evaluate(y, f"{name}.{part}", recording)
        return stored(x + 0.5 * y, self.stream_grid, f"{name}.sum", recording)


class QuantConvolution(QuantModule):
    """Q(x + pointwise2(swish(norm(depthwise(glu(pointwise1(norm(x)))))))): (T, ..., D) -> (T, ..., D)."""

    PARTS = ("norm", "pointwise1", "glu", "depthwise", "depthwise_norm", "swish", "pointwise2")

    def __init__(self, spec: ConformerSpec, recipes: Recipes) -> None:
        super().__init__()
        width = spec.width
        self.norm, self.pointwise1 = _norm(width, recipes), _linear(width, 2 * width, recipes, recipes.normal)
        self.glu = QuantActivation("glu", output=own_grid(recipes.hidden))
        self.depthwise = QuantConv1d(
            width, width, spec.kernel, depthwise=True, padding="causal" if spec.causal else "same",
            weight=recipes.kernel, output=own_grid(recipes.hidden),
        )  # fmt: skip
        self.depthwise_norm = QuantLayerNorm(width, output=own_grid(recipes.kept))
        self.swish = QuantActivation("swish", output=own_grid(recipes.swish))
        self.pointwise2 = _linear(width, width, recipes, recipes.swish)
        self.stream_grid = own_grid(recipes.stream)

    def evaluate(self, x: Tensor, name: str = "", recording: Recording | None = None,
                 counts: Tensor | None = None) -> Tensor:  # fmt: skip
        """`forward`, recording. `counts` (B,): frames of each utterance of a batch, after which there are zeros."""
        y = x
        for part in self.PARTS:
            if part == "depthwise" and counts is not None and self.depthwise.padding[1]:
                y = y * before(y, counts)
            y = getattr(self, part).evaluate(y, f"{name}.{part}", recording)
        return stored(x + y, self.stream_grid, f"{name}.sum", recording)


class QuantConformerBlock(QuantModule):
    """One Conformer block, see `ConformerSpec`: x (T, D) or (T, B, D) -> the same.

    `input`: the grid of x where the block is the first module of a network; otherwise x is taken as it is. Parameters
    are named as layers and parts of the trace: `feed_forward1.up.weight`, `attention.query.bias`.
    """

    def __init__(self, spec: ConformerSpec, recipes: Recipes | None = None, *, input: Recipe | None = None) -> None:
        super().__init__()
        recipes = recipes or Recipes()
        self.spec = spec
        self.input_grid = own_grid(input)
        self.feed_forward1 = QuantFeedForward(spec, recipes)
        if spec.attend:
            self.attention_norm, self.attention = _norm(spec.width, recipes), QuantAttention(spec.attention, recipes)
            self.stream_grid = own_grid(recipes.stream)
        self.convolution = QuantConvolution(spec, recipes)
        self.feed_forward2 = QuantFeedForward(spec, recipes)
        self.norm = QuantLayerNorm(spec.width, output=own_grid(recipes.kept))

    def evaluate(self, x: Tensor, name: str = "", recording: Recording | None = None,
                 counts: Tensor | None = None) -> Tensor:  # fmt: skip
        """`forward`, recording. `counts` (B,): frames of each utterance of a batch (T, B, D), the rest is unseen."""
        x = self.feed_forward1.evaluate(on_grid(x, self.input_grid), f"{name}.feed_forward1", recording)
        if self.spec.attend:
            y = self.attention_norm.evaluate(x, f"{name}.attention.norm", recording)
            y = self.attention.evaluate(y, f"{name}.attention", recording, counts)
            x = stored(x + y, self.stream_grid, f"{name}.attention.sum", recording)
        x = self.convolution.evaluate(x, f"{name}.convolution", recording, counts)
        x = self.feed_forward2.evaluate(x, f"{name}.feed_forward2", recording)
        return self.norm.evaluate(x, f"{name}.norm", recording)
