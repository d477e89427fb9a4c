"""`hwsim map`: where matrices lie, and what it says of machines without tiles."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cli.conftest import Call


def test_the_table_has_every_matrix(call: Call) -> None:
    done = call("map", "analog_14nm_5chip", "rnnt_mlperf")
    assert done.code == 0
    assert "142 of 170 tiles on 5 chips" in done.out
    assert "45,261,568 weights" in done.out
    assert "9 × 28 × 1280" in done.out
    assert "joint.output.weight, 14,848 weights: placement" in done.out
    assert max(map(len, done.out.splitlines())) <= 100


def test_matrices_on_shared_tiles_say_so(call: Call) -> None:
    shared = call("map", "hybrid_analog_digital", "rnnt_mlperf", "--set", "analog.chips=1", "--set",
                  "analog.placement.overflow=reprogram")  # fmt: skip
    assert shared.code == 0
    assert shared.out.count(" shared ") == 10


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("rapid_1core", "rnnt_mlperf"),
            "ARCH must be an architecture with analog tiles, got rapid_1core, which has none",
        ),
        (
            ("hermes_64core", "rnnt_mlperf"),
            "rnnt_mlperf does not fit hermes_64core: its matrices need 710 tiles, the machine has 64, and 646 are"
            " missing for encoder.layer0.wh and 10 more matrices; it would fit with analog.chips of 12, or run with"
            " analog.placement.overflow of digital",
        ),
        (
            ("analog_14nm_5chip", "rnnt_mlperf", "--set", "analog.converter.bits=0"),
            "--set: analog.converter.bits must be greater than 0, got 0",
        ),
    ],
)
def test_what_is_refused(refused: Callable[..., str], words: tuple[str, ...], said: str) -> None:
    assert said in refused("map", *words)
