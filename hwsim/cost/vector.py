"""The vector unit: how often each function is applied to an element of each kind of operation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hwsim.arch.blocks import VectorFunctions, VectorUnit
from hwsim.cost.classes import OperationClasses
from hwsim.trace import Function, Kind

FloatArray = npt.NDArray[np.float64]

FUNCTIONS = tuple(VectorFunctions.model_fields)

PER_ELEMENT: dict[tuple[int, int], dict[str, float]] = {
    # Per MAC: each output of a depthwise convolution has its own weights, which leaves most of a MAC array idle.
    (Kind.DEPTHWISE, Function.NONE): {"multiply": 1, "add": 1},
    # Per cell: 4 sums of the two gate products, 3 sigmoids and 2 tanh, f*c + i*g and o*tanh(c), h to its format.
    (Kind.LSTM, Function.NONE): {"add": 5, "multiply": 3, "sigmoid": 3, "tanh": 2, "convert": 1},
    # Per cell: 3 sums of the gate products, 2 sigmoids and tanh, r times h_n, (1 - z) n + z h, h to its format.
    (Kind.GRU, Function.NONE): {"add": 5, "multiply": 3, "sigmoid": 2, "tanh": 1, "convert": 1},
    # Maximum, subtract it, exponential, sum, subtract the logarithm of the sum.
    (Kind.SOFTMAX, Function.NONE): {"compare": 1, "add": 3, "exp": 1},
    # Maximum, subtract it, exponential, sum, times the reciprocal of the sum.
    (Kind.SOFTMAX, Function.PROBABILITIES): {"compare": 1, "add": 2, "exp": 1, "multiply": 1, "convert": 1},
    # Mean, variance, subtract, scale and shift.
    (Kind.NORM, Function.NONE): {"add": 4, "multiply": 3, "convert": 1},
    (Kind.LOOKUP, Function.NONE): {"lookup": 1},
    (Kind.TOPK, Function.NONE): {"compare": 1},
    (Kind.ELEMENTWISE, Function.ADD): {"add": 1, "convert": 1},
    (Kind.ELEMENTWISE, Function.MULTIPLY): {"multiply": 1, "convert": 1},
    (Kind.ELEMENTWISE, Function.TANH): {"tanh": 1, "convert": 1},
    (Kind.ELEMENTWISE, Function.SIGMOID): {"sigmoid": 1, "convert": 1},
    (Kind.ELEMENTWISE, Function.RELU): {"compare": 1, "convert": 1},
    (Kind.ELEMENTWISE, Function.ADD_TANH): {"add": 1, "tanh": 1, "convert": 1},
    (Kind.ELEMENTWISE, Function.MULTIPLY_TANH): {"multiply": 1, "tanh": 1, "convert": 1},
    (Kind.ELEMENTWISE, Function.ADD_RELU): {"add": 1, "compare": 1, "convert": 1},
    (Kind.ELEMENTWISE, Function.MULTIPLY_RELU): {"multiply": 1, "compare": 1, "convert": 1},
    (Kind.ELEMENTWISE, Function.SWISH): {"sigmoid": 1, "multiply": 1, "convert": 1},
    (Kind.ELEMENTWISE, Function.GLU): {"sigmoid": 1, "multiply": 1, "convert": 1},
    (Kind.ELEMENTWISE, Function.ADD_HALF): {"multiply": 1, "add": 1, "convert": 1},
    (Kind.ELEMENTWISE, Function.RELU_ADD): {"compare": 1, "multiply": 1, "add": 1, "convert": 1},
    (Kind.ELEMENTWISE, Function.RELATIVE_ADD): {"add": 1, "convert": 1},
    # x (1 + tanh(a x + b x^3)) / 2, as accelerators approximate it.
    (Kind.ELEMENTWISE, Function.GELU): {"multiply": 5, "add": 2, "tanh": 1, "convert": 1},
    (Kind.ELEMENTWISE, Function.EXP): {"exp": 1, "convert": 1},
    (Kind.ELEMENTWISE, Function.DIVIDE): {"divide": 1, "convert": 1},
    (Kind.ELEMENTWISE, Function.SQRT): {"sqrt": 1, "convert": 1},
    (Kind.ELEMENTWISE, Function.SELECT): {"compare": 1, "convert": 1},
}
PER_ROW: dict[tuple[int, int], dict[str, float]] = {
    (Kind.SOFTMAX, Function.NONE): {"exp": 1},
    (Kind.SOFTMAX, Function.PROBABILITIES): {"divide": 1},
    (Kind.NORM, Function.NONE): {"sqrt": 1, "divide": 1},
}
"""Beside the work per element: logarithm of a log-softmax, reciprocal of a sum, root and reciprocal of a norm."""


def function_counts(classes: OperationClasses) -> FloatArray:
    """Applications of each of `FUNCTIONS` by one operation of each class, `(classes, functions)`.

    FUSE_SCORES multiplies and adds once for each of its k language models and adds the length reward. Operations
    of other units have zeros.
    """
    counts = np.zeros((len(classes.kind), len(FUNCTIONS)))
    for i, (kind, function) in enumerate(zip(classes.kind.tolist(), classes.function.tolist(), strict=True)):
        if (kind, function) == (Kind.ELEMENTWISE, Function.FUSE_SCORES):
            models = int(classes.k[i])
            per_element: dict[str, float] = {"multiply": models, "add": models + 1}
        else:
            per_element = PER_ELEMENT.get((kind, function), {})
        elements = int(classes.m[i] * classes.n[i])
        if kind == Kind.DEPTHWISE:
            elements *= int(classes.k[i] * classes.batch[i])
        for name, count in per_element.items():
            counts[i, FUNCTIONS.index(name)] += count * elements
        for name, count in PER_ROW.get((kind, function), {}).items():
            counts[i, FUNCTIONS.index(name)] += count * int(classes.m[i])
    return counts


def vector_cycles(unit: VectorUnit, counts: FloatArray, cores: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Cycles of the functions one after another, each spread over the lanes of `cores` cores, without latency."""
    rates = np.array([getattr(unit.functions, name).elements_per_cycle.value for name in FUNCTIONS])
    cycles: npt.NDArray[np.float64] = np.ceil(counts / (rates[None, :] * cores[:, None])).sum(axis=1)
    return cycles.astype(np.int64)


def vector_energy_pj(unit: VectorUnit, counts: FloatArray) -> FloatArray:
    """Dynamic energy of the functions at the reference operating point, pJ."""
    energies = np.array([getattr(unit.functions, name).energy_pj.value for name in FUNCTIONS])
    return np.asarray(counts @ energies)
