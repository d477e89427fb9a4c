"""Where tensors live: which weights stay on chip across recurrent steps, and which activations never leave it.

Every tensor that could stay on chip has a lifetime in segments and saves DRAM traffic per byte that it holds:
weights of a loop save one read for every step but the first, activations a write and their reads. Tensors are
placed in the order of that saving, as long as the scratchpads of their cores have room in all their segments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwsim.arch import Architecture
from hwsim.cost.mapping import AnalogMapping
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
    """`(operations, 2)`: one of each branch that must end before those may be loaded, or -1."""
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
    starts: tuple[int, ...]
    """Segments from which it may live, the best first: a weight may be loaded before its loop begins."""
    last: int
    saved_bytes: int
    weight_pair: int

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


def make_plan(arch: Architecture, trace: Trace, mapping: AnalogMapping | None = None) -> Plan:
    """Plan the DRAM traffic of a trace; what `mapping` puts on analog tiles has none.

    Raises CapacityError when the tensors of one segment do not fit.
    """
    s = structure(trace)
    sizes = np.array([-(-NumberFormat.parse(t.format).stored_bits(t.shape).total // 8) for t in trace.tensors])
    if mapping is not None:
        sizes[mapping.tensors] = 0
    rings = ring_bytes_per_core(arch)
    if min(rings) < arch.dram.burst_bytes.value:
        raise CapacityError(
            f"ring buffers of {arch.name} must hold a DRAM burst of {arch.dram.burst_bytes.value} bytes per core,"
            f" got {min(rings)}; raise memory.scratchpad.capacity_bytes or the fractions of it"
        )
    room = scratchpad_bytes_per_core(arch) - sum(rings)
    inside = (s.first_segment >= 0) & (s.first_segment == s.last_segment) & (s.writes > 0)
    used = _working_set(arch, trace, s, sizes, np.flatnonzero(inside), room)
    kept, kept_weights = inside.copy(), np.full(len(s.pair_tensor), -1, dtype=np.int64)
    placements = []
    for candidate in sorted(_candidates(arch, trace, s, sizes), key=_order):
        start = _place(candidate, used, room)
        if start >= 0 and candidate.weight_pair >= 0:
            kept_weights[candidate.weight_pair] = start
        elif start >= 0:
            kept[candidate.tensor] = True
        span = (start if start >= 0 else candidate.starts[-1], candidate.last)
        name, cores = trace.tensors[candidate.tensor].name, len(candidate.cores)
        placements.append(Placement(name, candidate.size_bytes, cores, span, start >= 0, candidate.saved_bytes))
    _prefetch(arch, s, sizes, kept_weights, used, room)
    peak = int(used.max(initial=0)) + sum(rings)
    return _traffic(trace, s, sizes, kept_weights, kept, tuple(placements), peak)


def _place(candidate: _Candidate, used: IntArray, room: int) -> int:
    """Take room for a candidate from the first of its starts that leaves enough; return it, or -1."""
    cores = slice(candidate.cores.start, candidate.cores.stop)
    for start in candidate.starts:
        area = used[start : candidate.last + 1, cores]
        if area.max() + candidate.bytes_per_core <= room:
            area += candidate.bytes_per_core
            return start
    return -1


def _prefetch(arch: Architecture, s: Structure, sizes: IntArray, kept_weights: IntArray, used: IntArray,
              room: int) -> None:  # fmt: skip
    """Let weights that are loaded after the loop before theirs be loaded during it, where that has room left."""
    for pair in np.flatnonzero(kept_weights > 0):
        tensor, before = int(s.pair_tensor[pair]), int(kept_weights[pair]) - 1
        group = core_group(arch, bool(s.tensor_halved[tensor]), int(s.branch[tensor]))
        share = -(-int(sizes[tensor]) // len(group))
        area = used[before, group.start : group.stop]
        if area.max() + share <= room and s.segment_is_loop[before]:
            area += share
            kept_weights[pair] = before


def _working_set(arch: Architecture, trace: Trace, s: Structure, sizes: IntArray, inside: IntArray,
                 room: int) -> IntArray:  # fmt: skip
    """Most bytes per core, `(segments, cores)`, of the tensors that only one segment touches.

    They live from their first to their last operation in an iteration. Raises CapacityError when they do not fit.
    """
    used = np.zeros((s.segments, arch.cores.value), dtype=np.int64)
    share = np.zeros((len(inside), arch.cores.value), dtype=np.int64)
    for i, tensor in enumerate(inside):
        group = core_group(arch, bool(s.tensor_halved[tensor]), int(s.branch[tensor]))
        share[i, group.start : group.stop] = -(-sizes[tensor] // len(group))
    first, last = s.first_operation[inside], s.last_operation[inside]
    live = (first[None, :] <= first[:, None]) & (first[:, None] <= last[None, :])
    live &= s.first_segment[inside][None, :] == s.first_segment[inside][:, None]
    need = live.astype(np.int64) @ share
    np.maximum.at(used, s.first_segment[inside], need)
    if len(inside) and need.max() > room:
        worst = int(np.argmax(need.max(axis=1)))
        raise CapacityError(_shortage(arch, trace, s, int(inside[worst]), int(need[worst].max()), room))
    return used


def _order(candidate: _Candidate) -> tuple[float, int]:
    return (-candidate.saved_bytes / max(candidate.size_bytes, 1), candidate.tensor)


def _candidates(arch: Architecture, trace: Trace, s: Structure, sizes: IntArray) -> list[_Candidate]:
    found = []
    if arch.memory.weight_residency:
        launched = s.launch[s.pair_first] >= 0
        _, of_pair, read = _weight_reads(trace, s, sizes)
        saved_bytes = -sizes[s.pair_tensor]
        np.add.at(saved_bytes, of_pair, read)
        for pair in np.flatnonzero((saved_bytes > 0) & (arch.host.persistent_kernel | ~launched)):
            tensor, segment = int(s.pair_tensor[pair]), int(s.pair_segment[pair])
            group = core_group(arch, bool(s.tensor_halved[tensor]), int(s.branch[tensor]))
            saved = int(saved_bytes[pair])
            before = s.pair_segment[(s.pair_uses > 1) & (s.pair_segment < segment)]
            loop_before = int(before.max(initial=-1))
            starts = tuple(dict.fromkeys((loop_before + 1, segment)))
            found.append(_Candidate(tensor, int(sizes[tensor]), group, starts, segment, saved, int(pair)))
    for tensor, info in enumerate(trace.tensors):
        first, last = int(s.first_segment[tensor]), int(s.last_segment[tensor])
        if info.role in (Role.WEIGHT, Role.BIAS) or s.writes[tensor] == 0 or first == last:
            continue
        group = core_group(arch, bool(s.tensor_halved[tensor]), int(s.branch[tensor]))
        saved = int((s.writes[tensor] + s.reads[tensor]) * sizes[tensor])
        found.append(_Candidate(tensor, int(sizes[tensor]), group, (first,), last, saved, -1))
    return found


def _code_bits(trace: Trace) -> IntArray:
    return np.array([NumberFormat.parse(t.format).code_bits for t in trace.tensors], dtype=np.int64)


def _weight_reads(trace: Trace, s: Structure, sizes: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Operations that read a weight, the (segment, weight) pair of each, and the bytes that it streams.

    A look-up streams the rows that it reads, every other operation the whole tensor.
    """
    tensors = len(trace.tensors)
    reader = np.flatnonzero((s.weight >= 0) & (trace.columns["m"] > 0))
    weight = s.weight[reader]
    pair = np.searchsorted(s.pair_segment * tensors + s.pair_tensor, s.segment[reader] * tensors + weight)
    looked_up = -(-(s.weight_elements[reader] * _code_bits(trace)[weight]) // 8)
    looked_up = np.where(sizes[weight] > 0, looked_up, 0)
    return reader, pair, np.where(trace.columns["kind"][reader] == Kind.LOOKUP, looked_up, sizes[weight])


def _last_of_branches(trace: Trace, s: Structure, segment: IntArray) -> IntArray:
    """`(segments, 2)`: the last operation of each branch in each segment, or -1."""
    end = np.searchsorted(s.segment, segment, side="right") - 1
    second = trace.columns["branch"] > 0
    last = [np.maximum.accumulate(np.where(chosen, np.arange(len(trace)), -1))[end] for chosen in (~second, second)]
    found = np.stack(last, axis=1)
    return np.where((found >= 0) & (s.segment[found] == segment[:, None]), found, -1)


def _traffic(trace: Trace, s: Structure, sizes: IntArray, kept_weights: IntArray, kept: npt.NDArray[np.bool_],
             placements: tuple[Placement, ...], peak: int) -> Plan:  # fmt: skip
    """Bytes per operation; `kept_weights` is the segment from which each (segment, weight) pair is kept, or -1."""
    count, tensors = len(trace), len(trace.tensors)
    reader, pair, read = _weight_reads(trace, s, sizes)
    bits = _code_bits(trace)
    stream = np.zeros(count, dtype=np.int64)
    stream[reader] = np.where(kept_weights[pair] >= 0, 0, read)
    resident_bytes, resident_wait = np.zeros(count, dtype=np.int64), np.full((count, 2), -1, dtype=np.int64)
    pairs = np.flatnonzero(kept_weights >= 0)
    resident_bytes[s.pair_first[pairs]] = sizes[s.pair_tensor[pairs]]
    resident_wait[s.pair_first[pairs]] = _last_of_branches(trace, s, kept_weights[pairs] - 1)
    resident = np.zeros(tensors, dtype=np.int64)
    resident[s.pair_tensor[pairs]] = 1
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


def _shortage(arch: Architecture, trace: Trace, s: Structure, tensor: int, need: int, room: int) -> str:
    layer = trace.tensors[tensor].layer
    rings = (arch.memory.stream_buffer_fraction.value, arch.memory.activation_fraction.value)
    wanted = int(need / (1 - sum(rings)))
    while wanted - sum(int(wanted * part) for part in rings) < need:
        wanted += 1
    wanted *= arch.cores.value if arch.memory.scratchpad.scope == "shared" else 1
    return (
        f"{trace.name} does not fit {arch.name}: the working tensors at {layer} need {need} bytes per core, the"
        f" scratchpad has {room} beside its ring buffers, {need - room} short; it would fit with"
        f" memory.scratchpad.capacity_bytes of {wanted}, or with a smaller beam"
    )
