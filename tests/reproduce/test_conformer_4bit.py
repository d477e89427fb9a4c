"""Sizes of the 4-bit Conformer: each row by one rule, and which rows it misses."""

from __future__ import annotations

import pytest

from hwsim.extract import load_network
from hwsim.extract.encoder_spec import ConformerEncoderSpec
from hwsim.numerics import load_policy
from hwsim.reproduce import Reproduction
from hwsim.reproduce.conformer_production import CAUSAL, NON_CAUSAL, Block, blocks, production_mb
from hwsim.reproduce.sizes import float_remainder, parameters
from tests.reproduce.papers import reproduced

PUBLISHED = {
    "L, float32": (475, 0.03), "L, int8": (139, 0.03), "L, int4": (82, 0.03),
    "S, float32": (42, 0.03), "S, int8": (17, 0.04), "S, int4": (13, 0.065),
    "production, float32": (460, 0.03), "production, int8": (115, 0.03), "production, int4": (61, 0.055),
    "production, int4 in the first 1": (108, 0.03), "production, int4 in the first 2": (101, 0.03),
    "production, int4 in the first 3": (94, 0.03), "production, int4 in the first 4": (84, 0.03),
    "production, int4 in the first 5": (75, 0.03), "production, int4 in the first 6": (66, 0.03),
    "L, float32 over int4": (5.8, 0.03), "production, float32 over int4 in the first 3": (4.9, 0.03),
}  # fmt: skip
MISSED = {"S, int8", "S, int4", "production, int4"}


@pytest.fixture(scope="module")
def paper() -> Reproduction:
    return reproduced("conformer-4bit")[0]


@pytest.mark.parametrize("figure", PUBLISHED)
def test_a_size_is_as_near_as_it_says(paper: Reproduction, figure: str) -> None:
    published, tolerance = PUBLISHED[figure]
    row = next(row for row in paper.rows if row.figure == figure)
    assert row.published == published
    assert row.simulated == pytest.approx(published, rel=tolerance)
    assert row.within_tolerance is (figure not in MISSED)


def test_every_published_size_has_a_row(paper: Reproduction) -> None:
    assert [row.figure for row in paper.rows] == list(PUBLISHED)
    assert all(name in paper.notes[0] for name in MISSED)


@pytest.mark.parametrize("name", ["conformer_s", "conformer_l"])
def test_decoder_kernels_norms_and_biases_stay_float(name: str) -> None:
    """The rule by hand: 24 D^2 for each block and the layer after the convolutions are quantized."""
    network = load_network(name)
    encoder = network.spec.encoder
    assert isinstance(encoder, ConformerEncoderSpec)
    width = encoder.width
    low = encoder.layers * 24 * width**2 + 20 * width * width
    total = sum(tensor.elements for tensor in parameters(network.networks))
    for bits in (8, 4):
        assert float_remainder(network.networks, load_policy(f"conformer-int{bits}")) == total - low


def test_blocks_have_the_parameters_that_are_printed() -> None:
    for (count, kinds), layers in ((CAUSAL, 7), (NON_CAUSAL, 6)):
        found = blocks(count, kinds)
        assert len(found) == layers
        assert sum(block.weights + block.floats for block in found) == pytest.approx(count, rel=1e-12)
    assert production_mb(0, 32, 32) == pytest.approx(4 * (47 + 60 + 8.8), rel=1e-12)


def test_each_layer_in_int4_saves_half_a_byte_of_each_weight() -> None:
    assert Block(100.0, 3.0, 2.0).bits(4) == 4 * 100 + 32 * 2 + 32 * 3
    assert Block(100.0, 3.0, 2.0).bits(32) == 32 * 103
    causal, later = blocks(*CAUSAL), blocks(*NON_CAUSAL)
    for first in range(6):
        saved_mb = production_mb(first) - production_mb(first + 1)
        assert saved_mb == pytest.approx((causal[first].weights + later[first].weights) / 2e6, rel=1e-9)
    assert production_mb(7) == production_mb(None)
    assert production_mb(0, decoder_bits=32) - production_mb(0) == pytest.approx(3 * 8.8, rel=1e-9)
