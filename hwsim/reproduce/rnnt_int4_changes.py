"""What is changed, one at a time, to see how much each assumption behind the INT4 RNN-T decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hwsim.arch import Architecture, load_arch
from hwsim.decode.search import default_settings
from hwsim.errors import HwsimError
from hwsim.extract import Workload
from hwsim.reproduce.conditions import Conditions, measure
from hwsim.reproduce.record import Change, Sensitivity, Value

_SCALED = (
    "arch.dram.bandwidth_bytes_per_s",
    "arch.dram.efficiency",
    "arch.dram.latency_s",
    "arch.cores",
    "arch.operating_points.fast.clock_hz",
    "arch.memory.scratchpad.capacity_bytes",
    "arch.memory.scratchpad.bandwidth_bytes_per_cycle",
    "arch.memory.stream_buffer_fraction",
    "arch.memory.activation_fraction",
    "arch.array.weight_blocks.register_block_bytes",
    "arch.array.weight_blocks.weight_path_bytes_per_cycle",
    "arch.array.weight_blocks.block_swap_cycles",
    "arch.vector.latency_cycles",
    "arch.interconnect.hop_latency_cycles",
    "arch.host.per_step_s",
    "arch.host.per_hypothesis_s",
    "arch.host.per_launch_s",
    "arch.host.link_bandwidth_bytes_per_s",
    "arch.host.link_latency_s",
    "workload.decode.labels_per_second",
    "decode.u_max_ratio",
    "decode.beam",
)
"""Numbers that time depends on; the energies move none of the headline figures."""
_SWITCHED: Mapping[str, tuple[Value, Value]] = {
    "arch.host.persistent_kernel": (False, True),
    "arch.host.state_cache": ("host", "device"),
    "decode.lm_cache": (False, True),
}
_FRACTIONS = ("arch.dram.efficiency", "arch.memory.stream_buffer_fraction", "arch.memory.activation_fraction")


CHANGES = (
    *(Change(path, factor) for path in _SCALED for factor in (0.5, 2.0)),
    *(Change(path) for path in _SWITCHED),
)


def apply(change: Change, as_is: Conditions, baseline: Mapping[str, float]) -> Sensitivity:
    """The headline figures under one change, or the reason why it cannot be run."""
    before = _value(change.path, as_is)
    after, message = _changed(change, before)
    figures: Mapping[str, float] = {}
    try:
        figures = measure(_conditions(change.path, after, as_is)).figures
    except HwsimError as error:
        message = str(error)
    return Sensitivity(change.path, change.name, before, after, baseline, figures, message)


def _value(path: str, as_is: Conditions) -> Value:
    room, _, key = path.partition(".")
    if room == "workload":
        return as_is.workload.spec.decode.labels_per_second
    if room == "arch":
        return _numbers(as_is.arch)[key] if path in _SCALED else getattr(as_is.arch.host, key.rpartition(".")[2])
    value: Value = getattr(default_settings(as_is.workload), key)
    return value


def _changed(change: Change, before: Value) -> tuple[Value, str | None]:
    after = change.value(before, _SWITCHED)
    if change.path in _FRACTIONS and float(after) > 1:
        return 1.0, f"doubled would be {after:g}; 1 is the most that a fraction can be"
    return after, None


def _conditions(path: str, value: Value, as_is: Conditions) -> Conditions:
    room, _, key = path.partition(".")
    if room == "arch":
        return replace(as_is, arch=load_arch(as_is.arch.name, {key: str(value).lower()}))
    if room == "workload":
        return replace(as_is, workload=_with_labels_per_second(as_is.workload, float(value)))
    return replace(as_is, search={key: value})


def _numbers(arch: Architecture) -> dict[str, float]:
    return {origin.path: origin.value for origin in (*arch.assumptions(), *arch.sources())}


def _with_labels_per_second(workload: Workload, value: float) -> Workload:
    decode = workload.spec.decode.model_copy(update={"labels_per_second": value})
    return Workload.of(workload.spec.model_copy(update={"decode": decode}))
