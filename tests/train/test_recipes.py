"""Recipes by precision: grids of published bounds and levels, and how each kind of weight becomes codes."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from hwsim.errors import HwsimError  # noqa: E402
from hwsim.numerics.codebook import Codebook, MuLaw  # noqa: E402
from hwsim.train.quantizers import LearnedBounds  # noqa: E402
from hwsim.train.recipes import RECIPES, network_recipe  # noqa: E402
from hwsim.train.transducer import QuantTransducer, matrices  # noqa: E402
from hwsim.train.weights import CodebookQuantizer, weight_codes, weight_grid  # noqa: E402
from tests.train.test_transducer import batch, small, trained  # noqa: E402

LEVELS = {"int8": 255, "int4": 15, "int4-native": 15, "int4-dynamic": 15, "gq5": 32, "int4-2:4": 15}
HIDDEN = {"int8": 127, "int4": 7, "int4-native": 7, "int4-dynamic": 7, "gq5": 127, "int4-2:4": 7}


def test_names() -> None:
    assert list(RECIPES) == ["fp32", "fp16", "int8", "int4", "int4-native", "int4-dynamic", "gq5", "int4-2:4", "analog"]
    assert [name for name, recipe in RECIPES.items() if not recipe.is_quantized] == ["fp32", "fp16"]
    with pytest.raises(HwsimError, match="unknown training precision 'int44'; nearest: int4"):
        network_recipe("int44")


@pytest.mark.parametrize("precision", LEVELS)
def test_levels_of_weights_and_hidden_states(precision: str) -> None:
    torch.manual_seed(0)
    network = trained(QuantTransducer(small(), network_recipe(precision)), *batch())
    for name, matrix, grid in matrices(network):
        codes, quantizer = weight_codes(matrix, grid)
        assert quantizer is not None
        assert len(np.unique(codes)) <= LEVELS[precision], name
        values = quantizer.dequantize(codes)
        assert np.array_equal(values, grid(matrix).detach().numpy()), name
    for layer in network.encoder.layers:
        quantizer = layer.hidden_grid.quantizer()
        assert quantizer.code_range == (-HIDDEN[precision], HIDDEN[precision])
        if precision not in ("int4-native", "int4-dynamic"):
            assert quantizer.scale == 1 / HIDDEN[precision]


def test_bounds_of_the_features_are_trained_by_each_network_for_itself() -> None:
    recipe = network_recipe("int4")
    first, second = recipe.features_grid(), recipe.features_grid()
    assert isinstance(first, LearnedBounds)
    assert first is not second
    network = QuantTransducer(small(), recipe)
    network(*batch()).mean().backward()
    bounds = [network.encoder.input_grid.lower, network.encoder.input_grid.upper]
    assert all(bound.grad is not None and float(bound.grad) != 0 for bound in bounds)


def test_a_soft_assignment_hardens() -> None:
    """At sharpness a, centroid j has the share softmax_j(-a |w / clip - z_j|)."""
    torch.manual_seed(0)
    w = torch.randn(6, 5, dtype=torch.float64)
    grid = CodebookQuantizer(MuLaw(3))
    with pytest.raises(HwsimError, match="a codebook must be fitted to its matrix before it is used, got none"):
        grid(w)
    grid.prepare(w)
    fitted = grid.codebook
    z, clip = fitted.table / 128, float(fitted.scale) * 128
    weights = np.exp(-10 * np.abs(w.numpy()[..., None] / clip - z))
    soft = (weights / weights.sum(-1, keepdims=True)) @ z * clip
    assert np.allclose(grid(w).numpy(), soft, rtol=1e-12)
    grid.anneal(1.0)
    assert grid.sharpness == 400
    hard = fitted.fake_quantize(w.numpy())
    sharp = np.abs(grid(w).numpy() - hard) < 1e-3 * clip
    assert sharp.mean() > 0.8
    assert np.array_equal(grid.eval()(w).numpy(), hard)
    codes, quantizer = grid.codes(w)
    assert codes.dtype == np.uint8
    assert isinstance(quantizer, Codebook)
    assert np.array_equal(quantizer.dequantize(codes), hard)


def test_without_a_recipe_weights_stay_reals() -> None:
    w = torch.randn(3, 2)
    assert weight_grid(None, (3, 2)) is None
    codes, quantizer = weight_codes(w, None)
    assert quantizer is None
    assert np.array_equal(codes, w.double().numpy())
