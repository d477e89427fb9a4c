"""`hwsim data`: what it prints, what it leaves alone, and each mistake as one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import hwsim.speech.build as build_module
from hwsim import catalogue
from hwsim.speech.dataset import load_manifest, load_split
from tests.cli.conftest import Call
from tests.speech.fakes import Tones

pytest.importorskip("kaldi_native_fbank")

Refused = Callable[..., str]
SPLITS = ("train", "dev", "test_clean", "test_mild", "test_strong")


@pytest.fixture
def tones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_module, "Espeak", Tones)


@pytest.mark.usefixtures("tones")
def test_a_few_utterances_of_each_split(call: Call, tmp_path: Path) -> None:
    out = tmp_path / "set"
    code, text, err = call("data", "digits", "--out", out, "--utterances", "3", "--seed", "7")
    assert (code, err) == (0, "")
    lines = text.splitlines()
    manifest = load_manifest(out)
    assert lines[0] == f"Speech   digits, seed 7, settings {manifest.settings_sha256[:12]}"
    assert lines[1] == f"Made by  tones 1, {manifest.feature_library}"
    assert lines[2] == "Frames   120 features each 30 ms"
    assert lines[3] == f"Text     20,000 sentences, {manifest.text.words:,} words"
    rows = {line.split()[0]: line.split() for line in lines if line.startswith(SPLITS)}
    assert tuple(rows) == SPLITS
    for name, row in rows.items():
        split = load_split(out / f"{name}.npz")
        frames = f"{len(split.features) / 3:.1f}"
        assert row[1:5] == ["3", f"{split.seconds.sum() / 3600:.2f}", str(len(split.labels)), frames]
        assert row[-1] == str(len(set(split.voices)))
    assert [" ".join(rows[name][5:-1]) for name in SPLITS[2:]] == ["–", "10", "3"]
    assert lines[-1] == f"Wrote {out}"

    again = call("data", "digits", "--out", out, "--utterances", "3", "--seed", "7")
    assert (again.code, again.err) == (0, "")
    assert again.out.splitlines()[:-1] == lines[:-1]
    assert again.out.splitlines()[-1] == f"{out} is whole and of these settings: nothing to do"


def test_without_espeak_the_line_that_installs_it_is_printed(refused: Refused, tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("PATH", str(tmp_path))
    said = "speech needs the program espeak-ng, which is not installed; try: apt-get install espeak-ng"
    assert refused("data", "digits", "--out", tmp_path / "set", "--utterances", "1") == said
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--seed", "x"), "--seed must be an integer, got 'x'"),
        (("--seed", "-1"), "--seed must be at least 0, got -1"),
        (("--utterances", "0"), "--utterances must be at least 1, got 0"),
        (("--utterances", "1.5"), "--utterances must be an integer, got '1.5'"),
    ],
)
def test_options_are_refused(words: tuple[str, ...], message: str, refused: Refused, tmp_path: Path) -> None:
    assert refused("data", "digits", "--out", tmp_path, *words) == message


def test_networks_without_speech_and_wrong_folders_are_refused(refused: Refused, tmp_path: Path) -> None:
    said = "rnnt_mlperf: must have a section speech, got none; those that have: digits"
    assert refused("data", "rnnt_mlperf", "--out", tmp_path) == said
    assert refused("data", "digit", "--out", tmp_path) == "unknown workload 'digit'; nearest: digits"
    assert refused("data", "digits") == "missing option '--out' (see hwsim data --help)"
    path = tmp_path / "file"
    path.write_text("x")
    assert refused("data", "digits", "--out", path) == f"{path}: must be a folder to write to, got a file"


@pytest.mark.usefixtures("tones")
def test_a_set_of_the_users_own_settings(call: Call, tmp_path: Path) -> None:
    text = catalogue.find("workloads", "workload", "digits").read_text(encoding="utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace("name: digits", "name: mine").replace("seed: 2021", "seed: 5"), encoding="utf-8")
    code, out, _ = call("data", path, "--out", tmp_path / "set", "--utterances", "1")
    assert code == 0
    assert out.startswith("Speech   mine, seed 5, settings ")
