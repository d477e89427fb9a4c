"""Units of their own for what lies on analog tiles: one for each matrix, one for the gates of each layer.

Tiles hold their weights, so each matrix works while others do, and layers pipeline by themselves; the steps of a
recurrent layer follow each other because each reads the hidden state of the one before. Matrices that share tiles by
programming are one unit, which pays for writing whenever another matrix was there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwsim.arch import Architecture
from hwsim.cost.analog import in_cycles, programming_pj, programming_s
from hwsim.cost.classes import operation_classes
from hwsim.cost.mapping import AnalogMapping
from hwsim.cost.operation import ClassCosts, Unit
from hwsim.trace import Trace

IntArray = npt.NDArray[np.int64]
SHARED = "tiles.shared"


@dataclass(frozen=True)
class Stations:
    """Units beside those of cores and host; the arrays have one entry per operation."""

    names: tuple[str, ...]
    station: IntArray
    """Index into `names`, or -1."""
    programming_cycles: IntArray
    """Writing of a matrix before the operation."""
    programming_pj: npt.NDArray[np.float64]
    writes: int
    """How often the matrix on the shared tiles is changed."""


def stations(arch: Architecture, trace: Trace, mapping: AnalogMapping | None, costs: ClassCosts) -> Stations:
    """The stations of a run; none for a machine without tiles."""
    count = len(trace)
    station, cycles, energy = np.full(count, -1, np.int64), np.zeros(count, np.int64), np.zeros(count)
    if mapping is None:
        return Stations((), station, cycles, energy, 0)
    classes = operation_classes(trace)
    of = classes.of_operation
    names: dict[str, int] = {}
    weight, unit = classes.weight[of], costs.unit[of]
    shared = np.full(len(trace.tensors), -1, np.int64)
    for index, matrix in enumerate(mapping.matrices):
        name = SHARED if matrix.shared else f"tiles.{matrix.name}"
        station[(weight == matrix.tensor) & (unit == Unit.TILES)] = names.setdefault(name, len(names))
        if matrix.shared:
            shared[matrix.tensor] = index
    layer, gates = trace.columns["layer"], unit == Unit.PERIPHERY
    for index in np.unique(layer[gates]).tolist():
        name = f"gates.{trace.layers[index]}"
        station[gates & (layer == index)] = names.setdefault(name, len(names))
    at = np.flatnonzero((unit == Unit.TILES) & (shared[weight] >= 0))
    changed = at[np.diff(weight[at], prepend=-1) != 0]
    for op, index in zip(changed.tolist(), shared[weight[changed]].tolist(), strict=True):
        assert arch.analog is not None
        block = mapping.matrices[index].block
        cycles[op] = in_cycles(programming_s(arch.analog, block), arch.clock_hz)
        energy[op] = programming_pj(arch.analog, block)
    return Stations(tuple(names), station, cycles, energy, len(changed))
