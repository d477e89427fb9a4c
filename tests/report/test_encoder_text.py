"""Encoders in one sentence."""

from __future__ import annotations

from typing import Any

import pytest

from hwsim.extract import load_network, load_workload
from hwsim.extract.encoder_spec import ConformerEncoderSpec
from hwsim.report.sentences import encoder_text, transformer_text


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


def test_factored_layers() -> None:
    spec = load_network("tdnnf_searched").definition.encoder  # type: ignore[union-attr]
    assert encoder_text(spec) == (
        "14 factored layers of width 1536 on 3 frames of 40 features and an i-vector of 100, bottlenecks of 80 100 80 "
        "25 80 80 80 50 80 50 25 100 160 160, strides 1 1 1 0 3 3 3 3 3 3 3 3 3 3, bypass 0.66, then 256, 1536, 256, "
        "3 frames to one, 34 frames of context on each side"
    )
    plain = spec.model_copy(update={"bottlenecks": 160, "strides": (1,), "splice": 0, "ivector": 0, "subsampling": 1})
    assert encoder_text(plain) == (
        "1 factored layer of width 1536 on 1 frame of 40 features, a bottleneck of 160, strides 1, bypass 0.66, then "
        "256, 1536, 256, 1 frame to one, 1 frame of context on each side"
    )


def test_a_transformer() -> None:
    model = load_network("transformer_lm_30k").definition.model  # type: ignore[union-attr]
    assert transformer_text(model.model_copy(update={"layers": 1, "heads": 1, "tied": False})) == (
        "1 Transformer block of width 512, 1 head, feed-forward 768, 30000 words, an output layer of its own"
    )


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
