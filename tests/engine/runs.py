"""Random traces on random machines, and an account of their traffic in plain Python."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from hypothesis import assume
from hypothesis import strategies as st

from hwsim.arch import Architecture
from hwsim.engine import Run, run_trace
from hwsim.engine.structure import structure
from hwsim.errors import CapacityError
from hwsim.numerics import NumberFormat, load_policy
from hwsim.trace import Kind, Role, Trace
from tests.engine.machines import machines
from tests.trace.strategies import traces

PRECISIONS = ("int4", "int8", "fp16", "int4/channel")
MOST_TASKS = 3000


@st.composite
def precise_traces(draw: st.DrawFn) -> Trace:
    """A random trace in a random precision."""
    return draw(traces()).with_precision(load_policy(draw(st.sampled_from(PRECISIONS))))


def run_if_it_fits(arch: Architecture, trace: Trace) -> Run:
    """The run; an example whose tensors do not fit the machine is dropped."""
    try:
        run = run_trace(arch, trace)
    except CapacityError:
        assume(False)
    assume(len(run.lowered.graph) <= MOST_TASKS)
    return run


class Found(NamedTuple):
    """A machine and a random trace that it has run."""

    arch: Architecture
    run: Run

    def __repr__(self) -> str:
        return f"{machine_text(self.arch)}\n{trace_text(self.run.trace)}"


@st.composite
def runs(draw: st.DrawFn, on: st.SearchStrategy[Architecture] | None = None) -> Found:
    """A random machine, or one of `on`, and a random trace that it has run."""
    arch = draw(machines() if on is None else on)
    return Found(arch, run_if_it_fits(arch, draw(precise_traces())))


def machine_text(arch: Architecture) -> str:
    """The numbers of a machine that the tests change, for people to read."""
    memory, dram, host = arch.memory, arch.dram, arch.host
    shown = {
        "cores": arch.cores.value, "bytes": memory.scratchpad.capacity_bytes.value, "scope": memory.scratchpad.scope,
        "rings": (memory.stream_buffer_fraction.value, memory.activation_fraction.value),
        "residency": memory.weight_residency, "dram": (dram.bandwidth_bytes_per_s.value, dram.efficiency.value),
        "burst": dram.burst_bytes.value, "latency_s": dram.latency_s.value, "persistent": host.persistent_kernel,
        "state": host.state_cache,
    }  # fmt: skip
    return f"{arch.name} {shown}"


def trace_text(trace: Trace) -> str:
    """One line per operation."""
    lines = []
    for op in range(len(trace)):
        touched = [("w:" if write else "") + f"{trace.tensors[t].name}={elements}"
                   for t, elements, write in operands(trace, op)]  # fmt: skip
        sizes = [int(trace.columns[name][op]) for name in ("m", "k", "n", "batch", "loop", "iteration")]
        lines.append(f"  {op}: {Kind(trace.kind[op]).name} {sizes} {' '.join(touched)}")
    return "\n".join(lines)


@dataclass(frozen=True)
class Traffic:
    """DRAM bytes of each operation, counted one operand after another."""

    streamed: list[int]
    resident: list[int]
    loaded: list[int]
    stored: list[int]


def operands(trace: Trace, op: int) -> list[tuple[int, int, bool]]:
    """(tensor, elements, is written) of everything that an operation touches."""
    entries = range(trace.operand_ptr[op], trace.operand_ptr[op + 1])
    columns = (trace.operand_tensor, trace.operand_elements, trace.operand_write)
    found = [tuple(int(column[entry]) for column in columns) for entry in entries]
    return [(tensor, elements, bool(write)) for tensor, elements, write in found if elements]


def account(trace: Trace, run: Run) -> Traffic:
    """What the decisions of a plan mean for the traffic of each operation, before any operand is read twice."""
    segment = structure(trace).segment
    index = {tensor.name: i for i, tensor in enumerate(trace.tensors)}
    until = {(index[p.tensor], p.segments[1]): p.on_chip for p in run.plan.placements}
    weight = [t.role == Role.WEIGHT for t in trace.tensors]
    touched: dict[int, list[int]] = {}
    written_in: dict[int, list[int]] = {}
    for op in range(len(trace)):
        for tensor, _, write in operands(trace, op):
            touched.setdefault(tensor, []).append(int(segment[op]))
            if write:
                written_in.setdefault(tensor, []).append(int(segment[op]))
    traffic = Traffic(*([0] * len(trace) for _ in range(4)))
    brought: set[tuple[int, int]] = set()
    fresh: set[tuple[int, int]] = set()
    for op in range(len(trace)):
        here = int(segment[op])
        seen = operands(trace, op)
        for tensor, elements, write in seen:
            info = trace.tensors[tensor]
            fmt = NumberFormat.parse(info.format)
            part, whole = -(-elements * fmt.code_bits // 8), -(-fmt.stored_bits(info.shape).total // 8)
            if weight[tensor]:
                if until.get((tensor, here)):
                    traffic.resident[op] += 0 if (tensor, here) in brought else whole
                    brought.add((tensor, here))
                else:
                    traffic.streamed[op] += part if trace.kind[op] == Kind.LOOKUP else whole
                continue
            if info.role == Role.BIAS:
                continue
            span = (touched[tensor][0], touched[tensor][-1])
            inside = span[0] == span[1] and tensor in written_in
            if inside or until.get((tensor, span[1])):
                continue
            if write:
                traffic.stored[op] += part
            elif (tensor, here) not in fresh and _comes_from_elsewhere(here, written_in.get(tensor, [])):
                traffic.loaded[op] += part
        fresh |= {(tensor, here) for tensor, _, write in seen if write}
    return traffic


def _comes_from_elsewhere(here: int, written_in: list[int]) -> bool:
    """Whether a segment reads what an earlier one wrote, or what none in the trace but a later one writes."""
    return here not in written_in or written_in[0] < here
