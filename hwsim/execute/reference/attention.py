"""Softmax, attention and the log-softmax head, in integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwsim.errors import HwsimError
from hwsim.execute.reference.linear import activation_sums, to_codes
from hwsim.execute.semantics import TRAINING, Semantics
from hwsim.numerics.quantizers import Quantizer, check_codes
from hwsim.numerics.rounding import Integers, Reals, round_real, rounding_divide
from hwsim.numerics.tables import exponential_table

LOG_STEP = 2.0**-16


def softmax_numerators(
    codes: ArrayLike, scores: Quantizer, mask: NDArray[np.bool_] | None = None, fraction_bits: int = 15
) -> Integers:
    """e = E[max - x] over the last axis, E the shared table of round(2^f exp(-d s)); 0 where `mask` is False.

    `codes` (..., N) of `scores`, at most 16 bits; a row of which nothing is left is all 0.
    """
    x = check_codes(codes, scores.code_range, "scores")
    if scores.bits > 16 or scores.scale.size != 1:
        raise HwsimError(f"scores must have one scale and at most 16 bits, got {scores.bits} bits")
    kept = np.ones(x.shape, bool) if mask is None else np.broadcast_to(mask, x.shape)
    least = scores.code_range[0]
    greatest = np.where(kept, x, least).max(axis=-1, keepdims=True)
    table = exponential_table(float(scores.scale.reshape(())), scores.bits, fraction_bits)
    return np.where(kept, table[np.where(kept, greatest - x, 0)], 0)


def softmax(
    codes: ArrayLike, scores: Quantizer, output_bits: int = 8, mask: NDArray[np.bool_] | None = None
) -> Integers:
    """p = min(floor(e 2^b / sum e + 1/2), 2^b - 1): unsigned codes of scale 2^-b, over the last axis.

    One integer division per element, ties up; a row of which nothing is left is all 0. `output_bits` 1 to 16.
    """
    numerators = softmax_numerators(codes, scores, mask)
    total = np.maximum(numerators.sum(axis=-1, keepdims=True), 1)
    return np.minimum(rounding_divide(numerators << output_bits, total), (1 << output_bits) - 1)


def probability_grid(bits: int = 8) -> Quantizer:
    """The grid of `softmax`: unsigned codes of scale 2^-bits."""
    return Quantizer(np.asarray(2.0**-bits), bits, signed=False)


def softmax_values(x: ArrayLike, mask: NDArray[np.bool_] | None = None) -> Reals:
    """exp(x - max) / sum exp(x - max) over the last axis, float64, of the elements that `mask` keeps; 0 elsewhere."""
    values = np.asarray(x, np.float64)
    kept = np.ones(values.shape, bool) if mask is None else np.broadcast_to(mask, values.shape)
    greatest = np.where(kept, values, -np.inf).max(axis=-1, keepdims=True)
    numerators = np.where(kept, np.exp(np.where(kept, values - greatest, 0.0)), 0.0)
    total = numerators.sum(axis=-1, keepdims=True)
    result: Reals = numerators / np.where(total > 0, total, 1.0)
    return result


def context_mask(queries: int, keys: int, left: int | None, right: int | None, chunk: int | None = None,
                 past: int = 0) -> NDArray[np.bool_]:  # fmt: skip
    """(queries, keys), True where query i sees key j: i - left <= j <= i + right; None sees all on its side.

    With a chunk, i is the first frame of the query's chunk on the left side and its last one on the right. The first
    `past` keys are of frames before the first query.
    """
    first = np.arange(queries)[:, None]
    first = first if chunk is None else first - first % chunk
    after = right if chunk is None else chunk - 1
    ahead = np.arange(keys) - past - first
    return (ahead >= (-keys - queries if left is None else -left)) & (ahead <= (keys if after is None else after))


def relative_scores(position: Reals, keys: int | None = None) -> Reals:
    """Scores of positions (..., Q, 2T - 1) beside those of content: out[..., i, j] = in[..., i, T - 1 - i - past + j].

    Row r of what the queries met stands for the distance T - 1 - r of a query to a key before it. Output (..., Q, K)
    for K `keys` (none: Q), of which the first past = K - Q are of frames before the first query. Distances beyond
    T - 1 take the scores of T - 1: a context that is shorter hides them.
    """
    queries, distances = position.shape[-2:]
    keys = queries if keys is None else keys
    i, j = np.arange(queries)[:, None], np.arange(keys)
    at = distances // 2 - i - (keys - queries) + j
    shifted: Reals = position[..., i, np.clip(at, 0, distances - 1)]
    return shifted


def score_scale(query: Quantizer, key: Quantizer, depth: int) -> float:
    """sq sk / sqrt(d) in float64: what a sum of products of queries and keys of d elements is worth."""
    return float(query.scale.reshape(())) * float(key.scale.reshape(())) / float(np.sqrt(depth))


@dataclass(frozen=True, slots=True, eq=False)
class Attention:
    """The quantizers of one attention: `query`, `key`, `value`, `scores`, `output`.

    `probability_bits`: probabilities are unsigned codes of scale 2^-bits.
    """

    query: Quantizer
    key: Quantizer
    value: Quantizer
    scores: Quantizer
    output: Quantizer
    probability_bits: int = 8
    semantics: Semantics = TRAINING

    def score_codes(self, q: ArrayLike, k: ArrayLike, bias: ArrayLike = 0) -> Integers:
        """Scores (..., T, S) of q (..., T, D) and k (..., S, D): codes of q k^T + bias, of scale sq sk / sqrt(D).

        `bias` in steps of sq sk, such as the position term of a Conformer.
        """
        keys = np.swapaxes(np.asarray(k), -1, -2)
        sums = activation_sums(q, keys, self.query, self.key, self.semantics) + np.asarray(bias, np.int64)
        scale = score_scale(self.query, self.key, np.shape(q)[-1])
        return to_codes(sums, scale, self.scores, self.semantics)

    def run(
        self, q: ArrayLike, k: ArrayLike, v: ArrayLike, mask: NDArray[np.bool_] | None = None, bias: ArrayLike = 0
    ) -> Integers:
        """Output codes (..., T, D) of P v, of scale 2^-b sv, with P the softmax of the scores. See `to_codes`.

        `mask` broadcasts to (..., T, S); True keeps. A row without any kept score gives the output's zero point.
        """
        probabilities = softmax(self.score_codes(q, k, bias), self.scores, self.probability_bits, mask)
        grid = probability_grid(self.probability_bits)
        sums = activation_sums(probabilities, v, grid, self.value, self.semantics)
        return to_codes(sums, float(grid.scale) * float(self.value.scale), self.output, self.semantics)


def log_softmax(codes: ArrayLike, logits: Quantizer) -> Reals:
    """log p = -(max - x) s - log(sum e / 2^30) over the last axis, rounded to multiples of 2^-16, float64.

    The sum is an exact integer of the shared table with 30 fraction bits; the grid hides what libraries of `log`
    disagree about. `codes` (..., V) of `logits`, at most 16 bits.
    """
    x = check_codes(codes, logits.code_range, "logits")
    total = softmax_numerators(x, logits, fraction_bits=30).sum(axis=-1, keepdims=True)
    below = (x.max(axis=-1, keepdims=True) - x) * float(logits.scale.reshape(()))
    return round_real((-below - np.log(total * 2.0**-30)) / LOG_STEP) * LOG_STEP
