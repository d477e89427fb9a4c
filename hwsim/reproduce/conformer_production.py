"""The two-pass production Conformer of Ding et al. from what is printed of it: parameters of encoders and decoders.

    causal 47 M: 3 blocks without attention and 4 with; non-causal 60 M: 6 blocks; two decoders of 4.4 M; kernel 15

Blocks of an encoder have one width D: 24 D^2 weights with attention (relative positions, feed-forward layers of 4 D)
and 19 D^2 without, kernels of 15 D and about 32 D of norms and biases. Widths are not printed; these follow from the
counts. Input projections are inside the counts of the blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from hwsim.numerics.formats import SCALE_BITS
from hwsim.reproduce.sizes import FLOAT_BITS, MEGABYTE

WITH_ATTENTION, WITHOUT_ATTENTION = 24, 19
"""Weights of linear layers of a block, in D^2."""
VECTORS = 15 + 32
"""Kernel, norms and biases of a block, in D."""
CHANNELS = {WITH_ATTENTION: 18, WITHOUT_ATTENTION: 13}
"""Output channels of its linear layers, one scale each, in D."""
CAUSAL = (47e6, (WITHOUT_ATTENTION,) * 3 + (WITH_ATTENTION,) * 4)
NON_CAUSAL = (60e6, (WITH_ATTENTION,) * 6)
DECODERS = 2 * 4.4e6


@dataclass(frozen=True)
class Block:
    """Weights of linear layers, other parameters, and scales of one block; not whole numbers, as widths follow."""

    weights: float
    floats: float
    scales: float

    def bits(self, code_bits: int) -> float:
        """Stored bits with codes of so many bits, or in float32 without scales."""
        scales = 0.0 if code_bits == FLOAT_BITS else SCALE_BITS * self.scales
        return code_bits * self.weights + scales + FLOAT_BITS * self.floats


def blocks(parameters: float, kinds: Sequence[int]) -> list[Block]:
    """Blocks of one width that have so many parameters together: the positive root of sum(kinds) D^2 + n VECTORS D."""
    squares, linear = sum(kinds), VECTORS * len(kinds)
    width = (sqrt(linear**2 + 4 * squares * parameters) - linear) / (2 * squares)
    return [Block(kind * width**2, VECTORS * width, CHANNELS[kind] * width) for kind in kinds]


def production_mb(first: int | None, rest_bits: int = 8, decoder_bits: int = 8) -> float:
    """Size of the model file, 10^6 bytes: INT4 in the first blocks of both encoders, all (None), or none (0).

    The other blocks are in `rest_bits`, the decoders in `decoder_bits`; 32 is float32.
    """
    total = decoder_bits * DECODERS
    for parameters, kinds in (CAUSAL, NON_CAUSAL):
        for index, block in enumerate(blocks(parameters, kinds)):
            low = first is None or index < first
            total += block.bits(4 if low else rest_bits)
    return total / 8 / MEGABYTE
