"""Layers that a policy leaves in FP16: products of halves in the order of K, results rounded to half."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hwsim.errors import HwsimError
from hwsim.execute import recurrence
from hwsim.execute.executor import Executable
from hwsim.execute.half_product import half_product
from hwsim.execute.lstm_loop import round_halves
from hwsim.execute.projection import half_projection
from hwsim.execute.recurrence import compiled
from hwsim.execute.reference.half import half_matmul, half_round
from hwsim.execute.store import load_executable, save_executable
from hwsim.extract.encoder_spec import EncoderSpec
from hwsim.extract.rnnt import Joint, declare_stack, emit_encoder
from hwsim.extract.spec import JointSpec, LstmStackSpec
from hwsim.numerics import NumberFormat
from hwsim.numerics.calibration import BoundAware, Sawb
from hwsim.numerics.policy import load_policy, uniform_policy
from hwsim.numerics.quantizers import Quantizer
from hwsim.numerics.tables import fixed_table
from hwsim.trace import Role, Trace, TraceBuilder

Array = NDArray[Any]
X = "encoder.input.features"
FRAMES = 12


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 5),
    depth=st.integers(1, 70),
    columns=st.sampled_from([1, 3, 16, 511, 512, 513, 600]),
    spread=st.integers(0, 8),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_compiled_product_is_the_definition(rows: int, depth: int, columns: int, spread: int, seed: int) -> None:
    """Subnormals, zeros and sums that overflow included."""
    rng = np.random.default_rng(seed)

    def halves(*shape: int) -> Array:
        return half_round(rng.standard_normal(shape) * 10.0 ** rng.uniform(-spread, min(spread, 4), shape)).clip(
            -65504, 65504
        )

    x, w, bias = halves(rows, depth), halves(depth, columns), halves(columns)
    np.testing.assert_array_equal(half_product(x, w, bias), half_matmul(x, w, bias))


def test_every_half_is_unpacked() -> None:
    weights = np.arange(65536, dtype=np.uint16).view(np.float16)
    weights = weights[np.isfinite(weights)][None]
    got = half_product(np.ones((1, 1), np.float16), weights, np.zeros(weights.size, np.float16))
    np.testing.assert_array_equal(got, weights)


def test_the_order_of_k_and_the_rounding_are_seen() -> None:
    """A large term swallows 1,024 small ones that follow it, not those before it; each sum is rounded to float32."""
    big, small = 2.0**13, np.full(1024, 2.0**-12)
    none = np.zeros(1, np.float16)
    for terms, expected in (([big, *small, -big], 0.0), ([*small, big, -big], 0.25)):
        x = half_round([terms])
        assert half_product(x, np.ones((1026, 1), np.float16), none)[0, 0] == expected
    x, w, bias = half_round([[1.0, 2.0**-14]]), half_round([[1.0], [2.0**-10]]), half_round([2.0**-11])
    assert half_product(x, w, bias)[0, 0] == 1
    assert half_round(x.astype(np.float64) @ w.astype(np.float64) + bias)[0, 0] > 1


def test_halves_of_the_compiled_loop() -> None:
    """Every half, every tie between two, their neighbours, and what lies beyond."""
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    every = np.sort(halves[np.isfinite(halves)].astype(np.float64))
    ties = (every[1:] + every[:-1]) / 2
    edges = [65519.999, 65520.0, -65520.0, 1e300, 5e-324]
    x = np.concatenate([every, ties, np.nextafter(ties, -np.inf), np.nextafter(ties, np.inf), edges])
    got = x.copy()
    round_halves(got, np.empty((2, x.size)))
    np.testing.assert_array_equal(got, half_round(x))


def encoder(layers: int = 2) -> Trace:
    b = TraceBuilder("net")
    h = emit_encoder(b, EncoderSpec(input=11, layers=layers, cells=16, bidirectional=True, source="test"), FRAMES)
    spec = JointSpec(combine="multiply", size=8, activation="tanh", outputs=5, source="test")
    stack = declare_stack(
        b, "prediction", LstmStackSpec(vocabulary=7, embedding=4, layers=1, cells=16, source="test"), 1
    )
    joint = Joint.declare(b, spec, 32, 16, FRAMES, 1)
    joint.project_encoder(b, h, FRAMES, "joint.encoder_projection")
    stack.step(b, 1)
    joint.project_prediction(b, stack.layers[0].h, 1, "joint.prediction_projection")
    joint.step(b, 1)
    return b.build()


def parameters(trace: Trace) -> tuple[dict[str, Array], dict[str, Quantizer]]:
    """Codes and grids where the format is an integer one, reals elsewhere."""
    rng = np.random.default_rng(0)
    codes, grids = {}, {}
    for t in trace.tensors:
        reals = rng.uniform(-2.5, 2.5, t.shape) / 4
        if t.role == Role.WEIGHT and t.format == "int4":
            grids[t.name] = Sawb().calibrate(reals)
            codes[t.name] = grids[t.name].quantize(reals)
            grids[t.name + ".input"] = BoundAware(1.0).calibrate()
        elif t.role in (Role.WEIGHT, Role.BIAS):
            codes[t.name] = reals
        elif t.role == Role.ACTIVATION and t.format == "int4":
            grids[t.name] = BoundAware(1.0).calibrate()
    return codes, grids


def inputs() -> dict[str, Array]:
    return {X: np.random.default_rng(1).standard_normal((FRAMES, 11)), "prediction.embedding.labels": np.array([3]),
            "prediction.layer0.h": np.zeros((1, 16)), "prediction.layer0.c": np.zeros((1, 16))}  # fmt: skip


def lstm_in_halves(codes: dict[str, Array], name: str, x: Array, reverse: bool) -> Array:
    """An FP16 layer written out: half products, tables, every state rounded to half."""
    sigmoid, tanh = fixed_table("sigmoid"), fixed_table("tanh")
    w = {part: codes[f"encoder.layer0.{name}_{part}"] for part in ("wx", "wh", "bias_x", "bias_h")}
    gates_x = half_matmul(x, w["wx"], w["bias_x"]).astype(np.float64)
    h, c, out = np.zeros((1, 16)), np.zeros(16), np.zeros((len(x), 16), np.float16)
    for t in range(len(x))[:: -1 if reverse else 1]:
        i, f, g, o = np.split(gates_x[t] + half_matmul(h, w["wh"], w["bias_h"])[0].astype(np.float64), 4)
        c = half_round(sigmoid(f) * c + sigmoid(i) * tanh(g)).astype(np.float64)
        out[t] = half_round(sigmoid(o) * tanh(c))
        h = out[t : t + 1]
    return out


def test_the_published_mixed_network() -> None:
    """First layer and joint in FP16, the others in INT4, states in FP16: each part by its definition."""
    trace = encoder().with_precision(load_policy("int4-2021"))
    codes, grids = parameters(trace)
    executable = Executable(trace, codes, grids)
    out = executable.run(inputs())
    x = half_round(inputs()[X])
    for name in ("forward", "backward"):
        expected = lstm_in_halves(codes, name, x, name == "backward")
        got = out[f"encoder.layer0.{name}_h"]
        assert got.dtype == np.float16
        np.testing.assert_array_equal(got, expected)
        assert len(np.unique(out[f"encoder.layer1.{name}_h"])) > 5
        assert out[f"encoder.layer1.{name}_h"].dtype == np.int8
        assert out[f"encoder.layer1.{name}_c"].dtype == np.float16
    h = np.concatenate([out[f"encoder.layer1.{d}_h"] for d in ("forward", "backward")], axis=-1)
    values = grids["encoder.layer1.forward_h"].dequantize(h)
    w, bias = (codes[f"joint.encoder_projection.{part}"] for part in ("weight", "bias"))
    np.testing.assert_array_equal(out["joint.encoder_projection.out"], half_matmul(half_round(values), w, bias))
    sides = [out[f"joint.{side}_projection.out"].astype(np.float64) for side in ("encoder", "prediction")]
    hidden = half_round(fixed_table("tanh")(sides[0][:1] * sides[1]))
    np.testing.assert_array_equal(out["joint.output.hidden"][:1], hidden)
    np.testing.assert_array_equal(out["prediction.embedding.row"], half_round(codes["prediction.embedding.table"][[3]]))
    again = executable.run(inputs(), forced={name: out[name] for name in out if name.endswith("_h")})
    assert all(np.array_equal(again[name], out[name]) for name in out)


@pytest.mark.parametrize("cell", [None, Quantizer(np.asarray(2.0**-11), 16)], ids=["fp16", "int16"])
def test_the_compiled_loop_with_states_in_halves(cell: Quantizer | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """INT4 layers whose gate sums, and cell states but for a grid, are halves: as the readable steps have them."""
    b = TraceBuilder("net")
    emit_encoder(b, EncoderSpec(input=11, layers=1, cells=37, bidirectional=True, source="test"), 80)
    trace = b.build().with_precision(uniform_policy(NumberFormat.parse("int4")))
    codes, grids = parameters(trace)
    if cell is not None:
        grids |= {f"encoder.layer0.{d}_c": cell for d in ("forward", "backward")}
    x = {X: np.random.default_rng(2).standard_normal((80, 11))}
    executable = Executable(trace, codes, grids)
    fast = executable.run(x)
    asked = []
    monkeypatch.setattr(recurrence, "compiled", lambda *a: asked.append(compiled(*a)))
    readable = executable.run(x)
    assert asked == [True, True]
    for name, array in readable.items():
        np.testing.assert_array_equal(fast[name], array)
    plain = Executable(replace(trace, tensors=tuple(replace(t, format="fp32") for t in trace.tensors)), codes, grids)
    assert any((plain.run(x)[name] != array).any() for name, array in fast.items())


def test_a_mixed_network_is_saved(tmp_path: Path) -> None:
    trace = encoder(1).with_precision(load_policy("int4-2021"))
    executable = Executable(trace, *parameters(trace))
    save_executable(executable, tmp_path / "mixed")
    loaded, out = load_executable(tmp_path / "mixed"), executable.run(inputs())
    assert all(np.array_equal(array, out[name]) for name, array in loaded.run(inputs()).items())
    assert loaded.parameters()["encoder.layer0.forward_wx"].dtype == np.float16


def test_fp32_stays_float64() -> None:
    """Without a precision, and with fp32, real layers are computed in float64; with fp16 they are not."""
    plain = encoder(1)
    codes, _ = parameters(plain)
    traces = [plain, *(plain.with_precision(uniform_policy(NumberFormat.parse(f))) for f in ("fp32", "fp16"))]
    outs = [Executable(trace, codes, {}).run(inputs()) for trace in traces]
    name = "encoder.layer0.forward_h"
    assert [out[name].dtype for out in outs] == [np.float64, np.float64, np.float16]
    np.testing.assert_array_equal(outs[0][name], outs[1][name])
    np.testing.assert_allclose(outs[2][name], outs[0][name], atol=3e-3)
    assert (outs[2][name] != half_round(outs[0][name])).any()


def test_a_grid_comes_before_the_format() -> None:
    """A tensor with a quantizer holds codes, whatever its format."""
    trace = encoder(1).with_precision(uniform_policy(NumberFormat.parse("fp16")))
    codes, _ = parameters(trace)
    grid = BoundAware(1.0, 8).calibrate()
    out = Executable(trace, codes, {"encoder.layer0.forward_h": grid}).run(inputs())
    assert (out["encoder.layer0.forward_h"].dtype, out["encoder.layer0.backward_h"].dtype) == (np.int8, np.float16)


def test_what_halves_refuse() -> None:
    trace = encoder(1).with_precision(uniform_policy(NumberFormat.parse("fp16")))
    codes, _ = parameters(trace)
    name = "encoder.layer0.forward_wx"
    with pytest.raises(HwsimError, match=rf"{name}: FP16 weights must be .* within 65504, got shape \(11, 64\) and up"):
        Executable(trace, codes | {name: np.full((11, 64), 1e6)}, {})
    with pytest.raises(HwsimError, match="a bias in FP16 must be within 65504, got 70000"):
        half_projection("w", np.ones((2, 3)), np.array([0.0, 7e4, 0.0]))
    grown = replace(trace, tensors=tuple(replace(t, format="fp32") if t.name == name else t for t in trace.tensors))
    assert Executable(grown, codes | {name: np.full((11, 64), 1e6)}, {}).projections[name].outputs == 64
