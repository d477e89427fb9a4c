"""Products on tiles: time, energy, partial tiles, partial sums; and where the matrices of a network lie."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.arch import Architecture, load_arch
from hwsim.arch.analog import AnalogTiles
from hwsim.cost.analog import (
    TileBlock,
    in_cycles,
    mvm_s,
    mvm_steps,
    output_steps,
    programming_pj,
    programming_s,
    tile_energy_pj,
    transport_energy_pj,
)
from hwsim.cost.mapping import AnalogMapping, place
from hwsim.cost.tiles import mvm_energy_pj
from hwsim.errors import CapacityError, HwsimError
from hwsim.extract import load_workload
from hwsim.numerics import load_policy
from hwsim.trace import Role, Trace, TraceBuilder
from tests.engine.machines import changed

CHIP, FIVE, HERMES, HYBRID = "analog_14nm_34tile", "analog_14nm_5chip", "hermes_64core", "hybrid_analog_digital"


def analog(name: str, **settings: str) -> AnalogTiles:
    found = load_arch(name, {path.replace("__", "."): text for path, text in settings.items()}).analog
    assert found is not None
    return found


def block(tiles: AnalogTiles, mode: str, rows: int, columns: int) -> TileBlock:
    return TileBlock(rows, columns, tiles.modes[mode])


def net(*sizes: tuple[int, int], rows: int = 1) -> Trace:
    """A chain of products with matrices `net.0`, `net.1`, ... of these sizes."""
    b = TraceBuilder("net")
    for index, (k, n) in enumerate(sizes):
        layer = f"net.{index}"
        x = b.tensor(f"{layer}.x", Role.ACTIVATION, (rows, k))
        w = b.tensor(f"{layer}.weight", Role.WEIGHT, (k, n))
        b.matmul(layer, [x], w, b.tensor(f"{layer}.out", Role.STATE, (rows, n)), m=rows)
    return b.build().with_precision(load_policy("int4"))


def ruled(rules: dict[str, Any], chips: int = 1) -> Architecture:
    """Chips with these rules of placement."""
    content = load_arch(CHIP, {"analog.chips": str(chips)}).model_dump()
    content["analog"]["placement"]["rules"] = rules
    return Architecture.model_validate(content)


def placed(arch: Architecture, trace: Trace) -> AnalogMapping:
    found = place(arch, trace)
    assert found is not None
    return found


def test_an_encoder_layer_takes_7_steps_and_a_decoder_layer_5() -> None:
    """Ambrogio et al., Nature 620: 2.1 us and 1.5 us."""
    chip = analog(CHIP)
    encoder, decoder = block(chip, "asymmetry_balance", 1024, 4096), block(chip, "asymmetry_balance", 320, 1280)
    assert (mvm_steps(chip, encoder), mvm_steps(chip, decoder)) == (7, 5)
    assert mvm_s(chip, encoder) == pytest.approx(2.1e-6)
    assert mvm_s(chip, decoder) == pytest.approx(1.5e-6)
    assert mvm_s(chip, block(chip, "two_pcm", 1024, 4096)) == pytest.approx(2.1e-6)


@pytest.mark.parametrize(("mode", "time_ns"), [("one_phase", 133), ("four_phase", 520)])
def test_hermes_takes_its_published_times(mode: str, time_ns: float) -> None:
    """Le Gallo et al., Nature Electronics 2023, without transport."""
    cores = analog(HERMES, analog__mesh__latency_s="0")
    assert mvm_s(cores, block(cores, mode, 256, 256)) == pytest.approx(time_ns * 1e-9)


def test_shared_converters_serve_their_columns_one_after_another() -> None:
    fast = analog("analog_projected", analog__mesh__latency_s="0")
    one = block(fast, "four_pcm", 512, 512)
    assert output_steps(fast, 512) == 8
    assert mvm_s(fast, one) == pytest.approx(40e-9)
    tops_per_w = 2 * 512 * 512 / tile_energy_pj(fast, one)
    assert tops_per_w == pytest.approx(100, rel=0.01)


@pytest.mark.parametrize(
    ("mode", "rows", "columns", "row_tiles", "column_tiles", "used"),
    [
        ("asymmetry_balance", 960, 4096, 2, 8, 0.9375),
        ("two_pcm", 2048, 4096, 2, 8, 1.0),
        ("two_pcm", 1024, 512, 1, 1, 1.0),
        ("asymmetry_balance", 252, 1280, 1, 3, 252 * 1280 / (3 * 512 * 512)),
        ("two_pcm", 1025, 513, 2, 2, 1025 * 513 / (4 * 1024 * 512)),
    ],
)
def test_a_matrix_takes_whole_tiles(
    mode: str, rows: int, columns: int, row_tiles: int, column_tiles: int, used: float
) -> None:
    found = block(analog(CHIP), mode, rows, columns)
    assert (found.row_tiles, found.column_tiles) == (row_tiles, column_tiles)
    assert found.tiles == row_tiles * column_tiles
    assert found.utilization == pytest.approx(used)


def test_only_used_columns_take_energy_and_rows_do_not_count() -> None:
    chip = analog(CHIP)
    full, half, low = (block(chip, "two_pcm", rows, columns) for rows, columns in ((1024, 512), (1024, 256), (1, 512)))
    assert tile_energy_pj(chip, full) == 2 * tile_energy_pj(chip, half) == tile_energy_pj(chip, low)
    assert tile_energy_pj(chip, full) == pytest.approx(4 * 512 * chip.column_energy_pj.value)


def test_digital_partial_sums_convert_every_tile_and_add() -> None:
    """Two tiles along the rows: twice the conversions, twice the values, one addition of each output."""
    digital = analog(HERMES)
    summed = analog(HERMES, analog__partial_sums="analog")
    tall = block(digital, "one_phase", 512, 256)
    assert tall.row_tiles == 2
    extra_pj = tile_energy_pj(digital, tall) - tile_energy_pj(summed, tall)
    assert extra_pj == pytest.approx(256 * digital.converter.energy_pj.value)
    moved_pj = transport_energy_pj(digital, tall) - transport_energy_pj(summed, tall)
    added_pj = 256 * digital.periphery.add_energy_pj.value
    assert moved_pj == pytest.approx(256 * digital.mesh.energy_pj_per_value.value + added_pj)
    flat = block(digital, "one_phase", 256, 256)
    assert tile_energy_pj(digital, flat) == tile_energy_pj(summed, flat)
    assert transport_energy_pj(digital, flat) == transport_energy_pj(summed, flat)


def test_writing_goes_row_by_row_in_all_tiles_at_once() -> None:
    hybrid = analog(HYBRID)
    assert programming_s(hybrid, block(hybrid, "two_pcm", 2048, 4096)) == pytest.approx(1024 * 20e-6)
    assert programming_s(hybrid, block(hybrid, "two_pcm", 7, 4096)) == pytest.approx(7 * 20e-6)
    assert programming_pj(hybrid, block(hybrid, "two_pcm", 7, 10)) == pytest.approx(7 * 10 * 2 * 200)


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from(("two_pcm", "four_pcm", "asymmetry_balance")))
def test_a_larger_matrix_is_never_cheaper(rows: int, columns: int, mode: str) -> None:
    chip = analog(CHIP)
    one, more = block(chip, mode, rows, columns), block(chip, mode, rows + 1, columns + 1)
    for cost in (mvm_s, tile_energy_pj, transport_energy_pj):
        assert 0 < cost(chip, one) <= cost(chip, more)
    assert one.tiles <= more.tiles
    assert 0 < one.utilization <= 1


@pytest.mark.parametrize(
    ("seconds", "cycles"), [(2.1e-6, 2100), (300e-9, 300), (0.0, 0), (1e-10, 1), (1.0000001e-6, 1001)]
)
def test_times_become_whole_cycles(seconds: float, cycles: int) -> None:
    assert in_cycles(seconds, 1e9) == cycles


def test_the_published_mapping() -> None:
    """Ambrogio et al., Nature 620: 142 tiles, 45,261,568 weights, 141,078,528 devices; each chip with its matrices."""
    mapping = placed(load_arch(FIVE), load_workload("rnnt_mlperf").networks)
    assert mapping.used == (32, 32, 32, 33, 13)
    assert (mapping.tiles, mapping.weights, mapping.devices) == (142, 45_261_568, 141_078_528)
    assert [name for name, _, _ in mapping.digital] == ["joint.output.weight"]
    weights = [sum(matrix.weights for matrix in mapping.on_chip(chip)) for chip in range(5)]
    assert weights == [5_177_344, 8_388_608, 12_582_912, 17_301_504, 1_811_200]
    decoder = {m.name: (m.copies, m.inputs, m.block.columns, m.block.tiles) for m in mapping.on_chip(4)}
    assert decoder["prediction.layer0.wx"] == (9, 28, 1280, 3)
    assert sum(mapping.share(matrix) for matrix in mapping.matrices) == pytest.approx(5)


def test_a_network_that_finds_no_tiles_is_refused_with_what_is_missing() -> None:
    trace = net((1024, 512 * 30), (1024, 512 * 3), (1024, 512 * 4))
    with pytest.raises(CapacityError) as raised:
        place(load_arch(CHIP), trace)
    assert str(raised.value) == (
        "net does not fit analog_14nm_34tile: its matrices need 37 tiles, the machine has 34, and 4 are missing for"
        " net.2.weight; it would fit with analog.chips of 2, or run with analog.placement.overflow of digital"
    )


def test_a_chip_that_is_full_is_not_the_machine() -> None:
    rule = {"weights": "*", "mode": "two_pcm", "chip": {"value": 2, "source": "s"}}
    arch = ruled({"r": rule}, chips=2)
    with pytest.raises(CapacityError) as raised:
        place(arch, net((1024, 512 * 30), (1024, 512 * 6)))
    assert str(raised.value) == (
        "net does not fit analog_14nm_34tile: its matrices need 36 tiles, the machine has 68, and 6 are missing for"
        " net.1.weight; it would fit with the chip of its placement rule left out, or run with"
        " analog.placement.overflow of digital"
    )


def test_the_advice_of_the_refusal_is_right() -> None:
    trace = net((1024, 512 * 30), (1024, 512 * 3), (1024, 512 * 4))
    assert placed(load_arch(CHIP, {"analog.chips": "2"}), trace).used == (33, 4)
    stays = placed(load_arch(CHIP, {"analog.placement.overflow": "digital"}), trace)
    assert stays.digital == (("net.2.weight", 1024 * 512 * 4, "no tile left"),)


def test_a_matrix_larger_than_the_room_of_a_chip_lies_on_several() -> None:
    mapping = placed(load_arch(CHIP, {"analog.chips": "3"}), net((1024, 512 * 20), (1024, 512 * 50)))
    assert mapping.matrices[1].chips == ((0, 14), (1, 34), (2, 2))
    assert mapping.used == (34, 34, 2)
    assert mapping.share(mapping.matrices[1]) == pytest.approx(14 / 34 + 1 + 1)


def reprogrammed(chips: int, *sizes: tuple[int, int]) -> AnalogMapping:
    changes: dict[str, Any] = {
        "analog.chips": chips, "analog.placement.overflow": "reprogram", "analog.placement.default_mode": "two_pcm",
    }  # fmt: skip
    return placed(changed(HYBRID, changes), net(*sizes))


def test_matrices_that_find_no_tile_share_some() -> None:
    """As many of the first stay as leave room for the largest of the others."""
    mapping = reprogrammed(1, (1024, 512 * 20), (1024, 512 * 8), (1024, 512 * 10), (1024, 512 * 14))
    assert [matrix.shared for matrix in mapping.matrices] == [False, True, True, True]
    assert mapping.used == (34,)
    assert mapping.devices == (20 + 14) * 512 * 2048
    assert mapping.utilization == 1


def test_a_matrix_that_is_larger_than_the_machine_cannot_be_programmed() -> None:
    with pytest.raises(CapacityError) as raised:
        reprogrammed(1, (1024, 512 * 40), (8, 8))
    assert str(raised.value) == (
        "net does not fit hybrid_analog_digital: net.0.weight alone needs 40 tiles in mode two_pcm, the machine has 34;"
        " it would fit with analog.chips of 2"
    )


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (
            {"weights": "net.*", "mode": "two_pcm", "expanded_rows": {"value": 5, "source": "s"}},
            "analog.placement.rules.r.expanded_rows must be at least 16, the inputs of net.0.weight, got 5",
        ),
        (
            {"weights": "net.*", "mode": "two_pcm", "folds": "net.table"},
            "analog.placement.rules.r.folds must be the name of a table of 16 columns, got 'net.table' in net",
        ),
    ],
)
def test_a_rule_that_does_not_suit_a_network_is_refused(rule: dict[str, Any], said: str) -> None:
    with pytest.raises(HwsimError) as raised:
        place(ruled({"r": rule}), net((16, 8)))
    assert str(raised.value) == said


def test_a_later_rule_overrides_an_earlier_one() -> None:
    rules = {"all": {"weights": "*", "mode": "four_pcm"}, "first": {"weights": "net.0.*"}}
    mapping = placed(ruled(rules), net((16, 8), (16, 8)))
    assert [matrix.mode for matrix in mapping.matrices] == ["four_pcm"]
    assert mapping.digital == (("net.0.weight", 128, "placement"),)


def test_the_power_of_a_chip_is_shared_by_tiles() -> None:
    """A chip that does nothing but one product of each of its matrices takes its power once."""
    arch = load_arch(CHIP)
    assert arch.analog is not None
    mapping = placed(arch, net((1024, 512 * 3), (1024, 512 * 3)))
    blocks = [matrix.block for matrix in mapping.matrices]
    own = sum(tile_energy_pj(arch.analog, b) + transport_energy_pj(arch.analog, b) for b in blocks)
    total = sum(mvm_energy_pj(arch, mapping, matrix) for matrix in mapping.matrices)
    assert total - own == pytest.approx(arch.analog.chip_power_w.value * mvm_s(arch.analog, blocks[0]) * 1e12)
    assert placed(load_arch(CHIP), net((8, 8))).share(placed(arch, net((8, 8))).matrices[0]) == 1


def test_a_machine_without_tiles_has_no_mapping() -> None:
    assert place(load_arch("rapid_4core"), net((8, 8))) is None
