"""The transducer loss against the sum over all alignments, and its gradient against finite differences."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from hwsim.errors import HwsimError  # noqa: E402
from hwsim.train.loss import transducer_loss  # noqa: E402


def by_alignments(log_probabilities: Any, labels: list[int]) -> float:
    """Every order of T blanks and U labels that ends in a blank, one by one."""
    frames, scores = len(log_probabilities), []
    for places in combinations(range(frames + len(labels) - 1), len(labels)):
        t = u = 0
        score = 0.0
        for step in range(frames + len(labels)):
            if step in places:
                score, u = score + log_probabilities[t, u, labels[u]], u + 1
            else:
                score, t = score + log_probabilities[t, u, 0], t + 1
        scores.append(score)
    return -float(np.logaddexp.reduce(scores))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(0, 4), st.integers(2, 5))
def test_it_sums_all_alignments(seed: int, frames: int, labels: int, vocabulary: int) -> None:
    torch.manual_seed(seed)
    x = (3 * torch.randn(3, frames, labels + 1, vocabulary, dtype=torch.float64)).log_softmax(-1)
    y = torch.randint(1, vocabulary, (3, labels))
    counts, lengths = torch.randint(1, frames + 1, (3,)), torch.randint(0, labels + 1, (3,))
    found = transducer_loss(x, y, counts, lengths)
    for row in range(3):
        wanted = by_alignments(x[row, : counts[row]].numpy(), y[row, : lengths[row]].tolist())
        assert found[row].item() == pytest.approx(wanted, rel=1e-12)


def test_its_gradient_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 5, 4, 6, dtype=torch.float64, requires_grad=True)
    y, counts, lengths = torch.randint(1, 6, (4, 3)), torch.tensor([5, 3, 1, 4]), torch.tensor([3, 0, 2, 1])
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)

    def loss(x: Any) -> Any:
        return (transducer_loss(x.log_softmax(-1), y, counts, lengths) * weights).sum()

    assert torch.autograd.gradcheck(loss, (x,))


def test_what_lies_beyond_an_utterance_does_not_matter() -> None:
    torch.manual_seed(1)
    x = torch.randn(1, 9, 5, 4, requires_grad=True)
    y = torch.randint(1, 4, (1, 4))
    whole = transducer_loss(x.log_softmax(-1), y, torch.tensor([6]), torch.tensor([2]))
    part = transducer_loss(x[:, :6, :3].log_softmax(-1), y[:, :2], torch.tensor([6]), torch.tensor([2]))
    assert torch.equal(whole, part)
    (gradient,) = torch.autograd.grad(whole, x)
    assert not bool(gradient[:, 6:].any())
    assert not bool(gradient[:, :, 3:].any())
    assert bool(gradient[:, :6, :3].any())


def test_probabilities_of_zero() -> None:
    """The only alignment left is one blank, the label, one blank."""
    x = torch.full((1, 2, 2, 2), -torch.inf)
    x[0, 0, 0, 0] = x[0, 1, 0, 1] = x[0, 1, 1, 0] = -1.0
    assert transducer_loss(x, torch.tensor([[1]]), torch.tensor([2]), torch.tensor([1])).item() == 3.0


def test_wrong_shapes() -> None:
    x, y = torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, dtype=torch.long)
    frames, lengths = torch.tensor([3, 3]), torch.tensor([3, 3])
    with pytest.raises(HwsimError, match=r"labels must be of shape \(2, 3\), got \(2, 2\)"):
        transducer_loss(x, y[:, :2], frames, lengths)
    with pytest.raises(HwsimError, match=r"frames must be 2 numbers from 1 to 3, got \[0, 3\]"):
        transducer_loss(x, y, torch.tensor([0, 3]), lengths)
    with pytest.raises(HwsimError, match=r"lengths must be 2 numbers from 0 to 3, got \[3, 4\]"):
        transducer_loss(x, y, frames, torch.tensor([3, 4]))
