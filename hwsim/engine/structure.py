"""What the shapes of a trace decide, whatever the formats and the machine: segments, uses and lifetimes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwsim.cost.classes import first_operands, halved_layers
from hwsim.trace import Kind, Role, Trace
from hwsim.trace.table import MAC_KINDS

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Structure:
    """Segments are the recurrent loops of a trace and the single operations between them, in program order."""

    segments: int
    segment: IntArray
    """Segment of each operation."""
    segment_is_loop: npt.NDArray[np.bool_]
    halved: IntArray
    """1 for each operation whose layer has two branches."""
    launch: IntArray
    """LAUNCH operation of the same loop that starts each operation, or -1."""
    weight: IntArray
    """Weight tensor that each operation reads, or -1."""
    weight_elements: IntArray
    """Elements of it that the operation reads."""
    gathered: IntArray
    """Entries of the operand list that write a tensor which some matrix product contracts."""
    gathered_owner: IntArray
    pair_segment: IntArray
    """Every (segment, weight tensor) that occurs, in that order, as columns: its segment, ..."""
    pair_tensor: IntArray
    pair_uses: IntArray
    """Operations of the segment that read the weight."""
    pair_first: IntArray
    """First of them."""
    reads: IntArray
    """Segments that read a tensor which they do not write, or write only later, per tensor."""
    writes: IntArray
    """Segments that write a tensor, per tensor."""
    first_segment: IntArray
    """First segment that touches a tensor; -1 for one that no operation touches."""
    last_segment: IntArray
    first_operation: IntArray
    """First operation that touches a tensor, within the first iteration of a loop; -1 for none."""
    last_operation: IntArray
    """Last one in that iteration; the iteration's last operation for a tensor that the next iteration reads."""
    branch: IntArray
    """Branch of a tensor's first operation."""
    tensor_halved: IntArray
    """1 for a tensor that only halved layers touch."""
    outside_owner: IntArray
    """Operand entries that read what another segment has written: owner operation ..."""
    outside_entry: IntArray
    """... and index into the operand list."""
    written_entry: IntArray
    """Operand entries that write: index into the operand list, and the owner operation."""
    written_owner: IntArray


def structure(trace: Trace) -> Structure:
    """Analyse a trace; computed once per trace structure and shared by all its precisions."""
    cached: Structure | None = trace.structure.get("segments")
    if cached is None:
        cached = trace.structure["segments"] = _analyse(trace)
    return cached


def _analyse(trace: Trace) -> Structure:
    c = trace.columns
    loop = c["loop"]
    starts = np.ones(len(trace), dtype=bool)
    starts[1:] = (loop[1:] != loop[:-1]) | (loop[1:] < 0)
    segment = np.cumsum(starts) - 1
    owner = np.repeat(np.arange(len(trace)), np.diff(trace.operand_ptr))
    tensors = len(trace.tensors)
    live = trace.operand_elements > 0
    role = np.array([t.role for t in trace.tensors])[trace.operand_tensor]
    stationary = (role == Role.WEIGHT) | (role == Role.BIAS)
    write = trace.operand_write == 1
    code = segment[owner] * tensors + trace.operand_tensor
    weights = np.flatnonzero(live & (role == Role.WEIGHT))
    weight_elements = np.zeros(len(trace), dtype=np.int64)
    weight_elements[owner[weights]] = trace.operand_elements[weights]
    multiplied = live & np.isin(c["kind"][owner], MAC_KINDS) & ~write & ~stationary
    contracted = np.zeros(tensors, dtype=bool)
    contracted[trace.operand_tensor[multiplied]] = True
    gathered = np.flatnonzero(live & write & contracted[trace.operand_tensor])
    pairs, first, uses = np.unique(code[weights], return_index=True, return_counts=True)
    written_codes, first_write = np.unique(code[live & write], return_index=True)
    from_outside = live & ~write & ~stationary
    from_outside &= _written_elsewhere(code, tensors, owner, written_codes, owner[live & write][first_write])
    halved = halved_layers(trace)[c["layer"]]
    hosts = np.where(c["kind"] == Kind.LAUNCH, np.arange(len(trace)), -1)
    launch = np.maximum.accumulate(hosts)
    elsewhere = (segment[launch] != segment) | (c["iteration"][launch] != c["iteration"])
    launch[(launch >= 0) & elsewhere] = -1
    touched = np.flatnonzero(live)
    first_segment, last_segment = np.full(tensors, -1), np.full(tensors, -1)
    branch, tensor_halved = np.zeros(tensors, np.int64), np.ones(tensors, np.int64)
    for_tensor = trace.operand_tensor[touched]
    last_segment[for_tensor] = segment[owner[touched]]
    first_segment[for_tensor[::-1]] = segment[owner[touched]][::-1]
    branch[for_tensor[::-1]] = c["branch"][owner[touched]][::-1]
    np.minimum.at(tensor_halved, for_tensor, halved[owner[touched]])
    first_operation, last_operation = _within_iteration(trace, owner[touched], for_tensor, write[touched])
    reads = np.bincount(np.unique(code[from_outside]) % tensors, minlength=tensors)
    return Structure(
        segments=int(segment[-1]) + 1,
        segment=segment,
        segment_is_loop=loop[starts] >= 0,
        halved=halved,
        launch=launch,
        weight=first_operands(trace)[0],
        weight_elements=weight_elements,
        gathered=gathered,
        gathered_owner=owner[gathered],
        pair_segment=pairs // tensors,
        pair_tensor=pairs % tensors,
        pair_uses=uses,
        pair_first=owner[weights[first]],
        reads=reads,
        writes=np.bincount(written_codes % tensors, minlength=tensors),
        first_segment=first_segment,
        last_segment=last_segment,
        first_operation=first_operation,
        last_operation=last_operation,
        branch=branch,
        tensor_halved=tensor_halved,
        outside_owner=owner[from_outside],
        outside_entry=np.flatnonzero(from_outside),
        written_entry=np.flatnonzero(live & write),
        written_owner=owner[live & write],
    )


def _written_elsewhere(code: IntArray, tensors: int, owner: IntArray, written: IntArray,
                       writer: IntArray) -> npt.NDArray[np.bool_]:  # fmt: skip
    """Operand entries whose tensor their segment does not write, or only after them when an earlier one wrote it.

    `code` is segment * tensors + tensor of each entry; `written` are the codes that are written, `writer` the first
    operation that does.
    """
    at = np.searchsorted(written, code)
    here = np.append(written, -1)[at] == code
    first = np.full(tensors, np.iinfo(np.int64).max)
    np.minimum.at(first, written % tensors, written // tensors)
    earlier = first[code % tensors] < code // tensors
    return np.asarray(~here | (earlier & (owner <= np.append(writer, -1)[at])))


def _within_iteration(trace: Trace, owner: IntArray, tensor: IntArray, write: npt.NDArray[np.bool_]) -> tuple[
    IntArray, IntArray
]:  # fmt: skip
    """First and last operation between which each tensor lives, as operations of the first iteration of a loop.

    A tensor that some iteration reads before it writes it lives all through the loop.
    """
    loop, iteration, tensors = trace.columns["loop"], trace.columns["iteration"], len(trace.tensors)
    every = np.arange(len(trace))
    starts = np.ones(len(trace), dtype=bool)
    starts[1:] = (loop[1:] != loop[:-1]) | (iteration[1:] != iteration[:-1]) | (loop[1:] < 0)
    begin = np.maximum.accumulate(np.where(starts, every, 0))
    block = np.cumsum(starts) - 1
    length = np.bincount(block)[block]
    first_begin = begin - np.maximum(iteration, 0) * length
    place = (first_begin + every - begin)[owner]
    first, last = np.full(tensors, len(trace)), np.full(tensors, -1)
    np.minimum.at(first, tensor, place)
    np.maximum.at(last, tensor, place)
    _, at = np.unique(block[owner] * tensors + tensor, return_index=True)
    carried = at[~write[at] & (loop[owner[at]] >= 0)]
    np.minimum.at(first, tensor[carried], first_begin[owner[carried]])
    np.maximum.at(last, tensor[carried], (first_begin + length - 1)[owner[carried]])
    return np.where(last < 0, -1, first), last
