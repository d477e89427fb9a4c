"""Green ASR: its networks of the catalogue with exact counts, sizes by hand, and the published column."""

from __future__ import annotations

import pytest

from hwsim.extract import load_network, parameter_counts
from hwsim.numerics import load_policy
from hwsim.numerics.formats import NumberFormat
from hwsim.reproduce.green_asr import (
    BUDGET,
    RECIPE,
    SEARCHED,
    UNIFORM,
    acoustic,
    bit_listing,
    block_of,
    full_rate_macs,
    language_model,
    macs_per_audio_second,
    megabytes,
)
from tests.reproduce.papers import reproduced

PUBLISHED = {
    "TDNN-F, parameters with training branch": (18_702_628, 0.0),
    "TDNN-F, float32": (74.4, 0.03),
    "TDNN-F, searched bottlenecks, float32": (49.6, 0.03),
    "TDNN-F, uniform 4 bit": (6.4, 0.03),
    "TDNN-F, mixed, budget of 4 bits": (6.3, 0.03),
    "TDNN-F, mixed, budget of 8 bits": (12.5, 0.03),
    "Transformer LM, float32": (106.0, 0.03),
    "Transformer LM, mixed 1.9 bit": (7.0, 0.09),
    "compression of both models": (13.6, 0.05),
}
MISSED = {"Transformer LM, mixed 1.9 bit", "compression of both models"}
DERIVED = {"TDNN-F, parameters at inference": 16.363922, "TDNN-F, work": 0.7144277, "TDNN-F, context on each side": 34}
STRIDES = (1, 1, 1, 0, *(3,) * 10)
BOTTLENECKS = (80, 100, 80, 25, 80, 80, 80, 50, 80, 50, 25, 100, 160, 160)
EIGHT_BIT_BUDGET = (16, 8, 8, 1, 4, 4, 4, 2, 4, 2, 1, 4, 8, 8, 16)
"""As printed: of 14 factored layers, and of what follows them."""


def blocks(first: int, layers: tuple[int, ...], last: int) -> int:
    """Bytes by hand: matrices in the bits of their block with a scale each, all else in float32."""
    bits = 32 * (220 * 1536 + 1536) if first == 32 else 0
    for stride, size, count in zip(STRIDES, BOTTLENECKS, layers, strict=True):
        bits += count * (2 if stride else 1) * 2 * 1536 * size + 2 * 32 + 32 * 1536
    return bits + last * (1536 * 256 + 2 * 256 * 1536 + 256 * 6034) + 4 * 32 + 32 * (1536 + 6034)


def test_low_bit_sizes_by_hand() -> None:
    assert megabytes(acoustic(SEARCHED, BUDGET)) == blocks(32, EIGHT_BIT_BUDGET[:-1], 16) / 8e6
    assert megabytes(acoustic(SEARCHED, UNIFORM)) == blocks(32, (4,) * 14, 4) / 8e6
    assert megabytes(acoustic(RECIPE)) == 4 * 16_363_922 / 1e6


def test_the_policies_give_each_block_its_bits_and_weights_alone() -> None:
    for name, bits in ((UNIFORM, (4,) * 15), (BUDGET, EIGHT_BIT_BUDGET)):
        found = {block_of(t): t.format for t in acoustic(SEARCHED, name) if len(t.shape) > 1}
        wanted = {f"layer{index}": f"int{count}" for index, count in enumerate(bits[:-1])}
        assert found == {"affine": "fp16", **wanted, "prefinal": f"int{bits[-1]}", "output": f"int{bits[-1]}"}
        for layer in ("encoder.layer3.affine", "head.output", "rescoring_lm.layer0.attention.query"):
            formats = load_policy(name).resolve(layer)
            assert (formats.activations, formats.state) == (NumberFormat("fp16"),) * 2
        assert {t.format for t in acoustic(SEARCHED, name) if len(t.shape) == 1} == {"fp32"}


def test_the_language_model_is_ternary_with_its_table() -> None:
    trace = load_network("transformer_lm_30k").networks.with_precision(load_policy("green-lm-2bit"))
    matrices = [t for t in trace.tensors if t.name.endswith((".weight", ".table"))]
    assert {t.format for t in matrices} == {"int2"}
    model = language_model()
    assert sum(t.elements for t in matrices) == model.weights
    assert trace.totals().weight_bits == 2 * model.weights + 32 * (len(matrices) + model.vectors)
    assert trace.totals().parameters == model.weights + model.vectors
    swbd = load_network(RECIPE).networks.with_precision(load_policy("green-lm-2bit"))
    assert swbd.totals("rescoring_lm").weight_bits == trace.totals().weight_bits
    assert swbd.totals("encoder").weight_bits > 15 * swbd.totals("encoder").parameters


def test_other_words_and_bits_of_the_language_model() -> None:
    whole, other = language_model(), language_model(vocabulary=28_300, feed_forward=1024)
    assert whole.weights - other.weights == 1_700 * 512 - 6 * 2 * 512 * 256
    assert other.vectors - whole.vectors == 6 * 256
    assert whole.megabytes(2) == (2 * whole.weights + 32 * whole.vectors) / 8e6


def test_work_at_the_full_rate_is_more_by_one_layer() -> None:
    workload = load_network(RECIPE)
    matrix, third = 2 * 1536 * 160, 100 / 3
    beside = matrix * third + 2 * matrix * third
    assert full_rate_macs(workload) - macs_per_audio_second(workload) == pytest.approx(beside)
    assert round(full_rate_macs(workload) / 1e9, 2) == 0.76


def test_every_published_size_has_a_row_and_misses_are_marked() -> None:
    paper, steps = reproduced("green-asr")
    assert steps == [(1, 1)]
    rows = {row.figure: row for row in paper.rows}
    assert set(rows) == {*PUBLISHED, *DERIVED}
    for figure, (published, tolerance) in PUBLISHED.items():
        row = rows[figure]
        assert row.published == published
        assert row.simulated == pytest.approx(published, rel=tolerance, abs=0), figure
        assert row.within_tolerance is (figure not in MISSED), figure
    for figure, value in DERIVED.items():
        assert rows[figure].published is None
        assert rows[figure].simulated == pytest.approx(value, rel=1e-7), figure
    assert all(name in paper.notes[0] for name in MISSED)
    assert "7 of 9 figures" in paper.notes[0]
    assert len(paper.assumptions) == 6
    assert "0.714 GMAC for a second of audio" in paper.notes[2]
    assert "0.764 are what" in paper.notes[2]


def test_the_blocks_add_up_to_the_size() -> None:
    listing = bit_listing()
    assert [row[2] for row in listing.rows] == ["32", *map(str, EIGHT_BIT_BUDGET[:-1]), "16", "16"]
    assert [row[1] for row in listing.rows[1:15]] == list(map(str, BOTTLENECKS))
    total = sum(float(row[5]) for row in listing.rows)
    assert total == pytest.approx(megabytes(acoustic(SEARCHED, BUDGET)), rel=1e-12)
    floats = sum(float(row[4]) for row in listing.rows)
    assert floats == pytest.approx(4 * parameter_counts(load_network(SEARCHED))["acoustic"] / 1e6, rel=1e-12)
