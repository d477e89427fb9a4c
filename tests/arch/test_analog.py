"""The block of analog tiles: what a file must not say, and what follows from what it says."""

from __future__ import annotations

import pytest

from hwsim.arch import load_arch
from hwsim.arch.analog import AnalogTiles
from hwsim.errors import HwsimError
from tests.arch.conftest import WriteFile

ONE_CHIP = "analog_14nm_34tile"


def tiles(name: str) -> AnalogTiles:
    analog = load_arch(name).analog
    assert analog is not None
    return analog


def message(path: object) -> str:
    with pytest.raises(HwsimError) as raised:
        load_arch(path)  # type: ignore[arg-type]
    return str(raised.value)


def test_a_time_step_of_the_published_chip_is_300_ns() -> None:
    """Ambrogio et al., Nature 620: pulses of up to 255 ns in a step of 300 ns."""
    assert tiles(ONE_CHIP).encoding.integration_s == pytest.approx(300e-9)


def test_the_published_chip_holds_17825792_weights() -> None:
    analog = tiles(ONE_CHIP)
    mode = analog.modes["two_pcm"]
    assert analog.tiles * mode.rows.value * mode.columns.value == 17_825_792
    for mode in analog.modes.values():
        held = mode.devices_per_weight.value * mode.rows.value * mode.columns.value
        assert held == analog.devices_per_tile.value == 512 * 2048


def test_serial_bits_take_one_unit_each() -> None:
    assert tiles("analog_projected").encoding.integration_s == pytest.approx(8 * 4e-9)


def test_the_same_constants_hold_for_one_chip_and_for_five() -> None:
    """The five-chip file changes how many chips there are and what lies on them, and no number of a tile."""
    one, five = tiles(ONE_CHIP), tiles("analog_14nm_5chip")
    apart = {"chips", "placement"}
    assert one.model_dump(exclude=apart) == five.model_dump(exclude=apart)
    hybrid = tiles("hybrid_analog_digital")
    assert one.model_dump(exclude=apart | {"programming"}) == hybrid.model_dump(exclude=apart | {"programming"})


def test_a_digital_machine_has_no_tiles_and_keeps_its_digest() -> None:
    """The digest that results of before the block carry."""
    rapid = load_arch("rapid_4core")
    assert rapid.analog is None
    assert rapid.digest[:12] == "00f41c549a04"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ("converter: {bits: {value: 0, source: s}}", "5: analog.converter.bits must be greater than 0, got 0"),
        ("tiles_per_chip: {value: 0, source: s}", "5: analog.tiles_per_chip must be greater than 0, got 0"),
        (
            "converter: {columns: {value: 8, source: s}}",
            "5: analog.converter.columns must be left out when kind is none, got 8",
        ),
        ("converter: {kind: shared}", "analog.converter.columns must be given when kind is shared, got nothing"),
        (
            "modes: {two_pcm: {rows: {value: 2048, source: s}}}",
            "5: analog.modes.two_pcm must be such that devices_per_weight x rows x columns is at most 1048576,"
            " got 2097152",
        ),
        (
            "encoding: {kind: pulses}",
            "5: analog.encoding.kind must be one of 'pulse_width' or 'bit_serial', got 'pulses'",
        ),
        (
            "placement: {default_mode: three_pcm}",
            "5: analog.placement.default_mode must be one of 'two_pcm', 'four_pcm', 'asymmetry_balance',"
            " got 'three_pcm'",
        ),
        (
            "placement: {rules: {a: {weights: '*', mode: one}}}",
            "5: analog.placement.rules.a.mode must be one of 'two_pcm', 'four_pcm', 'asymmetry_balance', got 'one'",
        ),
        (
            "placement: {rules: {a: {weights: '*', chip: {value: 2, source: s}}}}",
            "5: analog.placement.rules.a.chip must be at most 1, the chips, got 2",
        ),
        (
            "placement: {rules: {a: {weights: '*', source: s, copies: 2, expanded_rows: 1024}}}",
            "5: analog.placement.rules.a.copies must be left out when expanded_rows is given, got 2",
        ),
        (
            "placement: {overflow: reprogram}",
            "analog.programming must be given when overflow is reprogram, got nothing",
        ),
        (
            "placement: {overflow: guess}",
            "5: analog.placement.overflow must be one of 'refuse', 'digital' or 'reprogram', got 'guess'",
        ),
        ("row_s: 1", "5: analog.row_s must be a known key, got 'row_s'"),
        ("chips: 2", "5: analog.chips must be a number with a source or an assumption, got 2"),
    ],
)
def test_what_a_file_must_not_say(change: WriteFile, changes: str, said: str) -> None:
    assert said in message(change(f"analog:\n  {changes}", ONE_CHIP))


def test_a_number_of_a_rule_can_be_set() -> None:
    path = "analog.placement.rules.encoder_layer0_wx.copies"
    analog = load_arch("analog_14nm_5chip", {path: "2"}).analog
    assert analog is not None
    copies = analog.placement.rules["encoder_layer0_wx"].copies
    assert copies is not None
    assert copies.value == 2
    assert copies.assumption
