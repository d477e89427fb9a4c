"""A quantized factored time-delay network, with bits of its own for every block; and batch norms folded into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hwsim.errors import HwsimError
from hwsim.extract.encoder_spec import TdnnfEncoderSpec
from hwsim.extract.tdnnf import FactoredLayer, factored_layers, outputs_of
from hwsim.numerics.calibration import MinMax
from hwsim.numerics.least_squares import LeastSquares
from hwsim.train.modules import (
    MatrixWeights,
    QuantActivation,
    QuantLinear,
    QuantModule,
    Recipe,
    Recording,
    activation_grid,
    on_grid,
    own_grid,
    stored,
)


@dataclass(frozen=True, slots=True, eq=False)
class TdnnfRecipes:
    """The recipes of a network; every activation has a grid of its own, None leaves reals."""

    first: MatrixWeights | None = field(default_factory=lambda: LeastSquares(8))
    """The affine layer on the features."""
    layers: MatrixWeights | Sequence[MatrixWeights | None] | None = field(default_factory=lambda: LeastSquares(4))
    """Both matrices of every factored layer, or of each."""
    last: MatrixWeights | None = field(default_factory=lambda: LeastSquares(4))
    """What follows the factored layers, the outputs included."""
    features: Recipe | None = field(default_factory=lambda: MinMax(8))
    hidden: Recipe | None = field(default_factory=lambda: MinMax(8))
    """What bottlenecks and ReLUs write."""
    stream: Recipe | None = field(default_factory=lambda: MinMax(8))
    """The residual stream, which products read too."""
    sums: Recipe | None = None
    """Sums before a ReLU."""
    scores: Recipe | None = field(default_factory=lambda: MinMax(16))
    """Acoustic scores; as codes they are exact, reals of a graph in floating point differ in their last bits."""

    def of_layer(self, index: int, count: int) -> MatrixWeights | None:
        """The recipe of a factored layer of `count`. Raises HwsimError for a list of another length."""
        if not isinstance(self.layers, Sequence):
            return self.layers
        if len(self.layers) != count:
            raise HwsimError(f"layers must have {count} recipes, got {len(self.layers)}")
        return self.layers[index]


def mixed_recipes(bits: Sequence[int], first: int | None = 8) -> TdnnfRecipes:
    """Bits of each factored layer and of what follows them; `first` of the first layer, None for reals.

    Weights are one table {0, ±a, ..., ±a (2^(bits-1) - 1)} for each matrix, ±a at 1 bit, by least squares; at 16 bits
    a is the largest weight's, from which the fit of so many levels would hardly differ.
    Source of values and blocks: Xu et al., Interspeech 2022, arXiv 2206.11643.
    """
    of = [_table(count) for count in bits]
    return TdnnfRecipes(first=None if first is None else _table(first), layers=of[:-1], last=of[-1])


def _table(bits: int) -> LeastSquares | MinMax:
    return MinMax(bits) if bits == 16 else LeastSquares(bits)


class QuantFactoredLayer(nn.Module):
    """Q(relu(affine(linear(x))) + bypass x) at the frames of its output, of x (T, ..., width)."""

    def __init__(self, layer: FactoredLayer, weight: MatrixWeights | None, recipes: TdnnfRecipes) -> None:
        super().__init__()
        taps, width, size = layer.taps, layer.width, layer.bottleneck
        self.linear = QuantLinear(taps * width, size, bias=False, weight=weight, output=own_grid(recipes.hidden))
        self.affine = QuantLinear(taps * size, width, weight=weight, output=own_grid(recipes.sums))
        self.stream_grid = own_grid(recipes.stream)

    def evaluate(self, x: Tensor, layer: FactoredLayer, name: str, recording: Recording | None) -> Tensor:
        """`layer` says which frames x has and which are wanted."""
        rows, near, step = layer.after.count, layer.dilation, layer.bypass_rows["step"]
        if layer.turns:
            early, middle, late = (x[start::step][:rows] for start in (0, near, 2 * near))
            pairs = ((early, middle, "linear"), (middle, late, "linear_late"))
            z = [self.linear.evaluate(torch.cat([a, b], -1), f"{name}.{part}", recording) for a, b, part in pairs]
            y = self.affine.evaluate(torch.cat(z, -1), f"{name}.affine", recording)
        else:
            z = [self.linear.evaluate(_beside(x, near), f"{name}.linear", recording)]
            y = self.affine.evaluate(_beside(z[0], near), f"{name}.affine", recording)
        sums = torch.relu(y) + layer.bypass * x[near::step][:rows]
        return stored(sums, self.stream_grid, f"{name}.sum", recording)


def _beside(x: Tensor, near: int) -> Tensor:
    """Row t beside row t + near; x itself for 0."""
    return x if near == 0 else torch.cat([x[:-near], x[near:]], -1)


class QuantTdnnf(QuantModule):
    """The encoder of a `TdnnfEncoderSpec`, and with `outputs` the head: spliced features (rows, inputs) -> (T', small).

    x is (rows, ..., inputs), see `hwsim.extract.tdnnf.spliced_features`: its rows say how many frames are given. With
    the name `encoder` tensors are named as those of the catalogue's network. Batch norms are folded, see
    `fold_batch_norms`. Raises HwsimError for rows that the network would not use up.
    """

    def __init__(self, spec: TdnnfEncoderSpec, outputs: int | None = None, recipes: TdnnfRecipes | None = None) -> None:
        super().__init__()
        recipes = recipes or TdnnfRecipes()
        self.spec, self.outputs = spec, outputs
        self.input_grid = activation_grid(recipes.features)
        self.affine = QuantLinear(spec.inputs, spec.width, weight=recipes.first, output=own_grid(recipes.sums))
        self.affine_relu = QuantActivation("relu", output=own_grid(recipes.stream))
        count = len(spec.strides)
        for index, layer in enumerate(factored_layers(spec, 1)):
            self.add_module(f"layer{index}", QuantFactoredLayer(layer, recipes.of_layer(index, count), recipes))
        small, large, last, hidden = spec.small, spec.large, recipes.last, recipes.hidden
        self.prefinal_linear = QuantLinear(spec.width, small, bias=False, weight=last, output=own_grid(hidden))
        self.prefinal_affine = QuantLinear(small, large, weight=last, output=own_grid(recipes.sums))
        self.prefinal_relu = QuantActivation("relu", output=own_grid(hidden))
        self.prefinal_small = QuantLinear(large, small, bias=False, weight=last, output=own_grid(hidden))
        self.head = None
        if outputs is not None:
            self.head = QuantLinear(small, outputs, weight=last, output=own_grid(recipes.scores))

    @property
    def layers(self) -> list[QuantFactoredLayer]:
        """The factored layers, first to last."""
        return [getattr(self, f"layer{index}") for index in range(len(self.spec.strides))]

    def evaluate(self, x: Tensor, name: str = "", recording: Recording | None = None) -> Tensor:
        """`forward`, recording."""
        frames = factored_layers(self.spec, outputs_of(self.spec, len(x)))
        x = self.affine.evaluate(on_grid(x, self.input_grid), f"{name}.affine", recording)
        x = relu(self.affine_relu, x, f"{name}.affine", recording)
        for index, (layer, at) in enumerate(zip(self.layers, frames, strict=True)):
            x = layer.evaluate(x, at, f"{name}.layer{index}", recording)
        x = self.prefinal_linear.evaluate(x, f"{name}.prefinal.linear", recording)
        x = self.prefinal_affine.evaluate(x, f"{name}.prefinal.affine", recording)
        x = relu(self.prefinal_relu, x, f"{name}.prefinal.affine", recording)
        x = self.prefinal_small.evaluate(x, f"{name}.prefinal.small", recording)
        return x if self.head is None else self.head.evaluate(x, "head.output", recording)


def relu(part: QuantActivation, x: Tensor, name: str, recording: Recording | None) -> Tensor:
    """max(0, x) as `<name>.relu`, beside the sums of the same layer."""
    return stored(torch.relu(x), part.output_grid, f"{name}.relu", recording)


@dataclass(frozen=True, slots=True, eq=False)
class BatchNorm:
    """What a batch norm does at inference: scale x + offset, both (width,), scale positive."""

    scale: Tensor
    offset: Tensor


@torch.no_grad()
def fold_batch_norms(network: QuantTdnnf, norms: Sequence[BatchNorm]) -> None:
    """Fold the norms of a trained network into its matrices and biases, in place; in reals nothing changes.

    `norms`: of the first ReLU, of the ReLU of each factored layer (before the bypass is added), of the ReLU before
    `prefinal_small`, and of what that writes. A scale goes through its ReLU into the matrix before it. An offset is
    carried along the residual stream, where a bypass takes its share of it, and through each bottleneck into the next
    bias; frames before the first are copies of it, so that all have the same offset. Raises HwsimError for another
    number of norms, for a scale that is not positive, and without a head.
    """
    if len(norms) != len(network.layers) + 3:
        raise HwsimError(f"norms must be {len(network.layers) + 3}, got {len(norms)}")
    if network.head is None:
        raise HwsimError("a network whose norms are folded must have a head, which takes the last offset")
    if not all(bool((norm.scale > 0).all()) for norm in norms):
        raise HwsimError("scales of batch norms must be positive")
    first, *middle, last, small = norms
    _scale_rows(network.affine, first.scale)
    offset = first.offset
    for layer, norm in zip(network.layers, middle, strict=True):
        _take_offset(layer.linear, layer.affine, offset)
        _scale_rows(layer.affine, norm.scale)
        offset = norm.offset + network.spec.bypass * offset
    _take_offset(network.prefinal_linear, network.prefinal_affine, offset)
    _scale_rows(network.prefinal_affine, last.scale)
    through = network.prefinal_small.weight @ last.offset
    _scale_rows(network.prefinal_small, small.scale)
    assert network.head.bias is not None
    network.head.bias.add_(network.head.weight @ (small.scale * through + small.offset))


def _scale_rows(layer: QuantLinear, scale: Tensor) -> None:
    layer.weight.mul_(scale[:, None])
    if layer.bias is not None:
        layer.bias.mul_(scale)


def _take_offset(linear: QuantLinear, affine: QuantLinear, offset: Tensor) -> None:
    """Add to the affine layer's bias what a constant offset of the bottleneck's input becomes there."""
    z = linear.weight @ offset.repeat(linear.weight.shape[1] // len(offset))
    assert affine.bias is not None
    affine.bias.add_(affine.weight @ z.repeat(affine.weight.shape[1] // len(z)))
