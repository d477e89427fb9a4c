"""The Python of docs/validate.md, run from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "validate.md"


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("torch", "onnx", "onnxruntime"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 2
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert {path.name for path in tmp_path.iterdir()} == {"small.hwsim", "x.npz", "y.npz"}
    assert "encoder.layer0.forward_h" in capsys.readouterr().out


def test_every_oracle_is_documented() -> None:
    from hwsim.validate.oracles import ORACLES

    text = PAGE.read_text("utf-8")
    assert all(f"--against {name}" in text or f"`{name}`" in text for name in ORACLES)
