"""espeak-ng as a synthesizer: what it says, and what it has not."""

from __future__ import annotations

import pickle
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest

from hwsim.errors import HwsimError
from hwsim.extract import load_workload
from hwsim.speech.synthesis import Espeak, Utterance

installed = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
SAID = Utterance("one two", "en-us+m3", 160, 50)


def program(tmp_path: Path, script: str) -> Espeak:
    """Something else in the place of espeak-ng."""
    path = tmp_path / "speaker"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return Espeak(str(path))


def test_without_the_program_the_line_that_installs_it_is_named() -> None:
    with pytest.raises(HwsimError) as raised:
        Espeak("espeak-of-nobody").version()
    assert str(raised.value) == (
        "speech needs the program espeak-of-nobody, which is not installed; try: apt-get install espeak-ng"
    )


def test_a_file_that_is_no_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HwsimError, match="must be a program that runs, got Permission denied"):
        Espeak(str(tmp_path)).speak(SAID)


def test_what_the_program_complains_of_is_passed_on(tmp_path: Path) -> None:
    with pytest.raises(HwsimError, match=r"speaker must accept --version, got: no room$"):
        program(tmp_path, "echo a >&2; echo no room >&2; exit 1").version()
    with pytest.raises(HwsimError, match=r"speaker must accept --version, got: exit code 3$"):
        program(tmp_path, "exit 3").version()


def test_no_audio_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(HwsimError, match=r"^espeak-ng must speak 'one two' as en-us\+m3, got no audio$"):
        program(tmp_path, "true").speak(SAID)


def test_a_version_is_found_in_what_the_program_says(tmp_path: Path) -> None:
    assert program(tmp_path, "echo 'eSpeak NG text-to-speech: 1.51.1  Data at: /x'").version() == "espeak-ng 1.51.1"
    assert program(tmp_path, "echo hello").version() == "espeak-ng of an unknown version"


def test_it_can_be_sent_to_a_worker() -> None:
    assert pickle.loads(pickle.dumps(Espeak("x"))) == Espeak("x")


@installed
def test_it_speaks_the_same_each_time_and_another_voice_differently() -> None:
    samples, rate_hz = Espeak().speak(SAID)
    assert rate_hz == 22050
    assert 0.4 < len(samples) / rate_hz < 2
    assert 0.1 < np.abs(samples).max() <= 1
    assert np.array_equal(samples, Espeak().speak(SAID)[0])
    other = Utterance(SAID.text, "en-us+f3", SAID.words_per_minute, SAID.pitch)
    assert not np.array_equal(samples, Espeak().speak(other)[0])


@installed
def test_a_faster_voice_takes_less_time() -> None:
    fast = Utterance(SAID.text, SAID.voice, 240, SAID.pitch)
    assert len(Espeak().speak(fast)[0]) < 0.85 * len(Espeak().speak(SAID)[0])


@installed
def test_every_voice_of_the_shipped_settings_is_there_and_sounds_unlike_the_others() -> None:
    speech = load_workload("digits").spec.speech
    assert speech is not None
    Espeak().check_voices(voice for voices in speech.voices.values() for voice in voices)


@installed
@pytest.mark.parametrize(
    ("voices", "said"),
    [
        (["en-uk-x"], "voice 'en-uk-x' must be one of espeak-ng; nearest: "),
        (["en-us+m33"], "voice 'en-us+m33' must have a variant of espeak-ng; nearest: m3"),
        (["en-us+john", "en-us+John"], "voice 'en-us+John' must have a variant of espeak-ng; nearest: john"),
        (["en-gb", "en-us", "en-gb+f2"], "voice 'en-gb+f2' must sound unlike 'en-gb', got the same sound"),
    ],
)
def test_voices_that_are_not_what_they_seem_are_refused(voices: list[str], said: str) -> None:
    with pytest.raises(HwsimError) as raised:
        Espeak().check_voices(voices)
    assert str(raised.value).startswith(said)
