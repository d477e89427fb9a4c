"""A trained module as the networks of a beam search: the float64 graph that a decode in integers must equal."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hwsim.decode.prefixes import Array, Nodes, States
from hwsim.numerics.rounding import Reals
from hwsim.train.language_model import QuantLanguageModel
from hwsim.train.lstm_layer import States as LayerStates
from hwsim.train.transducer import QuantTransducer

Step = Callable[[Tensor, list[LayerStates]], tuple[Tensor, list[LayerStates]]]


class GraphSteps:
    """A prediction network or a language model in evaluation, label by label."""

    def __init__(self, start: list[LayerStates], step: Step) -> None:
        self._start, self._step = start, step

    def start(self) -> States:
        """Zero states, (1, H): h and c of each layer."""
        return tuple(state.numpy() for pair in self._start for state in pair)

    @torch.no_grad()
    def step(self, labels: Nodes, states: States) -> tuple[Array, States]:
        """Outputs (R, N) and new states (R, H) after labels (R,)."""
        tensors = [torch.as_tensor(state) for state in states]
        outputs, after = self._step(torch.as_tensor(labels), list(zip(tensors[::2], tensors[1::2], strict=True)))
        return outputs.numpy(), tuple(state.numpy() for pair in after for state in pair)


class GraphTransducer:
    """A transducer in evaluation as `decode.beam.Transducer`; give it `network.double().eval()`."""

    def __init__(self, network: QuantTransducer) -> None:
        self._network = network
        self.prediction = GraphSteps(network.prediction.start(1), self._predict)

    @torch.no_grad()
    def encode(self, features: Array) -> Reals:
        """Projected encoder frames (T', J) of an utterance (T, K)."""
        x = torch.as_tensor(features, dtype=self._network.joint.output.weight.dtype)
        encoded: Reals = self._network.encode(x[:, None], torch.tensor([len(x)]))[0][:, 0].numpy()
        return encoded

    @torch.no_grad()
    def joint(self, frames: Array, predicted: Array) -> Reals:
        """Log probabilities (R, V + 1) of rows of both projections (R, J)."""
        logits = self._network.joint(torch.as_tensor(frames), torch.as_tensor(predicted))
        log_p: Reals = logits.log_softmax(-1).numpy()
        return log_p

    def _predict(self, labels: Tensor, states: list[LayerStates]) -> tuple[Tensor, list[LayerStates]]:
        h, after = self._network.prediction.step(labels, states)
        return self._network.joint.prediction_projection(h), after


def graph_language_model(network: QuantLanguageModel) -> GraphSteps:
    """A language model in evaluation as `decode.prefixes.LabelNetwork`."""
    return GraphSteps(network.stack.start(1), network.step)
