"""A request becomes points in a fixed order, each once, and a wrong request is refused in one line."""

from __future__ import annotations

from typing import Any

import pytest

from hwsim.errors import HwsimError
from hwsim.sweep import SweepPoint, SweepRequest, points


def short(point: SweepPoint) -> tuple[Any, ...]:
    return (point.decoder, point.lm, point.precision, point.beam)


def test_order_is_machine_setting_search_precision_beam() -> None:
    request = SweepRequest(
        archs=("rapid_4core", "edge_npu"),
        workload="rnnt_swb300",
        precisions=("int4", "fp16"),
        beams=(4, 2),
        lms=("none",),
        settings={"dram.efficiency": ("0.5", "0.9"), "dram.latency_s": ("1e-7",)},
    )
    found = points(request)
    assert [p.arch for p in found] == ["rapid_4core"] * 8 + ["edge_npu"] * 8
    slow, fast = ((("dram.efficiency", value), ("dram.latency_s", "1e-7")) for value in ("0.5", "0.9"))
    assert [p.settings for p in found] == ([slow] * 4 + [fast] * 4) * 2
    one = [("alsd", "none", "int4", 4), ("alsd", "none", "int4", 2), ("alsd", "none", "fp16", 4),
           ("alsd", "none", "fp16", 2)]  # fmt: skip
    assert [short(p) for p in found] == one * 4


def test_defaults_are_those_of_the_workload() -> None:
    swb = SweepPoint("rapid_4core", (), "rnnt_swb300", "int4", "alsd", 16, "density-ratio", 152)
    assert points(SweepRequest(archs=("rapid_4core",), workload="rnnt_swb300")) == [swb]
    (mlperf,) = points(SweepRequest(archs=("rapid_4core",), workload="rnnt_mlperf"))
    assert mlperf.lm == "none"


def test_greedy_has_a_beam_of_one_and_stands_once() -> None:
    request = SweepRequest(
        archs=("rapid_4core",), workload="rnnt_swb300", decoders=("greedy", "alsd"), beams=(2, 4), lms=("none",)
    )
    assert [short(p) for p in points(request)] == [
        ("greedy", "none", "int4", 1),
        ("alsd", "none", "int4", 2),
        ("alsd", "none", "int4", 4),
    ]


def test_a_value_given_twice_is_one_point() -> None:
    request = SweepRequest(
        archs=("rapid_4core", "rapid_4core"),
        workload="rnnt_swb300",
        precisions=("int4", "int4"),
        beams=(2, 4, 2),
        settings={"cores": ("4", "4")},
    )
    assert [p.beam for p in points(request)] == [2, 4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"archs": ()}, "archs must have at least one value, got none"),
        ({"precisions": ()}, "precisions must have at least one value, got none"),
        ({"beams": ()}, "beams must have at least one value, got none"),
        ({"lms": ()}, "lms must have at least one value, got none"),
        ({"decoders": ()}, "decoders must have at least one value, got none"),
        ({"settings": {"cores": ()}}, "--set cores must have at least one value, got none"),
        ({"archs": "rapid_4core"}, "archs must be a list of values, got 'rapid_4core'"),
        ({"beams": (4, 0)}, "beam must be at least 1, got 0"),
        ({"beams": (2.5,)}, "beam must be an integer, got 2.5"),
        ({"frames": 0}, "frames must be at least 1, got 0"),
        ({"engine": "fats"}, "engine must be fast or event, got 'fats'; nearest: fast"),
    ],
)
def test_a_wrong_request_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(HwsimError) as raised:
        SweepRequest(**({"archs": ("rapid_4core",), "workload": "rnnt_swb300"} | change))
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"workload": "rnnt_swb30"}, "unknown workload 'rnnt_swb30'; nearest: rnnt_swb300, tdnnf_swbd, rnnt_gq"),
        ({"decoders": ("alds",)}, "algorithm must be greedy, alsd, tsd or maes, got 'alds'; nearest: alsd, maes"),
        ({"lms": ("shalow",)}, "lm must be none, shallow or density-ratio, got 'shalow'; nearest: shallow"),
        (
            {"workload": "rnnt_mlperf", "lms": ("shallow",)},
            "lm shallow must have external_lm in workload rnnt_mlperf, got no language model",
        ),
    ],
)
def test_an_unknown_search_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(HwsimError) as raised:
        points(SweepRequest(**({"archs": ("rapid_4core",), "workload": "rnnt_swb300"} | change)))
    assert str(raised.value) == message
