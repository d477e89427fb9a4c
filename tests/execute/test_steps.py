"""One step of a prediction network or language model, as a search runs it, against the loop over all labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hwsim.errors import HwsimError
from hwsim.execute.executor import Executable
from hwsim.execute.operations.recurrent import Step
from hwsim.extract import load_workload
from hwsim.extract.gru import GruLayer
from hwsim.extract.lstm import LstmLayer
from hwsim.extract.rnnt import Joint, declare_stack
from hwsim.extract.spec import LstmStackSpec
from hwsim.numerics import NumberFormat
from hwsim.numerics.calibration import BoundAware, Sawb
from hwsim.numerics.policy import uniform_policy
from hwsim.numerics.quantizers import Quantizer
from hwsim.trace import Kind, Role, Trace, TraceBuilder
from hwsim.trace.builder import Operand

Array = NDArray[Any]
SPEC = load_workload("rnnt_swb300").spec
LABELS = "net.embedding.labels"
STEPS = 40


def small_lm() -> LstmStackSpec:
    """The external language model with an eighth of its cells: layer 1 reads the embedding beside layer 0."""
    assert SPEC.language_models
    return SPEC.language_models["external_lm"].model_copy(update={"cells": 256, "embedding": 256})


def source_lm() -> LstmStackSpec:
    return SPEC.language_models["source_lm"]


STACKS = {"prediction": SPEC.prediction, "source_lm": source_lm(), "external_lm": small_lm()}


def step_trace(spec: LstmStackSpec, rows: int) -> Trace:
    b = TraceBuilder("step")
    declare_stack(b, "net", spec, rows).step(b, rows)
    return b.build()


def sequence_trace(spec: LstmStackSpec, steps: int) -> Trace:
    """The same network over a whole sequence of labels, its layers as loops."""
    b = TraceBuilder("sequence")
    table = b.tensor("net.embedding.table", Role.WEIGHT, (spec.vocabulary, spec.embedding))
    row = b.tensor("net.embedding.row", Role.ACTIVATION, (steps, spec.embedding))
    size = spec.embedding
    b.op(Kind.LOOKUP, "net.embedding", [Operand(table, size)], [Operand(row, size)], m=steps, n=size)
    x = [row]
    for i in range(spec.layers):
        lstm = LstmLayer.declare(b, f"net.layer{i}", spec.layer_input(i), spec.cells, steps, steps=True)
        lstm.project_input(b, x, steps)
        with b.loop(steps):
            lstm.step(b, 1)
        x = [row, lstm.h] if spec.dense_inputs else [lstm.h]
    if spec.outputs:
        w = b.tensor("net.output.weight", Role.WEIGHT, (spec.cells, spec.outputs))
        bias = b.tensor("net.output.bias", Role.BIAS, (spec.outputs,))
        logits = b.tensor("net.output.logits", Role.STATE, (steps, spec.outputs))
        b.matmul("net.output", [lstm.h], w, logits, m=steps, bias=bias)
        b.op(Kind.SOFTMAX, "net.output", [Operand(logits, spec.outputs)], [Operand(logits, spec.outputs)], m=steps,
             n=spec.outputs)  # fmt: skip
    return b.build()


def parameters(trace: Trace, cell: Quantizer | None = None, hidden: Quantizer | None = None) -> Any:
    rng = np.random.default_rng(0)
    codes: dict[str, Array] = {}
    grids: dict[str, Quantizer] = {}
    for t in trace.tensors:
        if t.role == Role.WEIGHT:
            grids[t.name] = Sawb().calibrate(np.array([-1.0, 0.5, 1.0]) * 3 / np.sqrt(t.shape[0]))
            codes[t.name] = rng.integers(-7, 8, t.shape, dtype=np.int8)
        elif t.role == Role.BIAS:
            codes[t.name] = rng.uniform(-0.5, 0.5, t.shape)
        elif t.role == Role.ACTIVATION:
            grids[t.name] = hidden or BoundAware(1.0).calibrate()
        elif t.name.endswith(".c") and cell is not None:
            grids[t.name] = cell
    return codes, grids


def walk(executable: Executable, labels: Array) -> list[dict[str, Array]]:
    """Run step after step: labels (steps, rows), states from zero, each step's new states into the next."""
    states = {
        name: np.zeros((labels.shape[1], executable.network.tensors[name].shape[1]))
        for name in executable.inputs if name != LABELS
    }  # fmt: skip
    outputs = []
    for row in labels:
        out = executable.run({LABELS: row, **states})
        states = {name: out[name] for name in states}
        outputs.append(out)
    return outputs


@pytest.mark.parametrize("cell", [None, Quantizer(np.asarray(2.0**-11), 16)], ids=["real", "int16"])
@pytest.mark.parametrize("name", STACKS)
def test_steps_equal_the_loop(name: str, cell: Quantizer | None) -> None:
    """Label by label the codes of the whole sequence; 5 of 8 rows of a step those of one row, each its own."""
    spec = STACKS[name]
    one, eight, sequence = step_trace(spec, 1), step_trace(spec, 8), sequence_trace(spec, STEPS)
    codes, grids = parameters(one, cell)
    labels = np.random.default_rng(1).integers(0, spec.vocabulary, (STEPS, 5))
    rows = walk(Executable(eight, codes, grids), labels)
    single, whole = Executable(one, codes, grids), Executable(sequence, codes, grids)
    assert (single.rows, whole.rows) == (1, STEPS)
    for at in range(5):
        loop = whole.run({LABELS: labels[:, at]})
        last = f"net.layer{spec.layers - 1}.h"
        assert len(np.unique(loop[last])) > 8
        alone = walk(single, labels[:, at : at + 1]) if at < 2 else rows
        place = 0 if at < 2 else at
        for i in range(spec.layers):
            h, c = f"net.layer{i}.h", f"net.layer{i}.c"
            np.testing.assert_array_equal(np.stack([out[h][place] for out in alone]), loop[h])
            np.testing.assert_array_equal(np.stack([out[h][at] for out in rows]), loop[h])
            np.testing.assert_array_equal(rows[-1][c][at], loop[c][0])
            assert rows[-1][c].dtype == (np.float64 if cell is None else np.int16)
        if spec.outputs:
            got = np.stack([out["net.output.logits"][at] for out in rows])
            np.testing.assert_allclose(got, loop["net.output.logits"], rtol=0, atol=1e-12)


def test_names_of_a_step() -> None:
    executable = Executable(step_trace(STACKS["external_lm"], 4), *parameters(step_trace(STACKS["external_lm"], 4)))
    states = [f"net.layer{i}.{part}" for i in (0, 1) for part in "hc"]
    assert sorted(executable.inputs) == sorted([LABELS, *states])
    assert set(executable.outputs) == {"net.embedding.row", "net.output.logits", *states}
    assert executable.rows == 4
    assert executable.cells == ()


@pytest.mark.parametrize("state", ["real", "int16", "fp16"])
def test_the_compiled_step_equals_the_reference(state: str) -> None:
    """Codes and cell states of both paths, and `unrounded`, whose steps, rounded, are the codes."""
    trace = step_trace(STACKS["prediction"].model_copy(update={"cells": 67}), 3)
    codes, grids = parameters(trace, Quantizer(np.asarray(2.0**-11), 16) if state == "int16" else None)
    if state == "fp16":
        trace = trace.with_precision(uniform_policy(NumberFormat.parse("int4")))
    rng = np.random.default_rng(2)
    inputs = {LABELS: np.array([3, 0, 41]), "net.layer0.h": rng.uniform(-1, 1, (3, 67)),
              "net.layer0.c": rng.uniform(-2, 2, (3, 67))}  # fmt: skip
    executable = Executable(trace, codes, grids)
    step = next(operation for operation in executable.operations if isinstance(operation, Step))
    assert step.is_compiled
    compiled = executable.run(inputs)
    step.is_compiled = False
    readable = executable.run(inputs)
    for name, array in readable.items():
        assert compiled[name].dtype == array.dtype
        np.testing.assert_array_equal(compiled[name], array)
    assert compiled["net.layer0.c"].dtype == {"real": np.float64, "int16": np.int16, "fp16": np.float16}[state]
    steps = executable.unrounded(inputs, {})["net.layer0.h"]
    np.testing.assert_array_equal(np.clip(np.rint(steps), -7, 7), readable["net.layer0.h"])


def gru_step(rows: int, cells: int = 24) -> Trace:
    b = TraceBuilder("gru")
    x = b.tensor("net.x", Role.ACTIVATION, (rows, 9), "net.layer0")
    layer = GruLayer.declare(b, "net.layer0", 9, cells, rows)
    layer.project_input(b, [x], rows)
    layer.step(b, rows)
    return b.build()


@pytest.mark.parametrize("hidden", [BoundAware(1.0, 8).calibrate(), Quantizer(np.asarray(2.0**-12), 16)])
def test_gru_steps_equal_the_loop(hidden: Quantizer) -> None:
    b = TraceBuilder("sequence")
    x = b.tensor("net.x", Role.ACTIVATION, (STEPS, 9), "net.layer0")
    layer = GruLayer.declare(b, "net.layer0", 9, 24, STEPS, steps=True)
    layer.project_input(b, [x], STEPS)
    with b.loop(STEPS):
        layer.step(b, 1)
    trace = gru_step(3)
    codes, grids = parameters(trace, hidden=hidden)
    values = np.random.default_rng(3).uniform(-1, 1, (STEPS, 3, 9))
    step, whole = Executable(trace, codes, grids), Executable(b.build(), codes, grids)
    assert (step.inputs, step.outputs, step.rows) == (("net.x", "net.layer0.h"), ("net.layer0.h",), 3)
    expected = np.stack([whole.run({"net.x": values[:, at]})["net.layer0.h"] for at in range(3)], axis=1)
    h = np.zeros((3, 24))
    for t in range(STEPS):
        h = step.run({"net.x": values[t], "net.layer0.h": h})["net.layer0.h"]
        np.testing.assert_array_equal(h, expected[t])
    one = step.run({"net.x": values[0, :1], "net.layer0.h": np.zeros((1, 24))})["net.layer0.h"]
    np.testing.assert_array_equal(one, expected[0, :1])


def test_forcing_a_step_does_not_change_the_states_that_it_is_given() -> None:
    spec = STACKS["external_lm"].model_copy(update={"cells": 32, "embedding": 16})
    trace = step_trace(spec, 2)
    executable = Executable(trace, *parameters(trace))
    inputs = {LABELS: np.array([1, 2]), **{n: np.full((2, 32), 0.25) for n in executable.inputs if n != LABELS}}
    free = executable.run(inputs)
    forced = executable.run(inputs, forced={"net.layer0.h": np.zeros((2, 32))})
    np.testing.assert_array_equal(forced["net.layer0.h"], free["net.layer0.h"])
    assert (forced["net.layer1.h"] != free["net.layer1.h"]).any()


def test_what_a_step_refuses() -> None:
    trace = gru_step(3)
    executable = Executable(trace, *parameters(trace))
    x, h = np.zeros((2, 9)), np.zeros((2, 24))
    for inputs, message in (
        ({"net.x": np.zeros((4, 9)), "net.layer0.h": h}, r"net.x: must have 1 to 3 rows, got 4"),
        ({"net.x": x[:0], "net.layer0.h": h}, r"net.x: must have 1 to 3 rows, got 0"),
        ({"net.x": x, "net.layer0.h": h[:1]}, r"net.layer0.h: must have the rows of net.x, 2, got 1"),
        ({"net.x": x, "net.layer0.h": h[:, 1:]}, r"net.layer0.h: must be of shape \(2, 24\), got \(2, 23\)"),
    ):
        with pytest.raises(HwsimError, match=message):
            executable.run(inputs)
    lstm = step_trace(STACKS["prediction"].model_copy(update={"cells": 8}), 2)
    step = Executable(lstm, *parameters(lstm))
    with pytest.raises(HwsimError, match=r"net.layer0.c: must be of shape \(2, 8\), got \(2, 7\)"):
        step.run({LABELS: np.array([0, 1]), "net.layer0.h": np.zeros((2, 8)), "net.layer0.c": np.zeros((2, 7))})


def test_a_whole_network_of_the_catalogue_runs_as_one_step() -> None:
    """Encoder over one frame, prediction, language models and joint, at an eighth of the cells: copies do nothing."""
    b = TraceBuilder("search")
    stack = declare_stack(b, "net", STACKS["prediction"].model_copy(update={"cells": 96}), 2)
    joint = Joint.declare(b, SPEC.joint, 160, 96, 2, 2)
    stack.step(b, 2)
    joint.project_prediction(b, stack.layers[-1].h, 2, "joint.prediction_projection")
    joint.step(b, 2)
    trace = b.build()
    assert (trace.kind == Kind.STATE_IN).any()
    codes, grids = parameters(trace)
    missing = ("joint.encoder_projection.weight", "joint.encoder_projection.bias")
    used = {name: array for name, array in codes.items() if name not in missing}
    executable = Executable(trace, used, grids)
    assert executable.rows == 2
    side = np.random.default_rng(4).standard_normal((2, 256))
    out = executable.run({LABELS: np.array([7]), "net.layer0.h": np.zeros((1, 96)), "net.layer0.c": np.zeros((1, 96)),
                          "joint.encoder_projection.out": side[:1]})  # fmt: skip
    assert out["joint.output.logits"].shape == (1, 46)
    np.testing.assert_allclose(np.exp(out["joint.output.logits"]).sum(), 1, rtol=1e-12)


def test_the_networks_of_the_catalogue_run() -> None:
    """`Workload.networks`, with a loop of one step in it, takes states of the declared shape."""
    spec = SPEC.model_copy(update={
        "encoder": SPEC.encoder.model_copy(update={"cells": 16, "layers": 1}), "language_models": {},
        "prediction": SPEC.prediction.model_copy(update={"cells": 8}),
    })  # fmt: skip
    from hwsim.extract.workload import Workload

    trace = Workload(spec, "test").networks
    executable = Executable(trace, *parameters(trace))
    assert executable.rows == 1
    h, c = "prediction.layer0.h", "prediction.layer0.c"
    inputs = {"encoder.input.features": np.zeros((1, 340)), "prediction.embedding.labels": np.array([2]),
              h: np.zeros((1, 8)), c: np.zeros((1, 8))}  # fmt: skip
    out = executable.run(inputs)
    assert out["joint.output.logits"].shape == (1, 46)
    with pytest.raises(HwsimError, match=r"prediction.layer0.c: must have 1 to 1 rows, got 2"):
        executable.run(inputs | {c: np.zeros((2, 8))})


def test_states_in_halves() -> None:
    trace = step_trace(STACKS["prediction"].model_copy(update={"cells": 8}), 2)
    half = trace.with_precision(uniform_policy(NumberFormat.parse("int4")))
    codes, grids = parameters(trace)
    inputs = {LABELS: np.array([3, 4]), "net.layer0.h": np.zeros((2, 8)), "net.layer0.c": np.full((2, 8), 0.3)}
    c = Executable(half, codes, grids).run(inputs)["net.layer0.c"]
    assert c.dtype == np.float16
    np.testing.assert_allclose(c, Executable(trace, codes, grids).run(inputs)["net.layer0.c"], rtol=5e-3, atol=1e-3)


def test_rows_of_three_axes_are_not_counted() -> None:
    """A log-softmax of (2, 4, 6) is of 8 rows, but its first axis has 2."""
    b = TraceBuilder("net")
    x, out = (b.tensor(f"net.{name}", Role.ACTIVATION, (2, 4, 6), "net") for name in ("x", "out"))
    b.op(Kind.SOFTMAX, "net", [Operand(x, 6)], [Operand(out, 6)], m=8, n=6)
    executable = Executable(b.build(), {}, {})
    assert executable.rows is None
    assert executable.run({"net.x": np.zeros((2, 4, 6))})["net.out"].shape == (2, 4, 6)
