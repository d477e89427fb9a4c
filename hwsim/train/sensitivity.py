"""Bits by layer: how sensitive a trained network is to each layer's weights, and the best bits for a mean budget.

Weights are put on symmetric tables {0, +-a, ...} without training after it; 16 bits are halves. Activations and the
other parameters stay as they are. A layer is a module with weights of its own, by its name in the network, which is
the layer's name in the catalogue's traces.
Source: Xu et al., Interspeech 2022, arXiv 2206.11643: both criteria, and that they add up over layers. How a table's
step is found, what an output is and how the sum is minimised are choices here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hwsim.errors import HwsimError, nearest
from hwsim.numerics import LayerPrecision, NumberFormat, PartialPrecision, PrecisionPolicy
from hwsim.numerics.least_squares import LeastSquares
from hwsim.train.quantizers import fake_quantize
from hwsim.train.transducer import QuantTransducer

BITS = (1, 2, 4, 8, 16)
FORMATS = {1: "int1", 2: "int2", 4: "int4", 8: "int8", 16: "fp16"}
TITLES = {"encoder.subsampling": "encoder.subsampling.linear"}
"""Of a `QuantTransducer`: layers that have another name in its trace than in the module."""
Loss = Callable[[nn.Module], Tensor]
"""A scalar, differentiable once."""
Outputs = Callable[[nn.Module], Tensor]
"""Log probabilities (..., V), normalized over the last axis."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What bits cost one layer: `weights` of them, and a `cost` by bits, in nats, which adds up over layers."""

    layer: str
    weights: int
    cost: Mapping[int, float]


def weight_layers(network: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The matrices and tables of each layer: parameters named `weight...` of two or more axes, by module name.

    A network that is a single module is layer `network`. Raises HwsimError for one without such parameters.
    """
    found: dict[str, list[nn.Parameter]] = {}
    for name, module in network.named_modules():
        own = [p for title, p in module.named_parameters(recurse=False) if title.startswith("weight") and p.ndim > 1]
        if own:
            found[TITLES.get(name, name) if isinstance(network, QuantTransducer) else name or "network"] = own
    if not found:
        raise HwsimError(f"a network must have layers with weights, got {type(network).__name__} without one")
    return found


@torch.no_grad()
def quantized_weight(w: Tensor, bits: int) -> Tensor:
    """Values of weights on the table of `bits` (one step for the tensor), of 16 bits as halves, in the type of `w`.

    A tensor of zeros stays as it is. Raises HwsimError for other bits than `BITS`, and for NaN or an infinity.
    """
    _check_bits(bits)
    if not bool(torch.isfinite(w).all()):
        raise HwsimError("values to quantize must be finite, got NaN or an infinity")
    if bits == 16:
        return w.half().to(w.dtype)
    if not bool(w.any()):
        return w.clone()
    return fake_quantize(w, LeastSquares(bits).calibrate(w.double().cpu().numpy()))


@contextmanager
def on_bits(network: nn.Module, bits: Mapping[str, int]) -> Iterator[nn.Module]:
    """Within it the layers named have weights on tables of so many bits; after it the network is as it was.

    Raises HwsimError for a layer that the network has not, and as `quantized_weight`.
    """
    layers = weight_layers(network)
    for name in bits:
        if name not in layers:
            raise HwsimError(f"unknown layer '{name}'{nearest(name, layers)}")
    parameters = [p for name in bits for p in layers[name]]
    kept = [p.detach().clone() for p in parameters]
    values = [quantized_weight(p.detach(), wanted) for name, wanted in bits.items() for p in layers[name]]
    try:
        _put(parameters, values)
        yield network
    finally:
        _put(parameters, kept)


@torch.no_grad()
def kl_sensitivity(network: nn.Module, outputs: Outputs, bits: Sequence[int] = BITS) -> list[Sensitivity]:
    """Of each layer: mean over outputs of KL(p || q), p of the network as it is, q with that layer on its table.

    KL = sum_v p_v (log p_v - log q_v), in nats; what rounding makes negative counts as zero.
    Raises HwsimError for outputs that are not normalized.
    """
    reference = outputs(network).double()
    if not torch.allclose(reference.exp().sum(-1), torch.ones((), dtype=torch.float64), atol=1e-4):
        raise HwsimError("outputs must be log probabilities over the last axis, got some that do not add up to 1")
    found = []
    for layer, parameters in weight_layers(network).items():
        cost = {}
        for wanted in bits:
            with on_bits(network, {layer: wanted}):
                other = outputs(network).double()
            cost[wanted] = max(float((reference.exp() * (reference - other)).sum(-1).mean()), 0.0)
        found.append(Sensitivity(layer, sum(p.numel() for p in parameters), cost))
    return found


def hessian_sensitivity(network: nn.Module, loss: Loss, bits: Sequence[int] = BITS, *, probes: int = 8,
                        seed: int = 0, step: float = 1e-4) -> list[Sensitivity]:  # fmt: skip
    """Of each layer: trace(H) / (2 n) ||Q(w) - w||^2 over its n weights, what an error without a direction costs.

    H is the layer's block of the Hessian of `loss`; a trace below zero counts as zero. See `hessian_traces`.
    """
    traces = hessian_traces(network, loss, probes=probes, seed=seed, step=step)
    found = []
    for layer, parameters in weight_layers(network).items():
        count = sum(p.numel() for p in parameters)
        curvature = max(traces[layer], 0.0) / (2 * count)
        errors = {wanted: sum(_squared_error(p, wanted) for p in parameters) for wanted in bits}
        found.append(Sensitivity(layer, count, {wanted: curvature * error for wanted, error in errors.items()}))
    return found


def hessian_traces(network: nn.Module, loss: Loss, *, probes: int = 8, seed: int = 0,
                   step: float = 1e-4) -> dict[str, float]:  # fmt: skip
    """Hutchinson's estimate of the trace of each layer's block of the Hessian: the mean of v . H v, v random signs.

    H v = (g(w + step v) - g(w - step v)) / (2 step), g the gradient of `loss`: so gradients written by hand need no
    second derivative. 2 `probes` gradients a layer, v of that layer alone: a v of all layers at once costs less, and
    its cross terms drown small layers. Use float64: in float32 the difference of gradients has few digits.
    Raises HwsimError for fewer than one probe, a step that is not positive, and a loss that is not finite.
    """
    if probes < 1:
        raise HwsimError(f"probes must be at least 1, got {probes}")
    if not step > 0:
        raise HwsimError(f"step must be positive, got {step}")
    generator = torch.Generator().manual_seed(seed)
    return {layer: sum(_curvature(network, loss, parameters, generator, step) for _ in range(probes)) / probes
            for layer, parameters in weight_layers(network).items()}  # fmt: skip


def allocate(layers: Sequence[Sensitivity], mean_bits: float) -> dict[str, int]:
    """Bits of each layer with the least sum of costs among those of at most `mean_bits` a weight. Exact.

    Dynamic programming, layer by layer, over pairs (bits used, cost) of which no other is as small and as good. Of
    equal costs the fewer bits are taken. Raises HwsimError for a budget below the fewest bits, and for costs that are
    not finite.
    """
    if not layers or any(not np.isfinite(list(each.cost.values())).all() or not each.cost for each in layers):
        raise HwsimError("layers must be at least one, each with finite costs")
    total = sum(each.weights for each in layers)
    fewest = sum(each.weights * min(each.cost) for each in layers)
    if not fewest <= mean_bits * total:
        raise HwsimError(f"mean_bits must be at least {fewest / total:g}, got {mean_bits:g}")
    left = fewest
    used, cost = np.zeros(1, np.int64), np.zeros(1)
    steps: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
    for each in layers:
        left -= each.weights * min(each.cost)
        options = sorted(each.cost)
        more = (used[:, None] + each.weights * np.array(options, np.int64)).reshape(-1)
        sums = (cost[:, None] + np.array([each.cost[b] for b in options])).reshape(-1)
        fits = np.flatnonzero(more <= mean_bits * total - left)
        order = fits[np.lexsort((sums[fits], more[fits]))]
        best = np.minimum.accumulate(sums[order])
        kept = order[np.r_[True, best[1:] < best[:-1]]]
        used, cost = more[kept], sums[kept]
        steps.append((kept // len(options), np.array(options)[kept % len(options)]))
    at, chosen = len(used) - 1, {}
    for each, (before, bits) in zip(reversed(layers), reversed(steps), strict=True):
        chosen[each.layer] = int(bits[at])
        at = int(before[at])
    return {each.layer: chosen[each.layer] for each in layers}


def mean_bits(layers: Sequence[Sensitivity], bits: Mapping[str, int]) -> float:
    """Bits a weight, over all layers."""
    return sum(each.weights * bits[each.layer] for each in layers) / sum(each.weights for each in layers)


def total_cost(layers: Sequence[Sensitivity], bits: Mapping[str, int]) -> float:
    """The sum of costs, in nats, that `allocate` minimises."""
    return sum(each.cost[bits[each.layer]] for each in layers)


def policy_of_bits(name: str, bits: Mapping[str, int], *, activations: str = "fp16") -> PrecisionPolicy:
    """One rule a layer: weights of 1, 2, 4 or 8 bits with one scale a tensor, of 16 as halves; the rest is fp16.

    `activations`: their format in these layers; weights alone were looked at, so that of a float is what was measured.
    `numerics.policy_file.policy_text` writes it as a file. Raises HwsimError for other bits than `BITS`.
    """
    for wanted in bits.values():
        _check_bits(wanted)
    inputs = NumberFormat.parse(activations)
    rules = tuple((layer, PartialPrecision(NumberFormat(FORMATS[wanted]), inputs)) for layer, wanted in bits.items())
    told = "bits of weights by sensitivity; activations, states and biases were left in floating point"
    return PrecisionPolicy(name, rules, LayerPrecision.same(NumberFormat("fp16")), told)


def transducer_outputs(network: QuantTransducer, x: Tensor, frames: Tensor, labels: Tensor, lengths: Tensor) -> Tensor:
    """Log probabilities (P, V) at the P pairs of a frame and a count of labels of a batch, as `QuantTransducer`."""
    encoded, counts = network.encode(x, frames)
    predicted = network.predict(labels)
    logits = network.joint(encoded.transpose(0, 1)[:, :, None], predicted.transpose(0, 1)[:, None])
    heard = torch.arange(logits.shape[1])[None, :] < counts[:, None]
    said = torch.arange(logits.shape[2])[None, :] <= lengths[:, None]
    log_p: Tensor = logits[heard[:, :, None] & said[:, None, :]].log_softmax(-1)
    return log_p


def _curvature(network: nn.Module, loss: Loss, parameters: Sequence[nn.Parameter], generator: torch.Generator,
               step: float) -> float:  # fmt: skip
    """v . H v of random signs v."""
    kept = [p.detach().clone() for p in parameters]
    signs = [torch.randint(0, 2, p.shape, generator=generator).to(p) * 2 - 1 for p in parameters]
    try:
        up, down = (_gradient(network, loss, parameters, kept, signs, by) for by in (step, -step))
    finally:
        _put(parameters, kept)
    return sum((v * (a - b)).sum().item() for v, a, b in zip(signs, up, down, strict=True)) / (2 * step)


def _gradient(network: nn.Module, loss: Loss, parameters: Sequence[nn.Parameter], kept: Sequence[Tensor],
              signs: Sequence[Tensor], by: float) -> list[Tensor]:  # fmt: skip
    _put(parameters, [w + by * v for w, v in zip(kept, signs, strict=True)])
    value = loss(network)
    if value.ndim or not bool(torch.isfinite(value)):
        raise HwsimError(f"loss must be one finite number, got {value.tolist()}")
    found = torch.autograd.grad(value, list(parameters), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


@torch.no_grad()
def _put(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
    for p, value in zip(parameters, values, strict=True):
        p.copy_(value)


def _squared_error(w: Tensor, bits: int) -> float:
    return float((quantized_weight(w.detach(), bits) - w.detach()).double().square().sum())


def _check_bits(bits: int) -> None:
    if bits not in FORMATS:
        raise HwsimError(f"bits of a layer must be one of {', '.join(map(str, BITS))}, got {bits}")
