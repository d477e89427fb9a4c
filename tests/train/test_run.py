"""Whole trainings on a few utterances: what is written, what goes on, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
torch.set_num_threads(1)

from hwsim.errors import HwsimError  # noqa: E402
from hwsim.extract.workload import Workload  # noqa: E402
from hwsim.numerics.calibration import Sawb  # noqa: E402
from hwsim.numerics.formats import Sparsity  # noqa: E402
from hwsim.speech.dataset import Manifest, pack, save_split, sha256, write_manifest  # noqa: E402
from hwsim.speech.features import Normalizer  # noqa: E402
from hwsim.speech.utterance import Spoken  # noqa: E402
from hwsim.train import digits  # noqa: E402
from hwsim.train.checkpoint import load_checkpoint, read_config  # noqa: E402
from hwsim.train.digits import Augmentation, Stage, edit_distance, utterance_batches, word_error_rate  # noqa: E402
from hwsim.train.fit import FitSettings  # noqa: E402
from hwsim.train.run import Request, train  # noqa: E402
from hwsim.train.weights import SparseQuantizer, SparseWeights  # noqa: E402
from tests.speech.fakes import small as small_speech  # noqa: E402
from tests.train.test_transducer import small  # noqa: E402

WORDS = ("one", "two", "three", "four", "five")
SPLITS = {"train": 40, "dev": 8, "test_clean": 8}


def spoken(rng: np.random.Generator) -> Spoken:
    """Each word is two frames in which one of eight bins is loud."""
    words = [WORDS[at] for at in rng.integers(0, 5, rng.integers(1, 5))]
    x = np.zeros((2 * len(words) + 1, 8), np.float32)
    for at, word in enumerate(words):
        x[2 * at : 2 * at + 2, WORDS.index(word)] = 3.0
    x += rng.normal(0, 0.1, x.shape).astype(np.float32)
    return Spoken(" ".join(words), "anna", "none", np.inf, 480 * len(x), x)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("speech")
    rng, normalizer = np.random.default_rng(0), Normalizer((0.0,) * 8, (1.0,) * 8)
    entries = {}
    for name, count in SPLITS.items():
        split = pack(name, [spoken(rng) for _ in range(count)], WORDS, normalizer, 16000)
        entries[name] = save_split(split, out / f"{name}.npz")
    (out / "text.txt").write_text("one two\nthree two\n" * 20)
    text = {"sha256": sha256(out / "text.txt"), "utterances": 40, "words": 80}
    features = small_speech().features.model_copy(update={"bins": 8, "stack": 1})
    write_manifest(Manifest(
        workload="toy", seed=0, utterances=None, settings_sha256="0", synthesizer="none", feature_library="none",
        words=WORDS, features=features, mean=(0.0,) * 8, deviation=(1.0,) * 8, splits=entries, text=text,
    ), out)  # fmt: skip
    return out


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(FitSettings(12, 0.02), 4, Augmentation(0.1, 0.0, 1, 0), short_epochs=2)
    for stages in (digits.TRANSDUCER, digits.LANGUAGE_MODEL):
        monkeypatch.setitem(stages, digits.FLOAT, stage)
        monkeypatch.setitem(stages, digits.QUANTIZED, stage)


def request(data: Path, out: Path, **changes: Any) -> Request:
    given: dict[str, Any] = {"network": "transducer", "precision": "int4", "seed": 7, **changes}
    return Request(Workload(small(), "0"), data=data, out=out, **given)


@pytest.mark.parametrize(
    "precision", ["fp32", "int8", "int4", "int4-native", "int4-dynamic", "gq5", "int4-2:4", "analog"]
)
def test_a_checkpoint_is_what_was_trained(precision: str, data: Path, tmp_path: Path) -> None:
    config = train(request(data, tmp_path, precision=precision))
    assert read_config(tmp_path) == config
    assert config.epochs == ({"float": 12} if precision == "fp32" else {"float": 12, "quantized": 12})
    assert set(config.figures) == {"loss", "cpu_s", "wall_s_of_stage", "wer_dev", "wer_test_clean"}
    network = load_checkpoint(tmp_path)
    from hwsim.speech.dataset import load_split

    dev = load_split(data / "dev.npz")
    assert round(word_error_rate(network, dev), 2) == config.figures["wer_dev"]
    assert config.figures["wer_dev"] < 70
    assert not list(tmp_path.rglob(".*"))
    assert not list(tmp_path.rglob("training.safetensors"))
    if precision == "int4-2:4":
        grid = network.joint.output.weight_grid
        codes = grid.codes(network.joint.output.weight.T)[0]
        assert ((codes.reshape(-1, 4, codes.shape[1]) != 0).sum(axis=1) <= 2).all()
    if precision == "gq5":
        grid = network.joint.output.weight_grid
        places, codebook = grid.codes(network.joint.output.weight.T)
        assert np.array_equal(codebook.table, grid.table.numpy())
        assert len(np.unique(places)) > 4


class Killed(Exception):
    pass


def test_a_killed_training_goes_on_to_the_same_bytes(data: Path, tmp_path: Path) -> None:
    steps = []

    def kill(done: int, total: int) -> None:
        steps.append(done)
        if len(steps) == 160:
            raise Killed

    train(request(data, tmp_path / "whole"))
    with pytest.raises(Killed):
        train(request(data, tmp_path / "halted"), kill)
    assert (tmp_path / "halted/training.safetensors").exists()
    train(request(data, tmp_path / "halted"))
    for name in ("model.safetensors", "float/model.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "halted" / name).read_bytes()


def test_what_is_there_is_left_alone_or_refused(data: Path, tmp_path: Path) -> None:
    train(request(data, tmp_path / "a", precision="fp32"))
    stamp = (tmp_path / "a/model.json").stat().st_mtime_ns
    train(request(data, tmp_path / "a", precision="fp32"))
    assert (tmp_path / "a/model.json").stat().st_mtime_ns == stamp
    with pytest.raises(HwsimError, match="must be empty or hold this very checkpoint, got one of other settings"):
        train(request(data, tmp_path / "a", precision="fp32", seed=8))
    config = train(request(data, tmp_path / "b", start=tmp_path / "a", epochs=1))
    assert config.epochs == {"float": 12, "quantized": 1}
    assert config.start_sha256 == sha256(tmp_path / "a/model.safetensors")
    assert not (tmp_path / "b/float").exists()
    with pytest.raises(HwsimError, match="a checkpoint to begin with must be fp32, got int4"):
        train(request(data, tmp_path / "c", start=tmp_path / "b"))
    with pytest.raises(HwsimError, match="must be of the source_lm of digits, got the transducer of digits"):
        train(request(data, tmp_path / "c", start=tmp_path / "a", network="source_lm"))
    with pytest.raises(HwsimError, match=r"must be a folder with a checkpoint, got no model\.json"):
        train(request(data, tmp_path / "c", start=tmp_path / "nowhere"))


@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_a_language_model_learns_its_text(precision: str, data: Path, tmp_path: Path) -> None:
    config = train(request(data, tmp_path, network="source_lm", precision=precision))
    assert 1 < config.figures["perplexity_dev"] < 6
    assert load_checkpoint(tmp_path).spec == small().language_models["source_lm"]
    with pytest.raises(HwsimError, match="workload digits must have external_lm to be trained, got none"):
        train(request(data, tmp_path / "other", network="external_lm"))


def test_checkpoints_that_do_not_match_are_refused(data: Path, tmp_path: Path) -> None:
    train(request(data, tmp_path, precision="fp32", epochs=0))
    path = tmp_path / "model.json"
    config = json.loads(path.read_text())
    for key, value, message in (
        ("precision", "int4", r"model.safetensors: must hold encoder.input_grid.lower"),
        ("precision", "int5", "unknown training precision 'int5'; nearest: int8"),
        ("network", "source_lm", "must hold stack.embedding.weight"),
        ("network", "lm", r"model.json: must describe a checkpoint, got a wrong network"),
        ("format", 2, "must describe a checkpoint, got a wrong format"),
    ):
        path.write_text(json.dumps({**config, key: value}))
        with pytest.raises(HwsimError, match=message):
            load_checkpoint(tmp_path)
    config["workload"]["joint"]["size"] = 20
    path.write_text(json.dumps(config))
    with pytest.raises(HwsimError, match=r"joint.encoder_projection.bias must be \(20,\), got \(12,\)"):
        load_checkpoint(tmp_path)
    path.write_text("{")
    with pytest.raises(HwsimError, match=r"model.json: must describe a checkpoint, got a wrong the file"):
        load_checkpoint(tmp_path)


def test_another_speech_set_is_refused(data: Path, tmp_path: Path) -> None:
    spec = small(outputs=9)
    wrong = Request(Workload(spec, "0"), "transducer", "fp32", data, tmp_path)
    with pytest.raises(HwsimError, match="must have 9 labels, as workload digits, got 6"):
        train(wrong)


def test_batches_depend_on_seed_and_epoch_alone(data: Path) -> None:
    from hwsim.speech.dataset import load_split

    split = load_split(data / "train.npz")
    stage = Stage(FitSettings(2), 8, Augmentation(), short_epochs=1, short_labels=2, repeats=3)

    def batches(seed: int, epoch: int) -> list[Any]:
        return [make() for make in utterance_batches(split, stage, seed, epoch, bins=8)]

    short, first, second, other = batches(1, 0), batches(1, 1), batches(1, 1), batches(2, 1)
    assert max(int(lengths.max()) for _, _, _, lengths in short) == 2
    assert all(torch.equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True))
    assert not torch.equal(first[0][0][:2], other[0][0][:2])
    repeated = sum(bool((labels[1:] == labels[:-1]).any()) for _, labels in split)
    assert sum(len(frames) for _, frames, _, _ in first) == len(split) + 2 * repeated
    for x, frames, _, _ in first:
        assert x.shape[0] == int(frames.max())
        assert bool(x.isfinite().all())


def test_edit_distances() -> None:
    assert edit_distance([1, 2, 3], [1, 2, 3]) == 0
    assert edit_distance([1, 2, 3], []) == 3
    assert edit_distance([1, 1, 2], [1, 2]) == 1
    assert edit_distance([1, 2, 3, 4], [2, 3, 5, 4]) == 2


def test_a_mask_keeps_the_largest() -> None:
    grid = SparseQuantizer(SparseWeights(Sawb(4), Sparsity(2, 4)), (8, 1))
    weights = torch.tensor([[0.1], [-0.9], [0.5], [0.2], [0.3], [0.3], [-0.3], [0.3]])
    grid.prepare(weights)
    assert grid.mask[:, 0].tolist() == [False, True, True, False, True, True, False, False]
    assert torch.equal(grid(weights) != 0, grid.mask)
    with pytest.raises(HwsimError, match="rows of an N:M matrix must be a multiple of 4, got 6"):
        SparseQuantizer(SparseWeights(Sawb(4), Sparsity(2, 4)), (6, 1))
