"""Encoders in one sentence."""

from __future__ import annotations

from typing import Any

import pytest

from hwsim.extract import load_workload
from hwsim.extract.encoder_spec import ConformerEncoderSpec
from hwsim.report.sentences import encoder_text


def conformer(**changes: Any) -> ConformerEncoderSpec:
    values: dict[str, Any] = {
        "kind": "conformer", "input": 80, "subsampling": {"kind": "conv2d", "channels": 144}, "layers": 16,
        "width": 144, "heads": 4, "kernel": 32, "source": "test",
    }  # fmt: skip
    return ConformerEncoderSpec(**(values | changes))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rnnt_swb300", "6 bidirectional LSTM layers of 640 cells on 340 features"),
        ("digits", "2 unidirectional LSTM layers of 128 cells on 120 features, 2 frames stacked before layer 1"),
        ("digits_conformer", "4 Conformer blocks of width 64 on 120 features, 2 frames stacked to one, 4 heads, no "
         "positions, causal kernel 8, feed-forward 3 × 64, 16 frames of left context, chunks of 4 frames"),
    ],
)  # fmt: skip
def test_encoders_of_the_catalogue(name: str, text: str) -> None:
    assert encoder_text(load_workload(name).spec.encoder) == text


def test_convolved_frames_and_contexts() -> None:
    assert encoder_text(conformer()) == (
        "16 Conformer blocks of width 144 on 80 features, 4 frames subsampled by convolutions of 144 channels to one, "
        "4 heads, relative positions, kernel 32, feed-forward 4 × 144"
    )
    way = {"kind": "conv2d", "channels": 256, "layers": 3, "separable": True}
    text = encoder_text(conformer(subsampling=way, left=8, right=1))
    assert "8 frames subsampled by depthwise separable convolutions of 256 channels to one" in text
    assert text.endswith("8 frames of left context, 1 frame of right context")
    way = {"kind": "conv2d", "channels": 128, "last_channels": 32}
    assert "4 frames subsampled by convolutions of 128 and 32 channels to one" in encoder_text(
        conformer(subsampling=way)
    )
