"""The training loop: AdamW over batches that depend on seed and epoch alone.

So a run that was killed goes on from its last whole epoch to the parameters that it would have reached.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hwsim.errors import HwsimError
from hwsim.train.analog import NoisyMatrix
from hwsim.train.checkpoint import load_state, save_state
from hwsim.train.weights import CodebookQuantizer

Batch = tuple[Tensor, ...]
Batches = Callable[[int], Sequence[Callable[[], Batch]]]
"""The batches of an epoch, in their order, each made when it is needed; the same whenever the epoch is asked for."""


@dataclass(frozen=True, slots=True)
class FitSettings:
    """A run of training. The rate rises over `warm_up` of all steps and falls by a half cosine. Raises HwsimError."""

    epochs: int
    learning_rate: float = 4e-3
    weight_decay: float = 0.01
    warm_up: float = 0.15
    gradient_norm: float = 5.0
    """Gradients are scaled down to this norm."""

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise HwsimError(f"epochs must be at least 0, got {self.epochs}")
        for name in ("learning_rate", "gradient_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise HwsimError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 < self.warm_up < 1:
            raise HwsimError(f"warm_up must be between 0 and 1, got {self.warm_up}")

    def rate(self, progress: float) -> float:
        """The learning rate at a share of all steps."""
        if progress < self.warm_up:
            return self.learning_rate * max(progress, 1e-3) / self.warm_up
        left = (progress - self.warm_up) / (1 - self.warm_up)
        return self.learning_rate * (0.5 + 0.5 * math.cos(math.pi * left))


@dataclass(slots=True)
class Progress:
    """Where a run stands: losses (mean over utterances) and scores by epoch, processor seconds so far."""

    epoch: int = 0
    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    cpu_s: float = 0.0


def fit(
    network: nn.Module, batches: Batches, settings: FitSettings, *, state: Path | None = None, key: str = "",
    on_step: Callable[[int, int], None] | None = None, score: Callable[[nn.Module], float] | None = None,
) -> Progress:  # fmt: skip
    """Train in place on `network(*batch)`, losses (B,) of each batch.

    `state`: the file that is written after each epoch, and from which a run goes on when it is there; the result is
    that of a run that was never stopped. `key` says what the run is made of: a state of another key is refused.
    `score`: asked after each epoch, of the network in evaluation. `on_step(done, total)`.
    Raises HwsimError when a loss or a gradient is not finite, naming step and layer; the state of the last whole
    epoch stays.
    """
    torch.set_num_threads(1)
    optimizer = torch.optim.AdamW(network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    key = f"{key} {asdict(settings)}"
    progress = Progress()
    if state is not None and state.exists():
        progress = _resume(network, optimizer, state, key)
    network.train()
    for epoch in range(progress.epoch, settings.epochs):
        began = time.process_time()
        progress.losses.append(_epoch(network, optimizer, batches(epoch), settings, epoch, on_step))
        progress.epoch = epoch + 1
        if score is not None:
            with torch.no_grad():
                progress.scores.append(score(network.eval()))
            network.train()
        progress.cpu_s += time.process_time() - began
        if state is not None:
            _keep(network, optimizer, state, key, progress)
    network.eval()
    return progress


def _epoch(network: nn.Module, optimizer: torch.optim.Optimizer, batches: Sequence[Callable[[], Batch]],
           settings: FitSettings, epoch: int, on_step: Callable[[int, int], None] | None) -> float:  # fmt: skip
    total, count = 0.0, 0
    steps = len(batches) * settings.epochs
    for at, make in enumerate(batches):
        step = epoch * len(batches) + at
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(step / steps)
        for module in network.modules():
            if isinstance(module, CodebookQuantizer):
                module.anneal(step / steps)
            elif isinstance(module, NoisyMatrix):
                module.begin(step)
        losses = _step(network, optimizer, make(), settings, step)
        total, count = total + losses.sum().item(), count + len(losses)
        if on_step is not None:
            on_step(step + 1, steps)
    return total / max(count, 1)


def _step(network: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, settings: FitSettings,
          step: int) -> Tensor:  # fmt: skip
    try:
        losses: Tensor = network(*batch)
    except HwsimError as error:
        raise HwsimError(f"training stopped at step {step}: {first_not_finite(network, batch)}: {error}") from None
    if not bool(torch.isfinite(losses).all()):
        where = first_not_finite(network, batch)
        raise HwsimError(f"training stopped at step {step}: loss must be finite, got {losses.mean().item()}; {where}")
    optimizer.zero_grad()
    losses.mean().backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_norm)
    if not bool(torch.isfinite(norm)):
        wrong = [name for name, p in network.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        raise HwsimError(f"training stopped at step {step}: gradients must be finite, got {norm.item()}; "
                         f"first in {wrong[0] if wrong else 'their norm'}")  # fmt: skip
    optimizer.step()
    return losses.detach()


def first_not_finite(network: nn.Module, batch: Batch) -> str:
    """Which parameter or layer first holds or gives NaN or an infinity, as words."""
    for name, value in network.named_parameters():
        if not bool(torch.isfinite(value).all()):
            return f"first in parameter {name}"
    if any(x.is_floating_point() and not bool(torch.isfinite(x).all()) for x in batch):
        return "first in the features"
    entered: list[str] = []
    found: list[str] = []
    handles = []
    for name, module in network.named_modules():
        if name:
            handles.append(module.register_forward_pre_hook(lambda _m, _x, name=name: entered.append(name)))
            handles.append(module.register_forward_hook(lambda _m, _x, y, name=name: _note(y, name, found)))
    try:
        with torch.no_grad():
            network(*batch)
    except HwsimError:
        found = found or entered[-1:]
    finally:
        for handle in handles:
            handle.remove()
    return f"first in layer {found[0]}" if found else "first in the loss"


def _note(y: Any, name: str, found: list[str]) -> None:
    outputs = y if isinstance(y, tuple) else (y,)
    if any(isinstance(x, Tensor) and x.is_floating_point() and not bool(torch.isfinite(x).all()) for x in outputs):
        found.append(name)


def _keep(network: nn.Module, optimizer: torch.optim.Optimizer, path: Path, key: str, progress: Progress) -> None:
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    for at, entry in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{at}.{name}": value for name, value in entry.items()}
    save_state(path, tensors, {"key": key, "progress": asdict(progress)})


def _resume(network: nn.Module, optimizer: torch.optim.Optimizer, path: Path, key: str) -> Progress:
    tensors, about = load_state(path)
    if about.get("key") != key:
        raise HwsimError(f"{path}: must be the state of this training to go on, got one of other settings; "
                         "remove it to begin anew")  # fmt: skip
    own = {name.removeprefix("network."): value for name, value in tensors.items() if name.startswith("network.")}
    try:
        network.load_state_dict(own)
    except RuntimeError as error:
        raise HwsimError(f"{path}: must hold this network, got {str(error).splitlines()[-1].strip()}") from None
    entries: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, at, part = name.split(".")
            entries.setdefault(int(at), {})[part] = value
    optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
    return Progress(**about["progress"])
