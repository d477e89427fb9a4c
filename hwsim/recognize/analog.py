"""Recognizers on chips of analog tiles: the same search over noisy networks, and word errors over chips and times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase

import numpy as np

from hwsim.decode.prefixes import Array
from hwsim.decode.settings import DecodeSettings
from hwsim.errors import HwsimError, nearest
from hwsim.execute.analog import AnalogExecutable, AnalogSettings, RangeRecorder
from hwsim.execute.analog.executable import check_globs
from hwsim.execute.executor import Executable
from hwsim.recognize.errors import WordErrors, word_errors
from hwsim.recognize.recognizer import Recognizer

Seed = int | Sequence[int]


@dataclass(frozen=True, slots=True, eq=False)
class AnalogRecognizer(Recognizer):
    """A recognizer whose networks are on one chip, each an `AnalogExecutable`."""

    @property
    def chips(self) -> tuple[AnalogExecutable, ...]:
        """The networks that are on tiles."""
        return tuple(each for each in self.networks.values() if isinstance(each, AnalogExecutable))

    def at(self, t_s: float) -> AnalogRecognizer:
        """The same devices, read at another time since programming; noise begins anew. Raises HwsimError for t < 0."""
        return replace(self, networks={name: each.at(t_s) if isinstance(each, AnalogExecutable) else each
                                       for name, each in self.networks.items()})  # fmt: skip

    def restart(self, number: int = 0) -> None:
        """Begin the noise of all products anew, as sequence `number`, so that an utterance has noise of its own."""
        for each in self.chips:
            each.restart(number)


def analog_recognizer(
    recognizer: Recognizer, settings: AnalogSettings, seed: Seed = 0, t_s: float = 0.0,
    ranges: Mapping[str, float] | None = None,
) -> AnalogRecognizer:  # fmt: skip
    """A recognizer with the products of its networks on tiles, `t_s` seconds after programming.

    `ranges`: input ranges by the name of the weight, such as those of `recognizer_ranges`; products without one take
    the greatest |x| of each input. Globs of digital layers are of all networks.
    Raises HwsimError as `AnalogExecutable`, and for a range that no network has.
    """
    known = {name for each in recognizer.networks.values() for name in each.projections}
    for name in ranges or {}:
        if name not in known:
            raise HwsimError(f"ranges: unknown weight '{name}'{nearest(name, known)}")

    check_globs(settings.digital, [layer for each in recognizer.networks.values() for layer in each.trace.layers])

    def on_tiles(network: Executable) -> AnalogExecutable:
        globs = tuple(
            glob for glob in settings.digital if any(fnmatchcase(layer, glob) for layer in network.trace.layers)
        )
        own = {name: alpha for name, alpha in (ranges or {}).items() if name in network.projections}
        return AnalogExecutable(network, replace(settings, digital=globs), seed, t_s, own)

    own = {each.name: getattr(recognizer, each.name) for each in fields(Recognizer)}
    return AnalogRecognizer(**{**own, "networks": {name: on_tiles(each) for name, each in recognizer.networks.items()}})


def recognizer_ranges(
    recognizer: Recognizer, utterances: Sequence[Array], search: DecodeSettings, percentile: float = 100.0
) -> dict[str, float]:
    """Input ranges of all products, a percentile of |x| while utterances (T, K) are decoded. Raises HwsimError."""
    recorders = {name: RangeRecorder(each) for name, each in recognizer.networks.items()}
    recording = replace(recognizer, networks={name: each.executable for name, each in recorders.items()})
    for features in utterances:
        recording.transcribe(features, search)
    return {name: alpha for each in recorders.values() for name, alpha in each.ranges(percentile).items()}


@dataclass(frozen=True, slots=True, eq=False)
class ChipErrors:
    """Word errors of utterances on one chip, `t_s` seconds after it was programmed."""

    chip: int
    t_s: float
    errors: WordErrors


def chip_word_errors(
    recognizer: Recognizer, utterances: Sequence[Array], transcripts: Sequence[str], settings: AnalogSettings,
    search: DecodeSettings, *, times_s: Sequence[float], chips: int = 3, seed: int = 0,
    ranges: Mapping[str, float] | None = None,
) -> Iterator[ChipErrors]:  # fmt: skip
    """Word errors of every chip at every time, one after the other; chip i has the seed (`seed`, i).

    `utterances`: features (T, K). Each begins noise of its own, so that results do not depend on their order.
    Raises HwsimError for no chip or time, and as `analog_recognizer` and `word_errors`.
    """
    if chips < 1:
        raise HwsimError(f"chips must be at least 1, got {chips}")
    if not times_s:
        raise HwsimError("times_s must hold at least one time, got none")
    if len(utterances) != len(transcripts):
        raise HwsimError(f"utterances must be {len(transcripts)}, one for each transcript, got {len(utterances)}")
    for chip in range(chips):
        programmed = analog_recognizer(recognizer, settings, (seed, chip), times_s[0], ranges)
        for t_s in times_s:
            now = programmed.at(t_s)
            words = []
            for number, features in enumerate(utterances):
                now.restart(number)
                words.append(now.transcribe(np.asarray(features, np.float64), search).words)
            yield ChipErrors(chip, t_s, word_errors(transcripts, words))
