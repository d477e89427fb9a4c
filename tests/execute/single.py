"""Executables of one operation, or a few, from a list of what each reads and writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim.execute.executor import Executable
from hwsim.execute.semantics import TRAINING, Semantics
from hwsim.execute.store import load_executable, save_executable
from hwsim.numerics.quantizers import Quantizer
from hwsim.trace import Function, Kind, Role, TraceBuilder
from hwsim.trace.builder import Operand

Array = NDArray[Any]


def quantizer(scale: float, zero: int = 0, bits: int = 8, **more: Any) -> Quantizer:
    return Quantizer(np.asarray(scale), bits, np.asarray(zero), **more)


@dataclass
class Network:
    """Tensors are `<layer>.<part>`; an operation is added by the names of what it reads and writes."""

    layer: str = "block.part"
    builder: TraceBuilder = field(default_factory=lambda: TraceBuilder("single"))
    index: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    codes: dict[str, Array] = field(default_factory=dict)
    grids: dict[str, Quantizer] = field(default_factory=dict)

    def tensor(self, part: str, shape: tuple[int, ...], grid: Quantizer | None = None, role: Role = Role.ACTIVATION,
               codes: Array | None = None) -> str:  # fmt: skip
        name = f"{self.layer}.{part}"
        self.index[part], self.sizes[part] = self.builder.tensor(name, role, shape), int(np.prod(shape))
        if grid is not None:
            self.grids[name] = grid
        if codes is not None:
            self.codes[name] = codes
        return part

    def weight(self, part: str, codes: Array, grid: Quantizer | None) -> str:
        return self.tensor(part, codes.shape, grid, Role.WEIGHT, codes)

    def vector(self, part: str, reals: Array) -> str:
        return self.tensor(part, reals.shape, None, Role.BIAS, reals)

    def op(self, kind: Kind, reads: list[str], out: str, *, function: Function = Function.NONE, m: int, k: int = 1,
           n: int = 1, batch: int = 1) -> None:  # fmt: skip
        operands = [Operand(self.index[part], fixed=self.sizes[part]) for part in reads]
        writes = [Operand(self.index[out], fixed=self.sizes[out])]
        self.builder.op(kind, self.layer, operands, writes, m=m, k=k, n=n, batch=batch, function=function)

    def build(self, semantics: Semantics = TRAINING, **attributes: Any) -> Executable:
        if attributes:
            self.builder.attributes(self.layer, **attributes)
        return Executable(self.builder.build(), self.codes, self.grids, semantics=semantics)


def run(executable: Executable, out: str = "out", layer: str = "block.part", **inputs: Array) -> Array:
    return executable.run({f"{layer}.{part}": codes for part, codes in inputs.items()})[f"{layer}.{out}"]


def assert_round_trip(executable: Executable, inputs: Mapping[str, Array], path: Path) -> None:
    """What is saved and loaded has the same parameters and gives the same codes in the same types."""
    save_executable(executable, path)
    loaded = load_executable(path)
    before, after = executable.parameters(), loaded.parameters()
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(before[name], after[name], name)
    ours, theirs = executable.run(inputs), loaded.run(inputs)
    for name in ours:
        assert ours[name].dtype == theirs[name].dtype
        np.testing.assert_array_equal(ours[name], theirs[name], name)


def assert_unrounded(executable: Executable, inputs: Mapping[str, Array], names: set[str], off: float = 0.5) -> None:
    """Reals before rounding lie within half a step of the code that they became, unless it is the last."""
    outputs, steps = executable.run(inputs), executable.unrounded(inputs, {})
    assert set(steps) == names
    for name, step in steps.items():
        low, high = executable.quantizers[name].code_range
        distance = np.abs(np.clip(step, low, high) - outputs[name])
        assert distance.max() <= off + 1e-9
        assert distance.max() > 0


def slow_sum(a: list[int], b: list[int], semantics: Semantics) -> int:
    """sum a b as the accumulator holds it, one product after another."""
    chunk = semantics.accumulator_chunk or max(len(a), 1)
    total = 0
    for start in range(0, len(a), chunk):
        part = 0
        for x, y in zip(a[start : start + chunk], b[start : start + chunk], strict=True):
            part = _held(part + x * y, semantics.accumulator_bits, semantics.overflow)
        total = _held(total + part, 32, semantics.overflow)
    return total


def _held(value: int, bits: int, overflow: str) -> int:
    half = 1 << (bits - 1)
    return (value + half) % (2 * half) - half if overflow == "wrap" else max(-half, min(half - 1, value))
