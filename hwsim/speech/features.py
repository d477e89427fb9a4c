"""Audio becomes what the network reads: log-mel energies by kaldi-native-fbank, stacked and normalized.

A frame of the network is `stack` windows side by side, `(bins x stack,)`; windows that do not fill a last frame are
left out. Samples have full scale 1, so the floor of the logarithm, log(2^-23), lies near the rounding noise of 16-bit
audio. Normalized features are float16: offline, streamed and stored features are the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.speech.audio import check_audio
from hwsim.speech.spec import FeatureSpec

Features = npt.NDArray[np.float32]
Normalized = npt.NDArray[np.float16]

SMALLEST_DEVIATION = 1e-3


def _library() -> Any:
    try:
        import kaldi_native_fbank
    except ImportError:
        raise HwsimError(
            "features need kaldi-native-fbank, which is not installed; try: pip install 'hwsim[speech]'"
        ) from None
    return kaldi_native_fbank


def library_version() -> str:
    """Name and version of the feature library. Raises HwsimError when it is not installed."""
    return f"kaldi-native-fbank {_library().__version__}"


class FeatureStream:
    """Features of audio that comes in pieces; the pieces may be cut anywhere."""

    def __init__(self, spec: FeatureSpec) -> None:
        knf = _library()
        options = knf.FbankOptions()
        options.frame_opts.samp_freq = spec.sample_rate_hz
        options.frame_opts.frame_length_ms = 1e3 * spec.window_s
        options.frame_opts.frame_shift_ms = 1e3 * spec.shift_s
        options.frame_opts.dither = 0.0
        options.frame_opts.snip_edges = True
        options.mel_opts.num_bins = spec.bins
        options.mel_opts.low_freq = spec.low_hz
        self._spec = spec
        self._bank = knf.OnlineFbank(options)
        self._taken = 0

    def accept(self, samples: npt.ArrayLike) -> Features:
        """Add samples (N,) of full scale 1; the frames (T, bins x stack) that are complete now and were not before."""
        self._bank.accept_waveform(self._spec.sample_rate_hz, np.asarray(samples, np.float32))
        stack = self._spec.stack
        end = self._bank.num_frames_ready // stack * stack
        found = np.array([self._bank.get_frame(i) for i in range(self._taken, end)], np.float32)
        self._bank.pop(end - self._taken)
        self._taken = end
        return found.reshape(-1, self._spec.width)


def features(samples: npt.ArrayLike, spec: FeatureSpec) -> Features:
    """Frames (T, bins x stack) of a whole utterance (N,), not normalized. Raises HwsimError for too short audio."""
    audio = check_audio(samples)
    if len(audio) < spec.shortest_samples:
        raise HwsimError(f"audio must be at least {spec.shortest_samples} samples long, got {len(audio)}")
    return FeatureStream(spec).accept(audio)


@dataclass(frozen=True)
class Normalizer:
    """Mean and standard deviation (bins,) of each mel bin over the training data."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def over(cls, utterances: Sequence[Features], bins: int) -> Normalizer:
        """Of all frames of some utterances; a bin that hardly changes keeps a deviation of 1e-3."""
        count = sum(frames.size for frames in utterances) // bins
        mean = sum(_rows(frames, bins).sum(axis=0) for frames in utterances) / count
        square = sum(np.square(_rows(frames, bins) - mean).sum(axis=0) for frames in utterances)
        deviation = np.maximum(np.sqrt(square / count), SMALLEST_DEVIATION)
        return cls(tuple(mean.tolist()), tuple(deviation.tolist()))

    def apply(self, frames: Features) -> Normalized:
        """`(frames - mean) / deviation` in float64, rounded to float16, (T, bins x stack)."""
        rows = _rows(frames, len(self.mean))
        return ((rows - self.mean) / self.deviation).astype(np.float16).reshape(np.shape(frames))


def _rows(frames: Features, bins: int) -> npt.NDArray[np.float64]:
    """One row for each window, (windows, bins)."""
    return np.asarray(frames, np.float64).reshape(-1, bins)
