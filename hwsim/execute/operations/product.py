"""Products with weights."""

from __future__ import annotations

import numpy as np

from hwsim.errors import HwsimError
from hwsim.execute.operations.base import Array, Operation, Parameters, Run, names
from hwsim.execute.operations.row import Row
from hwsim.execute.projection import AnyProjection, PackedProjection
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
        self.projection = given.projection(self.weight, self.bias, self.reads[0])
        given.products[self.writes[0]] = self.projection

    def run(self, run: Run) -> None:
        """Store the sums, or their codes."""
        run.put(self.writes[0], self.projection.sums(self._operand(run)))

    def parameters(self) -> dict[str, Array]:
        """Weight and bias."""
        return weight_codes(self.projection, self.weight, self.bias)

    def projections(self) -> dict[str, AnyProjection]:
        """The weight."""
        return {self.weight.name: self.projection}

    def _operand(self, run: Run) -> Array:
        """The activations (m, K): codes on the input grid, or reals for real weights."""
        grid = self.projection.input if isinstance(self.projection, PackedProjection) else None
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
