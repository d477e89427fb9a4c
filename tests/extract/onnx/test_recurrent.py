"""LSTM and GRU layers against onnxruntime's float32: names, gate order, directions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwsim.extract.onnx import read_onnx
from hwsim.trace import Kind
from tests.extract.onnx.models import F32, FLOAT, I8, U8, Model, computed, executed

FRAMES, INPUTS, CELLS = 40, 24, 32


def weights(model: Model, rng: np.random.Generator, name: str, gates: int, directions: int, inputs: int) -> list[str]:
    """W and R in int8 per channel, and B."""
    found = []
    for part, depth in (("w", inputs), ("r", CELLS)):
        shape = (directions, gates * CELLS, depth)
        codes = model.constant(f"{name}{part}", rng.integers(-127, 128, shape).astype(I8))
        scale = model.constant(f"{name}{part}s", rng.uniform(0.002, 0.005, gates * CELLS).astype(F32))
        zero = model.constant(f"{name}{part}z", np.zeros(gates * CELLS, I8))
        found.append(model.add("DequantizeLinear", [codes, scale, zero], axis=1))
    bias = rng.uniform(-0.5, 0.5, (directions, 2 * gates * CELLS)).astype(F32)
    return [*found, model.constant(f"{name}b", bias)]


def network_of(op: str, direction: str, rng: np.random.Generator, layers: int = 2) -> tuple[Model, str]:
    directions = 2 if direction == "bidirectional" else 1
    model = Model({"features": (FLOAT, ["T", 1, INPUTS])})
    value, width = "features", INPUTS
    for layer in range(layers):
        value = model.pair(value, f"/rnn{layer}/in", 0.0251 if layer == 0 else 1 / 127, U8(127))
        own = weights(model, rng, f"l{layer}", 4 if op == "LSTM" else 3, directions, width)
        more = {"linear_before_reset": 1} if op == "GRU" else {}
        value = model.add(op, [value, *own], f"/rnn{layer}/{op}", hidden_size=CELLS, direction=direction, **more)
        value = model.add("Transpose", [value], f"/rnn{layer}/t", perm=[0, 2, 1, 3])
        width = CELLS * directions
        value = model.add("Reshape", [value, model.constant(f"shape{layer}", np.array([0, 0, -1]))], f"/rnn{layer}/s")
    return model, model.pair(value, "/out", 1 / 127, U8(127))


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_layers_are_onnxruntimes_within_the_steps_of_the_tables(tmp_path: Path, op: str, direction: str) -> None:
    """The tables of sigmoid and tanh have steps of 2^-12, onnxruntime has none: h differs by some 1e-3."""
    rng = np.random.default_rng(0)
    model, out = network_of(op, direction, rng)
    path = model.save(tmp_path, out)
    network = read_onnx(path, {"T": FRAMES})
    assert network.gate_order == ("iofg" if op == "LSTM" else "ifgo")
    inputs = {"input.features": rng.standard_normal((FRAMES, INPUTS)).astype(F32)}
    expected = computed(path, network, inputs)
    prefixes = {"forward": [""], "reverse": ["backward_"], "bidirectional": ["forward_", "backward_"]}[direction]
    hidden = [f"rnn1.{op}.{prefix}h" for prefix in prefixes]
    assert set(hidden) <= set(expected)
    got = executed(network, inputs, forced=expected)
    for name in hidden:
        assert expected[name].std() > 0.05
        np.testing.assert_allclose(got[name], expected[name], atol=1e-3)
    codes = [name for name in got if name.startswith("out.q.out")]
    assert len(codes) == len(prefixes)
    for name in codes:
        np.testing.assert_array_equal(got[name], expected[name])
    free = executed(network, inputs)
    for name in codes:
        delta = np.abs(free[name].astype(int) - expected[name])
        assert delta.max() <= 1
        assert np.count_nonzero(delta) <= 0.05 * delta.size


def test_the_gate_order_matters(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    model, out = network_of("LSTM", "forward", rng, layers=1)
    path = model.save(tmp_path, out)
    network = read_onnx(path, {"T": FRAMES})
    inputs = {"input.features": rng.standard_normal((FRAMES, INPUTS)).astype(F32)}
    expected = computed(path, network, inputs)["rnn0.LSTM.h"]
    wrong = executed(replace(network, gate_order="ifgo"), inputs)["rnn0.LSTM.h"]
    assert np.abs(executed(network, inputs)["rnn0.LSTM.h"] - expected).max() < 3e-3
    assert np.abs(wrong - expected).max() > 0.1


def test_an_lstm_keeps_the_files_codes_where_integers_meet(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    model, out = network_of("LSTM", "bidirectional", rng, layers=1)
    network = read_onnx(model.save(tmp_path, out), {"T": FRAMES})
    trace = network.trace
    assert list(trace.kind[:2]) == [Kind.MATMUL, Kind.MATMUL]
    assert np.count_nonzero(trace.kind == Kind.LSTM) == 2 * FRAMES
    file = next(t for t in model.constants if t.name == "l0w")
    codes = np.frombuffer(file.raw_data, I8).reshape(2, 4 * CELLS, INPUTS)
    np.testing.assert_array_equal(network.codes["rnn0.LSTM.forward_wx"], codes[0].T)
    np.testing.assert_array_equal(network.codes["rnn0.LSTM.backward_wx"], codes[1].T)
    formats = {tensor.name: tensor.format for tensor in trace.tensors}
    assert formats["rnn0.LSTM.forward_wx"] == formats["rnn0.LSTM.backward_wh"] == "int8/channel"
    assert "rnn0.LSTM.forward_wh" not in network.quantizers
    assert "rnn0.LSTM: its recurrent product and its states are computed in reals, as in the file" in network.notes
    assert trace.totals().parameters == 2 * (4 * CELLS * (INPUTS + CELLS) + 8 * CELLS)
