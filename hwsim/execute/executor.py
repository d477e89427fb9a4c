"""The second reading of the trace: the same operations, run on integer codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError, nearest
from hwsim.execute.projection import AnyProjection, PackedProjection, Sums, projection, real_projection, storage
from hwsim.execute.recurrence import LstmRules, run_direction
from hwsim.execute.semantics import TRAINING, Semantics
from hwsim.execute.steps import Direction, Elementwise, LogSoftmax, Lookup, Product, Recurrence, Step, read_steps
from hwsim.numerics.quantizers import Quantizer, check_codes
from hwsim.numerics.rounding import Reals
from hwsim.trace import Function, Role, Tensor, Trace

Array = npt.NDArray[Any]
Outputs = dict[str, Array]
INPUT = ".input"

_ADDING = (Function.ADD, Function.ADD_TANH, Function.ADD_RELU)
_MULTIPLYING = (Function.MULTIPLY, Function.MULTIPLY_TANH, Function.MULTIPLY_RELU)
_TANH = (Function.TANH, Function.ADD_TANH, Function.MULTIPLY_TANH)
_RELU = (Function.RELU, Function.ADD_RELU, Function.MULTIPLY_RELU)


class Executable:
    """A trace with its weights, ready to run on codes.

    `codes`: by tensor name, the integer codes of weights and embedding tables that have a quantizer, and reals for
    those that have none; biases are reals. `quantizers`: by tensor name, the grids of weights and of activations;
    an activation without one stays a real (float64). `"<weight>.input"` is the grid on which a product takes its
    activations when they are stored on another one, or as reals.
    `rules`: what an LSTM does between its gate sums and its states. `semantics`: the machine's rules for sums; others
    than `training` run through the readable reference, step by step, and are slow.

    Per layer, all in float64: y = sum (x - zx)(w - zw) (sx sw) + b, then codes by the grid of the output, if any.
    LSTM: (y_x) + (y_h), tables, c real or on a grid, h on its grid (`reference.recurrent`). Softmax is its logarithm.
    Raises HwsimError for operations that are not executed, missing or surplus names and codes out of range.
    """

    def __init__(
        self,
        trace: Trace,
        codes: Mapping[str, Array],
        quantizers: Mapping[str, Quantizer],
        *,
        rules: LstmRules | None = None,
        semantics: Semantics = TRAINING,
    ) -> None:
        self.trace = trace
        self.quantizers = dict(quantizers)
        self.rules = rules or LstmRules()
        self.semantics = semantics
        self.steps = read_steps(trace)
        self._tensors = {tensor.name: tensor for tensor in trace.tensors}
        _check_names(self._tensors, codes, self.quantizers)
        self._projections: dict[str, AnyProjection] = {}
        self._tables: dict[str, Array] = {}
        self._written: set[str] = set()
        for step in self.steps:
            self._prepare(step, codes)
        for name, quantizer in self.quantizers.items():
            if name in self._tensors and self._tensors[name].role != Role.WEIGHT:
                storage(quantizer)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names that `run` must be given: what a step reads and none before it writes."""
        read: dict[str, None] = {}
        written: set[str] = set()
        for step in self.steps:
            names, outs = _flow(step)
            read.update((name, None) for name in names if name not in written)
            written.update(outs)
        return tuple(read)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names that `run` returns: all that steps write but the gate sums of LSTM layers."""
        gates = {d.gates_x for step in self.steps if isinstance(step, Recurrence) for d in step.directions}
        names = (name for step in self.steps for name in _flow(step)[1])
        return tuple(dict.fromkeys(name for name in names if name not in gates))

    @property
    def cells(self) -> tuple[str, ...]:
        """Names of the cell states of recurrent layers."""
        return tuple(d.c for step in self.steps if isinstance(step, Recurrence) for d in step.directions)

    @property
    def reversed_outputs(self) -> tuple[str, ...]:
        """Names of the hidden states that are computed from the last step to the first."""
        directions = (d for step in self.steps if isinstance(step, Recurrence) for d in step.directions)
        return tuple(d.h for d in directions if d.reverse)

    def run(self, inputs: Mapping[str, Array], forced: Mapping[str, Array] | None = None) -> Outputs:
        """Execute: codes (in their storage type) of every output with a quantizer, float64 of the others.

        `inputs`: by name, of the tensor's shape: integer codes, or reals that are quantized here; labels for an
        embedding. `forced` is teacher forcing: each step reads these tensors in place of what came out before it, a
        recurrent layer at every time step; with the cell states `c` of every step, (T, H) reals, those too.
        An LSTM's `h` is (T, H), its `c` the last one (1, H). Raises HwsimError for names, shapes and types that do
        not fit, and for NaN.
        """
        unknown = [name for name in inputs if name not in self.inputs]
        missing = [name for name in self.inputs if name not in inputs]
        if unknown:
            raise HwsimError(f"unknown input '{unknown[0]}'{nearest(unknown[0], self.inputs)}")
        if missing:
            raise HwsimError(f"inputs must hold {', '.join(self.inputs)}, got no {missing[0]}")
        values: dict[str, Any] = {name: self._accept(name, np.asarray(array)) for name, array in inputs.items()}
        teacher = {name: self._accept(name, np.asarray(array)) for name, array in (forced or {}).items()}
        results: Outputs = {}
        for step in self.steps:
            produced = self._execute(step, {**values, **teacher}, teacher if forced is not None else None)
            values.update(produced)
            results.update({k: v for k, v in produced.items() if not isinstance(v, Sums)})
        return results

    def dequantize(self, name: str, array: Array) -> Reals:
        """The reals of a tensor's codes; reals are returned as they are."""
        if name in self.quantizers and array.dtype.kind in "iu":
            return self.quantizers[name].dequantize(array)
        return np.asarray(array, np.float64)

    def _accept(self, name: str, array: Array) -> Array:
        """An input in its storage type: codes, or labels, or reals."""
        quantizer = self.quantizers.get(name)
        if not np.all(np.isfinite(array)):
            raise HwsimError(f"{name}: values must be finite, got NaN or an infinity")
        shape = self._tensors[name].shape if name in self._tensors else None
        if shape is not None and self._tensors[name].role == Role.ACTIVATION and array.shape != shape:
            raise HwsimError(f"{name}: must be of shape {shape}, got {array.shape}")
        if quantizer is None:
            return array if array.dtype.kind in "iu" else np.asarray(array, np.float64)
        if array.dtype.kind in "iu":
            return check_codes(array, quantizer.code_range, name).astype(storage(quantizer))
        return quantizer.quantize(array).astype(storage(quantizer))

    def _prepare(self, step: Step, codes: Mapping[str, Array]) -> None:
        if isinstance(step, Lookup):
            self._tables[step.table] = self._table(step, _given(codes, step.table))
        elif isinstance(step, Product):
            self._project(step.weight, step.bias, step.x[0], codes)
        elif isinstance(step, Recurrence):
            for d in step.directions:
                self._project(d.weight, d.bias, d.h, codes)

    def _project(self, weight: str, bias: str | None, x: str, codes: Mapping[str, Array]) -> None:
        if weight in self._projections:
            return
        array, offsets = np.asarray(_given(codes, weight)), None if bias is None else np.asarray(_given(codes, bias))
        if array.shape != self._tensors[weight].shape:
            raise HwsimError(f"{weight}: codes must be of shape {self._tensors[weight].shape}, got {array.shape}")
        quantizer, grid = self.quantizers.get(weight), self.quantizers.get(weight + INPUT, self.quantizers.get(x))
        if quantizer is None:
            self._projections[weight] = real_projection(weight, array, offsets)
        elif grid is None:
            raise HwsimError(f"{weight}: a quantizer must be given for {x} or {weight}{INPUT}, got neither")
        else:
            self._projections[weight] = projection(weight, array, quantizer, grid, offsets, self.semantics)

    def _table(self, step: Lookup, array: Array) -> Array:
        """The rows as what the output stores: its codes, or reals."""
        quantizer, output = self.quantizers.get(step.table), self.quantizers.get(step.out)
        if quantizer is not None:
            check_codes(array, quantizer.code_range, step.table)
        if output is None or (quantizer is not None and _same(quantizer, output)):
            reals = quantizer is not None and output is None
            return quantizer.dequantize(array) if reals else np.asarray(array).astype(  # type: ignore[union-attr]
                np.float64 if output is None else storage(output))  # fmt: skip
        values = array if quantizer is None else quantizer.dequantize(array)
        return output.quantize(values).astype(storage(output))

    def _execute(self, step: Step, values: Mapping[str, Any], teacher: Mapping[str, Any] | None) -> dict[str, Any]:
        if isinstance(step, Product):
            sums = self._projections[step.weight].sums(self._operand(step, values))
            return {step.out: self._store(step.out, sums)}
        if isinstance(step, Recurrence):
            produced: dict[str, Any] = {}
            for direction in step.directions:
                produced.update(self._recur(direction, values[direction.gates_x], teacher))
            return produced
        if isinstance(step, Lookup):
            table = self._tables[step.table]
            labels = check_codes(values[step.labels], (0, len(table) - 1), f"{step.layer}: labels")
            return {step.out: table[labels.reshape(-1)]}
        if isinstance(step, LogSoftmax):
            return {step.out: self._store(step.out, log_softmax(self._reals(step.x, values[step.x])))}
        return {step.out: self._store(step.out, self._elementwise(step, values))}

    def _recur(self, d: Direction, gates_x: Sums | Array, teacher: Mapping[str, Any] | None) -> dict[str, Any]:
        sums = gates_x if isinstance(gates_x, Sums) else _as_sums(gates_x)
        forced = None
        if teacher is not None and d.h in teacher:
            cells = self.dequantize(d.c, teacher[d.c]) if d.c in teacher else None
            forced = (self.dequantize(d.h, teacher[d.h]), cells)
        return run_direction(d, sums, self._projections[d.weight], self.quantizers.get(d.h),
                             self.quantizers.get(d.c), self.rules, forced)  # fmt: skip

    def _operand(self, step: Product, values: Mapping[str, Any]) -> Array:
        """The activations of a product, (m, K): codes on its input grid, or reals for real weights."""
        chosen = self._projections[step.weight]
        grid = chosen.input if isinstance(chosen, PackedProjection) else None
        parts = [self._converted(name, values[name], grid) for name in step.x]
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
        depth = self._tensors[step.weight].shape[0]
        if joined.shape[-1] == depth and joined.shape[0] >= step.rows:
            return joined[: step.rows]
        stacked = np.zeros((step.rows, depth), joined.dtype)
        if depth % joined.shape[-1] or stacked.size < joined.size:
            raise HwsimError(f"{step.layer}: activations {joined.shape} must fill ({step.rows}, {depth})")
        if grid is not None:
            stacked[...] = int(grid.zero_point)
        stacked.reshape(-1)[: joined.size] = joined.reshape(-1)
        return stacked

    def _converted(self, name: str, value: Any, grid: Quantizer | None) -> Array:
        if grid is None:
            return self._reals(name, value)
        own = self.quantizers.get(name)
        if own is not None and isinstance(value, np.ndarray) and _same(own, grid):
            return value
        return grid.quantize(self._reals(name, value)).astype(storage(grid))

    def _reals(self, name: str, value: Any) -> Reals:
        return value.values() if isinstance(value, Sums) else self.dequantize(name, value)

    def _store(self, name: str, value: Sums | Reals) -> Any:
        """Codes when the tensor has a grid; gate sums stay products until they are used."""
        quantizer = self.quantizers.get(name)
        if quantizer is None:
            return value if isinstance(value, Sums) and name not in self.outputs else _real(value)
        return quantizer.quantize(_real(value)).astype(storage(quantizer))

    def _elementwise(self, step: Elementwise, values: Mapping[str, Any]) -> Reals:
        operands = [self._reals(name, values[name]) for name in step.inputs]
        function = step.function
        result: Reals = operands[0]
        if len(operands) == 2 and function in (*_ADDING, *_MULTIPLYING):
            result = operands[0] + operands[1] if function in _ADDING else operands[0] * operands[1]
        if function in _TANH:
            return self.rules.tanh(result)
        if function == Function.SIGMOID:
            return self.rules.sigmoid(result)
        return np.maximum(result, 0.0) if function in _RELU else result


def log_softmax(x: Reals) -> Reals:
    """x - max - log(sum(exp(x - max))) over the last axis, in float64."""
    shifted = x - x.max(axis=-1, keepdims=True)
    result: Reals = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def _real(value: Sums | Reals) -> Reals:
    return value.values() if isinstance(value, Sums) else value


def _as_sums(gates: Array) -> Sums:
    columns = gates.shape[-1]
    return Sums(np.asarray(gates, np.float64)[None], np.ones((1, columns)), np.zeros(columns))


def _same(a: Quantizer, b: Quantizer) -> bool:
    """Whether codes of one are codes of the other: scale, zero point and range; how reals round may differ."""
    alike = a.code_range == b.code_range and a.half_step == b.half_step and a.group_size == b.group_size
    return alike and np.array_equal(a.scale, b.scale) and np.array_equal(a.zero_point, b.zero_point)


def _flow(step: Step) -> tuple[list[str], list[str]]:
    """Activations that a step reads, and tensors that it writes."""
    if isinstance(step, Product):
        return list(step.x), [step.out]
    if isinstance(step, Recurrence):
        return [d.gates_x for d in step.directions], [name for d in step.directions for name in (d.h, d.c)]
    if isinstance(step, Lookup):
        return [step.labels], [step.out]
    return ([step.x] if isinstance(step, LogSoftmax) else list(step.inputs)), [step.out]


def _given(codes: Mapping[str, Array], name: str) -> Array:
    if name not in codes:
        raise HwsimError(f"codes must hold every weight and bias, got no {name}{nearest(name, codes)}")
    return codes[name]


def _check_names(tensors: Mapping[str, Tensor], codes: Mapping[str, Array], quantizers: Mapping[str, Any]) -> None:
    for what, names in (("codes", codes), ("quantizers", quantizers)):
        for name in names:
            if name.removesuffix(INPUT) not in tensors and name not in tensors:
                raise HwsimError(f"{what}: unknown tensor '{name}'{nearest(name, tensors)}")
