"""Greedy, ALSD, TSD and modified adaptive expansion: generators that stop where they need another encoder frame.

Sources: Saon, Tueske and Audhkhasi, ICASSP 2020 (ALSD, TSD); Kim et al., Interspeech 2020 (adaptive expansion);
Graves 2012.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

import numpy as np

from hwsim.decode.hypotheses import Beam
from hwsim.decode.prefixes import BLANK, ROOT, Prefixes
from hwsim.numerics.rounding import Reals

if TYPE_CHECKING:
    from hwsim.decode.beam import Search

RUNAWAY_LABELS = 100
"""Greedy without a limit leaves a frame after so many labels, which a trained network never emits."""
Need = Generator[None, None, None]


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
