"""Word errors of transcripts, and how sure a rate is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class WordErrors:
    """Errors (substitutions, deletions, insertions) and words of each utterance."""

    errors: Counts
    words: Counts

    @property
    def rate(self) -> float:
        """Word error rate (WER): all errors over all words."""
        return float(self.errors.sum() / self.words.sum())

    def interval(self, share: float = 0.95, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
        """Bootstrap percentiles of the rate over utterances drawn with replacement."""
        rng = np.random.default_rng(seed)
        chosen = rng.integers(0, len(self.words), (draws, len(self.words)))
        rates = self.errors[chosen].sum(axis=1) / np.maximum(self.words[chosen].sum(axis=1), 1)
        low, high = np.quantile(rates, [(1 - share) / 2, (1 + share) / 2])
        return float(low), float(high)


def word_errors(references: Sequence[str], hypotheses: Sequence[str]) -> WordErrors:
    """Errors of each utterance by jiwer. Raises HwsimError without it, for other lengths and for no words at all."""
    try:
        import jiwer
    except ImportError:
        raise HwsimError("word error rates need jiwer: install hwsim[speech]") from None
    if len(references) != len(hypotheses):
        raise HwsimError(f"hypotheses must be {len(references)}, one for each reference, got {len(hypotheses)}")
    if not any(text.split() for text in references):
        raise HwsimError("references must hold at least one word, got none")
    errors, words = [], []
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        count = len(reference.split())
        if not count:  # jiwer refuses an empty reference
            errors.append(len(hypothesis.split()))
        else:
            found = jiwer.process_words(reference, hypothesis)
            errors.append(found.substitutions + found.deletions + found.insertions)
        words.append(count)
    return WordErrors(np.array(errors, np.int64), np.array(words, np.int64))
