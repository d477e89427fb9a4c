"""The section `speech`: what it must keep, by message, and what the shipped one says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from hwsim import catalogue
from hwsim.errors import HwsimError
from hwsim.extract import load_workload
from hwsim.speech.grammar import sample_sentences
from hwsim.speech.spec import SpeechSpec
from tests.speech.fakes import settings, small


def shipped() -> SpeechSpec:
    speech = load_workload("digits").spec.speech
    assert speech is not None
    return speech


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"words": ["one", "two", "three"]},
         "such that grammars.digits: 'stop' is known, not 'stop'; nearest: two"),
        ({"words": ["one", "two", "three", "stop", "one"]}, "such that words names 'one' once"),
        ({"voices": {"a": ["anna"], "b": ["carl", "anna"]}}, "such that voices names 'anna' once"),
        ({"normalize_by": "trian"}, "such that normalize_by is known, not 'trian'; nearest: train"),
        ({"text": {"grammar": "digit", "sentences": 1, "source": "t"}},
         "such that text.grammar is known, not 'digit'; nearest: digits"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as raised:
        small(**changes)
    assert raised.value.errors()[0]["msg"] == f"Value error, {said}"


@pytest.mark.parametrize(
    ("split", "key", "value", "said"),
    [
        ("clean", "voices", "c", "such that splits.clean.voices is known, not 'c'; known: a, b"),
        ("clean", "grammar", "x", "such that splits.clean.grammar is known, not 'x'; known: digits"),
        ("noisy", "speech_of", "claen", "such that splits.noisy.speech_of is known, not 'claen'; nearest: clean"),
        ("noisy", "utterances", 8, "such that splits.noisy has the utterances, grammar, voices of splits.clean,"
                                   " which has no speech_of"),
        ("noisy", "speech_of", "noisy", "such that splits.noisy has the utterances, grammar, voices of splits.noisy,"
                                        " which has no speech_of"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_split_is_named(split: str, key: str, value: Any, said: str) -> None:
    splits = settings()["splits"]
    splits[split][key] = value
    with pytest.raises(ValidationError) as raised:
        small(splits=splits)
    assert raised.value.errors()[0]["msg"] == f"Value error, {said}"


def test_a_mistake_in_a_file_has_its_line(tmp_path: Path) -> None:
    text = catalogue.find("workloads", "workload", "digits").read_text(encoding="utf-8")
    path = tmp_path / "mine.yaml"
    for old, new, said in [
        ("pitch: [35, 65]", "pitch: [65, 35]",
         "speech.synthesis.pitch must be two numbers, the smaller one first, got [65, 35]"),
        ("talkers: 6", "talkers: 0", "speech.babble.talkers must be at least 1, got 0"),
        ("kinds: [white, pink, babble], snr_db: [10, 10]", "kinds: [brown], snr_db: [10, 10]",
         "speech.splits.test_mild.noise.kinds.0 must be one of 'white', 'pink' or 'babble', got 'brown'"),
    ]:  # fmt: skip
        assert text.count(old) == 1
        path.write_text(text.replace(old, new), encoding="utf-8")
        line = 1 + text[: text.index(old)].count("\n")
        with pytest.raises(HwsimError) as raised:
            load_workload(path)
        assert str(raised.value) == f"{path}:{line}: {said}"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  input: 120", "  input: 80", "encoder.input is 120, as speech has it, not 80"),
        ("  outputs: 24  #", "  outputs: 23  #", "joint.outputs is 24, as speech has it, not 23"),
        ("  vocabulary: 24  #", "  vocabulary: 23  #", "prediction.vocabulary is 24, as speech has it, not 23"),
        ("frame_period_s: 0.03", "frame_period_s: 0.02", "frame_period_s is 0.03, as speech has it, not 0.02"),
    ],
)
def test_the_network_must_fit_its_speech(old: str, new: str, said: str, tmp_path: Path) -> None:
    text = catalogue.find("workloads", "workload", "digits").read_text(encoding="utf-8")
    assert text.count(old) == 1
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(HwsimError) as raised:
        load_workload(path)
    assert f"must be such that {said}, got " in str(raised.value)


def test_speakers_of_the_shipped_settings_are_in_one_list_only() -> None:
    """A variant is a speaker; the plain voices of two languages are two."""
    voices = shipped().voices
    assert [len(voices[name]) for name in ("training", "dev", "test")] == [40, 4, 8]
    speakers = {name: {v.partition("+")[2] or v for v in names} for name, names in voices.items()}
    assert not speakers["training"] & (speakers["dev"] | speakers["test"])
    assert not speakers["dev"] & speakers["test"]


def entropy_bits(sentences: list[str], test: list[str]) -> float:
    """Bits per word of `test` under the word pairs of `sentences`, with one added to each count."""
    index = {word: i for i, word in enumerate(("<s>", *shipped().words), start=0)}
    counts = np.ones((len(index), len(index)))
    pairs = [[(a, b) for a, b in zip(["<s>", *s.split()], [*s.split(), "<s>"], strict=True)] for s in sentences]
    for sentence in pairs:
        for a, b in sentence:
            counts[index[a], index[b]] += 1
    bits = -np.log2(counts / counts.sum(axis=1, keepdims=True))
    found = [
        bits[index[a], index[b]] for s in test for a, b in zip(["<s>", *s.split()], [*s.split(), "<s>"], strict=True)
    ]
    return float(np.mean(found))


def test_text_of_the_target_domain_foretells_the_target_domain_better() -> None:
    """Even word pairs save half a bit per word of test sentences: there is something for a language model to know."""
    grammars = shipped().grammars
    training, target, test = (
        sample_sentences(grammars[name], count, np.random.default_rng(seed))
        for seed, (name, count) in enumerate([("training", 4000), ("target", 4000), ("target", 500)])
    )
    assert entropy_bits(target, test) < entropy_bits(training, test) - 0.5
    assert set(" ".join(training).split()) == set(shipped().words) >= set(" ".join(target).split())
