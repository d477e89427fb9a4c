"""Hypotheses of a search: those that are found, those that live, and the rows that were evaluated for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A label sequence and its score: log probabilities, with those of language models as they were weighted."""

    labels: tuple[int, ...]
    score: float


@dataclass(slots=True)
class StepCount:
    """Rows of one step."""

    frame: int
    joint: int = 0
    new: int = 0
    extended: int = 0
    extended_new: int = 0
    candidates: int = 0


@dataclass(slots=True)
class Beam:
    """Live hypotheses: nodes of the prefix tree and their scores."""

    nodes: list[int]
    scores: list[float]

    def merged(self) -> Beam:
        """Equal prefixes as one, their probabilities added, in the order of their first."""
        total: dict[int, float] = {}
        for node, score in zip(self.nodes, self.scores, strict=True):
            total[node] = score if node not in total else float(np.logaddexp(total[node], score))
        return Beam(list(total), list(total.values()))

    def best(self, size: int) -> Beam:
        """The `size` best, best first; ties in their order."""
        order = sorted(range(len(self.nodes)), key=lambda at: -self.scores[at])[:size]
        return Beam([self.nodes[at] for at in order], [self.scores[at] for at in order])
