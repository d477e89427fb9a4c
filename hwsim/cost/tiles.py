"""Costs of the operations of a trace that analog tiles, or the digital units beside them, do."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hwsim.arch import Architecture
from hwsim.cost.analog import in_cycles, mvm_s, tile_energy_pj, transport_energy_pj
from hwsim.cost.classes import OperationClasses
from hwsim.cost.mapping import TILE_KINDS, AnalogMapping, MappedMatrix
from hwsim.trace import Kind, Trace

RECURRENT_KINDS = (Kind.LSTM, Kind.GRU)
"""Gate functions, which the periphery of a layer on tiles computes."""


def on_tiles(classes: OperationClasses, mapping: AnalogMapping | None) -> npt.NDArray[np.bool_]:
    """Classes that tiles do."""
    if mapping is None:
        return np.zeros(len(classes.kind), dtype=bool)
    tensors = [matrix.tensor for matrix in mapping.matrices]
    return np.asarray(np.isin(classes.weight, tensors) & np.isin(classes.kind, TILE_KINDS))


def folded_lookups(classes: OperationClasses, mapping: AnalogMapping) -> npt.NDArray[np.bool_]:
    """Classes that look up a table which is part of a matrix on tiles: the label selects a row of the matrix."""
    tables = [matrix.folded for matrix in mapping.matrices if matrix.folded >= 0]
    return np.asarray(np.isin(classes.weight, tables) & (classes.kind == Kind.LOOKUP))


def beside_tiles(trace: Trace, classes: OperationClasses, mapping: AnalogMapping) -> npt.NDArray[np.bool_]:
    """Classes of gate functions whose layer has all of its matrices on tiles."""
    layers = {matrix.layer for matrix in mapping.matrices}
    digital = {name.rpartition(".")[0] for name, _, _ in mapping.digital}
    known = np.array([name in layers and name not in digital for name in trace.layers])
    return np.asarray(np.isin(classes.kind, RECURRENT_KINDS) & known[trace.columns["layer"][classes.example]])


def mvm_cycles(arch: Architecture, matrix: MappedMatrix) -> int:
    """Cycles of one product of a matrix on tiles."""
    assert arch.analog is not None
    return in_cycles(mvm_s(arch.analog, matrix.block), arch.clock_hz)


def gate_cycles(arch: Architecture, classes: OperationClasses) -> npt.NDArray[np.int64]:
    """Cycles of gate functions in the periphery of their layer: whole steps for each row."""
    assert arch.analog is not None
    periphery = arch.analog.periphery
    steps = -(-classes.n // periphery.outputs_per_step.value)
    return np.asarray(classes.m * steps * in_cycles(periphery.step_s.value, arch.clock_hz))


def mvm_energy_pj(arch: Architecture, mapping: AnalogMapping, matrix: MappedMatrix) -> float:
    """Energy of one product of a matrix: columns, transport, and its part of the power of its chips, pJ."""
    assert arch.analog is not None
    block = matrix.block
    chip_j = arch.analog.chip_power_w.value * mvm_s(arch.analog, block) * mapping.share(matrix)
    return tile_energy_pj(arch.analog, block) + transport_energy_pj(arch.analog, block) + chip_j * 1e12


def expansion_energy_pj(arch: Architecture, matrix: MappedMatrix) -> float:
    """Energy of the digital product that spreads the inputs of a matrix over its rows, pJ; 0 without one."""
    assert arch.analog is not None
    macs = matrix.inputs * matrix.block.rows if matrix.expanded else 0
    return macs * arch.analog.periphery.mac_energy_pj.value


def peak_macs_per_cycle(arch: Architecture, matrix: MappedMatrix) -> float:
    """MACs in a cycle of a machine whose tiles all are full and work in the mode of a matrix."""
    assert arch.analog is not None
    mode = matrix.block.mode
    return arch.analog.tiles * mode.rows.value * mode.columns.value / mvm_cycles(arch, matrix)
