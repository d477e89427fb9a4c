"""Matrices of Green ASR's two networks, for any bottlenecks: what the search of the paper changes.

TDNN-F as Kaldi's recipe has it: 220 inputs to 1536; 14 factored layers of 1536 with a bottleneck, each a matrix of
two frames (one frame in a layer of stride 0) down and an affine one up; 256, 1536, 256, 6034 outputs. With Kaldi's own
bottleneck of 160 these are 18,702,628 parameters, and 16,363,922 without the second branch that only training has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hwsim.errors import HwsimError

INPUTS, WIDTH, SMALL, OUTPUTS = 220, 1536, 256, 6034
STRIDES = (1, 1, 1, 0, *[3] * 10)
KALDI_BOTTLENECKS = (160,) * len(STRIDES)


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight matrix (inputs, outputs) of a block, with or without a bias."""

    block: str
    inputs: int
    outputs: int
    bias: bool = True

    @property
    def weights(self) -> int:
        """Elements of the matrix."""
        return self.inputs * self.outputs

    @property
    def biases(self) -> int:
        """Elements of its bias."""
        return self.outputs if self.bias else 0


def tdnnf(bottlenecks: Sequence[int] = KALDI_BOTTLENECKS, training: bool = False) -> list[Matrix]:
    """Matrices in the order of the network; `training`: with the second branch.

    Raises HwsimError unless there is a bottleneck for each of the 14 layers.
    """
    if len(bottlenecks) != len(STRIDES) or min(bottlenecks) < 1:
        raise HwsimError(f"bottlenecks must be {len(STRIDES)} sizes of at least 1, got {list(bottlenecks)}")
    found = [Matrix("input", INPUTS, WIDTH)]
    for index, (stride, bottleneck) in enumerate(zip(STRIDES, bottlenecks, strict=True)):
        frames = 2 if stride else 1
        found.append(Matrix(f"layer{index}", frames * WIDTH, bottleneck, bias=False))
        found.append(Matrix(f"layer{index}", frames * bottleneck, WIDTH))
    found.append(Matrix("prefinal", WIDTH, SMALL, bias=False))
    for branch in ("output", "training")[: 2 if training else 1]:
        found.append(Matrix(branch, SMALL, WIDTH))
        found.append(Matrix(branch, WIDTH, SMALL, bias=False))
        found.append(Matrix(branch, SMALL, OUTPUTS))
    return found


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """A Transformer language model whose output layer is its embedding table.

    The paper prints blocks, width, and 30 thousand words. Feed-forward size and the exact vocabulary are assumptions
    under which it has about the published size.
    """

    vocabulary: int = 28_300
    width: int = 512
    blocks: int = 6
    feed_forward: int = 1024

    @property
    def weights(self) -> int:
        """Elements of all matrices: the embedding, 4 d^2 of attention and 2 d f of each block's feed-forward layer."""
        d = self.width
        return self.vocabulary * d + self.blocks * (4 * d * d + 2 * d * self.feed_forward)

    @property
    def vectors(self) -> int:
        """Biases of the matrices of blocks (5 d + f), two norms of a block and one at the end."""
        return self.blocks * (5 * self.width + self.feed_forward + 4 * self.width) + 2 * self.width
