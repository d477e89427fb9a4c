"""Cascaded encoders as operations: a causal encoder, then one with later context on its output; two passes."""

from __future__ import annotations

from collections.abc import Iterator

from hwsim.extract.encoder import ENCODER, emit_conformer_encoder, encoder_frames
from hwsim.extract.encoder_spec import CascadedEncoderSpec
from hwsim.trace import TraceBuilder

FIRST, SECOND = "first", "second"
PASSES = (FIRST, SECOND)
"""Passes over an utterance, and what ends the names of their components: `encoder_first`, `joint_second`."""


def named(component: str, part: str) -> str:
    """A component of a pass: `encoder_first`; `encoder` where there is one pass, whose name is empty."""
    return f"{component}_{part}" if part else component


def emit_cascade(
    b: TraceBuilder, spec: CascadedEncoderSpec, frames: int, whole: bool = False
) -> Iterator[tuple[str, list[int]]]:
    """Add the encoders over `frames` input frames, each when it is asked for; yield pass and output (T', width).

    What is added between the two, the search of the first pass, comes before the second encoder in the trace. `whole`
    as in `emit_conformer_encoder`.
    """
    after = encoder_frames(spec, frames)
    x = emit_conformer_encoder(b, spec.first, frames, whole, name=named(ENCODER, FIRST))
    yield FIRST, [x]
    yield SECOND, [emit_conformer_encoder(b, spec.second, after, whole, name=named(ENCODER, SECOND), x=x)]
