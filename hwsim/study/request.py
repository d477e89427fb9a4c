"""What a study is asked: precisions, beams and language models of a recognizer, machines, and the speech."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

from hwsim.decode.settings import DecodeSettings
from hwsim.errors import HwsimError

GREEDY_BEAM = 1


@dataclass(frozen=True, order=True)
class Search:
    """One way of decoding: every utterance is decoded once in it, and timed on every machine."""

    precision: str
    beam: int
    lm: str

    def settings(self, decoder: str, u_max_ratio: float) -> DecodeSettings:
        """The search's settings; a beam of 1 is greedy search."""
        algorithm = "greedy" if self.beam == GREEDY_BEAM else decoder
        return DecodeSettings(algorithm, self.beam, lm=self.lm, u_max_ratio=u_max_ratio)  # type: ignore[arg-type]


@dataclass(frozen=True)
class StudyRequest:
    """A grid over recognizers of one workload. Raises HwsimError for an empty list and a value given twice."""

    workload: str
    archs: tuple[str, ...]
    precisions: tuple[str, ...]
    beams: tuple[int, ...]
    lms: tuple[str, ...]
    utterances: int
    """The first so many of the split."""
    data: Path
    """Folder of the speech set."""
    recognizers: Path
    """Folder of `<precision>.recognizer` files."""
    split: str = "test_mild"
    decoder: str = "alsd"

    def __post_init__(self) -> None:
        for name in ("archs", "precisions", "beams", "lms"):
            values = getattr(self, name)
            if not values:
                raise HwsimError(f"{name} must hold at least one value, got none")
            twice = next((value for at, value in enumerate(values) if value in values[:at]), None)
            if twice is not None:
                raise HwsimError(f"{name} must hold each value once, got {twice} twice")
        for search in self.searches:
            search.settings(self.decoder, 0.5)
        if self.utterances < 1:
            raise HwsimError(f"utterances must be at least 1, got {self.utterances}")

    @property
    def searches(self) -> list[Search]:
        """Every combination of precision, beam and language model."""
        return [Search(*point) for point in product(self.precisions, self.beams, self.lms)]

    def digest(self, hashes: dict[str, str]) -> str:
        """SHA-256 over what decides a row: not over which rows were asked for."""
        own = {"workload": self.workload, "split": self.split, "decoder": self.decoder, "archs": sorted(self.archs)}
        return hashlib.sha256(json.dumps([own, hashes], sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, object]:
        """JSON values."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}
