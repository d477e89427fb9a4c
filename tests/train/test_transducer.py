"""Transducers and language models: against torch.nn, in batches, and against their executables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from hwsim.errors import HwsimError  # noqa: E402
from hwsim.extract import load_workload  # noqa: E402
from hwsim.extract.spec import NetworkSpec  # noqa: E402
from hwsim.numerics.calibration import BoundAware  # noqa: E402
from hwsim.train.emit_transducer import convert_language_model, convert_transducer  # noqa: E402
from hwsim.train.language_model import QuantLanguageModel  # noqa: E402
from hwsim.train.modules import Recording  # noqa: E402
from hwsim.train.recipes import RECIPES, NetworkRecipe, network_recipe  # noqa: E402
from hwsim.train.sequence import lstm_sequence  # noqa: E402
from hwsim.train.transducer import QuantTransducer, matrices  # noqa: E402

FRAMES, LABELS = 13, 5


def small(**changes: Any) -> NetworkSpec:
    """The digits network with 16 cells, 8 features and 6 labels."""
    spec = load_workload("digits").spec
    joint = {"size": 12, "outputs": LABELS + 1, **changes}
    stack = {"vocabulary": LABELS + 1, "embedding": 8, "cells": 16}
    model = spec.language_models["source_lm"].model_copy(update={**stack, "outputs": LABELS + 1})
    return spec.model_copy(update={
        "encoder": spec.encoder.model_copy(update={"input": 8, "cells": 16}),
        "prediction": spec.prediction.model_copy(update=stack),
        "joint": spec.joint.model_copy(update=joint), "language_models": {"source_lm": model}, "speech": None,
    })  # fmt: skip


def batch(seed: int = 0) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(FRAMES, 3, 8, generator=generator)
    labels = torch.randint(1, LABELS + 1, (4, 3), generator=generator)
    return x, torch.tensor([13, 6, 9]), labels, torch.tensor([4, 0, 2])


def trained(network: Any, *inputs: Any) -> Any:
    """Masks and codebooks fitted, ranges seen, then evaluated in float64."""
    for _, matrix, grid in matrices(network):
        if hasattr(grid, "prepare"):
            grid.prepare(matrix)
    network(*inputs)
    return network.eval().double()


def test_the_sequence_is_the_lstm_of_torch() -> None:
    torch.manual_seed(0)
    theirs = torch.nn.LSTM(5, 7).double()
    x = torch.randn(11, 3, 5, dtype=torch.float64)
    gates = x @ theirs.weight_ih_l0.T + theirs.bias_ih_l0 + theirs.bias_hh_l0
    assert torch.allclose(lstm_sequence(gates, theirs.weight_hh_l0.T, None), theirs(x)[0], rtol=0, atol=1e-14)


def test_the_gradient_of_the_sequence() -> None:
    torch.manual_seed(1)
    gates = torch.randn(4, 3, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda g, w: lstm_sequence(g, w, None), (gates, weight))
    grid = BoundAware(1.0, 4).calibrate()
    h = lstm_sequence(gates, weight, grid)
    assert torch.equal(h.detach(), torch.as_tensor(grid.fake_quantize(h.detach().numpy())))
    (gradient,) = torch.autograd.grad(h[-1].sum(), gates)
    assert bool(gradient[1:].abs().amin() > 0)


def test_counts_of_the_catalogue() -> None:
    spec = load_workload("digits").spec
    network = QuantTransducer(spec, network_recipe("fp32"))
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in network.named_children()}
    assert counts == {name: spec.published.parameters[name] for name in ("encoder", "prediction", "joint")}
    model = QuantLanguageModel(spec.language_models["external_lm"], network_recipe("fp32"))
    assert sum(p.numel() for p in model.parameters()) == spec.published.parameters["external_lm"]


@pytest.mark.parametrize("precision", RECIPES)
def test_training_and_evaluation_agree(precision: str) -> None:
    """Tables are 2^-13 near; an activation that turns by a step of its grid, or noise, moves the loss by little."""
    torch.manual_seed(2)
    network = QuantTransducer(small(), network_recipe(precision))
    for module in network.modules():
        if hasattr(module, "anneal"):
            module.anneal(100.0)
    inputs = batch()
    trained(network, *inputs)
    network.float()
    evaluated = network(*inputs)
    network.train()
    tolerance = 0.5 if precision == "analog" else 0.15 if "4" in precision else 0.01
    assert torch.allclose(network(*inputs), evaluated, rtol=0, atol=tolerance)


def test_padding_does_not_matter() -> None:
    torch.manual_seed(3)
    network = QuantTransducer(small(), network_recipe("int8"))
    x, frames, labels, lengths = batch()
    trained(network, x, frames, labels, lengths)
    whole = network(x.double(), frames, labels, lengths)
    for row in range(3):
        t, u = int(frames[row]), int(lengths[row])
        alone = network(x[:t, row : row + 1].double(), frames[row : row + 1], labels[:u, row : row + 1],
                        lengths[row : row + 1])  # fmt: skip
        assert torch.allclose(alone[0], whole[row], rtol=1e-12)
    found = network.greedy(x.double(), frames)
    assert found == [network.greedy(x[: frames[r], r : r + 1].double(), frames[r : r + 1])[0] for r in range(3)]


@pytest.mark.parametrize("precision", RECIPES)
def test_a_step_of_training_lowers_the_loss(precision: str) -> None:
    torch.manual_seed(4)
    network = QuantTransducer(small(), network_recipe(precision))
    trained(network, *batch())
    network.float().train()
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    losses = []
    for _ in range(12):
        loss = network(*batch()).mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("combine", ["add", "multiply", "concatenate"])
@pytest.mark.parametrize("precision", RECIPES)
def test_a_transducer_equals_its_executables(precision: str, combine: str) -> None:
    """Codes are equal, reals to the last digits: sums of products are taken in another order."""
    torch.manual_seed(5)
    network = trained(QuantTransducer(small(combine=combine), network_recipe(precision)), *batch())
    parts = {name: part.executable() for name, part in convert_transducer(network, FRAMES, rows=4).items()}
    rng = np.random.default_rng(0)
    x = rng.standard_normal((FRAMES, 8))
    frames = parts["encoder"].run({"encoder.input.features": x})["joint.encoder_projection.out"]
    with torch.no_grad():
        wanted = network.encode(torch.as_tensor(x)[:, None], torch.tensor([FRAMES]))[0][:, 0]
        assert np.allclose(frames, wanted.numpy(), rtol=0, atol=1e-13)
        states = network.prediction.start(3)
        kept = {name: np.zeros((3, 16)) for name in ("prediction.layer0.h", "prediction.layer0.c")}
        for step in range(6):
            labels = rng.integers(0, LABELS + 1, 3) if step else np.zeros(3, np.int64)
            recording = Recording()
            h, states = network.prediction.step(torch.as_tensor(labels), states, "prediction", recording)
            predicted = network.joint.prediction_projection(h)
            written = parts["prediction"].run({"prediction.embedding.labels": labels, **kept})
            kept = {name: written[name] for name in kept}
            if precision not in ("fp32", "fp16", "analog"):
                assert np.array_equal(kept["prediction.layer0.h"], recording.codes["prediction.layer0.h"])
            out = written["joint.prediction_projection.out"]
            assert np.allclose(out, predicted.numpy(), rtol=0, atol=1e-13)
            logits = parts["joint"].run({"joint.encoder_projection.out": frames[step : step + 1].repeat(3, axis=0),
                                         "joint.prediction_projection.out": out})["joint.output.logits"]  # fmt: skip
            expected = network.joint(wanted[step], predicted).log_softmax(-1)
            assert np.allclose(logits, expected.numpy(), rtol=0, atol=1e-12)
            assert np.array_equal(logits.argmax(-1), expected.numpy().argmax(-1))


@pytest.mark.parametrize("precision", RECIPES)
def test_a_language_model_equals_its_executable(precision: str) -> None:
    torch.manual_seed(6)
    model = QuantLanguageModel(small().language_models["source_lm"], network_recipe(precision))
    model = trained(model, *batch()[2:])
    executable = convert_language_model(model, 4, "source_lm").executable()
    kept = {name: np.zeros((2, 16)) for name in ("source_lm.layer0.h", "source_lm.layer0.c")}
    states, total = model.stack.start(2), np.zeros(2)
    sentence = np.array([[2, 5], [1, 1], [4, 3]])
    with torch.no_grad():
        for labels, then in zip(np.vstack([[0, 0], sentence]), np.vstack([sentence, [0, 0]]), strict=True):
            wanted, states = model.step(torch.as_tensor(labels), states)
            written = executable.run({"source_lm.embedding.labels": labels, **kept})
            kept = {name: written[name] for name in kept}
            assert np.allclose(written["source_lm.output.logits"], wanted.numpy(), rtol=0, atol=1e-12)
            total -= written["source_lm.output.logits"][[0, 1], then]
        loss = model(torch.as_tensor(sentence), torch.tensor([3, 3]))
    assert np.allclose(total, loss.numpy(), rtol=1e-12)


def test_a_shorter_sentence_ends_earlier() -> None:
    model = QuantLanguageModel(small().language_models["source_lm"], network_recipe("fp32"))
    labels = batch()[2]
    whole = model(labels, torch.tensor([4, 0, 2]))
    assert torch.allclose(whole[2:], model(labels[:2, 2:], torch.tensor([2])))
    assert torch.allclose(whole[1:2], model(labels[:0, 1:2], torch.tensor([0])))


def test_what_is_not_trained() -> None:
    spec = small()
    both = spec.encoder.model_copy(update={"bidirectional": True})
    with pytest.raises(HwsimError, match="an encoder to be trained must be unidirectional, got a bidirectional one"):
        QuantTransducer(spec.model_copy(update={"encoder": both}), network_recipe("fp32"))
    with pytest.raises(HwsimError, match="precision int4 must have a joint with tanh, which is bounded, got relu"):
        QuantTransducer(small(activation="relu"), network_recipe("int4"))
    with pytest.raises(HwsimError, match="a language model must have outputs, got none"):
        QuantLanguageModel(spec.prediction, network_recipe("fp32"))
    dense = spec.prediction.model_copy(update={"dense_inputs": True, "layers": 2})
    with pytest.raises(HwsimError, match="dense_inputs must be false for a network to be trained in low precision"):
        QuantTransducer(spec.model_copy(update={"prediction": dense}), network_recipe("int4"))
    assert QuantTransducer(spec.model_copy(update={"prediction": dense}), NetworkRecipe("fp32"))(*batch()).shape == (3,)
    with pytest.raises(HwsimError, match="frames must be at least 1, got 0"):
        convert_transducer(QuantTransducer(spec, network_recipe("fp32")), 0)
    with pytest.raises(HwsimError, match="rows must be at least 1, got 0"):
        convert_transducer(QuantTransducer(spec, network_recipe("fp32")), 3, rows=0)
    with pytest.raises(HwsimError, match="an activation's range must be seen in training"):
        convert_transducer(QuantTransducer(spec, network_recipe("int4-native")), 3)
