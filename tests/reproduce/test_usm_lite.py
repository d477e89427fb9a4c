"""USM-Lite on its own network: the size column, and what 2:4 gives with and without skipping zeros."""

from __future__ import annotations

import pytest

from hwsim import simulate
from hwsim.extract import load_network
from hwsim.reproduce import Reproduction
from hwsim.reproduce.usm_lite import POLICIES, SIZES, gemm_weights
from tests.reproduce.papers import reproduced


@pytest.fixture(scope="module")
def steps() -> list[tuple[int, int]]:
    return reproduced("usm-lite")[1]


@pytest.fixture(scope="module")
def paper() -> Reproduction:
    return reproduced("usm-lite")[0]


def test_the_column_is_that_of_the_paper(paper: Reproduction) -> None:
    found = {row.figure: row.simulated for row in paper.rows}
    for name, _, published in SIZES:
        assert int(10 * found[f"size, {name}"] + 0.5) / 10 == published
    assert len(paper.listings[0].rows) == len(SIZES)


def test_the_weights_are_24_squares_of_each_block() -> None:
    weights = gemm_weights(load_network("usm_2b").networks)
    assert sum(tensor.elements for tensor in weights) == 24 * 1536**2 * 32


def test_skipping_zeros_is_faster_and_storing_fewer_is_not(paper: Reproduction) -> None:
    found = {row.figure: row.simulated for row in paper.rows}
    assert 1.5 < found["speed-up of 2:4, zeros skipped"] < 2
    assert found["speed-up of 2:4, zeros only not stored"] == pytest.approx(1, abs=0.01)
    dense, sparse = (simulate("edge_npu_sparse", "usm_2b", name, frames=3000) for name in ("usm-int4", "usm-int4-2of4"))
    assert found["speed-up of 2:4, zeros skipped"] == dense.latency_s / sparse.latency_s
    speeds = {row[:2]: row[2] for row in paper.listings[2].rows}
    assert len(speeds) == 2 * len(POLICIES)
    assert speeds["edge_npu_sparse", "usm-int4"] == speeds["edge_npu", "usm-int4"] == dense.latency_s


def test_what_is_not_published_has_no_difference(paper: Reproduction, steps: list[tuple[int, int]]) -> None:
    assert [row.figure for row in paper.rows if row.published is None] == [
        "speed-up of 2:4, zeros skipped",
        "speed-up of 2:4, zeros only not stored",
    ]
    assert steps == [(done, 9) for done in range(1, 10)]
    assert any(text.startswith("arch.array.structured_sparsity.keep = 2: ") for text in paper.assumptions)
