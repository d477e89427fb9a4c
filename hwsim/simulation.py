"""`simulate`: a workload, decoded, at a precision, on an architecture; the rooms from numerics to engine joined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim import __version__
from hwsim.arch import Architecture, load_arch
from hwsim.cost.classes import operand_formats, operation_classes
from hwsim.cost.mapping import AnalogMapping, place
from hwsim.cost.operation import Unit
from hwsim.decode.rows import DecodeSchedule
from hwsim.decode.search import decode_trace, default_settings, speech_statistics, utterance_trace
from hwsim.decode.settings import ASSUMED_STATISTICS, DecodeSettings, SpeechStatistics
from hwsim.decode.statistics import schedule
from hwsim.decode.streaming import stream_trace
from hwsim.engine.run import CAUSES, ENERGY_PARTS, Engine, Run, run_trace
from hwsim.errors import HwsimError
from hwsim.extract import AnyWorkload, load_workload
from hwsim.extract.frames import frame_encoder
from hwsim.numerics import PrecisionPolicy, load_policy
from hwsim.numerics.formats import NumberFormat, mac_format
from hwsim.numerics.policy import NATIVE
from hwsim.trace import Role, Trace

if TYPE_CHECKING:
    import pandas as pd

FP32_BITS = 32


@dataclass(frozen=True)
class ComponentResult:
    """One component of the recognizer: encoder, prediction, joint, a language model, the search."""

    name: str
    latency_s: float
    """Time on the critical path; the components add up to the latency of the utterance."""
    cycles: int
    energy_j: float
    macs: int
    dram_bytes: int
    bound: str
    """What most of its time is spent on, one of `hwsim.engine.CAUSES`; `none` when it is hidden behind others."""
    cycles_by_cause: Mapping[str, float]
    achieved_ops_per_s: float
    """2 operations per MAC over its latency; 0 when it is hidden behind others. Of a trace that is emitted frame by
    frame, whose components work side by side, over the latency of the utterance."""
    utilization: float
    """MACs over what the arrays or tiles could do in that time, each operation in its own format or mode."""
    parameters: int
    weight_bits: int
    """Stored bits of weights and biases that are not on analog tiles."""
    tile_weights: int = 0
    """Weights on analog tiles, which have devices and no bits."""

    @property
    def compression(self) -> float:
        """Size of its weights in FP32 over their stored size, without those on analog tiles."""
        return FP32_BITS * (self.parameters - self.tile_weights) / self.weight_bits if self.weight_bits else 1.0


@dataclass(frozen=True)
class Result:
    """A simulated utterance. Totals are the sums of the components."""

    arch: Architecture
    workload: AnyWorkload
    policy: PrecisionPolicy
    settings: DecodeSettings
    frames: int
    engine: Engine
    cycles: int
    components: Mapping[str, ComponentResult]
    energy_by_part_j: Mapping[str, float]
    run: Run = field(repr=False, compare=False)
    recorded: bool = False
    """Whether the rows of the search are those of a real decode, not of statistics."""
    statistics: SpeechStatistics | None = None
    """Those that the user gave for T and U of this utterance; none where they were assumed, or not needed."""
    plan: DecodeSchedule | None = field(default=None, repr=False, compare=False)
    """Rows of the search; none where they follow from assumed statistics."""

    @property
    def latency_s(self) -> float:
        """From the first frame at hand to the last label, s."""
        return self.cycles / self.arch.clock_hz

    @property
    def audio_s(self) -> float:
        """Length of the utterance, s."""
        return self.workload.audio_seconds(self.frames)

    @property
    def rtf(self) -> float:
        """Real-time factor: latency over audio length."""
        return self.latency_s / self.audio_s

    @property
    def energy_j(self) -> float:
        """Energy of the utterance with DRAM, host and leakage, J."""
        return float(sum(c.energy_j for c in self.components.values()))

    @property
    def energy_per_audio_second_j(self) -> float:
        """Energy per second of audio, J/s."""
        return self.energy_j / self.audio_s

    @property
    def compression(self) -> float:
        """Size of all weights of the decode in FP32 over their stored size, without those on analog tiles."""
        parts = self.components.values()
        return FP32_BITS * sum(c.parameters - c.tile_weights for c in parts) / sum(c.weight_bits for c in parts)

    @cached_property
    def assumptions(self) -> list[str]:
        """Every assumption the result rests on: `path = value: why`."""
        idle = [f"array.formats.{name}." for name in self.arch.native_formats if name not in self.formats]
        listed = [
            f"arch.{path} = {value:g}: {why}"
            for path, value, why in self.arch.assumptions()
            if not path.startswith(tuple(idle))
        ]
        listed.append(f"workload.decode: {self.workload.decode.source}")
        listed += _of_tiles(self.arch, self.run.mapping)
        statistics = SpeechStatistics(frames=1, labels=0)
        known = self.recorded or self.statistics is not None or not self.workload.transduces
        assumed = {} if known else ASSUMED_STATISTICS.get(self.settings.algorithm, {})
        for name, why in assumed.items():
            listed.append(f"decode.{name} = {getattr(statistics, name):g}: {why}")
        if self.policy.assumption:
            listed.append(f"precision.{self.policy.name}: {self.policy.assumption}")
        return listed

    @property
    def formats(self) -> set[str]:
        """Native formats of the machine that compute something in this run."""
        units = zip(operand_formats(self.run.trace), self.run.costs.unit, strict=True)
        return {self.arch.compute_format(mac_format(*pair)) for pair, unit in units if pair and unit == Unit.ARRAY}

    @property
    def provenance(self) -> dict[str, str]:
        """Hashes and versions of everything that made this result."""
        return {
            "hwsim": __version__,
            "arch": f"{self.arch.name} {self.arch.digest[:12]}",
            "workload": f"{self.workload.name} {self.workload.digest}",
            "precision": f"{self.policy.name} {self.policy.digest[:12]}",
            "decode": _pairs(self.settings),
            "frames": str(self.frames),
            "engine": self.engine,
        } | ({"statistics": _pairs(self.statistics)} if self.statistics else {})  # fmt: skip

    def speedup_over(self, other: Result) -> dict[str, float]:
        """Latency of another result over this one's: `total` and each component that takes time in both."""
        found = {"total": other.latency_s / self.latency_s}
        for name, mine in self.components.items():
            theirs = other.components.get(name)
            if theirs and mine.cycles and theirs.cycles:
                found[name] = theirs.latency_s / mine.latency_s
        return found

    def to_frame(self) -> pd.DataFrame:
        """One row per component, as pandas."""
        import pandas as pd

        rows = []
        for component in self.components.values():
            row = asdict(component)
            row |= {f"cycles_{cause}": cycles for cause, cycles in row.pop("cycles_by_cause").items()}
            rows.append(row | {"energy_share": component.energy_j / self.energy_j})
        return pd.DataFrame(rows).set_index("name")

    def to_dict(self, versus: Result | None = None) -> dict[str, Any]:
        """What `--json` writes; speed-ups are over `versus` and null without it."""
        speedup = self.speedup_over(versus) if versus else {}
        parts = {}
        for name, c in self.components.items():
            parts[name] = asdict(c) | {"compression": c.compression, "speedup": speedup.get(name)}
        return {
            "rtf": self.rtf, "latency_s": self.latency_s, "audio_s": self.audio_s, "energy_j": self.energy_j,
            "energy_per_audio_second_j": self.energy_per_audio_second_j, "cycles": self.cycles,
            "compression": self.compression, "speedup": speedup.get("total"),
            "energy_by_part_j": dict(self.energy_by_part_j), "components": parts,
            "assumptions": self.assumptions, "provenance": self.provenance,
            "versus": versus.provenance if versus else None,
        }  # fmt: skip


def simulate(
    arch: Architecture | str | Path,
    workload: AnyWorkload | str | Path,
    precision: PrecisionPolicy | str | Path = "int4",
    *,
    beam: int | None = None,
    decoder: str | None = None,
    lm: str | None = None,
    frames: int | None = None,
    engine: Engine = "fast",
    settings: DecodeSettings | None = None,
    plan: DecodeSchedule | None = None,
    statistics: SpeechStatistics | None = None,
) -> Result:
    """Simulate one utterance of a workload on an architecture.

    `beam`, `decoder` (alsd, tsd, maes, greedy), `lm` (none, shallow, density-ratio) and `frames` (encoder input frames)
    default to what the workload's file says; `settings` replaces all decode options at once. `plan`: the rows that a
    search of real networks evaluated, in place of statistics of speech. `statistics`: what `measured_statistics` found
    for a recognizer, in place of assumed ones, at their labels per frame. Raises HwsimError.
    """
    machine = arch if isinstance(arch, Architecture) else load_arch(arch)
    network = load_workload(workload) if isinstance(workload, str | Path) else workload
    policy = precision if isinstance(precision, PrecisionPolicy) else load_policy(precision)
    decode = settings or default_settings(network, beam=beam, algorithm=decoder, lm=lm)
    frames = network.decode.frames if frames is None else frames
    recorded = plan is not None
    if statistics is not None:
        if recorded:
            raise HwsimError("plan must be none beside statistics, got both")
        statistics = statistics.at_length(network.encoder_frames(frames))
        plan = schedule(decode, statistics)
    trace = utterance_trace(network, decode, frames) if plan is None else decode_trace(network, decode, frames, plan)
    if _works_frame_by_frame(machine, network, trace):
        steps = schedule(decode, speech_statistics(network, frames)) if plan is None else plan
        trace = stream_trace(network, decode, frames, steps)
    trace = network.native(trace, policy) if NATIVE.get(policy.name) == policy else trace.with_precision(policy)
    run = run_trace(machine, trace, engine)
    components, parts = _account(machine, run)
    return Result(
        machine, network, policy, decode, frames, engine, run.schedule.cycles, components, parts, run, recorded,
        statistics, plan,
    )  # fmt: skip


def _works_frame_by_frame(arch: Architecture, network: AnyWorkload, trace: Trace) -> bool:
    """Whether all layers of an encoder that can be emitted so have tiles of their own, and then pipeline."""
    mapping = place(arch, trace)
    if mapping is None or frame_encoder(network) is None:
        return False
    layers = [t.name for t in trace.tensors if t.role == Role.WEIGHT and t.layer.startswith("encoder.")]
    return set(layers) <= {matrix.name for matrix in mapping.matrices if not matrix.shared}


def _of_tiles(arch: Architecture, mapping: AnalogMapping | None) -> list[str]:
    """What a result with weights on tiles rests on beside numbers."""
    if mapping is None or arch.analog is None:
        return []
    overflow = arch.analog.placement.overflow
    return [
        f"arch.analog.placement.overflow = {overflow}: {arch.analog.placement.reason}",
        f"precision.analog = {mapping.weights}: weights on tiles have the precision of their devices, whatever the"
        " policy says; it holds for the rest",
    ]


def _account(arch: Architecture, run: Run) -> tuple[dict[str, ComponentResult], dict[str, float]]:
    """Sum time, energy and bytes per component."""
    trace = run.trace
    count = len(trace.components)
    of = trace.component
    # Components that work side by side are each as fast as their operations of the whole run.
    overlapped = bool(trace.meta.get("frame_by_frame"))
    held = [trace.tensors[index] for index in run.mapping.tensors] if run.mapping else []
    critical = np.stack([np.bincount(of, row, count) for row in run.critical_cycles.T], axis=1)
    energy = np.bincount(of, run.energy_pj.sum(axis=1), count) * 1e-12
    macs, dram = (np.bincount(of, column, count) for column in (trace.macs, run.dram_bytes))
    klass = operation_classes(trace).of_operation
    peak = run.costs.peak_macs_per_cycle[klass]
    ideal_cycles = np.bincount(of, np.where(peak > 0, trace.macs / np.maximum(peak, 1), 0), count)
    found = {}
    for i, name in enumerate(trace.components):
        cycles = round(float(critical[i].sum()))
        seconds = cycles / arch.clock_hz
        over = run.schedule.cycles if overlapped else cycles
        totals = trace.totals(name)
        mine = [tensor for tensor in held if tensor.component == name]
        bits = sum(NumberFormat.parse(tensor.format).stored_bits(tensor.shape).total for tensor in mine)
        found[name] = ComponentResult(
            name=name, latency_s=seconds, cycles=cycles, energy_j=float(energy[i]), macs=int(macs[i]),
            dram_bytes=int(dram[i]), bound=CAUSES[int(np.argmax(critical[i]))] if cycles else "none",
            cycles_by_cause=dict(zip(CAUSES, critical[i].tolist(), strict=True)),
            achieved_ops_per_s=2 * float(macs[i]) * arch.clock_hz / over if over else 0.0,
            utilization=float(ideal_cycles[i]) / over if over else 0.0,
            parameters=totals.parameters, weight_bits=totals.weight_bits - bits,
            tile_weights=sum(tensor.elements for tensor in mine),
        )  # fmt: skip
    parts = dict(zip(ENERGY_PARTS, (run.energy_pj.sum(axis=0) * 1e-12).tolist(), strict=True))
    return found, parts


def _pairs(values: DecodeSettings | SpeechStatistics) -> str:
    return ", ".join(f"{name}={value}" for name, value in asdict(values).items())
