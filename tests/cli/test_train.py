"""`hwsim train`: what it prints and refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.cli.conftest import Call

Refused = Callable[..., str]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--precision", "int44"), "unknown training precision 'int44'; nearest: int4, int4-2:4, int8"),
        (("--network", "lm"), "--network must be transducer, external_lm, source_lm or all, got 'lm'"),
        (("--start", "x"), "--start must be given with one --network, got all"),
        (("--epochs", "x"), "--epochs must be an integer, got 'x'"),
        (("--epochs", "-1"), "--epochs must be at least 0, got -1"),
        (("--seed", "-1"), "--seed must be at least 0, got -1"),
        ((), "{data}: must be a folder with a speech set, got no manifest.json; build it again with: hwsim data"),
    ],
)
def test_train_refuses(words: tuple[str, ...], message: str, refused: Refused, tmp_path: Path) -> None:
    data = tmp_path / "data"
    said = refused("train", "digits", "--data", str(data), "--out", str(tmp_path / "out"), *words)
    assert said == message.format(data=data)


def test_help_names_every_precision(call: Call) -> None:
    from hwsim.train.recipes import RECIPES

    said = " ".join(call("train", "--help").out.split())
    assert all(name in said for name in RECIPES)


def test_figures_have_units() -> None:
    from hwsim.cli.train import _title

    figures = ("wer_test_clean", "cpu_s", "perplexity_dev")
    assert [_title(name) for name in figures] == ["WER test_clean, %", "CPU time, all stages, s", "Perplexity dev"]
