"""Recurrent loops beside the LSTM on int8 codes: GRUs, other storage of h, and LiteRT's integer LSTM."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hwsim.errors import HwsimError
from hwsim.execute.executor import Executable
from hwsim.execute.recurrence import LstmRules
from hwsim.execute.reference.lstm_8x8_16 import Int8Tensor, Lstm8x8x16
from hwsim.execute.reference.recurrent import GruLayer as ReferenceGru
from hwsim.execute.reference.recurrent import IntegerProjection, LstmLayer, Pointwise, run_layer
from hwsim.execute.semantics import profile
from hwsim.execute.store import load_executable, save_executable
from hwsim.extract.encoder_spec import EncoderSpec
from hwsim.extract.gru import GruLayer
from hwsim.extract.lstm import LstmLayer as LstmTensors
from hwsim.extract.rnnt import emit_encoder
from hwsim.numerics.calibration import BoundAware, MinMax, Sawb
from hwsim.numerics.quantizers import Quantizer
from hwsim.numerics.tables import fixed_table
from hwsim.trace import Kind, Role, Trace, TraceBuilder
from hwsim.trace.builder import Operand

Array = NDArray[Any]
FRAMES, INPUTS, CELLS = 60, 13, 22
X = "net.x"
INT8 = BoundAware(1.0, 8).calibrate()
INT16 = Quantizer(np.asarray(2.0**-12), 16)
UINT8 = Quantizer(np.asarray(1 / 100), 8, np.asarray(117), signed=False)
CELL = Quantizer(np.asarray(2.0**-11), 16)


def network(
    cell: type[GruLayer] | type[LstmTensors], directions: tuple[str, ...] = ("",), frames: int = FRAMES
) -> Trace:
    b = TraceBuilder("net")
    x = b.tensor(X, Role.ACTIVATION, (frames, INPUTS), "net")
    layers = [cell.declare(b, "net", INPUTS, CELLS, frames, prefix=d, steps=True) for d in directions]
    for branch, layer in enumerate(layers):
        layer.project_input(b, [x], frames, branch)
    with b.loop(frames):
        for branch, layer in enumerate(layers):
            layer.step(b, 1, branch)
    return b.build()


def parameters(trace: Trace, hidden: Quantizer | None, input: Quantizer | None = None, weights: Any = None) -> Any:
    rng = np.random.default_rng(0)
    codes, grids = {}, {X: input or BoundAware(1.25, 8).calibrate()}
    for t in trace.tensors:
        reals = rng.uniform(-2.5, 2.5, t.shape) / np.sqrt(CELLS)
        if t.role == Role.WEIGHT:
            grids[t.name] = (weights or Sawb()).calibrate(reals)
            codes[t.name] = grids[t.name].quantize(reals)
        elif t.role == Role.BIAS:
            codes[t.name] = reals
        elif t.role == Role.ACTIVATION and t.name != X and hidden is not None:
            grids[t.name] = hidden
    return codes, grids


def features() -> Array:
    return np.random.default_rng(1).standard_normal((FRAMES, INPUTS))


def by_reference(kind: Any, codes: Any, grids: Any, d: str, hidden: Quantizer, cell: Quantizer | None = None) -> Any:
    """The reference layer over the values of x: unquantized recurrence only in `hidden`."""
    x = grids[X].fake_quantize(features())[:, None]
    layer = kind(
        IntegerProjection(codes[f"net.{d}wx"], grids[X], grids[f"net.{d}wx"], codes[f"net.{d}bias_x"]),
        IntegerProjection(codes[f"net.{d}wh"], hidden, grids[f"net.{d}wh"], codes[f"net.{d}bias_h"]),
        Pointwise(hidden=hidden, cell=cell),
    )
    return run_layer(layer, x, reverse=d == "backward_")


@pytest.mark.parametrize(
    "hidden", [INT8, INT16, UINT8, BoundAware().calibrate()], ids=["int8", "int16", "uint8", "int4"]
)
@pytest.mark.parametrize("directions", [("",), ("forward_", "backward_")])
def test_a_gru_equals_the_reference(hidden: Quantizer, directions: tuple[str, ...]) -> None:
    trace = network(GruLayer, directions)
    codes, grids = parameters(trace, hidden)
    executable = Executable(trace, codes, grids)
    outputs = executable.run({X: features()})
    assert executable.outputs == tuple(outputs) == tuple(f"net.{d}h" for d in directions)
    assert executable.cells == ()
    assert executable.states == {}
    assert executable.reversed_outputs == (("net.backward_h",) if len(directions) > 1 else ())
    for d in directions:
        expected = hidden.quantize(by_reference(ReferenceGru, codes, grids, d, hidden)[0][:, 0])
        assert len(np.unique(expected)) > 8
        np.testing.assert_array_equal(outputs[f"net.{d}h"], expected)


@pytest.mark.parametrize("cell", [None, CELL], ids=["real", "int16"])
@pytest.mark.parametrize("hidden", [INT16, UINT8], ids=["int16", "uint8"])
def test_an_lstm_with_h_of_another_storage(hidden: Quantizer, cell: Quantizer | None) -> None:
    trace = network(LstmTensors, ("forward_", "backward_"))
    codes, grids = parameters(trace, hidden)
    cells = {} if cell is None else {f"net.{d}c": cell for d in ("forward_", "backward_")}
    outputs = Executable(trace, codes, grids | cells).run({X: features()})
    for d in ("forward_", "backward_"):
        expected, (_, c) = by_reference(LstmLayer, codes, grids, d, hidden, cell)
        assert outputs[f"net.{d}h"].dtype == (np.uint8 if hidden is UINT8 else np.int16)
        np.testing.assert_array_equal(outputs[f"net.{d}h"], hidden.quantize(expected[:, 0]))
        np.testing.assert_array_equal(outputs[f"net.{d}c"], c if cell is None else cell.quantize(c))


def test_a_gru_without_grids_is_the_real_one() -> None:
    trace = network(GruLayer)
    reals, _ = parameters(trace, None, weights=MinMax(8))
    codes = {name: np.asarray(array, np.float64) / 99 for name, array in reals.items()}
    got = Executable(trace, codes, {}).run({X: features()})["net.h"]
    sigmoid, tanh, h = fixed_table("sigmoid"), fixed_table("tanh"), np.zeros(CELLS)
    for t, x in enumerate(features()):
        gx, gh = (v @ codes[f"net.w{p}"] + codes[f"net.bias_{p}"] for v, p in ((x, "x"), (h, "h")))
        (xr, xz, xn), (hr, hz, hn) = np.split(gx, 3), np.split(gh, 3)
        z = sigmoid(xz + hz)
        h = (1 - z) * tanh(xn + sigmoid(xr + hr) * hn) + z * h
        np.testing.assert_allclose(got[t], h, atol=1e-3)
    assert got.std() > 0.05


@pytest.mark.parametrize("hidden", [INT8, UINT8], ids=["int8", "uint8"])
def test_teacher_forcing_of_a_gru(hidden: Quantizer) -> None:
    """Forced, every step reads what it is given; its own codes change nothing, and ties are told."""
    trace = network(GruLayer, ("forward_", "backward_"))
    executable = Executable(trace, *parameters(trace, hidden))
    free = executable.run({X: features()})
    own = executable.run({X: features()}, forced=free)
    assert all(np.array_equal(own[name], free[name]) for name in free)
    other = {name: np.roll(codes, 1, axis=0) for name, codes in free.items()}
    forced = executable.run({X: features()}, forced=other)
    assert all((forced[name] != free[name]).any() for name in free)
    steps = executable.unrounded({X: features()}, free)
    for name, codes in free.items():
        np.testing.assert_array_equal(np.clip(np.rint(steps[name]), *hidden.code_range), codes)


@pytest.mark.parametrize("kind", [GruLayer, LstmTensors])
def test_other_semantics(kind: Any) -> None:
    """16-bit sums that wrap change codes; a machine that sums exactly does not."""
    trace = network(kind)
    codes, grids = parameters(trace, INT8, weights=MinMax(8))
    plain = Executable(trace, codes, grids).run({X: features()})["net.h"]
    same = Executable(trace, codes, grids, semantics=profile("onnx")).run({X: features()})["net.h"]
    narrow = replace(profile("rapid"), accumulator_chunk=0)
    other = Executable(trace, codes, grids, semantics=narrow).run({X: features()})["net.h"]
    np.testing.assert_array_equal(plain, same)
    assert (plain != other).any()


def litert(directions: tuple[str, ...] = ("",), frames: int = FRAMES) -> Any:
    """A trace of int8 LSTMs, its codes and grids as LiteRT has them, and the reference layer of each direction."""
    trace = network(LstmTensors, directions, frames)
    rng, codes, layers = np.random.default_rng(5), {}, {}
    grids = {X: Quantizer(np.asarray(np.float32(0.03), np.float64), 8, np.asarray(-7))}
    for at, d in enumerate(directions):
        hidden = Int8Tensor(float(np.float32(1 / 120)), 5)
        layer = Lstm8x8x16(
            wx=rng.integers(-127, 128, (4, INPUTS, CELLS)), wh=rng.integers(-127, 128, (4, CELLS, CELLS)),
            wx_scale=rng.uniform(0.001, 0.004, 4).astype(np.float32).astype(np.float64),
            wh_scale=rng.uniform(0.001, 0.006, 4).astype(np.float32).astype(np.float64),
            bias=rng.integers(-3000, 3000, (4, CELLS)), input=Int8Tensor(float(grids[X].scale), -7), hidden=hidden,
            cell_shift=11 + at,
        )  # fmt: skip
        layers[d] = layer
        for part, scale in (("wx", layer.wx_scale), ("wh", layer.wh_scale)):
            grids[f"net.{d}{part}"] = Quantizer(np.repeat(scale, CELLS), 8)
            codes[f"net.{d}{part}"] = np.concatenate(list(getattr(layer, part)), axis=1)
        steps = np.repeat(layer.wx_scale * layer.input.scale, CELLS)
        share = rng.integers(-500, 500, 4 * CELLS)
        codes[f"net.{d}bias_x"], codes[f"net.{d}bias_h"] = (layer.bias.reshape(-1) - share) * steps, share * steps
        grids[f"net.{d}h"] = Quantizer(np.asarray(hidden.scale), 8, np.asarray(hidden.zero_point))
        grids[f"net.{d}c"] = Quantizer(np.asarray(2.0**-layer.cell_shift), 16)
    return trace, codes, grids, layers


@pytest.mark.parametrize("directions", [("",), ("forward_", "backward_")])
def test_the_profile_of_litert_runs_its_integer_lstm(directions: tuple[str, ...]) -> None:
    frames = 150
    trace, codes, grids, layers = litert(directions, frames)
    executable = Executable(trace, codes, grids, semantics=profile("tflite-lstm"))
    x = np.random.default_rng(6).integers(-128, 128, (frames, INPUTS))
    outputs = executable.run({X: x})
    training = Executable(trace, codes, grids).run({X: x})
    for d, layer in layers.items():
        order = slice(None, None, -1 if d == "backward_" else 1)
        expected, c = layer.run(x[order, None])
        assert expected.std() > 5
        assert (outputs[f"net.{d}h"].dtype, outputs[f"net.{d}c"].dtype) == (np.int8, np.int16)
        np.testing.assert_array_equal(outputs[f"net.{d}h"], expected[order, 0])
        np.testing.assert_array_equal(outputs[f"net.{d}c"], c)
        assert (training[f"net.{d}h"] != expected[order, 0]).any()
    forced = executable.run({X: x}, forced={f"net.{d}h": outputs[f"net.{d}h"] for d in directions})
    assert all(np.array_equal(forced[name], outputs[name]) for name in outputs)
    steps = executable.unrounded({X: x}, {f"net.{d}h": outputs[f"net.{d}h"] for d in directions})
    for d in directions:
        assert np.abs(steps[f"net.{d}h"] - outputs[f"net.{d}h"]).max() < 0.51


def test_the_profile_of_litert_in_another_gate_order() -> None:
    """The same layer with its gates stored as i, o, f, g gives the same codes."""
    trace, codes, grids, layers = litert()
    order = np.concatenate([np.arange(CELLS) + CELLS * "ifgo".index(gate) for gate in "iofg"])
    codes = {name: np.ascontiguousarray(array[..., order]) for name, array in codes.items()}
    for part in ("wx", "wh"):
        grids[f"net.{part}"] = replace(grids[f"net.{part}"], scale=grids[f"net.{part}"].scale[order])
    rules, x = LstmRules(gate_order="iofg"), np.random.default_rng(7).integers(-128, 128, (FRAMES, INPUTS))
    got = Executable(trace, codes, grids, rules=rules, semantics=profile("tflite-lstm")).run({X: x})["net.h"]
    np.testing.assert_array_equal(got, layers[""].run(x[:, None])[0][:, 0])


def test_what_the_profile_of_litert_refuses() -> None:
    trace, codes, grids, _ = litert()
    four = np.repeat(grids["net.wx"].scale, 1)
    four[1] *= 2
    wide = np.full(codes["net.wx"].shape, -128)
    for changed, message in (
        ({X: INT16}, r"net, profile tflite-lstm: x must be int8 with one scale, got -32768 to 32767 with scale"),
        ({"net.h": BoundAware().calibrate()}, "h must be int8 with one scale, got -7 to 7 with scale"),
        ({"net.h": None}, "h must be int8 with one scale, got reals"),
        ({"net.c": None}, r"c must be int16 with a scale of 2\^-9 to 2\^-15, got reals"),
        (
            {"net.c": Quantizer(np.asarray(2.0**-8), 16)},
            r"c must be int16 .* got -32768 to 32767 with scale 0.00390625",
        ),
        ({"net.c": Quantizer(np.asarray(0.001), 16)}, r"c must be int16 .* with scale 0.001"),
        ({"net.wx": Quantizer(four, 8)}, "wx must have one scale for each gate, got 5 scales"),
        ({"net.wx": Quantizer(np.full((1, 4 * CELLS), 0.1), 8, group_size=INPUTS)}, "wx .* got groups of 13"),
        ({"net.wh": Quantizer(np.asarray(0.1), 8, np.asarray(3))}, "wh must hold codes of -127 to 127 around a zero"),
        ({"net.gates_x": INT16}, "net.gates_x must have no grid of its own"),
        ({"net.wh.input": replace(INT8, narrow=False)}, "h must meet its weights on its own grid, got scales"),
        ({"net.wh.input": UINT8}, "the recurrent weights must read h as int8 codes"),
    ):
        chosen = {name: grid for name, grid in (grids | changed).items() if grid is not None}
        chosen |= {"net.wh.input": INT8} if "net.h" in changed and changed["net.h"] is None else {}
        with pytest.raises(HwsimError, match=message):
            Executable(trace, codes, chosen, semantics=profile("tflite-lstm"))
    with pytest.raises(HwsimError, match="wx must hold codes of -127 to 127 around a zero point of 0"):
        Executable(trace, codes | {"net.wx": wide}, grids, semantics=profile("tflite-lstm"))
    trace = network(GruLayer)
    with pytest.raises(HwsimError, match="tflite-lstm: its recurrent layers must be LSTMs, got a GRU"):
        Executable(trace, *parameters(trace, INT8), semantics=profile("tflite-lstm"))


def test_loops_that_are_not_recurrent_layers() -> None:
    b = TraceBuilder("t")
    x, h = (b.tensor(f"net.{name}", Role.ACTIVATION, (3, 4), "net") for name in "xh")
    w, y = b.tensor("net.w", Role.WEIGHT, (4, 12)), b.tensor("net.y", Role.STATE, (1, 12))
    with b.loop(3):
        b.matmul("net", [x], w, y, m=1)
        b.op(Kind.GRU, "net", [Operand(y, 12), Operand(y, 12), Operand(h, 4)], [Operand(h, 4)], m=1, n=4)
    with pytest.raises(HwsimError, match=r"\(GRU, layer net\) must read both gate sums and its state, and write its"):
        Executable(b.build(), {"net.w": np.zeros((4, 12))}, {})
    b = TraceBuilder("t")
    h, y = b.tensor("net.h", Role.ACTIVATION, (3, 4)), b.tensor("net.y", Role.STATE, (3, 12))
    b.op(Kind.GRU, "net", [Operand(y, 12), Operand(h, 4)], [Operand(h, 4)], m=3, n=4)
    with pytest.raises(
        HwsimError, match=r"\(GRU, layer net\) must read the gate sums of x and of h and h, and write h"
    ):
        Executable(b.build(), {}, {})


@pytest.mark.parametrize("name", ["training", "tflite-lstm"])
def test_recurrent_layers_are_saved(name: str, tmp_path: Path) -> None:
    """A GRU, and an LSTM under LiteRT's profile, come back as they were."""
    if name == "training":
        trace = network(GruLayer, ("forward_", "backward_"))
        executable = Executable(trace, *parameters(trace, UINT8))
    else:
        executable = Executable(*litert()[:3], semantics=profile(name))
    save_executable(executable, tmp_path / "saved")
    loaded, out = load_executable(tmp_path / "saved"), executable.run({X: features()})
    assert loaded.semantics == executable.semantics
    for key, array in loaded.run({X: features()}).items():
        assert array.dtype == out[key].dtype
        np.testing.assert_array_equal(array, out[key])


def test_one_step_as_litert_runs_it() -> None:
    """Outside a loop, three rows with their own int8 h and int16 c."""
    _, codes, grids, layers = litert()
    b = TraceBuilder("net")
    x = b.tensor(X, Role.ACTIVATION, (3, INPUTS), "net")
    layer = LstmTensors.declare(b, "net", INPUTS, CELLS, 3)
    layer.project_input(b, [x], 3)
    layer.step(b, 3)
    step = Executable(b.build(), codes, grids, semantics=profile("tflite-lstm"))
    rng = np.random.default_rng(8)
    values = rng.integers(-128, 128, (20, 3, INPUTS))
    expected, last = layers[""].run(values)
    states = {"net.h": np.full((3, CELLS), 5), "net.c": np.zeros((3, CELLS), int)}
    for t, row in enumerate(values):
        states = step.run({X: row, **states})
        np.testing.assert_array_equal(states["net.h"], expected[t])
    np.testing.assert_array_equal(states["net.c"], last)


def stacked_encoder(frames: int) -> Executable:
    """Two forward layers, the second at half the rate, with random INT4 weights."""
    spec = EncoderSpec(input=12, layers=2, cells=16, stack_before_layer=1, stack_factor=2, source="a test")
    builder = TraceBuilder("net")
    emit_encoder(builder, spec, frames)
    trace = builder.build()
    rng = np.random.default_rng(0)
    codes, grids = {}, {}
    for tensor in trace.tensors:
        if tensor.role in (Role.WEIGHT, Role.BIAS):
            codes[tensor.name] = values = rng.uniform(-0.5, 0.5, tensor.shape)
        if tensor.role == Role.WEIGHT:
            grids[tensor.name] = Sawb().calibrate(values)
            codes[tensor.name] = grids[tensor.name].quantize(values)
        elif tensor.role == Role.ACTIVATION:
            grids[tensor.name] = BoundAware(1.0).calibrate()
    return Executable(trace, codes, grids)


STREAMED = ("encoder.layer0.h", "encoder.layer0.c", "encoder.layer1.h", "encoder.layer1.c")


@pytest.mark.parametrize("frames", [1, 2, 7, 20])
def test_fewer_frames_are_the_same_network_on_a_shorter_utterance(frames: int) -> None:
    x = np.random.default_rng(1).standard_normal((frames, 12))
    long = stacked_encoder(24)
    assert long.rows == 24
    shorter, own = long.run({"encoder.input.features": x}), stacked_encoder(frames).run({"encoder.input.features": x})
    for name in STREAMED:
        np.testing.assert_array_equal(shorter[name], own[name])
    assert shorter["encoder.layer1.h"].shape == ((frames + 1) // 2, 16)


@pytest.mark.parametrize("piece", [2, 4, 10])
def test_a_stream_of_pieces_is_the_whole(piece: int) -> None:
    x = np.random.default_rng(1).standard_normal((20, 12))
    executable = stacked_encoder(20)
    whole = executable.run({"encoder.input.features": x})
    states, pieces = {}, []
    for start in range(0, 20, piece):
        out = executable.run({"encoder.input.features": x[start : start + piece]}, states=states)
        states = {name: out[name][-1:] for name in STREAMED}
        pieces.append(out["encoder.layer1.h"])
    np.testing.assert_array_equal(np.concatenate(pieces), whole["encoder.layer1.h"])
    forced = executable.run({"encoder.input.features": x[:4]}, forced={}, states=states)
    np.testing.assert_array_equal(
        forced["encoder.layer1.h"], executable.run({"encoder.input.features": x[:4]}, states=states)["encoder.layer1.h"]
    )
    assert not np.array_equal(forced["encoder.layer1.h"], whole["encoder.layer1.h"][:2])


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ({"encoder.layer2.h": np.zeros((1, 16))}, "unknown state 'encoder.layer2.h'"),
        ({"encoder.layer0.h": np.zeros((2, 16))}, "encoder.layer0.h: the state must be of shape (1, 16), got (2, 16)"),
        ({"encoder.layer0.h": np.zeros((1, 16))},
         "encoder.layer0: the layer must be given encoder.layer0.h and encoder.layer0.c, got encoder.layer0.h"),
    ],
)  # fmt: skip
def test_states_that_do_not_fit_are_refused(states: dict[str, np.ndarray], message: str) -> None:
    executable = stacked_encoder(4)
    with pytest.raises(HwsimError, match=f"^{re.escape(message)}"):
        executable.run({"encoder.input.features": np.zeros((4, 12))}, states=states)
