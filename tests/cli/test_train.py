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


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Path, Path]:
    """A workload file of a few cells, a speech set of 12 utterances for it, and stages of three epochs."""
    import numpy as np
    from ruamel.yaml import YAML

    from hwsim import catalogue
    from hwsim.speech.own import save_speech
    from hwsim.train import digits
    from hwsim.train.fit import FitSettings
    from tests.speech.fakes import small

    yaml = YAML(typ="safe")
    spec = yaml.load(catalogue.data_folder("workloads") / "digits.yaml")
    spec |= {
        "name": "toy",
        "language_models": {},
        "published": {"parameters": {}, "relative_tolerance": 0, "source": "x"},
    }
    del spec["speech"], spec["decode"]["fusions"]
    spec["encoder"] |= {"input": 8, "cells": 8}
    spec["prediction"] |= {"vocabulary": 3, "embedding": 4, "cells": 8}
    spec["joint"] |= {"size": 8, "outputs": 3}
    with (tmp_path / "toy.yaml").open("w") as file:
        yaml.dump(spec, file)
    features, rng = small().features.model_copy(update={"bins": 8, "stack": 1}), np.random.default_rng(0)
    spoken = [(rng.standard_normal((9, 8)), "yes no") for _ in range(12)]
    save_speech(tmp_path / "data", "toy", ("yes", "no"), features, {"train": spoken, "dev": spoken[:2]}, text=["yes"])
    stage = digits.Stage(FitSettings(3, 0.01), 4)
    monkeypatch.setitem(digits.TRANSDUCER, digits.FLOAT, stage)
    monkeypatch.setitem(digits.TRANSDUCER, digits.QUANTIZED, stage)
    return tmp_path / "toy.yaml", tmp_path / "data"


def test_training_that_runs_away_stops_and_keeps_its_last_state(
    toy: tuple[Path, Path], call: Call, refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nan in the features of step 4, in the second epoch: what the first epoch reached is there, and goes on."""
    import torch

    from hwsim.train import run

    words = (
        "train",
        toy[0],
        "--network",
        "transducer",
        "--precision",
        "fp32",
        "--data",
        toy[1],
        "--out",
        tmp_path / "out",
    )
    right = run.utterance_batches

    def poisoned(split, stage, seed, epoch, bins):  # type: ignore[no-untyped-def]
        batches = right(split, stage, seed, epoch, bins)
        if epoch != 1:
            return batches
        x, *others = batches[1]()
        return [batches[0], lambda: (torch.full_like(x, torch.nan), *others), *batches[2:]]

    monkeypatch.setattr(run, "utterance_batches", poisoned)
    said = refused(*words)
    assert said.startswith("training stopped at step 4: ")
    assert "first in the features" in said
    folder = tmp_path / "out" / "transducer"
    assert [path.name for path in folder.iterdir()] == ["training.safetensors"]
    kept = (folder / "training.safetensors").read_bytes()
    assert refused(*words) == said
    assert (folder / "training.safetensors").read_bytes() == kept
    monkeypatch.setattr(run, "utterance_batches", right)
    assert call(*words).code == 0
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]


def test_a_rate_that_is_too_high_stops_with_the_layer(
    toy: tuple[Path, Path], refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from hwsim.train import digits
    from hwsim.train.fit import FitSettings

    wild = digits.Stage(FitSettings(3, 1e25, warm_up=0.1), 4)
    monkeypatch.setitem(digits.TRANSDUCER, digits.FLOAT, wild)
    said = refused("train", toy[0], "--network", "transducer", "--precision", "int4", "--data", toy[1], "--out",
                   tmp_path / "out")  # fmt: skip
    assert said.startswith("training stopped at step ")
    assert "first in " in said
    assert not list(tmp_path.rglob("model.json"))


def test_checkpoints_that_do_not_fit_are_one_line(
    toy: tuple[Path, Path], call: Call, refused: Refused, tmp_path: Path
) -> None:
    import json

    import torch
    from safetensors.torch import load_file, save_file

    words = ("train", toy[0], "--network", "transducer", "--data", toy[1])
    assert call(*words, "--precision", "fp32", "--out", tmp_path / "a").code == 0
    start = tmp_path / "a" / "transducer"
    model, config = start / "model.safetensors", start / "model.json"
    good, told = load_file(str(model)), json.loads(config.read_text())

    def said() -> str:
        return refused(*words, "--precision", "int4", "--start", start, "--out", tmp_path / "b")

    name = "joint.output.bias"
    save_file({**good, name: torch.zeros(4)}, str(model))
    assert said() == f"{model}: {name} must be (3,), got (4,)"
    save_file({**good, name: good[name] * torch.nan}, str(model))
    assert said() == f"{model}: {name} must be finite, got NaN or an infinity"
    save_file({key: value for key, value in good.items() if key != name}, str(model))
    assert said().startswith(f"{model}: must hold {name}")
    torch.save(good, model)
    assert said().startswith(f"{model}: must be a safetensors file, got a zip that torch.save wrote")
    save_file(good, str(model))
    config.write_text(json.dumps({**told, "precision": "int5"}))
    assert said().startswith("unknown training precision 'int5'; nearest: int")
    config.write_text(json.dumps({**told, "seed": -1}))
    assert said().startswith(f"{config}: must describe a checkpoint, got a wrong seed")
    assert not list((tmp_path / "b").rglob("model.*"))


def test_words_that_the_network_has_not_are_refused(toy: tuple[Path, Path], refused: Refused, tmp_path: Path) -> None:
    import json

    from hwsim.speech.dataset import sha256

    manifest = toy[1] / "manifest.json"
    (toy[1] / "text.txt").write_text("yes\nyes mo\n")
    content = json.loads(manifest.read_text())
    content["text"]["sha256"] = sha256(toy[1] / "text.txt")
    manifest.write_text(json.dumps(content))
    model = "external_lm: {vocabulary: 3, embedding: 4, layers: 1, cells: 8, outputs: 3, source: x}"
    yaml = toy[0].read_text().replace("language_models: {}", f"language_models: {{{model}}}")
    toy[0].write_text(yaml)
    said = refused("train", toy[0], "--network", "external_lm", "--data", toy[1], "--out", tmp_path / "out")
    assert said == "unknown word 'mo'; nearest: no"
