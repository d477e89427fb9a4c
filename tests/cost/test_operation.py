"""Costs of the operations of a search: host, link and state, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hwsim.arch import load_arch
from hwsim.cost.classes import operation_classes
from hwsim.cost.operation import Unit
from hwsim.decode import DecodeSettings
from hwsim.engine import Run
from hwsim.numerics import NumberFormat
from hwsim.numerics.policy import LayerPrecision, PartialPrecision, PrecisionPolicy
from hwsim.simulation import simulate
from hwsim.trace import Kind

SETTINGS = DecodeSettings(beam=3, prediction_cache=False, lm_cache=False)


def mixed_policy() -> PrecisionPolicy:
    """INT4 with FP16 cell states, and all of the source LM in FP16."""
    int4, fp16, fp32 = (NumberFormat(name) for name in ("int4", "fp16", "fp32"))
    rules = (("source_lm.*", PartialPrecision.same(fp16)),)
    return PrecisionPolicy("mixed", rules, LayerPrecision(int4, int4, fp16, fp32))


def run(changes: dict[str, Any] | None = None) -> Run:
    arch = load_arch("rapid_4core", {path: str(value) for path, value in (changes or {}).items()})
    return simulate(arch, "rnnt_swb300", mixed_policy(), frames=8, settings=SETTINGS).run


def of_kind(found: Run, kind: Kind, layer: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Rows of the busy operations of a kind in a layer, and their costs."""
    trace = found.trace
    chosen = (trace.kind == kind) & (trace.layer == trace.layers.index(layer)) & (trace.m > 0)
    of = operation_classes(trace).of_operation[chosen]
    names = ("unit", "cycles", "latency_cycles", "copied_bytes", "host_pj", "link_pj")
    return trace.m[chosen], {name: getattr(found.costs, name)[of] for name in names}


# Both have one layer of 768 cells, so that their copies have equal sizes but not equal formats.
STATE_BITS = {"prediction.state": 768 * (4 + 16), "source_lm.state": 768 * (16 + 16)}


COPIES = [(layer, kind) for layer in STATE_BITS for kind in (Kind.STATE_IN, Kind.STATE_OUT)]


@pytest.mark.parametrize(("layer", "kind"), COPIES)
@pytest.mark.parametrize("kept", ["host", "device"])
def test_states_are_copied_in_the_formats_of_their_own_network(kept: str, layer: str, kind: Kind) -> None:
    rows, costs = of_kind(run({"host.state_cache": kept}), kind, layer)
    assert np.array_equal(costs["copied_bytes"], rows * STATE_BITS[layer] // 8)


def test_states_on_the_host_cross_the_link_and_states_on_the_device_do_not() -> None:
    rows, costs = of_kind(run({"host.state_cache": "host"}), Kind.STATE_IN, "prediction.state")
    bits = rows * STATE_BITS["prediction.state"]
    assert set(costs["unit"].tolist()) == {Unit.LINK_IN}
    assert np.array_equal(costs["cycles"], np.ceil(bits / 8 * 1.6e9 / 16e9))
    assert set(costs["latency_cycles"].tolist()) == {800}
    assert costs["link_pj"].tolist() == pytest.approx((bits * 10.0).tolist())
    _, costs = of_kind(run({"host.state_cache": "device"}), Kind.STATE_IN, "prediction.state")
    assert set(costs["unit"].tolist()) == {Unit.DRAM_IN}
    assert not costs["link_pj"].any()
    assert not costs["cycles"].any()


@pytest.mark.parametrize("persistent", [True, False])
def test_the_host_decides_and_launches(persistent: bool) -> None:
    """2 us and 0.5 us a hypothesis to decide; 2 us to launch; 15 W while it works; 0.5 us to the device."""
    found = run({"host.persistent_kernel": str(persistent).lower(), "host.per_step_s": 2e-6,
                 "host.per_hypothesis_s": 5e-7, "host.per_launch_s": 2e-6})  # fmt: skip
    rows, costs = of_kind(found, Kind.HOST, "search.control")
    assert np.array_equal(costs["cycles"], 3200 + 800 * rows)
    assert costs["host_pj"].tolist() == pytest.approx(((2e-6 + 5e-7 * rows) * 15 * 1e12).tolist())
    assert set(costs["latency_cycles"].tolist()) == ({800} if persistent else {0})
    _, costs = of_kind(found, Kind.LAUNCH, "search.launch")
    assert set(costs["cycles"].tolist()) == ({0} if persistent else {3200})
    assert set(costs["latency_cycles"].tolist()) == ({0} if persistent else {800})
    assert set(costs["unit"].tolist()) == ({Unit.NONE} if persistent else {Unit.HOST})


def test_scores_go_to_the_host() -> None:
    found = run()
    rows, costs = of_kind(found, Kind.SEND, "search.scores")
    assert set(costs["unit"].tolist()) == {Unit.LINK_OUT}
    assert np.array_equal(costs["copied_bytes"], rows * 46 * 2)


def test_an_operation_without_rows_costs_nothing() -> None:
    found = simulate("rapid_4core", "rnnt_swb300", frames=16, beam=4).run
    idle = operation_classes(found.trace).m == 0
    assert idle.sum() > 5
    for name in ("cycles", "latency_cycles", "copied_bytes", "reduce_bytes", "dynamic_pj"):
        assert not getattr(found.costs, name)[idle].any(), name
