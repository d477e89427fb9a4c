"""An RNN transducer of the catalogue as a module: encoder, prediction network and joint, quantized by a recipe."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwsim.errors import HwsimError
from hwsim.extract.spec import JointSpec, LstmStackSpec, NetworkSpec
from hwsim.train.convolution import QuantConv1d
from hwsim.train.encoders import ConformerEncoder, make_encoder
from hwsim.train.loss import BLANK, transducer_loss
from hwsim.train.lstm_layer import LstmLayer, States
from hwsim.train.modules import (
    Grid,
    QuantEmbedding,
    QuantLinear,
    Recording,
    activation_grid,
    by_table,
    run_time,
    stored,
)
from hwsim.train.recipes import NetworkRecipe
from hwsim.train.weights import weight_grid


def projection(inputs: int, outputs: int, recipe: NetworkRecipe, bias: bool = True) -> QuantLinear:
    """A linear layer of activations that are on a grid already, which writes reals."""
    linear = QuantLinear(inputs, outputs, bias=bias)
    linear.weight_grid = weight_grid(recipe.weight, (inputs, outputs))
    return linear


class LstmStack(nn.Module):
    """An embedding and LSTM layers that read one label a step: a prediction network, or most of a language model."""

    def __init__(self, spec: LstmStackSpec, recipe: NetworkRecipe) -> None:
        super().__init__()
        if spec.dense_inputs and spec.layers > 1 and recipe.is_quantized:
            raise HwsimError("dense_inputs must be false for a network to be trained in low precision")
        self.spec = spec
        self.embedding = QuantEmbedding(spec.vocabulary, spec.embedding, weight=recipe.embedding)
        for index in range(spec.layers):
            self.add_module(f"layer{index}", LstmLayer(spec.layer_input(index), spec.cells, recipe))

    @property
    def layers(self) -> list[LstmLayer]:
        """The layers, first to last."""
        return [getattr(self, f"layer{index}") for index in range(self.spec.layers)]

    def forward(self, labels: Tensor) -> Tensor:
        """h (U, B, cells) of labels (U, B)."""
        embedded = x = self.embedding(labels)
        for index, layer in enumerate(self.layers):
            x = layer(torch.cat([embedded, x], dim=-1) if index and self.spec.dense_inputs else x)
        h: Tensor = x
        return h

    def start(self, rows: int) -> list[States]:
        """Zero states of each layer."""
        zeros = self.embedding.weight.new_zeros(rows, self.spec.cells)
        return [(zeros, zeros)] * self.spec.layers

    def step(self, labels: Tensor, states: list[States], name: str = "",
             recording: Recording | None = None) -> tuple[Tensor, list[States]]:  # fmt: skip
        """h (R, cells) and the new states after labels (R,)."""
        embedded = x = self.embedding.evaluate(labels, f"{name}.embedding", recording)
        after = []
        for index, layer in enumerate(self.layers):
            x = torch.cat([embedded, x], dim=-1) if index and self.spec.dense_inputs else x
            after.append(layer.step(x, states[index], f"{name}.layer{index}", recording))
            x = after[-1][0]
        return x, after


class Joint(nn.Module):
    """Q(f(e + p)) W + b of projected encoder frames e and prediction outputs p, or of their product."""

    def __init__(self, spec: JointSpec, encoder: int, prediction: int, recipe: NetworkRecipe) -> None:
        super().__init__()
        self.spec = spec
        self.encoder_projection = projection(encoder, spec.size, recipe, bias=spec.combine != "concatenate")
        self.prediction_projection = projection(prediction, spec.size, recipe)
        self.output = projection(spec.size, spec.outputs, recipe)
        if spec.activation == "relu" and recipe.joint is not None and hasattr(recipe.joint, "bound"):
            raise HwsimError(f"precision {recipe.name} must have a joint with tanh, which is bounded, got relu")
        self.hidden_grid: Grid | None = activation_grid(recipe.joint_grid())
        self.output.input_grid = run_time(self.hidden_grid)

    def forward(self, frames: Tensor, predicted: Tensor) -> Tensor:
        """Logits (..., V) of both sides, projected (..., J), which are broadcast."""
        return self.evaluate(frames, predicted)

    def evaluate(self, frames: Tensor, predicted: Tensor, recording: Recording | None = None) -> Tensor:
        """`forward`, recording."""
        both = frames * predicted if self.spec.combine == "multiply" else frames + predicted
        if self.spec.activation == "relu":
            hidden = torch.relu(both)
        else:
            hidden = both.tanh() if self.training else by_table(both, "tanh")
        logits: Tensor = self.output(stored(hidden, self.hidden_grid, "joint.output.hidden", recording))
        return logits


class QuantTransducer(nn.Module):
    """A transducer of a `NetworkSpec` in a precision. Time is the first axis, blank is label 0.

    In training, sigmoid and tanh are exact and layers are batched loops; in evaluation every value is the executor's.
    """

    def __init__(self, spec: NetworkSpec, recipe: NetworkRecipe) -> None:
        super().__init__()
        self.spec, self.recipe = spec, recipe
        self.encoder = make_encoder(spec.encoder, recipe)
        self.prediction = LstmStack(spec.prediction, recipe)
        self.joint = Joint(spec.joint, spec.encoder.outputs, spec.prediction.cells, recipe)
        self._start_loud()

    @torch.no_grad()
    def _start_loud(self) -> None:
        """Let the first outputs of LSTMs be as large as the features' differences, and forget little.

        From torch's own start the prediction network learns its grammar long before a gradient of sound gets through.
        A Conformer ends in a norm, whose outputs are large from the start.
        """
        if isinstance(self.encoder, ConformerEncoder):
            return
        self.joint.encoder_projection.weight.mul_(4.0)
        for layer in self.encoder.layers:
            layer.weight_ih_l0.mul_(2.0)
            layer.bias_ih_l0[layer.cells : 2 * layer.cells].add_(1.0)  # the forget gate

    def encode(self, x: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Projected encoder frames (T', B, J) and how many each utterance has, of x (T, B, K) and `frames` (B,)."""
        h, counts = self.encoder(x, frames)
        return self.joint.encoder_projection(h), counts

    def predict(self, labels: Tensor) -> Tensor:
        """Projected prediction outputs (U + 1, B, J): before the first of the labels (U, B), and after each."""
        h = self.prediction(F.pad(labels, (0, 0, 1, 0), value=BLANK))
        predicted: Tensor = self.joint.prediction_projection(h)
        return predicted

    def forward(self, x: Tensor, frames: Tensor, labels: Tensor, lengths: Tensor) -> Tensor:
        """The loss of each utterance (B,): features (T, B, K) of `frames` (B,), labels (U, B) of `lengths` (B,)."""
        encoded, counts = self.encode(x, frames)
        predicted = self.predict(labels)
        logits = self.joint(encoded.transpose(0, 1)[:, :, None], predicted.transpose(0, 1)[:, None])
        return transducer_loss(logits.log_softmax(-1), labels.T, counts, lengths)

    @torch.no_grad()
    def greedy(self, x: Tensor, frames: Tensor, symbols: int = 10) -> list[list[int]]:
        """Labels of each utterance, the best symbol at each frame until it is blank, at most `symbols` of them."""
        encoded, counts = self.encode(x, frames)
        rows = x.shape[1]
        found: list[list[int]] = [[] for _ in range(rows)]
        h, states = self.prediction.step(torch.full((rows,), BLANK), self.prediction.start(rows))
        predicted = self.joint.prediction_projection(h)
        for t in range(len(encoded)):
            live = torch.nonzero(counts > t)[:, 0]
            for _ in range(symbols):
                best = self.joint(encoded[t, live], predicted[live]).argmax(-1)
                live, best = live[best != BLANK], best[best != BLANK]
                if not len(live):
                    break
                for row, label in zip(live.tolist(), best.tolist(), strict=True):
                    found[row].append(label)
                h, after = self.prediction.step(best, [(a[live], b[live]) for a, b in states])
                states = [tuple(_put(old, live, new) for old, new in zip(*pair, strict=True))  # type: ignore[misc]
                          for pair in zip(states, after, strict=True)]  # fmt: skip
                predicted = _put(predicted, live, self.joint.prediction_projection(h))
        return found


def _put(old: Tensor, rows: Tensor, new: Tensor) -> Tensor:
    return old.index_copy(0, rows, new)


def weight_places(network: nn.Module) -> list[tuple[str, Tensor, nn.Module, str]]:
    """(name, matrix (K, N) or table, its module, the attribute there that holds its grid) of a network's weights."""
    found: list[tuple[str, Tensor, nn.Module, str]] = []
    for name, module in network.named_modules():
        if isinstance(module, LstmLayer):
            found.append((f"{name}.input_weight", module.input_weight, module, "input_weight_grid"))
            found.append((f"{name}.hidden_weight", module.hidden_weight, module, "hidden_weight_grid"))
        elif isinstance(module, QuantConv1d):
            found.append((f"{name}.weight", module.matrix, module, "weight_grid"))
        elif isinstance(module, QuantLinear):
            found.append((f"{name}.weight", module.weight.T, module, "weight_grid"))
        elif isinstance(module, QuantEmbedding):
            found.append((f"{name}.weight", module.weight, module, "weight_grid"))
    return found


def matrices(network: nn.Module) -> list[tuple[str, Tensor, Any]]:
    """(name, matrix (K, N), its grid or None) of every matrix of a transducer or a language model but tables."""
    return [(name, value, getattr(module, attribute)) for name, value, module, attribute in weight_places(network)
            if not isinstance(module, QuantEmbedding)]  # fmt: skip
