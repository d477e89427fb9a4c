"""Which path a target takes, and that code compiled for others gives the same integers."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from hwsim.errors import HwsimError
from hwsim.execute.kernels.target import choose

AVX512 = frozenset({"avx2", "avx512f", "avx512bw", "avx512vl"})
CHOICES: list[tuple[frozenset[str], str | None, str]] = [
    (AVX512 | {"avx512vnni", "avx512vbmi"}, None, "vnni512permute"),
    (AVX512 | {"avx512vnni"}, "vnni", "vnni512shuffle"),
    (AVX512, None, "madd512shuffle"),
    (AVX512 | {"avx512vnni"}, "portable", "madd512shuffle"),
    (frozenset({"avx2", "avxvnni"}), None, "vnni256shuffle"),
    (frozenset({"avx2"}), None, "madd256shuffle"),
    (AVX512, "avx2", "madd256shuffle"),
    (frozenset(), None, "generic256select"),
    (frozenset(), "portable", "generic256select"),
]


@pytest.mark.parametrize(("features", "path", "name"), CHOICES)
def test_paths_follow_the_features_of_the_target(features: frozenset[str], path: str | None, name: str) -> None:
    assert choose(features, path).name == name


def test_paths_that_are_not_there_are_refused() -> None:
    with pytest.raises(HwsimError, match="path must be one of vnni, avx2, portable, got 'vni'; nearest: vnni"):
        choose(AVX512, "vni")
    with pytest.raises(HwsimError, match="path vnni: the target must have avx512vnni"):
        choose(frozenset({"avx2"}), "vnni")


CHECK_ALL = """
import sys
import numpy as np
from hwsim.execute import matmul, pack
from hwsim.execute.kernels.target import isa_of
rng = np.random.default_rng(0)
for base, high in (("int8", 127), ("int3", 3), ("int1", 1)):
    codes = rng.choice([-high, high], (45, 70))
    for rows in (1, 2, 7):
        activations = rng.integers(-128, 128, (rows, 45)).astype(np.int8)
        assert (matmul(activations, pack(codes, base)) == activations.astype(int) @ codes).all(), base
for bits in (2, 5):
    table, codes = rng.integers(-128, 128, 1 << bits), rng.integers(0, 1 << bits, (45, 70))
    found = matmul(activations, pack(codes, f"codebook{bits}", table=table))
    assert (found == activations.astype(int) @ table[codes]).all(), bits
sys.stdout.write(isa_of().name)
"""

TARGETS = [
    ("generic", "", "generic256select"),
    ("haswell", "+avx,+avx2", "madd256shuffle"),
    ("haswell", "+avx,+avx2,+avxvnni", "vnni256shuffle"),
    ("skylake-avx512", "+avx,+avx2,+avx512f,+avx512bw,+avx512vl,+avx512dq", "madd512shuffle"),
]


@pytest.mark.parametrize(("name", "features", "isa"), TARGETS)
def test_code_for_other_targets_gives_the_same_integers(
    name: str, features: str, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if platform.machine() != "x86_64" or not executable(features):
        pytest.skip(f"this machine does not run {features}")
    monkeypatch.setenv("NUMBA_CPU_NAME", name)
    monkeypatch.setenv("NUMBA_CPU_FEATURES", features)
    done = subprocess.run([sys.executable, "-c", CHECK_ALL], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, isa), done.stderr


def executable(features: str) -> bool:
    from llvmlite.binding import get_host_cpu_features

    host = get_host_cpu_features()
    return all(host.get(feature[1:], False) for feature in features.split(",") if feature)
