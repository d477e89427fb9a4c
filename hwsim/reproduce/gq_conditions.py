"""One set of conditions for the general quantizer, the times of its calls under it, and what moves them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hwsim.arch import Architecture, load_arch
from hwsim.decode.search import default_settings
from hwsim.errors import HwsimError
from hwsim.extract import Workload
from hwsim.extract.encoder_spec import BifocalEncoderSpec
from hwsim.reproduce.gq_serving import FloatArray, Serving, interpolated, latencies_s, percentiles_s
from hwsim.reproduce.record import Change, Sensitivity, Value
from hwsim.simulation import Result, simulate

SLOWDOWNS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Of the DRAM, that are simulated; between them time is taken as linear, which it is where the DRAM decides."""
CONFIGURATIONS = {
    "8/8/8/8": "gq-bifocal-8888",
    "5 but first layers and joint 8": "gq-bifocal-5558",
    "5/5/5/5": "gq-bifocal-5555",
    "1/5/5/5": "gq-bifocal-1555",
}
"""Bits of left encoder / right encoder / decoder / joint, and their policy."""
BASELINE, HEADLINE, ONE_BIT = "8/8/8/8", "5/5/5/5", "1/5/5/5"


@dataclass(frozen=True)
class CallTime:
    """Time of a call, s, at each of `SLOWDOWNS`."""

    right_s: FloatArray
    """Of frames of the right encoder, or of the only one."""
    left_s: FloatArray
    """Of frames of the left encoder; as `right_s` where there is one."""
    left_calls: int
    """Calls at the start of an utterance that are of the left encoder."""


CallTimes = Mapping[str, CallTime]


@dataclass(frozen=True)
class Conditions:
    """The network, the machine, the search and the serving; everything but precision."""

    arch: Architecture
    workload: Workload
    serving: Serving = field(default_factory=Serving)
    search: Mapping[str, Any] = field(default_factory=dict)
    """Decode settings that differ from the workload's own."""

    @property
    def call_frames(self) -> int:
        """Encoder input frames of a call."""
        return max(round(self.serving.call_s / self.workload.frame_period_s), 1)

    @property
    def left_calls(self) -> int:
        """Calls at the start of an utterance all of whose frames are of the left encoder; 0 without one."""
        encoder = self.workload.spec.encoder
        return encoder.left_frames // self.call_frames if isinstance(encoder, BifocalEncoderSpec) else 0

    def run(self, policy: str, slowdown: float = 1.0, left: bool = False) -> Result:
        """Simulate one call while others slow the DRAM down. Raises HwsimError when it cannot be run.

        All frames of a call are of the right encoder of a bifocal recognizer, or all of the `left`.
        """
        dram = self.arch.dram
        share = dram.efficiency.model_copy(update={"value": dram.efficiency.value / slowdown})
        arch = self.arch.model_copy(update={"dram": dram.model_copy(update={"efficiency": share})})
        settings = replace(default_settings(self.workload), **self.search)
        workload = one_sided(self.workload, self.call_frames if left else 0)
        return simulate(arch, workload, policy, frames=self.call_frames, settings=settings)

    def call_times(self) -> CallTimes:
        """Times of calls of each configuration."""
        return {name: self._call_time(policy) for name, policy in CONFIGURATIONS.items()}

    def _call_time(self, policy: str) -> CallTime:
        right_s, left_s = (
            np.array([self.run(policy, slowdown, left).latency_s for slowdown in SLOWDOWNS]) if wanted else None
            for left, wanted in ((False, True), (True, self.left_calls > 0))
        )
        assert right_s is not None
        return CallTime(right_s, right_s if left_s is None else left_s, self.left_calls)


def one_sided(workload: Workload, left_frames: int) -> Workload:
    """A bifocal recognizer with so many frames of its left encoder; another one as it is."""
    spec = workload.spec
    if not isinstance(spec.encoder, BifocalEncoderSpec):
        return workload
    encoder = spec.encoder.model_copy(update={"left_frames": left_frames})
    return Workload.of(spec.model_copy(update={"encoder": encoder}))


def absolute_s(serving: Serving, time: CallTime) -> Mapping[int, float]:
    """P50, P90 and P99 of the user-perceived latency, s, for the times of a call at each of `SLOWDOWNS`."""
    right, left = (interpolated(np.array(SLOWDOWNS), time_s) for time_s in (time.right_s, time.left_s))
    return percentiles_s(latencies_s(serving, right, left, time.left_calls))


def normalized(serving: Serving, times: CallTimes) -> dict[str, dict[int, float]]:
    """P50, P90 and P99 of each configuration over the P50 of INT8."""
    found = {name: absolute_s(serving, time) for name, time in times.items()}
    unit_s = found[BASELINE][50]
    return {name: {at: value / unit_s for at, value in row.items()} for name, row in found.items()}


def headline(table: Mapping[str, Mapping[int, float]]) -> dict[str, float]:
    """What a change of an assumption is judged by: all percentiles of INT8 and of 5 bits but the unit itself."""
    eight, five = table[BASELINE], table[HEADLINE]
    return {
        "8-bit P90": eight[90], "8-bit P99": eight[99],
        "5-bit P50": five[50], "5-bit P90": five[90], "5-bit P99": five[99],
    }  # fmt: skip


_SCALED = (
    *(f"serving.{name}" for name in vars(Serving())),
    "arch.dram.bandwidth_bytes_per_s",
    "arch.dram.latency_s",
    "arch.operating_points.nominal.clock_hz",
    "arch.array.weight_decoder.weights_per_cycle",
    "arch.memory.scratchpad.bandwidth_bytes_per_cycle",
    "arch.memory.stream_buffer_fraction",
    "arch.host.per_step_s",
    "arch.host.per_launch_s",
    "decode.beam",
)
_SWITCHED: Mapping[str, tuple[Value, Value]] = {
    "arch.name": ("edge_npu_stream", "edge_npu"),
    "arch.host.persistent_kernel": (False, True),
}
CHANGES = (
    *(Change(path, factor) for path in _SCALED for factor in (0.5, 2.0)),
    *(Change(path) for path in _SWITCHED),
)


def apply(change: Change, as_is: Conditions, times: CallTimes, baseline: Mapping[str, float]) -> Sensitivity:
    """The headline figures under one change, or the reason why it cannot be run."""
    before = _value(change.path, as_is)
    after = change.value(before, _SWITCHED)
    figures: Mapping[str, float] = {}
    message = None
    try:
        changed = _conditions(change.path, after, as_is)
        same_calls = change.path.startswith("serving.") and changed.call_frames == as_is.call_frames
        figures = headline(normalized(changed.serving, times if same_calls else changed.call_times()))
    except HwsimError as error:
        message = str(error)
    return Sensitivity(change.path, change.name, before, after, baseline, figures, message)


def _value(path: str, as_is: Conditions) -> Value:
    room, _, key = path.partition(".")
    if room == "serving":
        return float(getattr(as_is.serving, key))
    if room == "decode":
        value: Value = getattr(default_settings(as_is.workload), key)
        return value
    if path in _SCALED:
        return {origin.path: origin.value for origin in (*as_is.arch.assumptions(), *as_is.arch.sources())}[key]
    return as_is.arch.name if key == "name" else as_is.arch.host.persistent_kernel


def _conditions(path: str, value: Value, as_is: Conditions) -> Conditions:
    room, _, key = path.partition(".")
    if room == "serving":
        return replace(as_is, serving=replace(as_is.serving, **{key: float(value)}))
    if room == "decode":
        return replace(as_is, search={**as_is.search, key: value})
    if key == "name":
        return replace(as_is, arch=load_arch(str(value)))
    return replace(as_is, arch=load_arch(as_is.arch.name, {key: str(value).lower()}))
