"""An executable read in PyTorch: its codes and grids as fake-quantized reals, operation by operation.

It reads the trace's rows, the codes and the grids, and nothing of the executor's operations. What a kind computes is a
function in `FUNCTIONS`, so that a new kind is one function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from hwsim.errors import HwsimError
from hwsim.execute.executor import Executable
from hwsim.execute.operations.base import FP16, INPUT
from hwsim.execute.operations.row import Row, rows
from hwsim.execute.semantics import Semantics
from hwsim.numerics.codebook import Codebook
from hwsim.numerics.quantizers import Quantizer
from hwsim.numerics.rounding import Reals
from hwsim.numerics.tables import Exact
from hwsim.trace import Function, Kind, Role
from hwsim.trace import Tensor as TraceTensor
from hwsim.train.quantizers import fake_quantize, precision_of, quantize
from hwsim.validate.oracles.base import Array, Computed, Oracle, start_run, with_rules
from hwsim.validate.report import Source, Tier

Compute = Callable[["Graph", Row], None]
FUNCTIONS: dict[tuple[Kind, Function], Compute] = {}
LOOPS: dict[Kind, Callable[[Graph, Row, Row], None]] = {}


@dataclass(slots=True, eq=False)
class Graph:
    """The tensors of one evaluation: reals by name, each on its grid, and the codes of those that have one."""

    executable: Executable
    dtype: torch.dtype
    parameters: Mapping[str, Array]
    values: dict[str, Tensor] = field(default_factory=dict)
    codes: dict[str, Array] = field(default_factory=dict)
    steps: dict[str, Reals] = field(default_factory=dict)

    def grid(self, name: str) -> Quantizer | None:
        """The grid of an activation or a state, None for reals."""
        return self.executable.network.grid(name)

    def real(self, name: str, stored: Array) -> Tensor:
        """Reals of stored codes, computed in this precision, or of reals."""
        grid = self.executable.quantizers.get(name)
        if isinstance(grid, Codebook):
            stored = grid.dequantize(stored)
        elif isinstance(grid, Quantizer) and stored.dtype.kind in "iu":
            precision = precision_of(torch.empty(0, dtype=self.dtype))
            flat = stored.reshape(-1, stored.shape[-1]) if grid.group_size else stored
            stored = replace(grid, precision=precision).dequantize(flat).reshape(stored.shape)
        return torch.as_tensor(np.ascontiguousarray(stored)).to(self.dtype)

    def read(self, tensor: TraceTensor) -> Tensor:
        """Reals of an operand: a parameter's, or what was computed."""
        if tensor.role in (Role.WEIGHT, Role.BIAS):
            return self.real(tensor.name, self.parameters[tensor.name])
        return self.values[tensor.name]

    def operands(self, row: Row) -> list[Tensor]:
        """Reals of every operand of a row, in its order."""
        return [self.read(tensor) for tensor in row.reads]

    def product_input(self, row: Row, name: str) -> Quantizer | None:
        """The grid on which a product takes its activations; None when its weights are reals."""
        assert row.weight is not None
        if row.weight.name not in self.executable.quantizers:
            return None
        return self.grid(row.weight.name + INPUT) or self.grid(name)

    def activations(self, row: Row) -> list[Tensor]:
        """The activations of a product, on its input grid."""
        grid = self.product_input(row, row.activations[0].name)
        return [on_grid(self.values[tensor.name], grid) for tensor in row.activations]

    def bias(self, row: Row) -> Tensor | float:
        """The bias that a product adds."""
        return self.read(row.biases[0]) if row.biases else 0.0

    def multiply(self, row: Row, x: Tensor) -> Tensor:
        """x (M, K) @ W + b; of halves rounded to half at the end."""
        assert row.weight is not None
        halves = row.weight.format == FP16 and self.grid(row.weight.name) is None
        y = (half(x) if halves else x) @ self.read(row.weight) + self.bias(row)
        return half(y) if halves else y

    def stored(self, name: str, value: Tensor) -> Tensor:
        """A result as its tensor stores it: on its grid, in halves, or as it is."""
        if self.executable.network.halves(name) is not None:
            return half(value)
        return on_grid(value, self.grid(name))

    def put(self, name: str, value: Tensor) -> None:
        """Keep a result on the grid of its tensor, if it has one, with its codes and its reals before rounding."""
        grid = self.grid(name)
        self.values[name] = self.stored(name, value)
        if grid is None:
            self.codes[name] = self.values[name].double().numpy()
            return
        reals = value.double().numpy()
        self.codes[name] = quantize(value, grid).numpy().astype(np.int64)
        self.steps[name] = reals / grid.scale + grid.zero_point

    def table(self, name: str, x: Tensor) -> Tensor:
        """The shared table `sigmoid` or `tanh` of x, or the function itself."""
        table = getattr(self.executable.rules, name)
        if isinstance(table, Exact):
            result: Tensor = getattr(torch, table.name)(x)
            return result
        entries = (quantize(x, table.input) - table.input.code_range[0]).long()
        return torch.as_tensor(table.output.dequantize(table.codes)).to(x.dtype)[entries]


class TorchGraph(Oracle):
    """PyTorch in floating point. `double` evaluates in float64, which is T1; otherwise float32, for T2."""

    name = "torch"
    tier: Tier = "T2"

    def __init__(self, profile: Semantics | None = None, double: bool = False) -> None:
        self.profile, self.double = profile, double

    def executable(self, given: Executable) -> Executable:
        """The network by the rules of the profile, if there is one."""
        return given if self.profile is None else with_rules(given, self.profile)

    def for_tier(self, tier: Tier) -> TorchGraph:
        """float64 at T1, float32 at T2 and T3. Raises HwsimError at T0: it computes no integers."""
        if tier == "T0":
            raise HwsimError("tier must be T1, T2 or T3 against torch, which computes reals, got T0")
        oracle = TorchGraph(self.profile, self.double or tier == "T1")
        oracle.given = self.given
        return oracle

    def compute(self, executable: Executable, inputs: Mapping[str, Array]) -> Computed:
        """Every output in a free run of the graph; of recurrent layers the cell of every step, (T, H)."""
        graph = Graph(executable, torch.float64 if self.double else torch.float32, self.parameters(executable))
        for name, stored in start_run(executable, inputs).values.items():
            graph.values[name] = torch.as_tensor(stored) if name in _labels(executable) else graph.real(name, stored)
        for name, stored in graph.parameters.items():
            if executable.network.tensors[name].role == Role.ACTIVATION:  # a constant
                graph.values[name] = graph.stored(name, graph.real(name, stored))
        with torch.no_grad():
            _evaluate(graph)
        codes = {name: graph.codes[name] for name in executable.outputs}
        kind = "float64" if self.double else "float32"
        text = f"PyTorch {torch.__version__} in {kind}: dequantized weights, fake-quantized activations, shared tables"
        source = Source(f"torch {kind}", torch.__version__, executable.semantics.name, text)
        return Computed(codes, source, graph.steps, tuple(codes))


def computes(kind: Kind, function: Function = Function.NONE) -> Callable[[Compute], Compute]:
    """Register what a kind with a function computes."""

    def add(compute: Compute) -> Compute:
        FUNCTIONS[kind, function] = compute
        return compute

    return add


def half(x: Tensor) -> Tensor:
    """x rounded to half, in its own precision."""
    return x.half().to(x.dtype)


def on_grid(x: Tensor, grid: Quantizer | None) -> Tensor:
    """x, on a grid when there is one."""
    return x if grid is None else fake_quantize(x, grid)


def _labels(executable: Executable) -> set[str]:
    """Inputs that are labels of an embedding, not reals."""
    trace = executable.trace
    found = [row for row in rows(trace, 0, len(trace)) if row.kind == Kind.LOOKUP]
    return {tensor.name for row in found for tensor in row.activations} | {f"{row.layer}.labels" for row in found}


def _evaluate(graph: Graph) -> None:
    from hwsim.validate.oracles import torch_attention, torch_operations  # noqa: F401  (they register themselves)

    trace = graph.executable.trace
    at = 0
    while at < len(trace):
        if trace.loop[at] < 0:
            (row,) = rows(trace, at, at + 1)
            _function(row)(graph, row)
            at += 1
            continue
        end = at + int(np.argmax(np.append(trace.loop[at:] != trace.loop[at], True)))
        body = list(rows(trace, at, at + int(np.count_nonzero(trace.iteration[at:end] == 0))))
        for branch in dict.fromkeys(row.branch for row in body):
            product, pointwise = (row for row in body if row.branch == branch)
            if pointwise.kind not in LOOPS:
                raise pointwise.refuse("has no reading in PyTorch")
            LOOPS[pointwise.kind](graph, product, pointwise)
        at = end


def _function(row: Row) -> Compute:
    if (row.kind, row.function) not in FUNCTIONS:
        raise row.refuse(f"with function {row.function.name} has no reading in PyTorch")
    return FUNCTIONS[row.kind, row.function]
