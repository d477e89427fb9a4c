"""Convolutions of a trace against loops over single numbers, in every profile, and what they refuse."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.execute.executor import Executable
from hwsim.execute.operations.convolution import tap_sums
from hwsim.execute.reference.linear import depthwise_conv, layer_codes, linear, unfold
from hwsim.execute.semantics import PROFILES, TRAINING, Semantics
from hwsim.numerics.quantizers import Quantizer
from hwsim.trace import Kind

from tests.execute.single import (  # isort: skip
    Array,
    Network,
    assert_round_trip,
    assert_unrounded,
    quantizer,
    run,
    slow_sum,
)

INPUT, OUTPUT = quantizer(0.0311, 5), quantizer(0.0917, -9)


def channels(count: int, bits: int = 8, seed: int = 0, **more: Any) -> Quantizer:
    return Quantizer(np.random.default_rng(seed).uniform(0.004, 0.01, count), bits, **more)


def convolution(
    shape: tuple[int, ...], codes: Array, padding: Any, stride: Any, *, input: Quantizer | None = INPUT,
    weights: Quantizer | None = None, output: Quantizer | None = OUTPUT, bias: Array | None = None,
    semantics: Semantics = TRAINING, depthwise: bool = False,
) -> Executable:  # fmt: skip
    """x of `shape` by weight codes, whose rank says of how many axes; sizes by the formula of the output."""
    net = Network()
    net.tensor("x", shape, input)
    reads = ["x", net.weight("weight", codes, weights)]
    if bias is not None:
        reads.append(net.vector("bias", bias))
    kernel = codes.shape[:1] if depthwise else codes.shape[:-2]
    pairs, strides = ([padding], [stride]) if len(kernel) == 1 else (padding, stride)
    steps = tuple(
        max(0, size + sum(pair) - width) // step + 1
        for size, pair, width, step in zip(shape, pairs, kernel, strides, strict=False)
    )
    net.tensor("out", (*steps, codes.shape[-1]), output)
    depth = int(np.prod(codes.shape[: 1 if depthwise else -1]))
    sizes = {"m": int(np.prod(steps)), "k": depth}
    if depthwise:
        net.op(Kind.DEPTHWISE, reads, "out", batch=codes.shape[-1], **sizes)
    else:
        kind = Kind.CONV1D if len(kernel) == 1 else Kind.CONV2D
        net.op(kind, reads, "out", n=codes.shape[-1], **sizes)
    return net.build(semantics, padding=padding, stride=stride)


def slow_sums(x: Array, w: Array, pairs: Any, strides: Any, zero: int, semantics: Semantics = TRAINING) -> Array:
    """(steps, N) or (steps_t, steps_f, N) sums of `w` (*kernel, Cin, N): one output after another."""
    kernel, outputs = w.shape[:-2], w.shape[-1]
    steps = [(n + sum(p) - k) // s + 1 for n, p, k, s in zip(x.shape, pairs, kernel, strides, strict=False)]
    out = np.zeros((*steps, outputs), np.int64)
    for place in product(*(range(n) for n in steps)):
        window = []
        for tap in product(*(range(k) for k in kernel)):
            at = tuple(t * s + k - p[0] for t, s, k, p in zip(place, strides, tap, pairs, strict=True))
            inside = all(0 <= a < n for a, n in zip(at, x.shape, strict=False))
            window += [int(v) for v in x[at]] if inside else [zero] * x.shape[-1]
        for n in range(outputs):
            column = [int(v) for v in w[..., n].reshape(-1)]
            out[(*place, n)] = slow_sum(window, column, semantics) - zero * sum(column)
    return out


sides = st.tuples(st.integers(0, 3), st.integers(0, 3)).map(list)


@settings(max_examples=50, deadline=None)
@given(st.data(), st.sampled_from([*PROFILES]), st.sampled_from([0, 5, -128, 127]), st.booleans())
def test_one_axis_equals_loops(data: st.DataObject, name: str, zero: int, extreme: bool) -> None:
    frames, kernel, inputs, outputs, stride = (data.draw(st.integers(1, n)) for n in (7, 5, 3, 4, 3))
    padding = data.draw(sides.filter(lambda pair: frames + sum(pair) >= kernel))
    rng, semantics = np.random.default_rng(data.draw(st.integers(0, 99))), PROFILES[name]
    x, w = rng.integers(-128, 128, (frames, inputs)), rng.integers(-127, 128, (kernel, inputs, outputs))
    if extreme:
        x[:], w[:] = -128, -128
    input, weights = quantizer(0.0311, zero), channels(outputs)
    bias = rng.standard_normal(outputs) if data.draw(st.booleans()) else None
    executable = convolution(x.shape, w, padding, stride, input=input, weights=weights, bias=bias, semantics=semantics)
    sums = slow_sums(x, w, [padding], [stride], zero, semantics)
    expected = layer_codes(sums, (1, outputs), input, weights, OUTPUT, bias, semantics)
    np.testing.assert_array_equal(run(executable, x=x), expected)
    np.testing.assert_array_equal(executable.parameters()["block.part.weight"], w)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from(["training", "onnx", "tflite-ruy", "rapid"]), st.sampled_from([0, 5, -128, 127]))
def test_two_axes_equal_loops(data: st.DataObject, name: str, zero: int) -> None:
    sizes = [data.draw(st.integers(1, 6)) for _ in range(2)]
    kernel = [data.draw(st.integers(1, 3)) for _ in range(2)]
    stride = [data.draw(st.integers(1, 3)) for _ in range(2)]
    padding = [data.draw(sides.filter(lambda p, n=n, k=k: n + sum(p) >= k)) for n, k in zip(sizes, kernel, strict=True)]
    inputs, outputs = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    rng, semantics = np.random.default_rng(data.draw(st.integers(0, 99))), PROFILES[name]
    x, w = rng.integers(-128, 128, (*sizes, inputs)), rng.integers(-128, 128, (*kernel, inputs, outputs))
    input, weights = quantizer(0.0311, zero), quantizer(0.0071)
    sums = slow_sums(x, w, padding, stride, zero, semantics)
    expected = layer_codes(sums, (1, outputs), input, weights, OUTPUT, None, semantics)
    executable = convolution(x.shape, w, padding, stride, input=input, weights=weights, semantics=semantics)
    np.testing.assert_array_equal(run(executable, x=x), expected)
    if inputs == 1:
        flat = convolution(x.shape[:2], w, padding, stride, input=input, weights=weights, semantics=semantics)
        np.testing.assert_array_equal(run(flat, x=x[..., 0]), expected)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_packed_weights_of_few_bits(bits: int) -> None:
    """Equal to the readable product of unfolded windows, with zero points of the weights or half steps too."""
    rng = np.random.default_rng(bits)
    x = rng.integers(-128, 128, (21, 24))
    windows = unfold(x, 5, 2, 4, 1, fill=5)
    for weights in (
        channels(33, bits),
        channels(33, bits, zero_point=rng.integers(-1, 2, 33)),
        quantizer(0.02, 1, bits),
    ):
        w = rng.integers(*weights.code_range, (5, 24, 33), endpoint=True)
        expected = linear(windows, w.reshape(-1, 33), INPUT, weights, OUTPUT)
        np.testing.assert_array_equal(run(convolution(x.shape, w, [4, 1], 2, weights=weights), x=x), expected)
    half = quantizer(0.02, bits=bits, half_step=True)
    odd, grid = half.odd_codes(w)
    executable = convolution(x.shape, w, [4, 1], 2, weights=half)
    np.testing.assert_array_equal(run(executable, x=x), linear(windows, odd.reshape(-1, 33), INPUT, grid, OUTPUT))
    np.testing.assert_array_equal(executable.parameters()["block.part.weight"], w)


@settings(max_examples=50, deadline=None)
@given(st.data(), st.sampled_from([*PROFILES]), st.sampled_from([0, 5, -128, 127]), st.booleans(), st.booleans())
def test_depthwise_equals_loops(data: st.DataObject, name: str, zero: int, single: bool, extreme: bool) -> None:
    frames, kernel, count, stride = (data.draw(st.integers(1, n)) for n in (7, 9, 4, 3))
    padding = data.draw(st.tuples(*[st.integers(0, 9)] * 2).map(list).filter(lambda p: frames + sum(p) >= kernel))
    rng, semantics = np.random.default_rng(data.draw(st.integers(0, 99))), PROFILES[name]
    x, w = rng.integers(-128, 128, (frames, count)), rng.integers(-128, 128, (kernel, count))
    if extreme:
        x[:], w[:] = -128, -128
    input, weights = quantizer(0.0311, zero), quantizer(0.0071) if single else channels(count)
    bias = rng.standard_normal(count) if data.draw(st.booleans()) else None
    columns = [slow_sums(x[:, [c]], w[:, None, [c]], [padding], [stride], zero, semantics) for c in range(count)]
    expected = layer_codes(np.concatenate(columns, 1), w.shape, input, weights, OUTPUT, bias, semantics)
    executable = convolution(
        x.shape, w, padding, stride, input=input, weights=weights, bias=bias, semantics=semantics, depthwise=True
    )
    np.testing.assert_array_equal(run(executable, x=x), expected)
    np.testing.assert_array_equal(
        depthwise_conv(x, w, input, weights, OUTPUT, bias, semantics, *padding, stride), expected
    )


def test_a_narrow_accumulator_changes_a_depthwise_convolution() -> None:
    """9 products of 128 by 127 leave 16 bits."""
    x, w = np.full((4, 3), -128), np.full((9, 3), 127)
    weights = quantizer(0.0001)
    codes = {
        name: run(convolution(x.shape, w, [8, 0], 1, weights=weights, semantics=PROFILES[name], depthwise=True), x=x)
        for name in ("training", "rapid")
    }
    assert not np.array_equal(codes["training"], codes["rapid"])


def test_int16_activations_of_a_long_depthwise_kernel() -> None:
    """Sums that could leave 32 bits take the readable path, which wraps as the profile says and not in training."""
    x, w = np.full((700, 2), -32768), np.full((600, 2), -128)
    input, weights, output = quantizer(2.0**-12, bits=16), quantizer(2.0**-9), quantizer(4.0, bits=16)
    for semantics, total in ((TRAINING, 600 * 2**22), (Semantics("plain"), 600 * 2**22 - 2**32)):
        executable = convolution(x.shape, w, [0, 0], 1, input=input, weights=weights, output=output, depthwise=True,
                                 semantics=semantics)  # fmt: skip
        assert (run(executable, x=x) == output.quantize(total * 2.0**-21)).all()
    short = convolution(x.shape, w[:500], [0, 0], 1, input=input, weights=weights, output=output, depthwise=True)
    assert (run(short, x=x) == output.quantize(500 * 2**22 * 2.0**-21)).all()


def test_sums_of_blocks_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    x, w = rng.integers(-128, 128, (50, 7)).astype(np.int32), rng.integers(-128, 128, (6, 7)).astype(np.int32)
    whole = tap_sums(x, w, (5, 3), 2)
    monkeypatch.setattr("hwsim.execute.operations.convolution.BLOCK_ELEMENTS", 30)
    np.testing.assert_array_equal(tap_sums(x, w, (5, 3), 2), whole)


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("wrong", [[0, 4], [3, 1], [2, 2]])
def test_padding_on_another_side_is_seen(wrong: list[int], depthwise: bool) -> None:
    rng = np.random.default_rng(6)
    x, w = rng.integers(-128, 128, (9, 3)), rng.integers(-128, 128, (5, 3) if depthwise else (5, 3, 4))
    right, other = (
        convolution(x.shape, w, p, 1, weights=quantizer(0.01), depthwise=depthwise) for p in ([4, 0], wrong)
    )
    assert not np.array_equal(run(right, x=x), run(other, x=x))


def test_padding_is_a_real_zero() -> None:
    """Padding by code 0 where the zero point is 5 gives other codes."""
    rng = np.random.default_rng(7)
    x, w = rng.integers(-128, 128, (4, 3)), rng.integers(-128, 128, (5, 3, 4))
    weights = quantizer(0.01)
    got = run(convolution(x.shape, w, [4, 0], 1, weights=weights), x=x)
    by_code = linear(unfold(x, 5, 1, 4, 0, fill=0), w.reshape(-1, 4), INPUT, weights, OUTPUT)
    assert not np.array_equal(got, by_code)
    values = np.pad(INPUT.dequantize(x), ((4, 0), (0, 0)))
    reals = np.stack([values[t : t + 5].reshape(-1) @ weights.dequantize(w).reshape(-1, 4) for t in range(4)])
    np.testing.assert_array_equal(got, OUTPUT.quantize(reals))


@pytest.mark.parametrize("depthwise", [False, True])
def test_a_kernel_longer_than_the_utterance(depthwise: bool) -> None:
    rng = np.random.default_rng(9)
    x, w = rng.integers(-128, 128, (1, 3)), rng.integers(-128, 128, (31, 3) if depthwise else (31, 3, 4))
    got = run(convolution(x.shape, w, [15, 15], 1, weights=quantizer(0.01), depthwise=depthwise), x=x)
    assert got.shape == (1, w.shape[-1])
    centre = convolution(x.shape, w[15:16], [0, 0], 1, weights=quantizer(0.01), depthwise=depthwise)
    np.testing.assert_array_equal(got, run(centre, x=x))
    with pytest.raises(
        HwsimError, match=r"layer block.part\) must have padded steps that hold a kernel of 31, got 1 pa"
    ):
        convolution(x.shape, w, [15, 14], 1, weights=quantizer(0.01), depthwise=depthwise)


@pytest.mark.parametrize("depthwise", [False, True])
def test_real_weights_and_no_grids(depthwise: bool) -> None:
    rng = np.random.default_rng(10)
    x, w = rng.standard_normal((9, 3)), rng.standard_normal((5, 3) if depthwise else (5, 3, 4))
    bias = rng.standard_normal(w.shape[-1])
    nothing = {"input": None, "output": None, "bias": bias, "depthwise": depthwise}
    got = run(convolution(x.shape, w, [4, 0], 1, **nothing), x=x)
    padded = np.pad(x, ((4, 0), (0, 0)))
    windows = [padded[t : t + 5] for t in range(9)]
    expected = [(a * w).sum(axis=0) if depthwise else np.tensordot(a, w, 2) for a in windows]
    np.testing.assert_allclose(got, np.stack(expected) + bias, rtol=1e-12, atol=1e-12)
    executable = convolution(x.shape, w, [4, 0], 1, **nothing)
    np.testing.assert_array_equal(executable.parameters()["block.part.weight"], w)


@pytest.mark.parametrize("name", ["training", "tflite-ruy"])
@pytest.mark.parametrize(("shape", "depthwise"), [((9, 4), False), ((9, 4), True), ((9, 8, 4), False)])
def test_round_trip_and_reals_before_rounding(
    shape: tuple[int, ...], depthwise: bool, name: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(11)
    kernel = (3, 4) if depthwise else (*(3,) * (len(shape) - 1), 4, 6)
    padding, stride = ([[1, 1], [2, 0]], [2, 1]) if len(shape) == 3 else ([1, 1], 2)
    w, x = rng.integers(-8, 8, kernel), rng.integers(-128, 128, shape)
    executable = convolution(
        shape, w, padding, stride, weights=channels(kernel[-1], 4), bias=rng.standard_normal(kernel[-1]),
        depthwise=depthwise, semantics=PROFILES[name],
    )  # fmt: skip
    assert_round_trip(executable, {"block.part.x": x}, tmp_path / "e")
    assert set(executable.parameters()) == {"block.part.weight", "block.part.bias"}
    assert list(executable.projections) == ([] if depthwise else ["block.part.weight"])
    # A fixed-point multiplier may round a real just beside a tie, so its distance is a little over a half.
    assert_unrounded(executable, {"block.part.x": x}, {"block.part.out"}, 0.5 if name == "training" else 0.51)
