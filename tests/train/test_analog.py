"""Noise-aware training: the noise that products see, its seeds, runs that go on, and what is programmed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
torch.set_num_threads(1)

from torch import nn  # noqa: E402

from hwsim.errors import HwsimError  # noqa: E402
from hwsim.execute.analog import SETTINGS, Converter  # noqa: E402
from hwsim.train.analog import NoisyMatrix, NoisyWeights, converted, product  # noqa: E402
from hwsim.train.checkpoint import ModelConfig, load_checkpoint, save_checkpoint, ship  # noqa: E402
from hwsim.train.emit_transducer import convert_transducer  # noqa: E402
from hwsim.train.export import export  # noqa: E402
from hwsim.train.fit import FitSettings, fit  # noqa: E402
from hwsim.train.modules import QuantLinear  # noqa: E402
from hwsim.train.recipes import network_recipe  # noqa: E402
from hwsim.train.recognizer import with_formats  # noqa: E402
from hwsim.train.transducer import QuantTransducer, matrices  # noqa: E402
from tests.train.test_transducer import batch, small  # noqa: E402

QUIET = NoisyWeights(weight_noise=0.0, output_noise=0.0, deviations=1e6, dac_bits=16, adc_bits=16)
STATE = "training.safetensors"


def noisy(**changes: Any) -> NoisyMatrix:
    torch.manual_seed(0)
    return NoisyMatrix(NoisyWeights(**changes))


def test_the_standard_tile_is_that_of_the_chip() -> None:
    recipe, chip = NoisyWeights(), SETTINGS["rasch2023"]
    assert (recipe.weight_noise, recipe.output_noise) == (chip.weight_noise, chip.output_noise)
    assert (recipe.dac_bits, recipe.adc_bits, recipe.adc_bound) == (chip.dac.bits, chip.adc.bits, chip.adc.bound)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_converters_are_those_of_the_tiles(bits: int) -> None:
    x = torch.linspace(-3.0, 3.0, 101, dtype=torch.float64)
    chip = Converter(bits, 1.5)
    step = torch.tensor(1.5 / chip.levels, dtype=torch.float64)
    assert np.allclose(converted(x, step, bits).numpy(), chip.convert(x.numpy()), rtol=0, atol=1e-15)


def test_gradients_pass_a_converter_where_it_does_not_clip() -> None:
    x = torch.tensor([-2.0, -0.6, 0.0, 0.9, 1.1], requires_grad=True)
    converted(x, torch.tensor(1 / 7), 4).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


def test_noise_of_weights_is_relative_to_the_greatest_of_the_column() -> None:
    matrix = noisy(weight_noise=0.1, deviations=100.0)
    w = torch.randn(4000, 3) * torch.tensor([1.0, 5.0, 0.0])
    sigma = (matrix(w) - w).std(dim=0)
    greatest = w.abs().amax(dim=0)
    assert torch.allclose(sigma, 0.1 * greatest, rtol=0.05)
    assert sigma[2] == 0


def test_weights_are_clipped_by_column_and_a_clipped_one_has_no_gradient() -> None:
    matrix = noisy(deviations=1.5).eval()
    w = torch.tensor([[1.0, 10.0], [1.0, -10.0], [-1.0, 10.0], [4.0, 10.0]], requires_grad=True)
    clipped = matrix(w)
    bound = 1.5 * np.sqrt(19 / 4)
    assert clipped.detach()[:, 0].tolist() == pytest.approx([1, 1, -1, bound])
    assert torch.equal(clipped[:, 1], w[:, 1])
    clipped.sum().backward()
    assert w.grad is not None
    assert w.grad.tolist() == [[1, 1], [1, 1], [1, 1], [0, 1]]
    codes, grid = matrix.codes(w)
    assert grid is None
    assert np.array_equal(codes, clipped.detach().double().numpy())


def test_a_product_without_noise_is_the_product() -> None:
    torch.manual_seed(1)
    matrix, x, w = NoisyMatrix(QUIET), torch.randn(7, 5, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    assert torch.allclose(product(x, w, matrix), x @ w, atol=2e-3)
    assert not torch.equal(product(x, w, matrix), x @ w)
    assert torch.equal(product(x, w, matrix.eval()), x @ w)
    assert torch.equal(product(x, w, None), x @ w)
    assert torch.isfinite(product(x * 0, w * 0, NoisyMatrix(NoisyWeights()))).all()


def test_noise_of_outputs_is_relative_to_the_greatest_weight_and_input() -> None:
    matrix = noisy(weight_noise=0.0, output_noise=0.2, adc_bits=12)
    x, w = torch.full((8000, 2), 3.0), torch.tensor([[1.0, -4.0], [0.5, 2.0]])
    w = matrix.clipped(w)
    sigma = (product(x, w, matrix) - x @ w).std(dim=0)
    assert torch.allclose(sigma, 0.2 * 3.0 * w.abs().amax(dim=0), rtol=0.05)
    gates = matrix.disturbed_gates(torch.zeros(50, 80, 2), w)
    assert torch.allclose(gates.std(dim=(0, 1)), 0.2 * w.abs().amax(dim=0), rtol=0.05)


def test_noise_belongs_to_seed_and_step() -> None:
    matrix, w = noisy(), torch.randn(6, 4)
    first, second = matrix(w), matrix(w)
    assert not torch.equal(first, second)
    matrix.begin(1)
    other = matrix(w)
    assert not torch.equal(first, other)
    matrix.begin(0)
    assert torch.equal(matrix(w), first)
    assert torch.equal(noisy()(w), first)
    torch.manual_seed(1)
    assert not torch.equal(NoisyMatrix(NoisyWeights())(w), first)


class Killed(Exception):
    pass


def test_a_run_that_goes_on_equals_one_that_was_not_stopped(tmp_path: Path) -> None:
    def network() -> QuantTransducer:
        torch.manual_seed(3)
        return QuantTransducer(small(), network_recipe("analog"))

    def batches(epoch: int) -> Any:
        return [lambda at=at: batch(10 * epoch + at) for at in range(2)]

    def kill(done: int, total: int) -> None:
        if done == 5:
            raise Killed

    settings = FitSettings(4, 0.01)
    whole, halted, resumed = network(), network(), network()
    wanted = fit(whole, batches, settings)
    with pytest.raises(Killed):
        fit(halted, batches, settings, state=tmp_path / STATE, on_step=kill)
    found = fit(resumed, batches, settings, state=tmp_path / STATE)
    assert found.losses == wanted.losses
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_training_makes_a_network_bear_noise() -> None:
    """A toy whose second layer takes the difference of two alike units: clean training makes them large."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 6, generator=generator)
    y = (x @ torch.randn(6, 3, generator=generator)).tanh()

    class Toy(nn.Module):
        def __init__(self, recipe: NoisyWeights | None) -> None:
            super().__init__()
            torch.manual_seed(5)
            self.first, self.second = QuantLinear(6, 24, weight=recipe), QuantLinear(24, 3, weight=recipe)

        def forward(self, x: Any, y: Any) -> Any:
            return (self.second(self.first(x).tanh()) - y).square().sum(dim=1)

    def disturbed(toy: Toy) -> float:
        """Mean loss over chips of the standard tile with much noise."""
        losses = []
        for chip in range(20):
            total = Toy(NoisyWeights(weight_noise=0.1, deviations=1e6))
            total.load_state_dict({**total.state_dict(), **toy.state_dict()})
            for part, own in ((total.first, toy.first), (total.second, toy.second)):
                grid = own.weight_grid
                part.weight.data = (grid.clipped(own.weight.T).T if isinstance(grid, NoisyMatrix) else own.weight).data
                part.weight_grid.begin(chip)  # type: ignore[union-attr]
            losses.append(float(total(x, y).mean().detach()))
        return float(np.mean(losses))

    toys = [Toy(None), Toy(NoisyWeights(weight_noise=0.1))]
    for toy in toys:
        fit(toy, lambda epoch: [lambda: (x, y)], FitSettings(300, 0.02))
    clean, aware = (disturbed(toy) for toy in toys)
    assert aware < 0.8 * clean


def test_what_is_programmed_is_clipped_and_executed_as_halves(tmp_path: Path) -> None:
    torch.manual_seed(2)
    network = QuantTransducer(small(), network_recipe("analog")).eval()
    parts = {name: with_formats(part, network_recipe("analog")).executable()
             for name, part in convert_transducer(network, 13).items()}  # fmt: skip
    held = [found.codes_of_weight() for part in parts.values() for found in part.projections.values()]
    assert all(weights.dtype == np.float16 for weights in held)
    wanted = [grid(matrix).detach().numpy().astype(np.float16) for _, matrix, grid in matrices(network)]
    assert len(held) == len(wanted) == 9
    for weights in held:
        assert any(weights.shape == other.shape and np.array_equal(weights, other) for other in wanted)
    config = ModelConfig(network="transducer", workload=small(), precision="analog", seed=0, epochs={}, command="",
                         data_sha256="", torch="")  # fmt: skip
    save_checkpoint(network, config, tmp_path / "whole")
    loaded = load_checkpoint(tmp_path / "whole")
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in network.state_dict().items())
    with pytest.raises(HwsimError, match="must be on a symmetric grid of at most 8 bits to be kept as codes"):
        ship(tmp_path / "whole", tmp_path / "small")


def test_a_module_of_ones_own_is_exported_with_its_clipped_weights() -> None:
    torch.manual_seed(4)
    linear = QuantLinear(6, 3, weight=NoisyWeights(deviations=1.0)).double().eval()
    executable = export(linear, 5, "mine")
    x = np.random.default_rng(0).standard_normal((5, 6))
    wanted = linear(torch.as_tensor(x)).detach().numpy()
    assert np.allclose(executable.run({"mine.input.features": x})["mine.out"], wanted, rtol=0, atol=1e-14)
    assert np.abs(executable.projections["mine.weight"].codes_of_weight()).max() < linear.weight.abs().max()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight_noise": -0.1}, "weight_noise must be 0 or more, got -0.1"),
        ({"output_noise": float("nan")}, "output_noise must be 0 or more, got nan"),
        ({"deviations": 0.0}, "deviations must be above 0, got 0"),
        ({"adc_bound": float("inf")}, "adc_bound must be above 0, got inf"),
        ({"dac_bits": 1}, "dac_bits must be 2 to 16, got 1"),
        ({"adc_bits": 17}, "adc_bits must be 2 to 16, got 17"),
    ],
)
def test_wrong_recipes(change: dict[str, Any], message: str) -> None:
    with pytest.raises(HwsimError, match=message):
        NoisyWeights(**change)
