"""`hwsim validate --analog`: deviations of chips, layer by layer, and each mistake as one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwsim.cli.run import run
from hwsim.errors import HwsimError
from hwsim.execute.analog import AnalogExecutable, Converter, analog_settings
from hwsim.execute.store import save_executable
from hwsim.trace import Kind
from hwsim.validate.analog import compare_analog, parse_analog, settings_text
from tests.execute.analog.networks import H, encoder, features
from tests.execute.single import Network
from tests.validate.networks import noise

DAY_S = 86400.0


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("analog")
    save_executable(encoder(bits=4, layers=2), folder / "net.hwsim")
    np.savez(folder / "x.npz", **features())
    return folder / "net.hwsim", folder / "x.npz"


def test_nothing_deviates_without_noise() -> None:
    report = compare_analog(encoder(bits=4), features(), analog_settings("ideal", precision="float64"), DAY_S, chips=2)
    assert [layer.tensor for layer in report.layers] == [H, "encoder.out.y"]
    assert report.layers[0].relative_rms == (0.0, 0.0)
    assert report.layers[1].mean < 1e-12
    assert report.tiles == 3


def test_deviations_are_those_of_the_chips() -> None:
    """Chip i has the seed (seed, i); the rms is over the layer's reals."""
    base, settings = encoder(bits=4), analog_settings("rasch2023")
    report = compare_analog(base, features(), settings, DAY_S, chips=3, seed=7)
    wanted = base.dequantize(H, base.run(features())[H])
    for chip in range(3):
        found = base.dequantize(H, AnalogExecutable(base, settings, (7, chip), DAY_S).run(features())[H])
        rms = np.sqrt(np.square(found - wanted).mean() / np.square(wanted).mean())
        assert report.layers[0].relative_rms[chip] == pytest.approx(rms, rel=1e-12)
    values = report.layers[0].relative_rms
    assert report.layers[0].mean == pytest.approx(np.mean(values))
    assert report.layers[0].spread == pytest.approx(np.std(values, ddof=1))
    assert len(report.to_frame()) == 3 * len(report.layers)


def test_teacher_forced_layers_deviate_on_their_own() -> None:
    """The second layer reads what the digital network has, so that less comes to it than free running."""
    report = compare_analog(encoder(bits=8, layers=2), features(), analog_settings("pcm"), DAY_S, chips=4, mode="both")
    found = {(layer.mode, layer.tensor): layer.mean for layer in report.layers}
    assert len(found) == 6
    assert found["teacher-forced", "encoder.out.y"] < 0.8 * found["free-running", "encoder.out.y"]


def test_the_command(files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, inputs = files
    out = tmp_path / "report.json"
    words = ["validate", str(model), "--inputs", str(inputs), "--analog", "t=1d,mode=ab,bits=7,rows=16", "--chips", "3",
             "--seed", "1", "--json", str(out)]  # fmt: skip
    assert run(words) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "rasch2023, 1 d after programming: ab weights on tiles of 16 x 512, 7-bit DAC, 7-bit ADC" in text
    assert "Chips 3, seed 1, 6 tiles each" in text
    assert text.count("encoder.layer1.h") == 1
    document = json.loads(out.read_text())
    report = compare_analog(encoder(bits=4, layers=2), features(), *parse_analog("t=1d,mode=ab,bits=7,rows=16"),
                            chips=3, seed=1)  # fmt: skip
    assert document["layers"] == report.to_dict()["layers"]
    assert document["settings"]["mode"] == "ab"
    assert document["t_s"] == DAY_S
    assert set(document["model"]) == {"path", "sha256"}
    assert run([*words[:6], "--mode", "both"]) == 0
    text = capsys.readouterr().out
    assert "Teacher-forced" in text
    assert "–" in text


def test_a_digital_tensor_of_zeros_has_no_deviation() -> None:
    net = Network("joint")
    net.tensor("x", (4, 6))
    net.tensor("out", (4, 5))
    net.op(Kind.MATMUL, ["x", net.weight("weight", noise(6, 5), None)], "out", m=4, k=6, n=5)
    zero = compare_analog(net.build(), {"joint.x": np.zeros((4, 6))}, analog_settings("rasch2023"), 0.0)
    assert np.isnan(zero.layers[0].mean)
    assert zero.to_dict()["layers"][0]["mean"] is None
    assert zero.layers[0].spread is None


def test_the_words_of_the_option() -> None:
    settings, t_s = parse_analog(" t=20min, noise=pcm, dac=7, adc=none, columns=256, drop=0.5, affine=on,"
                                 "compensation=off, digital=a.*+b")  # fmt: skip
    assert t_s == 1200
    wanted = analog_settings("pcm", dac=Converter(7), columns=256, ir_drop=0.5, column_affine=True,
                             drift_compensation=False, digital=("a.*", "b"))  # fmt: skip
    assert settings == wanted
    assert parse_analog("t=1y")[1] == 365 * DAY_S
    assert parse_analog("t=1.5h")[1] == 5400
    assert settings_text(settings, t_s).endswith("7-bit DAC, ideal ADC; column affine calibration")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("noise=pcm", "--analog must hold t, the time since programming, such as t=1d, got none"),
        ("1d", "--analog must be key=value separated by commas, such as t=1d,noise=pcm, got '1d'"),
        ("t=1d,t=1h", "--analog t must be given once, got 1d and 1h"),
        ("t=1d,nosie=pcm", "--analog: unknown key 'nosie'; nearest: noise"),
        ("t=-1d", "t must be a time of 0 or more such as 1s, 20min, 1h, 30d or 1y, got '-1d'"),
        ("t=5", "t must be a time of 0 or more such as 1s, 20min, 1h, 30d or 1y, got '5'"),
        ("t=1e400y", "t must be a time of 0 or more such as 1s, 20min, 1h, 30d or 1y, got '1e400y'"),
        ("t=1d,noise=pcn", "unknown analog noise model 'pcn'; nearest: pcm"),
        ("t=1d,mode=3-pcm", "mode must be 2-pcm, 4-pcm or ab, got '3-pcm'; nearest: 4-pcm, 2-pcm"),
        ("t=1d,bits=0", "bits of a converter must be 2 to 24, or none for an ideal one, got 0"),
        ("t=1d,bits=8.5", "--analog bits must be an integer, got '8.5'"),
        ("t=1d,bits=8,adc=9", "--analog must hold bits, or dac and adc, got both"),
        ("t=1d,drop=much", "--analog drop must be a number, got 'much'"),
        ("t=1d,affine=yes", "--analog affine must be on or off, got 'yes'"),
        ("t=1d,rows=18,split=off", "encoder.layer0.wx: a matrix must fit the rows of a tile (2-pcm 18, 4-pcm 9, ab 9) "
                                   "or be split with partial sums, got 20 rows"),
        ("t=1d,rows=0", "rows of a tile must be at least 1, got 0"),
        ("t=1d,digital=joint", "digital: 'joint' must match a layer, got none; known: encoder.layer0, encoder.layer1, "
                               "encoder.out"),
    ],
)  # fmt: skip
def test_mistakes(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str], text: str, message: str) -> None:
    """One line on the error stream, exit code 2, and nothing else."""
    assert run(["validate", str(files[0]), "--inputs", str(files[1]), "--analog", text]) == 2
    assert capsys.readouterr() == ("", f"hwsim: error: {message}\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--chips", "3"], "--chips must go with --analog, got 3 alone"),
        (["--seed", "3"], "--seed must go with --analog, got 3 alone"),
        (["--analog", "t=1d", "--tier", "T1"], "--analog and --tier must not both be given, got t=1d and T1"),
        (["--analog", "t=1d", "--against", "torch"], "--analog and --against must not both be given, got t=1d and "
                                                      "torch"),
        (["--analog", "t=1d", "--chips", "0"], "--chips must be at least 1, got 0"),
        (["--analog", "t=1d", "--chips", "x"], "--chips must be an integer, got 'x'"),
        (["--analog", "t=1d", "--seed", "-1"], "--seed must be 0 or more, got -1"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert run(["validate", str(files[0]), "--inputs", str(files[1]), *words]) == 2
    assert capsys.readouterr() == ("", f"hwsim: error: {message}\n")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chips": 0}, "chips must be at least 1, got 0"),
        ({"mode": "forced"}, "mode must be one of free-running, teacher-forced, both, got 'forced'"),
    ],
)
def test_arguments_that_are_wrong(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(HwsimError) as error:
        compare_analog(encoder(), features(), analog_settings("pcm"), 0.0, **changes)
    assert str(error.value) == message
