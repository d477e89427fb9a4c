"""What a network file of `workloads/` may say of a Transformer language model."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from hwsim.config import Frozen
from hwsim.extract.encoder_spec import Size


class TransformerSpec(Frozen):
    """A causal Transformer decoder that scores the next word: blocks of self-attention and a feed-forward layer.

    Each half of a block is added to its input after a norm of it; a last norm stands before the output layer. Matrices
    of blocks have biases. Source: Vaswani et al., arXiv 1706.03762, with norms as in Xiong et al., arXiv 2002.04745.
    """

    vocabulary: Size
    """Words, the end of the sentence among them."""
    width: Size
    """Channels of the residual stream, and of a word's embedding."""
    layers: Size
    """Blocks."""
    heads: Size
    feed_forward: Size
    """Inner channels of a feed-forward layer."""
    activation: Literal["relu", "gelu"] = "relu"
    """What a feed-forward layer has between its matrices."""
    tied: bool
    """Whether the output layer multiplies by the embedding table; otherwise it has a matrix and a bias of its own."""
    positions: Literal["sinusoidal", "none"] = "sinusoidal"
    """What is added to embeddings: constants of the place in the sentence, which are no parameters."""
    norm: Literal["pre"] = "pre"
    """Where norms stand: before each half of a block, and one after the last block."""
    source: str

    @model_validator(mode="after")
    def _heads_fit(self) -> TransformerSpec:
        if self.width % self.heads:
            raise ValueError(f"such that heads divide width ({self.width})")
        return self

    @property
    def head_width(self) -> int:
        """Channels of a head."""
        return self.width // self.heads

    @property
    def weights(self) -> int:
        """Elements of all matrices: V d, once more when not tied, and 4 d^2 + 2 d f of each block."""
        d = self.width
        tables = 1 if self.tied else 2
        return tables * self.vocabulary * d + self.layers * (4 * d * d + 2 * d * self.feed_forward)

    @property
    def vectors(self) -> int:
        """Biases of a block (5 d + f), two norms of it, the last norm, and V of an output layer of its own."""
        d = self.width
        return self.layers * (9 * d + self.feed_forward) + 2 * d + (0 if self.tied else self.vocabulary)

    @property
    def parameters(self) -> int:
        """Weights and vectors."""
        return self.weights + self.vectors
