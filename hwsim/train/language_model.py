"""A language model of the catalogue as a module: embedding, LSTM layers, output."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from hwsim.errors import HwsimError
from hwsim.extract.spec import LstmStackSpec
from hwsim.train.lstm_layer import States
from hwsim.train.modules import Recording
from hwsim.train.recipes import NetworkRecipe
from hwsim.train.transducer import LstmStack, projection

END = 0
"""Begins and ends a sentence."""
IGNORED = -100


def words_before(labels: Tensor) -> Tensor:
    """What a model reads to score labels (U, B) and the end after them: (U + 1, B), the end first."""
    return F.pad(labels, (0, 0, 1, 0), value=END)


def sentence_losses(logits: Tensor, labels: Tensor, lengths: Tensor) -> Tensor:
    """-log p(sentence), its end included, (B,) of logits (U + 1, B, V) for labels (U, B) of `lengths` (B,)."""
    wanted = F.pad(labels, (0, 0, 0, 1), value=END).clone()
    for row, length in enumerate(lengths.tolist()):
        wanted[length, row] = END
        wanted[length + 1 :, row] = IGNORED
    terms = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="none")
    return terms.reshape(wanted.shape).sum(0)


class QuantLanguageModel(nn.Module):
    """Log probabilities of the next label; label 0 is read first and stands for the end."""

    def __init__(self, spec: LstmStackSpec, recipe: NetworkRecipe) -> None:
        super().__init__()
        if spec.outputs is None:
            raise HwsimError("a language model must have outputs, got none")
        self.spec, self.recipe = spec, recipe
        self.stack = LstmStack(spec, recipe)
        self.output = projection(spec.cells, spec.outputs, recipe)

    def forward(self, labels: Tensor, lengths: Tensor) -> Tensor:
        """-log p(sentence), its end included, of each sentence (B,): labels (U, B) of `lengths` (B,)."""
        return sentence_losses(self.output(self.stack(words_before(labels))), labels, lengths)

    def step(self, labels: Tensor, states: list[States], name: str = "",
             recording: Recording | None = None) -> tuple[Tensor, list[States]]:  # fmt: skip
        """Log probabilities (R, V) and the new states after labels (R,)."""
        h, after = self.stack.step(labels, states, name, recording)
        return self.output(h).log_softmax(-1), after
