"""What decoding and simulation need of a workload, whether it is of the catalogue or was extracted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from hwsim.extract.spec import DecodeDefaults, NetworkSpec
from hwsim.numerics.policy import PrecisionPolicy
from hwsim.trace import Trace, TraceBuilder
from hwsim.trace.builder import Rows


class StepNetwork(Protocol):
    """A prediction network or a language model, for the hypotheses of a search step."""

    @property
    def scores(self) -> tuple[int, int] | None:
        """Tensor of a language model's scores and how many of them a row has; None for a prediction network."""
        ...

    def step(self, b: TraceBuilder, m: Rows, choice: int | None = None) -> None:
        """Advance m hypotheses by one label; `choice` is the tensor that names them."""
        ...


class StepNetworks(Protocol):
    """What a search step evaluates."""

    @property
    def prediction(self) -> StepNetwork:
        """The prediction network."""
        ...

    @property
    def language_models(self) -> Sequence[StepNetwork]:
        """Those that were declared, in the order asked for."""
        ...

    @property
    def labels(self) -> int:
        """Scores of a row of the joint."""
        ...

    @property
    def logits(self) -> int:
        """Tensor of those scores."""
        ...

    def project_encoder(self, b: TraceBuilder, m: Rows, hoisted: bool, needs: Sequence[int] = ()) -> None:
        """What the joint computes of m encoder frames alone: with the encoder, or in each of its rows."""
        ...

    def project_prediction(self, b: TraceBuilder, m: Rows, hoisted: bool) -> None:
        """What the joint computes of m outputs of the prediction network alone."""
        ...

    def join(self, b: TraceBuilder, m: Rows, needs: Sequence[int] = ()) -> None:
        """The rest of the joint for m pairs of frame and hypothesis."""
        ...


class AnyWorkload(Protocol):
    """A recognizer: `Workload` of the catalogue, or `ExtractedModel`. Equal content is equal, and hashes so."""

    def __hash__(self) -> int: ...

    @property
    def name(self) -> str:
        """Name in results."""
        ...

    @property
    def digest(self) -> str:
        """Hash of its content."""
        ...

    @property
    def spec(self) -> NetworkSpec:
        """The definition of a transducer. Raises HwsimError for an extracted model and for a CTC network."""
        ...

    @property
    def decode(self) -> DecodeDefaults:
        """How it is decoded when nothing else is said."""
        ...

    @property
    def frame_period_s(self) -> float:
        """Time between encoder input frames, s."""
        ...

    @property
    def language_models(self) -> tuple[str, ...]:
        """Components that are language models: external_lm, source_lm."""
        ...

    @property
    def transduces(self) -> bool:
        """Whether a search follows the encoder."""
        ...

    @property
    def labels(self) -> int:
        """Scores of a row of the joint, or of a frame of a CTC head, blank included."""
        ...

    @property
    def networks(self) -> Trace:
        """The networks alone, to count their parameters."""
        ...

    def audio_seconds(self, frames: int) -> float:
        """Length of the audio behind a number of encoder input frames, s."""
        ...

    def encoder_frames(self, frames: int) -> int:
        """Frames that the search sees for a number of encoder input frames."""
        ...

    def emit_encoder(self, b: TraceBuilder, frames: int) -> list[int]:
        """Add the encoder over an utterance, with a CTC head if it has one; return the tensors of the output."""
        ...

    @property
    def passes(self) -> tuple[str, ...]:
        """Names of the passes over an utterance; one without a name where there is one."""
        ...

    def emit_passes(self, b: TraceBuilder, frames: int) -> Iterator[tuple[str, list[int]]]:
        """Add what each pass has of the encoder, when it is asked for; yield the pass and the tensors of its output."""
        ...

    def declare_search(self, b: TraceBuilder, encoder_out: list[int], frames: int, rows: int,
                       models: Sequence[str], part: str = "") -> StepNetworks:  # fmt: skip
        """Declare what the search of a pass evaluates, for up to `rows` hypotheses of `frames` encoder frames."""
        ...

    def native(self, trace: Trace, policy: PrecisionPolicy) -> Trace:
        """A trace of it in its own number formats, floats in the policy's. Raises HwsimError when it has none."""
        ...
