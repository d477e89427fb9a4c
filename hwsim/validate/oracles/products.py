"""A chain of operations in which another runtime computes the products and the readable reference the rest."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from hwsim.execute.executor import Executable
from hwsim.execute.operations import read_operations
from hwsim.execute.operations.base import Operation, Parameters, Run
from hwsim.execute.projection import AnyProjection, PackedProjection, Sums
from hwsim.execute.semantics import Semantics
from hwsim.numerics.quantizers import Quantizer
from hwsim.numerics.rounding import Integers
from hwsim.trace import Tensor
from hwsim.validate.oracles.base import Array, Computed, Oracle, float32_grids, start_run, with_rules, written
from hwsim.validate.report import Source, Tier

ROUNDED = "scales are rounded to float32 on both sides, in which the runtime stores them"
NO_PRODUCT = "no integer product with weights"


class ProductOracle(Oracle):
    """A runtime of integer products: codes where a product has a grid, int32 sums where the runtime gives them.

    `codes` and `sums` return None for what the runtime does not do, and say why in `why`.
    """

    tier: Tier = "T0"
    version: str
    profile: Semantics
    text: str

    def __init__(self) -> None:
        self.why: dict[str, None] = {}
        """Reasons of the operation that runs, in the order in which they came up."""
        self.used: dict[str, None] = {}
        """What of the runtime ran in it."""
        self.notes: dict[str, None] = {ROUNDED: None}

    @abstractmethod
    def codes(self, product: RuntimeProjection, x: Array, output: Quantizer) -> Integers | None:
        """Codes (M, N) of `output` for activation codes `x` (M, K), bias included."""

    def sums(self, product: RuntimeProjection, x: Array) -> Integers | None:
        """Sums (G, M, N) of products, zero points included, for activation codes `x` (M, K)."""
        return None

    def run(self, operation: Operation, run: Run, parameters: RuntimeParameters) -> None:
        """Run an operation; here in the runtime where it computes more than products with weights."""
        operation.run(run)

    def executable(self, given: Executable) -> Executable:
        """The network by the profile, with float32 scales."""
        return with_rules(given, self.profile, float32_grids(given))

    def compute(self, executable: Executable, inputs: Mapping[str, Array]) -> Computed:
        """Every output, in one free run of the oracle's own chain."""
        run = start_run(executable, inputs)
        parameters = RuntimeParameters(executable, self)
        sums: dict[str, dict[str, None]] = {}
        partly: dict[str, str] = {}
        absent: dict[str, str] = {}
        for operation in read_operations(executable.trace, parameters):
            self.why.clear()
            self.used.clear()
            # Sums that were not stored as codes: the runtime computed them, and this operation reads them.
            self.used.update(item for name in operation.reads for item in sums.get(name, {}).items())
            self.run(operation, run, parameters)
            sums |= {
                name: dict(self.used) for name in operation.writes if isinstance(run.values.get(name), RuntimeSums)
            }
            self._account(operation, executable, partly, absent)
        codes = written(executable, run)
        source = Source(
            self.name, self.version, executable.semantics.name, self.text, tuple(self.notes), partly, absent
        )
        return Computed(codes, source, run.steps or {}, tuple(name for name in codes if name not in absent))

    def _account(
        self, operation: Operation, executable: Executable, partly: dict[str, str], absent: dict[str, str]
    ) -> None:
        """Say of what the operation wrote how much the runtime computed."""
        for name in operation.writes:
            if name not in executable.outputs or name in executable.cells:
                continue
            whole = any(not used.endswith("sums") for used in self.used)
            if not self.used:
                absent[name] = f"{'; '.join(self.why) or NO_PRODUCT}; computed by the readable reference"
            elif not whole:
                partly[name] = f"{', '.join(self.used)}; the rest by the readable reference"


@dataclass(frozen=True, slots=True, eq=False)
class RuntimeProjection(PackedProjection):
    """Weights whose products another runtime computes."""

    name: str = field(kw_only=True)
    oracle: ProductOracle = field(kw_only=True)

    def sums(self, codes: Array) -> Sums:
        """The runtime's sums, where it has them."""
        plain = PackedProjection.sums(self, codes)
        integers = self.oracle.sums(self, codes)
        return RuntimeSums(
            plain.integers if integers is None else integers, plain.scale, plain.bias, plain.grids, plain.semantics,
            product=self, activations=codes,
        )  # fmt: skip

    @property
    def groups(self) -> int:
        """Groups of K with their own scales."""
        return len(self.scale)


@dataclass(frozen=True, slots=True, eq=False)
class RuntimeSums(Sums):
    """Sums that know what they were made of, for a runtime that goes from activations to codes in one step."""

    product: RuntimeProjection = field(kw_only=True)
    activations: Array = field(kw_only=True)

    def codes(self, output: Quantizer) -> Integers:
        """Codes by the runtime, or by the readable reference where it has none."""
        found = self.product.oracle.codes(self.product, self.activations, output)
        if found is None:
            return Sums.codes(self, output)
        # A grid of fewer codes than the runtime's type: clipping twice is clipping once.
        return np.clip(found.astype(np.int64), *output.code_range).reshape(self.integers.shape[1:])


class RuntimeParameters(Parameters):
    """Parameters whose packed weights are multiplied by a runtime."""

    def __init__(self, executable: Executable, oracle: ProductOracle) -> None:
        super().__init__(executable.network, oracle.parameters(executable))
        self.oracle = oracle

    def projection(self, weight: Tensor, bias: Tensor | None, x: str, matrix: bool = True) -> AnyProjection:
        """The projection of an executable, whose products the runtime computes."""
        found = super().projection(weight, bias, x, matrix)
        if not isinstance(found, PackedProjection) or isinstance(found, RuntimeProjection):
            return found
        made = RuntimeProjection(
            None, found.codes, found.weights, found.input, found.scale, found.bias, found.semantics, found.coding,
            name=weight.name, oracle=self.oracle,
        )  # fmt: skip
        self._projections[weight.name] = made
        return made


def signed(codes: Array, grid: Quantizer) -> tuple[Array, int]:
    """Codes as int8 with their zero point: unsigned ones and their zero point are moved down by 128."""
    shift = 0 if grid.code_range[0] < 0 else 128
    return (codes.astype(np.int64) - shift).astype(np.int8), int(grid.zero_point.reshape(())) - shift


def fits_bytes(grid: Quantizer) -> bool:
    """Whether the codes are those of one byte."""
    low, high = grid.code_range
    return low >= -128 and high <= 255 and high - low <= 255 and (low >= 0 or high <= 127)
