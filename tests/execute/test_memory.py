"""Packed weights stay packed: what an executable of the size of `rnnt_swb300` keeps, and what loading it takes."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwsim.execute.executor import Executable
from hwsim.execute.store import load_executable, save_executable
from hwsim.extract import load_workload
from hwsim.extract.rnnt import emit_encoder
from hwsim.extract.workload import Workload
from hwsim.numerics.quantizers import Quantizer
from hwsim.trace import Role, Trace, TraceBuilder

SHARE = 1.3
STATUS = Path("/proc/self/status")
GROWTH = """
import gc, json
from tests.execute.test_memory import acoustic, parameters, resident
import hwsim.execute.kernels.layout, hwsim.execute.executor
trace = acoustic()
codes, grids = parameters(trace)
gc.collect()
before = resident()
executable = hwsim.execute.executor.Executable(trace, codes, grids)
gc.collect()
print(json.dumps(resident() - before))
"""


def acoustic() -> Trace:
    """Encoder, prediction network and joint, with their real shapes: 57 M parameters."""
    spec = load_workload("rnnt_swb300").spec.model_copy(update={"language_models": {}})
    return Workload(spec, "acoustic").networks


def parameters(trace: Trace) -> tuple[dict[str, Any], dict[str, Quantizer]]:
    rng = np.random.default_rng(0)
    codes, grids = {}, {}
    for t in trace.tensors:
        if t.role == Role.WEIGHT:
            codes[t.name] = rng.integers(-7, 8, t.shape, dtype=np.int8)
        elif t.role == Role.BIAS:
            codes[t.name] = rng.standard_normal(t.shape)
        if t.role in (Role.WEIGHT, Role.ACTIVATION):
            grids[t.name] = Quantizer(np.asarray(1 / 7), 4, narrow=True)
    return codes, grids


def weight_bytes(trace: Trace) -> float:
    """Of INT4 weights and nothing else."""
    return sum(t.elements for t in trace.tensors if t.role == Role.WEIGHT) / 2


def resident() -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def test_57_million_int4_parameters_within_1_3_times_their_bits() -> None:
    """Everything that is allocated and still held after the executable is built, with biases, scales and the trace."""
    trace = acoustic()
    codes, grids = parameters(trace)
    assert weight_bytes(trace) == pytest.approx(28.5e6, rel=0.02)
    Executable(trace, codes, grids)
    gc.collect()
    tracemalloc.start()
    try:
        executable = Executable(trace, codes, grids)
        gc.collect()
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    packed = sum(p.packed.nbytes for p in executable.projections.values())  # type: ignore[union-attr]
    assert weight_bytes(trace) < packed < kept < SHARE * weight_bytes(trace)
    assert most < 2 * weight_bytes(trace)


@pytest.mark.skipif(not STATUS.exists(), reason="resident memory is read from /proc")
def test_resident_memory_grows_by_the_packed_weights() -> None:
    """In a process of its own, which gives freed blocks of more than 64 KiB back at once."""
    root = Path(__file__).resolve().parents[2]
    found = subprocess.run(
        [sys.executable, "-c", GROWTH], cwd=root, capture_output=True, text=True, check=True,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"},
    )  # fmt: skip
    growth, weights = json.loads(found.stdout), weight_bytes(acoustic())
    assert 0.9 * weights < growth < SHARE * weights


def test_a_run_keeps_nothing_but_its_outputs() -> None:
    """After a run, only what it returned is held; a fifth of the encoder's layers, and 20 frames."""
    b = TraceBuilder("encoder")
    emit_encoder(b, load_workload("rnnt_swb300").spec.encoder.model_copy(update={"layers": 1, "cells": 160}), 20)
    trace = b.build()
    executable = Executable(trace, *parameters(trace))
    x = {"encoder.input.features": np.zeros((20, 340))}
    executable.run(x)
    tracemalloc.start()
    try:
        outputs = executable.run(x)
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 2 * sum(array.nbytes for array in outputs.values()) + 20_000


def test_loading_unpacks_one_weight_at_a_time(tmp_path: Path) -> None:
    """Two layers of the encoder, 15 M parameters: at most the file, the packed weights and one weight being packed."""
    b = TraceBuilder("encoder")
    emit_encoder(b, load_workload("rnnt_swb300").spec.encoder.model_copy(update={"layers": 2}), 1)
    trace = b.build()
    save_executable(Executable(trace, *parameters(trace)), tmp_path / "layer")
    load_executable(tmp_path / "layer")
    gc.collect()
    tracemalloc.start()
    try:
        executable = load_executable(tmp_path / "layer")
        gc.collect()
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    largest = max(t.elements for t in trace.tensors if t.role == Role.WEIGHT)
    assert weight_bytes(trace) < kept < SHARE * weight_bytes(trace)
    assert most < (tmp_path / "layer").stat().st_size + kept + 8 * largest
    assert len(executable.projections) == 8
