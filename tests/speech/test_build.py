"""A set is the same whoever builds it and however often it is interrupted; it is read back, or refused."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from hwsim.errors import HwsimError
from hwsim.speech import build as build_module
from hwsim.speech.build import Request, build, current
from hwsim.speech.chunks import CHUNK, chunks_of, pool_of
from hwsim.speech.dataset import load_manifest, load_split, load_text
from hwsim.speech.synthesis import Utterance
from hwsim.speech.utterance import make_utterance
from tests.speech.fakes import Tones, small

pytest.importorskip("kaldi_native_fbank")

REQUEST = Request("mine", small())
FILES = ["clean.npz", "manifest.json", "noisy.npz", "text.txt", "train.npz"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("speech") / "set"
    _, done = build(REQUEST, out, Tones(), workers=1)
    assert done
    return out


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    out = tmp_path / "copy"
    out.mkdir()
    for name, content in contents(built).items():
        (out / name).write_bytes(content)
    return out


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def message(path: Path) -> str:
    with pytest.raises(HwsimError) as raised:
        load_split(path)
    return str(raised.value)


def test_the_files_of_a_set(built: Path) -> None:
    assert sorted(contents(built)) == FILES
    manifest = load_manifest(built)
    assert (manifest.workload, manifest.seed, manifest.utterances) == ("mine", 1, None)
    assert (manifest.synthesizer, manifest.words) == ("tones 1", ("one", "two", "three", "stop"))
    assert manifest.feature_library.startswith("kaldi-native-fbank ")
    assert {name: entry.utterances for name, entry in manifest.splits.items()} == {"train": 60, "clean": 7, "noisy": 7}
    assert manifest.splits["clean"].snr_db is None
    assert manifest.splits["noisy"].snr_db == (10, 10)


def test_a_split_holds_what_was_said(built: Path) -> None:
    split, manifest = load_split(built / "clean.npz"), load_manifest(built)
    assert len(split) == 7
    for index, (features, labels) in enumerate(split):
        spoken = make_utterance(REQUEST.spec, "clean", index, 1, Tones())
        assert np.array_equal(features, manifest.normalizer.apply(spoken.frames))
        assert features.dtype == np.float16
        assert manifest.decode(labels) == split.transcripts[index] == spoken.text
        assert np.array_equal(manifest.encode(spoken.text), labels)
        assert (split.voices[index], split.samples[index]) == (spoken.voice, spoken.samples)
    assert np.array_equal(split.seconds, split.samples / 16000)
    entry = manifest.splits["clean"]
    assert (entry.frames, entry.words) == (len(split.features), len(split.labels))
    assert entry.seconds == pytest.approx(split.seconds.sum())
    assert np.array_equal(split[-1][1], split[6][1])
    with pytest.raises(IndexError):
        split[7]


def test_the_training_split_has_mean_0_and_deviation_1(built: Path) -> None:
    rows = load_split(built / "train.npz").features.astype(np.float64).reshape(-1, 8)
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=2e-3)
    np.testing.assert_allclose(rows.std(axis=0), 1, atol=2e-3)


def test_the_same_speech_in_other_noise(built: Path) -> None:
    clean, noisy = load_split(built / "clean.npz"), load_split(built / "noisy.npz")
    assert np.array_equal(clean.transcripts, noisy.transcripts)
    assert np.array_equal(clean.samples, noisy.samples)
    assert not np.array_equal(clean.features, noisy.features)
    assert np.isinf(clean.snr_db).all()
    assert set(clean.noises) == {"none"}
    assert np.array_equal(noisy.snr_db, np.full(7, 10.0))


def test_text_is_of_its_grammar(built: Path) -> None:
    sentences = load_text(built)
    assert len(sentences) == 30
    assert set(" ".join(sentences).split()) <= set(REQUEST.spec.words)
    assert sum(len(s.split()) for s in sentences) == load_manifest(built).text.words


@pytest.mark.parametrize("workers", [1, 2])
def test_equal_requests_give_equal_bytes(built: Path, workers: int, tmp_path: Path) -> None:
    build(REQUEST, tmp_path, Tones(), workers=workers)
    assert contents(tmp_path) == contents(built)


def test_another_seed_gives_another_set(built: Path, tmp_path: Path) -> None:
    build(replace(REQUEST, seed=2), tmp_path, Tones(), workers=1)
    assert load_manifest(tmp_path).seed == 2
    for name in FILES:
        assert (tmp_path / name).read_bytes() != (built / name).read_bytes()


def test_a_limited_set_is_the_beginning_of_the_whole_one(built: Path, tmp_path: Path) -> None:
    build(replace(REQUEST, utterances=3), tmp_path, Tones(), workers=1)
    few, all_of_them = load_split(tmp_path / "train.npz"), load_split(built / "train.npz")
    assert len(few) == 3
    assert np.array_equal(few.transcripts, all_of_them.transcripts[:3])
    assert load_text(tmp_path) == load_text(built)


@dataclass(frozen=True)
class Forbidden(Tones):
    """Nothing may be asked of it."""

    def version(self) -> str:
        raise AssertionError

    def speak(self, utterance: Utterance) -> tuple[np.ndarray, int]:
        raise AssertionError


def test_a_whole_set_is_left_alone_and_needs_no_synthesizer(copy: Path) -> None:
    before = contents(copy)
    manifest, done = build(REQUEST, copy, Forbidden(), workers=1)
    assert not done
    assert manifest == load_manifest(copy)
    assert contents(copy) == before


@pytest.mark.parametrize("name", FILES)
def test_a_set_with_a_missing_or_altered_file_is_built_again(name: str, copy: Path, built: Path) -> None:
    (copy / name).write_bytes((copy / name).read_bytes()[:-1] + b"?")
    assert current(REQUEST, copy) is None
    (copy / name).unlink()
    _, done = build(REQUEST, copy, Tones(), workers=2)
    assert done
    assert contents(copy) == contents(built)


def test_another_request_replaces_a_set(copy: Path) -> None:
    assert current(replace(REQUEST, seed=2), copy) is None
    assert current(replace(REQUEST, utterances=3), copy) is None
    assert current(replace(REQUEST, workload="other"), copy) is None
    assert current(Request("mine", small(seed=1)), copy) is not None
    build(replace(REQUEST, utterances=3), copy, Tones(), workers=1)
    assert {entry.utterances for entry in load_manifest(copy).splits.values()} == {3}


@dataclass(frozen=True)
class Interrupted(Tones):
    """Ends the build when it comes to the first utterance of the second chunk of `train`."""

    def speak(self, utterance: Utterance) -> tuple[np.ndarray, int]:
        calls = Path(self.silent)
        calls.write_text(calls.read_text() + "." if calls.exists() else ".")
        if len(calls.read_text()) > 6 + CHUNK:
            raise KeyboardInterrupt
        return Tones().speak(utterance)


def test_an_interrupted_build_goes_on_where_it_ended(built: Path, tmp_path: Path) -> None:
    out, calls = tmp_path / "set", tmp_path / "calls"
    with pytest.raises(KeyboardInterrupt):
        build(REQUEST, out, Interrupted(silent=str(calls)), workers=1)
    (partial,) = out.iterdir()
    assert sorted(path.name for path in partial.iterdir()) == ["clean-babble.npz", "train-000000.npz",
                                                               "train-babble.npz"]  # fmt: skip
    said: list[tuple[int, int]] = []
    build(REQUEST, out, Tones(), workers=1, on_utterance=lambda done, total: said.append((done, total)))
    assert said == [(3, 80), (6, 80), (56, 80), (66, 80), (73, 80), (80, 80)]
    assert contents(out) == contents(built)


def test_a_chunk_that_is_not_whole_is_made_again(built: Path, tmp_path: Path) -> None:
    out, calls = tmp_path / "set", tmp_path / "calls"
    with pytest.raises(KeyboardInterrupt):
        build(REQUEST, out, Interrupted(silent=str(calls)), workers=1)
    (chunk,) = out.glob("*/train-000000.npz")
    chunk.write_bytes(chunk.read_bytes()[:-100])
    build(REQUEST, out, Tones(), workers=1)
    assert contents(out) == contents(built)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_voice_that_fails_stops_the_build_and_no_manifest_is_left(workers: int, tmp_path: Path) -> None:
    with pytest.raises(HwsimError, match=r"^the voice 'emil' must say '[a-z ]+', got silence$"):
        build(REQUEST, tmp_path, Tones(silent="emil"), workers=workers)
    assert not (tmp_path / "manifest.json").exists()
    with pytest.raises(HwsimError, match=r"^voice 'nobody' must exist$"):
        build(Request("mine", small(voices={"a": ["nobody"], "b": ["carl"]})), tmp_path, Tones(), workers=1)


def test_wrong_requests_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HwsimError, match=r"^seed must be at least 0, got -1$"):
        replace(REQUEST, seed=-1)
    with pytest.raises(HwsimError, match=r"^utterances must be at least 1, got 0$"):
        replace(REQUEST, utterances=0)
    with pytest.raises(HwsimError, match=r"^workers must be at least 1, got 0$"):
        build(REQUEST, tmp_path, Tones(), workers=0)
    path = tmp_path / "file"
    path.write_text("x")
    with pytest.raises(HwsimError, match=r"file: must be a folder to write to, got a file$"):
        build(REQUEST, path, Tones(), workers=1)
    with pytest.raises(HwsimError, match=r"set: must be a folder to write to, got Not a directory$"):
        build(REQUEST, path / "set", Tones(), workers=1)


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_a_set_that_espeak_speaks(tmp_path: Path) -> None:
    voices = {"a": ["en-us", "en-us+f3"], "b": ["en-us+m4", "en+f4"]}
    request = Request("real", small(voices=voices), utterances=4)
    manifest, _ = build(request, tmp_path / "one", workers=1)
    build(request, tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert manifest.synthesizer.startswith("espeak-ng 1.")
    split = load_split(tmp_path / "one" / "clean.npz")
    assert set(split.voices) <= {"en-us+m4", "en+f4"}
    words = np.diff(split.label_offsets)
    assert ((split.seconds > 0.1 + 0.15 * words) & (split.seconds < 0.2 + 0.8 * words)).all()


def test_chunks_cover_every_utterance_once() -> None:
    for count in (1, CHUNK, CHUNK + 1, 3 * CHUNK):
        covered = [i for chunk in chunks_of("train", count) for i in range(chunk.start, chunk.stop)]
        assert covered == list(range(count))
    assert pool_of(REQUEST.spec, "clean") is None
    assert pool_of(REQUEST.spec, "noisy") == build_module.Chunk("clean")


def test_files_that_are_not_of_the_set_are_refused(copy: Path) -> None:
    again = "; build it again with: hwsim data"
    path = copy / "train.npz"
    other = copy / "trian.npz"
    near = "nearest: train.npz, clean.npz, noisy.npz"
    assert message(other) == f"{other}: must be a split of the speech set; {near}"
    path.write_bytes(pickle.dumps(1))
    said = "must be the file that the manifest describes, got an altered one"
    assert message(path) == f"{path}: {said}{again}"
    path.unlink()
    assert message(path) == f"{path}: must be a file of the speech set, got nothing there{again}"
    (copy / "text.txt").write_text("one\n")
    with pytest.raises(HwsimError, match=r"text.txt: must be the file that the manifest describes"):
        load_text(copy)
    (copy / "manifest.json").unlink()
    assert message(path) == f"{copy}: must be a folder with a speech set, got no manifest.json{again}"


def test_another_manifest_is_refused(copy: Path) -> None:
    path = copy / "manifest.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for change, said in [
        ({"format": 2}, "got a wrong format: Input should be less than or equal to 1"),
        ({"more": 1}, "got a wrong more: Extra inputs are not permitted"),
    ]:
        path.write_text(json.dumps({**content, **change}), encoding="utf-8")
        assert message(copy / "train.npz") == f"{path}: must be the manifest of a speech set, {said}"
    path.write_text("{", encoding="utf-8")
    assert message(copy / "train.npz").startswith(f"{path}: must be the manifest of a speech set, got a wrong the file")


def test_unknown_words_and_labels_are_refused(built: Path) -> None:
    manifest = load_manifest(built)
    with pytest.raises(HwsimError, match=r"^unknown word 'stpo'; nearest: stop, two$"):
        manifest.encode("one stpo")
    for label in (5, -1):
        with pytest.raises(HwsimError, match=f"^label must be 0 to 4, got {label}$"):
            manifest.decode([1, label])
    assert manifest.decode([0, 1, 0, 0, 4]) == "one stop"
    assert manifest.encode("").shape == (0,)
