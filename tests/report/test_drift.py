"""Tables and figures of a study of drift, from a table of numbers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from hwsim.errors import HwsimError
from hwsim.report.drift import drift_table, plot_drift


def frame(chips: int = 2) -> pd.DataFrame:
    """A recognizer in digital and on chips, at two times."""
    alike = {"energy_per_audio_second_j": 2e-3, "host_energy_per_audio_second_j": 1e-3, "noise": "pcm"}
    rows = [{"training": "float", "reading": "digital", "chip": None, "t_s": None, "compensated": None, "wer": 0.05,
             "arch": "edge_npu", **alike}]  # fmt: skip
    rows += [
        {"training": "float", "reading": "analog", "chip": chip, "t_s": t_s, "compensated": compensated,
         "wer": 0.06 + 0.02 * chip + (0 if compensated else 0.1), "arch": "hermes_64core", **alike}
        for compensated in (True, False) for chip in range(chips) for t_s in (1.0, 86400.0)
    ]  # fmt: skip
    return pd.DataFrame(rows).astype({"chip": "Int64", "compensated": "boolean"})


def test_the_table_has_means_over_chips() -> None:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(drift_table(frame()))
    rows = [line.split() for line in capture.get().splitlines() if line.startswith("float")]
    assert rows[0] == ["float", "digital", "5.00", "2", "50%"]
    assert rows[1] == ["float", "compensated", "1", "s", "2", "7.00", "1.41", "6.00", "to", "8.00", "2", "50%"]
    assert rows[4] == ["float", "uncompensated", "1", "d", "2", "17.00", "1.41", "16.00", "to", "18.00", "2", "50%"]
    assert len(rows) == 5


def test_the_figure_is_written_whole(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = plot_drift(frame(), tmp_path / "drift.png")
    assert path.read_bytes()[:4] == b"\x89PNG"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(HwsimError, match="a plot of drift must have at least one chip, got none"):
        plot_drift(frame(chips=0), path)
