"""The block `analog` of an architecture: tiles that multiply inside memory devices, and what lies on them.

A tile is a crossbar of unit cells. How many devices hold a weight, how many weights fit and how often inputs are
integrated is a *mode* of the tile. `docs/analog.md` states the model that reads these numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from hwsim.arch.blocks import Block, allow_origin
from hwsim.arch.quantity import CountQuantity, NonNegativeQuantity, PositiveQuantity


class InputEncoding(Block):
    """How an input enters the rows; its sign, and inputs in parts, are further integrations of the mode."""

    kind: Literal["pulse_width", "bit_serial"]
    """`pulse_width`: a pulse as long as the magnitude, 2^bits - 1 units at most; `bit_serial`: one unit a bit."""
    bits: CountQuantity
    """Bits of the magnitude that one integration takes."""
    unit_s: PositiveQuantity
    """Length of a unit of the pulse, or of a bit, s."""
    overhead_s: NonNegativeQuantity
    """Of one integration beside its units, s."""

    @property
    def integration_s(self) -> float:
        """Time of one integration, s."""
        units = 2**self.bits.value - 1 if self.kind == "pulse_width" else self.bits.value
        return units * self.unit_s.value + self.overhead_s.value


class Converter(Block):
    """How the sum of a column leaves the tile."""

    kind: Literal["per_column", "shared", "none"]
    """`per_column`: an ADC for each; `shared`: one for `columns`; `none`: as a duration, in output steps."""
    bits: CountQuantity
    """Resolution of the ADC, or of the durations, bits."""
    columns: CountQuantity | None = None
    """Columns that one ADC serves one after another; given exactly when it is shared (count)."""
    outputs_per_step: CountQuantity | None = None
    """Sums that leave a matrix in one output step; given exactly when there is no converter (count)."""
    step_s: NonNegativeQuantity
    """Of a conversion after the last integration, or of an output step, s."""
    energy_pj: NonNegativeQuantity
    """For each column and integration, beside that of the column, pJ."""


class WeightMode(Block):
    """One way to hold weights in a tile, and to multiply with them."""

    devices_per_weight: CountQuantity
    """Memory devices (count)."""
    rows: CountQuantity
    """Weights along the inputs that a tile holds (count)."""
    columns: CountQuantity
    """Weights along the outputs that a tile holds (count)."""
    integrations: CountQuantity
    """Integrations of a product: signs, phases, halves of the rows (count)."""


class Mesh(Block):
    """Transport of values between pads and tiles."""

    energy_pj_per_value: NonNegativeQuantity
    """Of an input, which all tiles that need it receive together, or of an output, pJ."""
    latency_s: NonNegativeQuantity
    """Added to a product, s."""


class Periphery(Block):
    """Digital units beside the tiles, one for each recurrent layer: the gate functions of its steps."""

    outputs_per_step: CountQuantity
    """Cells for which a step of it is enough (count)."""
    step_s: PositiveQuantity
    """Length of a step, s."""
    add_energy_pj: NonNegativeQuantity
    """Sum of two digital partial sums, pJ."""
    mac_energy_pj: NonNegativeQuantity
    """MAC of the digital product before the tiles in weight expansion, pJ."""


class Programming(Block):
    """Writing weights."""

    row_s: PositiveQuantity
    """Time to program a row of weights of a tile, with its iterations of writing and reading, s."""
    energy_pj_per_device: NonNegativeQuantity
    """Of all iterations for one device, pJ."""
    endurance_writes: CountQuantity
    """Times that a device may be programmed (count)."""


class PlacementRule(Block):
    """What happens to some weights; a later rule overrides an earlier one as a whole."""

    weights: str
    """Glob over names of weight tensors, such as `encoder.layer0.wx`."""
    mode: str | None = None
    """Mode of their tiles; none where they stay digital."""
    copies: CountQuantity | None = None
    """Copies along the rows that read the same inputs, each with its part of the weight; 1 when not given."""
    expanded_rows: CountQuantity | None = None
    """Rows after a fixed digital product that spreads the inputs over more of them (weight expansion)."""
    chip: CountQuantity | None = None
    """Chip on which they lie, from 1; the first with room when not given."""
    folds: str | None = None
    """Name of an embedding table: the product of both lies on the tiles, with a row for each row of the table."""


class Placement(Block):
    """Which weights lie on tiles."""

    default_mode: str | None = None
    """Mode of weights that no rule names; none where they stay digital."""
    rules: Annotated[Mapping[str, PlacementRule], Field(json_schema_extra=allow_origin)] = Field(default_factory=dict)
    """Rules by name, in the order in which they apply."""
    overflow: Literal["refuse", "digital", "reprogram"]
    """Weights that find no tile: refuse the network, compute them on the arrays, or share tiles by programming them
    whenever others are needed."""
    reason: str
    """Why weights lie as they do."""


class AnalogTiles(Block):
    """Chips of equal tiles that hold their weights all the time."""

    chips: CountQuantity
    """Chips (count)."""
    tiles_per_chip: CountQuantity
    """Tiles of a chip (count)."""
    devices_per_tile: CountQuantity
    """Memory devices of a tile (count)."""
    encoding: InputEncoding
    """Inputs of the rows."""
    converter: Converter
    """Outputs of the columns."""
    modes: Annotated[Mapping[str, WeightMode], Field(min_length=1, json_schema_extra=allow_origin)]
    """Ways to hold weights, by name."""
    column_energy_pj: NonNegativeQuantity
    """Of one used column in one integration: devices, drivers of the rows, integrator, pJ."""
    partial_sums: Literal["analog", "digital"]
    """Where the sums of tiles along the rows meet: before they are converted, or each is converted and added."""
    mesh: Mesh
    """Transport on a chip and between chips."""
    periphery: Periphery
    """Digital units of the layers."""
    chip_power_w: NonNegativeQuantity
    """Of a chip beside its tiles while one of its products runs, W; without one it takes the static power."""
    programming: Programming | None = None
    """Writing; given when weights may be programmed during a run."""
    placement: Placement
    """What lies on the tiles."""

    @property
    def tiles(self) -> int:
        """Tiles of all chips."""
        return self.chips.value * self.tiles_per_chip.value
