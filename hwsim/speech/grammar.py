"""Sentences drawn from a small probabilistic grammar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from hwsim.errors import nearest

if TYPE_CHECKING:
    from hwsim.speech.spec import GrammarSpec

Rules = Mapping[str, Mapping[str, float]]


def check_grammar(rules: Rules, start: str) -> None:
    """Raise ValueError unless every name has a rule, every rule is used, and every derivation ends."""
    used = {start}
    for name, texts in rules.items():
        for text in texts:
            if not text.split():
                raise ValueError(f"such that <{name}> has no empty text")
            used.update(_names(text))
    for name in sorted(used):
        if name not in rules:
            raise ValueError(f"such that <{name}> has a rule{nearest(name, rules)}")
    for name in rules:
        if name not in used:
            raise ValueError(f"such that the rule {name} is used")
        _check_ends(rules, name, ())


def _check_ends(rules: Rules, name: str, above: tuple[str, ...]) -> None:
    if name in above:
        raise ValueError(f"such that <{name}> does not lead to itself")
    for text in rules[name]:
        for inner in _names(text):
            _check_ends(rules, inner, (*above, name))


def _names(text: str) -> list[str]:
    return [part[1:-1] for part in text.split() if part.startswith("<") and part.endswith(">")]


def sample_sentence(grammar: GrammarSpec, rng: np.random.Generator) -> list[str]:
    """The words of one sentence. Each name draws one number from `rng`, from left to right."""
    words: list[str] = []
    waiting = [f"<{grammar.start}>"]
    while waiting:
        part = waiting.pop()
        if not part.startswith("<"):
            words.append(part)
            continue
        texts = grammar.rules[part[1:-1]]
        bounds = np.cumsum(list(texts.values()))
        chosen = int(np.searchsorted(bounds, rng.random() * bounds[-1], side="right"))
        waiting += reversed(list(texts)[min(chosen, len(texts) - 1)].split())
    return words


def sample_sentences(grammar: GrammarSpec, count: int, rng: np.random.Generator) -> list[str]:
    """So many sentences, words separated by spaces."""
    return [" ".join(sample_sentence(grammar, rng)) for _ in range(count)]
