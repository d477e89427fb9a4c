"""One set of conditions for the INT4 RNN-T, and the headline figures under it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hwsim.arch import Architecture
from hwsim.decode.search import default_settings
from hwsim.extract import Workload
from hwsim.simulation import Result, simulate

RTF = "2022 RTF INT4"


@dataclass(frozen=True)
class Conditions:
    """The machine, the network and the search; everything but precision and fusion."""

    arch: Architecture
    workload: Workload
    search: Mapping[str, Any] = field(default_factory=dict)
    """Decode settings that differ from the workload's own."""

    def with_beam(self, beam: int) -> Conditions:
        """The same with another beam."""
        return replace(self, search={**self.search, "beam": beam})

    def run(self, precision: str, lm: str) -> Result:
        """Simulate the standard utterance. Raises HwsimError when it cannot be run."""
        settings = replace(default_settings(self.workload, lm=lm), **self.search)
        return simulate(self.arch, self.workload, precision, settings=settings)


@dataclass(frozen=True)
class Headline:
    """The headline figures, and the four runs they come from."""

    fp16_2021: Result
    int4_2021: Result
    fp16_2022: Result
    int4_2022: Result
    figures: Mapping[str, float]
    """`2021 end to end`, `2021 encoder`, `2021 prediction network`, `2022 end to end`, `2022 RTF INT4`."""

    @property
    def results(self) -> tuple[Result, ...]:
        """All runs."""
        return (self.fp16_2021, self.int4_2021, self.fp16_2022, self.int4_2022)

    @property
    def beam(self) -> int:
        """Beam of all runs."""
        return self.int4_2022.settings.beam


def measure(conditions: Conditions) -> Headline:
    """Run both years in FP16 and INT4. Raises HwsimError when the conditions cannot be run."""
    fp16_2021, int4_2021 = conditions.run("fp16", "none"), conditions.run("int4-2021", "none")
    fp16_2022, int4_2022 = conditions.run("fp16", "density-ratio"), conditions.run("int4", "density-ratio")
    without_lm = int4_2021.speedup_over(fp16_2021)
    figures = {
        "2021 end to end": without_lm["total"],
        "2021 encoder": without_lm["encoder"],
        "2021 prediction network": without_lm["prediction"],
        "2022 end to end": int4_2022.speedup_over(fp16_2022)["total"],
        RTF: int4_2022.rtf,
    }
    return Headline(fp16_2021, int4_2021, fp16_2022, int4_2022, figures)


def speedups(conditions: Conditions, lm: str, precision: str) -> dict[str, float]:
    """Speed-up of a precision over FP16, in total and per component."""
    return conditions.run(precision, lm).speedup_over(conditions.run("fp16", lm))
