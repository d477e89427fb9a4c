"""Beam search over a transducer's networks, with language models: whole utterances and streams.

A search runs the networks on the rows that it needs, and counts them: `Decoded.schedule` is what was really done.
Source: McDermott, Sak and Variani, ASRU 2019 (density ratio); those of the searches are in `decode.algorithms`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hwsim.decode.algorithms import SEARCHES
from hwsim.decode.hypotheses import Beam, Hypothesis, StepCount
from hwsim.decode.prefixes import ROOT, Array, LabelNetwork, Nodes, PrefixCache, Prefixes
from hwsim.decode.rows import DecodeSchedule, SearchRows, scheduled
from hwsim.decode.settings import DecodeSettings, Fusion
from hwsim.errors import HwsimError
from hwsim.numerics.rounding import Reals


class Transducer(Protocol):
    """The networks of a recognizer, after its encoder."""

    @property
    def prediction(self) -> LabelNetwork:
        """Reads labels; its outputs enter the joint. Blank is read before the first label."""
        ...

    def joint(self, frames: Array, predicted: Array) -> Reals:
        """Log probabilities (R, V + 1), blank first, of encoder rows (R, E) and prediction outputs (R, P)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """What a search found, best first, and the rows that it evaluated."""

    n_best: tuple[Hypothesis, ...]
    rows: SearchRows

    def schedule(self, settings: DecodeSettings) -> DecodeSchedule:
        """Rows and calls of each network at each step, for a decoder with these switches."""
        return scheduled(settings, self.rows)


class Search:
    """One utterance: `feed` encoder frames as they come, look at `partial`, then `finish`.

    `language_models`: the external one for shallow fusion, external and source for the density ratio; their outputs
    are log probabilities (R, V + 1) of labels, the end of the sentence first. Label scores become
    log p + fusion.weight log p_external - fusion.source_weight log p_source + fusion.length_reward.
    """

    def __init__(
        self, networks: Transducer, settings: DecodeSettings, fusion: Fusion | None = None,
        language_models: Sequence[LabelNetwork] = (),
    ) -> None:  # fmt: skip
        if len(language_models) != settings.language_models:
            raise HwsimError(
                f"lm {settings.lm} must be given {settings.language_models} language models, got {len(language_models)}"
            )
        self.settings, self.fusion, self.networks = settings, fusion or Fusion(), networks
        self.prefixes = Prefixes()
        self.prediction = PrefixCache(networks.prediction, self.prefixes)
        self.models = [PrefixCache(model, self.prefixes) for model in language_models]
        self.frames: list[Array] = []
        self.ended = False
        self.beam = Beam([ROOT], [0.0])
        self.finals = Beam([], [])
        self._counts: list[StepCount] = []
        self._seen: set[int] = set()
        self._scored: set[int] = set()
        self._run = SEARCHES[settings.algorithm](self)

    def feed(self, frames: Array) -> None:
        """Encoder outputs (T, E) of the next chunk; the search goes on as far as it can."""
        if self.ended:
            raise HwsimError("a search must not be fed after it has finished")
        self.frames.extend(np.asarray(frames))
        next(self._run, None)

    def partial(self) -> Hypothesis:
        """The best hypothesis so far."""
        return self._hypotheses(self.beam, 1)[0]

    def finish(self, n_best: int = 1) -> Decoded:
        """The end of the utterance: up to `n_best` hypotheses and the counts. Raises HwsimError without a frame."""
        if not self.frames:
            raise HwsimError("a search must be fed at least one encoder frame, got none")
        self.ended = True
        for _ in self._run:
            pass
        found = self.finals if self.finals.nodes else self.beam
        return Decoded(self._hypotheses(found.merged(), n_best), self._rows())

    def ready(self, frame: int) -> bool:
        """Whether a frame is there, or the utterance has ended before it."""
        return self.ended or frame < len(self.frames)

    def last(self, frame: int) -> bool:
        """Whether a frame is the utterance's last."""
        return self.ended and frame == len(self.frames) - 1

    def count(self, frame: int) -> StepCount:
        """Begin a step whose newest frame is this."""
        self._counts.append(StepCount(frame))
        return self._counts[-1]

    def score(self, count: StepCount, nodes: list[int], at: list[int], extend: bool = True) -> Reals:
        """Fused log probabilities (R, V + 1) of rows: prefixes beside frames; blank's is the transducer's own.

        Without `extend` no language model is asked.
        """
        asked = np.array(nodes, np.int64)
        count.new += len(set(nodes) - self._seen)
        self._seen.update(nodes)
        count.joint += len(nodes)
        predicted = self.prediction.outputs(asked)
        log_p = self.networks.joint(np.stack([self.frames[frame] for frame in at]), predicted)
        if not extend:
            return log_p
        count.extended += len(nodes)
        count.extended_new += len(set(nodes) - self._scored)
        self._scored.update(nodes)
        return self._fused(log_p, asked)

    def _fused(self, log_p: Reals, nodes: Nodes) -> Reals:
        fusion = self.fusion
        if not self.models:
            return log_p
        fused = log_p.copy()
        fused[:, 1:] += fusion.length_reward
        weights = (fusion.weight, -fusion.source_weight)
        for model, weight in zip(self.models, weights, strict=False):
            fused[:, 1:] += weight * model.outputs(nodes)[:, 1:]
        return fused

    def _hypotheses(self, beam: Beam, size: int) -> tuple[Hypothesis, ...]:
        best = beam.best(size)
        return tuple(Hypothesis(self.prefixes.sequence(n), s) for n, s in zip(best.nodes, best.scores, strict=True))

    def _rows(self) -> SearchRows:
        names = ("frame", "joint", "new", "extended", "extended_new", "candidates")
        return SearchRows(*(np.array([getattr(c, name) for c in self._counts], np.int64) for name in names))


def decode(
    networks: Transducer, encoded: Array, settings: DecodeSettings, fusion: Fusion | None = None,
    language_models: Sequence[LabelNetwork] = (), n_best: int = 1,
) -> Decoded:  # fmt: skip
    """Search a whole utterance of encoder outputs (T, E)."""
    search = Search(networks, settings, fusion, language_models)
    search.feed(encoded)
    return search.finish(n_best)
