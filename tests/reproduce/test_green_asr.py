"""Green ASR: shapes with exact counts, sizes by hand, and the published column."""

from __future__ import annotations

import pytest

from hwsim.errors import HwsimError
from hwsim.reproduce.green_asr import (
    BOTTLENECKS,
    EIGHT_BIT_BUDGET,
    bit_listing,
    bits_of_blocks,
    float_mb,
    language_model_mb,
    mixed_mb,
)
from hwsim.reproduce.green_asr_shapes import STRIDES, LanguageModel, Matrix, tdnnf
from tests.reproduce.papers import reproduced

PUBLISHED = {
    "TDNN-F, float32": (74.4, 0.03),
    "TDNN-F, searched bottlenecks, float32": (49.6, 0.03),
    "TDNN-F, uniform 4 bit": (6.4, 0.03),
    "TDNN-F, mixed, budget of 4 bits": (6.3, 0.03),
    "TDNN-F, mixed, budget of 8 bits": (12.5, 0.03),
    "Transformer LM, float32": (106.0, 0.03),
    "Transformer LM, mixed 1.9 bit": (7.0, 0.07),
    "compression of both models": (13.6, 0.05),
}
MISSED = {"Transformer LM, mixed 1.9 bit", "compression of both models"}


def parameters(matrices: list[Matrix]) -> int:
    return sum(matrix.weights + matrix.biases for matrix in matrices)


def test_the_counts_are_those_of_the_recipe() -> None:
    assert parameters(tdnnf(training=True)) == 18_702_628
    assert parameters(tdnnf()) == 16_363_922
    assert len(STRIDES) == len(BOTTLENECKS) == len(EIGHT_BIT_BUDGET) - 1 == 14


def test_bottlenecks_are_one_for_each_layer() -> None:
    for wrong in ((160,) * 13, (0, *BOTTLENECKS[1:])):
        with pytest.raises(HwsimError, match=r"bottlenecks must be 14 sizes of at least 1, got \["):
            tdnnf(wrong)


def test_sizes_by_hand() -> None:
    matrices = [Matrix("input", 4, 3), Matrix("layer0", 5, 8), Matrix("output", 8, 2, bias=False)]
    assert float_mb(matrices) == 4 * (12 + 3 + 40 + 8 + 16) / 1e6
    stored = (32 * (12 + 3)) + (2 * 40 + 32 + 32 * 8) + (16 * 16 + 32)
    assert mixed_mb(matrices, {"layer0": 2, "output": 16}) == stored / 8e6
    assert bits_of_blocks((1, 2, 16)) == {"layer0": 1, "layer1": 2, "prefinal": 16, "output": 16}
    model = LanguageModel(vocabulary=10, width=4, blocks=1, feed_forward=6)
    assert (model.weights, model.vectors) == (10 * 4 + 4 * 16 + 2 * 24, 5 * 4 + 6 + 16 + 8)
    assert language_model_mb(model, 2) == (2 * model.weights + 32 * model.vectors) / 8e6


def test_every_published_size_has_a_row_and_misses_are_marked() -> None:
    paper, steps = reproduced("green-asr")
    assert steps == [(1, 1)]
    assert [row.figure for row in paper.rows] == list(PUBLISHED)
    for row in paper.rows:
        published, tolerance = PUBLISHED[row.figure]
        assert row.published == published
        assert row.simulated == pytest.approx(published, rel=tolerance), row.figure
        assert row.within_tolerance is (row.figure not in MISSED), row.figure
    assert all(name in paper.notes[0] for name in MISSED)
    assert len(paper.assumptions) == 5


def test_the_blocks_add_up_to_the_size() -> None:
    listing = bit_listing()
    assert [row[2] for row in listing.rows] == ["32", *map(str, EIGHT_BIT_BUDGET[:-1]), "16", "16"]
    assert [row[1] for row in listing.rows[1:15]] == list(map(str, BOTTLENECKS))
    total = sum(float(row[5]) for row in listing.rows)
    assert total == pytest.approx(mixed_mb(tdnnf(BOTTLENECKS), bits_of_blocks(EIGHT_BIT_BUDGET)), rel=1e-12)
