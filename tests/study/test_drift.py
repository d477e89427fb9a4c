"""Studies of drift: rows that do not depend on how the work was cut, killed ones go on, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch")
pytest.importorskip("jiwer")

from hwsim import catalogue
from hwsim.errors import HwsimError
from hwsim.recognize import load_recognizer
from hwsim.recognize.analog import AnalogRecognizer, analog_recognizer
from hwsim.study.drift import Condition, DriftRequest, run_drift
from hwsim.study.drift.table import over_chips
from hwsim.study.drift.work import GREEDY, chunks_of, key_of, programmed, tile_layers
from hwsim.study.work import split_of

DIGITS = catalogue.data_folder("workloads") / "digits"
HOUR = 3600.0


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found: Path = tmp_path_factory.mktemp("drift")
    return found


def request(root: Path, **changes: object) -> DriftRequest:
    asked: dict[str, object] = {
        "workload": "digits", "arch": "hermes_64core", "digital_arch": "edge_npu", "analog": ("fp16", "analog"),
        "digital": "int4", "chips": 2, "times_s": (1.0, HOUR), "utterances": 2, "data": DIGITS, "recognizers": DIGITS,
    }  # fmt: skip
    return DriftRequest(**{**asked, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def frame(root: Path) -> pd.DataFrame:
    found: pd.DataFrame = run_drift(request(root), root / "out", jobs=1)
    return found


def test_conditions(root: Path) -> None:
    asked = request(root)
    found = asked.conditions
    assert found[:3] == [Condition("fp16"), Condition("analog"), Condition("int4")]
    assert len(found) == len(set(found)) == 3 + 2 * 2 * 2 * 2
    assert [each.training for each in found[:3]] == ["float", "noise-aware", "int4"]
    assert len(request(root, analog=("int4",)).conditions) == 1 + 8


def test_the_table(root: Path, frame: pd.DataFrame) -> None:
    asked = request(root)
    assert len(frame) == len(asked.conditions)
    assert frame.equals(pd.read_csv(root / "out" / "drift.csv", dtype={"chip": "Int64", "compensated": "boolean",
                                                                        "seed": "Int64"}))  # fmt: skip
    assert np.allclose(frame["wer"], frame["errors"] / frame["words"])
    assert frame["words"].nunique() == 1
    assert (frame["utterances"] == 2).all()
    assert (frame["energy_per_audio_second_j"] >= frame["host_energy_per_audio_second_j"]).all()
    assert (frame["energy_per_audio_second_j"] > 0).all()
    digital = frame[frame["reading"] == "digital"]
    assert digital[["chip", "t_s", "compensated", "noise", "seed"]].isna().all(axis=None)
    assert set(digital["arch"]) == {"edge_npu"}
    chips = frame[frame["reading"] == "analog"]
    assert chips.groupby(["training", "chip", "t_s", "compensated"]).size().eq(1).all()
    assert set(chips["arch"]) == {"hermes_64core"}
    assert frame.groupby("precision")["sha256"].nunique().eq(1).all()


def test_a_row_is_what_the_chip_decodes(root: Path, frame: pd.DataFrame) -> None:
    asked = request(root)
    rows = [json.loads(line) for line in (root / "out" / "utterances.jsonl").read_text().splitlines()]
    by_key = {key_of(row): row for row in rows}
    split, whole = split_of(asked), load_recognizer(DIGITS / "fp16.recognizer")
    for compensated in (True, False):
        chip = analog_recognizer(whole, asked.settings(compensated), (1, 1)).at(HOUR)
        assert isinstance(chip, AnalogRecognizer)
        for index in (1, 0):
            chip.restart(index)
            found = chip.transcribe(np.asarray(split[index][0], np.float64), GREEDY)
            row = by_key["fp16", 1, HOUR, compensated, index]
            assert row["hypothesis"] == found.words


def test_means_over_chips(frame: pd.DataFrame) -> None:
    means = over_chips(frame)
    assert len(means) == 2 * 2 * 2
    assert (means["chips"] == 2).all()
    chips = frame[frame["reading"] == "analog"]
    for _, row in means.iterrows():
        alike = (chips["training"] == row["training"]) & (chips["compensated"] == row["compensated"])
        own = chips[alike & (chips["t_s"] == row["t_s"])]["wer"]
        assert row["wer"] == pytest.approx(own.mean())
        assert (row["wer_low"], row["wer_high"]) == (own.min(), own.max())
        assert row["wer_deviation"] == pytest.approx(own.std())


def test_a_killed_study_goes_on_to_the_same_table(root: Path, frame: pd.DataFrame, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill_after(most: int) -> Callable[[int, int], None]:
        def on_row(done: int, total: int) -> None:
            assert total == 19 * 2
            if done > most:
                raise Killed

        return on_row

    with pytest.raises(Killed):
        run_drift(request(root), tmp_path, kill_after(12), jobs=1)
    path = tmp_path / "utterances.jsonl"
    path.write_bytes(path.read_bytes()[:-20])  # in the middle of a line
    seen: list[int] = []
    again = run_drift(request(root), tmp_path, lambda done, total: seen.append(done), jobs=1)
    assert seen[0] == 13
    assert again.equals(frame)
    assert (tmp_path / "drift.csv").read_bytes() == (root / "out" / "drift.csv").read_bytes()
    more = request(root, chips=3, times_s=(1.0, HOUR, 2 * HOUR))
    left = {(chunk.condition.chip, chunk.condition.t_s) for chunk in chunks_of(more, [])}
    assert (2, 2 * HOUR) in left
    assert more.digest({}) == request(root).digest({})
    with pytest.raises(HwsimError, match="must be a folder of the same study, got one of other recognizers, speech"):
        run_drift(request(root, seed=2), tmp_path, jobs=1)


def test_what_the_machine_keeps_digital_has_no_noise(root: Path, tmp_path: Path) -> None:
    encoder = {"encoder.layer0", "encoder.layer1", "joint.encoder_projection"}
    assert tile_layers("hybrid_analog_digital", "digits") == encoder
    assert tile_layers("hermes_64core", "digits") > encoder
    whole = load_recognizer(DIGITS / "fp16.recognizer")
    chip = programmed(whole, request(root, arch="hybrid_analog_digital"), Condition("fp16", 0))
    assert {name.split(".w")[0] for each in chip.chips for name in each.tiles} == encoder
    assert set(chip.networks) == {"encoder", "prediction", "joint"}
    with pytest.raises(HwsimError, match="arch must be a machine with analog tiles that hold layers of digits"):
        run_drift(request(root, arch="rapid_1core"), tmp_path, jobs=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"analog": ()}, "analog must hold at least one value, got none"),
        ({"times_s": (1.0, 1.0)}, "times_s must hold each value once, got 1.0 twice"),
        ({"times_s": (0.0,)}, "times_s must be above 0 seconds since programming, got 0"),
        ({"times_s": (-1.0,)}, "t_s must be 0 or more seconds since programming, got -1"),
        ({"chips": 0}, "chips must be at least 1, got 0"),
        ({"utterances": 0}, "utterances must be at least 1, got 0"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"noise": "rasch"}, "unknown analog noise model 'rasch'; nearest: rasch2023"),
    ],
)
def test_wrong_requests(root: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(HwsimError, match=message):
        request(root, **changes)


def test_more_utterances_than_there_are(root: Path, tmp_path: Path) -> None:
    with pytest.raises(HwsimError, match="utterances must be at most 24, those of test_mild in"):
        run_drift(request(root, utterances=25), tmp_path, jobs=1)


def test_figures_of_the_page_are_those_of_the_recognizers() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs/analog.md").read_text("utf-8")
    table = text[text.index("| | dev | test_clean |") :].splitlines()[2:5]
    for row, precision in zip(table, ("fp16", "analog", "int4"), strict=True):
        about = load_recognizer(DIGITS / f"{precision}.recognizer").about["networks"]["transducer"]
        figures = [about["figures"][f"wer_{name}"] for name in ("dev", "test_clean", "test_mild", "test_strong")]
        assert [float(cell) for cell in re.findall(r"[0-9]+\.[0-9]+", row)] == figures
        assert about["seed"] == 0
        assert about["command"].startswith("hwsim train digits")
    assert (
        about["start_sha256"]
        == load_recognizer(DIGITS / "analog.recognizer").about["networks"]["transducer"]["start_sha256"]
    )
