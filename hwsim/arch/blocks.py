"""The blocks of an architecture file: array, vector unit, memories, links, host.

Every number is a quantity with its origin, see `hwsim.arch.quantity`. Energies are dynamic energies at the
reference operating point of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from hwsim.arch.quantity import (
    ORIGIN_KEYS,
    CountQuantity,
    FractionQuantity,
    NonNegativeCountQuantity,
    NonNegativeQuantity,
    PositiveQuantity,
)
from hwsim.config import Frozen

_ORIGIN_MEANING = {
    "source": "Source of the bare numbers in this block.",
    "assumption": "Reason for the bare numbers in this block.",
}


def allow_origin(schema: dict[str, Any]) -> None:
    """Let the JSON schema of a block, or of a mapping of blocks, hold the origin of its bare numbers."""
    described = {key: {"type": "string", "description": _ORIGIN_MEANING[key]} for key in ORIGIN_KEYS}
    schema.setdefault("properties", {}).update(described)


class Block(Frozen):
    """A part of a file; its `source` or `assumption` covers the bare numbers inside it."""

    model_config = ConfigDict(json_schema_extra=allow_origin)


class OperatingPoint(Block):
    """A clock and the voltages at which it runs."""

    clock_hz: PositiveQuantity
    """Clock of cores, scratchpads and interconnect, Hz."""
    core_voltage_v: PositiveQuantity
    """Supply of the logic, V."""
    sram_voltage_v: PositiveQuantity | None = None
    """Supply of the on-chip memories, V; the supply of the logic when not given."""


class ArrayFormat(Block):
    """What one MAC array is in one number format: `rows` x `columns` engines of `lanes` lanes."""

    rows: CountQuantity
    """Engines along the inner dimension of a matrix product (count)."""
    columns: CountQuantity
    """Engines along the outputs (count)."""
    lanes: CountQuantity
    """SIMD lanes of an engine, each with its own output (count)."""
    macs_per_lane: CountQuantity
    """Depth of the dot product in a lane: MACs along the inner dimension in one cycle (count)."""
    accumulator_bits: CountQuantity
    """Width of the accumulator inside the array, bits."""
    energy_pj_per_mac: NonNegativeQuantity
    """Dynamic energy of a MAC with the registers and buffers of its engine, pJ."""

    @property
    def inner_per_cycle(self) -> int:
        """Elements of the inner dimension that the array consumes in a cycle: rows x MACs per lane."""
        return self.rows.value * self.macs_per_lane.value

    @property
    def outputs_per_cycle(self) -> int:
        """Outputs that the array accumulates side by side: columns x lanes."""
        return self.columns.value * self.lanes.value

    @property
    def macs_per_cycle(self) -> int:
        """MACs of one array in a cycle: rows x columns x lanes x MACs per lane."""
        return self.inner_per_cycle * self.outputs_per_cycle


class WeightBlocks(Block):
    """Register blocks that hold the weights of an array whose timing is `blocked`."""

    register_block_bytes: CountQuantity
    """Weights that one array holds at a time, bytes."""
    weight_path_bytes_per_cycle: PositiveQuantity
    """Path from scratchpad to register blocks of one core, shared by its arrays, bytes per cycle."""
    block_swap_cycles: NonNegativeCountQuantity
    """Cycles that an array idles whenever it turns to the next block."""
    double_buffered_weights: bool
    """Whether the next block loads while the array computes on the present one."""


class WeightDecoder(Block):
    """A unit of a core that expands stored weights on their way from the scratchpad to its arrays.

    It looks codebook codes up in their table of INT8 values and puts N:M sparse weights in their places: dense with
    zeros, or beside their positions for an array that skips zeros. Without one both take neither time nor energy.
    """

    weights_per_cycle: PositiveQuantity
    """Weights that leave it in a cycle, of all arrays of the core."""
    energy_pj_per_weight: NonNegativeQuantity
    """Dynamic energy of a weight that leaves it, pJ."""


class StructuredSparsity(Block):
    """N:M sparse weights whose zeros an array skips: each MAC selects its activation among `group`.

    `keep` MACs then do the work of `group`, which multiplies the rate by group / keep, 2 at 2:4. It needs
    weights of the same M that keep `keep` or fewer (1:4 is computed as 2:4); others are computed dense.
    """

    keep: CountQuantity
    """N, MACs for each group of weights (count)."""
    group: CountQuantity
    """M, neighbours along the inner dimension of which N are kept (count)."""
    energy_pj_per_mac: NonNegativeQuantity
    """Dynamic energy of selecting the activation of a MAC that is done, pJ."""


class MacArray(Block):
    """The MAC arrays of a core, the formats they compute, and how their time is counted."""

    arrays_per_core: CountQuantity
    """Arrays (corelets) in a core (count)."""
    dataflow: Literal["weight_stationary", "output_stationary", "input_stationary"]
    """Operand that stays in the array while the others stream."""
    timing: Literal["systolic", "blocked"]
    """`systolic`: skewed array, weights enter through the rows; `blocked`: weights sit in register blocks."""
    charge_fill: bool = True
    """Whether the cycles that load weights and fill the pipeline count."""
    charge_drain: bool = True
    """Whether the cycles that drain the pipeline count."""
    weight_blocks: WeightBlocks | None = None
    """Register blocks; given exactly when the timing is `blocked`."""
    formats: Annotated[Mapping[str, ArrayFormat], Field(min_length=1, json_schema_extra=allow_origin)]
    """Formats that the array computes natively, by name."""
    fallback: Mapping[str, str] = Field(default_factory=dict)
    """Formats that it does not compute, each with the native format that runs them instead."""
    weight_decoder: WeightDecoder | None = None
    """Unit that expands codebooks and N:M sparse weights; left out when that is not modelled."""
    structured_sparsity: StructuredSparsity | None = None
    """Zeros that the arrays skip; left out when they compute every one."""


class VectorFunction(Block):
    """One elementwise function of the vector unit."""

    elements_per_cycle: PositiveQuantity
    """Elements per cycle and core (may be below 1)."""
    energy_pj: NonNegativeQuantity
    """Dynamic energy of one element, with register access and control, pJ."""


class VectorFunctions(Block):
    """Rate and energy of each elementwise function."""

    add: VectorFunction
    """Sum or difference of two elements, and the step of a reduction."""
    multiply: VectorFunction
    """Product of two elements; scaling."""
    sigmoid: VectorFunction
    """Logistic function."""
    tanh: VectorFunction
    """Hyperbolic tangent."""
    exp: VectorFunction
    """Exponential; also the logarithm of a log-softmax."""
    divide: VectorFunction
    """Quotient or reciprocal."""
    sqrt: VectorFunction
    """Square root or its reciprocal."""
    compare: VectorFunction
    """Comparison, maximum, select."""
    lookup: VectorFunction
    """Table look-up: embedding rows, codebook codes to values."""
    convert: VectorFunction
    """Conversion between formats: quantize, dequantize, round and clip."""


class VectorUnit(Block):
    """The elementwise unit of a core."""

    latency_cycles: NonNegativeCountQuantity
    """Cycles from issue to first result of an operation."""
    functions: VectorFunctions
    """Rate and energy of each function."""


class Scratchpad(Block):
    """Software-managed on-chip memory."""

    capacity_bytes: CountQuantity
    """Capacity, bytes: of each core when the scope is `core`, of the whole machine when it is `shared`."""
    scope: Literal["core", "shared"]
    """Whether each core has one, or all cores share one."""
    bandwidth_bytes_per_cycle: PositiveQuantity
    """Reads and writes together, bytes per cycle: per core when the scope is `core`, else in all."""
    read_energy_pj_per_bit: NonNegativeQuantity
    """Dynamic energy of reading a bit, pJ."""
    write_energy_pj_per_bit: NonNegativeQuantity
    """Dynamic energy of writing a bit, pJ."""


class OperandBuffer(Block):
    """Small memory (L0) between scratchpad and array; one beside each array."""

    capacity_bytes: CountQuantity
    """Capacity of one buffer, bytes."""
    bandwidth_bytes_per_cycle: PositiveQuantity
    """Bytes per cycle into one array."""
    energy_pj_per_bit: NonNegativeQuantity
    """Dynamic energy of moving a bit through it, pJ; 0 when the energy of a MAC already includes it."""


class Memory(Block):
    """On-chip memory and how it is divided."""

    scratchpad: Scratchpad
    """The scratchpad."""
    operand_buffer: OperandBuffer | None = None
    """The buffers beside the arrays; left out when there are none, or when they are not modelled."""
    stream_buffer_fraction: FractionQuantity
    """Part of the scratchpad that is kept for the double-buffered tiles of streamed weights."""
    activation_fraction: FractionQuantity
    """Part of the scratchpad that is kept for the double-buffered tiles of activations that come from DRAM."""
    weight_residency: bool
    """Whether weights may stay in the rest of the scratchpad from one recurrent step to the next."""


class Dram(Block):
    """External memory."""

    bandwidth_bytes_per_s: PositiveQuantity
    """Peak bandwidth, bytes per second, reads and writes together."""
    efficiency: FractionQuantity
    """Part of the peak that long transfers reach."""
    latency_s: NonNegativeQuantity
    """Time from a request to its first byte, s."""
    energy_pj_per_bit: NonNegativeQuantity
    """Energy of moving a bit, device and interface, pJ."""
    burst_bytes: CountQuantity
    """Smallest transfer; shorter ones cost as much, bytes."""


class Interconnect(Block):
    """Ring or mesh between the cores."""

    bytes_per_cycle: PositiveQuantity
    """Bytes per cycle, link and direction."""
    hop_latency_cycles: NonNegativeCountQuantity
    """Cycles from a core to its neighbour."""
    energy_pj_per_bit: NonNegativeQuantity
    """Dynamic energy of moving a bit over one hop, pJ."""


class Host(Block):
    """The processor that steers the search, and its link to the device."""

    per_step_s: NonNegativeQuantity
    """Control time of one decode step, s."""
    per_hypothesis_s: NonNegativeQuantity
    """Further control time for each live hypothesis and step (expand, sort, merge), s."""
    per_launch_s: NonNegativeQuantity
    """Time to start one network on the device, s; not spent with a persistent kernel."""
    power_w: NonNegativeQuantity
    """Power while the host works, W."""
    link_bandwidth_bytes_per_s: PositiveQuantity
    """Bandwidth between host and device, bytes per second and direction."""
    link_latency_s: NonNegativeQuantity
    """Time from a request on the link to its first byte, s."""
    link_energy_pj_per_bit: NonNegativeQuantity
    """Energy of moving a bit over the link, pJ."""
    persistent_kernel: bool
    """Whether one kernel stays on the device over all decode steps: its weights stay in the scratchpads, and DMA
    runs ahead of the host's decision. Otherwise the host launches each network of a step when the one before is
    done, and a launch finds empty scratchpads."""
    state_cache: Literal["device", "host"]
    """Where states of hypotheses are kept; from `host`, the state of each evaluated row crosses the link."""
    calls_assumption: str
    """Why `persistent_kernel` and `state_cache` are as they are."""
