"""Fake quantizers of PyTorch: their formats, scales and codes arrive, of weights and of activations."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

import numpy as np  # noqa: E402
from torch import nn  # noqa: E402
from torch.ao.nn import qat, quantizable  # noqa: E402
from torch.ao.quantization import (  # noqa: E402
    FakeQuantize,
    FusedMovingAvgObsFakeQuantize,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
    QConfig,
)

from hwsim.errors import HwsimError  # noqa: E402
from hwsim.extract.graph.nodes import NodeKind, weight_array  # noqa: E402
from hwsim.extract.torch import read_module  # noqa: E402
from tests.extract.torch.models import kinds, layers, only, parameters  # noqa: E402
from tests.extract.torch.test_operators import Of, X, parameter, read  # noqa: E402

SYMMETRIC = {"dtype": torch.qint8, "qscheme": torch.per_tensor_symmetric}
CHANNELS = {"dtype": torch.qint8, "qscheme": torch.per_channel_symmetric, "ch_axis": 0}
INT4 = {"quant_min": -8, "quant_max": 7}


def scales(*values: float) -> torch.Tensor:
    return torch.tensor(values)


def zeros(count: int) -> torch.Tensor:
    return torch.zeros(count, dtype=torch.int32)


@pytest.mark.parametrize(("low", "high", "text"), [
    (-8, 7, "int4"), (-7, 7, "int4"), (-128, 127, "int8"), (-127, 127, "int8"), (0, 255, "int8"), (-2, 1, "int2"),
    (-64, 63, "int8"), (-32768, 32767, "int16"), (0, 1, "int1"), (0, 15, "int4"),
])  # fmt: skip
def test_the_range_of_codes_says_the_bits(low: int, high: int, text: str) -> None:
    graph = read(lambda m, x: x @ torch.fake_quantize_per_tensor_affine(m.w, 0.1, 0, low, high), X, w=parameter(8, 5))
    assert graph.weights["w"].format == text


def test_a_weight_with_one_scale() -> None:
    module = Of(lambda m, x: x @ torch.fake_quantize_per_tensor_affine(m.w, 0.1, 3, -8, 7), w=parameter(8, 5))
    weight = read_module(module, (X,)).weights["w"]
    assert (weight.format, weight.scale, weight.zero_point, weight.axis) == ("int4/zp", np.float32(0.1), 3, None)
    codes = weight_array(weight)
    assert codes.dtype == np.int8
    reals = torch.fake_quantize_per_tensor_affine(module.w, 0.1, 3, -8, 7).detach().numpy()
    np.testing.assert_allclose((codes - 3.0) * 0.1, reals, atol=1e-6)


def test_a_weight_with_a_scale_for_each_channel() -> None:
    scale = torch.rand(5) + 0.1

    def product(m, x):
        return nn.functional.linear(x, torch.fake_quantize_per_channel_affine(m.w, m.scale, m.zero, 0, -8, 7))

    module = Of(product, w=parameter(5, 8), scale=scale, zero=zeros(5))
    graph = read_module(module, (X,))
    weight = graph.weights["w"]
    assert (weight.format, weight.axis, weight.zero_point) == ("int4/channel", 0, None)
    assert np.array_equal(weight.scale, scale.numpy())
    reals = torch.fake_quantize_per_channel_affine(module.w, scale, zeros(5), 0, -8, 7).detach().numpy()
    np.testing.assert_allclose(weight_array(weight) * weight.scale[:, None], reals, rtol=1e-6)
    assert graph.parameters == 40
    assert graph.weights.keys() == {"w"}


def test_a_quantized_weight_that_is_changed_is_real_and_noted() -> None:
    def masked(m, x):
        return x @ (torch.fake_quantize_per_tensor_affine(m.w, 0.1, 0, -8, 7) * m.mask)

    graph = read(masked, X, w=parameter(8, 5), mask=torch.ones(8, 5).tril())
    assert (graph.weights["w"].format, graph.parameters) == ("fp32", 40)
    assert "quantized parameters are changed before they are used, as reals: 1" in graph.notes


def test_a_quantized_buffer_has_its_format() -> None:
    def product(m, x):
        return x @ torch.fake_quantize_per_tensor_affine(m.w, 0.1, 0, -8, 7)

    weight = read(product, X, w=torch.randn(8, 5)).weights["w"]
    assert (weight.format, weight.counted) == ("int4", False)


def test_scales_along_another_axis_are_noted() -> None:
    def product(m, x):
        return nn.functional.linear(x, torch.fake_quantize_per_channel_affine(m.w, m.scale, m.zero, 1, -8, 7))

    graph = read(product, X, w=parameter(5, 8), scale=torch.ones(8), zero=zeros(8))
    assert graph.weights["w"].axis == 1
    assert graph.notes == ("w has 8 scales, not one for each of its 5 outputs",)


def test_a_part_of_a_quantized_weight_keeps_its_scales() -> None:
    scale = torch.rand(6) + 0.1

    def product(m, x):
        whole = torch.fake_quantize_per_channel_affine(m.w, m.scale, m.zero, 0, -128, 127)
        first, second = whole.chunk(2)
        return nn.functional.linear(x, first) + nn.functional.linear(x, second)

    module = Of(product, w=parameter(6, 8), scale=scale, zero=zeros(6))
    graph = read_module(module, (X,))
    second = graph.weights["w.part1"]
    assert (second.format, second.shape, second.axis) == ("int8/channel", (8, 3), 0)
    np.testing.assert_allclose(second.scale, scale[3:].numpy(), rtol=1e-6)
    reals = torch.fake_quantize_per_channel_affine(module.w, scale, zeros(6), 0, -128, 127)[3:].detach().numpy()
    np.testing.assert_allclose(weight_array(second) * second.scale[:, None], reals, rtol=1e-5)
    assert graph.parameters == 48


@pytest.mark.parametrize("quantize", [
    lambda x: torch.fake_quantize_per_tensor_affine(x, 0.1, 5, 0, 15),
    lambda x: torch.fake_quantize_per_tensor_affine(x, torch.tensor(0.1), torch.tensor(5), 0, 15),
    lambda x: torch.ops.aten.fake_quantize_per_tensor_affine_cachemask(x, 0.1, 5, 0, 15)[0],
])  # fmt: skip
def test_an_activation_is_stored_as_its_only_reader_takes_it(quantize) -> None:
    graph = read(lambda m, x: quantize(x.relu()) @ m.w, X, w=parameter(8, 5))
    product = only(graph, NodeKind.LINEAR)
    assert kinds(graph) == {"elementwise": 1, "linear": 1}
    assert product.input_format == "int4/zp"
    assert graph.values[product.inputs[0]].format == "int4/zp"
    assert graph.values[product.outputs[0]].format == "fp32"


def test_an_activation_with_other_readers_is_stored_as_it_is() -> None:
    def branches(m, x):
        y = x.relu()
        return torch.fake_quantize_per_tensor_affine(y, 0.1, 0, -8, 7) @ m.w + y

    graph = read(branches, X, w=parameter(8, 8))
    product = only(graph, NodeKind.LINEAR)
    assert product.input_format == "int4"
    assert graph.values[product.inputs[0]].format == "fp32"


def test_formats_go_through_views_both_ways() -> None:
    def moved(m, x):
        y = torch.fake_quantize_per_tensor_affine(x.relu().transpose(0, 1), 0.1, 0, -8, 7)
        return y.reshape(12, 8) @ m.w

    graph = read(moved, X, w=parameter(8, 5))
    product = only(graph, NodeKind.LINEAR)
    assert product.input_format == "int4"
    relu = only(graph, NodeKind.ELEMENTWISE)
    assert {graph.values[name].format for name in (*relu.outputs, *product.inputs)} == {"int4"}


def test_outputs_and_inputs_have_formats_too() -> None:
    graph = read(lambda _, x: torch.fake_quantize_per_tensor_affine(
        torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -128, 127).relu(), 0.1, 0, -8, 7), X)  # fmt: skip
    assert graph.values[graph.inputs[0]].format == "int8"
    assert graph.values[graph.outputs[0]].format == "int4"


def test_products_of_two_activations_take_the_wider_format() -> None:
    def product(_, x):
        a = torch.fake_quantize_per_tensor_affine(x.relu(), 0.1, 0, -8, 7)
        return a @ torch.fake_quantize_per_tensor_affine(x.tanh(), 0.1, 0, -128, 127).mT

    assert only(read(product, X), NodeKind.MATMUL).input_format == "int8"


def prepared(module: nn.Module) -> nn.Module:
    """A module of torch.ao in evaluation, its observers having seen a batch.

    Every row of a weight has both signs: PyTorch's fused observer gives others a zero point in symmetric schemes too.
    """
    for each in module.parameters():
        each.data = (
            torch.linspace(-1, 1, each.numel()).reshape(each.shape[::-1]).permute(*range(each.ndim)[::-1]).contiguous()
        )
    module.train()
    module(X)
    return module.eval()


@pytest.mark.parametrize(("quantizer", "text"), [
    (FakeQuantize.with_args(observer=MinMaxObserver, **SYMMETRIC, **INT4), "int4"),
    (FakeQuantize.with_args(observer=PerChannelMinMaxObserver, **CHANNELS, **INT4), "int4/channel"),
    (FusedMovingAvgObsFakeQuantize.with_args(observer=MovingAveragePerChannelMinMaxObserver, **CHANNELS, quant_min=-128,
                                             quant_max=127), "int8/channel"),
])  # fmt: skip
@pytest.mark.parametrize("observing", [False, True])
def test_linear_of_quantization_aware_training(quantizer, text: str, observing: bool) -> None:
    active = FusedMovingAvgObsFakeQuantize.with_args(observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=255,
                                                     dtype=torch.quint8)  # fmt: skip
    module = nn.Sequential(active(), qat.Linear(8, 5, qconfig=QConfig(weight=quantizer, activation=active)))
    prepared(module)
    if not observing:
        module.apply(torch.ao.quantization.disable_observer)
    graph = read_module(module, (X,))
    product = only(graph, NodeKind.LINEAR)
    assert layers(graph) == ["1"]
    assert graph.weights["1.weight"].format == text
    assert product.input_format == graph.values[graph.inputs[0]].format == "int8/zp"
    assert graph.parameters == 45
    weight = graph.weights["1.weight"]
    codes = weight_array(weight)
    spread = weight.scale[:, None] if weight.axis == 0 else weight.scale
    found = module[1].weight_fake_quant(module[1].weight).detach().numpy()
    np.testing.assert_allclose(codes * spread, found, rtol=1e-5, atol=1e-7)
    assert "forward" not in module[0].__dict__


def test_a_quantizer_that_is_switched_off_has_no_format() -> None:
    module = nn.Sequential(FakeQuantize(MinMaxObserver, **INT4, dtype=torch.qint8), nn.Linear(8, 5))
    prepared(module)
    module.apply(torch.ao.quantization.disable_fake_quant)
    assert only(read_module(module, (X,)), NodeKind.LINEAR).input_format == "fp32"


def test_a_learned_scale_is_a_parameter_that_is_counted() -> None:
    def learned(m, x):
        w = torch._fake_quantize_learnable_per_tensor_affine(m.w, m.scale, m.zero, -8, 7, 1.0)
        return x @ w

    graph = read(learned, X, w=parameter(8, 5), scale=nn.Parameter(scales(0.1)), zero=scales(0.0))
    assert graph.parameters == 41
    assert graph.weights["w"].format == "int4"
    assert "scales are parameters: 1" in graph.notes


def test_a_scale_that_is_computed_is_refused() -> None:
    rule = "must have a scale that is fixed before the network runs, got one that is computed"
    with pytest.raises(HwsimError, match=rf"aten.fake_quantize_per_tensor_affine.tensor_qparams.* {rule}"):
        read(lambda m, x: torch.fake_quantize_per_tensor_affine(x, x.amax(), zeros(1)[0], -8, 7), X)


def test_quantizable_lstm_is_a_product_of_each_step() -> None:
    module = quantizable.LSTM(8, 5)
    graph = read_module(module, (torch.zeros(3, 1, 8),))
    assert kinds(graph)["linear"] == 2 * 3
    assert graph.parameters == parameters(module)
