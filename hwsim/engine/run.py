"""From a trace with formats to a timed and costed run: plan, cost, lower, schedule, account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from hwsim.arch import Architecture
from hwsim.cost.classes import operation_classes
from hwsim.cost.operation import ClassCosts, class_costs
from hwsim.cost.transfer import gather_energy_pj
from hwsim.engine.critical import CriticalPath, critical_path
from hwsim.engine.fast import run_fast
from hwsim.engine.lower import Lowered, TaskKind, lower
from hwsim.engine.plan import Plan, make_plan
from hwsim.engine.tasks import IntArray, Schedule
from hwsim.errors import HwsimError
from hwsim.trace import Trace

Engine = Literal["fast", "event"]
FloatArray = npt.NDArray[np.float64]

CAUSES = ("compute", "scratchpad", "dram", "vector", "interconnect", "latency", "host", "link")
"""What time is spent on: MACs; weights from the scratchpad to the arrays; DRAM; the vector unit; the ring between
cores; pipeline fill, drain, block swaps and memory latency; control on the host; the link to the host."""


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


ENERGY_PARTS = ("mac", "vector", "scratchpad", "interconnect", "dram", "host", "link", "leakage")


def run_trace(arch: Architecture, trace: Trace, engine: Engine = "fast") -> Run:
    """Run a trace. `engine` is `fast` (compiled) or `event` (SimPy, the reference); they agree to the cycle.

    Raises HwsimError for a format the machine cannot compute and CapacityError for a network that does not fit.
    """
    if engine not in ("fast", "event"):
        raise HwsimError(f"engine must be fast or event, got {engine!r}")
    plan = make_plan(arch, trace)
    costs = class_costs(arch, trace, plan.resident)
    lowered = lower(arch, trace, plan, costs)
    lowered.graph.validate()
    if engine == "fast":
        schedule = run_fast(lowered.graph)
    else:
        from hwsim.engine.event import run_event

        schedule = run_event(lowered.graph)
    path = critical_path(lowered.graph, schedule)
    critical = _critical_cycles(trace, costs, lowered, path)
    dram_bytes = lowered.weight_bytes + lowered.load_bytes + lowered.store_bytes
    energy = _energy(arch, trace, costs, lowered, dram_bytes, critical.sum(axis=1))
    return Run(trace, plan, costs, lowered, schedule, path, critical, energy, dram_bytes)


def _critical_cycles(trace: Trace, costs: ClassCosts, lowered: Lowered, path: CriticalPath) -> FloatArray:
    """Give each cycle of the critical path to an operation and a cause."""
    operation, kind = lowered.operation[path.task], lowered.kind[path.task]
    klass = operation_classes(trace).of_operation[operation]
    cycles = np.maximum(costs.cycles[klass], 1)
    cause = {name: i for i, name in enumerate(CAUSES)}
    shares = np.zeros((len(operation), len(CAUSES)))
    computing, vector = kind == TaskKind.COMPUTE, kind == TaskKind.VECTOR
    shares[:, cause["compute"]] = np.where(computing, costs.stream_cycles[klass] / cycles, 0)
    shares[:, cause["scratchpad"]] = np.where(computing, costs.load_cycles[klass] / cycles, 0)
    overhead = costs.overhead_cycles[klass] / cycles
    shares[:, cause["latency"]] = np.where(computing | vector, overhead, 0)
    shares[:, cause["vector"]] = np.where(vector, 1 - overhead, 0)
    moves = np.isin(kind, (TaskKind.WEIGHT_LOAD, TaskKind.ACTIVATION_LOAD, TaskKind.STORE))
    for chosen, name in ((moves, "dram"), (kind == TaskKind.EXCHANGE, "interconnect"), (kind == TaskKind.HOST, "host"),
                         (kind == TaskKind.LINK, "link")):  # fmt: skip
        shares[:, cause[name]] = chosen
    spent = shares * path.busy[:, None]
    over_link = np.isin(kind, (TaskKind.HOST, TaskKind.LINK))
    spent[:, cause["link"]] += np.where(over_link, path.latency, 0)
    spent[:, cause["latency"]] += np.where(over_link, 0, path.latency)
    total = np.zeros((len(trace), len(CAUSES)))
    np.add.at(total, operation, spent)
    return total


def _energy(arch: Architecture, trace: Trace, costs: ClassCosts, lowered: Lowered, dram_bytes: IntArray,
            critical: FloatArray) -> FloatArray:  # fmt: skip
    """Energy of each operation by part; leakage follows the time that the run waited for the operation."""
    of = operation_classes(trace).of_operation
    sram = arch.memory.scratchpad.write_energy_pj_per_bit.value * arch.sram_energy_scale
    bits = 8.0 * dram_bytes
    leakage_pj_per_cycle = arch.leakage_power_w / arch.clock_hz * 1e12
    parts = {
        "mac": costs.mac_pj[of],
        "vector": costs.vector_pj[of],
        "scratchpad": costs.scratchpad_pj[of] + bits * sram,
        "interconnect": gather_energy_pj(arch, lowered.exchange_bytes),
        "dram": bits * arch.dram.energy_pj_per_bit.value,
        "host": costs.host_pj[of],
        "link": costs.link_pj[of],
        "leakage": critical * leakage_pj_per_cycle,
    }
    return np.stack([parts[name] for name in ENERGY_PARTS], axis=1)
