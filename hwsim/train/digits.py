"""What networks learn from a speech set: batches of utterances and sentences, and how they are judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from hwsim.speech.dataset import Split
from hwsim.train.fit import Batch, FitSettings
from hwsim.train.transducer import QuantTransducer

FLOAT, QUANTIZED = "float", "quantized"
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How utterances are varied, each anew in every epoch."""

    speed: float = 0.0
    """Frames are read up to this share faster or slower."""
    warp: float = 0.1
    """Bins are read up to this share wider or narrower apart, as of another vocal tract."""
    masked_bins: int = 4
    """Most bins of each of two stripes that are set to zero, the mean."""
    masked_frames: int = 4
    """Most frames of each of two stripes."""


@dataclass(frozen=True, slots=True)
class Stage:
    """How one stage is trained."""

    fit: FitSettings
    batch: int
    """Utterances, or sentences."""
    augmentation: Augmentation | None = None
    short_epochs: int = 0
    """Epochs at the start that see only utterances of at most `short_labels`: from them alignments are learned."""
    short_labels: int = 3
    repeats: int = 1
    """How often an epoch after those sees an utterance in which a word follows itself, which is the hardest to hear."""


TRANSDUCER = {
    FLOAT: Stage(FitSettings(21, 4e-3, weight_decay=0.05, warm_up=0.1), 16, Augmentation(), short_epochs=3, repeats=2),
    QUANTIZED: Stage(FitSettings(7, 1.5e-3, weight_decay=0.05, warm_up=0.05), 16, Augmentation(), repeats=2),
}
CONFORMER_TRANSDUCER = {
    FLOAT: Stage(FitSettings(30, 3e-3, weight_decay=0.05, warm_up=0.1), 16, Augmentation(), short_epochs=3, repeats=2),
    QUANTIZED: Stage(FitSettings(8, 1e-3, weight_decay=0.05, warm_up=0.05), 16, Augmentation(), repeats=2),
}
LANGUAGE_MODEL = {
    FLOAT: Stage(FitSettings(4, 5e-3, warm_up=0.1), 64),
    QUANTIZED: Stage(FitSettings(2, 2e-3, warm_up=0.1), 64),
}


def utterance_batches(split: Split, stage: Stage, seed: int, epoch: int, bins: int = 40) -> list[Callable[[], Batch]]:
    """The batches of an epoch: features (T, B, K), frames (B,), labels (U, B), lengths (B,), utterances of like length.

    They depend on seed and epoch alone. `bins`: mel bins of a feature frame, of which K are some side by side.
    """
    rng = np.random.default_rng([seed, epoch])
    frames, lengths = np.diff(split.feature_offsets), np.diff(split.label_offsets)
    short = np.flatnonzero(lengths <= stage.short_labels)
    if epoch < stage.short_epochs and len(short):
        chosen = short
    else:
        repeated = [at for at, (_, labels) in enumerate(split) if (labels[1:] == labels[:-1]).any()]
        chosen = np.concatenate([np.arange(len(split)), *[repeated] * (stage.repeats - 1)]).astype(np.int64)
    order = chosen[np.argsort(frames[chosen] * rng.uniform(0.9, 1.1, len(chosen)), kind="stable")]
    groups = np.array_split(order, max(1, len(order) // stage.batch))
    varied = stage.augmentation if epoch >= stage.short_epochs else None

    def make(at: int) -> Batch:
        if varied is None:
            return pad(split, groups[at])
        return _varied(split, groups[at], varied, np.random.default_rng([seed, epoch, at]), bins)

    return [partial(make, int(at)) for at in rng.permutation(len(groups))]


def pad(split: Split, utterances: Labels) -> Batch:
    """Utterances as one batch."""
    return _padded([np.asarray(split[int(at)][0], np.float32) for at in utterances], split, utterances)


def _padded(features: Sequence[npt.NDArray[np.float32]], split: Split, utterances: Labels) -> Batch:
    x = [torch.as_tensor(part) for part in features]
    labels = [torch.as_tensor(split[int(at)][1]) for at in utterances]
    return pad_sequence(x), _counts(x), pad_sequence(labels), _counts(labels)


def _counts(parts: Sequence[Tensor]) -> Tensor:
    return torch.tensor([len(part) for part in parts])


def _varied(split: Split, utterances: Labels, how: Augmentation, rng: np.random.Generator, bins: int) -> Batch:
    features = []
    for at in utterances:
        x = np.asarray(split[int(at)][0], np.float32)
        frames = _stretched(x.reshape(-1, bins), how, rng, x.shape[1] // bins)
        _mask(frames, how, rng, x.shape[1] // bins)
        features.append(frames.reshape(-1, x.shape[1]))
    return _padded(features, split, utterances)


def _stretched(x: npt.NDArray[np.float32], how: Augmentation, rng: np.random.Generator,
               stack: int) -> npt.NDArray[np.float32]:  # fmt: skip
    """Frames (N, bins) read between frames and between bins; as many as are a multiple of `stack`."""
    frames, bins = x.shape
    count = max(1, round(frames / rng.uniform(1 - how.speed, 1 + how.speed) / stack)) * stack
    times = np.linspace(0, frames - 1, count)
    places = np.minimum(np.arange(bins) * rng.uniform(1 - how.warp, 1 + how.warp), bins - 1)
    return _between(_between(x, times).T, places).T.copy()


def _between(x: npt.NDArray[np.float32], at: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    low = np.minimum(at.astype(np.int64), len(x) - 2)
    share = (at - low).astype(np.float32)[:, None]
    mixed: npt.NDArray[np.float32] = x[low] * (1 - share) + x[low + 1] * share
    return mixed


def _mask(x: npt.NDArray[np.float32], how: Augmentation, rng: np.random.Generator, stack: int) -> None:
    """Set two stripes of bins and two of frames to zero, in place."""
    frames, bins = x.shape
    for _ in range(2):
        size = min(int(rng.integers(how.masked_bins + 1)), bins)
        first = int(rng.integers(bins - size + 1))
        x[:, first : first + size] = 0
        size = min(int(rng.integers(how.masked_frames + 1)) * stack, frames)
        first = int(rng.integers(frames - size + 1))
        x[first : first + size] = 0


def sentence_batches(sentences: Sequence[Labels], stage: Stage, seed: int, epoch: int) -> list[Callable[[], Batch]]:
    """The batches of an epoch of a language model: labels (U, B), lengths (B,)."""
    rng = np.random.default_rng([seed, epoch])
    lengths = np.array([len(sentence) for sentence in sentences])
    order = np.argsort(lengths + rng.uniform(0, 1, len(lengths)), kind="stable")
    groups = np.array_split(order, max(1, len(order) // stage.batch))

    def make(group: Labels) -> Batch:
        parts = [torch.as_tensor(sentences[at]) for at in group]
        return pad_sequence(parts), _counts(parts)

    return [partial(make, groups[at]) for at in rng.permutation(len(groups))]


def edit_distance(wanted: Sequence[int], found: Sequence[int]) -> int:
    """Fewest substitutions, deletions and insertions between two label sequences."""
    row = list(range(len(found) + 1))
    for i, label in enumerate(wanted, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(found, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (label != other))
    return row[-1]


def word_error_rate(network: QuantTransducer, split: Split, batch: int = 100) -> float:
    """WER of greedy search in percent: errors over words of the split, the network in evaluation."""
    errors = 0
    dtype = network.joint.output.weight.dtype
    order = np.argsort(np.diff(split.feature_offsets), kind="stable")
    for group in np.array_split(order, -(-len(split) // batch)):
        x, frames, *_ = pad(split, group)
        found = network.greedy(x.to(dtype), frames)
        errors += sum(
            edit_distance(split[int(at)][1].tolist(), labels) for at, labels in zip(group, found, strict=True)
        )
    return 100.0 * errors / max(1, len(split.labels))


def perplexity(network: nn.Module, sentences: Sequence[Labels], batch: int = 500) -> float:
    """exp of the mean loss over words and ends."""
    total, count = 0.0, 0
    with torch.no_grad():
        for first in range(0, len(sentences), batch):
            parts = [torch.as_tensor(sentence) for sentence in sentences[first : first + batch]]
            total += float(network(pad_sequence(parts), _counts(parts)).sum())
            count += sum(len(part) + 1 for part in parts)
    return float(np.exp(total / count))
