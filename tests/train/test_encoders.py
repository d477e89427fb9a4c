"""Conformer encoders of transducers: against their executables, in batches, on what they see, trained, as codes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from hwsim.errors import HwsimError  # noqa: E402
from hwsim.extract import load_workload  # noqa: E402
from hwsim.extract.spec import NetworkSpec  # noqa: E402
from hwsim.train import run  # noqa: E402
from hwsim.train.compact import compact_tensors, load_compact  # noqa: E402
from hwsim.train.digits import CONFORMER_TRANSDUCER, FLOAT, QUANTIZED, TRANSDUCER  # noqa: E402
from hwsim.train.emit_transducer import convert_transducer  # noqa: E402
from hwsim.train.modules import Recording  # noqa: E402
from hwsim.train.quantizers import LearnedBounds  # noqa: E402
from hwsim.train.recipes import RECIPES, network_recipe  # noqa: E402
from hwsim.train.transducer import QuantTransducer, matrices  # noqa: E402
from tests.train.test_transducer import LABELS, batch, trained  # noqa: E402

FRAMES = 26
STREAMING: dict[str, Any] = {}
PER_FRAME = {"chunk": None, "right": 0}
WHOLE = {"chunk": None, "left": None, "causal": False}
RELATIVE = {"positions": "relative"}
BARE = {"attention_from": 1}
QUANTIZED_NAMES = [name for name, recipe in RECIPES.items() if recipe.is_quantized and name != "analog"]


def small(**changes: Any) -> NetworkSpec:
    """The network digits_conformer with two blocks of 12 channels, 8 features, 6 labels and short contexts."""
    spec = load_workload("digits_conformer").spec
    size = {"input": 8, "width": 12, "heads": 3, "layers": 2, "kernel": 4, "left": 5, "chunk": 3}
    stack = {"vocabulary": LABELS + 1, "embedding": 8, "cells": 16}
    return spec.model_copy(update={
        "encoder": spec.encoder.model_copy(update=size | changes),
        "prediction": spec.prediction.model_copy(update=stack),
        "joint": spec.joint.model_copy(update={"size": 12, "outputs": LABELS + 1}),
    })  # fmt: skip


def network_of(precision: str, **changes: Any) -> Any:
    torch.manual_seed(5)
    return trained(QuantTransducer(small(**changes), network_recipe(precision)), *batch())


@pytest.mark.parametrize("changes", [STREAMING, PER_FRAME, WHOLE, RELATIVE, WHOLE | RELATIVE, BARE], ids=str)
@pytest.mark.parametrize("precision", QUANTIZED_NAMES)
def test_every_tensor_of_the_graph_is_the_executables(precision: str, changes: dict[str, Any]) -> None:
    """Codes of all that has a grid, of utterances as long as the executable's frames and of shorter ones."""
    network = network_of(precision, **changes)
    encoder = convert_transducer(network, FRAMES, rows=4)["encoder"].executable()
    assert encoder.rows == FRAMES
    for frames in (FRAMES, 11, 1):
        x = np.random.default_rng(frames).standard_normal((frames, 8))
        recording = Recording()
        with torch.no_grad():
            h, counts = network.encoder(torch.as_tensor(x)[:, None], torch.tensor([frames]), recording)
            wanted = network.joint.encoder_projection(h)[:, 0].numpy()
        written = encoder.run({"encoder.input.features": x})
        assert counts.tolist() == [-(-frames // 2)]
        compared = 0
        for name in recording.steps:
            if name in written and (frames == FRAMES or not name.endswith(".position.out")):
                codes = recording.codes[name]
                assert np.array_equal(written[name], codes.reshape(written[name].shape)), name
                compared += 1
        relative = "positions" in changes
        bare = 9 * changes.get("attention_from", 0)  # what a block has of attention, its norm and its sum
        assert compared == 1 + 2 * (28 + 2 * relative + (relative and frames == FRAMES)) - bare
        np.testing.assert_allclose(written["joint.encoder_projection.out"], wanted, rtol=0, atol=1e-13)


@pytest.mark.parametrize("changes", [STREAMING, WHOLE | RELATIVE], ids=str)
def test_padding_does_not_matter(changes: dict[str, Any]) -> None:
    network = network_of("int8", **changes)
    x, frames, labels, lengths = batch()
    whole = network(x.double(), frames, labels, lengths)
    for row in range(3):
        t, u = int(frames[row]), int(lengths[row])
        alone = network(x[:t, row : row + 1].double(), frames[row : row + 1], labels[:u, row : row + 1],
                        lengths[row : row + 1])  # fmt: skip
        assert torch.allclose(alone[0], whole[row], rtol=1e-12)


@pytest.mark.parametrize(("changes", "unit"), [(STREAMING, 3), (PER_FRAME, 1)], ids=["chunk", "frame"])
@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_a_frame_sees_its_chunk_and_no_frame_after_it(precision: str, changes: dict[str, Any], unit: int) -> None:
    """Of 12 encoder frames, those of whole chunks before a change stay as they were, the next ones do not."""
    network = network_of(precision, **changes)
    x = torch.randn(24, 1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[14:] += 1.5
    with torch.no_grad():
        before, after = (network.encoder(each, torch.tensor([24]))[0][:, 0] for each in (x, changed))
    same = (before == after).all(-1)
    kept = 7 // unit * unit
    assert bool(same[:kept].all())
    assert not bool(same[kept:].any())


@pytest.mark.parametrize("precision", ["fp32", "int4", "gq5", "int4-2:4"])
def test_a_step_of_training_lowers_the_loss(precision: str) -> None:
    network = network_of(precision).float().train()
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    losses = []
    for _ in range(25):
        loss = network(*batch()).mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_counts_of_the_catalogue() -> None:
    spec = load_workload("digits_conformer").spec
    network = QuantTransducer(spec, network_recipe("fp32"))
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in network.named_children()}
    assert counts == {name: spec.published.parameters[name] for name in ("encoder", "prediction", "joint")}


def test_the_grids_of_a_recipe() -> None:
    """int4: 4 bits where activations meet weights, 8 elsewhere in a block, 16 in the residual stream."""
    found = {}
    for precision in ("int4", "int8"):
        network = network_of(precision)
        quantizers = convert_transducer(network, FRAMES, rows=4)["encoder"].quantizers
        block = "encoder.layer0."
        found[precision] = [
            quantizers[block + name].bits
            for name in ("attention.norm.out", "convolution.swish.out", "attention.context", "attention.query.out",
                         "attention.scores", "attention.sum", "feed_forward1.up.weight",
                         "convolution.depthwise.weight")
        ]  # fmt: skip
        bounds = network.encoder.layer0.attention.context_grid, network.encoder.layer1.attention.context_grid
        assert isinstance(bounds[0], LearnedBounds) == (precision == "int4")
        assert bounds[0] is not bounds[1]
    assert found == {"int4": [4, 4, 4, 8, 8, 16, 4, 8], "int8": [8, 8, 8, 8, 8, 16, 8, 8]}


@pytest.mark.parametrize("precision", QUANTIZED_NAMES)
def test_codes_are_the_network(precision: str) -> None:
    torch.manual_seed(5)
    network, other = (QuantTransducer(small(), network_recipe(precision)) for _ in range(2))
    for _, matrix, grid in matrices(network):
        if hasattr(grid, "prepare"):
            grid.prepare(matrix)
    network(*batch())
    network.eval(), other.eval()
    load_compact(other, compact_tensors(network))
    x, frames, *_ = batch(1)
    assert torch.equal(other.encode(x, frames)[0], network.encode(x, frames)[0])


def test_a_conformer_has_stages_of_its_own(tmp_path: Path) -> None:
    requests = {name: run.Request(load_workload(name), "transducer", "int4", tmp_path, tmp_path)
                for name in ("digits", "digits_conformer")}  # fmt: skip
    for stage in (FLOAT, QUANTIZED):
        assert run._stage(requests["digits"], stage) is TRANSDUCER[stage]
        assert run._stage(requests["digits_conformer"], stage) is CONFORMER_TRANSDUCER[stage]
    model = replace(requests["digits_conformer"], network="source_lm")
    assert run._stage(model, FLOAT) is run.LANGUAGE_MODEL[FLOAT]


def test_what_is_not_trained() -> None:
    convolved = {"kind": "conv2d", "channels": 4}
    encoder = type(small().encoder).model_validate(small().encoder.model_dump() | {"subsampling": convolved})
    with pytest.raises(HwsimError, match="the subsampling of an encoder to be trained must be stack, got conv2d"):
        QuantTransducer(small().model_copy(update={"encoder": encoder}), network_recipe("fp32"))
    for name, kind in (("conformer_production", "cascaded"), ("rnnt_bifocal_gq", "bifocal")):
        said = f"^an encoder to be trained must be of kind lstm or conformer, got {kind}$"
        with pytest.raises(HwsimError, match=said):
            QuantTransducer(load_workload(name).spec, network_recipe("fp32"))


def test_matrices_hold_the_depthwise_kernels() -> None:
    names = [name for name, _, _ in matrices(network_of("int8"))]
    assert sum(name.endswith("depthwise.weight") for name in names) == 2
    assert len(names) == 1 + 2 * (4 + 4 + 2 + 1) + 2 + 3
