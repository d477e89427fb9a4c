"""What a beam search is told, and the few numbers about speech that decide how many rows it evaluates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hwsim.errors import HwsimError, nearest

Algorithm = Literal["greedy", "alsd", "tsd", "maes"]
LanguageModel = Literal["none", "shallow", "density-ratio"]
Passes = Literal["both", "first", "second"]

_ALGORITHMS = ("greedy", "alsd", "tsd", "maes")
_PASSES = ("both", "first", "second")
_LANGUAGE_MODELS = {"none": 0, "shallow": 1, "density-ratio": 2}
_SWITCHES = (
    "prediction_cache",
    "lm_cache",
    "batched_prediction",
    "batched_joint",
    "batched_lm",
    "hoisted_encoder_projection",
    "hoisted_prediction_projection",
    "masked_rows",
)


@dataclass(frozen=True)
class DecodeSettings:
    """A beam search and how its networks are called.

    The defaults are the decoder of Fasoli et al. (Interspeech 2022) and Saon et al. (ICASSP 2020): ALSD,
    prediction outputs cached by label prefix, one batch per network and step, density-ratio fusion. What
    those papers leave open is marked as an assumption. Raises HwsimError for a value that breaks its rule.
    """

    algorithm: Algorithm = "alsd"
    """`greedy`, `alsd` (alignment-length synchronous), `tsd` (time synchronous) or `maes` (modified adaptive
    expansion)."""
    beam: int = 16
    """Hypotheses kept per step; 1 for greedy. 16 is one of the widths that the papers name."""
    u_max: int | None = None
    """ALSD: labels that a hypothesis may have; the search runs `frames + u_max` steps. None: by the ratio."""
    u_max_ratio: float = 0.5
    """ALSD without `u_max`: u_max = u_max_ratio * frames, rounded, at least 1.

    Assumption: 152 frames of 20 ms hold 45 to 50 characters of conversational English; half the frames
    leaves a margin of 1.5.
    """
    expansions_per_frame: int = 2
    """TSD: joint calls per frame (v). The last one only adds blanks: a frame emits at most v - 1 labels."""
    maes_steps: int = 2
    """MAES: labels that a frame may emit at most."""
    maes_alpha: int = 1
    """MAES: how many labels longer a kept prefix may be to get the paths of a shorter one added; 0 adds none."""
    maes_beta: int = 2
    """MAES: a row expands to at most `beam + maes_beta` labels."""
    maes_gamma: float = 2.3
    """MAES: a row expands to the labels whose log probability is at most this below its best."""
    max_symbols_per_frame: int | None = None
    """Greedy: None lets a frame emit until it says blank, 1 moves to the next frame after any symbol."""
    lm: LanguageModel = "density-ratio"
    """`shallow` runs the external LM; `density-ratio` the external and the source LM, on the same rows."""
    prediction_cache: bool = True
    """The prediction network runs once per label prefix; off: on every row of every step."""
    lm_cache: bool = True
    """Each LM runs once per label prefix that is extended; off: on every row that is extended.

    Assumption: the papers say this of the prediction network only; a public ALSD caches no LM states.
    """
    batched_prediction: bool = True
    """One prediction call per step; off: one per row."""
    batched_joint: bool = True
    """One joint call per step; off: one per row."""
    batched_lm: bool = True
    """One call of each LM per step; off: one per row."""
    hoisted_encoder_projection: bool = True
    """The encoder's joint projection is computed once per frame; off: again in every joint row."""
    hoisted_prediction_projection: bool = True
    """The prediction network's joint projection is computed with its output; off: in every joint row."""
    passes: Passes = "both"
    """Cascaded encoders: which passes are decoded. `first` ends with the first; `second` needs both encoders, and no
    search of the first. Fusion is in the second."""
    n_best: int | None = None
    """Networks whose search is in a decoding graph, outside: hypotheses that the language model scores, 0 for none.
    None is the workload's own. Not of a transducer."""
    masked_rows: bool = False
    """All `beam` rows are computed at every step and the useless ones masked, as batched GPU searches do.

    Nothing is then skipped: it overrides both caches.
    """

    def __post_init__(self) -> None:
        _known("algorithm", self.algorithm, _ALGORITHMS)
        _known("lm", self.lm, tuple(_LANGUAGE_MODELS))
        _known("passes", self.passes, _PASSES)
        _integer("beam", self.beam, 1)
        if self.algorithm == "greedy" and self.beam != 1:
            raise HwsimError(f"beam must be 1 for greedy, got {self.beam}")
        if self.u_max is not None:
            _integer("u_max", self.u_max, 0)
        _number("u_max_ratio", self.u_max_ratio, above=0.0)
        _integer("expansions_per_frame", self.expansions_per_frame, 2)
        _integer("maes_steps", self.maes_steps, 1)
        _integer("maes_alpha", self.maes_alpha, 0)
        _integer("maes_beta", self.maes_beta, 0)
        _number("maes_gamma", self.maes_gamma, at_least=0.0)
        if self.n_best is not None:
            _integer("n_best", self.n_best, 0)
        if self.max_symbols_per_frame not in (None, 1) or isinstance(self.max_symbols_per_frame, bool):
            raise HwsimError(f"max_symbols_per_frame must be 1 or none, got {self.max_symbols_per_frame!r}")
        for name in _SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise HwsimError(f"{name} must be true or false, got {getattr(self, name)!r}")

    @property
    def language_models(self) -> int:
        """How many LMs run: 0, 1 or 2; each of them on the LM rows of the schedule."""
        return _LANGUAGE_MODELS[self.lm]

    def label_limit(self, frames: int) -> int | None:
        """The most labels that this search can emit in `frames` frames; None when it has no limit."""
        if self.algorithm == "tsd":
            return (self.expansions_per_frame - 1) * frames
        if self.algorithm == "maes":
            return self.maes_steps * frames
        if self.algorithm == "greedy":
            return None if self.max_symbols_per_frame is None else frames
        if self.u_max is not None:
            return self.u_max
        return max(1, math.floor(self.u_max_ratio * frames + 0.5))


@dataclass(frozen=True)
class Fusion:
    """Weights of language models in a search; natural logarithms. Raises HwsimError for a weight below 0.

    Density ratio: log p + weight log p_external - source_weight log p_source + length_reward for each label.
    Source: McDermott, Sak and Variani, ASRU 2019; the names mu, lambda and rho are of Saon et al. 2021.
    """

    weight: float = 0.5
    """mu, of the external language model."""
    source_weight: float = 0.3
    """lambda, of the source language model, by which the transducer's own is taken off."""
    length_reward: float = 0.0
    """rho, for each label."""

    def __post_init__(self) -> None:
        _number("weight", self.weight, at_least=0.0)
        _number("source_weight", self.source_weight, at_least=0.0)
        _number("length_reward", self.length_reward)


_OWN_RECOGNIZER = "measured with the digits recognizer of this package (int4, split dev), see docs/decode.md"
ASSUMED_STATISTICS = {
    "alsd": {
        "alsd_live_share": "0.85 and 0.87 measured with a digits RNN-T at beams 4 and 8, see docs/decode.md",
        "alsd_new_prefix_rate": "derived from measured prediction network calls of the same RNN-T, see docs/decode.md",
    },
    "tsd": {
        "tsd_new_share": "0.209 measured with a digits RNN-T at beam 4 and v = 2, see docs/decode.md",
        "tsd_survival_share": _OWN_RECOGNIZER,
    },
    "maes": {
        "maes_rival_rate": _OWN_RECOGNIZER,
        "maes_doubling_rate": _OWN_RECOGNIZER,
        "maes_expansions_per_label": _OWN_RECOGNIZER,
        "maes_repeat_rate": _OWN_RECOGNIZER,
        "maes_join_share": _OWN_RECOGNIZER,
        "maes_new_share": _OWN_RECOGNIZER,
    },
}
"""Statistics of each search that rest on few measurements, and which."""
_SHARES = ("alsd_new_prefix_rate", "tsd_new_share", "tsd_survival_share", "maes_join_share", "maes_new_share")
_RATES = ("maes_rival_rate", "maes_doubling_rate", "maes_expansions_per_label", "maes_repeat_rate")


@dataclass(frozen=True)
class SpeechStatistics:
    """One utterance, and how a model's posteriors make a beam search behave.

    `docs/decode.md` derives each statistic; `measured_statistics` measures those of a recognizer. Raises HwsimError
    for a value that breaks its rule.
    """

    frames: int
    """T, encoder frames after stacking and subsampling."""
    labels: float
    """U, labels of the best hypothesis; a mean over utterances may be a fraction."""
    vocabulary: int = 45
    """Labels without blank; a row offers at most this many candidates. 45 characters: Saon et al. 2021."""
    alsd_live_share: float = 0.85
    """ALSD: distinct hypotheses over beam, up to step T + U; the rest were duplicates, merged after pruning.

    Measured 0.85 and 0.87 (digits RNN-T, beams 4 and 8), simulated 0.77 to 0.97. A search that merges
    before it prunes has 0.97 (simulated).
    """
    alsd_new_prefix_rate: float = 0.07
    """ALSD: prefixes never seen before, per step up to T + U and per row beside the best one.

    Measured 0.084 and 0.085 (digits RNN-T, beams 4 and 8, if u_max was cut at 50); simulated 0.02 to 0.13.
    """
    tsd_new_share: float = 0.21
    """TSD: new prefixes per row of a frame's second and later joint calls, beside the U of each such call.

    Measured 0.209 (digits RNN-T, v = 2, beam 4).
    """
    tsd_survival_share: float = 0.15
    """TSD with v = 2: places of the beam that a frame gives to new prefixes, so that an LM must extend them.

    For v - 1 labels in one frame, its power of v - 1.
    """
    maes_rival_rate: float = 0.16
    """MAES: per label said, the rate at which a frame comes to hold two hypotheses or more."""
    maes_doubling_rate: float = 0.16
    """MAES: per label said, the rate at which frames of k hypotheses or more come to hold 2 k."""
    maes_expansions_per_label: float = 1.15
    """MAES: labels that a row expands to, beside frames, over labels of the best hypothesis."""
    maes_repeat_rate: float = 0.07
    """MAES: rows of a frame's third and later calls over those of the call before."""
    maes_join_share: float = 0.4
    """MAES: of the rows beside the first in a frame's first call, those whose prefix less one label is there too."""
    maes_new_share: float = 0.95
    """MAES: new prefixes per row of a frame's second and later calls."""

    def __post_init__(self) -> None:
        _integer("frames", self.frames, 1)
        _number("labels", self.labels, at_least=0.0)
        _integer("vocabulary", self.vocabulary, 1)
        _number("alsd_live_share", self.alsd_live_share, above=0.0, at_most=1.0)
        for name in _SHARES:
            _number(name, getattr(self, name), at_least=0.0, at_most=1.0)
        for name in _RATES:
            _number(name, getattr(self, name), at_least=0.0)

    @classmethod
    def at_rate(cls, frames: int, labels_per_frame: float) -> SpeechStatistics:
        """Statistics of an utterance of known speaking rate: U = labels_per_frame * frames."""
        _integer("frames", frames, 1)
        _number("labels_per_frame", labels_per_frame, at_least=0.0)
        return cls(frames, labels_per_frame * frames)

    def at_length(self, frames: int) -> SpeechStatistics:
        """The same speech for so many frames, with as many labels per frame."""
        return replace(self, frames=frames, labels=self.labels / self.frames * frames)


def _known(name: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        choices = f"{', '.join(known[:-1])} or {known[-1]}"
        raise HwsimError(f"{name} must be {choices}, got {value!r}{nearest(str(value), known)}")


def _integer(name: str, value: object, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise HwsimError(f"{name} must be an integer, got {value!r}")
    if value < at_least:
        raise HwsimError(f"{name} must be at least {at_least}, got {value}")


def _number(
    name: str,
    value: object,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise HwsimError(f"{name} must be a finite number, got {value!r}")
    if at_least is not None and value < at_least:
        raise HwsimError(f"{name} must be at least {at_least:g}, got {value:g}")
    if above is not None and value <= above:
        raise HwsimError(f"{name} must be above {above:g}, got {value:g}")
    if at_most is not None and value > at_most:
        raise HwsimError(f"{name} must be at most {at_most:g}, got {value:g}")
