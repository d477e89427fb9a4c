"""Layer normalization."""

from __future__ import annotations

import math

from hwsim.execute.operations.base import Array, Operation, Parameters, Run, names
from hwsim.execute.operations.row import Row
from hwsim.execute.reference.pointwise import layer_norm_values, real_layer_norm

EPSILON = 1e-5
MOST_ELEMENTS = 2**15
"""Below it the integers of `layer_norm` stay in 63 bits with 16-bit codes."""


class Norm(Operation):
    """out (T, D) = (x - mean) / sqrt(variance + epsilon) gamma + beta over each row of x (T, D).

    From codes: the integers of `reference.pointwise.layer_norm`; from reals: float64, (x - mean) / sqrt(mean of
    (x - mean)^2 + epsilon) gamma + beta. Then the grid of the output, if any. No profile has a rule of its own.
    """

    def __init__(self, row: Row, given: Parameters) -> None:
        row.expect(1, biases=(2,))
        row.expect_shapes((row.m, row.n), (row.m, row.n))
        super().__init__(row.layer, names(row), (row.writes[0].name,))
        if any(vector.shape != (row.n,) for vector in row.biases):
            found = " and ".join(str(vector.shape) for vector in row.biases)
            raise row.refuse(f"must have gamma and beta of ({row.n},), got {found}")
        self.input = given.network.grid(self.reads[0])
        if self.input is not None and (self.input.scale.size != 1 or row.n >= MOST_ELEMENTS):
            raise row.refuse(f"must have one scale and fewer than {MOST_ELEMENTS} elements a row, got "
                             f"{self.input.scale.size} and {row.n}")  # fmt: skip
        self.epsilon = row.attributes.get("epsilon", EPSILON)
        if not isinstance(self.epsilon, (int, float)) or not 0 < self.epsilon < math.inf:
            raise row.refuse(f"must have a positive and finite epsilon, got {self.epsilon}")
        self.gamma, self.beta = (given.reals(vector) for vector in row.biases)
        self._given = {vector.name: given.array(vector) for vector in row.biases}

    def run(self, run: Run) -> None:
        """Store the normalized rows."""
        if self.input is None:
            values = real_layer_norm(run.reals(self.reads[0]), self.gamma, self.beta, self.epsilon)
        else:
            codes = run.codes(self.reads[0], self.input)
            values = layer_norm_values(codes, self.input, self.gamma, self.beta, self.epsilon)
        run.put(self.writes[0], values)

    def parameters(self) -> dict[str, Array]:
        """gamma and beta."""
        return dict(self._given)
