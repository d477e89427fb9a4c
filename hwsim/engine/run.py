"""From a trace with formats to a timed and costed run: plan, cost, lower, schedule, account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from hwsim.arch import Architecture
from hwsim.cost.classes import operation_classes
from hwsim.cost.mapping import AnalogMapping, place
from hwsim.cost.operation import ClassCosts, class_costs
from hwsim.cost.transfer import gather_energy_pj
from hwsim.engine.critical import CriticalPath, critical_path
from hwsim.engine.fast import run_fast
from hwsim.engine.lower import Lowered, TaskKind, lower
from hwsim.engine.plan import Plan, make_plan
from hwsim.engine.stations import Stations, stations
from hwsim.engine.tasks import IntArray, Schedule
from hwsim.engine.tiles import MOST_TILES
from hwsim.errors import HwsimError
from hwsim.trace import Trace

Engine = Literal["fast", "event"]
FloatArray = npt.NDArray[np.float64]

CAUSES = ("compute", "analog", "scratchpad", "dram", "vector", "interconnect", "latency", "host", "link")
"""What time is spent on: MACs of the arrays; products on analog tiles; weights from the scratchpad to the arrays; DRAM;
the vector unit and gates beside tiles; the ring between cores; pipeline fill, drain, block swaps and memory latency;
control on the host; the link to the host."""


@dataclass(frozen=True)
class Run:
    """One trace on one machine. Per-operation arrays; energies in pJ."""

    trace: Trace
    plan: Plan
    costs: ClassCosts
    lowered: Lowered
    schedule: Schedule
    path: CriticalPath
    critical_cycles: FloatArray
    """`(operations, causes)`: time on the critical path by `CAUSES`; its sum is the length of the run."""
    energy_pj: FloatArray
    """`(operations, parts)` by `ENERGY_PARTS`; the sum is all energy of the run."""
    dram_bytes: IntArray
    mapping: AnalogMapping | None = None
    """What lies on analog tiles; None for a machine without."""
    stations: Stations | None = None


ENERGY_PARTS = ("mac", "analog", "vector", "scratchpad", "interconnect", "dram", "host", "link", "leakage")


def run_trace(arch: Architecture, trace: Trace, engine: Engine = "fast", *, most_tiles: int | None = MOST_TILES) -> Run:
    """Run a trace. `engine` is `fast` (compiled) or `event` (SimPy, the reference); they agree to the cycle.

    `most_tiles`: operations of more tiles are scheduled in groups of them; None for none, whatever that takes.
    Raises HwsimError for a format the machine cannot compute and CapacityError for a network that does not fit.
    """
    if engine not in ("fast", "event"):
        raise HwsimError(f"engine must be fast or event, got {engine!r}")
    mapping = place(arch, trace)
    plan = make_plan(arch, trace, mapping)
    costs = class_costs(arch, trace, plan.resident, mapping)
    own = stations(arch, trace, mapping, costs)
    lowered = lower(arch, trace, plan, costs, most_tiles, own)
    if engine == "fast":
        schedule = run_fast(lowered.graph)
    else:
        from hwsim.engine.event import run_event

        schedule = run_event(lowered.graph)
    path = critical_path(lowered.graph, schedule)
    critical = _critical_cycles(trace, costs, lowered, path)
    dram_bytes = lowered.weight_bytes + lowered.load_bytes + lowered.store_bytes
    energy = _energy(arch, trace, costs, lowered, dram_bytes, critical.sum(axis=1), own.programming_pj)
    return Run(trace, plan, costs, lowered, schedule, path, critical, energy, dram_bytes, mapping, own)


def _critical_cycles(trace: Trace, costs: ClassCosts, lowered: Lowered, path: CriticalPath) -> FloatArray:
    """Give each cycle of the critical path to an operation and a cause."""
    count, kinds = len(trace), len(TaskKind)
    code = lowered.operation[path.task] * kinds + lowered.kind[path.task]
    busy = np.bincount(code, path.busy, count * kinds).reshape(count, kinds)
    waited = np.bincount(code, path.latency, count * kinds).reshape(count, kinds)
    of = operation_classes(trace).of_operation
    cycles = np.maximum(costs.cycles[of], 1)
    overhead = costs.overhead_cycles[of] / cycles
    computing, vector = busy[:, TaskKind.COMPUTE], busy[:, TaskKind.VECTOR]
    over_link = waited[:, TaskKind.HOST] + waited[:, TaskKind.LINK]
    causes = {
        "analog": busy[:, TaskKind.ANALOG],
        "compute": computing * costs.stream_cycles[of] / cycles,
        "scratchpad": computing * costs.load_cycles[of] / cycles,
        "dram": busy[:, [TaskKind.WEIGHT_LOAD, TaskKind.ACTIVATION_LOAD, TaskKind.STORE]].sum(axis=1),
        "vector": vector * (1 - overhead),
        "interconnect": busy[:, TaskKind.EXCHANGE],
        "latency": (computing + vector) * overhead + waited.sum(axis=1) - over_link,
        "host": busy[:, TaskKind.HOST],
        "link": busy[:, TaskKind.LINK] + over_link,
    }
    return np.stack([causes[name] for name in CAUSES], axis=1)


def _energy(arch: Architecture, trace: Trace, costs: ClassCosts, lowered: Lowered, dram_bytes: IntArray,
            critical: FloatArray, programming_pj: FloatArray) -> FloatArray:  # fmt: skip
    """Energy of each operation by part; leakage follows the time that the run waited for the operation."""
    of = operation_classes(trace).of_operation
    sram = arch.memory.scratchpad.write_energy_pj_per_bit.value * arch.sram_energy_scale
    bits = 8.0 * dram_bytes
    leakage_pj_per_cycle = arch.leakage_power_w / arch.clock_hz * 1e12
    parts = {
        "mac": costs.mac_pj[of],
        "analog": costs.analog_pj[of] + programming_pj,
        "vector": costs.vector_pj[of],
        "scratchpad": costs.scratchpad_pj[of] + bits * sram,
        "interconnect": gather_energy_pj(arch, lowered.exchange_bytes),
        "dram": bits * arch.dram.energy_pj_per_bit.value,
        "host": costs.host_pj[of],
        "link": costs.link_pj[of],
        "leakage": critical * leakage_pj_per_cycle,
    }
    return np.stack([parts[name] for name in ENERGY_PARTS], axis=1)
