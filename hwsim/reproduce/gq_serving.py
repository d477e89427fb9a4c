"""User-perceived latency of a recognizer that is fed as audio comes, while others use the same DRAM.

The recognizer runs in calls of a fixed number of frames. A call starts when its frames are there and the call before
has ended; the last one holds what is left and costs as much as a full one. Others slow the DRAM down by a factor that
stays through an utterance. User-perceived latency is the time from the end of speech to the result:

    backlog of full calls at the end of speech + the last call + what no number format shortens.

The full call i begins when its audio is there, at i C, or when the call before has ended; so the last of n ends at

    max over j of (j C + the time of the calls j to n),

where only the first call of each kind and the last can be the largest: the first calls of an utterance are of the left
encoder of a bifocal recognizer and may take another time than those that follow. Not modelled: load that changes within
an utterance, calls of other utterances, and a host that is late.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError

FloatArray = npt.NDArray[np.float64]
PERCENTILES = (50, 90, 99)
SAMPLES = 4000
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Serving:
    """How utterances and load are distributed. Raises HwsimError for a value that is not positive."""

    call_s: float = 0.3
    """Audio of a call, s."""
    utterance_s: float = 3.0
    """Median length of an utterance, s."""
    utterance_spread: float = 0.5
    """Standard deviation of the logarithm of the length."""
    slowdown: float = 1.5
    """Median factor by which others slow the DRAM down; 1 leaves all of it."""
    slowdown_spread: float = 0.5
    """Standard deviation of the logarithm of that factor."""
    fixed_s: float = 0.05
    """From the end of speech to the result, what no number format shortens: end-point decision, host, hand-over, s."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise HwsimError(f"{name} must be above 0, got {value:g}")


WHY: Mapping[str, str] = {
    "call_s": "ten frames of 30 ms, a usual piece of a streaming recognizer",
    "utterance_s": "requests to a voice assistant are a few seconds long",
    "utterance_spread": "one in six requests is longer than 5 s",
    "slowdown": "others take a third of the DRAM's time, half of the time; chosen with the table in view",
    "slowdown_spread": "in one of a hundred utterances others leave a fifth; chosen with the table in view",
    "fixed_s": "end-point decision, host and hand-over of the result; chosen with the table in view",
}
"""Why each number of `Serving` is as it is."""


def utterances(serving: Serving, samples: int = SAMPLES) -> tuple[FloatArray, FloatArray]:
    """(length in s, slow-down) of as many utterances, log-normal and independent, without random numbers.

    Slow-downs are at equal steps of probability, lengths follow the golden section. A slow-down is 1 at least.
    """
    normal = NormalDist()
    places = np.arange(samples, dtype=np.float64)
    step, golden = (places + 0.5) / samples, (places * _GOLDEN + 0.5) % 1.0

    def log_normal(at: FloatArray, median: float, spread: float) -> FloatArray:
        return median * np.exp(spread * np.array([normal.inv_cdf(p) for p in at]))

    lengths = log_normal(golden, serving.utterance_s, serving.utterance_spread)
    return lengths, np.maximum(log_normal(step, serving.slowdown, serving.slowdown_spread), 1.0)


def latencies_s(
    serving: Serving, service_s: Callable[[FloatArray], FloatArray],
    left_s: Callable[[FloatArray], FloatArray] | None = None, left_calls: int = 0,
) -> FloatArray:  # fmt: skip
    """User-perceived latency of each utterance; `service_s` gives the time of a call at a slow-down of the DRAM.

    `left_s`: that of the first `left_calls` calls of an utterance, where they are of another encoder.
    """
    lengths, slowdown = utterances(serving)
    later = service_s(slowdown)
    early = later if left_s is None else left_s(slowdown)
    calls = np.maximum(np.ceil(lengths / serving.call_s).astype(np.int64) - 1, 0)
    split = np.minimum(left_calls, calls)

    def ended_s(first: npt.NDArray[np.int64]) -> FloatArray:
        """When the last full call ends if the calls from `first` on run without a gap."""
        left = np.maximum(split - first + 1, 0)
        return np.asarray(first * serving.call_s + left * early + (calls - first + 1 - left) * later)

    firsts = (np.ones_like(calls), split, split + 1, calls)
    ends = np.max([ended_s(np.clip(first, 1, np.maximum(calls, 1))) for first in firsts], axis=0)
    backlog = np.where(calls > 0, np.maximum(ends - lengths, 0.0), 0.0)
    last = np.where(calls < left_calls, early, later)
    return np.asarray(backlog + last + serving.fixed_s)


def percentiles_s(latency_s: FloatArray) -> Mapping[int, float]:
    """P50, P90 and P99 of latencies: the smallest that so many percent do not exceed."""
    found = np.percentile(latency_s, PERCENTILES, method="inverted_cdf")
    return dict(zip(PERCENTILES, found.tolist(), strict=True))


def interpolated(slowdowns: FloatArray, times_s: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """Time of a call between the slow-downs that were simulated, linear, and on along the last two beyond them.

    Raises HwsimError unless the slow-downs rise and there are two or more.
    """
    if len(slowdowns) < 2 or (np.diff(slowdowns) <= 0).any():
        raise HwsimError(f"slow-downs must rise and be two or more, got {slowdowns.tolist()}")
    slope = (times_s[-1] - times_s[-2]) / (slowdowns[-1] - slowdowns[-2])

    def service_s(slowdown: FloatArray) -> FloatArray:
        beyond = np.maximum(slowdown - slowdowns[-1], 0.0) * slope
        return np.asarray(np.interp(slowdown, slowdowns, times_s) + beyond)

    return service_s
