"""Whole networks on tiles: equal to the digital ones without noise, pieces equal to the whole, one chip over time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwsim.errors import HwsimError
from hwsim.execute.analog import AnalogExecutable, AnalogSettings, Converter, analog_settings, input_ranges
from hwsim.execute.executor import Executable
from hwsim.execute.semantics import profile
from hwsim.execute.store import save_executable
from hwsim.extract.gru import GruLayer
from hwsim.extract.lstm import LstmLayer
from hwsim.numerics.tables import fixed_table
from hwsim.trace import Kind
from tests.execute.analog.networks import FRAMES, H, X, encoder, features
from tests.validate.networks import convolution

EXACT = analog_settings("ideal", precision="float64")
NOISY = analog_settings("rasch2023")


def assert_near(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_allclose(found[name], array, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("kind", [LstmLayer, GruLayer], ids=["lstm", "gru"])
@pytest.mark.parametrize("reverse", [False, True])
def test_ideal_tiles_are_the_float_network(kind: Any, reverse: bool) -> None:
    base = encoder(kind=kind, layers=2, reverse=reverse)
    chip = AnalogExecutable(base, EXACT)
    assert_near(chip.run(features()), base.run(features()))
    assert set(chip.tiles) == set(base.projections)
    assert chip.tile_count == len(base.projections)


@pytest.mark.parametrize("bits", [4, 8])
def test_ideal_tiles_are_the_network_of_codes(bits: int) -> None:
    """Hidden states are codes of the same grid, code for code; projections are equal to rounding."""
    base = encoder(bits=bits, layers=2)
    assert_near(AnalogExecutable(base, EXACT).run(features()), base.run(features()))


def test_ideal_tiles_and_halves() -> None:
    """Sums of halves are rounded once and not product by product: a few land on the neighbour."""
    base = encoder("fp16")
    found, wanted = AnalogExecutable(base, EXACT).run(features()), base.run(features())
    assert found[H].dtype == np.float16
    assert np.abs(found[H].astype(float) - wanted[H]).max() < 4e-3


@pytest.mark.parametrize("fmt", ["fp32", "fp16"])
@pytest.mark.parametrize("bits", [0, 4])
def test_the_compiled_loop_is_the_readable_one(fmt: str, bits: int) -> None:
    """With converters and noise: the readable path draws step by step what the loop draws."""
    chip = AnalogExecutable(encoder(fmt, bits), NOISY, 3, 3600.0)
    compiled = chip.run(features())
    chip.restart()
    readable = chip.unrounded(features(), {})
    chip.restart()
    forced = chip.run(features(), forced={H: compiled[H]})
    assert np.array_equal(forced[H], compiled[H])
    assert_near(forced, compiled)
    assert bool(readable) == bool(bits)


def test_depthwise_and_other_operations_stay_digital() -> None:
    for kind in (Kind.CONV1D, Kind.CONV2D):
        base, inputs = convolution(kind)()
        assert_near(AnalogExecutable(base, EXACT).run(inputs), base.run(inputs))


@pytest.mark.parametrize("name", ["pcm", "rasch2023"])
@pytest.mark.parametrize("bits", [0, 4])
def test_a_stream_is_the_whole(name: str, bits: int) -> None:
    chip = AnalogExecutable(encoder(bits=bits), analog_settings(name), 1, 86400.0)
    whole = chip.run(features())
    chip.restart()
    states: dict[str, Any] = {}
    rows = []
    for at, stop in ((0, 1), (1, 2), (2, 9), (9, FRAMES)):
        out = chip.run({X: features()[X][at:stop]}, states=states)
        states = chip.states_after(out, states)
        rows.append(out["encoder.out.y"])
    assert np.array_equal(np.concatenate(rows), whole["encoder.out.y"])


def test_one_chip_over_time() -> None:
    base = encoder()
    chip = AnalogExecutable(base, NOISY, (1, 2), 3600.0)
    day = chip.at(86400.0)
    fresh = AnalogExecutable(base, NOISY, (1, 2), 86400.0)
    assert day.t_s == 86400.0
    assert chip.t_s == 3600.0
    assert_near(day.run(features()), fresh.run(features()))
    assert day.tiles["encoder.layer0.wh"].devices is chip.tiles["encoder.layer0.wh"].devices
    other = AnalogExecutable(base, NOISY, (1, 3), 86400.0)
    assert not np.array_equal(other.run(features())[H], fresh.run(features())[H])


def test_noise_of_an_utterance_is_its_own() -> None:
    chip = AnalogExecutable(encoder(), NOISY, 1)
    chip.restart(5)
    first = chip.run(features())[H]
    second = chip.run(features())[H]
    chip.restart(5)
    assert np.array_equal(chip.run(features())[H], first)
    assert not np.array_equal(first, second)


def test_networks_drift_away_unless_compensated() -> None:
    base, times = encoder(layers=2), (1.0, 3600.0, 86400.0, 2592000.0)
    wanted = base.run(features())[H]

    def deviation(settings: AnalogSettings) -> list[float]:
        chip = AnalogExecutable(base, settings, 4)
        return [float(np.square(chip.at(t).run(features())[H] - wanted).mean()) for t in times]

    plain = deviation(analog_settings("pcm", drift_compensation=False))
    compensated = deviation(analog_settings("pcm"))
    assert plain[0] < plain[1] < plain[2] < plain[3]
    assert compensated[3] < plain[3] / 4


def test_what_is_saved_is_the_digital_network(tmp_path: Path) -> None:
    base = encoder(bits=4)
    save_executable(AnalogExecutable(base, NOISY, 1), tmp_path / "chip.hwsim")
    save_executable(base, tmp_path / "base.hwsim")
    assert (tmp_path / "chip.hwsim").read_bytes() == (tmp_path / "base.hwsim").read_bytes()


def test_layers_that_stay_digital() -> None:
    base = encoder(bits=4, layers=2)
    chip = AnalogExecutable(base, replace(NOISY, digital=("encoder.layer*",)), 0)
    found, wanted = chip.run(features()), base.run(features())
    assert set(chip.tiles) == {"encoder.out.weight"}
    assert np.array_equal(found["encoder.layer1.h"], wanted["encoder.layer1.h"])
    assert not np.array_equal(found["encoder.out.y"], wanted["encoder.out.y"])


def test_input_ranges() -> None:
    """Of what each product takes: the features, hidden states of every step but the last, all hidden states."""
    base = encoder()
    out, ranges = base.run(features()), input_ranges(base, features())
    wanted = {"encoder.layer0.wx": features()[X], "encoder.layer0.wh": out[H][:-1], "encoder.out.weight": out[H]}
    for name, array in wanted.items():
        assert ranges[name] == pytest.approx(np.abs(array).max(), rel=1e-6)
    half = input_ranges(base, features(), 50.0)["encoder.layer0.wx"]
    assert half == pytest.approx(np.median(np.abs(features()[X])), rel=1e-6)
    assert input_ranges(base, {X: np.zeros((FRAMES, 20))})["encoder.layer0.wx"] == 1.0
    chip = AnalogExecutable(base, replace(EXACT, dac=Converter(3)), ranges={"encoder.layer0.wx": half})
    assert chip.tiles["encoder.layer0.wx"].input_range == half
    clipped, codes = np.clip(features()[X] / half, -1, 1), 3
    wx = base.parameters()["encoder.layer0.wx"]
    np.testing.assert_allclose(
        chip.tiles["encoder.layer0.wx"](features()[X]) - chip.tiles["encoder.layer0.wx"].bias,
        half * np.round(clipped * codes) / codes @ wx,
        rtol=1e-9,
        atol=1e-12,
    )


@pytest.mark.parametrize("order", ["ifgo", "iofg"])
def test_other_tables_and_gate_orders(order: str) -> None:
    from hwsim.execute.recurrence import LstmRules

    base = encoder()
    rules = LstmRules(tanh=fixed_table("tanh", 2**-6), gate_order=order)
    other = Executable(base.trace, base.parameters(), {}, rules=rules)
    assert_near(AnalogExecutable(other, EXACT).run(features()), other.run(features()))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: AnalogExecutable(encoder(), EXACT, -1), "seed must be integers of 0 or more, got -1"),
        (lambda: AnalogExecutable(encoder(), EXACT, ()), "seed must be integers of 0 or more, got ()"),
        (lambda: AnalogExecutable(encoder(), EXACT, 0, -5.0),
         "t_s must be 0 or more seconds since programming, got -5"),
        (lambda: AnalogExecutable(encoder(), EXACT).at(float("inf")),
         "t_s must be 0 or more seconds since programming, got inf"),
        (lambda: AnalogExecutable(encoder(), EXACT, ranges={"encoder.layer0.wy": 1.0}),
         "ranges: unknown weight 'encoder.layer0.wy'; nearest: encoder.layer0.wx, encoder.layer0.wh, "
         "encoder.out.weight"),
        (lambda: AnalogExecutable(encoder(), replace(EXACT, partial_sums=False, rows=18)),
         "encoder.layer0.wx: a matrix must fit the rows of a tile (2-pcm 18, 4-pcm 9, ab 9) or be split with partial "
         "sums, got 20 rows"),
        (lambda: AnalogExecutable(encoder(), replace(EXACT, digital=("encoder.layer9",))),
         "digital: 'encoder.layer9' must match a layer, got none; nearest: encoder.layer0, encoder.out"),
        (lambda: input_ranges(encoder(), features(), 0.0), "percentile must be above 0 and at most 100, got 0"),
    ],
)  # fmt: skip
def test_refusals(call: Any, message: str) -> None:
    with pytest.raises(HwsimError) as error:
        call()
    assert str(error.value) == message


def test_the_profile_of_litert_is_refused() -> None:
    from tests.validate.networks import recurrent

    base = recurrent(eight_bit=True)[0]
    litert = Executable(base.trace, base.parameters(), base.quantizers, semantics=profile("tflite-lstm"))
    with pytest.raises(HwsimError, match="the profile tflite-lstm must run in integers, not on analog tiles"):
        AnalogExecutable(litert, EXACT)
