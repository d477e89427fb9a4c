"""The reading of an executable in PyTorch: T1 in float64 for each kind of operation, T2 in float32 with its ties."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from hwsim.errors import HwsimError
from hwsim.execute.executor import Executable
from hwsim.execute.operations import MAKERS
from hwsim.trace import Function, Kind
from hwsim.validate import against, compare
from hwsim.validate.oracles import torch_attention, torch_graph, torch_operations  # noqa: F401  (they register)
from tests.validate import networks


@pytest.mark.parametrize("name", networks.CASES)
def test_t1_of_every_operation(name: str) -> None:
    executable, inputs = networks.CASES[name]()
    report = compare(executable, against("torch"), inputs, "T1", "both")
    assert report.passed, str(report)
    assert report.mismatches == 0
    assert report.elements > 150
    assert report.source is not None
    assert report.source.oracle == "torch float64"


@pytest.mark.parametrize("name", ["mlp", "lstm", "gru", "depthwise", "conv2d", "norm", "swish", "glu"])
def test_t2_of_every_kind_of_arithmetic(name: str) -> None:
    report = compare(*_with(networks.CASES[name](), against("torch")))
    assert report.passed, str(report)
    assert (report.tier, {layer.mode for layer in report.layers}) == ("T2", {"teacher-forced"})


def _with(case: networks.Case, oracle: object) -> tuple:  # type: ignore[type-arg]
    executable, inputs = case
    return executable, oracle, inputs


def test_every_operation_that_is_executed_has_a_reading() -> None:
    missing = [key for key in MAKERS if key not in torch_graph.FUNCTIONS]
    assert not missing


def test_reals_are_compared_and_not_judged() -> None:
    executable, inputs = networks.attention(grids=False)()
    report = compare(executable, against("torch"), inputs, "T3")
    assert [layer.is_code for layer in report.layers] == [False] * len(report.layers)
    assert max(layer.max_delta for layer in report.layers) < 1e-5


def test_fp16_is_read_as_halves() -> None:
    executable, inputs = networks.halved()
    report = compare(executable, against("torch"), inputs, "T3")
    (layer,) = report.layers
    assert layer.max_delta <= 2.0**-9
    assert layer.mismatches < layer.elements / 10


def test_ties_are_counted_in_float32() -> None:
    """Scales that are no powers of two: float32 falls off exact ties of float64, and only there."""
    executable, inputs = networks.tied()
    odd = {"joint.x": 0.1, "joint.weight": 0.2, "joint.out": 0.04}
    grids = {name: replace(grid, scale=np.asarray(odd[name])) for name, grid in executable.quantizers.items()}
    executable = Executable(executable.trace, executable.parameters(), grids)
    report = compare(executable, against("torch"), inputs, "T2")
    (layer,) = report.layers
    assert layer.mismatches > 0
    assert layer.max_delta == 1
    assert layer.tie_distance is not None
    assert layer.tie_distance < 1e-4
    assert "more than 0.0001 of the codes" in layer.verdict


def test_a_changed_network_breaks_t2() -> None:
    executable, inputs = networks.mlp()
    computed = against("torch").compute(executable, inputs)
    name = "layer0.weight"
    codes = executable.parameters()
    changed = Executable(executable.trace, {**codes, name: -codes[name]}, executable.quantizers)
    report = compare(changed, computed.codes, inputs, "T2", reals=computed.steps)
    assert not report.passed


def test_what_it_refuses() -> None:
    executable, inputs = networks.mlp()
    with pytest.raises(HwsimError, match=r"^tier must be T1, T2 or T3 against torch, which computes reals, got T0$"):
        compare(executable, against("torch"), inputs, "T0")
    with pytest.raises(HwsimError, match=r"^unknown input 'x'; known: layer0.input$"):
        compare(executable, against("torch"), {"x": inputs["layer0.input"]})
    with pytest.raises(HwsimError, match=r"^inputs must hold layer0.input, got no layer0.input$"):
        compare(executable, against("torch"), {})
    with pytest.raises(HwsimError, match=r"^the oracle must be one of torch, onnxruntime, litert, got 'tensorflow'"):
        against("tensorflow")


def test_an_operation_without_a_reading_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    executable, inputs = networks.mlp()
    monkeypatch.delitem(torch_graph.FUNCTIONS, (Kind.MATMUL, Function.NONE))
    said = r"^operation 0 \(MATMUL, layer layer0\) with function NONE has no reading in PyTorch$"
    with pytest.raises(HwsimError, match=said):
        compare(executable, against("torch"), inputs)
