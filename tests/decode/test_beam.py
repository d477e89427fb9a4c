"""Beam searches on random networks, against sums over all alignments."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest

from hwsim.decode import DecodeSettings
from hwsim.decode.algorithms import _joined
from hwsim.decode.beam import Search, decode
from hwsim.decode.hypotheses import Beam
from hwsim.decode.prefixes import States
from hwsim.decode.settings import Fusion
from hwsim.errors import HwsimError

LABELS = 2
EVERYTHING = 4096


@dataclass
class RandomLabelNetwork:
    """Outputs that depend on the whole prefix; it remembers what was asked of it."""

    seed: int
    size: int
    calls: list[list[int]] = field(default_factory=list)

    def start(self) -> States:
        return (np.zeros((1, 1), np.int64),)

    def step(self, labels: np.ndarray, states: States) -> tuple[np.ndarray, States]:
        prefixes = (states[0][:, 0] * (LABELS + 1) + labels) % (2**61 - 1)
        self.calls.append(prefixes.tolist())
        rows = [np.random.default_rng([self.seed, int(p)]).standard_normal(self.size) for p in prefixes]
        return log_softmax(np.array(rows)), (prefixes[:, None],)


@dataclass
class RandomTransducer:
    seed: int
    prediction: RandomLabelNetwork = field(init=False)

    def __post_init__(self) -> None:
        self.prediction = RandomLabelNetwork(self.seed, LABELS + 1)

    def joint(self, frames: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        return log_softmax(3 * frames * predicted + frames[:, ::-1])


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def encoded(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((frames, LABELS + 1))


def forward(
    networks: RandomTransducer, frames: np.ndarray, labels: tuple[int, ...], per_frame: int | None = None,
    models: tuple[RandomLabelNetwork, ...] = (), weights: tuple[float, ...] = (), reward: float = 0.0,
) -> float:  # fmt: skip
    """log of the sum over all alignments of the labels, the last blank at the last frame."""
    states, predicted, external = networks.prediction.start(), [], []
    model_states = [model.start() for model in models]
    for label in (0, *labels):
        row, states = networks.prediction.step(np.array([label]), states)
        predicted.append(row[0])
        bonus = np.full(LABELS + 1, reward)
        for at, (model, weight) in enumerate(zip(models, weights, strict=True)):
            scores, model_states[at] = model.step(np.array([label]), model_states[at])
            bonus += weight * scores[0]
        bonus[0] = 0.0
        external.append(bonus)
    total = -np.inf
    for at in itertools.combinations_with_replacement(range(len(frames)), len(labels)):
        if per_frame is not None and max(map(at.count, at), default=0) > per_frame:
            continue
        score, done = 0.0, 0
        for t in range(len(frames)):
            for _ in range(at.count(t)):
                step = networks.joint(frames[t][None], predicted[done][None])[0] + external[done]
                score += step[labels[done]]
                done += 1
            score += networks.joint(frames[t][None], predicted[done][None])[0][0]
        total = np.logaddexp(total, score)
    return float(total)


EXACT = {
    "alsd": DecodeSettings("alsd", EVERYTHING, u_max=3, lm="none"),
    "tsd": DecodeSettings("tsd", EVERYTHING, expansions_per_frame=3, lm="none"),
    "maes": DecodeSettings("maes", EVERYTHING, maes_alpha=0, maes_gamma=1e9, lm="none"),
}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("seed", range(3))
def test_without_pruning_a_score_is_the_sum_over_all_alignments(name: str, seed: int) -> None:
    networks, frames = RandomTransducer(seed), encoded(3, seed)
    found = decode(networks, frames, EXACT[name], n_best=EVERYTHING).n_best
    per_frame = None if name == "alsd" else 2
    longest = 3 if name == "alsd" else 6
    every = [labels for u in range(longest + 1) for labels in itertools.product(range(1, LABELS + 1), repeat=u)]
    assert sorted(hypothesis.labels for hypothesis in found) == sorted(every)
    for hypothesis in found:
        wanted = forward(networks, frames, hypothesis.labels, per_frame)
        assert hypothesis.score == pytest.approx(wanted, abs=1e-9)
    scores = [hypothesis.score for hypothesis in found]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("alpha", [0, 1, 2])
def test_kept_prefixes_get_the_paths_of_shorter_ones(alpha: int) -> None:
    """The beam holds the empty prefix, (1) and (1, 2) at one frame."""
    networks, frames = RandomTransducer(2), encoded(1)
    search = Search(networks, DecodeSettings("maes", 8, maes_alpha=alpha, lm="none"))
    search.frames = list(frames)
    one = search.prefixes.extend(0, 1)
    two = search.prefixes.extend(one, 2)
    search.beam = Beam([0, one, two], [-1.0, -2.0, -3.0])
    first, second = (search.score(search.count(0), [node], [0])[0] for node in (0, one))
    joined = _joined(search, 0)
    wanted = {0: -1.0, one: -2.0, two: -3.0}
    if alpha:
        wanted[one] = np.logaddexp(-2.0, -1.0 + first[1])
        wanted[two] = np.logaddexp(-3.0, -2.0 + second[2])
    if alpha == 2:
        wanted[two] = np.logaddexp(wanted[two], -1.0 + first[1] + second[2])
    assert dict(zip(joined.nodes, joined.scores, strict=True)) == pytest.approx(wanted)


@pytest.mark.parametrize("algorithm", ["alsd", "tsd", "maes"])
@pytest.mark.parametrize("lm", ["shallow", "density-ratio"])
def test_language_models_are_weighted_into_every_label(algorithm: str, lm: str) -> None:
    networks, frames = RandomTransducer(1), encoded(3)
    models = (RandomLabelNetwork(7, LABELS + 1), RandomLabelNetwork(8, LABELS + 1))[: 1 if lm == "shallow" else 2]
    settings = DecodeSettings(
        algorithm, EVERYTHING, u_max=2, expansions_per_frame=3, maes_alpha=0, maes_gamma=1e9, lm=lm
    )  # type: ignore[arg-type]
    fusion = Fusion(0.7, 0.4, 0.25)
    found = decode(networks, frames, settings, fusion, models, n_best=3).n_best
    weights = (0.7, -0.4)[: len(models)]
    per_frame = None if algorithm == "alsd" else 2
    for hypothesis in found:
        wanted = forward(networks, frames, hypothesis.labels, per_frame, models, weights, 0.25)
        assert hypothesis.score == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("algorithm", ["greedy", "alsd", "tsd", "maes"])
def test_each_prefix_runs_once_and_the_counts_say_so(algorithm: str) -> None:
    networks, frames = RandomTransducer(3), encoded(12)
    model = RandomLabelNetwork(9, LABELS + 1)
    settings = DecodeSettings(algorithm, 1 if algorithm == "greedy" else 4, u_max=6, lm="shallow")  # type: ignore[arg-type]
    found = decode(networks, frames, settings, language_models=(model,))
    for network, rows in ((networks.prediction, found.rows.new), (model, found.rows.extended_new)):
        asked = [prefix for call in network.calls for prefix in call]
        assert len(asked) == len(set(asked)) == rows.sum()
        assert [len(call) for call in network.calls] == rows[rows > 0].tolist()
    plan = found.schedule(settings)
    assert np.array_equal(plan.prediction_rows, found.rows.new)
    assert np.all(np.diff(plan.frame) >= 0)
    assert np.all(plan.joint_rows >= plan.prediction_rows)


def test_counts_of_the_searches_that_have_exact_ones() -> None:
    networks, frames = RandomTransducer(5), encoded(9)
    tsd = decode(networks, frames, DecodeSettings("tsd", 2, lm="none")).rows
    assert tsd.joint.tolist() == [1, 2, *[2, 2] * 8]
    greedy = decode(networks, frames, DecodeSettings("greedy", 1, max_symbols_per_frame=1, lm="none"))
    assert len(greedy.rows.joint) == 9
    assert greedy.rows.new.sum() - len(greedy.n_best[0].labels) in (0, 1)
    alsd = decode(networks, frames, DecodeSettings("alsd", 4, u_max=5, lm="none")).rows
    assert len(alsd.joint) <= 9 + 5


@pytest.mark.parametrize("algorithm", ["greedy", "alsd", "tsd", "maes"])
@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_a_stream_ends_as_the_whole_utterance_does(algorithm: str, chunk: int) -> None:
    settings = DecodeSettings(algorithm, 1 if algorithm == "greedy" else 3, lm="none")  # type: ignore[arg-type]
    frames = encoded(11, 4)
    whole = decode(RandomTransducer(4), frames, settings, n_best=3)
    search = Search(RandomTransducer(4), settings)
    partial = []
    for start in range(0, len(frames), chunk):
        search.feed(frames[start : start + chunk])
        partial.append(search.partial().labels)
    found = search.finish(3)
    assert found.n_best == whole.n_best
    assert len(set(partial)) > 1
    for name in ("frame", "joint", "new", "extended", "extended_new", "candidates"):
        assert np.array_equal(getattr(found.rows, name), getattr(whole.rows, name))


def test_a_wider_beam_finds_no_worse() -> None:
    frames = encoded(5, 2)
    best = [
        decode(RandomTransducer(6), frames, DecodeSettings("alsd", beam, u_max=5, lm="none")).n_best[0]
        for beam in (16, 64, 512)
    ]
    assert best[0].score < best[1].score < best[2].score
    assert best[2].score == pytest.approx(forward(RandomTransducer(6), frames, best[2].labels))


def test_a_beam_that_never_reached_the_end_gives_its_live_hypotheses() -> None:
    found = decode(RandomTransducer(6), encoded(5, 2), DecodeSettings("alsd", 1, u_max=5, lm="none"))
    assert len(found.n_best[0].labels) == 10


def test_refusals() -> None:
    with pytest.raises(HwsimError, match=r"^lm shallow must be given 1 language models, got 0$"):
        Search(RandomTransducer(0), DecodeSettings("alsd", 2, lm="shallow"))
    search = Search(RandomTransducer(0), DecodeSettings("alsd", 2, lm="none"))
    with pytest.raises(HwsimError, match=r"^a search must be fed at least one encoder frame, got none$"):
        search.finish()
    search.feed(encoded(2))
    search.finish()
    with pytest.raises(HwsimError, match=r"^a search must not be fed after it has finished$"):
        search.feed(encoded(2))
    with pytest.raises(HwsimError, match=r"^source_weight must be at least 0, got -1$"):
        Fusion(source_weight=-1.0)
