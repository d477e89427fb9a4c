"""Where tensors live: which weights stay on chip across recurrent steps, and which activations never leave it.

Every tensor that could stay on chip has a lifetime in segments and saves DRAM traffic per byte that it holds:
weights of a loop save one read for every step but the first, activations a write and their reads. Tensors are
placed in the order of that saving, as long as the scratchpads of their cores have room in all their segments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwsim.arch import Architecture
from hwsim.engine.structure import IntArray, Structure, structure
from hwsim.errors import CapacityError
from hwsim.numerics.formats import NumberFormat
from hwsim.trace import Kind, Role, Trace


@dataclass(frozen=True, slots=True)
class Placement:
    """One decision of the plan, for people to read."""

    tensor: str
    size_bytes: int
    cores: int
    segments: tuple[int, int]
    on_chip: bool
    traffic_saved_bytes: int
    """DRAM bytes that staying on chip saves, or would have saved."""


@dataclass(frozen=True)
class Plan:
    """Bytes that each operation moves from and to DRAM, and what was decided to get there."""

    resident: IntArray
    """1 for each weight tensor that stays on chip in some segment."""
    stream_bytes: IntArray
    """Weights streamed by each operation through the ring buffer."""
    resident_bytes: IntArray
    """Weights that each operation brings to the chip to stay there."""
    resident_wait: IntArray
    """Operation that must end before those may be loaded, or -1."""
    load_bytes: IntArray
    """Activations that each operation reads from DRAM."""
    store_bytes: IntArray
    """Activations that each operation writes to DRAM."""
    placements: tuple[Placement, ...]
    peak_bytes_per_core: int
    """Largest use of one core's scratchpad, with its ring buffers."""


@dataclass(slots=True)
class _Candidate:
    tensor: int
    size_bytes: int
    cores: range
    first: int
    last: int
    saved_bytes: int
    weight_pair: int
    forced: bool

    @property
    def bytes_per_core(self) -> int:
        return -(-self.size_bytes // len(self.cores))


def scratchpad_bytes_per_core(arch: Architecture) -> int:
    """Scratchpad of one core; a shared one is divided equally."""
    return arch.scratchpad_bytes // arch.cores.value


def ring_bytes_per_core(arch: Architecture) -> tuple[int, int]:
    """Ring buffers of one core: for streamed weights, and for activations from DRAM."""
    size = scratchpad_bytes_per_core(arch)
    memory = arch.memory
    return int(size * memory.stream_buffer_fraction.value), int(size * memory.activation_fraction.value)


def core_group(arch: Architecture, halved: bool, branch: int) -> range:
    """Cores that work on an operation: all, or one half for each of two directions."""
    cores = arch.cores.value
    if not halved or cores < 2:
        return range(cores)
    half = cores // 2
    return range(half) if branch == 0 else range(half, 2 * half)


def make_plan(arch: Architecture, trace: Trace) -> Plan:
    """Plan the DRAM traffic of a trace. Raises CapacityError when the tensors of one segment do not fit."""
    s = structure(trace)
    sizes = np.array([-(-NumberFormat.parse(t.format).stored_bits(t.shape).total // 8) for t in trace.tensors])
    room = scratchpad_bytes_per_core(arch) - sum(ring_bytes_per_core(arch))
    used = np.zeros((s.segments, arch.cores.value), dtype=np.int64)
    kept_weights = np.zeros(len(s.pair_tensor), dtype=bool)
    kept = np.zeros(len(trace.tensors), dtype=bool)
    placements = []
    for candidate in sorted(_candidates(arch, trace, s, sizes), key=_order):
        cores = slice(candidate.cores.start, candidate.cores.stop)
        area = used[candidate.first : candidate.last + 1, cores]
        fits = bool(area.max() + candidate.bytes_per_core <= room)
        if candidate.forced and not fits:
            raise CapacityError(_shortage(arch, trace, candidate, room, int(area.max())))
        if fits:
            area += candidate.bytes_per_core
            if candidate.weight_pair >= 0:
                kept_weights[candidate.weight_pair] = True
            else:
                kept[candidate.tensor] = True
        if not candidate.forced:
            span = (candidate.first, candidate.last)
            name = trace.tensors[candidate.tensor].name
            placements.append(Placement(name, candidate.size_bytes, len(candidate.cores), span, fits,
                                        candidate.saved_bytes))  # fmt: skip
    peak = int(used.max(initial=0)) + sum(ring_bytes_per_core(arch))
    return _traffic(trace, s, sizes, kept_weights, kept, used, room, tuple(placements), peak)


def _order(candidate: _Candidate) -> tuple[bool, float, int]:
    return (not candidate.forced, -candidate.saved_bytes / max(candidate.size_bytes, 1), candidate.tensor)


def _candidates(arch: Architecture, trace: Trace, s: Structure, sizes: IntArray) -> list[_Candidate]:
    found = []
    if arch.memory.weight_residency:
        launched = s.launch[s.pair_first] >= 0
        for pair in np.flatnonzero((s.pair_uses > 1) & (arch.host.persistent_kernel | ~launched)):
            tensor, segment = int(s.pair_tensor[pair]), int(s.pair_segment[pair])
            group = core_group(arch, bool(s.tensor_halved[tensor]), int(s.branch[tensor]))
            saved = int((s.pair_uses[pair] - 1) * sizes[tensor])
            found.append(_Candidate(tensor, int(sizes[tensor]), group, segment, segment, saved, int(pair), False))
    for tensor, info in enumerate(trace.tensors):
        if info.role in (Role.WEIGHT, Role.BIAS) or s.first_segment[tensor] < 0 or s.writes[tensor] == 0:
            continue
        first, last = int(s.first_segment[tensor]), int(s.last_segment[tensor])
        group = core_group(arch, bool(s.tensor_halved[tensor]), int(s.branch[tensor]))
        saved = int((s.writes[tensor] + s.reads[tensor]) * sizes[tensor])
        found.append(_Candidate(tensor, int(sizes[tensor]), group, first, last, saved, -1, first == last))
    return found


def _traffic(trace: Trace, s: Structure, sizes: IntArray, kept_weights: np.ndarray, kept: np.ndarray, used: IntArray,
             room: int, placements: tuple[Placement, ...], peak: int) -> Plan:  # fmt: skip
    count, tensors = len(trace), len(trace.tensors)
    live = np.flatnonzero((s.weight >= 0) & (trace.columns["m"] > 0))
    pair = np.searchsorted(s.pair_segment * tensors + s.pair_tensor, s.segment[live] * tensors + s.weight[live])
    bits = np.array([NumberFormat.parse(t.format).code_bits for t in trace.tensors], dtype=np.int64)
    stream = np.zeros(count, dtype=np.int64)
    looked_up = -(-(s.weight_elements[live] * bits[s.weight[live]]) // 8)
    read = np.where(trace.columns["kind"][live] == Kind.LOOKUP, looked_up, sizes[s.weight[live]])
    stream[live] = np.where(kept_weights[pair], 0, read)
    resident_bytes, resident_wait = np.zeros(count, dtype=np.int64), np.full(count, -1, dtype=np.int64)
    for i in np.flatnonzero(kept_weights):
        first = s.pair_first[i]
        resident_bytes[first] += sizes[s.pair_tensor[i]]
        resident_wait[first] = _previous_end(s, int(s.pair_segment[i]), kept_weights, used, room)
    resident = np.zeros(tensors, dtype=np.int64)
    resident[s.pair_tensor[kept_weights]] = 1
    load, store = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    for entry, owner, total in (
        (s.outside_entry, s.outside_owner, load),
        (s.written_entry, s.written_owner, store),
    ):
        tensor = trace.operand_tensor[entry]
        spilled = ~kept[tensor]
        moved = -(-(trace.operand_elements[entry] * bits[tensor]) // 8)
        np.add.at(total, owner[spilled], moved[spilled])
    return Plan(resident, stream, resident_bytes, resident_wait, load, store, placements, peak)


def _previous_end(s: Structure, segment: int, kept_weights: np.ndarray, used: IntArray, room: int) -> int:
    """The operation whose end frees the room that a segment's weights need; -1 when both fit at once."""
    before = s.pair_segment[kept_weights]
    before = before[before < segment]
    if len(before) == 0 or bool(np.all(used[int(before[-1])] + used[segment] <= room)):
        return -1
    return int(np.searchsorted(s.segment, int(before[-1]), side="right")) - 1


def passes(plan: Plan, stream_ring: IntArray, load_ring: IntArray) -> tuple[IntArray, IntArray]:
    """DRAM bytes of weights and of activations per operation when neither fits its ring buffer.

    One operand is then read once and the other once per tile of the first, whichever moves less:
    min(w + a ceil(w / ring_w), a + w ceil(a / ring_a)). `stream_ring` and `load_ring` are bytes per operation.
    """
    w, a = plan.stream_bytes, plan.load_bytes
    both = (w > stream_ring) & (a > load_ring)
    weights_once = a * -(-w // np.maximum(stream_ring, 1))
    activations_once = w * -(-a // np.maximum(load_ring, 1))
    keep_weights = w + weights_once <= a + activations_once
    return np.where(both & ~keep_weights, activations_once, w), np.where(both & keep_weights, weights_once, a)


def _shortage(arch: Architecture, trace: Trace, candidate: _Candidate, room: int, used_bytes: int) -> str:
    name = trace.tensors[candidate.tensor].name
    need = candidate.bytes_per_core + used_bytes
    per_core = scratchpad_bytes_per_core(arch)
    wanted = -(-need * per_core // max(room, 1)) if room > 0 else need
    scale = arch.cores.value if arch.memory.scratchpad.scope == "shared" else 1
    return (
        f"{trace.name} does not fit {arch.name}: the working tensors of one step need {need} bytes per core"
        f" with {name}, the scratchpad has {room} beside its ring buffers, {need - room} short;"
        f" memory.scratchpad.capacity_bytes of {wanted * scale} would hold them, or fewer hypotheses"
    )
