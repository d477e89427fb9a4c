"""The executor against the readable reference, code for code, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hwsim.errors import HwsimError
from hwsim.execute.executor import Executable
from hwsim.execute.recurrence import LstmRules, StateGrids, compiled
from hwsim.execute.reference.linear import linear
from hwsim.execute.reference.recurrent import IntegerProjection, LstmLayer, Pointwise, run_bidirectional
from hwsim.execute.semantics import Semantics
from hwsim.extract.encoder_spec import EncoderSpec
from hwsim.extract.rnnt import emit_encoder
from hwsim.numerics.calibration import BoundAware, MinMax, NativeQat, Pact, Sawb
from hwsim.numerics.quantizers import Quantizer
from hwsim.numerics.tables import fixed_table
from hwsim.trace import Function, Kind, Role, Trace, TraceBuilder
from hwsim.trace.builder import Operand

Array = NDArray[Any]
ROOT = Path(__file__).resolve().parents[2]
FRAMES, INPUTS, CELLS = 37, 21, 45
X = "encoder.input.features"
SPEC = EncoderSpec(input=INPUTS, layers=2, cells=CELLS, bidirectional=True, source="test")


def encoder(spec: EncoderSpec = SPEC, frames: int = FRAMES) -> Trace:
    b = TraceBuilder("encoder")
    emit_encoder(b, spec, frames)
    return b.build()


def parameters(
    trace: Trace, weights: Any = None, hidden: Quantizer | None = None, input: Quantizer | None = None
) -> tuple[dict[str, Array], dict[str, Quantizer]]:
    rng = np.random.default_rng(0)
    codes, grids = {}, {}
    for t in trace.tensors:
        reals = rng.uniform(-2.5, 2.5, t.shape) / np.sqrt(CELLS)
        if t.role == Role.WEIGHT:
            grids[t.name] = (weights or Sawb()).calibrate(reals)
            codes[t.name] = grids[t.name].quantize(reals)
        elif t.role == Role.BIAS:
            codes[t.name] = reals
        elif t.role == Role.ACTIVATION:
            grids[t.name] = hidden or BoundAware().calibrate()
            if t.name == X:
                grids[t.name] = input or BoundAware(1.25).calibrate()
    return codes, grids


def by_reference(
    trace: Trace, codes: dict[str, Array], grids: dict[str, Quantizer], x: Array, cell: Quantizer | None = None
) -> Array:
    """Hidden codes of the last layer, (T, 2H)."""
    values = grids[X].dequantize(grids[X].quantize(x))[:, None]
    source = grids[X]
    for index in range(SPEC.layers):
        layers = []
        for direction in ("forward_", "backward_"):
            name = f"encoder.layer{index}.{direction}"
            hidden = grids[f"{name}h"]
            layers.append(LstmLayer(
                IntegerProjection(codes[f"{name}wx"], source, grids[f"{name}wx"], codes[f"{name}bias_x"]),
                IntegerProjection(codes[f"{name}wh"], hidden, grids[f"{name}wh"], codes[f"{name}bias_h"]),
                Pointwise(hidden=hidden, cell=cell),
            ))  # fmt: skip
        values, source = run_bidirectional(*layers, values), hidden
    return hidden.quantize(values[:, 0])


def joined(outputs: dict[str, Array], layer: int = 1) -> Array:
    return np.concatenate([outputs[f"encoder.layer{layer}.{d}_h"] for d in ("forward", "backward")], axis=-1)


def pot(step: float, bits: int, **more: Any) -> Quantizer:
    return Quantizer(np.asarray(step), bits, **more)


@pytest.mark.parametrize(
    ("weights", "hidden", "input", "cell"),
    [
        (Sawb(), None, None, None),
        (Sawb(8), BoundAware(1.0, 8).calibrate(), Pact(-1.0, 2.0, 8).calibrate(), None),
        (MinMax(4, axis=1), pot(2.0**-7, 8, ties="half_up"), MinMax(8, symmetric=False).calibrate([-2, 3]), None),
        (NativeQat(4, axis=1), pot(2.0**-3, 4, form="reciprocal", ties="half_away"), Pact(0, 2).calibrate(), None),
        (Sawb(2, zero_aligned=False), pot(2.0**-3, 4), pot(2.0**-12, 16), None),
        (Sawb(), pot(2.0**-3, 4, ties="half_down"), pot(2.0**-12, 16), pot(2.0**-11, 16)),
        (Sawb(), BoundAware(unit=True).calibrate(), None, pot(2.0**-8, 12, ties="toward_zero")),
    ],
)
def test_equals_the_reference(
    weights: Any, hidden: Quantizer | None, input: Quantizer | None, cell: Quantizer | None
) -> None:
    trace = encoder()
    codes, grids = parameters(trace, weights, hidden, input)
    x = np.random.default_rng(1).standard_normal((FRAMES, INPUTS))
    expected_codes, expected_grids = dict(codes), dict(grids)
    for name, grid in grids.items():
        if grid.half_step:
            expected_codes[name], expected_grids[name] = grid.odd_codes(codes[name])
    expected = by_reference(trace, expected_codes, expected_grids, x, cell)
    cells = {t.name: cell for t in trace.tensors if t.name.endswith("_c") and cell is not None}
    executable = Executable(trace, codes, grids | cells)
    got = joined(executable.run({X: x}))
    assert got.dtype == np.int8
    assert len(np.unique(expected)) > 5
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(joined(executable.run({X: grids[X].quantize(x)})), expected)


def test_teacher_forcing_with_its_own_codes_changes_nothing() -> None:
    trace = encoder()
    executable = Executable(trace, *parameters(trace))
    x = np.random.default_rng(2).standard_normal((FRAMES, INPUTS))
    free = executable.run({X: x})
    forced = executable.run({X: x}, forced={k: v for k, v in free.items() if k.endswith("_h")})
    assert all(np.array_equal(forced[name], free[name]) for name in free)


def test_other_semantics_run_by_the_reference() -> None:
    trace = encoder(frames=5)
    codes, grids = parameters(trace, Sawb(8), BoundAware(1.0, 8).calibrate(), BoundAware(1.25, 8).calibrate())
    x = np.random.default_rng(3).standard_normal((5, INPUTS))
    plain = Executable(trace, codes, grids).run({X: x})
    same = Executable(trace, codes, grids, semantics=Semantics("wide", accumulator_chunk=7)).run({X: x})
    narrow = Executable(trace, codes, grids, semantics=Semantics("narrow", accumulator_bits=16)).run({X: x})
    assert np.array_equal(joined(plain), joined(same))
    assert not np.array_equal(joined(plain), joined(narrow))


def test_groups_and_real_layers_take_the_readable_path() -> None:
    trace = encoder(EncoderSpec(input=32, layers=1, cells=64, source="test"), 9)
    codes, grids = parameters(trace)
    reals = np.random.default_rng(4).uniform(-1, 1, (64, 256)) / 8
    name = "encoder.layer0.wh"
    grids[name] = Quantizer(np.abs(reals).reshape(2, 32, 256).max(axis=1) / 7, 4, narrow=True, group_size=32)
    codes[name] = grids[name].quantize(reals)
    x = np.random.default_rng(5).standard_normal((9, 32))
    executable = Executable(trace, codes, grids)
    assert not compiled(executable.projections[name], StateGrids(grids["encoder.layer0.h"]), LstmRules())
    as_codes = executable.run({X: x})["encoder.layer0.h"]
    del grids["encoder.layer0.wx"]
    codes["encoder.layer0.wx"] = np.zeros((32, 256))
    silent = Executable(trace, codes, grids).run({X: x})["encoder.layer0.h"]
    assert not np.array_equal(as_codes, silent)


def test_stacked_frames() -> None:
    spec = EncoderSpec(input=12, layers=2, cells=16, stack_before_layer=1, stack_factor=2, source="test")
    trace = encoder(spec, 7)
    executable = Executable(trace, *parameters(trace))
    assert executable.run({X: np.ones((7, 12))})["encoder.layer1.h"].shape == (4, 16)


def joint(function: Function = Function.ADD_TANH) -> Trace:
    b = TraceBuilder("joint")
    names = ("labels", "features", "row", "side", "hidden", "logits")
    shapes = ((6,), (6, 20), (6, 8), (6, 8), (6, 8), (6, 5))
    roles = (Role.STATE, Role.ACTIVATION, Role.ACTIVATION, Role.STATE, Role.ACTIVATION, Role.STATE)
    t = {n: b.tensor(f"joint.{n}", r, s) for n, s, r in zip(names, shapes, roles, strict=True)}
    table, first = b.tensor("joint.table", Role.WEIGHT, (9, 8)), b.tensor("joint.first", Role.WEIGHT, (20, 8))
    last, bias = b.tensor("joint.last", Role.WEIGHT, (8, 5)), b.tensor("joint.bias", Role.BIAS, (5,))
    b.op(Kind.LOOKUP, "joint", [Operand(table, 8), Operand(t["labels"], 1)], [Operand(t["row"], 8)], m=6, n=8)
    b.matmul("joint", [t["features"]], first, t["side"], m=6)
    sides = [Operand(t["side"], 8), Operand(t["row"], 8)]
    b.op(Kind.ELEMENTWISE, "joint", sides, [Operand(t["hidden"], 8)], m=6, n=8, function=function)
    b.matmul("joint", [t["hidden"]], last, t["logits"], m=6, bias=bias)
    b.op(Kind.SOFTMAX, "joint", [Operand(t["logits"], 5)], [Operand(t["logits"], 5)], m=6, n=5)
    return b.build()


def test_lookup_linear_elementwise_and_softmax() -> None:
    rng, trace = np.random.default_rng(6), joint()
    reals = {f"joint.{n}": rng.standard_normal(s) for n, s in (("table", (9, 8)), ("first", (20, 8)), ("last", (8, 5)))}
    grids = {name: Sawb().calibrate(w) for name, w in reals.items()}
    codes = {name: grids[name].quantize(w) for name, w in reals.items()}
    features, hidden, bias = BoundAware(2.0, 8).calibrate(), BoundAware(1.0, 8).calibrate(), rng.standard_normal(5)
    x, labels = rng.standard_normal((6, 20)), np.array([0, 8, 3, 3, 1, 7])
    executable = Executable(trace, codes | {"joint.bias": bias},
                            grids | {"joint.features": features, "joint.hidden": hidden})  # fmt: skip
    assert executable.inputs == ("joint.labels", "joint.features")
    outputs = executable.run({"joint.features": x, "joint.labels": labels})
    sums = features.quantize(x) @ codes["joint.first"]
    side = sums * (grids["joint.first"].scale * features.scale)
    row = grids["joint.table"].dequantize(codes["joint.table"][labels])
    wanted = hidden.quantize(fixed_table("tanh")(side + row))
    np.testing.assert_array_equal(outputs["joint.hidden"], wanted)
    np.testing.assert_allclose(np.exp(outputs["joint.logits"]).sum(axis=1), 1, rtol=1e-12)
    logits = BoundAware(8.0, 8).calibrate()
    codes_only = Executable(trace, codes | {"joint.bias": bias}, grids | {
        "joint.features": features, "joint.hidden": hidden, "joint.row": grids["joint.table"], "joint.logits": logits,
    })  # fmt: skip
    assert np.array_equal(codes_only.run({"joint.features": x, "joint.labels": labels})["joint.hidden"], wanted)
    assert linear(wanted, codes["joint.last"], hidden, grids["joint.last"], logits, bias).shape == (6, 5)
    with pytest.raises(HwsimError, match=r"labels must be 0 to 8, got 9"):
        executable.run({"joint.features": x, "joint.labels": labels + 1})


def test_what_it_refuses() -> None:
    trace = encoder()
    codes, grids = parameters(trace)
    name = "encoder.layer0.forward_wx"
    missing = {k: v for k, v in codes.items() if k != name}
    with pytest.raises(HwsimError, match=r"codes must hold every weight and bias, got no encoder.layer0.forward_wx"):
        Executable(trace, missing, grids)
    with pytest.raises(HwsimError, match=r"unknown tensor 'encoder.layer0.forward_w'; nearest: encoder.layer0"):
        Executable(trace, codes | {"encoder.layer0.forward_w": codes[name]}, grids)
    with pytest.raises(HwsimError, match="weight codes must be -7 to 7, got 8"):
        Executable(trace, codes | {name: np.full(codes[name].shape, 8)}, grids)
    with pytest.raises(HwsimError, match=r"codes must be of shape \(21, 180\), got \(20, 180\)"):
        Executable(trace, codes | {name: codes[name][1:]}, grids)
    with pytest.raises(HwsimError, match="must fit int8, uint8 or int16"):
        Executable(trace, codes, grids | {X: replace(grids[X], bits=17)})
    executable = Executable(trace, codes, grids)
    x = np.zeros((FRAMES, INPUTS))
    for inputs, message in (
        ({"x": x}, "unknown input 'x'"),
        ({}, "inputs must hold encoder.input.features, got no"),
        ({X: np.zeros((38, 21))}, "must have 1 to 37 rows, got 38"),
        ({X: x[:, 1:]}, r"must be of shape \(37, 21\), got \(37, 20\)"),
        ({X: x * np.nan}, "values must be finite"),
        ({X: np.full(x.shape, 8)}, "must be -7 to 7, got 8"),
    ):
        with pytest.raises(HwsimError, match=message):
            executable.run(inputs)


def test_an_operation_that_is_not_executed_is_named() -> None:
    b = TraceBuilder("t")
    scores = b.tensor("search.best.scores", Role.STATE, (1, 8))
    b.op(Kind.TOPK, "search.best", [Operand(scores, 8)], [], m=1, k=4, n=8)
    with pytest.raises(HwsimError, match=r"operation 0 \(TOPK, layer search.best\) is not executed"):
        Executable(b.build(), {}, {})
    b = TraceBuilder("t")
    x = b.tensor("norm.x", Role.ACTIVATION, (1, 4))
    with b.loop(3):
        b.op(Kind.NORM, "norm", [Operand(x, 4)], [Operand(x, 4)], m=1, n=4)
    with pytest.raises(HwsimError, match=r"\(NORM, layer norm\) in a loop is not executed: a loop must be an LSTM"):
        Executable(b.build(), {}, {})


def test_weights_stay_packed() -> None:
    """57 M INT4 parameters must fit 1.3 times their bits; here a fortieth of them."""
    trace = encoder(EncoderSpec(input=340, layers=1, cells=320, bidirectional=True, source="test"), 2)
    executable = Executable(trace, *parameters(trace))
    bits = sum(t.elements * 4 for t in trace.tensors if t.role == Role.WEIGHT)
    stored = sum(p.packed.nbytes for p in executable.projections.values())  # type: ignore[union-attr]
    assert 8 * stored <= 1.3 * bits
    assert all(p.codes is None for p in executable.projections.values())  # type: ignore[union-attr]


CACHED = """
import sys
import numpy as np
from dataclasses import replace
from hwsim.execute import matmul, pack
from hwsim.execute.executor import Executable
from hwsim.execute.semantics import TRAINING
from hwsim.numerics.calibration import BoundAware, Sawb
from tests.execute.test_executor import INPUTS, FRAMES, encoder, parameters
for base in sys.argv[1:]:
    matmul(np.ones((1, 64), np.int8), pack(np.ones((64, 64), np.int8), base))
trace = encoder()
given = parameters(trace, Sawb(8), BoundAware(1.0, 8).calibrate(), BoundAware(1.25, 8).calibrate())
x = {"encoder.input.features": np.random.default_rng(0).standard_normal((FRAMES, INPUTS))}
readable = Executable(trace, *given, semantics=replace(TRAINING, name="readable"))
fast, slow = Executable(trace, *given).run(x), readable.run(x)
print(sum(int((fast[name] != slow[name]).sum()) for name in fast if name.endswith("h")))
"""


def test_compiled_code_of_another_process_calls_its_own_product(tmp_path: Path) -> None:
    """A loop from the cache on disk, in a process that has met products in other layouts before."""
    wrong = []
    for before in ([], ["int8", "int2"]):
        done = subprocess.run(
            [sys.executable, "-c", CACHED, *before], capture_output=True, text=True, check=True, cwd=ROOT,
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        )  # fmt: skip
        wrong.append(done.stdout.strip())
    assert wrong == ["0", "0"]
