"""Torch quantizers against `hwsim.numerics`: the same codes, to the last tie."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from hwsim.errors import HwsimError  # noqa: E402
from hwsim.numerics.calibration import BoundAware, MinMax, NativeQat, Pact, Sawb  # noqa: E402
from hwsim.numerics.least_squares import LeastSquares  # noqa: E402
from hwsim.numerics.quantizers import Quantizer  # noqa: E402
from hwsim.numerics.rounding import TIES  # noqa: E402
from hwsim.numerics.tables import fixed_table  # noqa: E402
from hwsim.train import DynamicQuantizer, FakeQuantizer, LearnedBounds, fake_quantize, quantize  # noqa: E402
from hwsim.train.quantizers import table_function  # noqa: E402


def adversarial(scale: float) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(0)
    ties = (np.arange(-300, 300) + 0.5) * scale
    beside = np.concatenate([np.nextafter(ties, np.inf), np.nextafter(ties, -np.inf)])
    tiny = np.array([0.0, -0.0, 5e-324, -5e-324, 1e-310, 1e-45, 2.0**-126])
    return np.concatenate([ties, beside, tiny, [1e30, -1e30], rng.standard_normal(5000) * 10 * scale]).reshape(-1, 1)


RECIPES = {
    "sawb": Sawb(), "sawb 8": Sawb(8), "sawb 2": Sawb(2, zero_aligned=False),
    "sawb 16 levels": Sawb(zero_aligned=False), "sawb plain": Sawb(unit=False), "bac": BoundAware(1.0),
    "bac 1.25": BoundAware(1.25), "bac unit": BoundAware(unit=True),
    "pact": Pact(-0.3, 1.7), "pact 8": Pact(0.0, 6.0, 8), "min-max": MinMax(8), "affine": MinMax(8, symmetric=False),
    "channel": MinMax(4, axis=1), "native": NativeQat(4), "native channel": NativeQat(8, axis=1),
    "affine channel": MinMax(2, symmetric=False, axis=1), "pact 2": Pact(0.0, 1.0, 2), "native 8": NativeQat(8),
    "binary": LeastSquares(1), "ternary": LeastSquares(2), "table 4": LeastSquares(4), "table 8": LeastSquares(8),
}  # fmt: skip


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("name", RECIPES)
def test_codes_and_values_are_those_of_numpy(name: str, precision: Any) -> None:
    sample = np.random.default_rng(1).standard_normal((64, 3))
    quantizer = replace(RECIPES[name].calibrate(sample), precision=precision)
    x = np.tile(adversarial(float(quantizer.scale.flat[0])), (1, 3)).astype(precision)
    tensor = torch.as_tensor(x)
    np.testing.assert_array_equal(quantize(tensor, quantizer).numpy(), quantizer.quantize(x))
    np.testing.assert_array_equal(fake_quantize(tensor, quantizer).numpy(), quantizer.fake_quantize(x))


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("form", ["divide", "reciprocal", "unit"])
def test_every_form_and_tie(form: Any, ties: Any) -> None:
    for order in ("after",) if form == "unit" else ("after", "before"):
        zero = 0 if form == "unit" else 3
        quantizer = Quantizer(np.asarray(0.07), 6, np.asarray(zero), form=form, ties=ties, zero_point_order=order)
        x = adversarial(0.07)
        np.testing.assert_array_equal(quantize(torch.as_tensor(x), quantizer).numpy(), quantizer.quantize(x))


def test_group_scales() -> None:
    scale = np.array([[0.1, 0.2], [0.3, 0.4]])
    quantizer = Quantizer(scale, 4, group_size=3)
    x = np.random.default_rng(2).standard_normal((6, 2))
    np.testing.assert_array_equal(quantize(torch.as_tensor(x), quantizer).numpy(), quantizer.quantize(x))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinity_are_refused(bad: float) -> None:
    x = torch.tensor([0.0, bad], dtype=torch.float64)
    recipes = (Sawb(), BoundAware(), Pact(-1, 1), MinMax(), NativeQat(), LeastSquares(1), LeastSquares(4))
    modules = [FakeQuantizer(recipe) for recipe in recipes]
    for module in (*modules, LearnedBounds(), DynamicQuantizer(NativeQat())):
        with pytest.raises(HwsimError, match="must be finite"):
            module(x)
    with pytest.raises(HwsimError, match=r"must be float32 or float64, got torch.float16"):
        quantize(torch.zeros(2, dtype=torch.float16), BoundAware().calibrate())


def test_gradients_pass_straight_through_and_stop_at_the_clip() -> None:
    x = torch.tensor([-3.0, -0.4, 0.2, 0.9, 3.0], requires_grad=True)
    FakeQuantizer(BoundAware(1.0))(x).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


@pytest.mark.parametrize("name", RECIPES)
def test_the_gradient_is_one_inside_and_zero_where_a_code_is_clipped(name: str) -> None:
    quantizer = RECIPES[name].calibrate(np.random.default_rng(1).standard_normal((64, 1)))
    low, high = (float(value) for value in quantizer.dequantize(np.array([[c] for c in quantizer.code_range]))[:, 0])
    step = float(quantizer.scale.reshape(-1)[0])
    x = torch.tensor([[low - 2 * step], [low + 0.3 * step], [high - 0.3 * step], [high + 2 * step]]).double()
    x.requires_grad_()
    fake_quantize(x, quantizer).sum().backward()
    assert x.grad[:, 0].tolist() == [0, 1, 1, 0]


@given(st.floats(-4, 0), st.floats(0.125, 4), st.lists(st.floats(-6, 6), min_size=1, max_size=30),
       st.integers(1, 8))  # fmt: skip
def test_gradients_of_learned_bounds_are_their_closed_form(
    lower: float, upper: float, x: list[float], bits: int
) -> None:
    """With weights g of the loss: sum g where x >= upper, sum g where x <= lower, and g between them."""
    module = LearnedBounds(lower, upper, bits).double()
    bounds = module.lower.item(), module.upper.item()
    values = np.array([*x, *bounds])
    g = np.arange(1.0, values.size + 1)
    tensor = torch.tensor(values, requires_grad=True)
    (module(tensor) * torch.as_tensor(g)).sum().backward()
    above, below = values >= bounds[1], values <= bounds[0]
    assert module.upper.grad.item() == g[above].sum()
    assert module.lower.grad.item() == g[below].sum()
    np.testing.assert_array_equal(tensor.grad.numpy(), g * ~(above | below))


def test_dynamic_activations_of_native_qat_need_no_range() -> None:
    """Each tensor has the scale of its own largest value: nothing is clipped, and every gradient passes."""
    module = DynamicQuantizer(NativeQat(4))
    for factor in (1e-3, 1.0, 1e3):
        x = np.random.default_rng(4).standard_normal((7, 5)) * factor
        tensor = torch.tensor(x, requires_grad=True)
        y = module(tensor)
        scale = np.float64(np.float32(np.abs(x).max() / 7))
        np.testing.assert_array_equal(y.detach().numpy(), np.floor(x / scale + 0.5) * scale)
        y.sum().backward()
        assert bool((tensor.grad == 1).all())


def test_learned_bounds() -> None:
    module = LearnedBounds(-1.0, 2.0, 4).double()
    x = np.array([-5.0, -0.4, 0.2, 1.9, 7.0, 9.0])
    y = module(tensor := torch.tensor(x, requires_grad=True))
    np.testing.assert_array_equal(y.detach().numpy(), Pact(-1.0, 2.0, 4).calibrate().fake_quantize(x))
    y.sum().backward()
    assert tensor.grad.tolist() == [0, 1, 1, 1, 0, 0]
    assert module.lower.grad.item() == 1
    assert module.upper.grad.item() == 2
    with pytest.raises(HwsimError, match="bounds must be lower <= 0 < upper"):
        LearnedBounds(0.5, 1.0)


def test_an_activation_range_is_kept_for_evaluation() -> None:
    module = FakeQuantizer(MinMax(8, symmetric=False), static=True)
    with pytest.raises(HwsimError, match="must be seen in training"):
        module.eval()(torch.zeros(3))
    module.train()(torch.tensor([-1.0, 0.5]))
    module(torch.tensor([0.0, 3.0]))
    wanted = MinMax(8, symmetric=False).calibrate([-1.0, 3.0])
    assert module.eval().quantizer(torch.tensor([99.0])).scale == wanted.scale
    with pytest.raises(HwsimError, match="must have one scale"):
        FakeQuantizer(NativeQat(axis=1), static=True)


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_tables_are_the_executors(name: str) -> None:
    table = fixed_table(name)
    x = np.concatenate([np.random.default_rng(4).standard_normal(20000) * 4, np.arange(-40000, 40000) * 2.0**-13])
    tensor = torch.tensor(x, requires_grad=True)
    y = table_function(tensor, table, name)
    np.testing.assert_array_equal(y.detach().numpy(), table(x))
    y.sum().backward()
    function = torch.sigmoid if name == "sigmoid" else torch.tanh
    exact = torch.tensor(x, requires_grad=True)
    function(exact).sum().backward()
    np.testing.assert_allclose(tensor.grad.numpy(), exact.grad.numpy(), atol=2e-3)
