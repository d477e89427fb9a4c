"""Element-wise operations, layer normalization and FP16, against graphs in reals."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.execute.reference.half import half_matmul, half_round
from hwsim.execute.reference.linear import embedding, unfold
from hwsim.execute.reference.pointwise import activation, add, glu, layer_norm, multiply, requantize_codes
from hwsim.execute.semantics import PROFILES
from hwsim.numerics.gemmlowp import sigmoid_q15, tanh_q15
from hwsim.numerics.quantizers import Quantizer
from hwsim.numerics.tables import build_table, grid, sigmoid, swish


def quantizer(scale: float, zero: int = 0, bits: int = 8) -> Quantizer:
    return Quantizer(np.asarray(scale), bits, np.asarray(zero))


ALL = np.stack(np.meshgrid(np.arange(-128, 128), np.arange(-128, 128)))


def test_add_and_multiply() -> None:
    """Every pair of int8 codes."""
    a, b = ALL
    first, second = quantizer(0.031, 3), quantizer(0.017, -7)
    for output in (quantizer(0.04, 5), quantizer(2.0**-4)):
        values = first.dequantize(a) + second.dequantize(b)
        np.testing.assert_array_equal(add(a, b, first, second, output), output.quantize(values))
        values = first.dequantize(a) * second.dequantize(b)
        np.testing.assert_array_equal(multiply(a, b, first, second, output), output.quantize(values))


def test_a_swapped_rule_of_multiplication_is_seen() -> None:
    a, b = ALL
    first, second, output = quantizer(2.0**-5), quantizer(2.0**-6), quantizer(2.0**-6, 5)
    codes = {
        name: multiply(a, b, first, second, output, PROFILES[name]).tobytes()
        for name in ("training", "tflite-reference", "tflite-ruy", "tflite-lstm")
    }
    assert len(set(codes.values())) == 4
    before = replace(PROFILES["tflite-reference"], zero_point="before")
    assert multiply(a, b, first, second, output, before).tobytes() != codes["tflite-reference"]


def test_requantize_codes() -> None:
    a = np.arange(-128, 128)
    wide, narrow = quantizer(0.01, 3), Quantizer(np.asarray(0.2), 4, narrow=True)
    np.testing.assert_array_equal(requantize_codes(a, wide, narrow), narrow.quantize((a - 3) * 0.01))


def test_glu_and_swish() -> None:
    a, b = ALL
    first, second, output = quantizer(0.031, 3), quantizer(0.05), quantizer(0.02)
    gate = build_table("sigmoid", sigmoid, second, grid(2.0**-15))
    values = first.dequantize(a) * np.clip(np.rint(sigmoid(second.dequantize(b)) * 2**15), 0, 32767) / 2**15
    np.testing.assert_array_equal(glu(a, b, first, gate, output), output.quantize(values))
    table = build_table("swish", swish, second, output)
    np.testing.assert_array_equal(activation(b, table), output.quantize(swish(second.dequantize(b))))


@pytest.mark.parametrize(("size", "bits"), [(144, 8), (512, 8), (512, 16), (1, 8)])
def test_layer_norm(size: int, bits: int) -> None:
    """0 of 1,048,576 codes differ from the graph in reals, with its own order of operations."""
    rng = np.random.default_rng(size)
    input, output = quantizer(0.021, 3, bits), quantizer(0.03, -5)
    low, high = input.code_range
    x = rng.integers(low, high + 1, (max(2048, 2**20 // size), size))
    gamma, beta = rng.uniform(0.5, 1.5, size), rng.uniform(-1, 1, size)
    values = input.dequantize(x)
    centred = values - values.mean(axis=-1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    expected = output.quantize(normal * gamma + beta)
    assert np.count_nonzero(layer_norm(x, input, output, gamma, beta) != expected) == 0
    with pytest.raises(HwsimError, match="gamma and beta must be"):
        layer_norm(x, input, output, gamma[:0], beta)


def test_lookups() -> None:
    table = np.arange(12).reshape(4, 3)
    np.testing.assert_array_equal(embedding([3, 0], table), [[9, 10, 11], [0, 1, 2]])
    with pytest.raises(HwsimError, match="labels must be 0 to 3, got 4"):
        embedding([4], table)
    np.testing.assert_array_equal(unfold([[1], [2], [3]], 2, left=1, fill=9), [[9, 1], [1, 2], [2, 3]])
    with pytest.raises(HwsimError, match="1 padded steps must hold a kernel of 2"):
        unfold([[1]], 2)


def test_an_element_wise_operand_has_one_scale() -> None:
    many = Quantizer(np.ones(3), 8)
    with pytest.raises(HwsimError, match="an element-wise operand must have one scale, got 3"):
        multiply([1], [1], many, quantizer(1), quantizer(1))


@given(st.integers(1, 40), st.integers(0, 12), st.integers(0, 2**32))
def test_half_products_are_rounded_after_each_sum(depth: int, chunk: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, w = half_round(rng.standard_normal(depth) * 10), half_round(rng.standard_normal((depth, 1)) * 10)
    for accumulator in (np.float16, np.float32):
        total = accumulator(0)
        size = chunk or depth
        for start in range(0, depth, size):
            part = accumulator(0)
            for x, y in zip(a[start : start + size].tolist(), w[start : start + size, 0].tolist(), strict=True):
                part = accumulator(np.float32(Fraction(float(part)) + Fraction(x) * Fraction(y)))
            total = accumulator(np.float32(total) + np.float32(part))
        name = np.dtype(accumulator).name
        assert half_matmul(a, w, accumulator=name, chunk=chunk)[0] == np.float16(total)


def test_half_precision_of_the_accumulator_matters() -> None:
    ones = np.ones((1, 4096))
    assert half_matmul(ones, ones.T)[0, 0] == 4096
    assert half_matmul(ones, ones.T, accumulator="float16")[0, 0] == 2048
    assert half_matmul(ones, ones.T, accumulator="float16", chunk=64)[0, 0] == 4096
    assert half_matmul(ones, ones.T, [1.0], "float32")[0, 0] == 4096
    assert np.isinf(half_matmul([[65504.0, 65504.0]], [[1.0], [1.0]])[0, 0])
    with pytest.raises(HwsimError, match="shapes must be"):
        half_matmul(ones, ones)


def test_gemmlowp_functions_are_near_the_real_ones() -> None:
    codes = np.arange(-32768, 32768)
    assert np.abs(sigmoid_q15(codes) / 2**15 - sigmoid(codes / 2**12)).max() < 2e-4
    for bits in range(7):
        assert np.abs(tanh_q15(codes, bits) / 2**15 - np.tanh(codes / 2 ** (15 - bits))).max() < 4e-4
    with pytest.raises(HwsimError, match="integer_bits must be 0 to 6, got 7"):
        tanh_q15(codes, 7)
