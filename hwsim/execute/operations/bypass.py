"""The bypass around a layer over time, whose output has fewer rows than its input."""

from __future__ import annotations

import math

import numpy as np

from hwsim.execute.operations.base import Operation, Parameters, Run, names
from hwsim.execute.operations.row import Row


class Bypass(Operation):
    """out (T', D) = max(0, a (T', D)) + scale b[first + step i], b (T, D).

    `scale`, a positive real, `first` and `step` (0 and 1 without them) are attributes of the layer. In float64: the
    product with the scale, then the sum, then the grid of the output, if any, in every profile.
    """

    def __init__(self, row: Row, given: Parameters) -> None:
        row.expect(2)
        super().__init__(row.layer, names(row), (row.writes[0].name,))
        scale = row.attributes.get("scale")
        if not isinstance(scale, int | float) or not 0 < scale < math.inf:
            raise row.refuse(f"must have a positive and finite scale, got {scale}")
        self.scale = float(scale)
        self.first, self.step = row.attributes.get("first", 0), row.attributes.get("step", 1)
        for name, value, least in (("first", self.first, 0), ("step", self.step, 1)):
            if type(value) is not int or value < least:
                raise row.refuse(f"must have a {name} of {least} or more, got {value}")
        a, b = (tensor.shape for tensor in row.activations)
        row.expect_shapes((row.m, row.n), (b[0], row.n), (row.m, row.n))
        self.rows = a[0]
        last = self.first + self.step * (self.rows - 1)
        if last >= b[0]:
            raise row.refuse(f"must read rows below {b[0]}, got row {last}")
        self.streams = False

    def run(self, run: Run) -> None:
        """Store the sums."""
        a, b = (run.reals(name) for name in self.reads)
        taken = b[self.first : self.first + self.step * self.rows : self.step]
        run.put(self.writes[0], np.maximum(a, 0.0) + self.scale * taken)
