"""Sizes of model files by hand, on tensors of a few elements."""

from __future__ import annotations

import numpy as np
import pytest

from hwsim.numerics import NumberFormat, PrecisionPolicy
from hwsim.numerics.policy import LayerPrecision, PartialPrecision
from hwsim.reproduce.sizes import file_bits, file_megabytes, float_bits, float_remainder, parameters
from hwsim.reproduce.usm_lite import (
    SIZES,
    gemm_weights,
    share_by_rule,
    share_stored,
    size_listing,
    size_rows,
    storage_listing,
)
from hwsim.trace import Role, Trace
from hwsim.trace.table import OP_COLUMNS, Tensor

NONE = np.zeros(0, dtype=np.int64)
ONE = np.zeros(1, dtype=np.int64)


def trace(*tensors: Tensor) -> Trace:
    """A trace of tensors alone."""
    layers = tuple(dict.fromkeys(tensor.layer for tensor in tensors))
    return Trace("t", layers, tensors, dict.fromkeys(OP_COLUMNS, NONE), ONE, NONE, ONE, NONE, NONE, NONE)


def weight(layer: str, *shape: int) -> Tensor:
    return Tensor(f"{layer}.weight", layer, Role.WEIGHT, shape)


BLOCK = trace(
    weight("encoder.layer0.feed_forward1.up", 8, 6),
    Tensor("encoder.layer0.feed_forward1.up.bias", "encoder.layer0.feed_forward1.up", Role.BIAS, (6,)),
    weight("encoder.layer0.convolution.depthwise", 5, 8),
    Tensor("encoder.layer0.x", "encoder.layer0.feed_forward1.up", Role.ACTIVATION, (100, 8)),
    weight("joint.output", 6, 3),
)


def policy(text: str, floats: str = "fp16") -> PrecisionPolicy:
    half, rule = NumberFormat(floats), PartialPrecision(weights=NumberFormat.parse(text))
    return PrecisionPolicy("p", (("*.up", rule),), LayerPrecision.same(half))


def test_floats_of_a_file_are_32_bits_whatever_computes_them() -> None:
    codes, scales, rest = 4 * 48, 32 * 6, 32 * (6 + 40 + 18)
    for floats in ("fp16", "bf16", "fp32"):
        assert file_bits(BLOCK, policy("int4/channel", floats)) == codes + scales + rest
    assert file_megabytes(BLOCK, policy("int4/channel")) == (codes + scales + rest) / 8e6
    assert float_remainder(BLOCK, policy("int4/channel")) == 6 + 40 + 18
    assert float_bits(parameters(BLOCK)) == 32 * (48 + 6 + 40 + 18)


def test_weights_of_linear_layers_of_blocks_are_counted() -> None:
    outside = trace(*BLOCK.tensors, weight("encoder.subsampling.linear", 8, 8), weight("encoder.layer1.query", 8, 8))
    assert [tensor.layer for tensor in gemm_weights(outside)] == [
        "encoder.layer0.feed_forward1.up",
        "encoder.layer1.query",
    ]


WEIGHTS = [weight("encoder.layer0.up", 1536, 6144), weight("encoder.layer0.down", 6144, 1536)]


@pytest.mark.parametrize(("name", "text", "published"), SIZES)
def test_the_rule_of_the_paper_gives_its_column(name: str, text: str, published: float) -> None:
    """Rounded to one decimal, halves up, as 6.25 is printed 6.3."""
    found = share_by_rule(NumberFormat.parse(text), WEIGHTS)
    assert np.floor(10 * found + 0.5) / 10 == published, name


def test_every_stored_bit_is_more_than_the_rule() -> None:
    by_hand = {
        "int8/channel": 8 + 32 * (6144 + 1536) / (2 * 1536 * 6144),
        "int2/group96/zp": 2 + (32 + 2) / 96,
        "fp32/2:4": 17,
        "int4/channel/2:4": 3 + 32 * (6144 + 1536) / (2 * 1536 * 6144),
    }
    for text, bits in by_hand.items():
        fmt = NumberFormat.parse(text)
        assert share_stored(fmt, WEIGHTS) == pytest.approx(100 * bits / 32, rel=1e-12)
        assert share_stored(fmt, WEIGHTS) >= share_by_rule(fmt, WEIGHTS)


def test_each_size_stands_by_the_rule_and_with_every_bit() -> None:
    rows = size_rows(WEIGHTS)
    assert [(row.figure, row.published) for row in rows] == [(f"size, {name}", size) for name, _, size in SIZES]
    assert all(row.within_tolerance for row in rows)
    listing = {row[1]: row[2:] for row in size_listing(WEIGHTS).rows}
    assert listing["int4/channel"] == ("12.5", "12.500", "12.541")
    assert listing["int2/group96/zp"] == ("7.3", "7.292", "7.357")


def test_an_index_costs_half_of_a_mask_at_one_of_four() -> None:
    listing = {row[0]: row[1:] for row in storage_listing(WEIGHTS).rows}
    assert listing["fp32/2:4"] == (1, 17, 1, 17)
    assert listing["fp32/1:4"] == (1, 9, 0.5, 8.5)
