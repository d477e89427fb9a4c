"""Totals of a trace, precisions over one trace, and the invariants that are checked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hwsim.errors import HwsimError
from hwsim.numerics import load_policy
from hwsim.numerics.formats import NumberFormat
from hwsim.numerics.policy import LayerPrecision, PartialPrecision, PrecisionPolicy
from hwsim.trace import Totals, Trace
from tests.trace.examples import LISTS, equal, small_trace


@pytest.fixture(scope="module")
def trace() -> Trace:
    return small_trace()


def test_components_are_named_by_their_layers_in_the_order_of_their_operations(trace: Trace) -> None:
    assert trace.components == ("encoder", "prediction", "joint")
    assert trace.component.tolist() == [0] * 10 + [1] * 6 + [2]


def test_macs_are_the_product_of_the_sizes_of_what_multiplies(trace: Trace) -> None:
    product, convolution, recurrent = 3 * 16 * 20, 3 * 6 * 2 * 2, 10 * 10
    assert trace.macs.tolist() == [product, convolution] + 8 * [recurrent] + 7 * [0]


def test_totals_in_fp32_by_hand(trace: Trace) -> None:
    encoder = 16 * 20 + 20 + 3 * 2 * 4 + 2 * 100
    macs = 960 + 72 + 800
    assert trace.totals("encoder") == Totals(10, macs, encoder, 32 * encoder)
    assert trace.totals("prediction") == Totals(6, 0, 100, 3200)
    assert trace.totals("joint") == Totals(1, 0, 0, 0)
    assert trace.totals("nothing") == Totals(0, 0, 0, 0)
    assert trace.totals() == Totals(17, macs, encoder + 100, 32 * (encoder + 100))
    assert trace.totals("joint").bits_per_parameter == 0.0


def test_totals_in_int4_count_every_scale_and_the_higher_precision_of_the_rest(trace: Trace) -> None:
    int4 = trace.with_precision(load_policy("int4"))
    scale = 32
    encoder = (320 * 4 + scale) + 20 * 32 + (24 * 4 + scale) + 2 * (100 * 4 + scale)
    assert int4.totals("encoder").weight_bits == encoder
    assert int4.totals("prediction").weight_bits == 100 * 16
    assert int4.totals().weight_bits == encoder + 1600
    assert int4.totals().parameters == trace.totals().parameters
    assert int4.totals("prediction").bits_per_parameter == 16.0


def test_a_role_takes_its_own_field_of_the_policy(trace: Trace) -> None:
    formats = {t.name: t.format for t in trace.with_precision(_policy()).tensors}
    assert formats["encoder.layer0.w"] == "int2/channel"
    assert formats["encoder.layer0.b"] == "fp32"
    assert formats["encoder.layer0.h"] == "int8"
    assert formats["encoder.layer1.c0"] == "bf16"
    assert formats["encoder.conv.w"] == "fp16"


def _policy(glob: str = "encoder.conv", **options: Any) -> PrecisionPolicy:
    fields = {"weights": "int2/channel", "activations": "int8", "state": "bf16", "bias": "fp32"}
    default = LayerPrecision(**{name: NumberFormat.parse(text) for name, text in fields.items()})
    return PrecisionPolicy("mine", ((glob, PartialPrecision(weights=NumberFormat("fp16"), **options)),), default)


def test_precisions_share_the_arrays_and_what_was_computed_from_them(trace: Trace) -> None:
    before = [t.format for t in trace.tensors]
    int8 = trace.with_precision(load_policy("int8"))
    assert all(getattr(int8, name) is getattr(trace, name) for name in LISTS)
    assert int8.columns is trace.columns
    assert int8.structure is trace.structure
    assert set(int8.input_formats) == {"int8"}
    assert len(int8.input_formats) == len(trace.layers)
    assert int8.meta == {**trace.meta, "precision": "int8"}
    assert [t.format for t in trace.tensors] == before
    again = int8.with_precision(load_policy("int4"))
    assert again.tensors == trace.with_precision(load_policy("int4")).tensors


def test_a_glob_that_matches_no_layer_is_refused_unless_it_is_optional(trace: Trace) -> None:
    said = "policy mine: 'decoder.*' must match a layer, got none of 6"
    with pytest.raises(HwsimError) as raised:
        trace.with_precision(_policy("decoder.*"))
    assert str(raised.value) == said
    assert trace.with_precision(_policy("decoder.*", optional=True)).meta["precision"] == "mine"


def test_columns_are_attributes_and_nothing_else_is(trace: Trace) -> None:
    assert trace.kind is trace.columns["kind"]
    with pytest.raises(AttributeError, match="kinds"):
        _ = trace.kinds


def _columns(trace: Trace, name: str, at: int, value: int) -> Trace:
    changed = trace.columns[name].copy()
    changed[at] = value
    return replace(trace, columns={**trace.columns, name: changed})


def _listed(trace: Trace, name: str, at: int, value: int) -> Trace:
    changed = getattr(trace, name).copy()
    changed[at] = value
    return replace(trace, **{name: changed})


def _cut(trace: Trace, name: str) -> Trace:
    return replace(trace, **{name: getattr(trace, name)[:-1]})


RANGES = "trace: the {} list must have one range per operation"
BROKEN = [
    ("column", lambda t: replace(t, columns={**t.columns, "m": t.columns["m"][:-1]}),
     "trace: every column must have one entry per operation"),
    ("no column", lambda t: replace(t, columns={n: c for n, c in t.columns.items() if n != "branch"}),
     "trace: every column must have one entry per operation"),
    ("input formats", lambda t: replace(t, input_formats=("int4",)),
     "trace: input formats must be given for every layer or for none"),
    ("dep_ptr", lambda t: _listed(t, "dep_ptr", 0, 1), RANGES.format("dependency")),
    ("dep_ptr down", lambda t: _listed(t, "dep_ptr", 1, 9), RANGES.format("dependency")),
    ("dep_ptr short", lambda t: _cut(t, "dep_ptr"), RANGES.format("dependency")),
    ("dep short", lambda t: _cut(t, "dep"), RANGES.format("dependency")),
    ("operand_ptr", lambda t: _cut(t, "operand_ptr"), RANGES.format("operand")),
    ("operand", lambda t: _cut(t, "operand_tensor"), RANGES.format("operand")),
    ("elements", lambda t: _cut(t, "operand_elements"), RANGES.format("operand")),
    ("write", lambda t: _cut(t, "operand_write"), RANGES.format("operand")),
    ("later", lambda t: _listed(t, "dep", 0, 1), "trace: operation 1 must depend on earlier operations only"),
    ("negative", lambda t: _listed(t, "dep", 0, -1), "trace: operation 1 must depend on earlier operations only"),
    ("tensor", lambda t: _listed(t, "operand_tensor", 0, 99), "trace: operation 0 must use tensors of the trace"),
    ("layer", lambda t: _columns(t, "layer", 2, 7), "trace: operation 2 must belong to a layer"),
    ("kind", lambda t: _columns(t, "kind", 3, 99), "trace: operation 3 must have a known kind"),
    ("function", lambda t: _columns(t, "function", 3, 99), "trace: operation 3 must have a known function"),
    ("rows", lambda t: _columns(t, "m", 4, -1), "trace: operation 4 must have sizes >= 0"),
    ("batch", lambda t: _columns(t, "batch", 1, 0), "trace: operation 1 must have sizes >= 0"),
    ("weight", lambda t: _columns(t, "n", 0, 21), "trace: operation 0 must read a weight of its own k x n"),
    ("groups", lambda t: _columns(t, "batch", 1, 3), "trace: operation 1 must read a weight of its own k x n"),
    ("elements negative", lambda t: _listed(t, "operand_elements", 0, -1),
     "trace: operation 0 must touch 0 elements or more"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "broken", "said"), BROKEN, ids=[what for what, _, _ in BROKEN])
def test_a_broken_invariant_is_refused(trace: Trace, what: str, broken: Any, said: str) -> None:
    with pytest.raises(HwsimError) as raised:
        broken(trace).validate()
    assert str(raised.value) == said


def test_a_trace_that_keeps_its_invariants_passes(trace: Trace) -> None:
    trace.validate()
    assert equal(trace, replace(trace))
    assert np.all(np.diff(trace.operand_ptr) >= 2)
