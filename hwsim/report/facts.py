"""What a report says beyond the fields of a result: formats in use, totals, where weights live."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwsim.arch import Architecture
from hwsim.cost.classes import first_operands, operand_formats, operation_classes
from hwsim.cost.operation import Unit
from hwsim.decode.rows import DecodeTotals
from hwsim.decode.search import speech_statistics
from hwsim.decode.statistics import schedule
from hwsim.numerics import PrecisionPolicy
from hwsim.numerics.formats import NumberFormat, mac_format
from hwsim.simulation import ComponentResult, Result
from hwsim.trace import Role

HIDDEN_SHARE = 0.005
"""A component below this share of the latency is hidden behind others; a ratio of what little shows says nothing."""
TOTAL = "total"


@dataclass(frozen=True)
class FormatUse:
    """Products of one format, and the format in which the machine computes them."""

    requested: str
    computed: str
    macs: int


def formats_in_use(result: Result) -> list[FormatUse]:
    """Formats of the matrix products of a run, most MACs first; products on analog tiles have none."""
    trace = result.run.trace
    classes = operation_classes(trace)
    macs = np.bincount(classes.of_operation, trace.macs, len(classes.kind)).astype(np.int64)
    found: dict[str, int] = {}
    digital = (result.run.costs.unit != Unit.TILES).tolist()
    for pair, count, computed in zip(operand_formats(trace), macs.tolist(), digital, strict=True):
        if pair and count and computed:
            name = mac_format(*pair)
            found[name] = found.get(name, 0) + count
    uses = [FormatUse(name, result.arch.compute_format(name), count) for name, count in found.items()]
    return sorted(uses, key=lambda use: -use.macs)


def fallback_notes(result: Result) -> list[str]:
    """`int8 runs as fp16 on rapid_4core` for each format that the machine does not compute itself."""
    machine = result.arch.name
    return [
        f"{use.requested} runs as {use.computed} on {machine}"
        for use in formats_in_use(result)
        if use.requested != use.computed
    ]


def policy_fallbacks(arch: Architecture, policy: PrecisionPolicy) -> list[str]:
    """The same for a policy, without a run: one note for each format of its default and its rules.

    Raises HwsimError for a format that the machine cannot compute.
    """
    layers = [policy.default, *(rule.over(policy.default) for _, rule in policy.rules)]
    formats = dict.fromkeys(mac_format(layer.weights, layer.activations) for layer in layers)
    computed = {name: arch.compute_format(name) for name in formats}
    return [f"{name} runs as {native} on {arch.name}" for name, native in computed.items() if name != native]


def decode_totals(result: Result) -> DecodeTotals:
    """Steps, rows and calls of the search."""
    plan = result.plan or schedule(result.settings, speech_statistics(result.workload, result.frames))
    return plan.totals()


def share(component: ComponentResult, result: Result) -> float:
    """Part of the latency that a component takes on the critical path."""
    return component.cycles / result.cycles if result.cycles else 0.0


def visible_speedup(name: str, result: Result, versus: Result) -> float | None:
    """Speed-up of a component, or of `TOTAL`; None when it is hidden behind others on either side."""
    for side in (result, versus):
        if name != TOTAL and (name not in side.components or share(side.components[name], side) < HIDDEN_SHARE):
            return None
    return result.speedup_over(versus).get(name)


def total(result: Result) -> ComponentResult:
    """All components as one: the bottom row of the component table. Causes come largest first."""
    run, parts = result.run, result.components.values()
    peak = run.costs.peak_macs_per_cycle[operation_classes(run.trace).of_operation]
    macs = sum(part.macs for part in parts)
    causes: dict[str, float] = {}
    for part in parts:
        for cause, cycles in part.cycles_by_cause.items():
            causes[cause] = causes.get(cause, 0.0) + cycles
    ordered = dict(sorted(causes.items(), key=lambda item: -item[1]))
    return ComponentResult(
        name=TOTAL,
        latency_s=result.latency_s,
        cycles=result.cycles,
        energy_j=result.energy_j,
        macs=macs,
        dram_bytes=sum(part.dram_bytes for part in parts),
        bound=next(iter(ordered)),
        cycles_by_cause=ordered,
        achieved_ops_per_s=2 * macs / result.latency_s if result.cycles else 0.0,
        utilization=float((run.trace.macs * (peak > 0) / np.maximum(peak, 1)).sum()) / max(result.cycles, 1),
        parameters=sum(part.parameters for part in parts),
        weight_bits=sum(part.weight_bits for part in parts),
        tile_weights=sum(part.tile_weights for part in parts),
    )


@dataclass(frozen=True)
class WeightHome:
    """Weights of one component: how large, and how they reach the arrays. Bytes are of one utterance."""

    component: str
    parameters: int
    stored_bits: int
    kept_bytes: int
    """Weight tensors that stay on chip over the steps of their loop, each as often as such a loop runs."""
    dram_bytes: int
    """Weights read from DRAM."""
    reads: float
    """How often that is, for the mean byte of the weights that products read (biases and look-up tables apart)."""
    tile_weights: int = 0
    """Those of the parameters that lie on analog tiles, which have no bits."""

    @property
    def digital_parameters(self) -> int:
        """Parameters that are stored as bits."""
        return self.parameters - self.tile_weights

    @property
    def stored_bytes(self) -> int:
        """Bytes of the weights and biases with scales and zero points."""
        return -(-self.stored_bits // 8)


def weight_homes(result: Result) -> list[WeightHome]:
    """Where the weights of each component with parameters live, in the order of the components."""
    run = result.run
    roles = {tensor.name: (tensor.role, tensor.component) for tensor in run.trace.tensors}
    kept: dict[str, int] = {}
    for placement in run.plan.placements:
        role, component = roles[placement.tensor]
        if role == Role.WEIGHT and placement.on_chip:
            kept[component] = kept.get(component, 0) + placement.size_bytes
    streamed = _weight_reads(result)
    return [
        WeightHome(name, part.parameters, part.weight_bits, kept.get(name, 0), *streamed.get(name, (0, 0.0)),
                   part.tile_weights)
        for name, part in result.components.items()
        if part.parameters
    ]  # fmt: skip


def _weight_reads(result: Result) -> dict[str, tuple[int, float]]:
    """DRAM reads, bytes and times, by the component that owns the weights.

    A hoisted projection runs under another component's name.
    """
    run = result.run
    trace = run.trace
    weight = first_operands(trace)[0]
    on_tiles = run.mapping.tensors if run.mapping else []
    found: dict[str, tuple[int, int, int]] = {}
    for index in np.unique(weight[weight >= 0]).tolist():
        tensor, users = trace.tensors[index], weight == index
        moved = int(run.lowered.weight_bytes[users].sum())
        is_matrix = bool(trace.macs[users].any()) and index not in on_tiles
        size = -(-NumberFormat.parse(tensor.format).stored_bits(tensor.shape).total // 8) if is_matrix else 0
        all_bytes, matrix_bytes, sizes = found.get(tensor.component, (0, 0, 0))
        found[tensor.component] = (all_bytes + moved, matrix_bytes + moved * is_matrix, sizes + size)
    return {name: (moved, matrix / size if size else 0.0) for name, (moved, matrix, size) in found.items()}


@dataclass(frozen=True)
class Spilled:
    """Tensors that would have saved DRAM traffic on chip but found no room."""

    tensors: Sequence[str]
    size_bytes: int
    traffic_bytes: int


def spilled(result: Result) -> Spilled:
    """What the plan sent to DRAM for lack of room, largest saving first."""
    lost = [placement for placement in result.run.plan.placements if not placement.on_chip]
    lost.sort(key=lambda placement: -placement.traffic_saved_bytes)
    names = list(dict.fromkeys(placement.tensor for placement in lost))
    sizes, traffic = ([getattr(p, name) for p in lost] for name in ("size_bytes", "traffic_saved_bytes"))
    return Spilled(names, sum(sizes), sum(traffic))
