from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from hwsim.errors import HwsimError
from hwsim.report import plots
from hwsim.report.sweep import rtf_table
from tests.report.conftest import Text

PNG = b"\x89PNG\r\n\x1a\n"


def sweep(archs: tuple[str, ...] = ("chip",), lms: tuple[str, ...] = ("none",), settings: tuple[float, ...] = (1e9,)
          ) -> pd.DataFrame:  # fmt: skip
    """The table of a sweep with made-up RTFs."""
    found = [
        {"arch": arch, "workload": "net", "precision": precision, "decoder": "alsd", "beam": beam, "lm": lm,
         "frames": 10, "dram.bandwidth_bytes_per_s": setting, "rtf": 0.01 * beam * bits / setting * 1e9,
         "latency_s": 1.0, "error": None}
        for arch in archs for lm in lms for setting in settings
        for precision, bits in (("fp16", 16), ("int4", 4)) for beam in (1, 4, 16)
    ]  # fmt: skip
    return pd.DataFrame(found)


@pytest.mark.parametrize(
    ("frame", "across", "inside"),
    [
        (sweep(), [], []),
        (sweep(archs=("a", "b")), ["arch"], []),
        (sweep(lms=("none", "shallow")), [], ["lm"]),
        (sweep(archs=("a", "b"), lms=("none", "shallow")), ["arch"], ["lm"]),
        (sweep(settings=(1e9, 2e9, 3e9)), [], ["dram.bandwidth_bytes_per_s"]),
        (sweep(lms=("none", "shallow"), settings=(1e9, 2e9, 3e9)), ["lm", "dram.bandwidth_bytes_per_s"], []),
    ],
)
def test_what_varies_becomes_panels_or_line_styles(frame: pd.DataFrame, across: list[str], inside: list[str]) -> None:
    assert plots._arrangement(frame) == (across, inside)


def test_the_plot_is_a_png_and_whole(tmp_path: Path) -> None:
    path = plots.plot_rtf_over_beam(sweep(archs=("a", "b"), lms=("none", "shallow")), tmp_path / "rtf.png")
    assert path == tmp_path / "rtf.png"
    assert path.read_bytes().startswith(PNG)
    assert [entry.name for entry in tmp_path.iterdir()] == ["rtf.png"]


def test_missing_points_are_left_out(tmp_path: Path) -> None:
    frame = sweep(archs=("a", "b"))
    frame.loc[frame["arch"] == "b", "rtf"] = None
    plots.plot_rtf_over_beam(frame, tmp_path / "rtf.png")
    frame["rtf"] = None
    with pytest.raises(HwsimError) as error:
        plots.plot_rtf_over_beam(frame, tmp_path / "empty.png")
    assert str(error.value) == "a plot of RTF over beam width must have at least one point, got none"
    assert not (tmp_path / "empty.png").exists()


def test_labels_name_what_they_tell_apart() -> None:
    assert plots._label(("arch", "lm"), ("chip", "none")) == "chip, lm none"
    assert plots._label(("dram.efficiency", "frames"), (0.5, 10)) == "dram.efficiency = 0.5, frames 10"
    assert plots._title(sweep()) == "RTF over beam width\nnet, chip, decoder alsd, lm none"


def test_no_colour_is_used_twice() -> None:
    assert len(set(plots.COLOURS)) == len(plots.COLOURS) == len(set(plots.MARKERS))


def test_without_matplotlib_there_is_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    with pytest.raises(HwsimError) as error:
        plots.plot_rtf_over_beam(sweep(), tmp_path / "rtf.png")
    assert str(error.value) == "plots need matplotlib, got an installation without it: install hwsim[plot]"


def test_an_unwritable_plot_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("", encoding="utf-8")
    with pytest.raises(HwsimError, match=r"rtf\.png: must be in a folder, got the file .*file\.txt$"):
        plots.plot_rtf_over_beam(sweep(), tmp_path / "file.txt" / "rtf.png")


def test_the_table_has_a_column_for_each_beam(text: Text) -> None:
    frame = sweep()
    frame.loc[1, "rtf"] = None
    assert text(rtf_table(frame)).split("\n") == [
        "Real-time factor over beam width",
        "precision       1      4     16",
        "───────────────────────────────",
        "fp16        0.160      –   2.56",
        "int4       0.0400  0.160  0.640",
    ]


def test_the_table_names_what_varies(text: Text) -> None:
    lines = text(rtf_table(sweep(archs=("a", "b"), settings=(1e9, 2e9)))).split("\n")
    assert lines[1].split() == ["arch", "precision", "bandwidth_bytes_per_s", "1", "4", "16"]
    assert lines[-1].split()[:3] == ["b", "int4", "2e+09"]


def test_a_large_table_is_cut_and_says_so(text: Text) -> None:
    shown = text(rtf_table(sweep(settings=tuple(1e9 * i for i in range(1, 30))))).split("\n")
    assert shown[0] == "Real-time factor over beam width (a part: the file has all points)"
    assert len(shown) == 3 + 40
