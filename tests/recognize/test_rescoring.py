"""Rescoring of an n-best list in integers against the float64 graph: the same order."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from hwsim.decode.hypotheses import Hypothesis  # noqa: E402
from hwsim.errors import HwsimError  # noqa: E402
from hwsim.extract.conformer import AttentionSpec  # noqa: E402
from hwsim.extract.transformer_spec import TransformerSpec  # noqa: E402
from hwsim.numerics.calibration import MinMax  # noqa: E402
from hwsim.recognize import rescore, sentence_log_p  # noqa: E402
from hwsim.train import QuantAttention, QuantTransformer, convert_transformer, export  # noqa: E402

SPEC = TransformerSpec(vocabulary=24, width=16, layers=2, heads=2, feed_forward=24, tied=True, source="test")
MOST = 10


@cache
def both(bits: int = 2) -> tuple[Any, Any]:
    """A model as its float64 graph and as an executable."""
    torch.manual_seed(3)
    network = QuantTransformer(SPEC, bits)
    with torch.no_grad():
        network.embedding.weight.mul_(3.0)
        network(torch.randint(1, 24, (MOST - 1, 16)), torch.full((16,), MOST - 1))
    network.double().eval()
    return network, convert_transformer(network, MOST).executable()


def n_best(count: int, seed: int = 0) -> list[Hypothesis]:
    """Sentences of 0 to 9 words with scores of a first pass, best first."""
    rng = np.random.default_rng(seed)
    found = [Hypothesis(tuple(rng.integers(1, 24, int(rng.integers(0, MOST))).tolist()), float(-rng.exponential(3.0)))
             for _ in range(count)]  # fmt: skip
    return sorted(found, key=lambda one: -one.score)


def graph_log_p(network: Any, labels: tuple[int, ...]) -> float:
    """log p of one sentence, alone and of its own length."""
    with torch.no_grad():
        return -float(network(torch.tensor(labels, dtype=torch.long)[:, None], torch.tensor([len(labels)]))[0])


@pytest.mark.parametrize("bits", [1, 2, 8])
def test_the_order_is_that_of_the_float64_graph(bits: int) -> None:
    network, executable = both(bits)
    for seed in range(3):
        given = n_best(12, seed)
        log_p = [graph_log_p(network, one.labels) for one in given]
        assert np.abs(sentence_log_p(executable, [one.labels for one in given]) - log_p).max() < 1e-10
        for weight, first, reward in ((0.5, 1.0, 0.3), (0.8, 0.2, 0.0), (1.0, 0.0, 0.0)):
            got = rescore(given, executable, weight, first_weight=first, length_reward=reward)
            scores = [first * one.score + weight * p + reward * len(one.labels)
                      for one, p in zip(given, log_p, strict=True)]  # fmt: skip
            order = sorted(range(12), key=lambda at: -scores[at])
            assert [one.labels for one in got] == [given[at].labels for at in order]
            assert [one.first for one in got] == [given[at].score for at in order]
            assert np.allclose([one.score for one in got], [scores[at] for at in order], atol=1e-10)
            assert order != list(range(12))


def test_a_weight_of_nothing_keeps_the_first_pass() -> None:
    given = [Hypothesis((1, 2), -1.0), Hypothesis((3,), -1.0), Hypothesis((4, 5, 6), -2.0)]
    got = rescore(given, both()[1], 0.0)
    assert [(one.labels, one.score) for one in got] == [(one.labels, one.score) for one in given]
    assert all(one.log_p < 0 for one in got)


def test_probabilities_of_all_short_sentences_and_longer_ones_add_up() -> None:
    """p(no word) + sum over first words of p(word, end) + p(longer) = 1, the last from the same scores."""
    network, executable = both()
    shorter = np.exp(sentence_log_p(executable, [(), *((word,) for word in range(1, 24))]))
    words = np.zeros(MOST, np.int64)
    longer = 0.0
    for word in range(1, 24):
        words[1] = word
        log_p = executable.run({"external_lm.embedding.labels": words})["external_lm.output.logits"]
        longer += math.exp(log_p[0, word]) * (1 - math.exp(log_p[1, 0]))
    assert abs(shorter.sum() + longer - 1) < 1e-9
    assert abs(float(np.log(shorter[0])) - graph_log_p(network, ())) < 1e-10


def test_refusals() -> None:
    _, executable = both()
    one = [Hypothesis((1,), 0.0)]
    for given, weight, others, message in (
        ([], 0.5, {}, "n_best must hold at least one hypothesis, got none"),
        (one, -0.1, {}, "weight must be 0 or more and finite, got -0.1"),
        (one, math.nan, {}, "weight must be 0 or more and finite, got nan"),
        (one, 0.5, {"first_weight": -1.0}, "first_weight must be 0 or more and finite, got -1.0"),
        (one, 0.5, {"length_reward": math.inf}, "length_reward must be finite, got inf"),
        ([Hypothesis((1,) * MOST, 0.0)], 0.5, {}, "at most 10 words with its end, got 11"),
        ([Hypothesis((3, 24), 0.0)], 0.5, {}, "labels of a sentence must be 1 to 23, got 24"),
        ([Hypothesis((3, 0, 2), 0.0)], 0.5, {}, "labels of a sentence must be 1 to 23, got 0"),
    ):  # fmt: skip
        with pytest.raises(HwsimError, match=message):
            rescore(given, executable, weight, **others)
    attention = QuantAttention(AttentionSpec(4, 2, relative=False), input=MinMax(8))
    attention(torch.randn(5, 4))
    with pytest.raises(HwsimError, match=r"network: must read the labels of whole sentences and write their output."):
        sentence_log_p(export(attention, 5), [(1,)])
