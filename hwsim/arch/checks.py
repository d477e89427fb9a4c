"""Rules of an architecture that concern more than one field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from hwsim.arch.architecture import Architecture


class Problem(NamedTuple):
    """A broken rule, as `dotted.path must be <rule>, got <got>`."""

    location: tuple[str, ...]
    """Keys that lead to the value at fault."""
    rule: str
    """What follows `must be`."""
    got: str
    """The value, as it is shown."""

    def __str__(self) -> str:
        return f"{'.'.join(self.location)} must be {self.rule}, got {self.got}"


def problems(arch: Architecture) -> Iterator[Problem]:
    """Every broken rule of an architecture whose fields are valid one by one."""
    yield from _operating_points(arch)
    yield from _timing(arch)
    yield from _fallback(arch)
    yield from _sparsity(arch)
    yield from _capacities(arch)
    if arch.cores.value > 1 and arch.interconnect is None:
        yield Problem(("interconnect",), "given when cores is more than 1", "nothing")


def _operating_points(arch: Architecture) -> Iterator[Problem]:
    names = ", ".join(repr(name) for name in sorted(arch.operating_points))
    for key in ("operating_point", "reference_operating_point"):
        chosen: str = getattr(arch, key)
        if chosen not in arch.operating_points:
            yield Problem((key,), f"one of {names}", repr(chosen))


def _timing(arch: Architecture) -> Iterator[Problem]:
    array = arch.array
    if array.timing == "blocked" and array.weight_blocks is None:
        yield Problem(("array", "weight_blocks"), "given when timing is blocked", "nothing")
    if array.timing == "systolic" and array.weight_blocks is not None:
        yield Problem(("array", "weight_blocks"), "left out when timing is systolic", "a block")
    if array.timing == "blocked" and array.dataflow != "weight_stationary":
        rule = "'weight_stationary' when timing is blocked"
        yield Problem(("array", "dataflow"), rule, repr(array.dataflow))


def _fallback(arch: Architecture) -> Iterator[Problem]:
    native = ", ".join(arch.native_formats)
    for name, target in arch.array.fallback.items():
        if target not in arch.array.formats:
            rule = f"a format that the machine computes ({native})"
            yield Problem(("array", "fallback", name), rule, repr(target))
        if name in arch.array.formats:
            rule = f"left out, as the machine computes {name}"
            yield Problem(("array", "fallback", name), rule, repr(target))


def _sparsity(arch: Architecture) -> Iterator[Problem]:
    sparsity = arch.array.structured_sparsity
    if sparsity is not None and sparsity.keep.value >= sparsity.group.value:
        location = ("array", "structured_sparsity", "keep")
        yield Problem(location, f"less than the group of {sparsity.group.value}", str(sparsity.keep.value))


def _capacities(arch: Architecture) -> Iterator[Problem]:
    memory, blocks = arch.memory, arch.array.weight_blocks
    capacity_bytes = memory.scratchpad.capacity_bytes.value
    limit = f"at most {capacity_bytes}, the bytes of the scratchpad"
    if blocks is not None and blocks.register_block_bytes.value > capacity_bytes:
        location = ("array", "weight_blocks", "register_block_bytes")
        yield Problem(location, limit, str(blocks.register_block_bytes.value))
    buffer = memory.operand_buffer
    if buffer is not None and buffer.capacity_bytes.value > capacity_bytes:
        yield Problem(("memory", "operand_buffer", "capacity_bytes"), limit, str(buffer.capacity_bytes.value))
    stream, activation = memory.stream_buffer_fraction.value, memory.activation_fraction.value
    if stream + activation >= 1:
        rule = f"less than {1 - activation:g}, what activation_fraction leaves of the scratchpad"
        yield Problem(("memory", "stream_buffer_fraction"), rule, f"{stream:g}")
