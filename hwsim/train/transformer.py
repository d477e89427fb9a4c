"""A Transformer language model as a module: weights of each layer on a symmetric table of its own bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwsim.errors import HwsimError, nearest
from hwsim.extract.conformer import AttentionSpec
from hwsim.extract.transformer_spec import TransformerSpec
from hwsim.numerics.calibration import BoundAware, Calibration, MinMax
from hwsim.numerics.least_squares import LeastSquares
from hwsim.numerics.rounding import Reals
from hwsim.train.attention import QuantAttention, Recipes, position_encoding
from hwsim.train.language_model import sentence_losses, words_before
from hwsim.train.modules import (
    QuantActivation,
    QuantEmbedding,
    QuantLayerNorm,
    QuantLinear,
    QuantModule,
    Recording,
    activation_grid,
    on_grid,
    own_grid,
    run_time,
    stored,
)
from hwsim.train.quantizers import FakeQuantizer

TABLES: dict[int, Calibration] = {
    1: LeastSquares(1), 2: LeastSquares(2), 4: LeastSquares(4), 8: MinMax(8), 16: MinMax(16),
}  # fmt: skip
"""By bits of a weight: 1 is +-a, 2 is {-a, 0, a}, b is {0, +-a, ..., +-a (2^(b-1) - 1)}, with one a for each matrix.

By least squares up to 4 bits. From 8 bits on the largest weight is the last level: the fit would take seconds a matrix
at each step of training, and move little.
"""
FULL = Recipes(weight=None, kernel=None, stream=None, normal=None, hidden=None, scores=None, context=None,
               encoding=None)  # fmt: skip
"""No grids: a model in floating point."""


def place_encoding(words: int, width: int) -> Reals:
    """Encodings (words, width) of the places 0, 1, ... in a sentence, float64, of the size of a table's rows.

    Columns 2 i and 2 i + 1 hold sin and cos of place / 10000^(2 i / width), divided by sqrt(width): Vaswani et al.
    multiply the table's rows by sqrt(width) instead, which is the same up to one factor for the residual stream.
    """
    encoding: Reals = position_encoding(words, width)[words - 1 :: -1] / width**0.5
    return encoding


class TransformerFeedForward(QuantModule):
    """Q(x + down(relu(up(norm(x))))): (..., d) -> (..., d)."""

    def __init__(self, spec: TransformerSpec, recipes: Recipes) -> None:
        super().__init__()
        width, inner = spec.width, spec.feed_forward
        self.norm = QuantLayerNorm(width, output=own_grid(recipes.normal))
        self.up = QuantLinear(width, inner, input=run_time(recipes.normal), output=own_grid(recipes.hidden))
        self.relu = QuantActivation("relu", output=own_grid(recipes.swish))
        self.down = QuantLinear(inner, width, input=run_time(recipes.swish), output=own_grid(recipes.hidden))
        self.stream_grid = own_grid(recipes.stream)

    def evaluate(self, x: Tensor, name: str = "", recording: Recording | None = None) -> Tensor:
        """`forward`, recording."""
        y = x
        for part in ("norm", "up", "relu", "down"):
            y = getattr(self, part).evaluate(y, f"{name}.{part}", recording)
        return stored(x + y, self.stream_grid, f"{name}.sum", recording)


class TransformerBlock(QuantModule):
    """Q(x + attention(norm(x))) of a word and those before it, then the feed-forward layer: (T, ..., d) -> the same."""

    def __init__(self, spec: TransformerSpec, recipes: Recipes) -> None:
        super().__init__()
        self.attention_norm = QuantLayerNorm(spec.width, output=own_grid(recipes.normal))
        self.attention = QuantAttention(AttentionSpec(spec.width, spec.heads, right=0, relative=False), recipes)
        self.stream_grid = own_grid(recipes.stream)
        self.feed_forward = TransformerFeedForward(spec, recipes)

    def evaluate(self, x: Tensor, name: str = "", recording: Recording | None = None) -> Tensor:
        """`forward`, recording."""
        y = self.attention_norm.evaluate(x, f"{name}.attention.norm", recording)
        y = self.attention.evaluate(y, f"{name}.attention", recording)
        x = stored(x + y, self.stream_grid, f"{name}.attention.sum", recording)
        return self.feed_forward.evaluate(x, f"{name}.feed_forward", recording)


class QuantTransformer(nn.Module):
    """Log probabilities of the next word after each of a sentence; label 0 is read first and stands for the end.

    `bits`: of the weights of each layer, a key of `TABLES` by its name (`embedding`, `layer0.attention.query`,
    `layer0.feed_forward.up`, `output` where it is not tied), or one number for all; layers that are not named, or
    None, stay in floating point. Tables are fitted anew at every call, and gradients pass straight through.
    A tied output multiplies by the embedding's table as it is quantized. `recipes`: grids of activations, `FULL` for
    none; its `weight` is not read. Weights with bits need a grid for what norms and attention write.
    Source of the tables: Xu et al., Interspeech 2022, arXiv 2206.11643.
    Raises HwsimError for an unknown layer, other bits, and an activation that is not executed.
    """

    def __init__(self, spec: TransformerSpec, bits: Mapping[str, int] | int | None = None,
                 recipes: Recipes | None = None) -> None:  # fmt: skip
        super().__init__()
        if spec.activation != "relu":
            raise HwsimError(f"activation of a model to be trained must be relu, got {spec.activation}")
        recipes = replace(recipes or Recipes(), weight=None)
        self.spec = spec
        self.embedding = QuantEmbedding(spec.vocabulary, spec.width)
        nn.init.normal_(self.embedding.weight, std=spec.width**-0.5)
        bound = spec.width**-0.5
        self.encoding_grid = activation_grid(None if recipes.encoding is None else BoundAware(bound, 8))
        self.stream_grid = own_grid(recipes.stream)
        for index in range(spec.layers):
            self.add_module(f"layer{index}", TransformerBlock(spec, recipes))
        self.norm = QuantLayerNorm(spec.width, output=own_grid(recipes.kept))
        self.output = None if spec.tied else QuantLinear(spec.width, spec.vocabulary)
        self._set_bits(bits)

    @property
    def layers(self) -> list[TransformerBlock]:
        """The blocks, first to last."""
        return [getattr(self, f"layer{index}") for index in range(self.spec.layers)]

    @property
    def weighted(self) -> dict[str, QuantEmbedding | QuantLinear]:
        """Layers with weights, by name."""
        kinds = (QuantEmbedding, QuantLinear)
        return {name: module for name, module in self.named_modules() if isinstance(module, kinds)}

    def table(self) -> Tensor:
        """The embedding's table (V, d) on its grid."""
        # Fitted as the trace holds it: means of weights in another order differ in their last bit.
        columns = on_grid(self.embedding.weight.T, self.embedding.weight_grid)
        return columns.T

    def evaluate(self, words: Tensor, name: str = "", recording: Recording | None = None) -> Tensor:
        """Log probabilities (T, V) or (T, B, V) after each of the words (T,) or (T, B), recording as `Recording`."""
        logits = self._logits(words, name, recording)
        log_p = logits.log_softmax(-1)
        if recording is not None:
            recording.add(f"{name}.output.logits", log_p, None)
        return log_p

    def forward(self, labels: Tensor, lengths: Tensor) -> Tensor:
        """-log p(sentence), its end included, of each sentence (B,): labels (U, B) of `lengths` (B,)."""
        return sentence_losses(self._logits(words_before(labels)), labels, lengths)

    def _logits(self, words: Tensor, name: str = "", recording: Recording | None = None) -> Tensor:
        table = self.table()
        x = F.embedding(words, table)
        if recording is not None:
            grid = self.embedding.weight_grid
            recording.add(f"{name}.embedding.row", self.embedding.weight[words],
                          None if grid is None else grid.quantizer(self.embedding.weight.T))  # fmt: skip
        if self.spec.positions == "sinusoidal":
            x = self._with_places(x, name, recording)
        for index, layer in enumerate(self.layers):
            x = layer.evaluate(x, f"{name}.layer{index}", recording)
        x = self.norm.evaluate(x, f"{name}.norm", recording)
        return x @ table.T if self.output is None else self.output.evaluate(x)

    def _with_places(self, x: Tensor, name: str, recording: Recording | None) -> Tensor:
        # Constants are put on their grid in float64, whatever the precision of the module: one constant, one code.
        encoding = torch.as_tensor(place_encoding(len(x), self.spec.width), device=x.device)
        encoding = on_grid(encoding, self.encoding_grid).to(x.dtype)
        encoding = encoding.reshape(len(x), *[1] * (x.ndim - 2), -1)
        return stored(x + encoding, self.stream_grid, f"{name}.embedding.sum", recording)

    def _set_bits(self, bits: Mapping[str, int] | int | None) -> None:
        layers = self.weighted
        chosen = dict.fromkeys(layers, bits) if isinstance(bits, int) else dict(bits or {})
        for name, wanted in chosen.items():
            if name not in layers:
                raise HwsimError(f"unknown layer '{name}'{nearest(name, layers)}")
            if wanted not in TABLES:
                raise HwsimError(f"bits of {name} must be one of {', '.join(map(str, TABLES))}, got {wanted}")
            layers[name].weight_grid = FakeQuantizer(TABLES[wanted])
