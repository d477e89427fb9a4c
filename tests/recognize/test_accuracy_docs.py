"""docs/accuracy.md, run from top to bottom: its Python, its workload file, its commands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from hwsim import catalogue
from hwsim.cli.run import run
from hwsim.recognize import load_recognizer

PAGE = Path(__file__).resolve().parents[2] / "docs" / "accuracy.md"
BLOCK = re.compile(r"^```(python|yaml|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What the page's names hold after it ran, and the folder in which it did."""
    for package in ("torch", "jiwer", "matplotlib"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("page")
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for kind, text in BLOCK.findall(PAGE.read_text("utf-8")):
            if kind == "yaml":
                name = re.search(r"^name: (\w+)$", text, re.MULTILINE)
                assert name is not None
                (folder / f"{name[1]}.yaml").write_text(text, encoding="utf-8")
            elif kind == "python":
                exec(compile(text, str(PAGE), "exec"), names)
            else:
                for line in text.splitlines():
                    program, *words = line.split()
                    assert program == "hwsim"
                    assert run(words) == 0
    return names, folder


def test_the_page_gives_a_row(page: tuple[dict[str, Any], Path]) -> None:
    names, _ = page
    row = names["row"]
    assert row.utterances == 60
    assert row.wer_low <= row.wer <= row.wer_high < 0.3
    assert 0 < row.rtf < 1
    assert row.energy_per_audio_second_j > 0


def test_all_ways_give_the_same_words(page: tuple[dict[str, Any], Path]) -> None:
    """The study reads features as float16, which may turn a word."""
    import pandas as pd

    names, folder = page
    frame = pd.read_csv(folder / "out" / "study.csv").set_index(["arch", "beam"])
    study = frame.loc[("edge_npu", 4)]
    assert study["words"] == names["row"].words
    assert study["wer"] == pytest.approx(names["row"].wer, abs=0.02)
    assert study["rtf"] == pytest.approx(names["row"].rtf, rel=0.02)


def test_figures_of_the_page_are_those_of_the_recognizers() -> None:
    text = PAGE.read_text("utf-8")
    rows = re.findall(r"^\| (?:WER, %|CPU, s) \|((?: [\d.]+ \|){6})$", text, re.MULTILINE)
    wer, cpu_s = ([float(cell) for cell in row.split("|")[:-1]] for row in rows)
    files = ("fp16", "int8", "int4", "int4-native", "gq5", "int4-2of4")
    folder = catalogue.data_folder("workloads") / "digits"
    about = [load_recognizer(folder / f"{name}.recognizer").about["networks"]["transducer"] for name in files]
    assert wer == [one["figures"]["wer_test_clean"] for one in about]
    assert cpu_s == [round(one["figures"]["cpu_s"]) for one in about]
    assert {one["seed"] for one in about} == {0}
    assert all(one["command"].startswith("hwsim train digits") for one in about)
