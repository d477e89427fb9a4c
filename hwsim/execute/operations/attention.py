"""Attention: scores of queries and keys, their softmax, and what the probabilities make of the values.

Products of two activations on grids are integer sums; where one of the two is a real, they are products in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hwsim.execute.operations.base import Array, Operation, Parameters, Run, names, same_codes
from hwsim.execute.operations.row import Row
from hwsim.execute.projection import storage
from hwsim.execute.reference.attention import (
    context_mask,
    probability_grid,
    relative_scores,
    score_scale,
    softmax,
    softmax_numerators,
    softmax_values,
)
from hwsim.execute.reference.linear import activation_sums
from hwsim.numerics.quantizers import Quantizer

MOST_SCORE_BITS = 16


class Scores(Operation):
    """scores (H, T, S) = q key^T / sqrt(d) of queries (T, H d) and keys (S, H d).

    Integer sums times sq sk / sqrt(d), float64; then the grid of the scores, if any. Profiles: the sums are those of
    the machine's accumulator; with an integer bias one multiplier sq sk / sqrt(d) / s makes them codes (`to_codes`).
    Scores without a grid, as those of content and of position are, are reals in every profile.
    """

    def __init__(self, row: Row, given: Parameters) -> None:
        row.expect(2)
        row.expect_shapes((row.m, row.batch * row.k), (row.n, row.batch * row.k), (row.batch, row.m, row.n))
        super().__init__(row.layer, names(row), (row.writes[0].name,))
        self.heads, self.depth = row.batch, row.k
        self.grids = _grids(row, given)
        self.exact = self.grids is not None
        self.context = ContextSize.of(row)
        self.of_frames = row.m == row.n
        """Keys are of the frames of the queries, not of positions."""

    def run(self, run: Run) -> None:
        """Store the scores."""
        grids = self.grids or (None, None)
        query, key = run.codes(self.reads[0], grids[0]), run.with_past(self.reads[1], grids[1])
        rows, columns = _heads(query, self.heads), _heads(key, self.heads).swapaxes(1, 2)
        if self.grids is None:
            run.put(self.writes[0], rows @ columns / np.sqrt(self.depth))
            return
        sums = activation_sums(rows, columns, *self.grids, run.network.semantics)
        run.put_integers(self.writes[0], sums, score_scale(*self.grids, self.depth))

    def carries(self) -> dict[str, int]:
        """The keys that a frame sees before it."""
        return self.context.kept(self.reads[1]) if self.of_frames else {}


class RelativeAdd(Operation):
    """scores[h, i, j] = content[h, i, j] + position[h, i, T - 1 - i + j], in float64; then the grid of the scores.

    (H, T, T) and (H, T, 2T - 1) to (H, T, T). No profile has a rule of its own for it: the sum is real in all.
    """

    def __init__(self, row: Row, given: Parameters) -> None:
        row.expect(2)
        frames = max(row.n, 1)
        shape = (row.m // frames, frames, frames)
        row.expect_shapes(shape, (*shape[:2], 2 * frames - 1), shape)
        super().__init__(row.layer, names(row), (row.writes[0].name,))
        self.streams = ContextSize.of(row).most <= frames

    def run(self, run: Run) -> None:
        """Store the sums."""
        content, position = (run.reals(name) for name in self.reads)
        run.put(self.writes[0], content + relative_scores(position, content.shape[-1]))


class Probabilities(Operation):
    """Softmax over the keys that a query sees: probabilities (H, T, S) of scores (H, T, S).

    The layer's `left` and `right` context are frames before and after the query's own; None sees all on that side.
    With a `chunk` a query sees its whole chunk, and `left` frames before that.
    Scores on a grid give unsigned codes of scale 2^-b by the shared integer definition (`reference.attention.softmax`)
    in every profile: no other runtime's rule is modelled. Real scores: float64, then the grid, if any.
    """

    def __init__(self, row: Row, given: Parameters) -> None:
        row.expect(1)
        shape = row.activations[0].shape
        if len(shape) != 3 or (shape[0] * shape[1], shape[2]) != (row.m, row.n):
            raise row.refuse(f"must read scores (heads, T, S) of {row.m} rows of {row.n}, got {shape}")
        row.expect_shapes(shape, shape)
        super().__init__(row.layer, names(row), (row.writes[0].name,))
        self.scores = given.network.grid(self.reads[0])
        self.output = given.network.grid(self.writes[0])
        self.context = ContextSize.of(row)
        self.chunk, self.square = self.context.chunk or 1, shape[1] == shape[2]
        self.streams = self.context.bounded and self.square
        if self.scores is not None:
            _check_softmax(row, self.scores, self.output)

    def run(self, run: Run) -> None:
        """Store the probabilities."""
        value = run.codes(self.reads[0], self.scores)
        mask = self._mask(value)
        if self.scores is None:
            run.put(self.writes[0], softmax_values(value, mask))
            return
        assert self.output is not None
        codes = softmax(value, self.scores, self.output.bits, mask)
        before = None
        if run.steps is not None:
            numerators = softmax_numerators(value, self.scores, mask)
            before = numerators / np.maximum(numerators.sum(axis=-1, keepdims=True), 1)
        run.keep(self.writes[0], codes.astype(storage(self.output)), before)

    def _mask(self, scores: Array) -> Any:
        c, (queries, keys) = self.context, scores.shape[-2:]
        if c.left is None and c.right is None and c.chunk is None:
            return None
        return context_mask(queries, keys, c.left, c.right, c.chunk, keys - queries if self.square else 0)


class Context(Operation):
    """out (T, H d) = probabilities (H, T, S) times values (S, H d), head by head.

    Integer sums times sp sv, float64; then the grid of the output, if any. Profiles: as for `Scores`.
    """

    def __init__(self, row: Row, given: Parameters) -> None:
        row.expect(2)
        row.expect_shapes((row.batch, row.m, row.k), (row.k, row.batch * row.n), (row.m, row.batch * row.n))
        super().__init__(row.layer, names(row), (row.writes[0].name,))
        self.heads = row.batch
        self.grids = _grids(row, given)
        self.exact = self.grids is not None
        self.context = ContextSize.of(row)

    def run(self, run: Run) -> None:
        """Store what the heads saw, beside each other."""
        grids = self.grids or (None, None)
        probabilities = run.codes(self.reads[0], grids[0])
        values = _heads(run.with_past(self.reads[1], grids[1]), self.heads)
        if self.grids is None:
            run.put(self.writes[0], _joined(probabilities @ values))
            return
        sums = activation_sums(probabilities, values, *self.grids, run.network.semantics)
        scale = float(self.grids[0].scale.reshape(())) * float(self.grids[1].scale.reshape(()))
        run.put_integers(self.writes[0], _joined(sums), scale)

    def carries(self) -> dict[str, int]:
        """The values that a frame sees before it."""
        return self.context.kept(self.reads[1])


@dataclass(frozen=True, slots=True)
class ContextSize:
    """Which keys a query sees, by the attributes of its layer: see `reference.attention.context_mask`."""

    left: int | None
    right: int | None
    chunk: int | None

    @classmethod
    def of(cls, row: Row) -> ContextSize:
        """The context of an operation of attention. Raises HwsimError for numbers that are none of frames."""
        return cls(_context(row, "left"), _context(row, "right"), _chunk(row))

    @property
    def bounded(self) -> bool:
        """Whether a frame sees none after it, or after its chunk, and a number of those before."""
        return self.left is not None and (self.chunk is not None or self.right == 0)

    @property
    def most(self) -> int:
        """Keys that a query sees at most, where it is bounded; 0 where it is not, and streams nowhere."""
        return (self.left or 0) + (self.chunk or 1) if self.bounded else 0

    def kept(self, name: str) -> dict[str, int]:
        """How many rows of keys or values stay for the frames to come."""
        return {name: self.left} if self.bounded and self.left else {}


def _grids(row: Row, given: Parameters) -> tuple[Quantizer, Quantizer] | None:
    """The grids of both activations, None when one of them is real."""
    first, second = (given.network.grid(name) for name in names(row))
    if first is None or second is None:
        return None
    for name, grid in zip(names(row), (first, second), strict=True):
        if grid.scale.size != 1 or grid.half_step:
            raise row.refuse(f"must have one scale and a level at zero for {name}")
    return first, second


def _context(row: Row, side: str) -> int | None:
    frames = row.attributes.get(side)
    if frames is not None and (not isinstance(frames, int) or isinstance(frames, bool) or frames < 0):
        raise row.refuse(f"must have a {side} context of 0 frames or more, or None, got {frames}")
    return frames


def _chunk(row: Row) -> int | None:
    frames = row.attributes.get("chunk")
    if frames is not None and (not isinstance(frames, int) or isinstance(frames, bool) or frames < 1):
        raise row.refuse(f"must have a chunk of 1 frame or more, or None, got {frames}")
    return frames


def _check_softmax(row: Row, scores: Quantizer, output: Quantizer | None) -> None:
    if scores.bits > MOST_SCORE_BITS or scores.scale.size != 1:
        raise row.refuse(f"must have scores of one scale and at most {MOST_SCORE_BITS} bits, got {scores.bits} bits "
                         f"and {scores.scale.size} scales")  # fmt: skip
    if output is None or not same_codes(output, probability_grid(output.bits)):
        raise row.refuse("must have probabilities of unsigned codes of scale 2^-bits when its scores have a grid")


def _heads(x: Array, heads: int) -> Array:
    """(T, H d) to (H, T, d)."""
    return x.reshape(len(x), heads, -1).swapaxes(0, 1)


def _joined(x: Array) -> Array:
    """(H, T, d) to (T, H d)."""
    return x.swapaxes(0, 1).reshape(x.shape[1], -1)
