"""Which pairs of frames the products of attention compute: all of them, or windows of keys where context is limited.

Frames that see `left` frames before them and `right` after them are taken in blocks of B queries, and each block
against a window of left + B + right keys. Every window has that size: what it has beyond the borders of the utterance,
what the last block has beyond its end, and keys that only some of its queries see are computed and masked. Relative
positions are of left + 1 + right distances, the same for all queries, and no others are projected.

Source of the way: local attention in blocks is how Transformers of limited context are commonly computed, with B as
long as a side, so that a window is a block and its neighbours. Fewer queries in a block would do fewer MACs, down to
the left + 1 + right keys of one query, but each key would be read and taken up by the array for fewer of them.
Not modelled: positions that are computed before the run, as they are the same for every utterance.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pairs:
    """Queries and keys of the products of attention: `blocks` products of `queries` x `keys` for each head."""

    blocks: int
    queries: int
    keys: int
    distances: int
    """Relative positions, one for each distance between a query and a key."""

    @property
    def rows(self) -> int:
        """Queries of all blocks, with those beyond the end."""
        return self.blocks * self.queries


def all_pairs(frames: int, kept: int = 0) -> Pairs:
    """Every frame against every frame, and against `kept` frames of before."""
    return Pairs(1, frames, kept + frames, kept + 2 * frames - 1)


def windows(frames: int, left: int | None, right: int | None, queries: int | None = None) -> Pairs:
    """Windows for blocks of `queries` frames, by default as many as the longer side of the context has.

    All pairs where a side is not limited, and where windows would compute no fewer: those that cover the utterance.
    """
    if left is None or right is None:
        return all_pairs(frames)
    size = queries or max(left, right, 1)
    found = Pairs(-(-frames // size), size, left + size + right, left + 1 + right)
    return found if found.rows * found.keys < frames * frames else all_pairs(frames)
