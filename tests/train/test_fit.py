"""The training loop on a toy: resumed runs are equal bit for bit, and what is not finite stops with its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
torch.set_num_threads(1)

from torch import nn  # noqa: E402

from hwsim.errors import HwsimError  # noqa: E402
from hwsim.numerics.codebook import MuLaw  # noqa: E402
from hwsim.train.fit import FitSettings, fit  # noqa: E402
from hwsim.train.weights import CodebookQuantizer  # noqa: E402

SETTINGS = FitSettings(4, 0.05)


class Killed(Exception):
    pass


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second = nn.Linear(3, 8), nn.Linear(8, 1)
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))

    def forward(self, x: Any, y: Any) -> Any:
        if self.training:
            self.seen = torch.maximum(self.seen, x.abs().max().double())
        return (self.second(self.first(x).tanh())[:, 0] - y).square()


def batches(epoch: int, spoil: int = -1) -> Sequence[Callable[[], Any]]:
    def make(at: int) -> Any:
        generator = torch.Generator().manual_seed(100 * epoch + at)
        x = torch.randn(6, 3, generator=generator)
        return (torch.full_like(x, torch.nan) if 3 * epoch + at == spoil else x), x.sum(1).tanh()

    return [partial(make, at) for at in range(3)]


def killed_after(steps: int) -> Callable[[int, int], None]:
    def on_step(done: int, total: int) -> None:
        assert total == 12
        if done == steps:
            raise Killed

    return on_step


@pytest.mark.parametrize("steps", [1, 3, 7, 11])
def test_a_killed_run_that_goes_on_equals_one_that_was_not(tmp_path: Path, steps: int) -> None:
    whole, halted, resumed = Toy(), Toy(), Toy()
    wanted = fit(whole, batches, SETTINGS, score=lambda network: float(network.seen))
    state = tmp_path / "training.safetensors"
    with pytest.raises(Killed):
        fit(halted, batches, SETTINGS, state=state, on_step=killed_after(steps),
            score=lambda network: float(network.seen))  # fmt: skip
    assert state.exists() == (steps > 3)
    with torch.no_grad():
        resumed.first.weight.add_(1.0 if steps > 3 else 0.0)
    found = fit(resumed, batches, SETTINGS, state=state, score=lambda network: float(network.seen))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert (found.losses, found.scores, found.epoch) == (wanted.losses, wanted.scores, 4)
    assert found.losses[-1] < 0.7 * found.losses[0]


def test_a_state_of_another_run_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "training.safetensors"
    fit(Toy(), batches, SETTINGS, state=state, key="one")
    with pytest.raises(HwsimError, match="must be the state of this training to go on, got one of other settings"):
        fit(Toy(), batches, SETTINGS, state=state, key="two")
    wide = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(HwsimError, match="must hold this network, got"):
        fit(wide, batches, SETTINGS, state=state, key="one")
    state.write_bytes(b"nothing")
    with pytest.raises(HwsimError, match=r"training.safetensors: must be the state of a training, got"):
        fit(Toy(), batches, SETTINGS, state=state, key="one")
    assert list(tmp_path.iterdir()) == [state]


def test_nan_stops_with_step_and_layer_and_keeps_the_last_state(tmp_path: Path) -> None:
    state = tmp_path / "training.safetensors"
    with pytest.raises(HwsimError, match=r"stopped at step 7: loss must be finite, got nan; first in the features"):
        fit(Toy(), partial(batches, spoil=7), SETTINGS, state=state)
    whole, resumed = Toy(), Toy()
    fit(whole, batches, SETTINGS)
    fit(resumed, batches, SETTINGS, state=state)
    assert torch.equal(whole.first.weight, resumed.first.weight)


def test_the_layer_is_named() -> None:
    toy = Toy()
    with torch.no_grad():
        toy.second.weight[0, 2] = torch.inf
    with pytest.raises(HwsimError, match=r"step 0: loss must be finite, got inf; first in parameter second\.weight"):
        fit(toy, batches, SETTINGS)

    class Overflow(nn.Module):
        def forward(self, x: Any) -> Any:
            return x * 1e38 * 1e38

    toy = Toy()
    toy.first = nn.Sequential(toy.first, Overflow())
    toy.forward = lambda x, y: (toy.second(toy.first(x))[:, 0] - y).square()  # type: ignore[method-assign]
    with pytest.raises(HwsimError, match=r"first in layer first\.1"):
        fit(toy, batches, SETTINGS)

    class Refusing(nn.Module):
        def forward(self, x: Any) -> Any:
            raise HwsimError("values to quantize must be finite, got NaN or an infinity")

    toy.first[1] = Refusing()
    with pytest.raises(HwsimError, match=r"stopped at step 0: first in layer first\.1: values to quantize must be"):
        fit(toy, batches, SETTINGS)

    class Steep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3))

        def forward(self, x: Any, y: Any) -> Any:
            return ((x * self.weight).sum(1).abs() * 0).sqrt()

    with pytest.raises(HwsimError, match="step 0: gradients must be finite, got nan; first in weight"):
        fit(Steep(), batches, SETTINGS)


def test_rates_and_sharpness() -> None:
    settings = FitSettings(1, 2.0, warm_up=0.25)
    assert [settings.rate(p) for p in (0.125, 0.25, 0.625, 1.0)] == [1.0, 2.0, 1.0, 0.0]
    network = nn.Module()
    network.grid, network.weight = CodebookQuantizer(MuLaw(2)), nn.Parameter(torch.randn(4, 4))
    network.grid.prepare(network.weight)
    seen = []

    def forward(x: Any, y: Any) -> Any:
        seen.append(network.grid.sharpness)
        return network.grid(network.weight).square().sum(1)

    network.forward = forward  # type: ignore[method-assign, assignment]
    fit(network, batches, FitSettings(1))
    assert seen == [10.0, 10.0 + 390 / 3, 10.0 + 2 * 390 / 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": -1}, "epochs must be at least 0, got -1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"gradient_norm": float("inf")}, "gradient_norm must be positive, got inf"),
        ({"warm_up": 1.0}, "warm_up must be between 0 and 1, got 1.0"),
    ],
)
def test_wrong_settings(change: dict[str, Any], message: str) -> None:
    with pytest.raises(HwsimError, match=message):
        FitSettings(**{"epochs": 1, **change})
