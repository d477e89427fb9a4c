"""Second pass: a language model that reads whole sentences scores what a search has found, in integers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwsim.decode.hypotheses import Hypothesis
from hwsim.decode.prefixes import BLANK, Array
from hwsim.errors import HwsimError
from hwsim.execute.executor import Executable
from hwsim.numerics.rounding import Reals

END = BLANK
"""Begins and ends a sentence of a language model."""
LABELS, LOGITS = ".embedding.labels", ".output.logits"


@dataclass(frozen=True, slots=True)
class Rescored:
    """A sentence of the first pass with its new score, and the two numbers that it is made of."""

    labels: tuple[int, ...]
    score: float
    """Of the first pass, of the model, and of the length, as they were weighted."""
    first: float
    """Of the first pass."""
    log_p: float
    """Log probability of the sentence by the model, its end included."""


def rescore(n_best: Sequence[Hypothesis], model: Executable, weight: float, *, first_weight: float = 1.0,
            length_reward: float = 0.0) -> list[Rescored]:  # fmt: skip
    """The sentences of a search (`Decoded.n_best`) in the order of their new scores, best first, equals as they were.

    score = first_weight first + weight log p(sentence) + length_reward words, natural logarithms. `model`: see
    `sentence_log_p`. Weights of 1 - w and w interpolate. Raises HwsimError for an empty list, weights below 0 or not
    finite, and as `sentence_log_p`.
    """
    if not n_best:
        raise HwsimError("n_best must hold at least one hypothesis, got none")
    for name, value in (("weight", weight), ("first_weight", first_weight)):
        if not 0 <= value < math.inf:
            raise HwsimError(f"{name} must be 0 or more and finite, got {value}")
    if not math.isfinite(length_reward):
        raise HwsimError(f"length_reward must be finite, got {length_reward}")
    found = []
    for one, log_p in zip(n_best, sentence_log_p(model, [one.labels for one in n_best]).tolist(), strict=True):
        score = first_weight * one.score + weight * log_p + length_reward * len(one.labels)
        found.append(Rescored(one.labels, score, one.score, log_p))
    return sorted(found, key=lambda one: -one.score)


def sentence_log_p(model: Executable, sentences: Sequence[Sequence[int]]) -> Reals:
    """Sum over words and the end of log p(word | words before), of each sentence (N,), float64.

    `model`: reads `<name>.embedding.labels` (T,), the words before, and writes log probabilities
    `<name>.output.logits` (T, V) of the next ones, none of which depends on a later word. A shorter sentence is filled
    up with ends, which changes no code before them. Label 0 is the end. Raises HwsimError for another executable, for
    a sentence that is too long for it, and for labels that it has not.
    """
    labels = model.inputs[0] if len(model.inputs) == 1 else ""
    logits = labels.removesuffix(LABELS) + LOGITS
    if not labels.endswith(LABELS) or logits not in model.outputs:
        raise HwsimError(f"{model.trace.name}: must read the labels of whole sentences and write their {LOGITS[1:]}, "
                         f"got {', '.join(model.inputs)}")  # fmt: skip
    most, vocabulary = model.network.tensors[logits].shape
    return np.array([_log_p(model, labels, logits, _checked(sentence, most, vocabulary), most)
                     for sentence in sentences])  # fmt: skip


def _checked(sentence: Sequence[int], most: int, vocabulary: int) -> Array:
    words = np.asarray(sentence, np.int64)
    if len(words) + 1 > most:
        raise HwsimError(f"a sentence must have at most {most} words with its end, got {len(words) + 1}")
    outside = words[(words <= END) | (words >= vocabulary)]
    if len(outside):
        raise HwsimError(f"labels of a sentence must be 1 to {vocabulary - 1}, got {outside[0]}")
    return words


def _log_p(model: Executable, labels: str, logits: str, words: Array, most: int) -> float:
    before = np.full(most, END)
    before[1 : len(words) + 1] = words
    log_p = model.run({labels: before})[logits]
    return math.fsum(log_p[np.arange(len(words) + 1), np.append(words, END)].tolist())
