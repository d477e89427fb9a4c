"""Modules against torch.nn and against their executable; parameters on disk."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from hwsim.errors import HwsimError  # noqa: E402
from hwsim.numerics.calibration import BoundAware, MinMax, NativeQat, Sawb  # noqa: E402
from hwsim.numerics.quantizers import Quantizer  # noqa: E402
from hwsim.train import (  # noqa: E402
    LearnedBounds,
    QuantEmbedding,
    QuantLinear,
    QuantLSTM,
    convert,
    export,
    load_parameters,
    record,
    save_parameters,
)
from hwsim.validate import compare  # noqa: E402


def test_without_grids_it_is_the_lstm_of_torch() -> None:
    """Its names and gate order; the tables are 2^-13 near."""
    torch.manual_seed(0)
    theirs = torch.nn.LSTM(5, 7, 2, bidirectional=True).double()
    ours = QuantLSTM(5, 7, 2, bidirectional=True, weight=None, input=None, hidden=None).double()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(11, 3, 5, dtype=torch.float64)
    assert torch.allclose(ours(x), theirs(x)[0], atol=1e-3)


def test_gradients_reach_every_parameter() -> None:
    torch.manual_seed(1)
    network = torch.nn.Sequential(
        QuantLSTM(6, 8, 2, bidirectional=True, input=LearnedBounds(-2.0, 2.0, 8), between=BoundAware(1.25)),
        QuantLinear(16, 4, weight=NativeQat(4, axis=1), input=MinMax(8), output=MinMax(8)),
    )
    network(torch.randn(9, 2, 6) * 2).square().sum().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in network.parameters())
    assert all(float(p.grad.abs().sum()) > 0 for p in network.parameters())


def test_training_lowers_the_loss() -> None:
    torch.manual_seed(2)
    network = torch.nn.Sequential(QuantLSTM(4, 12), QuantLinear(12, 2, weight=Sawb()))
    x = torch.randn(8, 8, 4)
    target = torch.stack([x[..., 0].cumsum(0).tanh(), x[..., 1].tanh()], dim=-1)
    optimizer = torch.optim.Adam(network.parameters(), 0.05)
    losses = []
    for _ in range(12):
        loss = (network(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def language_model(cells: int, embedding: int, labels: int = 46) -> torch.nn.Sequential:
    return torch.nn.Sequential(OrderedDict(
        embedding=QuantEmbedding(labels, embedding, weight=Sawb()),
        lm=QuantLSTM(embedding, cells, 2, input=None),
        output=QuantLinear(cells, labels, weight=Sawb(), output=BoundAware(4.0, 8)),
    )).double()  # fmt: skip


def test_a_language_model_equals_its_executable() -> None:
    torch.manual_seed(3)
    network = language_model(96, 40)
    labels = np.random.default_rng(0).integers(0, 46, 50)
    report = compare(export(network, 50), network, {"embedding.labels": labels}, mode="both")
    assert report.passed
    assert report.elements == 2 * 50 * (40 + 2 * 96 + 46)


SETUPS = {
    "int16 cell": {"cell": Quantizer(np.asarray(2.0**-11), 16)},
    "learned bounds": {"input": LearnedBounds(-2.0, 2.5, 8), "between": BoundAware(1.25)},
    "8 bits by channel": {"weight": NativeQat(8, axis=1), "hidden": BoundAware(1.0, 8)},
    "2 bits": {"weight": Sawb(2, zero_aligned=False)},
    "reals outside": {"weight": None, "input": None},
}


@pytest.mark.parametrize("name", SETUPS)
def test_other_grids_equal_their_executable(name: str) -> None:
    torch.manual_seed(4)
    network = QuantLSTM(20, 32, 2, bidirectional=True, **SETUPS[name]).double()
    x = np.random.default_rng(1).standard_normal((40, 20))
    executable = export(network, 40, "encoder")
    report = compare(executable, network, {"encoder.input.features": x})
    assert report.passed, str(report)
    assert report.elements == 40 * 32 * 4


def test_layers_that_share_a_name_with_the_catalogue() -> None:
    trace = convert(QuantLSTM(4, 4, bidirectional=True), 3, "encoder").trace
    assert {"encoder.layer0.forward_wx", "encoder.layer0.backward_h"} <= {t.name for t in trace.tensors}


def test_what_cannot_be_exported() -> None:
    with pytest.raises(HwsimError, match=r"must be a quantized module or an nn.Sequential, got LSTM"):
        export(torch.nn.LSTM(2, 2), 3)
    with pytest.raises(HwsimError, match=r"act: must be one of QuantActivation, .*, QuantTdnnf, got ReLU$"):
        export(torch.nn.Sequential(OrderedDict(act=torch.nn.ReLU())), 3)
    with pytest.raises(HwsimError, match="frames must be at least 1, got 0"):
        export(QuantLSTM(2, 2), 0)
    with pytest.raises(HwsimError, match="must be seen in training"):
        export(QuantLinear(2, 2, weight=Sawb(), input=MinMax(8)), 3)
    with pytest.raises(HwsimError, match="recorded on one utterance"):
        record(QuantLSTM(2, 2), {"x": np.zeros((3, 1, 2))})


def test_parameters_survive_the_file(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    torch.manual_seed(5)
    first, second = QuantLSTM(3, 4), QuantLSTM(3, 4)
    save_parameters(first, tmp_path / "a.safetensors")
    load_parameters(second, tmp_path / "a.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    with pytest.raises(HwsimError, match=r"weight_ih_l0 must be \(16, 2\), got \(16, 3\)"):
        load_parameters(QuantLSTM(2, 4), tmp_path / "a.safetensors")
    with pytest.raises(HwsimError, match="must hold weight_ih_l1; nearest: weight_ih_l0"):
        load_parameters(QuantLSTM(3, 4, 2), tmp_path / "a.safetensors")


def test_a_pickle_is_refused_unread(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    module = QuantLinear(2, 2)
    torch.save(module.state_dict(), tmp_path / "model.pt")
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"weight": math.pi}))
    (tmp_path / "model.txt").write_text("hello, this is not a model")
    for name, got in (("model.pt", "a zip that torch.save wrote"), ("model.pkl", "a pickle"), ("model.txt", "")):
        with pytest.raises(HwsimError, match=rf"{name}: must be a safetensors file, got {got}") as caught:
            load_parameters(module, tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(HwsimError, match="must be a safetensors file, got no such file"):
        load_parameters(module, tmp_path / "none")


def test_without_torch_it_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from hwsim.errors import HwsimError\n"
        "try:\n    import hwsim.train\nexcept HwsimError as error:\n    sys.stdout.write(str(error))"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said == "hwsim.train needs PyTorch: install hwsim[train]"
