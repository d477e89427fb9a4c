"""What a network file of `workloads/` may say of an encoder."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from hwsim.config import Frozen

Size = Annotated[int, Field(ge=1)]


class EncoderSpec(Frozen):
    """A stack of LSTM layers over the whole utterance."""

    kind: Literal["lstm"] = "lstm"
    input: Size
    """Features per encoder frame."""
    layers: Size
    cells: Size
    """Cells per direction and layer."""
    bidirectional: bool = False
    stack_before_layer: Annotated[int, Field(ge=0)] | None = None
    """Concatenate neighbouring frames before this layer (counted from 0), which divides the frame rate."""
    stack_factor: Size = 1
    """How many frames are concatenated there."""
    source: str

    @model_validator(mode="after")
    def _stacking_is_inside(self) -> EncoderSpec:
        if self.stack_before_layer is not None and not self.stack_before_layer < self.layers:
            raise ValueError(f"such that stack_before_layer is below layers ({self.layers})")
        return self

    @property
    def outputs(self) -> int:
        """Numbers that the encoder gives for each of its frames."""
        return self.cells * (2 if self.bidirectional else 1)

    @property
    def reduction(self) -> int:
        """Input frames for each frame that the encoder gives."""
        return 1 if self.stack_before_layer is None else self.stack_factor


class StackedFrames(Frozen):
    """Neighbouring frames side by side, then a linear layer to the encoder's width."""

    kind: Literal["stack"]
    factor: Size
    """How many frames become one."""

    @property
    def reduction(self) -> int:
        """Input frames for each encoder frame."""
        return self.factor


class ConvolvedFrames(Frozen):
    """Convolutions of 3 x 3 over frames and features, each of stride 2 with a ReLU, then a linear layer.

    Borders are padded with zeros, so that each layer halves frames and features and rounds them up.
    """

    kind: Literal["conv2d"]
    channels: Size
    last_channels: Size | None = None
    """Channels of the last layer, where it has others."""
    layers: Annotated[int, Field(ge=1, le=4)] = 2
    separable: bool = False
    """Whether every layer but the first is a depthwise convolution and a product over the channels."""

    @property
    def reduction(self) -> int:
        """Input frames for each encoder frame."""
        return 1 << self.layers

    @property
    def layer_channels(self) -> tuple[int, ...]:
        """Channels that each layer gives."""
        return (self.channels,) * (self.layers - 1) + (self.last_channels or self.channels,)


class ConformerEncoderSpec(Frozen):
    """Subsampled frames through Conformer blocks; a block is that of Gulati et al., arXiv 2005.08100.

    With `chunk` it is a streaming encoder, computed chunk by chunk: a frame sees its whole chunk and the `left`
    frames before it, whose keys and values are kept, as are the last `kernel` - 1 inputs of each convolution.
    Without one, `left` and `right` mask attention, whose products are counted for all pairs of frames.
    """

    kind: Literal["conformer"]
    input: Size
    """Features per input frame."""
    subsampling: Annotated[StackedFrames | ConvolvedFrames, Field(discriminator="kind")]
    layers: Size
    """Conformer blocks."""
    width: Size
    """Channels of the residual stream."""
    heads: Size
    kernel: Size
    """Encoder frames that the depthwise convolution reads."""
    feed_forward: Size = 4
    """Inner size of a feed-forward layer, in widths."""
    positions: Literal["relative", "none"] = "relative"
    """Whether attention knows how far frames are apart; a convolution always knows it of near ones."""
    causal: bool = False
    """Whether convolutions see no later frame."""
    left: Annotated[int, Field(ge=0)] | None = None
    """Encoder frames that attention sees before a frame, or before its chunk; none for all."""
    right: Annotated[int, Field(ge=0)] | None = None
    """Encoder frames that attention sees after a frame; none for all, or for those of the chunk."""
    chunk: Size | None = None
    """Encoder frames that are computed at once in streaming; none for the whole utterance."""
    source: str

    @model_validator(mode="after")
    def _parts_fit(self) -> ConformerEncoderSpec:
        if self.width % self.heads:
            raise ValueError(f"such that heads divide width ({self.width})")
        if self.chunk is None:
            return self
        if not self.causal:
            raise ValueError("such that causal is true, as it has a chunk")
        if self.left is None or self.right is not None:
            raise ValueError("such that left is given and right is not, as it has a chunk")
        return self

    @property
    def outputs(self) -> int:
        """Numbers that the encoder gives for each of its frames."""
        return self.width

    @property
    def reduction(self) -> int:
        """Input frames for each frame that the encoder gives."""
        return self.subsampling.reduction


def _with_kind(encoder: Any) -> Any:
    return {"kind": "lstm", **encoder} if isinstance(encoder, dict) else encoder


AnyEncoderSpec = Annotated[
    Annotated[EncoderSpec | ConformerEncoderSpec, Field(discriminator="kind")], BeforeValidator(_with_kind)
]
"""An encoder that says no kind is one of LSTM layers."""
