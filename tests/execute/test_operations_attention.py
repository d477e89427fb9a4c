"""Attention of a trace against loops over single numbers, in every profile, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.execute import operations
from hwsim.execute.executor import Executable
from hwsim.execute.reference.attention import probability_grid
from hwsim.execute.reference.linear import requantize_to
from hwsim.execute.semantics import PROFILES, TRAINING, Semantics
from hwsim.numerics.quantizers import Quantizer
from hwsim.numerics.tables import exponential_table
from hwsim.trace import Function, Kind

from tests.execute.single import (  # isort: skip
    Array,
    Network,
    assert_round_trip,
    assert_unrounded,
    quantizer,
    run,
    slow_sum,
)

QUERY, KEY, VALUE, SCORES, OUT = (quantizer(s) for s in (0.0311, 0.0417, 0.0253, 0.0937, 0.0191))
Grids = dict[str, Quantizer | None]
GRIDS: Grids = {"q": QUERY, "k": KEY, "v": VALUE, "scores": SCORES, "probabilities": probability_grid(8), "out": OUT}


def attention(
    heads: int, frames: int, keys: int, depth: int, grids: Grids | None = None, semantics: Semantics = TRAINING,
    left: int | None = None, right: int | None = None, relative: bool = False, biases: tuple[Array, ...] = (),
) -> Executable:  # fmt: skip
    """q (or q + u and q + v_bias), k, v[, p] to out; with `relative` frames = keys."""
    net, found, width = Network("block.attention"), {**GRIDS, **(grids or {})}, heads * depth
    shapes = {"q": (frames, width), "k": (keys, width), "v": (keys, width), "scores": (heads, frames, keys),
              "probabilities": (heads, frames, keys), "out": (frames, width)}  # fmt: skip
    for part, shape in shapes.items():
        net.tensor(part, shape, found[part])
    sizes = {"m": frames, "k": depth, "batch": heads, "function": Function.SCORES}
    if relative:
        distances = 2 * frames - 1
        net.tensor("p", (distances, width), KEY)
        net.tensor("content", (heads, frames, keys))
        net.tensor("position", (heads, frames, distances))
        queries = ["q", "q"]
        for at, reals in enumerate(biases):
            net.vector(f"bias{at}", reals)
            queries[at] = net.tensor(f"q{at}", shapes["q"], QUERY)
            add = {"function": Function.ADD, "m": frames, "n": width}
            net.op(Kind.ELEMENTWISE, ["q", f"bias{at}"], queries[at], **add)
        net.op(Kind.MATMUL, [queries[0], "k"], "content", n=keys, **sizes)
        net.op(Kind.MATMUL, [queries[1], "p"], "position", n=distances, **sizes)
        rows = {"function": Function.RELATIVE_ADD, "m": heads * frames, "n": keys}
        net.op(Kind.ELEMENTWISE, ["content", "position"], "scores", **rows)
    else:
        net.op(Kind.MATMUL, ["q", "k"], "scores", n=keys, **sizes)
    rows = {"function": Function.PROBABILITIES, "m": heads * frames, "n": keys}
    net.op(Kind.SOFTMAX, ["scores"], "probabilities", **rows)
    net.op(
        Kind.MATMUL, ["probabilities", "v"], "out", function=Function.CONTEXT, m=frames, k=keys, n=depth, batch=heads
    )
    return net.build(semantics, left=left, right=right)


def sum_of(a: Array, b: Array, first: Quantizer, second: Quantizer, semantics: Semantics) -> int:
    """sum (a - za)(b - zb) of two vectors, of which the accumulator holds sum a b."""
    za, zb = int(first.zero_point), int(second.zero_point)
    x, y = [int(i) for i in a], [int(i) for i in b]
    return slow_sum(x, y, semantics) - za * sum(y) - zb * sum(x) + len(x) * za * zb


def code(total: int, scale: float, output: Quantizer, semantics: Semantics) -> int:
    if semantics.bias == "real":
        return int(output.quantize(total * scale))
    return int(requantize_to(total, scale / float(output.scale), output, semantics))


def slow_softmax(scores: list[int], seen: list[bool], grid: Quantizer) -> list[int]:
    table = exponential_table(float(grid.scale), grid.bits)
    kept = [score for score, see in zip(scores, seen, strict=True) if see]
    if not kept:
        return [0] * len(scores)
    e = [int(table[max(kept) - score]) if see else 0 for score, see in zip(scores, seen, strict=True)]
    return [min((2 * 256 * x + sum(e)) // (2 * sum(e)), 255) for x in e]


def slow(
    heads: int, inputs: dict[str, Array], grids: Grids, semantics: Semantics, left: int | None, right: int | None,
    biases: tuple[Array, ...] = (),
) -> Array:  # fmt: skip
    """Output codes (T, D): one head, one query and one key after another."""
    g: dict[str, Any] = {**GRIDS, **grids}
    q, k, v = (inputs[part] for part in "qkv")
    frames, keys, depth = len(q), len(k), q.shape[1] // heads
    parts = [g["q"].quantize(g["q"].dequantize(q) + bias) for bias in biases] or [q, q]
    scale = float(g["q"].scale) * float(g["k"].scale) / float(np.sqrt(depth))
    out = np.zeros(q.shape, np.int64)
    for h in range(heads):
        columns = slice(h * depth, (h + 1) * depth)
        for i in range(frames):
            scores = []
            for j in range(keys):
                content = sum_of(parts[0][i, columns], k[j, columns], g["q"], g["k"], semantics)
                if "p" in inputs:
                    distance = inputs["p"][frames - 1 - (i - j), columns]
                    position = sum_of(parts[1][i, columns], distance, g["q"], KEY, semantics)
                    scores.append(int(g["scores"].quantize(content * scale + position * scale)))
                else:
                    scores.append(code(content, scale, g["scores"], semantics))
            seen = [(left is None or j >= i - left) and (right is None or j <= i + right) for j in range(keys)]
            p = np.array(slow_softmax(scores, seen, g["scores"]))
            for n in range(depth):
                total = sum_of(p, v[:, columns][:, n], probability_grid(8), g["v"], semantics)
                out[i, h * depth + n] = code(total, 2.0**-8 * float(g["v"].scale), g["out"], semantics)
    return out


def random_inputs(
    heads: int, frames: int, keys: int, depth: int, relative: bool = False, seed: int = 0
) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    rows = {"q": frames, "k": keys, "v": keys} | ({"p": 2 * frames - 1} if relative else {})
    return {part: rng.integers(-128, 128, (count, heads * depth)).astype(np.int8) for part, count in rows.items()}


contexts = st.none() | st.integers(0, 6)
zeros = st.sampled_from([0, 0, 3, -128, 127])


@settings(max_examples=60, deadline=None)
@given(
    st.data(), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(1, 4), st.sampled_from([*PROFILES])
)
def test_equals_loops(data: st.DataObject, heads: int, frames: int, keys: int, depth: int, name: str) -> None:
    grids: Grids = {
        part: quantizer(float(grid.scale), data.draw(zeros))
        for part, grid in GRIDS.items()
        if grid is not None and part != "probabilities"
    }
    left, right = data.draw(contexts), data.draw(contexts)
    inputs = random_inputs(heads, frames, keys, depth, seed=data.draw(st.integers(0, 99)))
    if data.draw(st.booleans()):
        inputs["q"][:], inputs["k"][:] = -128, -128
    semantics = PROFILES[name]
    got = run(attention(heads, frames, keys, depth, grids, semantics, left, right), layer="block.attention", **inputs)
    np.testing.assert_array_equal(got, slow(heads, inputs, grids, semantics, left, right))


@pytest.mark.parametrize("name", ["training", "onnx", "rapid"])
@pytest.mark.parametrize("left", [None, 2])
@pytest.mark.parametrize(("heads", "frames"), [(1, 1), (1, 7), (3, 6)])
def test_relative_positions(heads: int, frames: int, left: int | None, name: str) -> None:
    """Queries plus u meet the keys, queries plus v the positions, row r of which is the distance T - 1 - r."""
    inputs = random_inputs(heads, frames, frames, 5, relative=True)
    biases = tuple(np.random.default_rng(at).standard_normal(5 * heads) for at in (1, 2))
    semantics = PROFILES[name]
    executable = attention(heads, frames, frames, 5, None, semantics, left, 1, True, biases)
    expected = slow(heads, inputs, {}, semantics, left, 1, biases)
    np.testing.assert_array_equal(run(executable, layer="block.attention", **inputs), expected)
    without = slow(heads, inputs, {}, semantics, left, 1)
    assert frames == 1 or not np.array_equal(without, expected)


@pytest.mark.parametrize("name", ["rapid", "tflite-ruy"])
def test_a_head_deeper_than_a_chunk(name: str) -> None:
    """70 products of -128 by -128 saturate 16 bits; the other profiles keep them."""
    inputs = random_inputs(1, 3, 4, 70)
    inputs["q"][0] = inputs["k"][0] = -128
    got = run(attention(1, 3, 4, 70, None, PROFILES[name]), "scores", "block.attention", **inputs)
    scale = float(QUERY.scale) * float(KEY.scale) / float(np.sqrt(70))
    for i in range(3):
        for j in range(4):
            total = sum_of(inputs["q"][i], inputs["k"][j], QUERY, KEY, PROFILES[name])
            assert got[0, i, j] == code(total, scale, SCORES, PROFILES[name])
    plain = run(attention(1, 3, 4, 70), "scores", "block.attention", **inputs)
    assert (name == "rapid") == (not np.array_equal(plain, got))


RELATIVE = operations.attention.relative_scores


def shifted(by: int) -> Callable[[Array, int], Array]:
    return lambda position, keys: RELATIVE(np.roll(position, by, axis=-1), keys)


def reversed_index(position: Array, keys: int) -> Array:
    return RELATIVE(position[..., ::-1], keys)


@pytest.mark.parametrize("wrong", [shifted(1), shifted(-1), reversed_index])
def test_a_shifted_index_is_seen(wrong: Callable[[Array, int], Array], monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = random_inputs(2, 6, 6, 5, relative=True)
    executable, expected = attention(2, 6, 6, 5, relative=True), slow(2, inputs, {}, TRAINING, None, None)
    np.testing.assert_array_equal(run(executable, layer="block.attention", **inputs), expected)
    monkeypatch.setattr(operations.attention, "relative_scores", wrong)
    assert not np.array_equal(run(executable, layer="block.attention", **inputs), expected)


@pytest.mark.parametrize(("left", "right"), [(None, None), (3, 2), (2, 1), (1, 2), (2, 2)])
def test_another_context_is_seen(left: int | None, right: int | None) -> None:
    inputs = random_inputs(2, 8, 8, 5)
    expected = slow(2, inputs, {}, TRAINING, 2, 2)
    got = run(attention(2, 8, 8, 5, left=left, right=right), layer="block.attention", **inputs)
    assert np.array_equal(got, expected) == ((left, right) == (2, 2))


def test_a_query_that_sees_nothing_gives_the_zero_point() -> None:
    """Query 4 with no context behind it and two keys only."""
    grids: Grids = {"out": quantizer(0.0191, 17)}
    inputs = random_inputs(1, 5, 2, 3)
    got = run(attention(1, 5, 2, 3, grids, left=0, right=0), layer="block.attention", **inputs)
    assert (got[2:] == 17).all()
    assert not (got[:2] == 17).all()


def test_reals() -> None:
    """Without grids the products are float64; one real operand is enough."""
    rng = np.random.default_rng(3)
    q, k, v = (rng.standard_normal((6, 8)) for _ in range(3))
    nothing: Grids = dict.fromkeys(GRIDS)
    got = run(attention(2, 6, 6, 4, nothing, left=1, right=1), layer="block.attention", q=q, k=k, v=v)
    split = [x.reshape(6, 2, 4).swapaxes(0, 1) for x in (q, k, v)]
    scores = split[0] @ split[1].swapaxes(1, 2) / np.sqrt(4)
    far = np.abs(np.arange(6)[:, None] - np.arange(6)) > 1
    e = np.exp(np.where(far, -np.inf, scores))
    expected = (e / e.sum(axis=-1, keepdims=True) @ split[2]).swapaxes(0, 1).reshape(6, 8)
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    mixed = run(attention(2, 6, 6, 4, {**nothing, "q": QUERY, "out": OUT}), layer="block.attention", q=q, k=k, v=v)
    assert mixed.dtype == np.int8
    keyless = attention(2, 6, 6, 4, {**nothing, "probabilities": probability_grid(8)}, left=1, right=1)
    codes = run(keyless, "probabilities", "block.attention", q=q, k=k, v=v)
    assert codes.dtype == np.uint8
    np.testing.assert_array_equal(codes, np.minimum(np.rint(e / e.sum(axis=-1, keepdims=True) * 256), 255))


def test_round_trip_and_reals_before_rounding(tmp_path: Path) -> None:
    biases = tuple(np.random.default_rng(at).standard_normal(10) for at in (1, 2))
    executable = attention(2, 6, 6, 5, left=3, right=0, relative=True, biases=biases)
    inputs = {f"block.attention.{part}": x for part, x in random_inputs(2, 6, 6, 5, relative=True).items()}
    assert_round_trip(executable, inputs, tmp_path / "e")
    assert set(executable.parameters()) == {"block.attention.bias0", "block.attention.bias1"}
    parts = ("q0", "q1", "scores", "probabilities", "out")
    assert_unrounded(executable, inputs, {f"block.attention.{part}" for part in parts})
    integer = attention(2, 6, 6, 5, semantics=PROFILES["tflite-xnnpack"])
    assert_round_trip(integer, {k: inputs[k] for k in integer.inputs}, tmp_path / "i")


@pytest.mark.parametrize("left", [-1, 2.5, True, "all"])
def test_a_context_that_is_no_count_is_refused(left: Any) -> None:
    rule = f"layer block.attention\\) must have a left context of 0 frames or more, or None, got {left}"
    with pytest.raises(HwsimError, match=rule):
        attention(1, 2, 2, 2, left=left)


@pytest.mark.parametrize(
    ("grids", "rule"),
    [
        ({"q": Quantizer(np.ones(4), 8)}, "must have one scale and a level at zero for block.attention.q"),
        ({"v": quantizer(1.0, half_step=True)}, "must have one scale and a level at zero for block.attention.v"),
        (
            {"scores": quantizer(1.0, bits=20)},
            "must have scores of one scale and at most 16 bits, got 20 bits and 1 sc",
        ),
        ({"probabilities": None}, "must have probabilities of unsigned codes of scale 2\\^-bits when its scores have"),
        ({"probabilities": quantizer(2.0**-8)}, "must have probabilities of unsigned codes of scale 2\\^-bits"),
        ({"probabilities": quantizer(2.0**-7, signed=False)}, "must have probabilities of unsigned codes of scale 2"),
    ],
)
def test_grids_that_do_not_fit_are_refused(grids: Grids, rule: str) -> None:
    with pytest.raises(HwsimError, match=f"layer block.attention\\) {rule}"):
        attention(1, 2, 2, 4, grids)


@pytest.mark.parametrize(
    ("kind", "function", "shapes", "sizes", "rule"),
    [
        (Kind.MATMUL, Function.SCORES, ((3, 8), (4, 8), (2, 3, 5)), {"m": 3, "k": 4, "n": 4, "batch": 2},
         r"must have shapes \(3, 8\), \(4, 8\), \(2, 3, 4\), got \(3, 8\), \(4, 8\), \(2, 3, 5\)"),
        (Kind.MATMUL, Function.CONTEXT, ((2, 3, 4), (5, 8), (3, 8)), {"m": 3, "k": 4, "n": 4, "batch": 2},
         r"must have shapes \(2, 3, 4\), \(4, 8\), \(3, 8\), got \(2, 3, 4\), \(5, 8\), \(3, 8\)"),
        (Kind.SOFTMAX, Function.PROBABILITIES, ((6, 4), (6, 4)), {"m": 6, "n": 4},
         r"must read scores \(heads, T, S\) of 6 rows of 4, got \(6, 4\)"),
        (Kind.SOFTMAX, Function.PROBABILITIES, ((2, 3, 4), (2, 4, 3)), {"m": 6, "n": 4},
         r"must have shapes \(2, 3, 4\), \(2, 3, 4\), got \(2, 3, 4\), \(2, 4, 3\)"),
        (Kind.ELEMENTWISE, Function.RELATIVE_ADD, ((2, 3, 3), (2, 3, 3), (2, 3, 3)), {"m": 6, "n": 3},
         r"must have shapes \(2, 3, 3\), \(2, 3, 5\), \(2, 3, 3\), got"),
        (Kind.MATMUL, Function.SCORES, ((3, 8), (2, 3, 3)), {"m": 3, "k": 4, "n": 3, "batch": 2},
         "must read 2 activations, 0 weights and 0 biases and write 1, got 1, 0, 0 and 1"),
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit_are_refused(
    kind: Kind, function: Function, shapes: tuple[tuple[int, ...], ...], sizes: dict[str, int], rule: str
) -> None:
    net = Network("block.attention")
    parts = [net.tensor(f"t{at}", shape) for at, shape in enumerate(shapes)]
    net.op(kind, parts[:-1], parts[-1], function=function, **sizes)
    with pytest.raises(HwsimError, match=f"layer block.attention\\) {rule}"):
        net.build()
