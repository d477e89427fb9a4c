"""Element-wise functions and norms of a trace against the training graph and the reference, in every profile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwsim.errors import HwsimError
from hwsim.execute.executor import Executable
from hwsim.execute.reference.pointwise import add, glu, layer_norm, multiply, requantize_codes
from hwsim.execute.semantics import PROFILES, TRAINING, Semantics
from hwsim.numerics.quantizers import Quantizer
from hwsim.numerics.tables import build_table, fixed_table, grid
from hwsim.trace import Function, Kind

from tests.execute.single import Array, Network, assert_round_trip, assert_unrounded, quantizer, run  # isort: skip

FIRST, SECOND, OUTPUT = quantizer(0.0311, 3), quantizer(0.0173, -7), quantizer(0.0412, 5)
SIGMOID = fixed_table("sigmoid")
EVERY = np.arange(-128, 128)
A, B = (axis.reshape(-1, 256) for axis in np.meshgrid(EVERY, EVERY))
"""All pairs of int8 codes, (256, 256)."""
INTEGER = [name for name, profile in PROFILES.items() if profile.bias == "integer"]
REAL = [name for name, profile in PROFILES.items() if profile.bias == "real"]


def elementwise(
    function: Function, shapes: list[tuple[int, ...]], grids: list[Quantizer | None], output: Quantizer | None = OUTPUT,
    semantics: Semantics = TRAINING, vector: Array | None = None, out: tuple[int, ...] | None = None,
) -> Executable:  # fmt: skip
    """Operands a, b of `shapes`; `vector` as the last operand."""
    net = Network()
    reads = [net.tensor(part, shape, g) for part, shape, g in zip("ab", shapes, grids, strict=False)]
    if vector is not None:
        reads.append(net.vector("vector", vector))
    out = out or shapes[0]
    net.tensor("out", out, output)
    net.op(Kind.ELEMENTWISE, reads, "out", function=function, m=out[0], n=out[-1])
    return net.build(semantics)


def of_pairs(function: Function, output: Quantizer | None = OUTPUT, semantics: Semantics = TRAINING) -> Array:
    return run(elementwise(function, [A.shape, B.shape], [FIRST, SECOND], output, semantics), a=A, b=B)


GRAPHS: dict[Function, Callable[[Array, Array], Array]] = {
    Function.ADD: lambda a, b: a + b,
    Function.ADD_HALF: lambda a, b: a + 0.5 * b,
    Function.MULTIPLY: lambda a, b: a * b,
    Function.MULTIPLY_RELU: lambda a, b: np.maximum(a * b, 0.0),
    Function.MULTIPLY_TANH: lambda a, b: fixed_table("tanh")(a * b),
}


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("output", [OUTPUT, quantizer(2.0**-5), None])
@pytest.mark.parametrize("function", list(GRAPHS))
def test_two_operands_in_the_order_of_the_graph(function: Function, output: Quantizer | None, name: str) -> None:
    """Every pair of int8 codes, ties included: the same IEEE operations give the same codes."""
    values = GRAPHS[function](FIRST.dequantize(A), SECOND.dequantize(B))
    expected = values if output is None else output.quantize(values)
    np.testing.assert_array_equal(of_pairs(function, output, PROFILES[name]), expected)


def test_functions_differ() -> None:
    assert len({of_pairs(function).tobytes() for function in GRAPHS}) == len(GRAPHS)


@pytest.mark.parametrize("name", INTEGER)
def test_two_operands_by_an_integer_profile(name: str) -> None:
    semantics, output = PROFILES[name], quantizer(2.0**-6, 5)
    product = multiply(A, B, FIRST, SECOND, output, semantics)
    np.testing.assert_array_equal(of_pairs(Function.MULTIPLY, output, semantics), product)
    np.testing.assert_array_equal(of_pairs(Function.MULTIPLY_RELU, output, semantics), np.maximum(product, 5))
    np.testing.assert_array_equal(of_pairs(Function.ADD, output, semantics), add(A, B, FIRST, SECOND, output))
    for function in (Function.ADD_HALF, Function.MULTIPLY_TANH):
        expected = of_pairs(function, output)
        np.testing.assert_array_equal(of_pairs(function, output, semantics), expected)


def test_a_swapped_profile_is_seen() -> None:
    """Scales that are powers of two make every rule of a tie visible."""
    first, second, output = quantizer(2.0**-5), quantizer(2.0**-6), quantizer(2.0**-6, 5)

    def codes(function: Function, name: str) -> bytes:
        shapes = [A.shape] if function == Function.NONE else [A.shape, B.shape]
        given = {"a": A} if function == Function.NONE else {"a": A, "b": B}
        executable = elementwise(function, shapes, [first, second], output, PROFILES[name])
        return run(executable, **given).tobytes()

    names = ("training", "tflite-reference", "tflite-ruy", "tflite-lstm")
    assert len({codes(Function.MULTIPLY, name) for name in names}) == 4
    assert len({codes(Function.ADD, name) for name in names}) == 1


@pytest.mark.parametrize("name", [*PROFILES])
def test_a_change_of_grid(name: str) -> None:
    output, semantics = quantizer(0.0622, -5), PROFILES[name]
    plain = run(elementwise(Function.NONE, [(1, 256)], [FIRST], output, semantics), a=EVERY[None])
    relu = run(elementwise(Function.RELU, [(1, 256)], [FIRST], output, semantics), a=EVERY[None])
    expected = requantize_codes(EVERY, FIRST, output, semantics)
    np.testing.assert_array_equal(plain[0], expected)
    np.testing.assert_array_equal(relu[0], np.maximum(expected, -5))
    assert len(np.unique(expected)) > 100


def test_ties_of_a_change_of_grid_follow_the_profile() -> None:
    output = quantizer(2 * float(FIRST.scale))
    codes = {
        name: run(elementwise(Function.NONE, [(1, 256)], [FIRST], output, PROFILES[name]), a=EVERY[None]).tobytes()
        for name in ("training", "tflite-reference", "tflite-ruy")
    }
    assert len(set(codes.values())) == 3


@pytest.mark.parametrize("name", [*PROFILES])
@pytest.mark.parametrize("input", [FIRST, quantizer(2.0**-12, bits=16), None])
@pytest.mark.parametrize("function", [Function.SWISH, Function.SIGMOID, Function.TANH])
def test_functions_of_one_variable(function: Function, input: Quantizer | None, name: str) -> None:
    """A table over codes and the function of reals are the same, in every profile."""
    if input is None:
        x = np.random.default_rng(0).standard_normal((4, 64)) * 3
        values = x
    else:
        low, high = input.code_range
        x = np.random.default_rng(0).integers(low, high + 1, (4, 64))
        values = input.dequantize(x)
    table = fixed_table("tanh" if function == Function.TANH else "sigmoid")
    expected = values * SIGMOID(values) if function == Function.SWISH else table(values)
    for output in (OUTPUT, None):
        got = run(elementwise(function, [x.shape], [input], output, PROFILES[name]), a=x)
        np.testing.assert_array_equal(got, expected if output is None else output.quantize(expected))


@pytest.mark.parametrize("name", [*PROFILES])
def test_glu(name: str) -> None:
    """Every pair of a and b: float64 in the order of the graph, or one integer product with the sigmoid's codes."""
    x, semantics, output = np.concatenate([A, B], axis=-1), PROFILES[name], quantizer(0.0159, -3)
    got = run(elementwise(Function.GLU, [x.shape], [FIRST], output, semantics, out=A.shape), a=x)
    a, b = FIRST.dequantize(A), FIRST.dequantize(B)
    if semantics.bias == "real":
        expected = output.quantize(a * SIGMOID(b))
    else:
        gate = build_table("sigmoid", SIGMOID, FIRST, grid(2.0**-15))
        expected = glu(A, B, FIRST, gate, output, semantics)
    np.testing.assert_array_equal(got, expected)
    assert not np.array_equal(got, output.quantize(SIGMOID(a) * b))
    real = run(elementwise(Function.GLU, [x.shape], [FIRST], None, semantics, out=A.shape), a=x)
    np.testing.assert_array_equal(real, a * SIGMOID(b))


@pytest.mark.parametrize("name", ["training", "tflite-xnnpack"])
@pytest.mark.parametrize("function", [Function.ADD, Function.MULTIPLY, Function.ADD_HALF])
def test_a_vector_is_broadcast(function: Function, name: str, tmp_path: Path) -> None:
    """A parameter (D,) is a real in every profile."""
    vector = np.random.default_rng(1).standard_normal(256)
    executable = elementwise(function, [A.shape], [FIRST], OUTPUT, PROFILES[name], vector)
    values = GRAPHS[function](FIRST.dequantize(A), vector)
    np.testing.assert_array_equal(run(executable, a=A), OUTPUT.quantize(values))
    np.testing.assert_array_equal(executable.parameters()["block.part.vector"], vector)
    assert_round_trip(executable, {"block.part.a": A}, tmp_path / "e")


def norm(
    shape: tuple[int, int], input: Quantizer | None = FIRST, output: Quantizer | None = OUTPUT,
    gamma: Array | None = None, beta: Array | None = None, semantics: Semantics = TRAINING, **attributes: Any,
) -> Executable:  # fmt: skip
    net = Network()
    net.tensor("x", shape, input)
    net.vector("gamma", np.ones(shape[1]) if gamma is None else gamma)
    net.vector("beta", np.zeros(shape[1]) if beta is None else beta)
    net.tensor("out", shape, output)
    net.op(Kind.NORM, ["x", "gamma", "beta"], "out", m=shape[0], n=shape[1])
    return net.build(semantics, **attributes)


@pytest.mark.parametrize("name", [*PROFILES])
@pytest.mark.parametrize(("shape", "bits"), [((7, 144), 8), ((1, 512), 16), ((5, 1), 8)])
def test_norm_of_codes(shape: tuple[int, int], bits: int, name: str) -> None:
    rng = np.random.default_rng(shape[1])
    input = quantizer(0.021, 3, bits)
    x = rng.integers(*input.code_range, shape, endpoint=True)
    x[0] = input.code_range[0]
    gamma, beta = rng.uniform(0.5, 1.5, shape[1]), rng.uniform(-1, 1, shape[1])
    for epsilon in (1e-5, 1):
        executable = norm(shape, input, OUTPUT, gamma, beta, PROFILES[name], epsilon=epsilon)
        expected = layer_norm(x, input, OUTPUT, gamma, beta, epsilon)
        np.testing.assert_array_equal(run(executable, x=x), expected)
        values = run(norm(shape, input, None, gamma, beta, PROFILES[name], epsilon=epsilon), x=x)
        np.testing.assert_array_equal(OUTPUT.quantize(values), expected)


def test_norm_of_reals() -> None:
    """The same as of codes but for the last bits, and 1e-5 unless an epsilon is told."""
    rng = np.random.default_rng(2)
    x, gamma, beta = rng.standard_normal((6, 33)) * 0.01, rng.uniform(0.5, 1.5, 33), rng.uniform(-1, 1, 33)
    got = run(norm(x.shape, None, None, gamma, beta), x=x)
    normal = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(got, normal * gamma + beta, rtol=1e-12, atol=1e-13)
    other = run(norm(x.shape, None, None, gamma, beta, epsilon=1e-4), x=x)
    assert np.abs(other - got).max() > 0.1


def test_norm_goes_through_a_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    executable = norm((4, 9), gamma=rng.uniform(0.5, 1.5, 9), beta=rng.standard_normal(9), epsilon=1e-3)
    inputs = {"block.part.x": rng.integers(-128, 128, (4, 9))}
    assert_round_trip(executable, inputs, tmp_path / "e")
    assert_unrounded(executable, inputs, {"block.part.out"})


@pytest.mark.parametrize("name", ["training", "tflite-reference"])
@pytest.mark.parametrize("function", [Function.ADD, Function.MULTIPLY, Function.ADD_HALF, Function.SWISH, Function.GLU])
def test_reals_before_rounding(function: Function, name: str) -> None:
    two = function not in (Function.SWISH, Function.GLU)
    out = (256, 128) if function == Function.GLU else A.shape
    executable = elementwise(function, [A.shape, B.shape][: 1 + two], [FIRST, SECOND], OUTPUT, PROFILES[name], out=out)
    inputs = {"block.part.a": A} | ({"block.part.b": B} if two else {})
    assert_unrounded(executable, inputs, {"block.part.out"})


@pytest.mark.parametrize(
    ("function", "shapes", "out", "vector", "rule"),
    [
        (Function.GLU, [(3, 7)], (3, 4), None, r"must have shapes \(3, 8\), \(3, 4\), got \(3, 7\), \(3, 4\)"),
        (Function.ADD, [(3, 7), (3, 6)], (3, 7), None, r"must have operands that broadcast, got \(3, 7\) and \(3, 6\)"),
        (Function.ADD, [(3, 7)], (3, 7), np.zeros(6), r"must have operands that broadcast, got \(3, 7\) and \(6,\)"),
        (
            Function.ADD,
            [(3, 7)],
            (3, 7),
            None,
            "must read 2 activations, 0 weights and 0 biases and write 1, got 1, 0,",
        ),
        (
            Function.ADD,
            [(3, 7)] * 2,
            (3, 7),
            np.zeros(7),
            "must read 1 activations, 0 weights and 1 biases and write 1",
        ),
        (Function.SWISH, [(3, 7)], (3, 7), np.zeros(7), "must read 1 activations, 0 weights and 0 biases and write 1"),
    ],
)
def test_operands_that_do_not_fit_are_refused(
    function: Function, shapes: list[tuple[int, ...]], out: tuple[int, ...], vector: Array | None, rule: str
) -> None:
    with pytest.raises(HwsimError, match=rf"layer block.part\) {rule}"):
        elementwise(function, shapes, [FIRST, SECOND], vector=vector, out=out)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"gamma": np.ones(3)}, r"layer block.part\) must have gamma and beta of \(4,\), got \(3,\) and \(4,\)"),
        ({"beta": np.array([0, 0, 0, np.inf])}, "block.part.beta: must be finite, got NaN or an infinity"),
        ({"epsilon": 0}, r"layer block.part\) must have a positive and finite epsilon, got 0"),
        ({"epsilon": "tiny"}, r"layer block.part\) must have a positive and finite epsilon, got tiny"),
        ({"input": Quantizer(np.ones(4), 8)}, r"must have one scale and fewer than 32768 elements a row, got 4 and 4"),
        ({"shape": (1, 32768)}, r"must have one scale and fewer than 32768 elements a row, got 1 and 32768"),
    ],
)
def test_norms_that_do_not_fit_are_refused(change: dict[str, Any], rule: str) -> None:
    with pytest.raises(HwsimError, match=rule):
        norm(**{"shape": (2, 4), **change})


def test_a_vector_that_is_not_finite_is_refused() -> None:
    with pytest.raises(HwsimError, match=r"block.part.vector: must be finite, got NaN or an infinity"):
        elementwise(Function.ADD, [(2, 2)], [FIRST], vector=np.array([0.0, np.nan]))
