"""The columnar trace: one row per operation, one row per tensor, nothing about cost or execution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.numerics.formats import NumberFormat
from hwsim.numerics.policy import PrecisionPolicy

IntArray = npt.NDArray[np.int64]
MAX_RANK = 4


class Kind(IntEnum):
    """What an operation does. `m, k, n, batch` mean the same in every kind that multiplies and accumulates.

    MATMUL      `(batch, m, k) @ (k, n)` by a weight, or `(batch, m, k) @ (batch, k, n)` by an activation:
                attention's two products, with batch = heads, have a `Function`
    CONV1D/2D   m output positions, k = kernel elements x input channels of a group, n = output channels of
                a group, batch = groups; DEPTHWISE is the same with one input and one output channel a group
    LSTM, GRU   pointwise part of a recurrent step: m rows of n cells from 4n (3n) gate sums of the input and as
                many of the hidden state
    SOFTMAX, NORM, ELEMENTWISE, LOOKUP, TOPK   m rows of n elements (LOOKUP: n elements read from a table per
                row, TOPK: the k largest of n); a SOFTMAX without function is its logarithm, a NORM is over a row
    HOST        control on the host CPU: m hypotheses, k candidate scores
    LAUNCH      the host starts one network of a search step on the device
    STATE_IN, STATE_OUT   m rows of n elements of hypothesis state, from and to where the search keeps them
    SEND        m rows of n scores, to the host
    """

    MATMUL = 0
    CONV1D = 1
    CONV2D = 2
    DEPTHWISE = 3
    LSTM = 4
    SOFTMAX = 5
    NORM = 6
    ELEMENTWISE = 7
    LOOKUP = 8
    TOPK = 9
    HOST = 10
    STATE_IN = 11
    STATE_OUT = 12
    SEND = 13
    LAUNCH = 14
    GRU = 15


MAC_KINDS = (Kind.MATMUL, Kind.CONV1D, Kind.CONV2D, Kind.DEPTHWISE)


class Function(IntEnum):
    """What an ELEMENTWISE operation computes for each element of its output, and a variant of other kinds.

    SWISH x sigmoid(x); GLU a sigmoid(b) of rows that hold a beside b; ADD_HALF a + b / 2; GELU x times the normal
    distribution function of x; SELECT a comparison, clip or choice; the others by their names
    RELATIVE_ADD  out[h, i, j] = a[h, i, j] + b[h, i, T - 1 - i + j]: scores of content a (heads, T, T) and of relative
                  position b (heads, T, 2T - 1), whose row r stands for the distance i - j = T - 1 - r
    RELU_ADD      out[i] = max(0, a[i]) + scale b[first + step i]: a bypass around a layer that gives fewer rows than it
                  reads, by the attributes of its layer
    PROBABILITIES of SOFTMAX: the softmax itself
    SCORES        of MATMUL: q (T, heads x k) and keys (S, heads x k) to q key^T / sqrt(k), (heads, T, S)
    CONTEXT       of MATMUL: probabilities (heads, T, S) and values (S, heads x n) to (T, heads x n)
    """

    NONE = 0
    ADD = 1
    MULTIPLY = 2
    TANH = 3
    SIGMOID = 4
    RELU = 5
    ADD_TANH = 6
    MULTIPLY_TANH = 7
    ADD_RELU = 8
    MULTIPLY_RELU = 9
    FUSE_SCORES = 10
    SWISH = 11
    GLU = 12
    ADD_HALF = 13
    RELATIVE_ADD = 14
    PROBABILITIES = 15
    SCORES = 16
    CONTEXT = 17
    GELU = 18
    EXP = 19
    DIVIDE = 20
    SQRT = 21
    SELECT = 22
    RELU_ADD = 23


class Role(IntEnum):
    """Which field of a precision policy gives a tensor its number format."""

    WEIGHT = 0
    BIAS = 1
    ACTIVATION = 2
    STATE = 3


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: `shape` with the output channel last; `layer` is the dotted name that policies match."""

    name: str
    layer: str
    role: Role
    shape: tuple[int, ...]
    format: str = "fp32"

    @property
    def elements(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def component(self) -> str:
        """First part of the layer name: encoder, prediction, joint, ..."""
        return self.layer.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over a trace or over one component of it."""

    operations: int
    macs: int
    parameters: int
    weight_bits: int
    """Stored bits of weights and biases with scales, zero points, masks and tables."""

    @property
    def bits_per_parameter(self) -> float:
        """Average stored bits of a parameter."""
        return self.weight_bits / self.parameters if self.parameters else 0.0


OP_COLUMNS = ("kind", "function", "m", "k", "n", "batch", "layer", "branch", "loop", "iteration")


@dataclass(frozen=True, eq=False)
class Trace:
    """An operation trace; all arrays have one entry per operation, or are CSR lists of one.

    kind, function      `Kind` and `Function` codes
    m, k, n, batch      sizes, see `Kind`; m = 0 means that the operation has nothing to do at this step
    layer               index into `layers`
    branch              0 for the main branch; 0 and 1 for two directions that may run side by side
    loop, iteration     which recurrent loop and which step of it; -1 outside loops
    dep_ptr, dep        operations that must end before this one starts, all with a lower index
    operand_ptr, operand_tensor, operand_elements, operand_write
                        tensors read (in the order of the operation's definition) and written, with the
                        number of elements that this operation touches
    """

    name: str
    layers: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    columns: Mapping[str, IntArray]
    dep_ptr: IntArray
    dep: IntArray
    operand_ptr: IntArray
    operand_tensor: IntArray
    operand_elements: IntArray
    operand_write: IntArray
    meta: Mapping[str, Any] = field(default_factory=dict)
    """What made this trace: workload, decode settings, audio seconds, precision. JSON values only."""
    input_formats: tuple[str, ...] = ()
    """Per layer: the format in which its products take their activations, converted on the way in when they are
    stored in another one. Empty: fp32 for all."""
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Per layer what its execution needs beside shapes, JSON values: `stride` and `padding` (before, after) of a
    convolution, of one over time `dilation` (rows from tap to tap) and `first` (row at which the first window begins),
    `scale`, `first` and `step` of a bypass, `left` and `right` context of attention in frames (none: all), `epsilon` of
    a norm, `columns` of a look-up whose table is the matrix of a product as well and has a column for each label."""
    structure: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """What other rooms computed once from the shapes alone; shared by all precisions of a trace, never saved."""

    def __len__(self) -> int:
        return len(self.columns["kind"])

    def __getattr__(self, name: str) -> IntArray:
        if name in OP_COLUMNS:
            return self.columns[name]
        raise AttributeError(name)

    @cached_property
    def components(self) -> tuple[str, ...]:
        """Component names in the order of their first operation."""
        layers, first = np.unique(self.columns["layer"], return_index=True)
        in_order = layers[np.argsort(first)]
        return tuple(dict.fromkeys(self.layers[i].partition(".")[0] for i in in_order))

    @cached_property
    def component(self) -> IntArray:
        """Index into `components`, per operation."""
        index = {name: i for i, name in enumerate(self.components)}
        of_layer = np.array([index.get(name.partition(".")[0], -1) for name in self.layers], dtype=np.int64)
        return of_layer[self.columns["layer"]]

    @cached_property
    def macs(self) -> IntArray:
        """Multiply-accumulates per operation."""
        c = self.columns
        return np.where(np.isin(c["kind"], MAC_KINDS), c["m"] * c["k"] * c["n"] * c["batch"], 0)

    def totals(self, component: str | None = None) -> Totals:
        """Operations, MACs, parameters and stored bits, of all or of one component.

        Parameters and bits count each weight and bias tensor once, whether or not an operation reads it.
        """
        chosen = [t for t in self.tensors if t.role in (Role.WEIGHT, Role.BIAS) and component in (None, t.component)]
        mask = (
            np.ones(len(self), bool)
            if component is None
            else self.component == self.components.index(component)
            if component in self.components
            else np.zeros(len(self), bool)
        )
        return Totals(
            operations=int(mask.sum()),
            macs=int(self.macs[mask].sum()),
            parameters=sum(t.elements for t in chosen),
            weight_bits=sum(NumberFormat.parse(t.format).stored_bits(t.shape).total for t in chosen),
        )

    def with_precision(self, policy: PrecisionPolicy) -> Trace:
        """The same operations with the number formats of a policy. Arrays are shared, not copied.

        Raises HwsimError when a glob of the policy matches no layer.
        """
        unused = policy.unused(self.layers)
        if unused:
            raise HwsimError(f"policy {policy.name}: '{unused[0]}' must match a layer, got none of {len(self.layers)}")
        tensors = tuple(replace(t, format=str(_format(policy, t))) for t in self.tensors)
        inputs = tuple(str(policy.resolve(layer).activations) for layer in self.layers)
        return replace(self, tensors=tensors, input_formats=inputs, meta={**self.meta, "precision": policy.name})

    def validate(self) -> None:
        """Check every invariant of the class. Raises HwsimError with the first operation that breaks one."""
        count = len(self)
        if any(name not in self.columns or len(self.columns[name]) != count for name in OP_COLUMNS):
            raise HwsimError("trace: every column must have one entry per operation")
        if len(self.input_formats) not in (0, len(self.layers)):
            raise HwsimError("trace: input formats must be given for every layer or for none")
        for layer in self.attributes:
            if layer not in self.layers:
                raise HwsimError(f"trace: attributes must belong to a layer, got '{layer}'")
        _check_csr("dependency", self.dep_ptr, self.dep, count)
        for entries in (self.operand_tensor, self.operand_elements, self.operand_write):
            _check_csr("operand", self.operand_ptr, entries, count)
        owner = np.repeat(np.arange(count), np.diff(self.dep_ptr))
        _check("operation", (self.dep < 0) | (self.dep >= owner), owner, "depend on earlier operations only")
        touched = np.repeat(np.arange(count), np.diff(self.operand_ptr))
        outside = (self.operand_tensor < 0) | (self.operand_tensor >= len(self.tensors))
        _check("operation", outside, touched, "use tensors of the trace")
        _check("operation", self.operand_elements < 0, touched, "touch 0 elements or more")
        c = self.columns
        every = np.arange(count)
        _check("operation", (c["layer"] < 0) | (c["layer"] >= len(self.layers)), every, "belong to a layer")
        _check("operation", ~np.isin(c["kind"], list(Kind)), every, "have a known kind")
        _check("operation", ~np.isin(c["function"], list(Function)), every, "have a known function")
        _check(
            "operation",
            (c["m"] < 0) | (c["k"] < 0) | (c["n"] < 0) | (c["batch"] < 1),
            every,
            "have sizes >= 0",
        )
        sizes = np.array([t.elements for t in self.tensors], dtype=np.int64)
        weight = np.array([t.role == Role.WEIGHT for t in self.tensors])
        mac_operand = np.isin(c["kind"][touched], MAC_KINDS) & weight[self.operand_tensor]
        wanted = np.where(c["m"] > 0, c["k"] * c["n"] * np.where(c["kind"] == Kind.MATMUL, 1, c["batch"]), 0)
        wrong = mac_operand & (
            (self.operand_elements != wanted[touched]) | (wanted[touched] > sizes[self.operand_tensor])
        )
        _check("operation", wrong, touched, "read a weight of its own k x n")


def _format(policy: PrecisionPolicy, tensor: Tensor) -> NumberFormat:
    layer = policy.resolve(tensor.layer)
    if tensor.role == Role.WEIGHT:
        return layer.weights
    if tensor.role == Role.BIAS:
        return layer.bias
    return layer.activations if tensor.role == Role.ACTIVATION else layer.state


def _check_csr(what: str, pointer: IntArray, values: IntArray, count: int) -> None:
    if len(pointer) != count + 1 or pointer[0] != 0 or pointer[-1] != len(values) or np.any(np.diff(pointer) < 0):
        raise HwsimError(f"trace: the {what} list must have one range per operation")


def _check(what: str, broken: npt.NDArray[np.bool_], owner: Sequence[int] | IntArray, rule: str) -> None:
    if np.any(broken):
        raise HwsimError(f"trace: {what} {int(np.asarray(owner)[int(np.argmax(broken))])} must {rule}")
