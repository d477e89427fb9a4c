"""A machine: its parts, and the figures that follow from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from hwsim.arch.analog import AnalogTiles
from hwsim.arch.analog_checks import analog_problems
from hwsim.arch.blocks import (
    ArrayFormat,
    Dram,
    Host,
    Interconnect,
    MacArray,
    Memory,
    OperatingPoint,
    VectorUnit,
    allow_origin,
)
from hwsim.arch.checks import problems
from hwsim.arch.quantity import CountQuantity, NonNegativeQuantity, Origin, quantities, spell_out
from hwsim.config import Frozen
from hwsim.errors import HwsimError


class Architecture(Frozen):
    """An accelerator with its host, every number with its source or the reason why it was assumed.

    Dynamic energies hold at `reference_operating_point` and scale with the square of the voltage, as CV² of a
    switched capacitance does; near-threshold effects are not modelled. Equal content has an equal `digest`.
    """

    name: str = Field(min_length=1)
    """Name in messages and results."""
    description: str
    """What machine this is, in a sentence or two."""
    operating_points: Annotated[Mapping[str, OperatingPoint], Field(min_length=1, json_schema_extra=allow_origin)]
    """Clocks and voltages at which the machine runs, by name."""
    operating_point: str
    """The operating point that is used."""
    reference_operating_point: str
    """The operating point at which the energies and the static power of the file are stated."""
    cores: CountQuantity
    """Cores (count)."""
    array: MacArray
    """MAC arrays of a core."""
    vector: VectorUnit
    """Vector unit of a core."""
    memory: Memory
    """On-chip memory."""
    dram: Dram
    """External memory."""
    interconnect: Interconnect | None = None
    """Links between the cores; may be left out of a machine with one core."""
    host: Host
    """Host processor and its link."""
    static_power_w: NonNegativeQuantity
    """Power of the powered but idle chip at the reference operating point, without DRAM and host, W."""
    analog: AnalogTiles | None = None
    """Tiles that multiply inside memory devices, beside the arrays; left out of a digital machine."""

    @model_validator(mode="before")
    @classmethod
    def _spell_out(cls, data: Any) -> Any:
        # One origin for a whole file would say nothing, so the outermost level lends none.
        return {key: spell_out(value) for key, value in data.items()} if isinstance(data, Mapping) else data

    @model_validator(mode="after")
    def _is_consistent(self) -> Architecture:
        for problem in (*problems(self), *analog_problems(self.analog)):
            context = {"problem": str(problem), "location": problem.location}
            raise PydanticCustomError("inconsistent", "{problem}", context)
        return self

    @property
    def selected_point(self) -> OperatingPoint:
        """Clock and voltages in use."""
        return self.operating_points[self.operating_point]

    @property
    def clock_hz(self) -> float:
        """Clock of the selected operating point, Hz."""
        return self.selected_point.clock_hz.value

    @property
    def logic_energy_scale(self) -> float:
        """Dynamic energy of logic relative to the file: (V / V_reference)² of the core supply."""
        reference = self.operating_points[self.reference_operating_point]
        return (self.selected_point.core_voltage_v.value / reference.core_voltage_v.value) ** 2

    @property
    def sram_energy_scale(self) -> float:
        """Dynamic energy of on-chip memory relative to the file: (V / V_reference)² of the SRAM supply."""
        reference = self.operating_points[self.reference_operating_point]
        return (_sram_voltage_v(self.selected_point) / _sram_voltage_v(reference)) ** 2

    @property
    def leakage_power_w(self) -> float:
        """Static power at the selected operating point, W: `static_power_w` (V / V_reference)².

        P = V I, with a leakage current that grows about in proportion to V over the small range of an
        operating point (drain-induced barrier lowering). Temperature is not modelled.
        """
        return self.static_power_w.value * self.logic_energy_scale

    @property
    def native_formats(self) -> tuple[str, ...]:
        """Formats that the array computes, in the order of the file."""
        return tuple(self.array.formats)

    def compute_format(self, fmt: str) -> str:
        """The native format in which `fmt` is computed: itself, or its fallback.

        Raises HwsimError when the machine does not compute it and its file gives no fallback.
        """
        if fmt in self.array.formats:
            return fmt
        if fmt in self.array.fallback:
            return self.array.fallback[fmt]
        raise HwsimError(
            f"{self.name} cannot compute {fmt}: it computes {', '.join(self.native_formats)}; "
            f"no fallback for {fmt} in its file"
        )

    def array_format(self, fmt: str) -> ArrayFormat:
        """Shape and energy of one array when it computes `fmt`. Raises HwsimError as `compute_format`."""
        return self.array.formats[self.compute_format(fmt)]

    def macs_per_cycle(self, fmt: str) -> int:
        """MACs of the whole machine in a cycle. Raises HwsimError as `compute_format`."""
        return self.cores.value * self.array.arrays_per_core.value * self.array_format(fmt).macs_per_cycle

    def peak_ops_per_s(self, fmt: str) -> float:
        """Operations per second with every MAC busy, 2 to a MAC. Raises HwsimError as `compute_format`."""
        return 2 * self.macs_per_cycle(fmt) * self.clock_hz

    @property
    def scratchpad_bytes(self) -> int:
        """Scratchpad of the whole machine, bytes."""
        scratchpad = self.memory.scratchpad
        copies = self.cores.value if scratchpad.scope == "core" else 1
        return copies * scratchpad.capacity_bytes.value

    def assumptions(self) -> list[Origin]:
        """(dotted path, value, reason) of every number that is assumed, in the order of the schema."""
        found = quantities(self)
        assumed = [Origin(path, number.value, number.assumption) for path, number in found if number.assumption]
        calls = float(self.host.persistent_kernel)
        return [*assumed, Origin("host.persistent_kernel", calls, self.host.calls_assumption)]

    def sources(self) -> list[Origin]:
        """(dotted path, value, source) of every number that is published or derived."""
        found = quantities(self)
        return [Origin(path, number.value, number.source) for path, number in found if number.source]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content (values and origins), hexadecimal; free of file, order and notation."""
        left_out = None if self.analog else {"analog"}  # so that digital machines keep their digest
        content = json.dumps(self.model_dump(mode="json", exclude=left_out), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()


def _sram_voltage_v(point: OperatingPoint) -> float:
    return (point.sram_voltage_v or point.core_voltage_v).value
