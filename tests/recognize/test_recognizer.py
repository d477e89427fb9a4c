"""Decoding on executables against the modules that they come from, whole and in pieces; files; words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hwsim.decode import DecodeSettings
from hwsim.decode.beam import decode
from hwsim.errors import HwsimError
from hwsim.recognize import Recognizer, load_recognizer, save_recognizer
from hwsim.recognize.errors import word_errors
from hwsim.recognize.policy import policy_of
from tests.recognize.networks import FUSIONS, both

SETTINGS = [
    DecodeSettings("greedy", 1, lm="none", max_symbols_per_frame=1),
    DecodeSettings("alsd", 4, lm="none"),
    DecodeSettings("alsd", 16, lm="density-ratio"),
    DecodeSettings("tsd", 4, lm="shallow"),
    DecodeSettings("maes", 4, lm="density-ratio"),
]
CONFORMER = "digits_conformer"
IDS = [f"{s.algorithm}-{s.beam}-{s.lm}" for s in SETTINGS]


def features(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((frames, 120))


@pytest.mark.parametrize("settings", SETTINGS, ids=IDS)
@pytest.mark.parametrize(
    ("precision", "workload"),
    [("int8", "digits"), ("int4", "digits"), ("gq5", "digits"), ("int4-2:4", "digits"), ("int4", CONFORMER)],
)
def test_integers_find_what_the_float64_graph_finds(precision: str, workload: str, settings: DecodeSettings) -> None:
    """The same n best and the same rows; utterances longer than the executable's frames go through in pieces."""
    pair = both(precision, workload)
    models = pair.models[: settings.language_models]
    for frames in (1, 33, 90):
        x = features(frames, frames)
        found = pair.recognizer.transcribe(x, settings, n_best=4)
        wanted = decode(pair.graph, pair.graph.encode(x), settings, FUSIONS.get(settings.lm), models, 4)  # type: ignore[arg-type]
        assert [one.labels for one in found.decoded.n_best] == [one.labels for one in wanted.n_best]
        scores = [score for _, score in found.n_best]
        np.testing.assert_allclose(scores, [one.score for one in wanted.n_best], rtol=1e-9)
        assert np.array_equal(found.decoded.rows.joint, wanted.rows.joint)
    assert found.decoded.rows.new.sum() > 1


@pytest.mark.parametrize("settings", SETTINGS, ids=IDS)
@pytest.mark.parametrize("piece", [1, 7, 40])
@pytest.mark.parametrize("workload", ["digits", CONFORMER])
def test_a_stream_ends_with_the_transcript_of_the_whole(workload: str, settings: DecodeSettings, piece: int) -> None:
    recognizer, x = both("int4", workload).recognizer, features(61)
    whole = recognizer.transcribe(x, settings, n_best=3)
    stream = recognizer.stream(settings)
    partial = [stream.feed(x[at : at + piece]) for at in range(0, len(x), piece)]
    found = stream.finish(3)
    assert found.n_best == whole.n_best
    assert found.frames == 61
    assert len(set(partial)) > 1 or piece == 40


def test_a_file_gives_the_same_transcripts(tmp_path: Path) -> None:
    recognizer, x = both("int4-2:4").recognizer, features(50)
    save_recognizer(recognizer, tmp_path / "a.recognizer")
    loaded = load_recognizer(tmp_path / "a.recognizer")
    assert loaded.about == recognizer.about
    settings = DecodeSettings("alsd", 4, lm="density-ratio")
    assert loaded.transcribe(x, settings, n_best=4).n_best == recognizer.transcribe(x, settings, n_best=4).n_best
    save_recognizer(loaded, tmp_path / "b.recognizer")
    assert (tmp_path / "a.recognizer").read_bytes() == (tmp_path / "b.recognizer").read_bytes()
    (tmp_path / "a.recognizer").write_bytes((tmp_path / "b.recognizer").read_bytes()[:-1])
    with pytest.raises(HwsimError, match=r"must be a whole and unaltered recognizer file, got one that fails"):
        load_recognizer(tmp_path / "a.recognizer")


def test_words_are_labels() -> None:
    recognizer = both("int4").recognizer
    assert recognizer.text(recognizer.labels("zero nine oh")) == "zero nine oh"
    assert recognizer.labels("zero") == (1,)
    with pytest.raises(HwsimError, match=r"^unknown word 'zro'; nearest: zero"):
        recognizer.labels("one zro")


def test_what_does_not_fit_is_refused() -> None:
    recognizer = both("int4").recognizer
    parts = dict(recognizer.networks)
    with pytest.raises(HwsimError, match=r"^a recognizer of 24 outputs must have 23 words, got 2$"):
        Recognizer(parts, ("yes", "no"))
    without = {name: part for name, part in parts.items() if name != "joint"}
    with pytest.raises(HwsimError, match=r"^a recognizer must hold encoder, prediction, joint, got no joint$"):
        Recognizer(without, recognizer.words)
    alone = Recognizer({name: parts[name] for name in ("encoder", "prediction", "joint")}, recognizer.words, 2)
    with pytest.raises(HwsimError, match=r"^lm shallow must have external_lm in the recognizer, got encoder, pred"):
        alone.search(DecodeSettings("alsd", 2, lm="shallow"))
    swapped = Recognizer({**parts, "prediction": parts["joint"]}, recognizer.words, 2)
    with pytest.raises(HwsimError, match=r"^joint: must be one step that reads labels and states and writes joint."):
        swapped.search(DecodeSettings("alsd", 2, lm="none"))
    with pytest.raises(HwsimError, match=r"^features must be of shape \(T, 120\), got \(4, 119\)$"):
        recognizer.encode(np.zeros((4, 119)))
    with pytest.raises(HwsimError, match=r"^a search must be fed at least one encoder frame, got none$"):
        recognizer.transcribe(np.zeros((0, 120)), DecodeSettings("alsd", 2, lm="none"))


@pytest.mark.parametrize(
    ("precision", "encoder", "embedding", "activations"),
    [
        ("int8", "int8/channel", "int8", "int8"),
        ("int4", "int4", "int4", "int4"),
        ("gq5", "codebook5", "int8", "int8"),
        ("int4-2:4", "int4/2:4", "int4", "int4"),
    ],
)
def test_the_policy_has_the_formats_of_the_codes(
    precision: str, encoder: str, embedding: str, activations: str
) -> None:
    policy = policy_of(both(precision).recognizer, precision)
    assert str(policy.resolve("encoder.layer1").weights) == encoder
    assert str(policy.resolve("prediction.embedding").weights) == embedding
    assert str(policy.resolve("joint.output").weights) == encoder
    assert str(policy.resolve("encoder.layer0").activations) == activations


def test_word_errors_and_their_interval() -> None:
    found = word_errors(["one two", "three", "", "four five six"], ["one", "three", "seven", "four six six"])
    assert found.errors.tolist() == [1, 0, 1, 1]
    assert found.words.tolist() == [2, 1, 0, 3]
    assert found.rate == 0.5
    many = word_errors(["one two three four"] * 200, ["one two three", "one two three four"] * 100)
    low, high = many.interval()
    assert many.rate == 0.125
    # Half of the utterances have one error in four words: the deviation of the mean of 200 is 0.125 / sqrt(200).
    assert low == pytest.approx(0.125 - 1.96 * 0.125 / np.sqrt(200), abs=0.003)
    assert high == pytest.approx(0.125 + 1.96 * 0.125 / np.sqrt(200), abs=0.003)
    assert many.interval(seed=1) != many.interval(seed=2)
    with pytest.raises(HwsimError, match="hypotheses must be 1, one for each reference, got 0"):
        word_errors(["one"], [])
    with pytest.raises(HwsimError, match="references must hold at least one word, got none"):
        word_errors([""], ["one"])
