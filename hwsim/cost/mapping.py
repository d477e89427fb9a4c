"""Which matrices of a trace lie on which analog tiles, and which stay digital."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np

from hwsim.arch import Architecture
from hwsim.arch.analog import AnalogTiles, PlacementRule
from hwsim.cost.analog import TileBlock
from hwsim.cost.classes import first_operands
from hwsim.errors import CapacityError, HwsimError
from hwsim.trace import Kind, Role, Trace

TILE_KINDS = (Kind.MATMUL, Kind.CONV1D, Kind.CONV2D)
"""Products that tiles can do; the weights of a grouped convolution stay digital."""


@dataclass(frozen=True)
class MappedMatrix:
    """A weight matrix on tiles."""

    tensor: int
    name: str
    layer: str
    inputs: int
    """Values that a product takes."""
    weights: int
    """Weights of the network that it stands for, copies counted once, with those of a folded table."""
    mode: str
    copies: int
    expanded: bool
    """Whether a digital product spreads its inputs over its rows."""
    block: TileBlock
    folded: int = -1
    """Embedding table that is part of it, or -1."""
    chips: tuple[tuple[int, int], ...] = ()
    """(chip from 0, tiles there)."""
    shared: bool = False
    """Whether its tiles are programmed again whenever another matrix was there."""
    wanted_chip: int = -1


@dataclass(frozen=True)
class AnalogMapping:
    """Where every weight matrix of a trace is."""

    matrices: tuple[MappedMatrix, ...]
    digital: tuple[tuple[str, int, str], ...]
    """(name, weights, why) of those that no tile holds."""
    used: tuple[int, ...]
    """Tiles in use on each chip."""
    tiles_per_chip: int

    @property
    def tensors(self) -> list[int]:
        """Tensors that no memory has to hold: matrices on tiles and tables folded into them."""
        return [t for matrix in self.matrices for t in (matrix.tensor, matrix.folded) if t >= 0]

    @property
    def tiles(self) -> int:
        """Tiles in use."""
        return sum(self.used)

    @property
    def weights(self) -> int:
        """Weights of the network on tiles, each counted once."""
        return sum(matrix.weights for matrix in self.matrices)

    @property
    def devices(self) -> int:
        """Memory devices that hold weights at one time."""
        kept = sum(matrix.block.devices for matrix in self.matrices if not matrix.shared)
        return kept + max((matrix.block.devices for matrix in self.matrices if matrix.shared), default=0)

    @property
    def utilization(self) -> float:
        """Part of the weights of the tiles in use that matrices take; shared tiles count once, by the largest."""
        kept = [m.block for m in self.matrices if not m.shared]
        shared = [m.block for m in self.matrices if m.shared]
        blocks = [*kept, max(shared, key=lambda block: block.tiles)] if shared else kept
        held = sum(b.tiles * b.mode.rows.value * b.mode.columns.value for b in blocks)
        return sum(b.rows * b.columns for b in blocks) / held if held else 0.0

    def on_chip(self, chip: int) -> list[MappedMatrix]:
        """Matrices with tiles on a chip, counted from 0."""
        return [matrix for matrix in self.matrices if chip in dict(matrix.chips)]

    def share(self, matrix: MappedMatrix) -> float:
        """Chips that a matrix stands for: of each chip its part of the tiles in use there."""
        return sum(tiles / self.used[chip] for chip, tiles in matrix.chips)


def place(arch: Architecture, trace: Trace) -> AnalogMapping | None:
    """Place the weights of a trace by the rules of the machine; None for a machine without tiles.

    Raises CapacityError when weights find no tile and may not stay digital, HwsimError for a rule that does not suit.
    """
    if arch.analog is None:
        return None
    key = f"analog {arch.digest}"
    if key not in trace.structure:
        trace.structure[key] = _place(arch, arch.analog, trace)
    found: AnalogMapping = trace.structure[key]
    return found


def _place(arch: Architecture, analog: AnalogTiles, trace: Trace) -> AnalogMapping:
    wanted: list[MappedMatrix] = []
    digital: list[tuple[str, int, str]] = []
    for tensor, k, n in _products(trace):
        matrix = _matrix(analog, trace, tensor, k, n)
        if matrix is None:
            digital.append((trace.tensors[tensor].name, trace.tensors[tensor].elements, "placement"))
        else:
            wanted.append(matrix)
    used = [0] * analog.chips.value
    placed, left = _pack(analog, wanted, used)
    overflow = analog.placement.overflow
    if left and overflow == "refuse":
        raise CapacityError(_shortage(arch, analog, trace, wanted, left))
    if left and overflow == "digital":
        digital += [(matrix.name, matrix.weights, "no tile left") for matrix in left]
    elif left:
        placed, used = _reprogrammed(arch, analog, trace, wanted)
    in_order = sorted(placed, key=lambda matrix: matrix.tensor)
    return AnalogMapping(tuple(in_order), tuple(digital), tuple(used), analog.tiles_per_chip.value)


def _products(trace: Trace) -> list[tuple[int, int, int]]:
    """(weight tensor, k, n) of every matrix that only products of `TILE_KINDS` read, in the order of the tensors."""
    weight, _ = first_operands(trace)
    kind, batch = trace.columns["kind"], trace.columns["batch"]
    suited = np.isin(kind, TILE_KINDS) & (batch == 1)
    unsuited = set(np.unique(weight[(weight >= 0) & ~suited]).tolist())
    tensors, first = np.unique(weight[(weight >= 0) & suited], return_index=True)
    example = np.flatnonzero((weight >= 0) & suited)[first]
    k, n = trace.columns["k"][example], trace.columns["n"][example]
    found = zip(tensors.tolist(), k.tolist(), n.tolist(), strict=True)
    return [entry for entry in found if entry[0] not in unsuited]


def _rule(analog: AnalogTiles, name: str) -> tuple[str, PlacementRule]:
    """The last rule for a weight; one of the default mode where there is none."""
    found = ("default", PlacementRule(weights="*", mode=analog.placement.default_mode))
    for key, rule in analog.placement.rules.items():
        if fnmatchcase(name, rule.weights):
            found = (key, rule)
    return found


def _matrix(analog: AnalogTiles, trace: Trace, tensor: int, k: int, n: int) -> MappedMatrix | None:
    """A matrix before it has tiles; None for one that stays digital."""
    info = trace.tensors[tensor]
    key, rule = _rule(analog, info.name)
    if rule.mode is None:
        return None
    inputs, folded = k, -1
    if rule.folds is not None:
        folded = _table(trace, key, rule.folds, k)
        inputs = trace.tensors[folded].shape[0]
    copies = rule.copies.value if rule.copies else 1
    rows = inputs * copies
    if rule.expanded_rows is not None:
        rows = rule.expanded_rows.value
        if rows < inputs:
            where = f"analog.placement.rules.{key}.expanded_rows"
            raise HwsimError(f"{where} must be at least {inputs}, the inputs of {info.name}, got {rows}")
    return MappedMatrix(
        tensor=tensor, name=info.name, layer=info.layer, inputs=inputs, mode=rule.mode, copies=copies,
        weights=info.elements + (trace.tensors[folded].elements if folded >= 0 else 0),
        expanded=rule.expanded_rows is not None, block=TileBlock(rows, n, analog.modes[rule.mode]), folded=folded,
        wanted_chip=rule.chip.value - 1 if rule.chip else -1,
    )  # fmt: skip


def _table(trace: Trace, key: str, name: str, width: int) -> int:
    """Index of an embedding table of `width` columns."""
    for index, info in enumerate(trace.tensors):
        if info.name == name and info.role == Role.WEIGHT and info.shape[-1] == width:
            return index
    rule = f"the name of a table of {width} columns"
    raise HwsimError(f"analog.placement.rules.{key}.folds must be {rule}, got {name!r} in {trace.name}")


def _pack(analog: AnalogTiles, wanted: Sequence[MappedMatrix], used: list[int]
          ) -> tuple[list[MappedMatrix], list[MappedMatrix]]:  # fmt: skip
    """Give tiles to matrices, those with a chip of their own first; fills `used`, returns placed ones and the rest."""
    placed, left = [], []
    for matrix in sorted(wanted, key=lambda m: m.wanted_chip < 0):
        chips = _tiles_for(analog, matrix, used)
        if chips is None:
            left.append(matrix)
            continue
        for chip, tiles in chips:
            used[chip] += tiles
        placed.append(replace(matrix, chips=tuple(chips)))
    return placed, left


def _tiles_for(analog: AnalogTiles, matrix: MappedMatrix, used: Sequence[int]) -> list[tuple[int, int]] | None:
    """The chip of its rule; else the first with room; else the free tiles of several; None when too few are free."""
    need, room = matrix.block.tiles, [analog.tiles_per_chip.value - tiles for tiles in used]
    if matrix.wanted_chip >= 0:
        return [(matrix.wanted_chip, need)] if room[matrix.wanted_chip] >= need else None
    whole = next((chip for chip, free in enumerate(room) if free >= need), None)
    if whole is not None:
        return [(whole, need)]
    if sum(room) < need:
        return None
    found = []
    for chip, free in enumerate(room):
        taken = min(free, need)
        need -= taken
        if taken:
            found.append((chip, taken))
    return found


def _reprogrammed(arch: Architecture, analog: AnalogTiles, trace: Trace, wanted: Sequence[MappedMatrix]
                  ) -> tuple[list[MappedMatrix], list[int]]:  # fmt: skip
    """Keep as many of the first matrices as leave room for the largest of the others, which share tiles."""
    free = [replace(matrix, wanted_chip=-1) for matrix in wanted]
    for kept in range(len(free) - 1, -1, -1):
        used = [0] * analog.chips.value
        placed, left = _pack(analog, free[:kept], used)
        largest = max(free[kept:], key=lambda matrix: matrix.block.tiles)
        region = None if left else _tiles_for(analog, largest, used)
        if region is None:
            continue
        for chip, tiles in region:
            used[chip] += tiles
        return placed + [replace(matrix, chips=tuple(region), shared=True) for matrix in free[kept:]], used
    most = max(free, key=lambda matrix: matrix.block.tiles)
    raise CapacityError(
        f"{trace.name} does not fit {arch.name}: {most.name} alone needs {most.block.tiles} tiles in mode {most.mode},"
        f" the machine has {analog.tiles}; it would fit with analog.chips of"
        f" {-(-most.block.tiles // analog.tiles_per_chip.value)}"
    )


def _shortage(arch: Architecture, analog: AnalogTiles, trace: Trace, wanted: Sequence[MappedMatrix],
              left: Sequence[MappedMatrix]) -> str:  # fmt: skip
    """How many tiles are missing, and with how many chips all matrices would have one."""
    need = sum(matrix.block.tiles for matrix in wanted)
    missing = sum(matrix.block.tiles for matrix in left)
    chips = max(-(-need // analog.tiles_per_chip.value), analog.chips.value)
    free = [replace(matrix, wanted_chip=-1) for matrix in wanted]
    while _pack(analog, free, [0] * chips)[1]:
        chips += 1
    others = f" and {len(left) - 1} more matrices" if len(left) > 1 else ""
    fits = f"analog.chips of {chips}" if chips > analog.chips.value else "the chip of its placement rule left out"
    ways = "digital or reprogram" if analog.programming else "digital"
    return (
        f"{trace.name} does not fit {arch.name}: its matrices need {need} tiles, the machine has {analog.tiles}, and"
        f" {missing} are missing for {left[0].name}{others}; it would fit with {fits}, or run with"
        f" analog.placement.overflow of {ways}"
    )
