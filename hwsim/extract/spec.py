"""What a network file of `workloads/` may say: transducers, CTC and hybrid networks, language models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hwsim.config import Frozen
from hwsim.extract.encoder_spec import AnyEncoderSpec, Size, TdnnfEncoderSpec
from hwsim.extract.transformer_spec import TransformerSpec
from hwsim.speech.spec import SpeechSpec


class LstmStackSpec(Frozen):
    """An embedding and unidirectional LSTM layers: a prediction network, or with `outputs` a language model."""

    vocabulary: Size
    """Rows of the embedding table."""
    embedding: Size
    layers: Size
    cells: Size
    outputs: Size | None = None
    """Labels of the output layer; none for a prediction network."""
    dense_inputs: bool = False
    """Layer i > 0 reads the embedding beside the output of the layer below."""
    source: str

    def layer_input(self, layer: int) -> int:
        """Input size of an LSTM layer, counted from 0."""
        if layer == 0:
            return self.embedding
        return self.cells + (self.embedding if self.dense_inputs else 0)


class JointSpec(Frozen):
    """The joint network: project both sides to `size`, combine, activate, project to `outputs`."""

    combine: Literal["add", "multiply", "concatenate"]
    """Concatenating and projecting is projecting both sides and adding, with one bias instead of two."""
    size: Size
    activation: Literal["tanh", "relu"]
    outputs: Size
    """Labels including blank."""
    source: str


class HeadSpec(Frozen):
    """A linear layer and a log-softmax over each encoder frame, as connectionist temporal classification has them."""

    outputs: Size
    """Labels including blank."""
    log_softmax: bool = True
    """Whether the scores are log-probabilities; a network trained by lattice-free MMI gives the sums themselves."""
    source: str


class FusionSpec(Frozen):
    """Weights of language models in a search, of natural logarithms."""

    weight: Annotated[float, Field(ge=0)]
    """mu, of the external language model."""
    source_weight: Annotated[float, Field(ge=0)] = 0.0
    """lambda, of the source language model, which is taken off."""
    length_reward: float = 0.0
    """rho, added for each label."""
    source: str


class DecodeDefaults(Frozen):
    """How the network is decoded when the user does not say otherwise."""

    algorithm: Literal["greedy", "alsd", "tsd", "maes"]
    beam: Size
    frames: Size
    """Encoder input frames of the standard utterance."""
    labels_per_second: Annotated[float, Field(gt=0)]
    u_max_ratio: Annotated[float, Field(gt=0, le=1)] = 0.5
    """ALSD: U_max as a share of the encoder's output frames."""
    fusions: dict[Literal["shallow", "density-ratio"], FusionSpec] = Field(default_factory=dict)
    """Weights of language models for each kind of fusion; a search without them has its own defaults."""
    lm_cache: bool = True
    """Whether language model states are cached by label prefix, as prediction network outputs are."""
    source: str


class CtcDefaults(Frozen):
    """The utterance of a network that no search follows."""

    frames: Size
    """Encoder input frames of the standard utterance."""
    source: str


class PublishedSizes(Frozen):
    """Parameter counts that the source prints, for the tests and for `hwsim show`."""

    parameters: dict[str, Annotated[float, Field(gt=0)]]
    """Component name to count; `acoustic` is encoder + prediction + joint, or encoder + head, and `acoustic_training`
    that with a branch that only training has."""
    relative_tolerance: Annotated[float, Field(ge=0, lt=1)]
    """0 where the source prints an exact count, else what its rounding leaves open."""
    source: str


def _one_output(encoder: AnyEncoderSpec) -> None:
    """Raises ValueError for an encoder of two outputs."""
    if encoder.kind in ("cascaded", "bifocal"):
        raise ValueError(f"such that the encoder gives one output, which one of kind {encoder.kind} does not")


class CtcSpec(Frozen):
    """A file of `workloads/` with `family: ctc`: an encoder and a head, whose scores are the result."""

    name: str
    description: str
    family: Literal["ctc"]
    frame_period_s: Annotated[float, Field(gt=0)]
    """Time between encoder input frames."""
    encoder: AnyEncoderSpec
    head: HeadSpec
    decode: CtcDefaults
    published: PublishedSizes

    @model_validator(mode="after")
    def _encoder_fits(self) -> CtcSpec:
        _one_output(self.encoder)
        return self


class HybridDefaults(Frozen):
    """The utterance of a hybrid network, and what follows its scores."""

    frames: Size
    """Encoder input frames of the standard utterance."""
    n_best: Annotated[int, Field(ge=0)] = 0
    """Hypotheses that the language model rescores; 0 for none."""
    words_per_second: Annotated[float, Field(gt=0)] = 1.0
    """Words of a hypothesis for each second of audio."""
    source: str


class HybridSpec(Frozen):
    """A file of `workloads/` with `family: hybrid`: an encoder and scores of states of a decoding graph.

    The scores go to the host, whose search in the graph is not part of the trace. A language model may then score the
    best hypotheses, all of one length and each from its beginning.
    """

    name: str
    description: str
    family: Literal["hybrid"]
    frame_period_s: Annotated[float, Field(gt=0)]
    """Time between encoder input frames."""
    encoder: AnyEncoderSpec
    head: HeadSpec
    """States of the graph in place of labels, none of them a blank."""
    training_branch: bool = False
    """Whether training has the layers from the small one to the outputs a second time, as beside lattice-free MMI."""
    rescoring_lm: TransformerSpec | None = None
    decode: HybridDefaults
    published: PublishedSizes

    @model_validator(mode="after")
    def _parts_fit(self) -> HybridSpec:
        _one_output(self.encoder)
        if self.training_branch and not isinstance(self.encoder, TdnnfEncoderSpec):
            raise ValueError(f"such that training_branch is false, as the encoder is {self.encoder.kind}")
        if (self.rescoring_lm is None) != (self.decode.n_best == 0):
            beside = "without" if self.rescoring_lm is None else "with"
            raise ValueError(f"such that decode.n_best is {'0' if beside == 'without' else '1 or more'} {beside} a "
                             f"rescoring_lm, not {self.decode.n_best}")  # fmt: skip
        return self

    @property
    def training_parameters(self) -> int:
        """Of the branch that only training has; 0 without one."""
        if not self.training_branch or not isinstance(self.encoder, TdnnfEncoderSpec):
            return 0
        return self.encoder.branch_parameters + (self.encoder.outputs + 1) * self.head.outputs


class RescoringDefaults(Frozen):
    """What a language model alone scores."""

    words: Size
    """Of a hypothesis, with the end of the sentence."""
    n_best: Size
    """Hypotheses that are scored at once."""
    words_per_second: Annotated[float, Field(gt=0)]
    """At which they were spoken, to count time in seconds of audio."""
    source: str


class LanguageModelSpec(Frozen):
    """A file of `workloads/` with `family: lm`: a language model, which scores hypotheses."""

    name: str
    description: str
    family: Literal["lm"]
    model: TransformerSpec
    decode: RescoringDefaults
    published: PublishedSizes


class NetworkSpec(Frozen):
    """A file of `workloads/` with `family: rnnt`: a transducer."""

    name: str
    description: str
    family: Literal["rnnt"]
    frame_period_s: Annotated[float, Field(gt=0)]
    """Time between encoder input frames."""
    encoder: AnyEncoderSpec
    prediction: LstmStackSpec
    """Of each pass, where there are two."""
    joint: JointSpec
    """Of each pass, where there are two; a bifocal encoder has a second projection of its left side there."""
    language_models: dict[Literal["external_lm", "source_lm"], LstmStackSpec] = Field(default_factory=dict)
    decode: DecodeDefaults
    published: PublishedSizes
    speech: SpeechSpec | None = None
    """A set of synthetic speech for this network, which `hwsim data` builds."""

    @model_validator(mode="after")
    def _parts_fit(self) -> NetworkSpec:
        for name, model in self.language_models.items():
            if model.outputs is None:
                raise ValueError(f"such that language_models.{name}.outputs is given")
        if self.prediction.outputs is not None:
            raise ValueError("such that prediction has no outputs (the joint network has them)")
        return self

    @model_validator(mode="after")
    def _speech_fits(self) -> NetworkSpec:
        if self.speech is None:
            return self
        features, labels = self.speech.features, len(self.speech.words) + 1
        sizes = {
            "encoder.input": (self.encoder.input, features.width),
            "prediction.vocabulary": (self.prediction.vocabulary, labels),
            "joint.outputs": (self.joint.outputs, labels),
        }
        for name, (size, wanted) in sizes.items():
            if size != wanted:
                raise ValueError(f"such that {name} is {wanted}, as speech has it, not {size}")
        period_s = features.stack * features.shift_s
        if abs(self.frame_period_s - period_s) > 1e-9:
            raise ValueError(f"such that frame_period_s is {period_s:g}, as speech has it, not {self.frame_period_s:g}")
        return self
