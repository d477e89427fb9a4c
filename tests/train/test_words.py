"""What is exact in codes is exact in words: the shipped checkpoints against the shipped recognizer."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
torch.set_num_threads(1)

from hwsim import catalogue  # noqa: E402
from hwsim.decode import DecodeSettings  # noqa: E402
from hwsim.decode.beam import decode  # noqa: E402
from hwsim.extract import load_workload  # noqa: E402
from hwsim.recognize import load_recognizer, save_recognizer  # noqa: E402
from hwsim.speech.dataset import load_split  # noqa: E402
from hwsim.train.checkpoint import load_checkpoint, read_config  # noqa: E402
from hwsim.train.recognizer import build_recognizer, fusions_of  # noqa: E402
from hwsim.train.search import GraphTransducer, graph_language_model  # noqa: E402

DIGITS = catalogue.data_folder("workloads") / "digits"
CHECKPOINTS = DIGITS / "checkpoints" / "int4"
NETWORKS = ("transducer", "external_lm", "source_lm")
SEARCHES = [
    DecodeSettings("greedy", 1, lm="none"),
    DecodeSettings("alsd", 8, lm="density-ratio"),
    DecodeSettings("tsd", 4, lm="shallow"),
    DecodeSettings("maes", 4, lm="density-ratio"),
]


@cache
def recognizer() -> Any:
    return load_recognizer(DIGITS / "int4.recognizer")


@cache
def graph() -> tuple[GraphTransducer, list[Any]]:
    networks = [load_checkpoint(CHECKPOINTS / name).double().eval() for name in NETWORKS]
    return GraphTransducer(networks[0]), [graph_language_model(model) for model in networks[1:]]


@cache
def encoded() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Features of every utterance that ships, and what both encoders make of them."""
    splits = [load_split(DIGITS / f"{name}.npz") for name in ("test_mild", "test_strong")]
    features = [np.asarray(x, np.float64) for split in splits for x, _ in split]
    return [(x, recognizer().encode(x), graph()[0].encode(x)) for x in features]


def test_encoders_agree_to_the_last_digits_of_sums() -> None:
    assert len(encoded()) == 48
    assert max(np.abs(ours - theirs).max() for _, ours, theirs in encoded()) < 1e-13


@pytest.mark.parametrize("settings", SEARCHES, ids=lambda s: f"{s.algorithm}-{s.beam}-{s.lm}")
def test_integers_and_the_float64_graph_find_the_same_n_best(settings: DecodeSettings) -> None:
    networks, models = graph()
    fusion = recognizer().fusions.get(settings.lm)
    for x, ours, theirs in encoded():
        found = recognizer().transcribe(x, settings, n_best=4, encoded=ours).decoded
        wanted = decode(networks, theirs, settings, fusion, models[: settings.language_models], 4)
        assert [one.labels for one in found.n_best] == [one.labels for one in wanted.n_best]
        scores = [[one.score for one in part.n_best] for part in (found, wanted)]
        np.testing.assert_allclose(*scores, rtol=0, atol=1e-12)
        for name in ("frame", "joint", "new", "extended", "extended_new", "candidates"):
            assert np.array_equal(getattr(found.rows, name), getattr(wanted.rows, name))


def test_the_checkpoints_give_the_recognizer_that_ships(tmp_path: Path) -> None:
    built = build_recognizer(CHECKPOINTS, DIGITS, fusions_of(load_workload("digits").spec))
    save_recognizer(built, tmp_path / "int4.recognizer")
    assert (tmp_path / "int4.recognizer").read_bytes() == (DIGITS / "int4.recognizer").read_bytes()


def test_checkpoints_say_what_made_them() -> None:
    for name in NETWORKS:
        config = read_config(CHECKPOINTS / name)
        assert config.command == f"hwsim train digits --network {name} --precision int4"
        assert (config.precision, config.seed, config.compact) == ("int4", 0, True)
        assert config.figures["cpu_s"] > 0
    assert read_config(CHECKPOINTS / "transducer").figures["wer_test_clean"] == 5.08
    assert sum(path.stat().st_size for path in CHECKPOINTS.rglob("*.*")) < 300_000
