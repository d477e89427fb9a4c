"""What an oracle is: something outside the executor that computes a network's codes, and says what it left out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError, nearest
from hwsim.execute.executor import Executable
from hwsim.execute.operations.base import Run
from hwsim.execute.projection import Coding, Sums
from hwsim.execute.semantics import TRAINING, Semantics
from hwsim.numerics.dynamic import DynamicGrid
from hwsim.numerics.rounding import Reals
from hwsim.validate.report import Source, Tier

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Computed:
    """What an oracle computed, by tensor name.

    `codes`: codes, or float64 reals of tensors without a grid, cells (T, H) among them; what teacher forcing reads.
    `steps`: of tensors with a grid, the reals before rounding, in steps of it, for distances to a tie.
    `compared`: the names that are judged; the others were computed by the readable reference.
    """

    codes: Mapping[str, Array]
    source: Source
    steps: Mapping[str, Reals] = field(default_factory=dict)
    compared: tuple[str, ...] = ()


class Oracle(ABC):
    """A reference that computes what it is compared with, from the executable and its inputs alone."""

    name: str
    tier: Tier
    """Demanded unless the user says otherwise."""
    given: Mapping[str, Array] | None = None
    """The network's parameters as they were given, before any were packed; None takes them from the executable."""

    def parameters(self, executable: Executable) -> Mapping[str, Array]:
        """Codes, or reals, of weights, biases and tables by name."""
        return executable.parameters() if self.given is None else self.given

    def executable(self, given: Executable) -> Executable:
        """The network as this oracle compares it: by its profile, with the grids that it can hold."""
        return given

    def for_tier(self, tier: Tier) -> Oracle:
        """The oracle in the precision that a tier demands. Raises HwsimError for a tier that does not fit it."""
        return self

    @abstractmethod
    def compute(self, executable: Executable, inputs: Mapping[str, Array]) -> Computed:
        """What it gives for the inputs of `executable`, which `executable()` made. Raises HwsimError as `run`."""


class Readable(Oracle):
    """The readable NumPy path of the executor, by the rules of training: no kernels, no packed weights."""

    name = "readable"
    tier: Tier = "T0"

    def __init__(self, profile: Semantics | None = None) -> None:
        self.profile = profile

    def executable(self, given: Executable) -> Executable:
        """The network by the rules of the profile, if there is one."""
        return given if self.profile is None else with_rules(given, self.profile)

    def compute(self, executable: Executable, inputs: Mapping[str, Array]) -> Computed:
        """Every output but the cell states, of which it returns the last ones only."""
        codes, steps = free_run(readable(executable, self.given), inputs)
        names = tuple(name for name in executable.outputs if name in codes)
        source = Source("readable", "", executable.semantics.name,
                        text="the readable NumPy reference, by the rules of training")  # fmt: skip
        return Computed(codes, source, steps, names)


def readable(executable: Executable, codes: Mapping[str, Array] | None = None) -> Executable:
    """The network by the rules of `training`, on the readable path instead of the compiled one."""
    # Another name than `training`, so that the same rules do not take the compiled path.
    return with_rules(executable, replace(TRAINING, name="readable"), codes=codes)


def with_rules(
    executable: Executable, semantics: Semantics, quantizers: Mapping[str, Coding] | None = None,
    codes: Mapping[str, Array] | None = None,
) -> Executable:  # fmt: skip
    """The same network by another machine's rules, or with other grids, or with these parameters."""
    grids = executable.quantizers if quantizers is None else quantizers
    given = executable.parameters() if codes is None else codes
    return Executable(executable.trace, given, grids, rules=executable.rules, semantics=semantics)


def start_run(executable: Executable, inputs: Mapping[str, Array]) -> Run:
    """The tensors of a run before its first operation. Raises HwsimError for inputs that do not fit."""
    known, network = executable.inputs, executable.network
    for name in (*inputs, *known):
        if name not in known:
            raise HwsimError(f"unknown input '{name}'{nearest(name, known)}")
        if name not in inputs:
            raise HwsimError(f"inputs must hold {', '.join(known)}, got no {name}")
    values = {name: network.accept(name, np.asarray(array)) for name, array in inputs.items()}
    return Run(network, values, None, {})


def free_run(executable: Executable, inputs: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Reals]]:
    """Outputs without cell states, and their reals before rounding, of one free run."""
    run = start_run(executable, inputs)
    for operation in executable.operations:
        operation.run(run)
    return written(executable, run), run.steps or {}


def written(executable: Executable, run: Run) -> dict[str, Array]:
    """What a run wrote of the outputs, without the cell states of loops."""
    names = (name for name in executable.outputs if name not in executable.cells and name in run.written)
    return {name: value.values() if isinstance(value := run.written[name], Sums) else value for name in names}


def float32_grids(executable: Executable) -> dict[str, Coding]:
    """The grids with their scales rounded to float32, in which runtimes store them."""
    return {
        name: replace(grid, scale=grid.scale.astype(np.float32).astype(np.float64))
        for name, grid in executable.quantizers.items()
        if not isinstance(grid, DynamicGrid)
    }


def fitting_profile(oracle: str, name: str | None, known: Mapping[str, Semantics]) -> Semantics:
    """The profile that an oracle runs, its first one by default. Raises HwsimError for another one."""
    if name is None:
        return next(iter(known.values()))
    if name not in known:
        raise HwsimError(f"profile must be {' or '.join(known)} against {oracle}, got {name}")
    return known[name]
