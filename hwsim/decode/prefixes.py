"""Label prefixes of a search as nodes of a tree, and what networks gave for each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Nodes = npt.NDArray[np.int64]
States = tuple[Array, ...]
BLANK = 0
"""Label of blank in a transducer, of the start and end of a sentence in a language model."""
ROOT = 0


class LabelNetwork(Protocol):
    """A network that reads one label a step: a prediction network or a language model."""

    def start(self) -> States:
        """The states before any label, each of shape (1, ...)."""
        ...

    def step(self, labels: Nodes, states: States) -> tuple[Array, States]:
        """Outputs (R, N) and new states (R, ...) of labels (R,) read in states of R rows."""
        ...


class Prefixes:
    """A tree of label sequences: node 0 is the empty one, every other a parent and one label more."""

    def __init__(self) -> None:
        self.parents: list[int] = [-1]
        self.labels: list[int] = [BLANK]
        self.lengths: list[int] = [0]
        self._children: dict[tuple[int, int], int] = {}

    def extend(self, node: int, label: int) -> int:
        """The node of a prefix and one label more."""
        found = self._children.get((node, label))
        if found is None:
            found = self._children[node, label] = len(self.parents)
            self.parents.append(node)
            self.labels.append(label)
            self.lengths.append(self.lengths[node] + 1)
        return found

    def sequence(self, node: int) -> tuple[int, ...]:
        """The labels of a node, first to last."""
        labels = []
        while node != ROOT:
            labels.append(self.labels[node])
            node = self.parents[node]
        return tuple(reversed(labels))


class PrefixCache:
    """Outputs of a label network by prefix: each prefix runs once, those that are missing as one batch."""

    def __init__(
        self, network: LabelNetwork, prefixes: Prefixes, finish: Callable[[Array], Array] | None = None
    ) -> None:
        self._network, self._prefixes, self._finish = network, prefixes, finish
        self._outputs: Array | None = None
        self._states: list[Array] = []
        self._slot: dict[int, int] = {}

    def outputs(self, nodes: Nodes) -> Array:
        """Outputs (R, N) after the labels of R nodes."""
        missing = [node for node in dict.fromkeys(nodes.tolist()) if node not in self._slot]
        if missing:
            self._evaluate(missing)
        assert self._outputs is not None
        return self._outputs[[self._slot[node] for node in nodes.tolist()]]

    def _evaluate(self, nodes: list[int]) -> None:
        """The prefix of a node's parent has been evaluated: a search extends only what it has scored."""
        prefixes = self._prefixes
        if nodes == [ROOT]:
            states = self._network.start()
        else:
            parents = [self._slot[prefixes.parents[node]] for node in nodes]
            states = tuple(state[parents] for state in self._states)
        labels = np.array([prefixes.labels[node] for node in nodes], np.int64)
        outputs, states = self._network.step(labels, states)
        self._keep(nodes, outputs if self._finish is None else self._finish(outputs), states)

    def _keep(self, nodes: list[int], outputs: Array, states: States) -> None:
        first = len(self._slot)
        self._slot.update({node: first + at for at, node in enumerate(nodes)})
        if self._outputs is None:
            self._outputs, self._states = outputs.copy(), [state.copy() for state in states]
            return
        end = len(self._slot)
        self._outputs = _grown(self._outputs, end)
        self._outputs[first:end] = outputs
        for at, state in enumerate(states):
            self._states[at] = _grown(self._states[at], end)
            self._states[at][first:end] = state


def _grown(array: Array, rows: int) -> Array:
    """The array with room for so many rows; twice as many as it had when it must grow."""
    if rows <= len(array):
        return array
    larger = np.empty((max(rows, 2 * len(array), 64), *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger
