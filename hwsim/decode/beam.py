"""Beam searches over a transducer's networks: greedy, ALSD, TSD and modified adaptive expansion, with LM fusion.

A search is a generator that asks for encoder frames, so that one code serves whole utterances and streams. It runs
the networks on the rows that it needs, and counts them: `Decoded.schedule` is what was really done.
Sources: Saon, Tueske and Audhkhasi, ICASSP 2020 (ALSD, TSD); Kim et al., Interspeech 2020 (adaptive expansion);
Graves 2012; McDermott, Sak and Variani, ASRU 2019 (density ratio).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hwsim.decode.prefixes import BLANK, ROOT, Array, LabelNetwork, Nodes, PrefixCache, Prefixes
from hwsim.decode.rows import DecodeSchedule, SearchRows, scheduled
from hwsim.decode.settings import DecodeSettings, Fusion
from hwsim.errors import HwsimError
from hwsim.numerics.rounding import Reals

RUNAWAY_LABELS = 100
"""Greedy without a limit leaves a frame after so many labels, which a trained network never emits."""
Need = Generator[None, None, None]


class Transducer(Protocol):
    """The networks of a recognizer, after its encoder."""

    @property
    def prediction(self) -> LabelNetwork:
        """Reads labels; its outputs enter the joint. Blank is read before the first label."""
        ...

    def joint(self, frames: Array, predicted: Array) -> Reals:
        """Log probabilities (R, V + 1), blank first, of encoder rows (R, E) and prediction outputs (R, P)."""
        ...


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A label sequence and its score: log probabilities, with those of language models as they were weighted."""

    labels: tuple[int, ...]
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """What a search found, best first, and the rows that it evaluated."""

    n_best: tuple[Hypothesis, ...]
    rows: SearchRows

    def schedule(self, settings: DecodeSettings) -> DecodeSchedule:
        """Rows and calls of each network at each step, for a decoder with these switches."""
        return scheduled(settings, self.rows)


@dataclass(slots=True)
class _Count:
    """Rows of one step."""

    frame: int
    joint: int = 0
    new: int = 0
    extended: int = 0
    extended_new: int = 0
    candidates: int = 0


@dataclass(slots=True)
class Beam:
    """Live hypotheses: nodes of the prefix tree and their scores."""

    nodes: list[int]
    scores: list[float]

    def merged(self) -> Beam:
        """Equal prefixes as one, their probabilities added, in the order of their first."""
        total: dict[int, float] = {}
        for node, score in zip(self.nodes, self.scores, strict=True):
            total[node] = score if node not in total else float(np.logaddexp(total[node], score))
        return Beam(list(total), list(total.values()))

    def best(self, size: int) -> Beam:
        """The `size` best, best first; ties in their order."""
        order = sorted(range(len(self.nodes)), key=lambda at: -self.scores[at])[:size]
        return Beam([self.nodes[at] for at in order], [self.scores[at] for at in order])


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
        self._counts: list[_Count] = []
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

    def count(self, frame: int) -> _Count:
        """Begin a step whose newest frame is this."""
        self._counts.append(_Count(frame))
        return self._counts[-1]

    def score(self, count: _Count, nodes: list[int], at: list[int], extend: bool = True) -> Reals:
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


def _greedy(search: Search) -> Need:
    """The best label of each step; a frame ends with blank, or after `max_symbols_per_frame` labels."""
    node, total, frame = ROOT, 0.0, 0
    limit = search.settings.max_symbols_per_frame or RUNAWAY_LABELS
    while True:
        while not search.ready(frame):
            yield
        if frame >= len(search.frames):
            return
        for _ in range(limit):
            count = search.count(frame)
            log_p = search.score(count, [node], [frame])[0]
            count.candidates = 1
            label = int(np.argmax(log_p))
            total += float(log_p[label])
            if label != BLANK:
                node = search.prefixes.extend(node, label)
            search.beam = Beam([node], [total])
            if label == BLANK:
                break
        frame += 1


def _alsd(search: Search) -> Need:
    """Step i extends hypotheses of u labels at frame i - u; equal prefixes are merged after pruning to the beam."""
    settings, prefixes, step = search.settings, search.prefixes, 0
    while True:
        while not search.ready(step + 1):
            yield
        frames = len(search.frames)
        if search.ended and step >= frames + (settings.label_limit(frames) or 0):
            return
        lengths = [prefixes.lengths[node] for node in search.beam.nodes]
        live = [at for at, length in enumerate(lengths) if step - length < frames]
        if not live:
            return
        at = [step - lengths[i] for i in live]
        nodes, scores = [search.beam.nodes[i] for i in live], [search.beam.scores[i] for i in live]
        count = search.count(max(at))
        log_p = search.score(count, nodes, at) + np.array(scores)[:, None]
        count.candidates = len(live) * (1 + min(settings.beam, log_p.shape[1] - 1))
        for row, frame in enumerate(at):
            if search.last(frame):
                search.finals.nodes.append(nodes[row])
                search.finals.scores.append(float(log_p[row, BLANK]))
        search.beam = _extended(prefixes, nodes, log_p, settings.beam).merged()
        step += 1


def _tsd(search: Search) -> Need:
    """Every frame: v joint calls, of the beam and of its label extensions; each call's blanks end the frame."""
    settings, frame = search.settings, 0
    calls = settings.expansions_per_frame
    while True:
        while not search.ready(frame):
            yield
        if frame >= len(search.frames):
            return
        ended, rows = Beam([], []), search.beam
        for call in range(calls):
            count = search.count(frame)
            last = call == calls - 1
            log_p = search.score(count, rows.nodes, [frame] * len(rows.nodes), not last)
            log_p = log_p + np.array(rows.scores)[:, None]
            ended.nodes += rows.nodes
            ended.scores += log_p[:, BLANK].tolist()
            if last:
                count.candidates = len(ended.nodes)
                break
            count.candidates = len(rows.nodes) * min(settings.beam, log_p.shape[1] - 1)
            rows = _extended(search.prefixes, rows.nodes, log_p[:, 1:], settings.beam, 1)
        search.beam = ended.merged().best(settings.beam)
        frame += 1


def _maes(search: Search) -> Need:
    """Every frame: up to `maes_steps` expansions of the labels within `maes_gamma` of a row's best, then blanks.

    A row expands to its `beam + maes_beta` best at most. Before that, the probability that a kept prefix reaches a
    longer kept one at this frame (up to `maes_alpha` labels more) is added to the longer, and not expanded again.
    """
    settings, frame = search.settings, 0
    while True:
        while not search.ready(frame):
            yield
        if frame >= len(search.frames):
            return
        rows, ended = _joined(search, frame), Beam([], [])
        known = set(rows.nodes)
        for step in range(settings.maes_steps):
            count = search.count(frame)
            log_p = search.score(count, rows.nodes, [frame] * len(rows.nodes)) + np.array(rows.scores)[:, None]
            blanks, grown = _expansions(search, rows.nodes, log_p, known if step < settings.maes_alpha else set())
            count.candidates = len(blanks.nodes) + len(grown.nodes)
            ended.nodes += blanks.nodes
            ended.scores += blanks.scores
            if not grown.nodes:
                break
            rows = grown
            if step == settings.maes_steps - 1:
                count = search.count(frame)
                log_p = search.score(count, rows.nodes, [frame] * len(rows.nodes), False)
                ended.nodes += rows.nodes
                ended.scores += (log_p[:, BLANK] + np.array(rows.scores)).tolist()
                count.candidates = len(ended.nodes)
        search.beam = ended.merged().best(settings.beam)
        frame += 1


def _expansions(search: Search, nodes: list[int], log_p: Reals, known: set[int]) -> tuple[Beam, Beam]:
    """Rows that take blank, and rows that take labels, of each row's best within gamma; none of `known`."""
    settings, extend = search.settings, search.prefixes.extend
    blanks, grown = Beam([], []), Beam([], [])
    for row, node in enumerate(nodes):
        order = np.argsort(-log_p[row], kind="stable")[: settings.beam + settings.maes_beta]
        kept = [int(k) for k in order if log_p[row, k] >= log_p[row, order[0]] - settings.maes_gamma]
        for label in kept:
            target, reached = (blanks, node) if label == BLANK else (grown, extend(node, label))
            if label == BLANK or reached not in known:
                target.nodes.append(reached)
                target.scores.append(float(log_p[row, label]))
    return blanks, grown


def _joined(search: Search, frame: int) -> Beam:
    """The beam with the paths between its own prefixes at this frame added to the longer ones."""
    prefixes, beam = search.prefixes, search.beam
    order = sorted(range(len(beam.nodes)), key=lambda at: -prefixes.lengths[beam.nodes[at]])
    nodes, scores = [beam.nodes[at] for at in order], [beam.scores[at] for at in order]
    before = dict(zip(nodes, scores, strict=True))
    for at, node in enumerate(nodes):
        path: list[int] = [node]
        for _ in range(search.settings.maes_alpha):
            if prefixes.parents[path[-1]] < 0:
                break
            path.append(prefixes.parents[path[-1]])
            if path[-1] in before:
                chain = path[::-1]
                log_p = search.score(search.count(frame), chain[:-1], [frame] * (len(chain) - 1))
                added = sum(float(log_p[i, prefixes.labels[n]]) for i, n in enumerate(chain[1:]))
                scores[at] = float(np.logaddexp(scores[at], before[path[-1]] + added))
    return Beam(nodes, scores)


def _extended(prefixes: Prefixes, nodes: list[int], totals: Reals, size: int, first: int = 0) -> Beam:
    """The `size` best of all rows and labels, best first, ties in the order of rows and labels.

    `totals` (R, N): of labels from `first` on; blank keeps the node.
    """
    flat = totals.reshape(-1)
    size = min(size, flat.size)
    threshold = np.partition(flat, flat.size - size)[flat.size - size]
    chosen = np.flatnonzero(flat >= threshold)
    chosen = chosen[np.argsort(-flat[chosen], kind="stable")][:size]
    rows, labels = np.divmod(chosen, totals.shape[1])
    found = [
        nodes[row] if label + first == BLANK else prefixes.extend(nodes[row], label + first)
        for row, label in zip(rows.tolist(), labels.tolist(), strict=True)
    ]
    return Beam(found, flat[chosen].tolist())


SEARCHES: dict[str, Callable[[Search], Need]] = {"greedy": _greedy, "alsd": _alsd, "tsd": _tsd, "maes": _maes}


def decode(
    networks: Transducer, encoded: Array, settings: DecodeSettings, fusion: Fusion | None = None,
    language_models: Sequence[LabelNetwork] = (), n_best: int = 1,
) -> Decoded:  # fmt: skip
    """Search a whole utterance of encoder outputs (T, E)."""
    search = Search(networks, settings, fusion, language_models)
    search.feed(encoded)
    return search.finish(n_best)
