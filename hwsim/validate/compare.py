"""Running the integer trace beside a reference, free or teacher-forced, and judging every layer by its tier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError, nearest
from hwsim.execute.dynamic import SCALE
from hwsim.execute.executor import Executable
from hwsim.numerics.dynamic import DynamicGrid
from hwsim.validate.oracles.base import Computed, Oracle
from hwsim.validate.report import LayerReport, Report, Source, Tier, check_tier

if TYPE_CHECKING:
    from torch import nn

Array = npt.NDArray[Any]
Mode = Literal["free-running", "teacher-forced", "both"]
MODES = ("free-running", "teacher-forced")


@dataclass(frozen=True, slots=True)
class Budget:
    """What T2 allows of each layer: a share of mismatching codes, and how far from a tie they may lie, in steps.

    A float32 gate sum that is off by 1e-6 moves a table's entry now and then; the tables' step of 2^-12 then moves
    h by up to 7 codes x 2^-12 = 1.7e-3 of an INT4 step per gate. Only what is that near to a tie can turn.
    """

    share: float = 1e-4
    tie_distance: float = 8e-3


def compare(
    executable: Executable,
    reference: Mapping[str, Array] | Oracle | nn.Module,
    inputs: Mapping[str, Array],
    tier: Tier | None = None,
    mode: Mode | None = None,
    *,
    reals: Mapping[str, Array] | None = None,
    budget: Budget | None = None,
) -> Report:
    """Compare an executable with what a reference computed from the same inputs.

    `reference`: codes (or reals) by tensor name; an oracle of `against`, which computes them and decides by which
    profile the executable runs; or a module of `hwsim.train`, which is evaluated in its own precision. `reals`: the
    reference's values before rounding, in steps of their grid, for distances to a tie; oracles and modules bring them.
    `tier`: by default the oracle's, otherwise T1. `mode`: by default teacher-forced for T2, which gives every layer
    and every step of a recurrence the reference's inputs, and free-running for the other tiers; `both` runs both.
    T0 and T1 demand no mismatching code. T2: |delta| <= 1, within `budget`. T3 reports and demands nothing.
    Raises HwsimError for an unknown tier or mode, names that the executable has not, and other shapes.
    """
    if tier is None:
        tier = reference.tier if isinstance(reference, Oracle) else "T1"
    check_tier(tier)
    modes = _modes(mode, tier)
    executable, computed = _computed(executable, reference, inputs, tier)
    codes, steps = computed.codes, {**computed.steps, **(reals or {})}
    known = executable.outputs
    for name in codes:
        if name not in known:
            raise HwsimError(f"the reference's '{name}' must be an output of the trace{nearest(name, known)}")
    judged = [name for name in known if name in codes and name in computed.compared and not _is_cell(executable, name)]
    if not any(name in executable.quantizers for name in judged) and tier != "T3":
        raise HwsimError(_nothing_to_judge(computed, tier))
    layers = []
    for each in modes:
        outputs = executable.run(inputs, forced=codes if each == "teacher-forced" else None)
        layers += [_layer(executable, name, each, outputs[name], np.asarray(codes[name]), steps.get(name), tier,
                          budget or Budget()) for name in judged]  # fmt: skip
    return Report(tier, tuple(layers), computed.source if computed.source.oracle else None)


def _nothing_to_judge(computed: Computed, tier: Tier) -> str:
    """The message when no output with a grid can be compared, with the first reason that an oracle gave."""
    message = f"the reference must hold codes of at least one output for {tier}, got none"
    for name, reason in computed.source.not_compared.items():
        return f"{message} from {computed.source.oracle}: {name}: {reason}"
    return message


def _modes(mode: Mode | None, tier: Tier) -> tuple[str, ...]:
    if mode is None:
        return (MODES[1],) if tier == "T2" else (MODES[0],)
    if mode == "both":
        return MODES
    if mode not in MODES:
        raise HwsimError(f"mode must be one of {', '.join(MODES)}, both, got '{mode}'")
    return (mode,)


def _computed(
    executable: Executable, reference: Mapping[str, Array] | Oracle | nn.Module, inputs: Mapping[str, Array], tier: Tier
) -> tuple[Executable, Computed]:
    """The executable as it is compared, and what it is compared with."""
    if isinstance(reference, Oracle):
        found = next((name for name, grid in executable.quantizers.items() if isinstance(grid, DynamicGrid)), None)
        if found is not None:
            raise HwsimError(f"{found}: must have a grid that is fixed to be compared with another runtime, got one of "
                             "run time")  # fmt: skip
        oracle = reference.for_tier(tier)
        executable = oracle.executable(executable)
        return executable, oracle.compute(executable, inputs)
    nobody = Source("", "", executable.semantics.name)
    if isinstance(reference, Mapping):
        return executable, Computed(reference, nobody, {}, tuple(reference))
    from hwsim.train import record

    recording = record(reference, inputs, executable.trace.name)
    return executable, Computed(recording.codes, nobody, recording.steps, tuple(recording.codes))


def _is_cell(executable: Executable, name: str) -> bool:
    """Whether a tensor is the cell state of a recurrent layer: its reference is for teacher forcing."""
    return name in executable.cells


def _layer(
    executable: Executable, name: str, mode: str, got: Array, wanted: Array, steps: Array | None, tier: Tier,
    budget: Budget,
) -> LayerReport:  # fmt: skip
    if got.shape != wanted.shape:
        raise HwsimError(f"{name}: the reference must be of shape {got.shape}, got {wanted.shape}")
    layers = {t.name: t.layer for t in executable.trace.tensors}
    layer = layers[name if name in layers else name.removesuffix(SCALE)]
    is_code = name in executable.quantizers
    if is_code and wanted.dtype.kind not in "iu":
        raise HwsimError(f"{name}: the reference must hold codes, got {wanted.dtype}")
    delta = got.astype(np.int64) - wanted if is_code else got - wanted
    wrong = delta != 0
    count = int(np.count_nonzero(wrong))
    first = tuple(int(i) for i in np.argwhere(wrong)[0]) if count else None
    distance = None
    if count and is_code and steps is not None:
        distance = float(np.abs(steps - (got.astype(np.float64) + wanted) / 2)[wrong].max())
    largest = float(np.abs(delta).max()) if delta.size else 0.0
    passed, verdict = _verdict(is_code, count, got.size, largest, distance, tier, budget, first)
    return LayerReport(name, layer, mode, is_code, got.size, count, largest, first,
                       _first_step(executable, name, wrong) if count else None, distance, passed, verdict)  # fmt: skip


def _first_step(executable: Executable, name: str, wrong: npt.NDArray[np.bool_]) -> int:
    """The earliest mismatch in the order in which the steps were computed, as an index of time."""
    rows = np.flatnonzero(wrong.reshape(len(wrong), -1).any(axis=1))
    return int(rows[-1] if name in executable.reversed_outputs else rows[0])


def _verdict(
    is_code: bool, count: int, elements: int, largest: float, distance: float | None, tier: Tier, budget: Budget,
    first: tuple[int, ...] | None,
) -> tuple[bool, str]:  # fmt: skip
    if not is_code:
        return True, f"reals, not codes: largest difference {largest:.2g}"
    if not count:
        return True, "equal"
    found = f"max |delta| {largest:.0f}, first at {first}"
    if distance is not None:
        found += f", at most {distance:.2g} steps from a tie"
    if tier == "T3":
        return True, found
    if tier != "T2":
        return False, f"{tier} broken: {found}"
    if largest > 1:
        return False, f"T2 broken, codes differ by more than one: {found}"
    if count > budget.share * elements:
        return False, f"T2 broken, more than {budget.share:g} of the codes: {found}"
    if distance is None or distance > budget.tie_distance:
        return False, f"T2 broken, not shown to be within {budget.tie_distance:g} steps of a tie: {found}"
    return True, f"within budget: {found}"
