"""Matrices by every recipe against `hwsim.numerics`: the same codes or the same refusal; masks and executables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from hwsim.errors import HwsimError  # noqa: E402
from hwsim.numerics import Sparsity  # noqa: E402
from hwsim.numerics.calibration import MinMax, NativeQat, Sawb  # noqa: E402
from hwsim.numerics.codebook import MuLaw  # noqa: E402
from hwsim.numerics.least_squares import LeastSquares  # noqa: E402
from hwsim.numerics.pruning import keep_largest, stored_places, survivors  # noqa: E402
from hwsim.train import QuantLinear, convert, quantize, record  # noqa: E402
from hwsim.train.weights import SparseWeights, weight_grid  # noqa: E402
from tests.train.test_quantizers import RECIPES  # noqa: E402

SUB_CHANNELS = {
    "sub-channels": MinMax(4, group_size=2), "sub-channels affine": MinMax(2, symmetric=False, group_size=4),
}  # fmt: skip
EVERY: dict[str, Any] = RECIPES | SUB_CHANNELS | {"codebook": MuLaw(4), "codebook 8": MuLaw(8), "codebook 1": MuLaw(1)}
GAUSS = np.random.default_rng(3).standard_normal((8, 6))
TENSORS = {
    "noise": GAUSS, "zeros": np.zeros((8, 6)), "equal": np.full((8, 6), -0.37), "one": np.array([[0.73]]),
    "zero channel": GAUSS * [1, 0, 1, 1, 1, 1], "outlier": np.where(np.arange(48).reshape(8, 6) == 31, 1e6, GAUSS),
    "denormal": GAUSS * 5e-310, "least": np.full((8, 6), 5e-324), "ties": (np.arange(48).reshape(8, 6) - 24) / 2,
    "two signs": np.array([[-1.0, 1.0]] * 8), "float32 denormal": GAUSS.astype(np.float32) * np.float32(1e-39),
    "vast": GAUSS * 1e150,
}  # fmt: skip


def codes_or_message(quantize_it: Any) -> Any:
    try:
        return quantize_it()
    except HwsimError as error:
        return str(error)


def numpy_codes(recipe: Any, w: Any) -> Any:
    """Codes and values by NumPy alone, in the precision of `w`."""
    found = recipe.calibrate(w.astype(np.float64))
    if not isinstance(recipe, MuLaw):
        found = replace(found, precision=str(w.dtype))
    codes = found.quantize(w)
    return codes, found.dequantize(codes).astype(w.dtype)


def torch_codes(recipe: Any, w: Any) -> Any:
    """Codes and values of the module of a matrix in evaluation."""
    module, tensor = weight_grid(recipe, w.shape), torch.as_tensor(w)
    if isinstance(recipe, MuLaw):
        module.prepare(tensor)
        return module.codes(tensor)[0], module.eval()(tensor).numpy()
    return quantize(tensor, module.quantizer(tensor)).numpy(), module(tensor).numpy()


def assert_same(recipe: Any, w: Any) -> bool:
    """Whether there were codes: a tensor that one side refuses, the other refuses with the same words."""
    ours, theirs = (codes_or_message(lambda each=each: each(recipe, w)) for each in (numpy_codes, torch_codes))
    if isinstance(ours, str) or isinstance(theirs, str):
        assert ours == theirs
        return False
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)
    return True


REFUSED = {
    "zeros": {"sawb", "sawb 8", "sawb 2", "sawb 16 levels", "sawb plain", "binary", "codebook", "codebook 8",
              "codebook 1"},
    "equal": {"sawb 8", "sawb 16 levels"}, "least": {"sawb 8", "sawb 16 levels"},
    "two signs": {"sawb 8", "sawb 16 levels"}, "one": {"sawb 8", "sawb 16 levels", *SUB_CHANNELS},
}  # fmt: skip


@pytest.mark.parametrize("tensor", TENSORS)
@pytest.mark.parametrize("name", EVERY)
def test_matrices_have_the_codes_of_numpy(name: str, tensor: str) -> None:
    """Equal magnitudes have no positive clip by SAWB, zeros alone none and no scale; subnormal ones may have none."""
    had = assert_same(EVERY[name], TENSORS[tensor].astype(np.float64))
    if "denormal" not in tensor and tensor != "least":
        assert had == (name not in REFUSED.get(tensor, ()))
    if tensor != "vast":
        assert_same(EVERY[name], TENSORS[tensor].astype(np.float32))


@settings(max_examples=25)
@pytest.mark.parametrize("name", EVERY)
@given(data=st.data())
def test_any_matrix_has_the_codes_of_numpy(name: str, data: st.DataObject) -> None:
    shape = 4 * data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6))
    values = st.one_of(st.floats(-10, 10), st.integers(-20, 20).map(lambda n: n / 2), st.just(0.0))
    w = np.array(data.draw(st.lists(values, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1])))
    assert_same(EVERY[name], w.reshape(shape).astype(data.draw(st.sampled_from(["float32", "float64"]))))


@pytest.mark.parametrize("sparsity", [Sparsity(2, 4), Sparsity(1, 4), Sparsity(3, 8, "index")])
@pytest.mark.parametrize("name", ["sawb", "channel", "affine", "native channel", "ternary", "sub-channels affine"])
def test_pruned_matrices_have_the_codes_of_numpy(name: str, sparsity: Sparsity) -> None:
    recipe = EVERY[name]
    w = np.round(np.random.default_rng(6).standard_normal((16, 6)) * 4) / 4
    mask = keep_largest(w, sparsity)
    kept = w * mask if name == "sub-channels affine" else survivors(w, mask, sparsity)
    found = recipe.calibrate(w[mask] if name == "sawb" else kept)
    module = weight_grid(SparseWeights(recipe, sparsity), w.shape)
    module.prepare(torch.as_tensor(w))
    np.testing.assert_array_equal(module.mask.numpy(), mask)
    codes, grid = module.codes(torch.as_tensor(w))
    np.testing.assert_array_equal(codes, found.quantize(w * mask))
    values = module(torch.as_tensor(w)).detach().numpy()
    np.testing.assert_array_equal(values, found.fake_quantize(w * mask))
    assert not values[~mask].any()
    fmt = replace(grid.number_format, sparsity=sparsity)
    assert fmt.stored_bits(w.shape).sparsity == stored_places(mask, sparsity).size


def test_a_mask_is_frozen_at_its_step() -> None:
    """Dense before it; after it the weights move, the places stay, and only what is kept has a gradient."""
    w = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    module = weight_grid(SparseWeights(NativeQat(8, axis=1), Sparsity(2, 4)), (8, 3))
    assert bool((module(w) != 0).all())
    module.prepare(w)
    mask = module.mask.clone()
    module(w).sum().backward()
    assert torch.equal(w.grad, mask.double())
    moved = torch.where(mask, w.detach() / 100, w.detach())
    assert torch.equal(module(moved) != 0, mask)
    with pytest.raises(HwsimError, match="weights to prune must be finite and at least one"):
        module.prepare(w.detach() / 0)
    binary = weight_grid(SparseWeights(LeastSquares(1), Sparsity(2, 4)), (8, 3))
    with pytest.raises(HwsimError, match="weights of 2:4 must have a level at zero, got a half-step grid"):
        binary(w)


def test_wrong_recipes_of_a_matrix() -> None:
    with pytest.raises(HwsimError, match="rows of an N:M matrix must be a multiple of 4, got 6"):
        weight_grid(SparseWeights(Sawb(4), Sparsity(2, 4)), (6, 1))
    with pytest.raises(HwsimError, match="the first axis must be a multiple of group_size 4, got 6"):
        weight_grid(MinMax(2, group_size=4), (6, 1))(torch.ones(6, 1))
    with pytest.raises(HwsimError, match="bits of a codebook must be 1 to 8, got 9"):
        weight_grid(MuLaw(9), (4, 1))
    broken = weight_grid(MuLaw(2), (4, 1))
    broken.prepare(torch.randn(4, 1))
    broken.table = torch.tensor([-300, -1, 1, 200])
    with pytest.raises(HwsimError, match="table must be -128 to 127, got -300"):
        broken.eval()(torch.ones(4, 1))


def test_the_gradient_of_a_soft_assignment() -> None:
    """The slope of c sum_j a_j z_j, a = softmax(-s |w/c - z|), is -s sum_j a_j (d_j - mean d) z_j, d = sgn(w/c - z)."""
    w = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    grid = weight_grid(MuLaw(3), (5, 4))
    grid.prepare(w)
    grid.anneal(0.1)
    assert grid.sharpness == 49
    grid(w).sum().backward()
    z, clip = grid.codebook.table / 128, float(grid.codebook.scale) * 128
    away = w.detach().numpy()[..., None] / clip - z
    a = np.exp(-49 * np.abs(away))
    a /= a.sum(-1, keepdims=True)
    mean = (a * np.sign(away)).sum(-1, keepdims=True)
    np.testing.assert_allclose(w.grad.numpy(), -49 * (a * (np.sign(away) - mean) * z).sum(-1), rtol=1e-9, atol=1e-12)


EXECUTED = {
    **{f"table {bits}": LeastSquares(bits) for bits in (1, 2, 4, 8)},
    "sub-channels": MinMax(2, symmetric=False, group_size=8), "affine channel": MinMax(2, symmetric=False, axis=1),
    "codebook 1": MuLaw(1), "codebook 8": MuLaw(8),
    "2:4": SparseWeights(NativeQat(4, axis=1), Sparsity(2, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", EXECUTED)
def test_a_layer_has_the_codes_of_its_executable(name: str) -> None:
    torch.manual_seed(0)
    layer = QuantLinear(32, 12, weight=EXECUTED[name], input=MinMax(8), output=MinMax(8))
    if hasattr(layer.weight_grid, "prepare"):
        layer.weight_grid.prepare(layer.weight.T)
    x = torch.randn(20, 32)
    layer.train()(x)
    layer.double().eval()
    wanted = record(layer, {"x": x.double().numpy()}, "layer").codes["layer.out"]
    executable = convert(layer, 20, "layer").executable()
    out = executable.run({executable.inputs[0]: x.double().numpy()})["layer.out"]
    np.testing.assert_array_equal(out, wanted)
    assert len(np.unique(wanted)) > 50
