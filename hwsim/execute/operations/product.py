"""Products with weights."""

from __future__ import annotations

import numpy as np

from hwsim.errors import HwsimError
from hwsim.execute.dynamic import DynamicCodes
from hwsim.execute.operations.base import INPUT, Array, Network, Operation, Parameters, Run, names
from hwsim.execute.operations.row import Row
from hwsim.execute.projection import AnyProjection, PackedProjection, Sums
from hwsim.numerics.quantizers import Quantizer
from hwsim.trace import Tensor


def weight_codes(chosen: AnyProjection, weight: Tensor, bias: Tensor | None) -> dict[str, Array]:
    """Codes of a projection's weight and its bias, by name."""
    found = {weight.name: chosen.codes_of_weight().reshape(weight.shape)}
    return found if bias is None else found | {bias.name: chosen.bias}


class Product(Operation):
    """out (m, N) = [x ...] (m, K) @ weight (K, N) + bias; x of fewer columns than K is stacked row by row."""

    def __init__(self, row: Row, given: Parameters) -> None:
        row.expect(max(1, len(row.activations)), weights=1, biases=(0, 1))
        super().__init__(row.layer, names(row), (row.writes[0].name,))
        assert row.weight is not None
        self.weight, self.bias = row.weight, row.biases[0] if row.biases else None
        self.rows = row.m
        self.reads_rows = len(self.reads) == 1 and row.activations[0].shape[-1] == self.weight.shape[0]
        """Its rows are those of the tensor that it reads, neither joined nor stacked."""
        self.projection = given.projection(self.weight, self.bias, self.reads[0])
        given.products[self.writes[0]] = self.projection
        self._check_rows(row, given.network)

    def run(self, run: Run) -> None:
        """Store the sums, or their codes."""
        run.put(self.writes[0], self._sums(run))

    def parameters(self) -> dict[str, Array]:
        """Weight and bias."""
        return weight_codes(self.projection, self.weight, self.bias)

    def projections(self) -> dict[str, AnyProjection]:
        """The weight."""
        return {self.weight.name: self.projection}

    def _check_rows(self, row: Row, network: Network) -> None:
        """Raises HwsimError where rows of codes, each with its scale, would be parts of the product's rows."""
        if self.reads_rows or self.weight.name + INPUT in network.quantizers:
            return
        for tensor in row.activations:
            if network.dynamic(tensor.name) is not None and isinstance(self.projection, PackedProjection):
                raise row.refuse(f"must have a grid {self.weight.name}{INPUT}, for its rows are joined of {tensor.name}"
                                 ", whose grid is found at run time")  # fmt: skip

    def _sums(self, run: Run) -> Sums:
        chosen = self.projection
        if not isinstance(chosen, PackedProjection):
            return chosen.sums(self._operand(run, None))
        if chosen.dynamic is None:
            return chosen.sums(self._operand(run, chosen.input))
        stored, same = run[self.reads[0]], run.network.dynamic(self.reads[0]) == chosen.dynamic
        if same and self.reads_rows and isinstance(stored, DynamicCodes):
            return chosen.row_sums(stored.first(self.rows))
        return chosen.row_sums(DynamicCodes.of(chosen.dynamic, self._operand(run, None)))

    def _operand(self, run: Run, grid: Quantizer | None) -> Array:
        """The activations (m, K): codes on the input grid, or reals."""
        parts = [run.codes(name, grid) for name in self.reads]
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
        depth = self.weight.shape[0]
        if joined.shape[-1] == depth:
            return joined[: self.rows]
        rows = min(self.rows, -(-joined.size // depth))
        stacked = np.zeros((rows, depth), joined.dtype)
        if depth % joined.shape[-1] or stacked.size < joined.size:
            raise HwsimError(f"{self.layer}: activations {joined.shape} must fill ({self.rows}, {depth})")
        if grid is not None:
            stacked[...] = int(grid.zero_point)
        stacked.reshape(-1)[: joined.size] = joined.reshape(-1)
        return stacked
