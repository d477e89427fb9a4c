"""Look-ups, element-wise functions and the log-softmax head."""

from __future__ import annotations

import numpy as np

from hwsim.execute.operations.base import Array, Network, Operation, Parameters, Run, names, same_codes
from hwsim.execute.operations.row import Row
from hwsim.execute.projection import storage
from hwsim.execute.recurrence import LstmRules
from hwsim.execute.reference.pointwise import products, requantize_codes
from hwsim.numerics.quantizers import Quantizer, check_codes
from hwsim.numerics.rounding import Integers, Reals
from hwsim.numerics.tables import Table
from hwsim.trace import Function

_ADDING = (Function.ADD, Function.ADD_TANH, Function.ADD_RELU, Function.ADD_HALF)
_MULTIPLYING = (Function.MULTIPLY, Function.MULTIPLY_TANH, Function.MULTIPLY_RELU)
_INTEGER_PRODUCTS = (Function.MULTIPLY, Function.MULTIPLY_RELU, Function.GLU)
_TANH = (Function.TANH, Function.ADD_TANH, Function.MULTIPLY_TANH)
_RELU = (Function.RELU, Function.ADD_RELU, Function.MULTIPLY_RELU)


class Lookup(Operation):
    """out (m, N) = table[labels]; with the attribute `columns` of its layer, columns of a table (N, V).

    Such a table is a product's matrix as well, with scales of words or groups of them where it has some.
    """

    def __init__(self, row: Row, given: Parameters) -> None:
        row.expect(len(row.activations), weights=1)
        labels = names(row)[0] if row.activations else f"{row.layer}.labels"
        super().__init__(row.layer, (labels,), (row.writes[0].name,))
        assert row.weight is not None
        self.weight, network = row.weight, given.network
        self.codes = given.array(row.weight)
        columns = row.attributes.get("columns", False)
        if columns and self.codes.shape[0] != row.n:
            raise row.refuse(f"must read columns of {row.n}, got a table of shape {self.codes.shape}")
        quantizer, output = network.grid(row.weight.name), network.grid(self.writes[0])
        if quantizer is not None:
            check_codes(self.codes, quantizer.code_range, row.weight.name)
        if output is None:
            self.table = network.reals(row.weight.name, self.codes)
        elif quantizer is not None and same_codes(quantizer, output):
            self.table = self.codes.astype(storage(output))
        else:
            self.table = output.quantize(network.reals(row.weight.name, self.codes)).astype(storage(output))
        if columns:
            self.table = np.ascontiguousarray(self.table.T)

    def run(self, run: Run) -> None:
        """Store the rows of the labels."""
        labels = check_codes(run[self.reads[0]], (0, len(self.table) - 1), f"{self.layer}: labels")
        run.keep(self.writes[0], self.table[labels.reshape(-1)])

    def parameters(self) -> dict[str, Array]:
        """The table."""
        return {self.weight.name: self.codes}


class Elementwise(Operation):
    """out = function(a[, b]); b may be a parameter (D,), a real that is broadcast. Sigmoid and tanh by shared tables.

    Float64, in the order of the training graph: a + b, a b, a + 0.5 b, a sigmoid(a), and for GLU a sigmoid(b) of rows
    a|b; then the grid of the output, if any. A function of one variable on a grid is a table over its codes.
    Profiles with an integer bias: products of two grids (MULTIPLY, MULTIPLY_RELU, and GLU, whose second grid is the
    sigmoid table's) are integers of scale sa sb that one multiplier makes codes (`to_codes`), and a change of grid
    (NONE, RELU) is `requantize_codes`. Sums are real in every profile (`reference.pointwise.add`), swish, sigmoid and
    tanh tables in every profile: no other runtime's rule is modelled. So is what involves a real, a grid of more than
    one scale or one without a level at zero.
    """

    def __init__(self, row: Row, given: Parameters) -> None:
        self.function, network = row.function, given.network
        two = row.function in (*_ADDING, *_MULTIPLYING)
        vectors = min(len(row.biases), 1) if two else 0
        row.expect(2 - vectors if two else 1, biases=(vectors,))
        super().__init__(row.layer, names(row), (row.writes[0].name,))
        _check_shapes(row)
        self._given = {vector.name: given.array(vector) for vector in row.biases}
        self.vector = given.reals(row.biases[0]) if vectors else None
        self.input, self.output = network.grid(self.reads[0]), network.grid(self.writes[0])
        grids = [self.output, *(network.grid(name) for name in self.reads)]
        known = not vectors and all(grid is not None and _plain(grid) for grid in grids)
        known &= isinstance(network.rules.sigmoid, Table) or self.function != Function.GLU
        self.integer = known and network.semantics.bias == "integer"
        self.values: Reals | None = None
        self.codes: Array | None = None
        if not two and self.function != Function.GLU and self.input is not None and self.input.scale.size == 1:
            self._build_table(network, self.input)

    def run(self, run: Run) -> None:
        """Store the function's values."""
        if self.values is not None and self.input is not None:
            at = run.codes(self.reads[0], self.input).astype(np.int64) - self.input.code_range[0]
            if self.codes is None:
                run.put(self.writes[0], self.values[at])
            else:
                run.keep(self.writes[0], self.codes[at], None if run.steps is None else self.values[at])
        elif self.integer and self.function in _INTEGER_PRODUCTS:
            run.put_integers(self.writes[0], *self._products(run))
        else:
            operands = [run.reals(name) for name in self.reads]
            run.put(self.writes[0], self._values(run, *operands, *([] if self.vector is None else [self.vector])))

    def parameters(self) -> dict[str, Array]:
        """The vector that is broadcast."""
        return dict(self._given)

    def _values(self, run: Run, a: Reals, b: Reals | None = None) -> Reals:
        rules = run.network.rules
        if self.function == Function.GLU:
            gated, gate = np.split(a, 2, axis=-1)
            result: Reals = gated * rules.sigmoid(gate)
            return result
        if b is None:
            return _of_one(self.function, a, rules)
        if self.function in _MULTIPLYING:
            return _of_one(self.function, a * b, rules)
        return _of_one(self.function, a + (0.5 * b if self.function == Function.ADD_HALF else b), rules)

    def _products(self, run: Run) -> tuple[Integers, float]:
        first = self.input
        assert first is not None
        if self.function == Function.GLU:
            gate = run.network.rules.sigmoid
            assert isinstance(gate, Table)
            a, b = np.split(run.codes(self.reads[0], first), 2, axis=-1)
            return products(a, gate.lookup(gate.input.quantize(first.dequantize(b))), first, gate.output)
        second = run.network.grid(self.reads[1])
        assert second is not None
        integers, scale = products(run.codes(self.reads[0], first), run.codes(self.reads[1], second), first, second)
        return np.maximum(integers, 0) if self.function in _RELU else integers, scale

    def _build_table(self, network: Network, input: Quantizer) -> None:
        low, high = input.code_range
        every = np.arange(low, high + 1)
        self.values = _of_one(self.function, input.dequantize(every), network.rules)
        if self.output is None or self.output.scale.size != 1:
            return
        codes = self.output.quantize(self.values)
        if self.integer and self.function in (Function.NONE, Function.RELU):
            codes = requantize_codes(every, input, self.output, network.semantics)
            codes = np.maximum(codes, self.output.zero_point) if self.function == Function.RELU else codes
        self.codes = codes.astype(storage(self.output))


def _of_one(function: Function, x: Reals, rules: LstmRules) -> Reals:
    """What remains of a function once its operands are added or multiplied."""
    if function in _TANH:
        return rules.tanh(x)
    if function == Function.SIGMOID:
        return rules.sigmoid(x)
    if function == Function.SWISH:
        return x * rules.sigmoid(x)
    return np.maximum(x, 0.0) if function in _RELU else x


def _check_shapes(row: Row) -> None:
    """Raises HwsimError when two operands do not broadcast, or GLU does not halve its rows."""
    if row.function == Function.GLU:
        out = row.writes[0].shape
        row.expect_shapes((*out[:-1], 2 * out[-1]), out)
    shapes = [tensor.shape for tensor in (*row.activations, *row.biases)]
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        raise row.refuse(f"must have operands that broadcast, got {' and '.join(map(str, shapes))}") from None


def _plain(grid: Quantizer) -> bool:
    return grid.scale.size == 1 and not grid.half_step


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
