"""`hwsim transcribe`: words of recordings, whole and as they come, and every recording that is none."""

from __future__ import annotations

import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("kaldi_native_fbank")

from hwsim import catalogue
from hwsim.decode import DecodeSettings
from hwsim.recognize import Recognizer, load_recognizer, save_recognizer
from hwsim.recognize.frontend import Frontend
from hwsim.speech.audio import read_wav, write_wav
from tests.cli.conftest import Call

Refused = Callable[..., str]
DIGITS = catalogue.data_folder("workloads") / "digits"
RATE_HZ = 16000


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Tones that change, loud enough to be taken for words."""
    rng = np.random.default_rng(5)
    time_s = np.arange(2 * RATE_HZ) / RATE_HZ
    sound = sum(
        np.sin(2 * np.pi * f * time_s) * np.sin(np.pi * k * time_s) ** 2 for k, f in enumerate((300, 900, 2100))
    )
    write_wav(tmp_path / "a.wav", 0.1 * sound + 0.003 * rng.standard_normal(time_s.size), RATE_HZ)
    return tmp_path / "a.wav"


def test_words_are_those_of_the_recognizer(call: Call, recording: Path) -> None:
    result = call("transcribe", "digits/int4", recording, recording, "--decoder", "alsd", "--beam", "4", "--lm",
                  "density-ratio", "--n-best", "3")  # fmt: skip
    assert (result.code, result.err) == (0, "")
    recognizer = load_recognizer(DIGITS / "int4.recognizer")
    x = Frontend.of(recognizer).features(read_wav(recording, RATE_HZ))
    found = recognizer.transcribe(np.asarray(x, np.float64), DecodeSettings("alsd", 4, lm="density-ratio"), n_best=3)
    lines = [f"{recording}: 2.00 s"]
    lines += [f"  {rank}  {words}  ({score:.2f})" for rank, (words, score) in enumerate(found.n_best, start=1)]
    assert result.out.splitlines() == lines * 2
    assert len(found.n_best) == 3


def test_a_stream_ends_with_the_words_of_the_whole(call: Call, recording: Path) -> None:
    words = ("transcribe", DIGITS / "int8.recognizer", recording, "--decoder", "alsd")
    whole, stream = call(*words), call(*words, "--stream", "0.25")
    assert (stream.code, stream.err) == (0, "")
    assert whole.out.splitlines()[-1] == stream.out.splitlines()[-1]
    partial = [line.split(" s  ") for line in stream.out.splitlines()[1:-1]]
    assert partial
    assert [float(time) for time, _ in partial] == sorted({float(time) for time, _ in partial})
    assert all(float(time) % 0.25 == 0 for time, _ in partial)
    assert call(*words, "--data", DIGITS).out == whole.out


def wav(path: Path, samples: np.ndarray, rate_hz: int = RATE_HZ, channels: int = 1) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def test_recordings_that_are_refused(refused: Refused, recording: Path, tmp_path: Path) -> None:
    loud, path = np.full(RATE_HZ, 9000), tmp_path / "b.wav"
    for samples, options, message in (
        (loud, {"rate_hz": 8000}, "must be sampled at 16000 Hz, got 8000 Hz"),
        (loud, {"channels": 2}, "must have 1 channel, got 2"),
        (loud[:0], {}, "must be longer than nothing, got 0 samples"),
        (0 * loud, {}, "must not be silent (peak at least -80 dB of full scale), got only zeros"),
        (loud[:700], {}, "must be at least 720 samples, got 700"),
    ):
        wav(path, samples, **options)  # type: ignore[arg-type]
        # The first recording is right: nothing is printed before all have been read.
        assert refused("transcribe", "digits/int4", recording, path) == f"{path}: {message}"
    path.write_text("no sound")
    assert refused("transcribe", "digits/int4", path).startswith(f"{path}: must be a WAV file of 16-bit PCM, got ")
    missing = tmp_path / "none.wav"
    assert (
        refused("transcribe", "digits/int4", missing) == f"{missing}: must be a WAV file, got no such file or directory"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--decoder", "viterbi"), "--decoder must be greedy, alsd, tsd or maes, got 'viterbi'"),
        (("--beam", "2"), "beam must be 1 for greedy, got 2"),
        (("--lm", "ngram"), "--lm must be none, shallow or density-ratio, got 'ngram'"),
        (("--n-best", "0"), "--n-best must be at least 1, got 0"),
        (("--stream", "0"), "--stream must be seconds of audio, got '0'"),
        (("--stream", "soon"), "--stream must be seconds of audio, got 'soon'"),
        (("--data", "nowhere"), "nowhere: must be a folder with a speech set, got no manifest.json; build it again"),
    ],
)
def test_options_are_refused(words: tuple[str, ...], message: str, refused: Refused, recording: Path) -> None:
    assert refused("transcribe", "digits/int4", recording, *words).startswith(message)


def test_recognizers_that_are_refused(refused: Refused, recording: Path, tmp_path: Path) -> None:
    assert refused("transcribe", "digits/int3", recording) == (
        "digits/int3: must be a recognizer file, got No such file or directory"
    )
    assert refused("transcribe", recording, recording) == f"{recording}: must be a recognizer file, got something else"
    known = load_recognizer(DIGITS / "int4.recognizer")
    parts = {name: known.networks[name] for name in ("encoder", "prediction", "joint")}
    path = tmp_path / "bare.recognizer"
    save_recognizer(Recognizer(parts, known.words[::-1], known.stack), path)
    assert refused("transcribe", path, recording).startswith("a recognizer must say of which features it is, got one")
    assert refused("transcribe", path, recording, "--data", DIGITS) == (
        f"{DIGITS}: must have the words of the recognizer, got others"
    )
    assert refused("transcribe", path, recording, "--decoder", "alsd", "--lm", "shallow").startswith(
        "lm shallow must have external_lm in the recognizer, got encoder, prediction, joint"
    )
