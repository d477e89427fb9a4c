"""Every way of coding weights in a trace: sums of the packed codes, their bits in memory, and the round trip."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwsim.errors import HwsimError
from hwsim.execute.executor import Executable
from hwsim.execute.projection import Coding
from hwsim.execute.semantics import TRAINING
from hwsim.execute.store import load_executable, save_executable
from hwsim.numerics.calibration import BoundAware, MinMax, NativeQat, Pact, Sawb
from hwsim.numerics.codebook import Codebook, MuLaw
from hwsim.numerics.quantizers import Quantizer
from hwsim.trace import Role, Trace, TraceBuilder

ROWS, DEPTH, COLUMNS = 9, 96, 130
X, WEIGHT, OUT = "net.input.x", "net.weight", "net.out"
W = np.random.default_rng(0).standard_normal((DEPTH, COLUMNS))
READABLE = replace(TRAINING, name="readable")
GROUPS = Quantizer(np.abs(W).reshape(4, 24, COLUMNS).max(axis=1) / 7, 4, narrow=True, group_size=24)
TERNARY = Quantizer(np.asarray(0.8), 2, narrow=True)
CODINGS: dict[str, tuple[Coding, float]] = {
    "int8": (NativeQat(8).calibrate(W), 8),
    "int4": (Sawb().calibrate(W), 4),
    "int3": (MinMax(3).calibrate(W), 3),
    "int2": (Sawb(2, zero_aligned=False).calibrate(W), 3),
    "ternary": (TERNARY, 2),
    "int1": (Quantizer(np.asarray(1.6), 1, half_step=True), 1),
    "groups of 24": (GROUPS, 4),
    "zero points": (MinMax(4, symmetric=False).calibrate(W), 4),
    "codebook4": (MuLaw(4).calibrate(W), 4),
    "codebook5": (MuLaw(5).calibrate(W), 5),
    "codebook7": (MuLaw(7, (1.0,)).calibrate(W), 8),
    "codebook8": (Codebook(np.arange(-128, 128), np.asarray(0.03)), 8),
}
ACTIVATIONS = {
    "int8": BoundAware(2.0, 8).calibrate(),
    "int4": BoundAware(2.0, 4).calibrate(),
    "uint4 with a zero point": Pact(-1.0, 2.0, 4).calibrate(),
    "int16": BoundAware(2.0, 16).calibrate(),
}


def layer(format: str = "fp32") -> Trace:
    b = TraceBuilder("net")
    x = b.tensor(X, Role.ACTIVATION, (ROWS, DEPTH), "net")
    w = b.tensor(WEIGHT, Role.WEIGHT, (DEPTH, COLUMNS))
    out = b.tensor(OUT, Role.STATE, (ROWS, COLUMNS))
    b.matmul("net", [x], w, out, m=ROWS)
    trace = b.build()
    tensors = tuple(replace(t, format=format) if t.name == WEIGHT else t for t in trace.tensors)
    return replace(trace, tensors=tensors)


def build(coding: Coding, input: Quantizer, codes: Any = None, format: str = "fp32", **more: Any) -> Executable:
    codes = coding.quantize(W) if codes is None else codes
    return Executable(layer(format), {WEIGHT: codes}, {WEIGHT: coding, X: input}, **more)


@pytest.mark.parametrize("activations", ACTIVATIONS)
@pytest.mark.parametrize("name", CODINGS)
def test_products_of_codes_are_those_of_their_values(name: str, activations: str) -> None:
    """Against the sum of the values in float64, which has the digits for it, and against the readable path."""
    (coding, _), input = CODINGS[name], ACTIVATIONS[activations]
    x = np.random.default_rng(1).standard_normal((ROWS, DEPTH))
    fast = build(coding, input).run({X: x})[OUT]
    np.testing.assert_array_equal(fast, build(coding, input, semantics=READABLE).run({X: x})[OUT])
    values = input.fake_quantize(x) @ coding.dequantize(coding.quantize(W))
    np.testing.assert_allclose(fast, values, rtol=0, atol=1e-9 * np.abs(values).max())


@pytest.mark.parametrize("name", CODINGS)
def test_weights_stay_packed_and_come_back(name: str, tmp_path: Path) -> None:
    coding, bits = CODINGS[name]
    executable = build(coding, ACTIVATIONS["int8"])
    packed = executable.projections[WEIGHT].packed  # type: ignore[union-attr]
    padded = packed.padded_depth * 192 / (DEPTH * COLUMNS)
    assert packed.data.nbytes * 8 == pytest.approx(bits * DEPTH * COLUMNS * padded)
    np.testing.assert_array_equal(executable.parameters()[WEIGHT], coding.quantize(W))
    save_executable(executable, tmp_path / "net.hwsim")
    loaded = load_executable(tmp_path / "net.hwsim")
    x = np.random.default_rng(1).standard_normal((ROWS, DEPTH))
    np.testing.assert_array_equal(loaded.run({X: x})[OUT], executable.run({X: x})[OUT])


def test_two_of_four_are_checked() -> None:
    coding = Sawb().calibrate(W)
    kept = np.argsort(np.argsort(-np.abs(W.reshape(-1, 4, COLUMNS)), axis=1), axis=1) < 2
    pruned = coding.quantize(W) * kept.reshape(W.shape)
    sparse = build(coding, ACTIVATIONS["int8"], pruned, "int4/2:4")
    x = np.random.default_rng(1).standard_normal((ROWS, DEPTH))
    np.testing.assert_array_equal(sparse.run({X: x})[OUT], build(coding, ACTIVATIONS["int8"], pruned).run({X: x})[OUT])
    with pytest.raises(HwsimError, match=r"^int4/2:4: at most 2 of 4 weights along K must be nonzero, got "):
        build(coding, ACTIVATIONS["int8"], np.ones_like(pruned), "int4/2:4")


def test_an_activation_with_a_codebook_is_refused() -> None:
    coding = CODINGS["codebook4"][0]
    with pytest.raises(HwsimError, match=r"^net.input.x: only the weights of a product must have a codebook$"):
        Executable(layer(), {WEIGHT: coding.quantize(W)}, {WEIGHT: coding, X: coding})
    with pytest.raises(HwsimError, match=r"net.weight: weight codes must be 0 to 15, got 16"):
        build(coding, ACTIVATIONS["int8"], np.full(W.shape, 16))
