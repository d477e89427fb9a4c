"""What reports say of analog tiles, and that they say nothing of them where there are none."""

from __future__ import annotations

from functools import cache

import pytest
from rich.console import Console, RenderableType

from hwsim.arch import load_arch
from hwsim.cost.mapping import place
from hwsim.extract import load_workload
from hwsim.report import facts
from hwsim.report.analog import describe_tiles, mapping_report, tiles_text
from hwsim.report.tables import result_report
from hwsim.reproduce.analog_conditions import expanded, machine
from hwsim.simulation import Result, simulate
from tests.engine.machines import changed

FRAMES = 11


@cache
def result(arch: str) -> Result:
    return simulate(arch, "rnnt_mlperf", frames=FRAMES)


def text(shown: RenderableType) -> str:
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(shown)
    return capture.get()


def test_the_tiles_of_a_run_are_one_paragraph() -> None:
    assert tiles_text(result("analog_14nm_5chip")) == (
        "142 of 170 tiles on 5 chips, 96.1 % of their weights used; 45,261,568 weights in 141,078,528 devices;"
        " 1 matrix on the arrays; layers work side by side, frame by frame, and the search beside them"
    )
    assert tiles_text(result("rapid_1core")) is None


def test_shared_tiles_say_how_often_they_are_written_and_how_long_they_last() -> None:
    arch = changed("hybrid_analog_digital", {"analog.chips": 1, "analog.placement.overflow": "reprogram"})
    said = tiles_text(simulate(arch, "rnnt_mlperf", frames=FRAMES))
    assert said is not None
    assert said.endswith("; shared tiles written 10 times, which their devices endure for 10,000,000 utterances")


def test_the_report_counts_weights_on_tiles_apart_from_bits() -> None:
    report = text(result_report(result("analog_14nm_5chip")))
    assert "on tiles" in report
    assert "analog tiles" in report
    assert "of what is not on tiles; " in " ".join(report.split())
    assert "99.95 % on tiles, 0.0" in " ".join(report.split())
    assert max(map(len, report.splitlines())) <= 100
    assert "on tiles" not in text(result_report(result("rapid_1core")))


def test_products_on_tiles_have_no_number_format() -> None:
    five = result("analog_14nm_5chip")
    (use,) = facts.formats_in_use(five)
    macs = sum(part.macs for part in five.components.values())
    assert 0 < use.macs < 0.001 * macs
    homes = {home.component: home for home in facts.weight_homes(five)}
    assert homes["encoder"].digital_parameters == 5 * 2 * 4096
    assert homes["prediction"].reads == 0


def test_the_description_of_a_machine_has_its_tiles() -> None:
    said = describe_tiles(load_arch("analog_14nm_34tile"))
    assert said is not None
    assert said.startswith("1 chip of 34 tiles; two_pcm 1024 × 512 in a tile, 17.8 M weights, 1.50 µs a product, 23.8 ")
    assert said.endswith("; without room: refuse")
    assert describe_tiles(load_arch("rapid_1core")) is None


@pytest.mark.parametrize(("wide", "shown"), [(False, "4 × 240 × 4096"), (True, "240 → 1024 × 4096")])
def test_copies_and_expanded_inputs_are_told_apart(wide: bool, shown: str) -> None:
    arch = expanded(machine()) if wide else machine()
    mapping = place(arch, load_workload("rnnt_mlperf").networks)
    assert mapping is not None
    report = text(mapping_report(arch, "rnnt_mlperf", mapping))
    assert shown in report
    assert "prediction.layer0.wx + table" in report
