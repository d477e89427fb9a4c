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
    Without one, attention that `left` and `right` limit is timed in windows: blocks of `query_block` frames, each
    against left + query_block + right keys (`hwsim.extract.windows`); executed are all pairs of frames, with masks.
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
    attention_from: Annotated[int, Field(ge=0)] = 0
    """The first block, counted from 0, that has attention; those before it have none."""
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
    query_block: Size | None = None
    """Encoder frames whose attention is timed at once without a chunk; none for as many as its longer side has."""
    source: str

    @model_validator(mode="after")
    def _parts_fit(self) -> ConformerEncoderSpec:
        if self.width % self.heads:
            raise ValueError(f"such that heads divide width ({self.width})")
        if self.attention_from > self.layers:
            raise ValueError(f"such that attention_from is at most layers ({self.layers})")
        if self.query_block is not None and (self.left is None or self.right is None):
            raise ValueError("such that left and right are given, as it has a query_block")
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


class TdnnfEncoderSpec(Frozen):
    """A factored time-delay network (TDNN-F): an affine layer, factored layers, and a small layer before the outputs.

    With stride s a factored layer is z(t) = W [h(t - s), h(t)], a bottleneck without a bias, and then
    relu(V [z(t), z(t + s)] + b) + `bypass` h(t); with stride 0 both read one frame. Batch norms have statistics and no
    no parameters, and are folded: their scale is positive and goes through the ReLU into the matrix before it, their
    offset into the biases that follow. So is the fixed transform of the features, into the first matrix.
    Source: Povey et al., Interspeech 2018.
    """

    kind: Literal["tdnnf"]
    input: Size
    """Features per input frame."""
    splice: Annotated[int, Field(ge=0)] = 1
    """Frames on each side that are put beside a frame."""
    ivector: Annotated[int, Field(ge=0)] = 0
    """Numbers of the i-vector that is put beside every frame."""
    width: Size
    """Channels of the residual stream."""
    bottlenecks: Size | tuple[Size, ...]
    """Bottleneck of every factored layer, or of each."""
    strides: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    """Frames between the two that a factored layer reads; 0 for a layer that reads one. Layers after the last stride
    that `subsampling` does not divide, and that layer, give the frames of the output; those before it every frame."""
    subsampling: Annotated[int, Field(ge=1, le=3)] = 3
    """Input frames for each frame that the network gives."""
    bypass: Annotated[float, Field(gt=0)] = 0.66
    """Share of its input that a factored layer adds to its output."""
    small: Size
    """Outputs of the last layers: `width` to `small` to `large`, a ReLU, to `small`."""
    large: Size
    source: str

    @model_validator(mode="after")
    def _one_for_each_layer(self) -> TdnnfEncoderSpec:
        if isinstance(self.bottlenecks, tuple) and len(self.bottlenecks) != len(self.strides):
            raise ValueError(f"such that bottlenecks are {len(self.strides)}, as strides, not {len(self.bottlenecks)}")
        turns = [stride for stride in self.strides if stride % self.subsampling]
        if turns and turns[-1] > self.subsampling:
            raise ValueError(f"such that the last of strides that subsampling ({self.subsampling}) does not divide is "
                             f"below it, not {turns[-1]}")  # fmt: skip
        return self

    @property
    def layer_bottlenecks(self) -> tuple[int, ...]:
        """The bottleneck of each factored layer."""
        every = self.bottlenecks
        return every if isinstance(every, tuple) else (every,) * len(self.strides)

    @property
    def inputs(self) -> int:
        """Numbers of a spliced frame with its i-vector."""
        return (2 * self.splice + 1) * self.input + self.ivector

    @property
    def context(self) -> int:
        """Frames on each side that a frame of the output sees."""
        return self.splice + sum(self.strides)

    @property
    def branch_parameters(self) -> int:
        """Of the layers `small` to `large` to `small`, which a branch that only training has has again."""
        return self.small * self.large + self.large + self.large * self.small

    @property
    def outputs(self) -> int:
        """Numbers that the encoder gives for each of its frames."""
        return self.small

    @property
    def reduction(self) -> int:
        """Input frames for each frame that the encoder gives."""
        return self.subsampling


class CascadedEncoderSpec(Frozen):
    """Two encoders, the second on the output of the first, each with a decoder of its own: two passes.

    Source: Narayanan et al., arXiv 2010.14606, where both passes share one decoder; Ding et al., arXiv 2203.15952, give
    each its own.
    """

    kind: Literal["cascaded"]
    first: ConformerEncoderSpec
    """Reads the features; the first pass decodes its output."""
    second: ConformerEncoderSpec
    """Reads the output of the first, at the same rate; the second pass decodes its output."""
    source: str

    @model_validator(mode="after")
    def _parts_fit(self) -> CascadedEncoderSpec:
        if self.second.input != self.first.width:
            raise ValueError(f"such that second.input is the width of first ({self.first.width})")
        if self.second.reduction != 1:
            raise ValueError("such that second.subsampling is {kind: stack, factor: 1}, the rate of first")
        return self

    @property
    def input(self) -> int:
        """Features per input frame."""
        return self.first.input

    @property
    def outputs(self) -> int:
        """Numbers that the second encoder gives for each of its frames."""
        return self.second.outputs

    @property
    def reduction(self) -> int:
        """Input frames for each frame that either encoder gives."""
        return self.first.reduction


class BifocalEncoderSpec(Frozen):
    """Two stacks of unidirectional LSTM layers of the same depth, a small left and a large right one.

    Each frame runs through one of them, and both are stored: the first `left_frames` of an utterance through the left
    one, the rest through the right one, which begins with states of zero. The joint has a projection for each.
    Source: Macoskey et al., ICASSP 2021, arXiv 2108.01704, who choose by keyword spotting. Not modelled: a keyword that
    is not at the start, and states that are handed from one to the other.
    """

    kind: Literal["bifocal"]
    input: Size
    """Features per encoder frame."""
    layers: Size
    """Layers of each of the two."""
    left_cells: Size
    right_cells: Size
    left_frames: Annotated[int, Field(ge=0)]
    """Frames at the start of an utterance that take the left encoder."""
    source: str

    @property
    def left(self) -> EncoderSpec:
        """The small encoder."""
        return EncoderSpec(input=self.input, layers=self.layers, cells=self.left_cells, source=self.source)

    @property
    def right(self) -> EncoderSpec:
        """The large encoder."""
        return EncoderSpec(input=self.input, layers=self.layers, cells=self.right_cells, source=self.source)

    @property
    def outputs(self) -> int:
        """Numbers that the right encoder gives for each of its frames."""
        return self.right_cells

    @property
    def reduction(self) -> int:
        """Input frames for each frame that either encoder gives."""
        return 1

    def frames_of_each(self, frames: int) -> tuple[int, int]:
        """Of the frames of an utterance, those of the left and those of the right encoder."""
        left = min(self.left_frames, frames)
        return left, frames - left


def _with_kind(encoder: Any) -> Any:
    return {"kind": "lstm", **encoder} if isinstance(encoder, dict) else encoder


AnyEncoderSpec = Annotated[
    Annotated[
        EncoderSpec | ConformerEncoderSpec | TdnnfEncoderSpec | CascadedEncoderSpec | BifocalEncoderSpec,
        Field(discriminator="kind"),
    ],
    BeforeValidator(_with_kind),
]
"""An encoder that says no kind is one of LSTM layers."""
