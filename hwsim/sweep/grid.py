"""What a sweep is asked for, and the grid of points that this means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from hwsim.decode.search import default_settings, refuse_search
from hwsim.engine.run import Engine
from hwsim.errors import HwsimError, nearest
from hwsim.extract import load_workload

ENGINES = ("fast", "event")


@dataclass(frozen=True)
class SweepRequest:
    """Every combination of the values of a grid. Raises HwsimError for a list without a value and a bad number.

    Names (architectures, workload, policies, decoders, language models) are checked when they are used, by
    `points` and `run_sweep`.
    """

    archs: Sequence[str]
    """Architectures, by name or path."""
    workload: str
    """The network, by name or path."""
    precisions: Sequence[str] = ("int4",)
    """Precision policies, by name, path or number format."""
    beams: Sequence[int] | None = None
    """Beam widths; None is the workload's own. Greedy search always has 1."""
    lms: Sequence[str] | None = None
    """none, shallow, density-ratio; None is density-ratio for a workload that has both models, else none."""
    decoders: Sequence[str] | None = None
    """alsd, tsd, greedy; None is the workload's own."""
    frames: int | None = None
    """Encoder input frames of the utterance; None is the workload's own."""
    settings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Dotted paths of architecture files, each with the values that it takes in turn, as text."""
    engine: Engine = "fast"

    def __post_init__(self) -> None:
        lists = {name: getattr(self, name) for name in ("archs", "precisions", "beams", "lms", "decoders")}
        lists |= {f"--set {path}": values for path, values in self.settings.items()}
        for name, values in lists.items():
            if isinstance(values, str):
                raise HwsimError(f"{name} must be a list of values, got '{values}'")
            if values is not None and len(values) == 0:
                raise HwsimError(f"{name} must have at least one value, got none")
        for beam in self.beams or ():
            _positive("beam", beam)
        if self.frames is not None:
            _positive("frames", self.frames)
        if self.engine not in ENGINES:
            raise HwsimError(f"engine must be fast or event, got '{self.engine}'{nearest(self.engine, ENGINES)}")


@dataclass(frozen=True)
class SweepPoint:
    """One run of a sweep, with every default filled in."""

    arch: str
    settings: tuple[tuple[str, str], ...]
    """(dotted path, value as text), in the order of the request."""
    workload: str
    precision: str
    decoder: str
    beam: int
    lm: str
    frames: int


def points(request: SweepRequest) -> list[SweepPoint]:
    """The points of a request, each once: by architecture, setting, decoder, language model, precision and beam.

    Raises HwsimError for an unknown workload, decoder or language model, and for a model the workload has not.
    """
    workload = load_workload(request.workload)
    frames = workload.decode.frames if request.frames is None else request.frames
    searches: dict[tuple[str, str], dict[int, None]] = {}
    for decoder, lm, beam in product(request.decoders or (None,), request.lms or (None,), request.beams or (None,)):
        refuse_search(workload, beam, decoder, lm)
        greedy = (decoder or workload.decode.algorithm) == "greedy"
        chosen = default_settings(workload, algorithm=decoder, lm=lm, beam=1 if greedy else beam)
        searches.setdefault((chosen.algorithm, chosen.lm), {})[chosen.beam] = None
    changes = [tuple(zip(request.settings, values, strict=True)) for values in product(*request.settings.values())]
    grid = [
        SweepPoint(arch, change, request.workload, precision, decoder, beam, lm, frames)
        for arch, change in product(request.archs, changes)
        for (decoder, lm), beams in searches.items()
        for precision, beam in product(request.precisions, beams)
    ]
    return list(dict.fromkeys(grid))


def _positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise HwsimError(f"{name} must be an integer, got {value!r}")
    if value < 1:
        raise HwsimError(f"{name} must be at least 1, got {value}")
