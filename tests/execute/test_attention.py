"""Softmax, attention and the head against graphs in reals that share only the exponential table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwsim.errors import HwsimError
from hwsim.execute.reference.attention import Attention, log_softmax, softmax
from hwsim.numerics.quantizers import Quantizer
from hwsim.numerics.tables import exponential_table


def quantizer(scale: float, bits: int = 8, zero: int = 0) -> Quantizer:
    return Quantizer(np.asarray(scale), bits, np.asarray(zero))


def softmax_graph(codes: np.ndarray, scores: Quantizer, mask: np.ndarray | None = None) -> np.ndarray:
    """Probabilities on the grid of 1/256, in reals."""
    values = exponential_table(float(scores.scale), scores.bits)[codes.max(axis=-1, keepdims=True) - codes] / 2.0**15
    return np.minimum(np.floor(values / values.sum(axis=-1, keepdims=True) * 256 + 0.5), 255) / 256


@pytest.mark.parametrize(("scale", "bits"), [(0.05, 8), (2.0**-4, 8), (2.0**-9, 16)])
def test_softmax(scale: float, bits: int) -> None:
    """1,048,576 probabilities in each case."""
    scores = quantizer(scale, bits)
    codes = np.clip(np.rint(np.random.default_rng(0).standard_normal((4096, 256)) / scale), *scores.code_range)
    codes = codes.astype(np.int64)
    np.testing.assert_array_equal(softmax(codes, scores) / 256, softmax_graph(codes, scores))


def test_softmax_is_near_the_real_one() -> None:
    codes = np.random.default_rng(1).integers(-128, 128, (64, 32))
    real = np.exp(codes * 0.05)
    assert np.abs(softmax(codes, quantizer(0.05)) / 256 - real / real.sum(axis=-1, keepdims=True)).max() < 1 / 256


def test_masked_scores_do_not_count() -> None:
    codes = np.array([[5, 100, 5], [1, 2, 3]])
    mask = np.array([[True, False, True], [False, False, False]])
    np.testing.assert_array_equal(softmax(codes, quantizer(0.1), mask=mask), [[128, 0, 128], [0, 0, 0]])


def test_attention() -> None:
    """4 heads, 200 x 200 frames, D = 64: scores and outputs equal those of the graph in reals."""
    rng = np.random.default_rng(2)
    q, k, v = (rng.integers(-127, 128, (4, 200, 64)) for _ in range(3))
    part = Attention(
        *(quantizer(s) for s in rng.uniform(0.03, 0.05, 3)), quantizer(0.06), quantizer(rng.uniform(0.02, 0.03), zero=3)
    )
    mask = np.abs(np.arange(200)[:, None] - np.arange(200)) < 64
    scores = part.scores.quantize(part.query.dequantize(q) @ part.key.dequantize(k).swapaxes(1, 2) / np.sqrt(64))
    np.testing.assert_array_equal(part.score_codes(q, k), scores)
    table = exponential_table(0.06, 8)
    greatest = np.where(mask, scores, -128).max(axis=-1, keepdims=True)
    weights = np.where(mask, table[np.where(mask, greatest - scores, 0)], 0) / 2.0**15
    probabilities = np.floor(weights / weights.sum(axis=-1, keepdims=True) * 256 + 0.5).clip(0, 255) / 256
    expected = part.output.quantize(probabilities @ part.value.dequantize(v))
    assert len(np.unique(expected)) > 50
    np.testing.assert_array_equal(part.run(q, k, v, mask), expected)


def test_zero_points_of_attention() -> None:
    """The same reals whatever the zero points: queries, keys and values moved by theirs."""
    rng = np.random.default_rng(4)
    q, k, v = (rng.integers(-60, 60, (2, 7, 5)) for _ in range(3))
    plain = Attention(*(quantizer(s) for s in (0.03, 0.04, 0.05)), quantizer(0.06), quantizer(0.013))
    moved = replace(plain, query=quantizer(0.03, zero=9), key=quantizer(0.04, zero=-60), value=quantizer(0.05, zero=7))
    np.testing.assert_array_equal(moved.run(q + 9, k - 60, v + 7), plain.run(q, k, v))
    with pytest.raises(HwsimError, match="a product of activations must have one scale and a level at zero"):
        replace(plain, key=Quantizer(np.ones(5), 8)).run(q, k, v)


def test_log_softmax() -> None:
    logits = quantizer(2.0**-8, 16)
    codes = np.random.default_rng(3).integers(-2000, 2000, (500, 46))
    values = codes * 2.0**-8
    expected = values - np.log(np.exp(values).sum(axis=-1, keepdims=True))
    result = log_softmax(codes, logits)
    assert np.abs(result - expected).max() < 2.0**-16
    np.testing.assert_array_equal(result * 2**16, np.rint(result * 2**16))
    np.testing.assert_array_equal(result.argmax(axis=-1), codes.argmax(axis=-1))
