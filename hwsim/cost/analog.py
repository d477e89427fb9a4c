"""Time and energy of a product on analog tiles. `docs/analog.md` states the equations and what they leave out."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hwsim.arch.analog import AnalogTiles, WeightMode


@dataclass(frozen=True)
class TileBlock:
    """A matrix `(rows, columns)` of weights cut into tiles of one mode, `rows` with all copies of the inputs."""

    rows: int
    columns: int
    mode: WeightMode

    @property
    def row_tiles(self) -> int:
        """Tiles along the rows, whose sums are added."""
        return -(-self.rows // self.mode.rows.value)

    @property
    def column_tiles(self) -> int:
        """Tiles along the columns."""
        return -(-self.columns // self.mode.columns.value)

    @property
    def tiles(self) -> int:
        """Tiles that the block takes, partial ones whole."""
        return self.row_tiles * self.column_tiles

    @property
    def devices(self) -> int:
        """Memory devices that hold a weight."""
        return self.rows * self.columns * self.mode.devices_per_weight.value

    @property
    def utilization(self) -> float:
        """Part of the weights of its tiles that it uses."""
        return self.rows * self.columns / (self.tiles * self.mode.rows.value * self.mode.columns.value)


def output_steps(analog: AnalogTiles, columns: int) -> int:
    """Steps in which the sums of `columns` columns leave their tiles, after the last integration.

    ADCs work side by side, each through the columns that it serves; durations share the pads.
    """
    converter = analog.converter
    if converter.kind == "none":
        assert converter.outputs_per_step is not None
        return -(-columns // converter.outputs_per_step.value)
    return converter.columns.value if converter.columns is not None else 1


def tile_s(analog: AnalogTiles, block: TileBlock) -> float:
    """Time of one product `(1, rows) @ (rows, columns)` inside all tiles of a block, s.

    integrations x integration time + output steps x step time; the size of a partial tile does not matter.
    """
    integrating_s = block.mode.integrations.value * analog.encoding.integration_s
    return integrating_s + output_steps(analog, block.columns) * analog.converter.step_s.value


def mvm_s(analog: AnalogTiles, block: TileBlock) -> float:
    """`tile_s` and the mesh latency, s; digital partial sums are added while they arrive."""
    return tile_s(analog, block) + analog.mesh.latency_s.value


def mvm_steps(analog: AnalogTiles, block: TileBlock) -> int:
    """Integrations and output steps of a product, as publications of such chips count them."""
    return block.mode.integrations.value + output_steps(analog, block.columns)


def tile_energy_pj(analog: AnalogTiles, block: TileBlock) -> float:
    """Energy of one product inside its tiles, pJ: every used column of every tile, once an integration.

    A column takes the same however many of its rows are used. With digital partial sums each tile converts its own;
    with analog ones the sum is converted once.
    """
    integrations = block.mode.integrations.value
    converted = block.row_tiles if analog.partial_sums == "digital" else 1
    columns_pj = block.row_tiles * analog.column_energy_pj.value + converted * analog.converter.energy_pj.value
    return integrations * block.columns * columns_pj


def transport_energy_pj(analog: AnalogTiles, block: TileBlock) -> float:
    """Energy of moving a product's inputs and outputs, pJ: each input once to all tiles, each sum once.

    Digital partial sums travel and are added one by one.
    """
    per_value = analog.mesh.energy_pj_per_value.value
    if analog.partial_sums == "analog":
        return (block.rows + block.columns) * per_value
    added = (block.row_tiles - 1) * block.columns * analog.periphery.add_energy_pj.value
    return (block.rows + block.row_tiles * block.columns) * per_value + added


def programming_s(analog: AnalogTiles, block: TileBlock) -> float:
    """Time to write a block, s: row after row of weights, all of its tiles side by side. Needs `programming`."""
    assert analog.programming is not None
    return min(block.rows, block.mode.rows.value) * analog.programming.row_s.value


def programming_pj(analog: AnalogTiles, block: TileBlock) -> float:
    """Energy of writing every device of a block, pJ. Needs `programming` in the file."""
    assert analog.programming is not None
    return block.devices * analog.programming.energy_pj_per_device.value


def in_cycles(seconds: float, clock_hz: float) -> int:
    """Whole cycles, rounded up; a hair above a whole number is rounding of the product."""
    return math.ceil(seconds * clock_hz - 1e-6)
