"""Grids that are found at run time: codes and ties, products of every coding, states, pieces, files, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from hwsim.errors import HwsimError
from hwsim.execute.executor import Executable
from hwsim.execute.recurrence import LstmRules
from hwsim.execute.reference.dynamic import dynamic_linear_values
from hwsim.execute.semantics import Semantics, profile
from hwsim.extract.lstm import LstmLayer
from hwsim.numerics.calibration import BoundAware, MinMax, NativeQat, Sawb
from hwsim.numerics.codebook import Codebook, MuLaw
from hwsim.numerics.dynamic import DynamicGrid, Per
from hwsim.trace import Function, Kind, Role, TraceBuilder
from tests.execute.single import Network, assert_round_trip
from tests.execute.vectors import numbers, reals, vectors

Array = NDArray[Any]
ROW, WHOLE = DynamicGrid(4), DynamicGrid(4, "tensor")
RNG = np.random.default_rng(0)
X, W = RNG.standard_normal((9, 16)) * np.geomspace(0.01, 100, 9)[:, None], RNG.standard_normal((16, 5))
BIAS = RNG.standard_normal(5)
CODINGS: dict[str, Any] = {
    "int4 channel": NativeQat(4, axis=1), "int8": NativeQat(8), "sawb": Sawb(4), "half step": Sawb(4, False),
    "int2 groups": MinMax(2, symmetric=False, group_size=8), "codebook": MuLaw(5),
}  # fmt: skip


@pytest.mark.parametrize("row", vectors("dynamic"), ids=lambda row: f"{row['bits']}: {row['x']}")
def test_the_table_of_the_page(row: dict[str, str]) -> None:
    codes, scales = DynamicGrid(int(row["bits"])).quantize(reals(row["x"]))
    assert (codes.tolist(), scales.tolist()) == (numbers(row["codes"]), reals(row["scale"]))


ELEMENTS = st.floats(-1e30, 1e30) | st.floats(-1e-38, 1e-38) | st.integers(-9, 9).map(float)
ROWS = arrays.arrays(np.float64, arrays.array_shapes(min_dims=2, max_dims=3, max_side=6), elements=ELEMENTS)


@given(ROWS, st.integers(2, 8))
def test_rows_are_apart_and_their_values_find_the_same_codes(x: Array, bits: int) -> None:
    grid = DynamicGrid(bits)
    codes, scales = grid.quantize(x)
    flat, again = x.reshape(-1, x.shape[-1]), grid.quantize(codes * scales)
    for at, alone in enumerate(flat):
        one, scale = grid.quantize(alone)
        assert np.array_equal(one, codes.reshape(flat.shape)[at])
        assert scale == scales.reshape(-1)[at] == np.float32(scale)
        if np.abs(alone).max() > 1e-30:
            assert np.abs(one).max() == grid.levels
    assert np.array_equal(again[0], codes)
    assert np.array_equal(again[1], np.where(np.abs(codes).max(-1, keepdims=True) > 0, scales, 1.0))
    whole, scale = DynamicGrid(bits, "tensor").quantize(x)
    one, wanted = grid.quantize(x.reshape(-1))
    assert scale.shape == (1,) * x.ndim
    assert np.array_equal(whole.reshape(-1), one)
    assert scale.item() == wanted.item()


def product(coding: Any, grid: DynamicGrid, stored: bool, semantics: Semantics | None = None) -> tuple[Any, Any]:
    """x (9, 16) by w (16, 5), x on the grid or reals that the product puts on it; and codes of w."""
    found = coding.calibrate(W)
    codes = found.quantize(W)
    network = Network()
    network.tensor("x", X.shape, grid if stored else None)  # type: ignore[arg-type]
    network.weight("w", codes, found)
    if not stored:
        network.grids["block.part.w.input"] = grid  # type: ignore[assignment]
    network.vector("bias", BIAS)
    network.tensor("out", (9, 5), role=Role.STATE)
    network.op(Kind.MATMUL, ["x", "w", "bias"], "out", m=9, k=16, n=5)
    return network.build() if semantics is None else network.build(semantics), (found, codes)


def by_hand(grid: DynamicGrid, found: Any, codes: Array) -> Array:
    """The product, integer by integer."""
    x, scales = grid.quantize(X)
    rows = np.broadcast_to(scales, (9, 1))
    if isinstance(found, Codebook):
        codes, found = found.expand(codes), found.expanded
    if found.half_step:
        codes, found = found.odd_codes(codes)
    size = found.group_size or 16
    sw = np.broadcast_to(found.scale, (16 // size, 5))
    zero = np.broadcast_to(found.zero_point, sw.shape)
    out = np.zeros((9, 5))
    for m in range(9):
        for n in range(5):
            for g in range(16 // size):
                terms = range(g * size, (g + 1) * size)
                total = sum(int(x[m, k]) * (int(codes[k, n]) - int(zero[g, n])) for k in terms)
                out[m, n] += float(total) * (float(rows[m, 0]) * float(sw[g, n]))
            out[m, n] += BIAS[n]
    return out


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "input"])
@pytest.mark.parametrize("grid", [ROW, WHOLE, DynamicGrid(8)], ids=str)
@pytest.mark.parametrize("coding", CODINGS)
def test_products_of_every_coding(coding: str, grid: DynamicGrid, stored: bool, tmp_path: Path) -> None:
    executable, (found, codes) = product(CODINGS[coding], grid, stored)
    inputs = {"block.part.x": X}
    got = executable.run(inputs)["block.part.out"]
    assert np.array_equal(got, by_hand(grid, found, codes))
    if coding in ("int4 channel", "int8", "sawb", "int2 groups"):
        assert np.array_equal(got, dynamic_linear_values(X, codes, grid, found, BIAS))
    assert_round_trip(executable, inputs, tmp_path / "e")
    assert np.isfinite(got).all()
    assert np.abs(got - (X @ W + BIAS)).max() > 0


def test_a_profile_has_its_accumulator() -> None:
    narrow = Semantics("narrow", accumulator_bits=16, overflow="saturate", bias="integer")
    big = DynamicGrid(8)
    executable, (found, codes) = product(NativeQat(8, axis=1), big, True, narrow)
    got = executable.run({"block.part.x": X})["block.part.out"]
    assert np.array_equal(got, dynamic_linear_values(X, codes, big, found, BIAS, narrow))
    assert not np.array_equal(got, dynamic_linear_values(X, codes, big, found, BIAS))


def norm_and_product(grid: DynamicGrid = ROW) -> Executable:
    """A norm whose rows are stored on a grid of run time, a product that reads them, and one of both side by side."""
    found = NativeQat(4, axis=1).calibrate(W)
    network = Network()
    network.tensor("x", X.shape)
    for part in ("gamma", "beta"):
        network.vector(part, RNG.standard_normal(16))
    network.tensor("normal", X.shape, grid)  # type: ignore[arg-type]
    network.weight("w", found.quantize(W), found)
    network.tensor("out", (9, 5), MinMax(8).calibrate([-9.0, 9.0]))
    network.op(Kind.NORM, ["x", "gamma", "beta"], "normal", m=9, n=16)
    network.op(Kind.MATMUL, ["normal", "w"], "out", m=9, k=16, n=5)
    network.tensor("twice", X.shape)
    network.op(Kind.ELEMENTWISE, ["normal", "normal"], "twice", m=9, n=16, function=Function.ADD)
    return network.build()


def test_stored_codes_come_with_their_scales(tmp_path: Path) -> None:
    executable = norm_and_product()
    inputs = {"block.part.x": X}
    names = tuple(f"block.part.{part}" for part in ("normal", "normal.scale", "out", "twice"))
    assert executable.outputs == names
    out = executable.run(inputs)
    assert [out[name].dtype.name for name in names] == ["int8", "float64", "int8", "float64"]
    assert out[names[1]].shape == (9, 1)
    values = executable.reals(names[0], out)
    assert np.array_equal(values, out[names[0]] * out[names[1]])
    assert np.array_equal(out[names[3]], values + values)
    assert_round_trip(executable, inputs, tmp_path / "e")
    fewer = executable.run({"block.part.x": X[:4]})
    assert all(np.array_equal(fewer[name], out[name][:4]) for name in names)
    steps = executable.unrounded(inputs, {})
    assert np.array_equal(np.floor(steps[names[0]] + 0.5), out[names[0]])
    other = executable.run({"block.part.x": X[::-1]})
    for forced in (out, {names[0]: values}):
        got = executable.run({"block.part.x": X[::-1]}, forced=forced)
        assert np.array_equal(got[names[2]], out[names[2]])
        assert np.array_equal(got[names[0]], other[names[0]])


def lstm(frames: int = 7, *, wx: Any = None, wh: Any = None, h: Any = None) -> Executable:
    """A loop of 6 cells over 4 features, with grids of run time where they are given."""
    b = TraceBuilder("t")
    x = b.tensor("l.x", Role.ACTIVATION, (frames, 4), "l")
    layer = LstmLayer.declare(b, "l", 4, 6, frames, steps=True)
    layer.project_input(b, [x], frames)
    with b.loop(frames):
        layer.step(b, 1)
    rng = np.random.default_rng(1)
    reals = {"l.wx": rng.standard_normal((4, 24)), "l.wh": rng.standard_normal((6, 24))}
    grids: dict[str, Any] = {name: NativeQat(4, axis=1).calibrate(w) for name, w in reals.items()}
    codes: dict[str, Any] = {name: grids[name].quantize(w) for name, w in reals.items()}
    codes |= {name: rng.standard_normal(24) for name in ("l.bias_x", "l.bias_h")}
    given = {"l.wx.input": wx, "l.wh.input": wh, "l.h": h, "l.x": None if wx else MinMax(8).calibrate([-3.0, 3.0])}
    grids |= {name: grid for name, grid in given.items() if grid is not None}
    return Executable(b.build(), codes, grids)


def lstm_by_hand(executable: Executable, wx: DynamicGrid, wh: DynamicGrid, h_grid: Any) -> Array:
    """Hidden states of every step, in reals."""
    grids: Any = executable.quantizers
    codes, rules = executable.parameters(), LstmRules()
    sums = dynamic_linear_values(X4, codes["l.wx"], wx, grids["l.wx"], codes["l.bias_x"])
    h, c, found = np.zeros((1, 6)), np.zeros((1, 6)), []
    for row in sums:
        gates = row[None] + dynamic_linear_values(h, codes["l.wh"], wh, grids["l.wh"], codes["l.bias_h"])
        i, f, g, o = np.split(gates, 4, axis=-1)
        c = rules.sigmoid(f) * c + rules.sigmoid(i) * rules.tanh(g)
        h = rules.sigmoid(o) * rules.tanh(c)
        h = h if h_grid is None else h_grid.fake_quantize(h)
        found.append(h[0])
    return np.stack(found)


X4 = np.random.default_rng(2).standard_normal((7, 4))


@pytest.mark.parametrize("h", [None, ROW, BoundAware(1.0, 8).calibrate()], ids=["reals", "rows", "int8"])
def test_a_loop_whose_rows_find_their_grids(h: Any) -> None:
    """The hidden state meets its weights on a grid of each step; whole, and in two pieces."""
    executable = lstm(wx=DynamicGrid(8), wh=ROW, h=h)
    out = executable.run({"l.x": X4})
    assert np.array_equal(executable.reals("l.h", out), lstm_by_hand(executable, DynamicGrid(8), ROW, h))
    assert executable.streams
    first = executable.run({"l.x": X4[:3]})
    states = executable.states_after(first)
    rest = executable.run({"l.x": X4[3:]}, states=states)
    assert np.array_equal(np.concatenate([first["l.h"], rest["l.h"]]), out["l.h"])


def test_sums_of_rows_enter_the_compiled_loop() -> None:
    """Only the input's product has rows: the loop is the compiled one, and equals the readable one."""
    hidden = BoundAware(1.0, 8).calibrate()
    executable = lstm(wx=ROW, h=hidden)
    out = executable.run({"l.x": X4})["l.h"]
    forced = executable.run({"l.x": X4}, forced={"l.h": out})["l.h"]
    assert np.array_equal(out, forced)
    assert len(np.unique(out)) > 20


def test_a_convolution_of_the_whole_tensor() -> None:
    """Its windows share the scale; padding is zero."""
    kernel = RNG.standard_normal((3, 16, 5))
    found = NativeQat(4).calibrate(kernel)
    network = Network()
    network.tensor("x", X.shape, WHOLE)  # type: ignore[arg-type]
    network.weight("w", found.quantize(kernel), found)
    network.tensor("out", (9, 5), role=Role.STATE)
    network.op(Kind.CONV1D, ["x", "w"], "out", m=9, k=48, n=5)
    got = network.build(padding=[1, 1]).run({"block.part.x": X})["block.part.out"]
    codes, scale = WHOLE.quantize(X)
    padded = np.pad(codes.astype(np.int64), ((1, 1), (0, 0)))
    flat = found.quantize(kernel).reshape(48, 5)
    sums = np.stack([padded[t : t + 3].reshape(-1) @ flat for t in range(9)])
    assert np.array_equal(got, sums * (scale * found.scale))


def test_a_grid_of_the_tensor_is_not_run_in_pieces() -> None:
    executable = norm_and_product(WHOLE)
    out = executable.run({"block.part.x": X})
    assert out["block.part.normal.scale"].shape == (1, 1)
    assert not executable.streams
    said = "^block.part.normal: a grid of a whole tensor is found over all of its rows, so an utterance must be run"
    with pytest.raises(HwsimError, match=said):
        executable.states_after(out)
    with pytest.raises(HwsimError, match=said):
        executable.run({"block.part.x": X}, states={"block.part.normal": X[:1]})


def single(kind: Kind, weight: Array, grid: Any, **sizes: int) -> Network:
    network = Network()
    network.tensor("x", X.shape, grid)
    network.weight("w", weight, NativeQat(4).calibrate(np.ones(1)))
    network.tensor("out", (9, weight.shape[-1]), role=Role.STATE)
    network.op(kind, ["x", "w"], "out", m=9, **sizes)
    return network


@pytest.mark.parametrize(("bits", "per", "message"), [
    (1, "row", "bits of a grid of run time must be 2 to 8, got 1"),
    (9, "row", "bits of a grid of run time must be 2 to 8, got 9"),
    (4, "column", "per must be row or tensor, got column"),
])  # fmt: skip
def test_what_a_grid_refuses(bits: int, per: Per, message: str) -> None:
    with pytest.raises(HwsimError, match=f"^{message}$"):
        DynamicGrid(bits, per)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("grid", [ROW, WHOLE], ids=str)
def test_what_is_not_finite(value: float, grid: DynamicGrid) -> None:
    x = X.copy()
    x[3, 2] = value
    with pytest.raises(HwsimError, match=r"^values to quantize must be finite, got NaN or an infinity$"):
        grid.quantize(x)
    executable, _ = product(NativeQat(4), grid, False)
    with pytest.raises(HwsimError, match=r"must be finite, got NaN or an infinity"):
        executable.run({"block.part.x": x})


def test_what_does_not_fit() -> None:
    for x, message in (
        ([[1e300]], "scales must fit single precision, got values up to 1e[+]300"),
        (np.zeros((3, 0)), r"values to quantize must be rows of at least one, got shape \(3, 0\)"),
        (1.0, r"values to quantize must be rows of at least one, got shape \(\)"),
    ):
        with pytest.raises(HwsimError, match=f"^{message}$"):
            ROW.quantize(x)
    assert ROW.quantize([[1e-46]])[0].tolist() == [[0]]
    with pytest.raises(HwsimError, match="codes must be -7 to 7, got 8"):
        ROW.dequantize([8], 1.0)


def test_where_a_grid_must_be_fixed() -> None:
    kernel, depthwise = np.ones((3, 16, 5), np.int8), np.ones((3, 16), np.int8)
    said = "must have a grid that is fixed or of the whole tensor, got one of each row"
    with pytest.raises(HwsimError, match=said):
        single(Kind.CONV1D, kernel, ROW, k=48, n=5).build(padding=[1, 1])
    with pytest.raises(HwsimError, match=r"its activations must have a grid that is fixed, got one of run time$"):
        single(Kind.DEPTHWISE, depthwise, WHOLE, k=3, batch=16).build(padding=[1, 1])
    stacked = single(Kind.MATMUL, np.ones((32, 5), np.int8), ROW, k=32, n=5)
    with pytest.raises(HwsimError, match=r"must have a grid block.part.w.input, for its rows are joined of block"):
        stacked.build()
    weights = single(Kind.MATMUL, np.ones((16, 5), np.int8), MinMax(8).calibrate([1.0]), k=16, n=5)
    weights.grids["block.part.w"] = ROW  # type: ignore[assignment]
    with pytest.raises(HwsimError, match=r"^block.part.w: weights must have a grid that is fixed, got one of run"):
        weights.build()
    with pytest.raises(HwsimError, match=r"^l.h: a state must have a grid that is fixed or of each row, got one of"):
        lstm(wx=ROW, wh=ROW, h=WHOLE)


def test_states_that_must_have_a_fixed_grid() -> None:
    base = lstm(wx=ROW, h=ROW)
    grids = {**base.quantizers, "l.c": ROW}
    with pytest.raises(HwsimError, match=r"^l.c: must have a grid that is fixed, got one of run time$"):
        Executable(base.trace, base.parameters(), grids)
    litert = profile("tflite-lstm")
    with pytest.raises(HwsimError, match=r"^l.h: must have a grid that is fixed, got one of run time$"):
        Executable(base.trace, base.parameters(), base.quantizers, semantics=litert)
    grids = {**base.quantizers, "l.h": MinMax(8).calibrate([1.0])}
    with pytest.raises(HwsimError, match="tflite-lstm: x must be int8 with one scale, got -7 to 7 with scale 1"):
        Executable(base.trace, base.parameters(), grids, semantics=litert)


def test_codes_are_not_taken_without_their_scales() -> None:
    executable = norm_and_product()
    out = executable.run({"block.part.x": X})
    with pytest.raises(HwsimError, match=r"^block.part.normal: codes of a grid of run time must have their scales"):
        executable.dequantize("block.part.normal", out["block.part.normal"])
    given, _ = product(NativeQat(4), ROW, True)
    with pytest.raises(HwsimError, match=r"^block.part.x: must be reals, whose grid is found at run time, got int8$"):
        given.run({"block.part.x": np.ones((9, 16), np.int8)})
