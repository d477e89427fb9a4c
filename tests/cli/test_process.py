"""Whole processes: exit codes, no stack trace, quiet ends, and nothing heavy before it is needed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from tests.test_import import HEAVY, modules_after

HWSIM = [sys.executable, "-m", "hwsim.cli"]


def hwsim(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HWSIM, *map(str, words)], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def test_the_commands_load_nothing_heavy() -> None:
    loaded = modules_after("import hwsim.cli.run")
    assert HEAVY & loaded == {"typer"}
    assert {name for name in loaded if name.startswith("hwsim")} == {
        "hwsim", "hwsim.cli", "hwsim.cli.app", "hwsim.cli.printing", "hwsim.cli.run", "hwsim.errors",
    }  # fmt: skip


def test_a_mistake_has_exit_code_2_and_no_stack_trace(tmp_path: Path) -> None:
    done = hwsim("simulate", "rapid_4cor", "rnnt_swb300", "--json", tmp_path / "x.json")
    assert done.returncode == 2
    assert done.stdout == ""
    nearest = "rapid_4core, rapid_1core, hermes_64core"
    assert done.stderr == f"hwsim: error: unknown architecture 'rapid_4cor'; nearest: {nearest}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_leaves_is_no_mistake() -> None:
    process = subprocess.Popen([*HWSIM, "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141


def test_an_interrupt_ends_a_sweep_without_a_trace(tmp_path: Path) -> None:
    beams = ",".join(str(beam) for beam in range(1, 33))
    setting = "dram.efficiency=" + ",".join(f"0.{i}" for i in range(101, 200))
    words = ["sweep", "rapid_4core", "rnnt_swb300", "--beam", beams, "--set", setting, "--out", str(tmp_path / "out")]
    # A test run in the background of a shell ignores interrupts, and so would its children.
    heard = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen([*HWSIM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heard)
    for _ in range(600):
        # The folder is made just before the first point runs.
        if (tmp_path / "out").exists():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, b"", b"")
    assert list(tmp_path.iterdir()) == []


def test_a_poor_terminal_is_enough() -> None:
    done = hwsim("show", "int8", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert done.stdout.startswith("Policy")
    assert done.stderr == ""
