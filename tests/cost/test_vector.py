"""Cycles and energy of the vector unit, by hand."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.arch import load_arch
from hwsim.arch.blocks import VectorUnit
from hwsim.cost.classes import operation_classes
from hwsim.cost.vector import FUNCTIONS, function_counts, vector_cycles, vector_energy_pj
from hwsim.trace import Function, Kind, Role, TraceBuilder
from hwsim.trace.builder import Operand


@cache
def unit() -> VectorUnit:
    """Rates of 10 elements a cycle but 4 for sigmoid and tanh and 2 for exp; 1 pJ an element, 3 for exp."""
    slow = {"sigmoid": 4, "tanh": 4, "exp": 2}
    changes = {}
    for name in FUNCTIONS:
        changes[f"vector.functions.{name}.elements_per_cycle"] = str(slow.get(name, 10))
        changes[f"vector.functions.{name}.energy_pj"] = "3" if name == "exp" else "1"
    return load_arch("rapid_1core", changes).vector


def counts(kind: Kind, m: int, n: int, k: int = 1, batch: int = 1, function: Function = Function.NONE) -> np.ndarray:
    """Applications of each function by one operation."""
    b = TraceBuilder("t")
    x, out = (b.tensor(f"net.{name}", Role.ACTIVATION, (m, n)) for name in "xy")
    b.op(kind, "net", [Operand(x, n)], [Operand(out, n)], m=m, k=k, n=n, batch=batch, function=function)
    return function_counts(operation_classes(b.build()))


def named(found: np.ndarray) -> dict[str, float]:
    return {name: float(count) for name, count in zip(FUNCTIONS, found[0], strict=True) if count}


@pytest.mark.parametrize(
    ("kind", "function", "k", "wanted"),
    [
        (Kind.LSTM, Function.NONE, 1, {"add": 30, "multiply": 18, "sigmoid": 18, "tanh": 12, "convert": 6}),
        (Kind.SOFTMAX, Function.NONE, 1, {"compare": 6, "add": 18, "exp": 6 + 2}),
        (Kind.NORM, Function.NONE, 1, {"add": 24, "multiply": 18, "convert": 6, "sqrt": 2, "divide": 2}),
        (Kind.LOOKUP, Function.NONE, 1, {"lookup": 6}),
        (Kind.TOPK, Function.NONE, 1, {"compare": 6}),
        (Kind.ELEMENTWISE, Function.MULTIPLY_TANH, 1, {"multiply": 6, "tanh": 6, "convert": 6}),
        (Kind.ELEMENTWISE, Function.RELU_ADD, 1, {"compare": 6, "multiply": 6, "add": 6, "convert": 6}),
        (Kind.ELEMENTWISE, Function.ADD_RELU, 1, {"add": 6, "compare": 6, "convert": 6}),
        # Two language models: each is weighted and added, and the length reward is added.
        (Kind.ELEMENTWISE, Function.FUSE_SCORES, 2, {"multiply": 12, "add": 18}),
        (Kind.MATMUL, Function.NONE, 1, {}),
        (Kind.HOST, Function.NONE, 1, {}),
        (Kind.STATE_IN, Function.NONE, 1, {}),
    ],
)
def test_functions_of_two_rows_of_three(kind: Kind, function: Function, k: int, wanted: dict[str, float]) -> None:
    assert named(counts(kind, 2, 3, k=k, function=function)) == wanted


def test_a_depthwise_convolution_multiplies_and_adds_once_for_each_mac() -> None:
    assert named(counts(Kind.DEPTHWISE, 2, 1, k=3, batch=4)) == {"multiply": 24, "add": 24}


OF_OTHER_KINDS = (Function.NONE, Function.PROBABILITIES, Function.SCORES, Function.CONTEXT)


@pytest.mark.parametrize("function", [f for f in Function if f not in OF_OTHER_KINDS])
def test_every_elementwise_function_takes_time(function: Function) -> None:
    assert counts(Kind.ELEMENTWISE, 1, 8, function=function).sum() >= 8


@pytest.mark.parametrize("kind", [Kind.LSTM, Kind.SOFTMAX, Kind.NORM, Kind.ELEMENTWISE, Kind.TOPK, Kind.LOOKUP])
def test_no_rows_are_no_work(kind: Kind) -> None:
    b = TraceBuilder("t")
    x = b.tensor("net.x", Role.ACTIVATION, (1, 4))
    b.op(kind, "net", [Operand(x, 4)], [Operand(x, 4)], m=0, n=4, function=Function.ADD)
    assert function_counts(operation_classes(b.build())).sum() == 0


@pytest.mark.parametrize(
    ("cores", "cycles"),
    [
        # LSTM of 3 rows of 7: 105 additions, 63 products, 63 sigmoids, 42 tanh, 21 conversions.
        (1, 11 + 7 + 16 + 11 + 3),
        (2, 6 + 4 + 8 + 6 + 2),
        (4, 3 + 2 + 4 + 3 + 1),
    ],
)
def test_functions_run_one_after_another_on_all_lanes(cores: int, cycles: int) -> None:
    assert vector_cycles(unit(), counts(Kind.LSTM, 3, 7), np.array([cores])).tolist() == [cycles]


def test_energy_is_that_of_each_function() -> None:
    assert vector_energy_pj(unit(), counts(Kind.SOFTMAX, 2, 3)).tolist() == [6 + 18 + 3 * 8]


@given(m=st.integers(1, 40), n=st.integers(1, 3000), cores=st.integers(1, 8))
def test_more_cores_are_never_slower_and_never_more_than_their_number_faster(m: int, n: int, cores: int) -> None:
    work = counts(Kind.LSTM, m, n)
    one, many = (int(vector_cycles(unit(), work, np.array([c]))[0]) for c in (1, cores))
    assert many <= one
    assert many * cores >= one
