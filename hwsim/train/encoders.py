"""Encoders of transducers as modules: LSTM layers, or Conformer blocks, over batches of whole utterances."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from hwsim.errors import HwsimError
from hwsim.extract.encoder import block_spec
from hwsim.extract.encoder_spec import AnyEncoderSpec, ConformerEncoderSpec, EncoderSpec, StackedFrames
from hwsim.train.conformer import QuantConformerBlock
from hwsim.train.lstm_layer import LstmLayer
from hwsim.train.modules import Grid, QuantLinear, Recording, activation_grid, before, on_grid
from hwsim.train.recipes import NetworkRecipe


class LstmEncoder(nn.Module):
    """LSTM layers over whole utterances, frames stacked before one of them: `layer0`, `layer1` and so on.

    Raises HwsimError for a bidirectional specification: only streaming encoders are trained.
    """

    def __init__(self, spec: EncoderSpec, recipe: NetworkRecipe) -> None:
        super().__init__()
        if spec.bidirectional:
            raise HwsimError("an encoder to be trained must be unidirectional, got a bidirectional one")
        self.spec = spec
        self.input_grid: Grid | None = activation_grid(recipe.features_grid())
        for index in range(spec.layers):
            self.add_module(f"layer{index}", LstmLayer(self.width(index), spec.cells, recipe))

    def width(self, index: int) -> int:
        """Inputs of a layer."""
        below = self.spec.input if index == 0 else self.spec.cells
        return below * (self.spec.stack_factor if index == self.spec.stack_before_layer else 1)

    @property
    def layers(self) -> list[LstmLayer]:
        """The layers, first to last."""
        return [getattr(self, f"layer{index}") for index in range(self.spec.layers)]

    def forward(self, x: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """h (T', B, cells) and the frames of each utterance there, of x (T, B, K) with `frames` (B,)."""
        x = on_grid(x, self.input_grid)
        for index, layer in enumerate(self.layers):
            if index == self.spec.stack_before_layer:
                x = stacked(x * before(x, frames), self.spec.stack_factor)
                frames = -(-frames // self.spec.stack_factor)
            x = layer(x)
        return x, frames


class ConformerEncoder(nn.Module):
    """Stacked frames through a linear layer and Conformer blocks: `subsampling`, `layer0`, `layer1` and so on.

    Raises HwsimError for a subsampling by convolutions, which is not trained.
    """

    def __init__(self, spec: ConformerEncoderSpec, recipe: NetworkRecipe) -> None:
        super().__init__()
        if not isinstance(spec.subsampling, StackedFrames):
            raise HwsimError(f"the subsampling of an encoder to be trained must be stack, got {spec.subsampling.kind}")
        self.spec = spec
        self.input_grid: Grid | None = activation_grid(recipe.features_grid())
        blocks = recipe.block_recipes()
        self.subsampling = QuantLinear(spec.input * spec.reduction, spec.width, weight=blocks.weight,
                                       output=blocks.stream)  # fmt: skip
        for index in range(spec.layers):
            self.add_module(f"layer{index}", QuantConformerBlock(block_spec(spec, index), blocks))

    @property
    def layers(self) -> list[QuantConformerBlock]:
        """The blocks, first to last."""
        return [getattr(self, f"layer{index}") for index in range(self.spec.layers)]

    def forward(self, x: Tensor, frames: Tensor, recording: Recording | None = None) -> tuple[Tensor, Tensor]:
        """The last norm (T', B, D) and the frames of each utterance there, of x (T, B, K) with `frames` (B,)."""
        x = stacked(on_grid(x, self.input_grid) * before(x, frames), self.spec.reduction)
        counts = -(-frames // self.spec.reduction)
        x = self.subsampling.evaluate(x, "encoder.subsampling.linear", recording)
        for index, layer in enumerate(self.layers):
            x = layer.evaluate(x, f"encoder.layer{index}", recording, counts)
        return x, counts


def stacked(x: Tensor, factor: int) -> Tensor:
    """Neighbouring frames side by side: (T, B, K) -> (ceil(T / factor), B, factor K), zeros at the end."""
    x = F.pad(x, (0, 0, 0, 0, 0, -len(x) % factor))
    return x.reshape(-1, factor, *x.shape[1:]).transpose(1, 2).flatten(2)


def make_encoder(spec: AnyEncoderSpec, recipe: NetworkRecipe) -> LstmEncoder | ConformerEncoder:
    """The encoder of a specification. Raises HwsimError for one that is neither of LSTM layers nor a Conformer."""
    if isinstance(spec, ConformerEncoderSpec):
        return ConformerEncoder(spec, recipe)
    if isinstance(spec, EncoderSpec):
        return LstmEncoder(spec, recipe)
    raise HwsimError(f"an encoder to be trained must be of kind lstm or conformer, got {spec.kind}")
