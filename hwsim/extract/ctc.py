"""The head of a CTC or hybrid network as operations: scores of labels or states for each encoder frame."""

from __future__ import annotations

from collections.abc import Sequence

from hwsim.extract.layers import linear
from hwsim.extract.spec import HeadSpec
from hwsim.trace import Kind, Role, TraceBuilder
from hwsim.trace.builder import Operand

LAYER = "head.output"


def emit_head(b: TraceBuilder, spec: HeadSpec, x: Sequence[int], width: int, frames: int) -> int:
    """Add the head over x, tensors of (frames, width) in all; return `head.output.out` (frames, outputs).

    The log-softmax, if it has one, is in place. What reads labels from the scores, greedily or by a search with a
    language model, is not part of the trace.
    """
    out = linear(b, LAYER, x, width, spec.outputs, frames, role=Role.STATE)
    if not spec.log_softmax:
        return out
    scores = Operand(out, spec.outputs)
    b.op(Kind.SOFTMAX, LAYER, [scores], [scores], m=frames, n=spec.outputs)
    return out
