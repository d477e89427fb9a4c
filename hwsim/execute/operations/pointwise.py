"""Look-ups, element-wise functions and the log-softmax head."""

from __future__ import annotations

import numpy as np

from hwsim.execute.operations.base import Array, Operation, Parameters, Run, names, same_codes
from hwsim.execute.operations.row import Row
from hwsim.execute.projection import storage
from hwsim.numerics.quantizers import check_codes
from hwsim.numerics.rounding import Reals
from hwsim.trace import Function

_ADDING = (Function.ADD, Function.ADD_TANH, Function.ADD_RELU)
_MULTIPLYING = (Function.MULTIPLY, Function.MULTIPLY_TANH, Function.MULTIPLY_RELU)
_TANH = (Function.TANH, Function.ADD_TANH, Function.MULTIPLY_TANH)
_RELU = (Function.RELU, Function.ADD_RELU, Function.MULTIPLY_RELU)


class Lookup(Operation):
    """out (m, N) = table[labels]."""

    def __init__(self, row: Row, given: Parameters) -> None:
        row.expect(len(row.activations), weights=1)
        labels = names(row)[0] if row.activations else f"{row.layer}.labels"
        super().__init__(row.layer, (labels,), (row.writes[0].name,))
        assert row.weight is not None
        self.weight, network = row.weight, given.network
        self.codes = given.array(row.weight)
        quantizer, output = network.grid(row.weight.name), network.grid(self.writes[0])
        if quantizer is not None:
            check_codes(self.codes, quantizer.code_range, row.weight.name)
        if output is None:
            self.table = network.reals(row.weight.name, self.codes)
        elif quantizer is not None and same_codes(quantizer, output):
            self.table = self.codes.astype(storage(output))
        else:
            self.table = output.quantize(network.reals(row.weight.name, self.codes)).astype(storage(output))

    def run(self, run: Run) -> None:
        """Store the rows of the labels."""
        labels = check_codes(run[self.reads[0]], (0, len(self.table) - 1), f"{self.layer}: labels")
        run.keep(self.writes[0], self.table[labels.reshape(-1)])

    def parameters(self) -> dict[str, Array]:
        """The table."""
        return {self.weight.name: self.codes}


class Elementwise(Operation):
    """out = function(a[, b]), in float64 and in the order of the training graph; sigmoid and tanh by shared tables."""

    def __init__(self, row: Row, given: Parameters) -> None:
        two = row.function in (*_ADDING, *_MULTIPLYING)
        row.expect(2 if two else 1)
        super().__init__(row.layer, names(row), (row.writes[0].name,))
        self.function = row.function

    def run(self, run: Run) -> None:
        """Store the function's values."""
        operands = [run.reals(name) for name in self.reads]
        run.put(self.writes[0], self._values(run, *operands))

    def _values(self, run: Run, a: Reals, b: Reals | None = None) -> Reals:
        function, rules = self.function, run.network.rules
        if b is not None:
            a = a + b if function in _ADDING else a * b
        if function in _TANH:
            return rules.tanh(a)
        if function == Function.SIGMOID:
            return rules.sigmoid(a)
        return np.maximum(a, 0.0) if function in _RELU else a


class LogSoftmax(Operation):
    """out = log softmax(x) over the last axis."""

    def __init__(self, row: Row, given: Parameters) -> None:
        row.expect(1)
        super().__init__(row.layer, names(row), (row.writes[0].name,))

    def run(self, run: Run) -> None:
        """Store the logarithms."""
        run.put(self.writes[0], log_softmax(run.reals(self.reads[0])))


def log_softmax(x: Reals) -> Reals:
    """x - max - log(sum(exp(x - max))) over the last axis, in float64."""
    shifted = x - x.max(axis=-1, keepdims=True)
    result: Reals = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
