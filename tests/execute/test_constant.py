"""Activations that come with the parameters: neither inputs nor outputs, kept in the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hwsim.errors import HwsimError
from hwsim.execute.executor import Executable
from hwsim.execute.store import load_executable, save_executable
from hwsim.extract.layers import linear, pointwise
from hwsim.numerics.quantizers import Quantizer
from hwsim.trace import Function, Role, Trace, TraceBuilder

GRID = Quantizer(np.asarray(0.125), 8)
CONSTANT = np.arange(-6.0, 6.0).reshape(4, 3)


def trace() -> Trace:
    b = TraceBuilder("t")
    x = b.tensor("x.features", Role.ACTIVATION, (4, 2))
    constant = b.tensor("position.encoding", Role.ACTIVATION, (4, 3))
    y = linear(b, "layer", [constant], 3, 2, 4, bias=False)
    pointwise(b, "sum", Function.ADD, [x, y], 2, 4)
    return b.build()


def executable(**more: np.ndarray) -> Executable:
    codes = {"layer.weight": np.eye(3, 2), "position.encoding": CONSTANT, **more}
    return Executable(trace(), codes, {"position.encoding": GRID})


def test_a_constant_is_no_input_and_no_output(tmp_path: Path) -> None:
    made = executable()
    assert (made.inputs, made.outputs) == (("x.features",), ("layer.out", "sum.out"))
    x = np.ones((4, 2))
    np.testing.assert_array_equal(made.run({"x.features": x})["sum.out"], GRID.fake_quantize(CONSTANT)[:, :2] + 1)
    np.testing.assert_array_equal(made.parameters()["position.encoding"], GRID.quantize(CONSTANT))
    save_executable(made, tmp_path / "t.hwsim")
    again = load_executable(tmp_path / "t.hwsim")
    np.testing.assert_array_equal(again.run({"x.features": x})["sum.out"], made.run({"x.features": x})["sum.out"])


def test_refusals() -> None:
    with pytest.raises(HwsimError, match=r"sum\.out must be a parameter or a constant, got what an operation writes"):
        executable(**{"sum.out": np.zeros((4, 2))})
    with pytest.raises(HwsimError, match=r"position\.encoding: codes must be of shape \(4, 3\), got \(3, 3\)"):
        executable(**{"position.encoding": np.zeros((3, 3))})
