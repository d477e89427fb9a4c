"""Sensitivity of layers, the best bits under a budget against all choices, and the policies that come of them."""

from __future__ import annotations

import itertools
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from torch import nn  # noqa: E402

from hwsim.errors import HwsimError  # noqa: E402
from hwsim.extract import load_workload  # noqa: E402
from hwsim.numerics import load_policy  # noqa: E402
from hwsim.numerics.least_squares import LeastSquares  # noqa: E402
from hwsim.numerics.policy_file import policy_text  # noqa: E402
from hwsim.simulation import simulate  # noqa: E402
from hwsim.trace import Role  # noqa: E402
from hwsim.train.emit_transducer import convert_transducer  # noqa: E402
from hwsim.train.recipes import network_recipe  # noqa: E402
from hwsim.train.sensitivity import (  # noqa: E402
    BITS,
    Sensitivity,
    allocate,
    hessian_sensitivity,
    hessian_traces,
    kl_sensitivity,
    mean_bits,
    on_bits,
    policy_of_bits,
    quantized_weight,
    total_cost,
    transducer_outputs,
    weight_layers,
)
from hwsim.train.transducer import QuantTransducer  # noqa: E402
from tests.execute.vectors import DOCUMENT  # noqa: E402
from tests.train.test_transducer import batch, small  # noqa: E402


def tiny(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 3)).double()


X = torch.randn(20, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def outputs(network: nn.Module) -> Any:
    return network(X).log_softmax(-1)


@pytest.mark.parametrize("workload", ["digits", "digits_conformer"])
def test_layers_are_those_of_the_traces(workload: str) -> None:
    network = QuantTransducer(load_workload(workload).spec, network_recipe("fp32"))
    parts = convert_transducer(network, 13)
    tensors = [t for part in parts.values() for t in part.trace.tensors if t.role == Role.WEIGHT]
    found = weight_layers(network)
    assert set(found) == {tensor.layer for tensor in tensors}
    for layer, parameters in found.items():
        assert sum(p.numel() for p in parameters) == sum(t.elements for t in tensors if t.layer == layer)


def test_layers_of_plain_modules() -> None:
    assert list(weight_layers(tiny())) == ["0", "3"]
    assert list(weight_layers(nn.Linear(2, 2))) == ["network"]
    with pytest.raises(HwsimError, match="a network must have layers with weights, got LayerNorm without one"):
        weight_layers(nn.LayerNorm(3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bits", BITS)
def test_weights_are_those_of_numpy(bits: int, dtype: Any) -> None:
    w = torch.randn(30, 7, dtype=dtype, generator=torch.Generator().manual_seed(2))
    found = quantized_weight(w, bits)
    assert found.dtype == dtype
    if bits == 16:
        assert np.array_equal(found.numpy(), w.numpy().astype(np.float16).astype(w.numpy().dtype))
    else:
        recipe = LeastSquares(bits, "float32" if dtype == torch.float32 else "float64")
        assert np.array_equal(found.numpy(), recipe.calibrate(w.double().numpy()).fake_quantize(w.numpy()))
    assert not quantized_weight(torch.zeros(4), bits).any()


def test_a_network_is_as_it_was_after_it() -> None:
    network = tiny()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with on_bits(network, {"0": 2, "3": 1}):
        assert network[0].weight.unique().numel() == 3
        assert network[3].weight.unique().numel() == 2
        assert torch.equal(network[0].bias, before["0.bias"])
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with pytest.raises(HwsimError, match="outputs must be log"), on_bits(network, {"0": 2}):
        kl_sensitivity(network, lambda each: each(X))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_divergence_is_its_formula() -> None:
    network = tiny()
    p = outputs(network).exp().detach()
    for found, layer in zip(kl_sensitivity(network, outputs), (0, 3), strict=True):
        assert (found.layer, found.weights) == (str(layer), network[layer].weight.numel())
        assert list(found.cost) == list(BITS)
        for bits, cost in found.cost.items():
            changed = tiny()
            changed[layer].weight.data = quantized_weight(network[layer].weight.detach(), bits)
            q = outputs(changed).exp().detach()
            assert cost == pytest.approx(float((p * (p / q).log()).sum(-1).mean()), rel=1e-9, abs=1e-15)
        assert found.cost[1] > found.cost[4] > found.cost[8] > found.cost[16] >= 0


def test_the_trace_of_a_diagonal_hessian_is_exact_with_one_probe() -> None:
    """0.5 sum d w^2 has the Hessian diag(d), and every v . H v is sum d."""
    network = tiny()
    d = [torch.rand(p.shape, dtype=torch.float64) for p in (network[0].weight, network[3].weight)]

    def loss(each: Any) -> Any:
        return sum(0.5 * (k * layer.weight**2).sum() for k, layer in zip(d, (each[0], each[3]), strict=True))

    before = network[0].weight.detach().clone()
    found = hessian_traces(network, loss, probes=1)
    assert found == {name: pytest.approx(float(k.sum()), rel=1e-9) for name, k in zip("03", d, strict=True)}
    assert torch.equal(network[0].weight, before)
    for each, k, layer in zip(hessian_sensitivity(network, loss, probes=1), d, (0, 3), strict=True):
        w = network[layer].weight.detach()
        for bits, cost in each.cost.items():
            error = float((quantized_weight(w, bits) - w).square().sum())
            assert cost == pytest.approx(float(k.mean()) / 2 * error, rel=1e-9)


def test_the_estimate_nears_the_trace_of_torch() -> None:
    """The variance of v . H v is twice the sum of squares beside the diagonal."""
    network, target = tiny(), torch.arange(20) % 3

    def loss(each: Any) -> Any:
        return nn.functional.nll_loss(outputs(each), target)

    found = hessian_traces(network, loss, probes=300)
    for layer in (0, 3):
        parameter = network[layer].weight.detach()

        def of(w: Any, layer: int = layer) -> Any:
            out = torch.func.functional_call(network, {f"{layer}.weight": w}, (X,))
            return nn.functional.nll_loss(out.log_softmax(-1), target)

        hessian = torch.autograd.functional.hessian(of, parameter).reshape(parameter.numel(), -1)
        beside = hessian - hessian.diag().diag()
        error = float((2 * beside.square().sum() / 300).sqrt())
        assert abs(found[str(layer)] - float(hessian.trace())) < 4 * error < 1


def test_a_trace_below_zero_counts_as_zero() -> None:
    costs = hessian_sensitivity(tiny(), lambda each: -(each[0].weight ** 2).sum(), probes=1)
    assert all(set(each.cost.values()) == {0.0} for each in costs)


SENSITIVITIES = st.lists(
    st.tuples(st.integers(1, 50), st.lists(st.integers(0, 40), min_size=5, max_size=5)), min_size=1, max_size=5
).map(lambda rows: [Sensitivity(str(at), n, dict(zip(BITS, map(float, costs), strict=True)))
                    for at, (n, costs) in enumerate(rows)])  # fmt: skip


@settings(max_examples=60)
@given(SENSITIVITIES, st.integers(8, 136))
def test_bits_are_the_best_of_all_choices(layers: list[Sensitivity], eighths: int) -> None:
    """Whatever the costs, which need not fall with the bits; whole numbers, so that equal sums are equal."""
    budget = eighths / 8
    found = allocate(layers, budget)
    assert list(found) == [each.layer for each in layers]
    names, total = list(found), sum(each.weights for each in layers)
    choices = [dict(zip(names, bits, strict=True)) for bits in itertools.product(BITS, repeat=len(layers))]

    def used(bits: dict[str, int]) -> int:
        return sum(each.weights * bits[each.layer] for each in layers)

    best = min((total_cost(layers, bits), used(bits)) for bits in choices if used(bits) <= Fraction(eighths, 8) * total)
    assert (total_cost(layers, found), used(found)) == best
    assert mean_bits(layers, found) <= budget
    assert total_cost(layers, allocate(layers, budget + 1)) <= best[0]


def test_many_layers_are_no_trouble() -> None:
    rng = np.random.default_rng(0)
    layers = [Sensitivity(str(at), int(rng.integers(1, 30)) * 1000, {b: float(rng.uniform(0.5, 2)) * 4.0**-b for b in
                                                                    BITS}) for at in range(40)]  # fmt: skip
    found = allocate(layers, 3.0)
    assert 2.9 < mean_bits(layers, found) <= 3.0
    assert total_cost(layers, found) < total_cost(layers, dict.fromkeys(found, 2))


def test_what_is_refused() -> None:
    network = tiny()
    with pytest.raises(HwsimError, match="unknown layer '4'; known: 0, 3"), on_bits(network, {"4": 2}):
        pass
    with pytest.raises(HwsimError, match="bits of a layer must be one of 1, 2, 4, 8, 16, got 3"):
        quantized_weight(X, 3)
    with pytest.raises(HwsimError, match="values to quantize must be finite, got NaN or an infinity"):
        quantized_weight(X / 0, 4)
    with pytest.raises(HwsimError, match="outputs must be log probabilities over the last axis, got some that do not"):
        kl_sensitivity(network, lambda each: each(X))
    with pytest.raises(HwsimError, match="probes must be at least 1, got 0"):
        hessian_traces(network, lambda each: each(X).sum(), probes=0)
    with pytest.raises(HwsimError, match="step must be positive, got 0"):
        hessian_traces(network, lambda each: each(X).sum(), step=0)
    with pytest.raises(HwsimError, match="loss must be one finite number, got nan"):
        hessian_traces(network, lambda each: each(X).sum() * float("nan"))
    one = [Sensitivity("a", 3, dict.fromkeys(BITS, 1.0)), Sensitivity("b", 1, {4: 0.0})]
    with pytest.raises(HwsimError, match=r"mean_bits must be at least 1\.75, got 1\.5"):
        allocate(one, 1.5)
    with pytest.raises(HwsimError, match="layers must be at least one, each with finite costs"):
        allocate([Sensitivity("a", 3, {1: float("nan")})], 4)
    with pytest.raises(HwsimError, match="bits of a layer must be one of 1, 2, 4, 8, 16, got 5"):
        policy_of_bits("mine", {"a": 5})


def test_from_a_transducer_to_a_policy_file_that_is_simulated(tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = QuantTransducer(small(), network_recipe("fp32"))
    inputs = batch()
    rows = transducer_outputs(network, *inputs)
    counts = -(-inputs[1] // 2) * (inputs[3] + 1)
    assert rows.shape == (int(counts.sum()), 6)
    by_kl = kl_sensitivity(network, lambda each: transducer_outputs(each, *inputs))
    x = inputs[0].double()
    by_hessian = hessian_sensitivity(network.double(), lambda each: each(x, *inputs[1:]).mean(), probes=2)
    for layers in (by_kl, by_hessian):
        bits = allocate(layers, 4.0)
        policy = policy_of_bits("mine", bits, activations="int8")
        path = tmp_path / "mine.yaml"
        path.write_text(policy_text(policy, "Bits by sensitivity"))
        assert load_policy(path) == policy
        assert {layer: policy.resolve(layer).weights.code_bits for layer in bits} == bits
        wide, narrow = (simulate("rapid_4core", "digits", precision=str(each)) for each in ("fp16", path))
        assert 0 < narrow.energy_j < wide.energy_j


def test_the_example_of_the_document_runs() -> None:
    (example,) = re.findall(r"```py\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    exec(compile(example, str(DOCUMENT), "exec"), {})
