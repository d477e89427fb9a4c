"""Sentences have the probabilities of the grammar, and a grammar that cannot be one is refused."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.speech.grammar import check_grammar, sample_sentence, sample_sentences
from hwsim.speech.spec import GrammarSpec
from tests.speech.fakes import DIGITS

RULES = {"sentence": {"<d>": 1.0, "call <d> <d>": 3.0}, "d": DIGITS}
GRAMMAR = GrammarSpec(rules=RULES, source="test")


def test_a_single_derivation_is_that_sentence() -> None:
    grammar = GrammarSpec(rules={"sentence": {"set <a> <b> stop": 1}, "a": {"<b> one": 2}, "b": {"two": 1}}, source="t")
    assert sample_sentence(grammar, np.random.default_rng(0)) == ["set", "two", "one", "two", "stop"]


def test_shares_are_the_weights() -> None:
    found = Counter(sample_sentences(GRAMMAR, 20000, np.random.default_rng(0)))
    probability = {word: weight / 4 for word, weight in DIGITS.items()}
    expected = {word: 0.25 * p for word, p in probability.items()}
    expected |= {f"call {a} {b}": 0.75 * p * q for a, p in probability.items() for b, q in probability.items()}
    assert set(found) == set(expected)
    for sentence, p in expected.items():
        assert found[sentence] / 20000 == pytest.approx(p, abs=5 * np.sqrt(p * (1 - p) / 20000)), sentence


def test_each_name_takes_one_number_from_left_to_right() -> None:
    class Given:
        def __init__(self, *numbers: float) -> None:
            self.numbers = list(numbers)

        def random(self) -> float:
            return self.numbers.pop(0)

    rng = Given(0.25, 0.0, 0.5)
    assert sample_sentence(GRAMMAR, rng) == ["call", "one", "three"]  # type: ignore[arg-type]
    assert rng.numbers == []
    assert sample_sentence(GRAMMAR, Given(0.2499, 0.49)) == ["two"]  # type: ignore[arg-type]


@given(st.integers(0, 2**32))
def test_the_seed_decides(seed: int) -> None:
    first, second = (sample_sentences(GRAMMAR, 5, np.random.default_rng(seed)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"sentence": {"<digit>": 1}, "digits": {"one": 1}}, "such that <digit> has a rule; nearest: digits"),
        ({"start": {"one": 1}}, "such that <sentence> has a rule; known: start"),
        ({"sentence": {"one": 1}, "d": {"two": 1}}, "such that the rule d is used"),
        ({"sentence": {"one <d>": 1}, "d": {"<sentence>": 1}}, "such that <sentence> does not lead to itself"),
        ({"sentence": {"one": 1, " ": 1}}, "such that <sentence> has no empty text"),
    ],
)
def test_what_is_no_grammar_is_refused(rules: dict[str, dict[str, float]], said: str) -> None:
    with pytest.raises(ValueError) as raised:
        check_grammar(rules, "sentence")
    assert str(raised.value) == said
