"""What follows the scores of a hybrid network as operations: they go to the host, and a language model rescores.

The host's search in its decoding graph is outside: it has no operation and takes no time here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from hwsim.extract.spec import HybridSpec
from hwsim.extract.transformer import emit_transformer
from hwsim.extract.transformer_spec import TransformerSpec
from hwsim.trace import Kind, Role, TraceBuilder
from hwsim.trace.builder import Operand

OUTSIDE = "the search in the decoding graph, on the host: not in the trace, and no time of it"
RESCORING = "rescoring_lm"
ALONE = "lm"


def words_of(spec: HybridSpec, audio_s: float) -> int:
    """Words of a hypothesis of so many seconds, at least one."""
    return max(1, math.ceil(audio_s * spec.decode.words_per_second))


def emit_after_scores(b: TraceBuilder, spec: HybridSpec, scores: int, frames: int, audio_s: float, n_best: int) -> None:
    """Send scores (frames, outputs) to the host; then score `n_best` hypotheses, 0 for none, and send these scores."""
    outputs = spec.head.outputs
    b.meta["outside"] = OUTSIDE
    sent = b.tensor("search.sent", Role.STATE, (1,))
    b.op(Kind.SEND, "search.scores", [Operand(scores, outputs)], [Operand(sent, fixed=1)], m=frames, n=outputs)
    if spec.rescoring_lm is None or n_best == 0:
        return
    started = b.tensor("search.started", Role.STATE, (1,))
    b.op(Kind.LAUNCH, "search.launch", [Operand(sent, fixed=1)], [Operand(started, fixed=1)], m=1)
    emit_rescoring(b, RESCORING, spec.rescoring_lm, words_of(spec, audio_s), n_best, [started])


def emit_rescoring(b: TraceBuilder, name: str, spec: TransformerSpec, words: int, n_best: int,
                   needs: Sequence[int] = ()) -> int:  # fmt: skip
    """Score `n_best` hypotheses of `words` words and send one score a word to the host; returns all scores."""
    scores = emit_transformer(b, name, spec, words, n_best, needs)
    sent = b.tensor(f"{name}.scores.sent", Role.STATE, (1,))
    b.op(Kind.SEND, f"{name}.scores", [Operand(scores, words)], [Operand(sent, fixed=1)], m=n_best, n=words)
    return scores
