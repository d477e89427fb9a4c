"""Trained modules against their executables: T1 with no code that differs, T2 within the counted budget, mutations."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from hwsim.errors import HwsimError  # noqa: E402
from hwsim.execute.store import load_executable, save_executable  # noqa: E402
from hwsim.extract.conformer import AttentionSpec, ConformerSpec  # noqa: E402
from hwsim.numerics.calibration import BoundAware, MinMax, NativeQat, Sawb  # noqa: E402
from hwsim.numerics.quantizers import Quantizer  # noqa: E402
from hwsim.train import (  # noqa: E402
    Converted,
    QuantActivation,
    QuantAttention,
    QuantConformerBlock,
    QuantConv1d,
    QuantEmbedding,
    QuantGRU,
    QuantLayerNorm,
    QuantLinear,
    QuantLSTM,
    Recipes,
    convert,
    export,
    record,
)
from hwsim.validate import Budget, Report, compare  # noqa: E402

FRAMES, WIDTH = 400, 144
INPUT = "block.input.features"


def conformer(seed: int = 0) -> Any:
    """A block whose grids were measured, with attention that is not flat."""
    torch.manual_seed(seed)
    spec = ConformerSpec(AttentionSpec(WIDTH, 4, left=64, right=16), kernel=15)
    block = QuantConformerBlock(spec, input=MinMax(16))
    with torch.no_grad():
        for part in (block.attention.query, block.attention.key):
            part.weight *= 6.0
        for _ in range(2):
            block(torch.randn(FRAMES, WIDTH))
    return block.eval()


def utterance(seed: int, frames: int = FRAMES, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((frames, width))


def test_a_conformer_block_free_running() -> None:
    """3 x 3,756,656 codes, of which four tensors are the 16-bit residual stream."""
    block = conformer().double()
    executable = export(block, FRAMES, "block")
    assert executable.inputs == (INPUT,)
    for seed in range(3):
        report = compare(executable, block, {INPUT: utterance(seed)}, mode="free-running")
        assert report.mismatches == 0, str(report)
        assert report.passed
        assert report.elements == 3_756_656
    codes = record(block, {INPUT: utterance(0)}, "block").codes
    for name in executable.outputs:
        if name in executable.quantizers:
            assert len(np.unique(codes[name])) > 100, name


def test_a_conformer_block_in_float32() -> None:
    """T2, teacher-forced. INT8 codes keep the default budget.

    A code of the int16 residual stream is known to float32 to 2^-9 of a step: there one in a thousand may turn.
    """
    block = conformer()
    executable = export(block, FRAMES, "block")
    # On the input's grid in both precisions: the network's input is not an output that could be forced.
    inputs = {INPUT: executable.quantizers[INPUT].fake_quantize(utterance(0))}
    report = compare(executable, block, inputs, "T2", budget=Budget(share=1e-3))
    assert report.passed, str(report)
    default = Budget()
    for layer in report.layers:
        if layer.is_code and not layer.tensor.endswith(".sum"):
            assert layer.mismatches <= default.share * layer.elements, layer
    streams = [layer.mismatches for layer in report.layers if layer.tensor.endswith(".sum")]
    assert sum(streams) > 0
    assert not compare(executable, block, inputs, "T2").passed


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_gru_free_running(bidirectional: bool) -> None:
    """400 steps of two layers: 1,024,000 hidden codes in both directions, 512,000 in one."""
    torch.manual_seed(1)
    network = QuantGRU(80, 640, 2, bidirectional=bidirectional, hidden=BoundAware(1.0, 8)).double()
    executable = export(network, FRAMES, "encoder")
    report = compare(executable, network, {"encoder.input.features": utterance(4, width=80)}, mode="free-running")
    assert report.mismatches == 0, str(report)
    assert report.elements == 512_000 * (2 if bidirectional else 1)


def front_to_output() -> tuple[Any, dict[str, np.ndarray]]:
    relative = ConformerSpec(AttentionSpec(32, 4, left=12, right=5), kernel=8, causal=True)
    plain = ConformerSpec(AttentionSpec(32, 2, relative=False), kernel=5)
    recipes = Recipes(weight=NativeQat(4, axis=1))
    network = torch.nn.Sequential(OrderedDict(
        front=QuantConv1d(20, 32, 3, stride=2, weight=NativeQat(8, axis=1), input=MinMax(8), output=MinMax(8)),
        swish=QuantActivation("swish", output=MinMax(8)),
        deep=QuantConv1d(32, 32, 5, depthwise=True, padding="none", weight=NativeQat(8, axis=1), input=MinMax(6),
                         output=MinMax(8)),
        block0=QuantConformerBlock(relative), block1=QuantConformerBlock(plain, recipes),
        output=QuantLinear(32, 12, weight=NativeQat(4, axis=1), output=MinMax(8)),
    )).double()  # fmt: skip
    return network, {"front.input.features": utterance(5, 61, 20)}


def recurrent_on_top() -> tuple[Any, dict[str, np.ndarray]]:
    network = torch.nn.Sequential(OrderedDict(
        norm=QuantLayerNorm(16, input=MinMax(8), output=MinMax(8)),
        attention=QuantAttention(AttentionSpec(16, 2, left=3)),
        gru=QuantGRU(16, 24, 2, bidirectional=True, between=MinMax(8)),
        output=QuantLinear(48, 5, bias=False, weight=Sawb()),
    )).double()  # fmt: skip
    return network, {"norm.input.features": utterance(6, 40, 16)}


def stream_of_reals() -> tuple[Any, dict[str, np.ndarray]]:
    recipes = Recipes(stream=None, scores=None, hidden=MinMax(8, symmetric=False), context=MinMax(8))
    spec = ConformerSpec(AttentionSpec(24, 3), kernel=6)
    network = torch.nn.Sequential(OrderedDict(block=QuantConformerBlock(spec, recipes))).double()
    return network, {INPUT: utterance(7, 50, 24)}


def language_model() -> tuple[Any, dict[str, np.ndarray]]:
    network = torch.nn.Sequential(OrderedDict(
        embedding=QuantEmbedding(46, 32, weight=Sawb()),
        lm=QuantLSTM(32, 48, 3, input=None, between=BoundAware(1.25, 8), dense_inputs=True),
        output=QuantLinear(48, 46, weight=Sawb(), output=BoundAware(4.0, 8)),
    )).double()  # fmt: skip
    return network, {"embedding.labels": np.random.default_rng(8).integers(0, 46, 60)}


def gru_model() -> tuple[Any, dict[str, np.ndarray]]:
    network = torch.nn.Sequential(OrderedDict(
        embedding=QuantEmbedding(46, 32, weight=Sawb()),
        gru=QuantGRU(32, 48, 3, input=None, between=BoundAware(1.25, 8), dense_inputs=True),
        output=QuantLinear(48, 46, weight=Sawb(), output=BoundAware(4.0, 8)),
    )).double()  # fmt: skip
    return network, {"embedding.labels": np.random.default_rng(9).integers(0, 46, 60)}


@pytest.mark.parametrize(
    "make", [front_to_output, recurrent_on_top, stream_of_reals, language_model, gru_model]
)  # fmt: skip
def test_networks_equal_their_executables(make: Callable[[], Any], tmp_path: Path) -> None:
    torch.manual_seed(2)
    network, inputs = make()
    ((name, x),) = inputs.items()
    network(torch.as_tensor(x) * (1 if name.endswith("labels") else 1.2))
    network.eval()
    executable = export(network, len(x))
    report = compare(executable, network, inputs, mode="both")
    assert report.passed, str(report)
    assert report.elements > 2000
    save_executable(executable, tmp_path / "network.hwsim")
    again, outputs = load_executable(tmp_path / "network.hwsim"), executable.run(inputs)
    assert again.inputs == executable.inputs
    assert all(np.array_equal(array, outputs[name]) for name, array in again.run(inputs).items())


def small_block(seed: int = 3) -> tuple[Any, Converted, dict[str, np.ndarray]]:
    torch.manual_seed(seed)
    spec = ConformerSpec(AttentionSpec(32, 4, left=9, right=4), kernel=5)
    block = QuantConformerBlock(spec, input=MinMax(16)).double()
    block(torch.randn(60, 32, dtype=torch.float64))
    return block.eval(), convert(block, 60, "block"), {INPUT: utterance(9, 60, 32)}


def judged(converted: Converted, network: Any, inputs: dict[str, np.ndarray]) -> Report:
    return compare(converted.executable(), network, inputs)


def broken_at(report: Report) -> str:
    return next(layer.tensor for layer in report.layers if not layer.passed)


def coarser(converted: Converted, name: str) -> Converted:
    grid = converted.quantizers[name]
    return replace(converted, quantizers={**converted.quantizers, name: replace(grid, scale=grid.scale * 1.01)})


@pytest.mark.parametrize(
    "name",
    ["feed_forward1.norm.out", "feed_forward1.swish.out", "feed_forward1.sum", "attention.content_query",
     "attention.scores", "attention.context", "convolution.glu.out", "convolution.depthwise.out", "norm.out"],
)  # fmt: skip
def test_another_grid_is_seen(name: str) -> None:
    block, converted, inputs = small_block()
    assert judged(converted, block, inputs).passed
    assert broken_at(judged(coarser(converted, f"block.{name}"), block, inputs)) == f"block.{name}"


@pytest.mark.parametrize(
    ("layer", "changed", "first"),
    [("attention", {"left": 8}, "attention.probabilities"), ("attention", {"right": None}, "attention.probabilities"),
     ("convolution.depthwise", {"padding": [4, 0]}, "convolution.depthwise.out"),
     ("feed_forward1.norm", {"epsilon": 0.1}, "feed_forward1.norm.out")],
)  # fmt: skip
def test_another_attribute_is_seen(layer: str, changed: dict[str, Any], first: str) -> None:
    block, converted, inputs = small_block()
    attributes = {key: dict(values) for key, values in converted.trace.attributes.items()}
    attributes[f"block.{layer}"] |= changed
    report = judged(replace(converted, trace=replace(converted.trace, attributes=attributes)), block, inputs)
    assert broken_at(report) == f"block.{first}"


def test_other_positions_are_seen() -> None:
    block, converted, inputs = small_block()
    turned = {**converted.codes, "position.encoding": converted.codes["position.encoding"][::-1]}
    assert broken_at(judged(replace(converted, codes=turned), block, inputs)) == "block.attention.position.out"
    given = {**converted.codes, "block.attention.scores": np.zeros((4, 60, 60), np.int8)}
    with pytest.raises(HwsimError, match=r"attention.scores must be a parameter or a constant, got what an operation"):
        replace(converted, codes=given).executable()


def test_another_gate_order_of_a_gru_is_seen() -> None:
    torch.manual_seed(4)
    network = QuantGRU(10, 16).double()
    converted, inputs = convert(network, 30, "gru"), {"gru.input.features": utterance(10, 30, 10)}
    assert judged(converted, network, inputs).passed
    swapped = dict(converted.codes)
    for part in ("wx", "wh", "bias_x", "bias_h"):
        r, z, n = np.split(swapped[f"gru.layer0.{part}"], 3, axis=-1)
        swapped[f"gru.layer0.{part}"] = np.concatenate([z, r, n], axis=-1)
    assert not judged(replace(converted, codes=swapped), network, inputs).passed


def test_ranges_measured_on_products_make_no_ties() -> None:
    """5 x 816,000 codes; ranges kept in float64 make exact ties of q k^T, and 51 codes of 20 such modules differed."""
    for seed in range(5):
        torch.manual_seed(seed)
        module = QuantAttention(AttentionSpec(64, 4, relative=False), input=MinMax(8)).double()
        module(torch.randn(300, 64, dtype=torch.float64))
        report = compare(export(module.eval(), 300, "a"), module, {"a.input.features": utterance(seed, 300, 64)})
        assert report.mismatches == 0, str(report)


def test_a_tie_is_shown_as_one() -> None:
    """A grid of scores in a simple ratio to those of q and k: exact ties, which float64 sums do not reproduce."""
    torch.manual_seed(5)
    step = Quantizer(np.asarray(0.1), 8)
    recipes = Recipes(hidden=step, scores=replace(step, scale=np.asarray(0.01)), context=MinMax(8))
    module = QuantAttention(AttentionSpec(16, 4, relative=False), recipes, input=MinMax(8)).double()
    module(torch.randn(200, 16, dtype=torch.float64))
    report = compare(export(module.eval(), 200, "a"), module, {"a.input.features": utterance(11, 200, 16)},
                     mode="teacher-forced")  # fmt: skip
    scores = next(layer for layer in report.layers if layer.tensor == "a.scores")
    assert scores.mismatches > 0
    assert scores.tie_distance is not None
    assert scores.tie_distance < 1e-9
