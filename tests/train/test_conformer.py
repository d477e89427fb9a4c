"""Attention, convolution and Conformer modules: against torch.nn, their gradients, their names."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from hwsim.errors import HwsimError  # noqa: E402
from hwsim.extract.conformer import AttentionSpec, ConformerSpec, conformer_block, position_encoding  # noqa: E402
from hwsim.numerics.calibration import BoundAware, MinMax, NativeQat, Sawb  # noqa: E402
from hwsim.numerics.quantizers import Quantizer  # noqa: E402
from hwsim.trace import Role, TraceBuilder  # noqa: E402
from hwsim.train import (  # noqa: E402
    DynamicQuantizer,
    LearnedBounds,
    QuantActivation,
    QuantAttention,
    QuantConformerBlock,
    QuantConv1d,
    QuantLayerNorm,
    QuantLinear,
    Recipes,
    convert,
    export,
    load_parameters,
    record,
    save_parameters,
)
from hwsim.train import attention as parts  # noqa: E402

REALS = Recipes(weight=None, kernel=None, stream=None, normal=None, hidden=None, scores=None, context=None,
                encoding=None)  # fmt: skip
SPEC = ConformerSpec(AttentionSpec(12, 3, left=5, right=2), kernel=4)


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize(("padding", "pad"), [("same", (1, 2)), ("causal", (3, 0)), ("none", (0, 0))])
def test_a_convolution_is_that_of_torch(depthwise: bool, padding: str, pad: tuple[int, int]) -> None:
    theirs = torch.nn.Conv1d(6, 6, 4, stride=2, groups=6 if depthwise else 1).double()
    ours = QuantConv1d(6, 6, 4, stride=2, padding=padding, depthwise=depthwise).double()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(11, 3, 6, dtype=torch.float64)
    around = torch.nn.functional.pad(x.permute(1, 2, 0), pad)
    assert torch.allclose(ours(x), theirs(around).permute(2, 0, 1), atol=1e-12)
    assert torch.equal(ours(x[:, 1]), ours(x)[:, 1])


def test_a_norm_and_functions_are_those_of_torch() -> None:
    x = torch.randn(5, 8, dtype=torch.float64)
    theirs, ours = torch.nn.LayerNorm(8).double(), QuantLayerNorm(8).double()
    torch.nn.init.normal_(theirs.weight)
    ours.load_state_dict(theirs.state_dict())
    assert torch.equal(ours(x), theirs(x))
    for name, function in (
        ("swish", torch.nn.functional.silu), ("glu", torch.nn.functional.glu), ("relu", torch.relu),
        ("tanh", torch.tanh), ("sigmoid", torch.sigmoid),
    ):  # fmt: skip
        assert torch.allclose(QuantActivation(name)(x), function(x), atol=1e-3), name
    with pytest.raises(HwsimError, match="unknown function 'swsh'; nearest: swish"):
        QuantActivation("swsh")


def test_attention_without_grids_is_that_of_torch() -> None:
    ours = QuantAttention(AttentionSpec(12, 3, left=5, right=2, relative=False), REALS).double()
    theirs = torch.nn.MultiheadAttention(12, 3).double()
    state = ours.state_dict()
    stacked = ("query", "key", "value")
    theirs.in_proj_weight.data = torch.cat([state[f"{name}.weight"] for name in stacked])
    theirs.in_proj_bias.data = torch.cat([state[f"{name}.bias"] for name in stacked])
    theirs.out_proj.load_state_dict({part: state[f"output.{part}"] for part in ("weight", "bias")})
    x = torch.randn(14, 2, 12, dtype=torch.float64)
    mask = torch.ones(14, 14).bool().tril(2).triu(-5)
    assert torch.allclose(ours(x), theirs(x, x, x, attn_mask=~mask)[0], atol=1e-12)


def test_relative_scores_follow_their_definition() -> None:
    """Scores of one head, pair by pair: (q_i + u) k_j + (q_i + v) p(i - j), p the projected encoding."""
    ours = QuantAttention(AttentionSpec(6, 1), REALS).double()
    x = torch.randn(5, 6, dtype=torch.float64)
    with torch.no_grad():
        query, key = ours.query(x), ours.key(x)
        got = ours._relative_scores(query, key, "", None)[0]
        for i in range(5):
            for j in range(5):
                angles = (i - j) / 10000 ** (np.arange(3) / 3)
                encoded = torch.as_tensor(np.stack([np.sin(angles), np.cos(angles)], axis=1).reshape(-1))
                score = (query[i] + ours.content_bias) @ key[j]
                score = score + (query[i] + ours.position_bias) @ (ours.position.weight @ encoded)
                assert abs(got[i, j] - score / math.sqrt(6)) < 1e-12


def test_the_gradient_of_the_integer_softmax_is_the_softmaxs() -> None:
    grid = Quantizer(np.asarray(0.05))
    real = torch.randn(2, 4, 4, dtype=torch.float64)
    scores = (real / 0.05).round() * 0.05
    mask = parts.context_mask(4, 1, None)
    seed = torch.randn(2, 4, 4, dtype=torch.float64)
    gradients = []
    for function in (lambda x: parts.integer_softmax(x, grid, mask),
                     lambda x: x.masked_fill(~mask, -math.inf).softmax(-1)):  # fmt: skip
        x = scores.clone().requires_grad_()
        y = function(x)
        (y * seed).sum().backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients)
    assert torch.allclose(parts.integer_softmax(scores, grid, mask), y, atol=2**-13)
    assert bool((parts.integer_softmax(scores, grid, mask)[:, ~mask] == 0).all())


def test_a_batch_is_its_utterances() -> None:
    block = QuantConformerBlock(SPEC).double()
    x = torch.randn(9, 3, 12, dtype=torch.float64)
    block(x)
    block.eval()
    together = block(x)
    for at in range(3):
        assert torch.allclose(together[:, at], block(x[:, at]), atol=1e-9)


def test_a_causal_block_sees_no_later_frame() -> None:
    spec = ConformerSpec(AttentionSpec(12, 3, left=5, right=0), kernel=4, causal=True)
    block = QuantConformerBlock(spec, REALS).double()
    x = torch.randn(9, 12, dtype=torch.float64)
    y = x.clone()
    y[6:] *= -1.0
    assert torch.allclose(block(x)[:6], block(y)[:6], atol=1e-12)
    assert not torch.allclose(block(x)[6:], block(y)[6:])
    later = QuantConformerBlock(SPEC, REALS).double()
    assert not torch.allclose(later(x)[4:6], later(y)[4:6])


def test_training_lowers_the_loss_and_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    block = QuantConformerBlock(SPEC, Recipes(hidden=LearnedBounds(-1.5, 1.5, 8)))
    network = torch.nn.Sequential(
        QuantConv1d(6, 12, 3, stride=2, weight=NativeQat(8, axis=1), input=MinMax(8)), block, QuantLinear(12, 2)
    )
    x = torch.randn(24, 6, 6)
    target = torch.stack([x[::2, :, 0], x[::2, :, 1].tanh()], dim=-1)
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    losses = []
    for _ in range(12):
        loss = (network(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    # A bias of the keys adds the same to all scores of a query: the softmax does not see it.
    dead = [name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 1e-9)]
    assert [name for name in dead if "_grid" not in name] in ([], ["1.attention.key.bias"])
    trained = [part.upper.item() for part in block.modules() if isinstance(part, LearnedBounds)]
    trained = [upper for upper in trained if upper != 1.5]
    assert len(set(trained)) > 5  # each activation has bounds of its own; those that clip move


def test_converted_names_and_shapes_are_those_of_the_builder() -> None:
    frames = 7
    block = QuantConformerBlock(SPEC, input=MinMax(8))
    block(torch.randn(frames, 12))
    converted = convert(block, frames, "encoder.block0")
    b = TraceBuilder("t")
    x = b.tensor("encoder.block0.input.features", Role.ACTIVATION, (frames, 12), "encoder.block0")
    encoding = position_encoding(b, "position.encoding", 12, frames)
    conformer_block(b, "encoder.block0", SPEC, x, frames, encoding)
    built = b.build()
    assert converted.trace.tensors == built.tensors
    assert converted.trace.attributes == built.attributes
    for name in ("kind", "function", "m", "k", "n", "batch"):
        assert np.array_equal(converted.trace.columns[name], built.columns[name])
    parameters = {t.name for t in built.tensors if t.role in (Role.WEIGHT, Role.BIAS)}
    assert set(converted.codes) == parameters | {"position.encoding"}
    recorded = record(block, {"x": np.zeros((frames, 12))}, "encoder.block0").codes
    written = {t.name for t in built.tensors} - parameters - {"encoder.block0.input.features", "position.encoding"}
    assert set(recorded) == written


def test_parameters_survive_the_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("safetensors")
    first, second = QuantConformerBlock(SPEC), QuantConformerBlock(SPEC)
    x = torch.randn(6, 12)
    first(x)
    save_parameters(first, tmp_path / "block.safetensors")
    load_parameters(second, tmp_path / "block.safetensors")
    assert torch.equal(first.eval()(x), second.eval()(x))


@pytest.mark.parametrize("weight", [NativeQat(8, axis=1), MinMax(2, symmetric=False, group_size=2), Sawb(4, False)])
@pytest.mark.parametrize("per", ["row", "tensor"])
def test_a_grid_of_run_time_trains_and_is_executed(per: str, weight: Any) -> None:
    """Codes, scales and reals of the product are those of the executable, bit for bit; gradients pass in both modes."""
    network = QuantLinear(4, 3, weight=weight, input=DynamicQuantizer(NativeQat(8), per)).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    gradients = []
    for _ in range(2):
        network.zero_grad()
        network(x).square().sum().backward()
        gradients.append(network.weight.grad.clone())
        network.eval()
    assert torch.allclose(*gradients, rtol=1e-12)
    with torch.no_grad():
        written = export(network, 5).run({"network.input.features": x.numpy()})
        assert np.array_equal(written["network.out"], network(x).numpy())
        fixed = network.input_grid.quantizer(x)
        assert fixed.scale.shape == ((5, 1) if per == "row" else (1, 1))
        assert torch.allclose(network(x), network.train()(x), rtol=1e-12)


def test_a_grid_of_run_time_of_another_recipe_is_not_converted() -> None:
    network = QuantLinear(4, 3, weight=NativeQat(8), input=DynamicQuantizer(MinMax(8, symmetric=False)))
    network(torch.randn(5, 4)).sum().backward()
    assert network.eval()(torch.randn(5, 4)).shape == (5, 3)
    for made, message in (
        (network, "a grid that an executable finds at run time must be NativeQat of 2 to 8 bits without an axis, got"),
        (QuantLinear(4, 3, input=DynamicQuantizer(NativeQat(8))),
         "network.weight: must be on a grid where its input finds one at run time, got reals"),
        (QuantConformerBlock(SPEC, Recipes(hidden=DynamicQuantizer(NativeQat(8)))), "must be seen in training"),
    ):  # fmt: skip
        with pytest.raises(HwsimError, match=message):
            convert(made, 5)
    with pytest.raises(HwsimError, match="a grid of each row must be NativeQat of 2 to 8 bits without an axis, got"):
        DynamicQuantizer(MinMax(8), "row")
    with pytest.raises(HwsimError, match="this grid must be fixed before it is used, got one of run time: give"):
        DynamicQuantizer(NativeQat(8)).quantizer()
    with pytest.raises(HwsimError, match="scores and encodings of positions must have grids that are fixed, got"):
        Recipes(scores=DynamicQuantizer(NativeQat(8)))


def named(**modules: torch.nn.Module) -> torch.nn.Sequential:
    network = torch.nn.Sequential()
    for name, module in modules.items():
        network.add_module(name, module)
    return network


def test_what_cannot_be_converted() -> None:
    from hwsim.train import QuantLSTM

    calibrated = QuantLayerNorm(4, input=BoundAware(2.0, 8))
    for network, message in (
        (named(lstm=QuantLSTM(3, 2, bidirectional=True), norm=QuantLayerNorm(4)),
         r"norm: its input must be one tensor, got 2, as from both directions .* put a QuantLinear between"),
        (named(linear=QuantLinear(3, 4), norm=calibrated), "norm: input must be none but in the first module"),
        (named(linear=QuantLinear(3, 5), norm=QuantLayerNorm(4)), "norm: must read 4 channels, got 5 of the module"),
        (named(linear=QuantLinear(3, 5), glu=QuantActivation("glu")), "glu must read an even number of channels"),
        (named(swish=QuantActivation("swish")), "swish: a network must not begin with an element-wise function"),
        (named(linear=QuantLinear(3, 5), lstm=QuantLSTM(4, 4)), "lstm: must read 4 channels, got 5"),
        (named(linear=QuantLinear(3, 4), lstm=QuantLSTM(4, 4, 2, between=BoundAware(1.0), dense_inputs=True)),
         "lstm: input must be none with dense_inputs but in the first module"),
        (QuantConformerBlock(SPEC), "must be seen in training"),
        (named(conv=QuantConv1d(4, 4, 9, padding="none")), "at least as many frames as its kernel of 9, got 5"),
    ):  # fmt: skip
        with pytest.raises(HwsimError, match=message):
            convert(network, 5)
    with pytest.raises(HwsimError, match="padding must be one of same, causal, none, got valid"):
        QuantConv1d(2, 2, 3, padding="valid")
    with pytest.raises(HwsimError, match="as many outputs as inputs, got 3"):
        QuantConv1d(2, 3, 3, depthwise=True)
    with pytest.raises(HwsimError, match="stride must be at least 1, got 0"):
        QuantConv1d(2, 3, 3, stride=0)
    with pytest.raises(HwsimError, match="between must be a grid with dense_inputs, got none"):
        QuantLSTM(2, 3, dense_inputs=True)
