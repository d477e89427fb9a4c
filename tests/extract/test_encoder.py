"""Conformer encoders of a network file as operations: counts, chunks against the whole, subsampling, refusals."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim import catalogue
from hwsim.arch import load_arch
from hwsim.errors import HwsimError
from hwsim.execute.executor import Executable
from hwsim.extract import load_workload
from hwsim.extract.encoder import block_spec, encoder_frames
from hwsim.extract.encoder_spec import ConformerEncoderSpec
from hwsim.extract.rnnt import emit_encoder
from hwsim.simulation import simulate
from hwsim.trace import Function, Kind, Role, Trace, TraceBuilder

STREAMING = {"causal": True, "left": 6, "chunk": 3}


def spec(**changes: Any) -> ConformerEncoderSpec:
    values: dict[str, Any] = {
        "kind": "conformer", "input": 10, "subsampling": {"kind": "stack", "factor": 2}, "layers": 2, "width": 12,
        "heads": 3, "kernel": 4, "source": "test",
    }  # fmt: skip
    return ConformerEncoderSpec(**(values | changes))


def trace_of(encoder: ConformerEncoderSpec, frames: int, whole: bool = False) -> Trace:
    b = TraceBuilder("t")
    (x,) = emit_encoder(b, encoder, frames, whole=whole)
    trace = b.build()
    assert trace.tensors[x].shape == (encoder_frames(encoder, frames), encoder.width)
    return trace


def parameters(trace: Trace, part: str = "") -> int:
    return sum(t.elements for t in trace.tensors if t.role in (Role.WEIGHT, Role.BIAS) and part in t.name)


@given(
    st.integers(1, 40), st.integers(1, 3), st.integers(1, 3), st.booleans(), st.booleans(), st.booleans(),
    st.integers(1, 4), st.integers(0, 9),
)  # fmt: skip
def test_parameters_and_frames_are_those_of_the_definition(
    frames: int, factor: int, layers: int, convolved: bool, relative: bool, separable: bool, chunk: int, left: int
) -> None:
    way = {"kind": "conv2d", "channels": 5, "layers": factor, "separable": separable}
    encoder = spec(
        subsampling=way if convolved else {"kind": "stack", "factor": factor}, layers=layers, causal=True, left=left,
        chunk=chunk, positions="relative" if relative else "none",
    )  # fmt: skip
    whole, chunks = trace_of(encoder, frames, whole=True), trace_of(encoder, frames)
    features = 10 * factor
    if convolved:
        bins = -(-10 // (1 << factor))
        later = (9 * 5 + 5) + (5 * 5 + 5) if separable else 9 * 5 * 5 + 5
        features = bins * 5
        assert parameters(whole, ".subsampling.") == 9 * 5 + 5 + (factor - 1) * later + features * 12 + 12
    assert parameters(whole) == parameters(chunks)
    assert parameters(whole, ".layer") == layers * block_spec(encoder, 0).parameters
    assert parameters(whole, ".subsampling.linear.") == features * 12 + 12
    assert encoder_frames(encoder, frames) == -(-frames // (2**factor if convolved else factor))


@pytest.mark.parametrize("positions", ["relative", "none"])
def test_work_in_chunks_is_that_of_the_frames_and_of_the_keys_that_they_see(positions: str) -> None:
    """With whole chunks, products with weights are as many; scores and context have left + chunk keys a frame."""
    encoder = spec(**STREAMING, positions=positions)
    frames, heads, depth, width = 12, 3, 4, 12
    whole, chunks = trace_of(encoder, 2 * frames, whole=True), trace_of(encoder, 2 * frames)

    def macs(trace: Trace, *functions: Function) -> int:
        return int(trace.macs[np.isin(trace.function, functions)].sum())

    attention = (Function.SCORES, Function.CONTEXT)
    assert macs(chunks, Function.CONTEXT) == 2 * frames * (6 + 3) * heads * depth
    assert macs(whole, Function.CONTEXT) == 2 * frames * frames * heads * depth
    scores = (6 + 3) + ((6 + 2 * 3 - 1) if positions == "relative" else 0)
    assert macs(chunks, Function.SCORES) == 2 * frames * scores * heads * depth
    positions_macs = 2 * width * width if positions == "relative" else 0
    rest = [trace.macs.sum() - macs(trace, *attention) for trace in (whole, chunks)]
    assert rest[0] - positions_macs * (2 * frames - 1) == rest[1] - positions_macs * (6 + 2 * 3 - 1)


def test_chunks_are_a_loop_that_keeps_keys_values_and_inputs_of_convolutions() -> None:
    trace = trace_of(spec(**STREAMING, positions="relative"), 15)
    assert trace.iteration.max() == 2  # 8 frames are three chunks, the last one filled up
    before = trace.loop < 0
    assert {trace.layers[at] for at in trace.layer[before]} == {f"encoder.layer{i}.attention.position" for i in (0, 1)}
    shapes = {t.name.removeprefix("encoder.layer1."): t.shape for t in trace.tensors}
    for name, rows in (("attention.query.out", 3), ("attention.key.out", 9), ("attention.value.out", 9),
                       ("convolution.glu.out", 6), ("convolution.depthwise.out", 3), ("norm.out", 8)):  # fmt: skip
        assert shapes[name] == (rows, 12), name
    assert shapes["attention.scores"] == (3, 3, 9)
    kept = next(i for i, t in enumerate(trace.tensors) if t.name == "encoder.layer0.attention.key.out")
    writes = np.flatnonzero((trace.operand_tensor == kept) & (trace.operand_write == 1))
    owner = np.searchsorted(trace.operand_ptr, writes, side="right") - 1
    for first, then in itertools.pairwise(owner):
        assert first in trace.dep[trace.dep_ptr[then] : trace.dep_ptr[then + 1]]


def test_attention_without_a_chunk_is_over_the_utterance() -> None:
    trace = trace_of(spec(left=4, right=1), 14)
    assert (trace.loop < 0).all()
    assert trace.attributes["encoder.layer0.attention"] == {"left": 4, "right": 1}
    assert trace_of(spec(**STREAMING), 14).attributes["encoder.layer0.attention"] == {
        "left": 6, "right": None, "chunk": 3,
    }  # fmt: skip


def reals(trace: Trace, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {t.name: rng.standard_normal(t.shape) for t in trace.tensors if t.role in (Role.WEIGHT, Role.BIAS)}


@pytest.mark.parametrize("causal", [False, True])
def test_convolutions_over_frames_and_features_are_executed(causal: bool) -> None:
    """Against sums over taps, written out; a frame of a causal one does not depend on later ones."""
    encoder = spec(subsampling={"kind": "conv2d", "channels": 2, "layers": 1}, input=5, layers=1, positions="none",
                   causal=causal)  # fmt: skip
    trace = trace_of(encoder, 7)
    codes = reals(trace)
    x = np.random.default_rng(1).standard_normal((7, 5))
    out = Executable(trace, codes, {}).run({"encoder.input.features": x})["encoder.subsampling.linear.out"]
    weight, bias = (codes[f"encoder.subsampling.conv0.{part}"] for part in ("weight", "bias"))
    padded = np.pad(x, ((2, 0) if causal else (1, 1), (1, 1)))
    seen = np.zeros((4, 3, 2))
    for t in range(4):
        for f in range(3):
            seen[t, f] = np.einsum("ab,abcn->n", padded[2 * t : 2 * t + 3, 2 * f : 2 * f + 3], weight) + bias
    flat = np.maximum(seen, 0).reshape(4, 6)
    wanted = flat @ codes["encoder.subsampling.linear.weight"] + codes["encoder.subsampling.linear.bias"]
    np.testing.assert_allclose(out, wanted, rtol=1e-12, atol=1e-12)


def test_separable_convolutions_are_timed_and_not_executed() -> None:
    encoder = spec(subsampling={"kind": "conv2d", "channels": 4, "layers": 3, "separable": True}, positions="none")
    trace = trace_of(encoder, 16)
    kinds = [Kind(int(kind)) for kind in trace.kind[:8]]
    product = [Kind.DEPTHWISE, Kind.MATMUL, Kind.ELEMENTWISE]
    assert kinds == [Kind.CONV2D, Kind.ELEMENTWISE, *product, *product]
    assert trace.macs[:3].tolist() == [8 * 5 * 9 * 4, 0, 4 * 3 * 9 * 4]
    with pytest.raises(HwsimError, match=r"DEPTHWISE, layer encoder.subsampling.depthwise1\) must have weights of 2"):
        Executable(trace, reals(trace), {})


@pytest.mark.parametrize("separable", [False, True])
def test_the_last_convolution_may_have_other_channels(separable: bool) -> None:
    """10 features are 5, 3 and 2 after three layers of 4, 4 and 6 channels; 16 frames are 2."""
    way = {"kind": "conv2d", "channels": 4, "last_channels": 6, "layers": 3, "separable": separable}
    trace = trace_of(spec(subsampling=way, positions="none"), 16)
    shapes = {t.name.removeprefix("encoder.subsampling."): t.shape for t in trace.tensors}
    last = "pointwise2" if separable else "conv2"
    assert shapes[f"{last}.weight"] == ((4, 6) if separable else (3, 3, 4, 6))
    assert (shapes[f"{last}.out"], shapes["relu2.out"], shapes["relu1.out"]) == ((2, 2, 6), (2, 2, 6), (4, 3, 4))
    assert (shapes["linear.weight"], shapes["linear.out"]) == ((12, 12), (2, 12))
    later = ((9 * 4 + 4) + (4 * 4 + 4) + (9 * 4 + 4) + (4 * 6 + 6)) if separable else (9 * 16 + 4) + (9 * 24 + 6)
    assert parameters(trace, ".subsampling.") == 9 * 4 + 4 + later + 12 * 12 + 12


def test_chunks_are_timed_and_not_executed() -> None:
    trace = trace_of(spec(**STREAMING, positions="none"), 16)
    with pytest.raises(HwsimError, match=r"^operation 0 \(MATMUL, layer encoder.subsampling.linear\) "):
        Executable(trace, reals(trace), {})


@pytest.mark.parametrize(("arch", "precision"), [("rapid_4core", "int4"), ("edge_npu", "int8"), ("edge_npu", "fp16")])
def test_the_streaming_conformer_of_the_catalogue_is_timed(arch: str, precision: str) -> None:
    """The encoder's products are those of its definition: 9 chunks of 4 frames for 70 features, filled up."""
    workload = load_workload("digits_conformer")
    result = simulate(load_arch(arch), workload, precision, lm="none", beam=1)
    frames, d = 9 * 4, 64
    block = (4 * 3 + 7) * d * d + 8 * d + 2 * (16 + 4) * d
    assert result.components["encoder"].macs == frames * (2 * 120 * d + 4 * block) + 35 * d * 64
    assert 0 < result.rtf < 0.01


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("kind: conformer", "kind: transformer",
         "encoder must be given with 'kind' one of 'lstm', 'conformer', 'tdnnf', 'cascaded', 'bifocal', got "),
        ("  heads: 4", "  heads: 5", "encoder must be such that heads divide width (64), got "),
        ("  causal: true", "  causal: false", "encoder must be such that causal is true, as it has a chunk, got "),
        ("  left: 16 ", "  right: 16 ", "encoder must be such that left is given and right is not, as it has a "),
        ("  chunk: 4 ", "  chunk: 0 ", "encoder.chunk must be at least 1, got 0"),
        ("  kernel: 8", "  kernels: 8", "encoder.kernels must be a known key, got 'kernels'; nearest: kernel"),
        ("{kind: stack, factor: 2}", "{kind: conv2d, channels: 8, layers: 5}",
         "encoder.subsampling.layers must be at most 4, got 5"),
        ("{kind: stack, factor: 2}", "{kind: pool}",
         "encoder.subsampling must be given with 'kind' one of 'stack', 'conv2d', got {'kind': 'pool'}"),
    ],
)  # fmt: skip
def test_a_mistake_in_an_encoder_is_one_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = catalogue.find("workloads", "workload", "digits_conformer").read_text(encoding="utf-8")
    assert text.count(old) == 1
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(HwsimError) as raised:
        load_workload(path)
    assert f": {said}" in str(raised.value)
    assert "\n" not in str(raised.value)
