"""Operations of equal cost: a trace has tens of thousands of operations and a few dozen distinct ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
import numpy.typing as npt

from hwsim.numerics.formats import NumberFormat
from hwsim.trace import Role, Trace
from hwsim.trace.table import MAC_KINDS

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class OperationClasses:
    """Classes of equal kind, shape, first tensors and core group; one entry a class, but for `of_operation`."""

    of_operation: IntArray
    """Class of each operation."""
    kind: IntArray
    function: IntArray
    m: IntArray
    k: IntArray
    n: IntArray
    batch: IntArray
    activation: IntArray
    """First tensor read, or -1."""
    weight: IntArray
    """Weight tensor read, or -1."""
    halved: IntArray
    """1 where two directions may share the cores."""
    example: IntArray
    """First operation of each class."""


def operation_classes(trace: Trace) -> OperationClasses:
    """Group the operations of a trace; computed once per trace structure, whatever the precision."""
    cached: OperationClasses | None = trace.structure.get("classes")
    if cached is None:
        cached = trace.structure["classes"] = _group(trace)
    return cached


def _group(trace: Trace) -> OperationClasses:
    c = trace.columns
    halved = halved_layers(trace)[c["layer"]]
    weight, activation = first_operands(trace)
    shape = [c[name] for name in ("kind", "function", "m", "k", "n", "batch")]
    keys = [*shape, weight + 1, activation + 1, _first_written(trace) + 1, halved]
    code = reduce(_combine, keys)
    _, first, inverse = np.unique(code, return_index=True, return_inverse=True)
    of_class = {name: c[name][first] for name in ("kind", "function", "m", "k", "n", "batch")}
    return OperationClasses(
        of_operation=inverse.astype(np.int64),
        activation=activation[first],
        weight=weight[first],
        halved=halved[first],
        example=first.astype(np.int64),
        **of_class,
    )


def _combine(code: IntArray, column: IntArray) -> IntArray:
    """One integer per pair of values; renumbered when the product could leave 63 bits."""
    size = int(column.max(initial=0)) + 1
    if int(code.max(initial=0)) >= 2**62 // size:
        code = np.unique(code, return_inverse=True)[1].astype(np.int64)
    return code * size + column


def halved_layers(trace: Trace) -> IntArray:
    """1 for each layer that has operations in a second branch."""
    flags = np.zeros(len(trace.layers), dtype=np.int64)
    flags[trace.columns["layer"][trace.columns["branch"] > 0]] = 1
    return flags


def _first_written(trace: Trace) -> IntArray:
    """Per operation: the first tensor that it writes, or -1."""
    owner = np.repeat(np.arange(len(trace)), np.diff(trace.operand_ptr))
    at = np.flatnonzero(trace.operand_write == 1)[::-1]
    found = np.full(len(trace), -1, dtype=np.int64)
    found[owner[at]] = trace.operand_tensor[at]
    return found


def first_operands(trace: Trace) -> tuple[IntArray, IntArray]:
    """Per operation: the weight tensor that it reads, and the first other tensor that it reads, or -1."""
    owner = np.repeat(np.arange(len(trace)), np.diff(trace.operand_ptr))
    is_weight = np.array([t.role == Role.WEIGHT for t in trace.tensors])[trace.operand_tensor]
    is_bias = np.array([t.role == Role.BIAS for t in trace.tensors])[trace.operand_tensor]
    reads = trace.operand_write == 0
    found = []
    for chosen in (reads & is_weight, reads & ~is_weight & ~is_bias):
        result = np.full(len(trace), -1, dtype=np.int64)
        at = np.flatnonzero(chosen)[::-1]
        result[owner[at]] = trace.operand_tensor[at]
        found.append(result)
    return found[0], found[1]


def operand_formats(trace: Trace) -> list[tuple[NumberFormat, NumberFormat] | None]:
    """Per class that multiplies and accumulates: formats of its second operand and of its activations.

    Products with weights take their activations in the format of the weight's layer, whatever format they are
    stored in; products of two activations take both as they are stored. None for other classes.
    """
    classes = operation_classes(trace)
    formats = [NumberFormat.parse(tensor.format) for tensor in trace.tensors]
    layers = {layer: i for i, layer in enumerate(trace.layers)}
    found: list[tuple[NumberFormat, NumberFormat] | None] = []
    multiplies = np.isin(classes.kind, MAC_KINDS).tolist()
    for is_product, weight, activation in zip(
        multiplies, classes.weight.tolist(), classes.activation.tolist(), strict=True
    ):
        if not is_product:
            found.append(None)
        elif weight < 0:
            found.append((formats[activation], formats[activation]))
        else:
            inputs = trace.input_formats[layers[trace.tensors[weight].layer]] if trace.input_formats else "fp32"
            found.append((formats[weight], NumberFormat.parse(inputs)))
    return found
