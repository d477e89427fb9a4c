from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import hwsim
from hwsim.errors import HwsimError
from hwsim.report import facts
from hwsim.simulation import Result
from hwsim.trace import Role


def test_the_total_is_the_sum_of_the_components(int4: Result) -> None:
    total = facts.total(int4)
    parts = int4.components.values()
    assert total.macs == sum(part.macs for part in parts) == int(int4.run.trace.macs.sum())
    assert total.dram_bytes == int(int4.run.dram_bytes.sum())
    assert total.cycles == int4.cycles
    assert sum(total.cycles_by_cause.values()) == pytest.approx(int4.cycles)
    assert total.achieved_ops_per_s == pytest.approx(2 * total.macs / int4.latency_s)
    assert list(total.cycles_by_cause.values()) == sorted(total.cycles_by_cause.values(), reverse=True)
    assert total.bound == next(iter(total.cycles_by_cause))


def test_total_utilization_is_the_mean_of_the_components_by_time(int4: Result) -> None:
    parts = [part for part in int4.components.values() if part.cycles]
    by_time = sum(part.utilization * part.cycles for part in parts) / int4.cycles
    assert facts.total(int4).utilization == pytest.approx(by_time, rel=1e-3)


def test_every_product_is_in_one_format(int4: Result, fp16: Result) -> None:
    uses = facts.formats_in_use(int4)
    assert sum(use.macs for use in uses) == int(int4.run.trace.macs.sum())
    assert {use.requested for use in uses} <= {"int4", "fp16"}
    assert [use.requested for use in facts.formats_in_use(fp16)] == ["fp16"]


def test_fallbacks_are_named(int4: Result, int8: Result) -> None:
    assert facts.fallback_notes(int4) == []
    assert facts.fallback_notes(int8) == ["int8 runs as fp16 on rapid_4core"]


def test_fallbacks_of_a_policy_need_no_run() -> None:
    arch = hwsim.load_arch("rapid_4core")
    assert facts.policy_fallbacks(arch, hwsim.load_policy("int8")) == ["int8 runs as fp16 on rapid_4core"]
    assert facts.policy_fallbacks(arch, hwsim.load_policy("fp16")) == []
    with pytest.raises(HwsimError, match="rapid_4core cannot compute fp32"):
        facts.policy_fallbacks(arch, hwsim.load_policy("fp32"))


def test_decode_totals_are_those_of_the_trace(int4: Result) -> None:
    totals = facts.decode_totals(int4)
    columns = int4.run.trace.columns
    layers = np.array(int4.run.trace.layers)[columns["layer"]]
    assert totals.steps == columns["iteration"][layers == "search.control"].max() + 1
    assert totals.joint_rows == columns["m"][layers == "search.control"].sum()


def test_weights_live_in_one_component_each(int4: Result) -> None:
    homes = facts.weight_homes(int4)
    tensors = int4.run.trace.tensors
    assert [home.component for home in homes] == [c.name for c in int4.components.values() if c.parameters]
    assert sum(home.dram_bytes for home in homes) == int(int4.run.lowered.weight_bytes.sum())
    kept = {p.tensor for p in int4.run.plan.placements if p.on_chip}
    weights = {tensor.name for tensor in tensors if tensor.role == Role.WEIGHT}
    assert any(home.kept_bytes for home in homes) == bool(kept & weights)
    assert all(home.kept_bytes <= home.stored_bytes for home in homes)


def test_the_encoder_is_read_once_and_a_language_model_at_each_step(int4: Result) -> None:
    homes = {home.component: home for home in facts.weight_homes(int4)}
    assert homes["encoder"].reads == pytest.approx(1.0)
    steps_with_rows = int((int4.run.trace.columns["m"][_operations(int4, "external_lm.output")] > 0).sum()) // 2
    assert homes["external_lm"].reads == pytest.approx(steps_with_rows)


def _operations(result: Result, layer: str) -> np.ndarray:
    return np.flatnonzero(result.run.trace.columns["layer"] == result.run.trace.layers.index(layer))


def test_what_found_no_room_is_counted(int4: Result) -> None:
    assert facts.spilled(int4).tensors == []
    kept = int4.run.plan.placements
    lost = (replace(kept[0], on_chip=False), replace(kept[1], on_chip=False, traffic_saved_bytes=10**9))
    plan = replace(int4.run.plan, placements=lost)
    found = facts.spilled(replace(int4, run=replace(int4.run, plan=plan)))
    assert found.tensors == [lost[1].tensor, lost[0].tensor]
    assert found.size_bytes == lost[0].size_bytes + lost[1].size_bytes
    assert found.traffic_bytes == lost[0].traffic_saved_bytes + 10**9


def test_a_hidden_component_has_no_speedup(int4: Result, fp16: Result) -> None:
    assert facts.visible_speedup("total", int4, fp16) == fp16.latency_s / int4.latency_s
    encoder, slow = int4.components["encoder"], fp16.components["encoder"]
    assert facts.visible_speedup("encoder", int4, fp16) == pytest.approx(slow.latency_s / encoder.latency_s)
    hidden = replace(encoder, cycles=int(0.004 * int4.cycles))
    for side, other in ((int4, fp16), (fp16, int4)):
        shortened = replace(side, components={**side.components, "encoder": hidden})
        assert facts.visible_speedup("encoder", shortened, other) is None
        assert facts.visible_speedup("encoder", other, shortened) is None


def test_a_component_of_one_side_has_no_speedup(int4: Result, int8: Result) -> None:
    assert facts.visible_speedup("external_lm", int4, int8) is None
