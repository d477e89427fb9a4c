"""A bifocal encoder as operations: two stacks of LSTM layers, of which each frame runs through one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hwsim.errors import HwsimError
from hwsim.extract.encoder_spec import BifocalEncoderSpec
from hwsim.extract.lstm import emit_lstm_encoder
from hwsim.trace import Role, TraceBuilder

LEFT, RIGHT = "encoder_left", "encoder_right"


def emit_bifocal(b: TraceBuilder, spec: BifocalEncoderSpec, frames: int) -> list[int]:
    """Add both encoders over their frames of an utterance; return their outputs (L, left), (R, right).

    Weights of both are declared, whether or not a frame takes them: both are stored.
    """
    left, right = spec.frames_of_each(frames)
    return [*emit_lstm_encoder(b, spec.left, left, LEFT), *emit_lstm_encoder(b, spec.right, right, RIGHT)]


@dataclass(frozen=True, slots=True)
class TwoProjections:
    """The joint's encoder side (T, J), of the left encoder's rows and then of the right one's."""

    left_weight: int
    right_weight: int
    bias: int | None
    left_frames: int
    right_frames: int

    @classmethod
    def declare(cls, b: TraceBuilder, spec: BifocalEncoderSpec, frames: int, right_weight: int, bias: int | None,
                size: int) -> TwoProjections:  # fmt: skip
        """Beside the joint's own weight (right, J) and bias, a weight (left, J)."""
        left_weight = b.tensor("joint.left_projection.weight", Role.WEIGHT, (spec.left_cells, size))
        return cls(left_weight, right_weight, bias, *spec.frames_of_each(frames))

    def emit(self, b: TraceBuilder, outputs: Sequence[int], side: int, hoisted: bool) -> None:
        """Project the rows of both encoders. Raises HwsimError when it is not hoisted: rows of a step have no frame."""
        if not hoisted:
            raise HwsimError("hoisted_encoder_projection must be true for a bifocal encoder, got false")
        left, right = outputs
        if self.left_frames:
            b.matmul(f"{LEFT}.projection", [left], self.left_weight, side, m=self.left_frames, bias=self.bias)
        if self.right_frames:
            b.matmul(f"{RIGHT}.projection", [right], self.right_weight, side, m=self.right_frames, bias=self.bias,
                     kept=self.left_frames)  # fmt: skip
