"""N:M pruning: which weights are kept, and how their places are stored.

Weights are (K..., N): the last axis is the output channel, the axes before it are the reduction axis, flattened; a
vector (K,) is one channel. Source: Ding et al., ICASSP 2024, arXiv 2312.08553.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwsim.errors import HwsimError
from hwsim.numerics.formats import Sparsity
from hwsim.numerics.rounding import Integers

Mask = NDArray[np.bool_]


def keep_largest(w: ArrayLike, sparsity: Sparsity) -> Mask:
    """True at the N largest |w| of each M consecutive weights along K, of equals the first; of the shape of `w`.

    Raises HwsimError for weights that are not finite, and when M does not divide K.
    """
    weights = np.asarray(w, np.float64)
    if not weights.size or not np.isfinite(weights).all():
        raise HwsimError("weights to prune must be finite and at least one")
    grouped = _groups(np.abs(weights), sparsity)
    order = np.argsort(-grouped, axis=1, kind="stable")
    mask = np.zeros(grouped.shape, np.bool_)
    np.put_along_axis(mask, order[:, : sparsity.keep], True, axis=1)
    return mask.reshape(weights.shape)


def survivors(w: NDArray[Any], mask: Mask, sparsity: Sparsity) -> NDArray[Any]:
    """What is kept, (K N/M, channels), in the order of K. Raises HwsimError for a mask of other counts than N."""
    places = _places(mask, sparsity)
    kept = np.take_along_axis(_groups(w, sparsity), places, axis=1)
    return kept.reshape(-1, kept.shape[-1])


def stored_places(mask: Mask, sparsity: Sparsity) -> NDArray[np.uint8]:
    """The places that are kept as single bits, 0 or 1: `stored_bits(shape).sparsity` of them.

    Channel by channel along K. `mask`: one for each weight. `index`: ceil(log2 M) for each kept weight, most
    significant first. Raises HwsimError as `survivors`.
    """
    places = _places(mask, sparsity)
    if sparsity.storage == "mask":
        return _groups(mask, sparsity).transpose(2, 0, 1).reshape(-1).astype(np.uint8)
    powers = np.arange(sparsity.index_bits)[::-1]
    bits = places.transpose(2, 0, 1)[..., None] >> powers & 1
    return bits.reshape(-1).astype(np.uint8)


def mask_of_places(bits: ArrayLike, shape: Sequence[int], sparsity: Sparsity) -> Mask:
    """The inverse of `stored_places`, for weights of `shape`. Raises HwsimError for other bits than it writes."""
    given = np.asarray(bits)
    grouped = _groups(np.zeros(shape, np.bool_), sparsity)
    count, group, channels = grouped.shape
    width = group if sparsity.storage == "mask" else sparsity.keep * sparsity.index_bits
    if given.shape != (channels * count * width,) or not np.isin(given, (0, 1)).all():
        raise HwsimError(f"places of {sparsity} must be {channels * count * width} bits, got shape {given.shape}")
    rows = given.astype(np.int64).reshape(channels, count, -1)
    if sparsity.storage == "mask":
        mask = rows.transpose(1, 2, 0).astype(np.bool_)
    else:
        powers = 1 << np.arange(sparsity.index_bits)[::-1]
        places = (rows.reshape(channels, count, sparsity.keep, -1) * powers).sum(-1).transpose(1, 2, 0)
        if (places >= group).any():
            raise HwsimError(f"places of {sparsity} must be below {group}, got {places.max()}")
        mask = np.zeros((count, group, channels), np.bool_)
        np.put_along_axis(mask, places, True, axis=1)
    mask = mask.reshape(tuple(shape))
    _places(mask, sparsity)
    return mask


def _groups(array: NDArray[Any], sparsity: Sparsity) -> NDArray[Any]:
    """(K/M, M, channels)."""
    matrix = array.reshape(-1, array.shape[-1]) if array.ndim > 1 else array.reshape(-1, 1)
    if len(matrix) % sparsity.group:
        raise HwsimError(f"rows of an N:M matrix must be a multiple of {sparsity.group}, got {len(matrix)}")
    return matrix.reshape(-1, sparsity.group, matrix.shape[1])


def _places(mask: Mask, sparsity: Sparsity) -> Integers:
    """Places of what is kept in its group, rising: (K/M, N, channels)."""
    grouped = _groups(mask, sparsity)
    counts = grouped.sum(axis=1)
    if (counts != sparsity.keep).any():
        wrong = int(counts[counts != sparsity.keep].flat[0])
        raise HwsimError(f"a mask must keep {sparsity.keep} of each {sparsity.group} weights, got {wrong}")
    order: Integers = np.argsort(~grouped, axis=1, kind="stable")[:, : sparsity.keep]
    return order
