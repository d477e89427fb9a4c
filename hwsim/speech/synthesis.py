"""Words become sound: one utterance, spoken by espeak-ng or by whatever takes its place."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hwsim.errors import HwsimError, nearest
from hwsim.speech.audio import FULL_SCALE, Samples

INSTALL = "apt-get install espeak-ng"
_HEADER_BYTES = 44
_PROBE = "number four nine"


@dataclass(frozen=True)
class Utterance:
    """What is to be said, and how."""

    text: str
    voice: str
    words_per_minute: int
    pitch: int
    """0 to 99."""


class Synthesizer(Protocol):
    """What speaks. It is sent to worker processes, and says the same in the same way each time."""

    def version(self) -> str:
        """Name and version, for the manifest."""
        ...

    def check_voices(self, voices: Iterable[str]) -> None:
        """Raise HwsimError for a voice that it does not have."""
        ...

    def speak(self, utterance: Utterance) -> tuple[Samples, int]:
        """Samples (N,) of full scale 1 and their rate in Hz. Raises HwsimError when it fails."""
        ...


@dataclass(frozen=True)
class Espeak:
    """The program espeak-ng, one process for each utterance."""

    program: str = "espeak-ng"

    def version(self) -> str:
        """`espeak-ng 1.51`. Raises HwsimError when the program is missing."""
        found = re.search(rb"\d+(\.\d+)+", self._run("--version"))
        return f"espeak-ng {found[0].decode() if found else 'of an unknown version'}"

    def check_voices(self, voices: Iterable[str]) -> None:
        """Raise HwsimError for a language or variant that is not installed, and for two that sound the same.

        The program itself says nothing of a variant that it does not know, or does not use with a language (en-gb is
        one), and speaks in the plain voice.
        """
        listed = self._lines("--voices")
        languages = {line.split()[1] for line in listed if len(line.split()) > 1}
        languages |= set(re.findall(r"\(([\w-]+) \d+\)", "\n".join(listed)))
        variants = set(re.findall(r"!v/(.*?)(?:  |\(|$)", "\n".join(self._lines("--voices=variant")), re.MULTILINE))
        variants = {variant.strip() for variant in variants}
        heard: dict[bytes, str] = {}
        for voice in voices:
            language, _, variant = voice.partition("+")
            if language not in languages:
                raise HwsimError(f"voice '{voice}' must be one of espeak-ng{nearest(language, languages)}")
            if variant and variant not in variants:
                raise HwsimError(f"voice '{voice}' must have a variant of espeak-ng{nearest(variant, variants)}")
            other = heard.setdefault(self.speak(Utterance(_PROBE, voice, 175, 50))[0].tobytes(), voice)
            if other != voice:
                raise HwsimError(f"voice '{voice}' must sound unlike '{other}', got the same sound")

    def speak(self, utterance: Utterance) -> tuple[Samples, int]:
        """Samples (N,) and their rate. Raises HwsimError for a voice that is not installed."""
        options = ("-z", "-v", utterance.voice, "-s", str(utterance.words_per_minute), "-p", str(utterance.pitch))
        content = self._run(*options, "--stdout", "--", utterance.text)
        if content[:4] != b"RIFF" or len(content) <= _HEADER_BYTES:
            raise HwsimError(f"espeak-ng must speak '{utterance.text}' as {utterance.voice}, got no audio")
        # The sizes in the header are not known when it is written to a pipe: everything after it is audio.
        rate_hz = int.from_bytes(content[24:28], "little")
        body = content[_HEADER_BYTES:]
        return np.frombuffer(body[: len(body) // 2 * 2], "<i2").astype(np.float64) / FULL_SCALE, rate_hz

    def _lines(self, option: str) -> list[str]:
        return self._run(option).decode("utf-8", "replace").splitlines()[1:]

    def _run(self, *arguments: str) -> bytes:
        try:
            done = subprocess.run([self.program, *arguments], capture_output=True, check=False)
        except FileNotFoundError:
            raise HwsimError(
                f"speech needs the program {self.program}, which is not installed; try: {INSTALL}"
            ) from None
        except OSError as error:
            raise HwsimError(f"{self.program}: must be a program that runs, got {error.strerror}") from None
        if done.returncode:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            reason = lines[-1] if lines else f"exit code {done.returncode}"
            raise HwsimError(f"{self.program} must accept {' '.join(arguments)}, got: {reason}")
        return done.stdout
