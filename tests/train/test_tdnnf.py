"""Factored time-delay networks: the codes that integers give, bits of each block, and batch norms folded away."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from hwsim.errors import HwsimError  # noqa: E402
from hwsim.execute.store import load_executable, save_executable  # noqa: E402
from hwsim.extract.ctc import emit_head  # noqa: E402
from hwsim.extract.encoder_spec import TdnnfEncoderSpec  # noqa: E402
from hwsim.extract.spec import HeadSpec  # noqa: E402
from hwsim.extract.tdnnf import emit_tdnnf_encoder, factored_layers, spliced_features  # noqa: E402
from hwsim.numerics.calibration import MinMax  # noqa: E402
from hwsim.trace import TraceBuilder  # noqa: E402
from hwsim.train import (  # noqa: E402
    BatchNorm,
    QuantLinear,
    QuantTdnnf,
    TdnnfRecipes,
    convert,
    fold_batch_norms,
    mixed_recipes,
    record,
)
from hwsim.validate import against, compare  # noqa: E402

FEATURES, SCORES = "encoder.input.features", "head.output.out"
SPEC = TdnnfEncoderSpec(
    kind="tdnnf", input=8, ivector=6, width=48, bottlenecks=(12, 10, 8, 9, 12, 7), strides=(1, 1, 1, 0, 3, 3), small=16,
    large=40, source="test",
)  # fmt: skip
MIXED = (16, 8, 1, 2, 4, 2, 8)
REALS = TdnnfRecipes(None, None, None, None, None, None, None, None)


def features(frames: int = 40, seed: int = 0, spec: TdnnfEncoderSpec = SPEC) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return spliced_features(spec, rng.standard_normal((frames, spec.input)), rng.standard_normal(spec.ivector))


def calibrated(recipes: TdnnfRecipes, spec: TdnnfEncoderSpec = SPEC, frames: int = 40) -> QuantTdnnf:
    """A network of random weights that has seen one utterance, in float64."""
    torch.manual_seed(0)
    network = QuantTdnnf(spec, 30, recipes)
    network(torch.as_tensor(features(frames, spec=spec)).float())
    return network.double().eval()


def mismatches(network: QuantTdnnf, x: np.ndarray) -> tuple[int, int]:
    """Codes that differ between the module and its executable, and codes compared."""
    executable = convert(network, len(x), "encoder").executable()
    outputs, codes = executable.run({FEATURES: x}), record(network, {FEATURES: x}, "encoder").codes
    assert set(codes) == set(outputs)
    coded = [name for name in codes if name in executable.quantizers]
    return sum(int((codes[name] != outputs[name]).sum()) for name in coded), sum(codes[name].size for name in coded)


@pytest.mark.parametrize("frames", [40, 41, 1])
@pytest.mark.parametrize("bits", [MIXED, (4,) * 7, (2, 1, 1, 4, 8, 8, 4)], ids=str)
def test_integers_give_the_codes_of_the_module(bits: tuple[int, ...], frames: int) -> None:
    network = calibrated(mixed_recipes(bits))
    wrong, compared = mismatches(network, features(frames, seed=1))
    assert wrong == 0
    assert compared == {40: 14_653, 41: 14_653, 1: 3_785}[frames]


@pytest.mark.parametrize(
    ("changes", "factor"),
    [({"strides": (1, 1, 2, 0, 3, 3)}, 3), ({"strides": (1, 0, 2, 1, 4, 2)}, 2), ({"strides": (1, 2, 3, 0, 1, 1)}, 1),
     ({"strides": (3, 3, 0, 3, 3, 3)}, 3), ({"bottlenecks": 5, "splice": 0, "ivector": 0}, 3)],
)  # fmt: skip
def test_other_strides_and_rates(changes: dict[str, Any], factor: int) -> None:
    spec = SPEC.model_copy(update={**changes, "subsampling": factor})
    network = calibrated(mixed_recipes(MIXED), spec)
    wrong, compared = mismatches(network, features(30, seed=2, spec=spec))
    assert wrong == 0
    assert compared > 4_000


def test_weights_are_the_table_of_their_bits() -> None:
    """{0, ±a, ..., ±a (2^(bits-1) - 1)}, ±a at 1 bit, with one a for each matrix and as many stored bits."""
    converted = convert(calibrated(mixed_recipes(MIXED, first=8)), len(features()), "encoder")
    blocks = {"affine": 8, **{f"layer{index}": bits for index, bits in enumerate(MIXED[:-1])}, "prefinal": MIXED[-1]}
    weights = [t for t in converted.trace.tensors if t.name.endswith(".weight")]
    assert len(weights) == 1 + 2 * 6 + 3 + 1
    for tensor in weights:
        bits = blocks.get(tensor.name.split(".")[1], MIXED[-1])
        grid, codes = converted.quantizers[tensor.name], converted.codes[tensor.name]
        most = 2 ** (bits - 1) - 1
        wanted = np.array([-0.5, 0.5]) if bits == 1 else np.arange(-most, most + 1)
        values = np.unique(grid.dequantize(codes))
        assert np.isin(values, wanted * float(grid.scale)).all(), tensor.name
        assert len(values) == len(wanted) or bits > 2
        assert grid.number_format.stored_bits(tensor.shape).total == bits * tensor.elements + 32


def test_tensors_are_those_of_the_catalogues_network() -> None:
    network = calibrated(mixed_recipes(MIXED))
    converted = convert(network, len(features(40)), "encoder")
    b = TraceBuilder("t")
    small = emit_tdnnf_encoder(b, SPEC, 40)
    emit_head(b, HeadSpec(outputs=30, log_softmax=False, source="test"), [small], SPEC.small, 14)
    built = b.build()
    assert converted.trace.tensors == built.tensors
    assert converted.trace.attributes == built.attributes
    for name in ("kind", "function", "m", "k", "n", "batch"):
        assert np.array_equal(converted.trace.columns[name], built.columns[name])


def test_pytorch_reads_the_same_codes_from_the_rows_of_the_trace() -> None:
    executable = convert(calibrated(mixed_recipes(MIXED)), len(features()), "encoder").executable()
    report = compare(executable, against("torch"), {FEATURES: features(seed=3)}, "T1")
    assert report.mismatches == 0, str(report)
    assert report.elements > 14_000


def test_an_executable_survives_its_file(tmp_path: Any) -> None:
    executable = convert(calibrated(mixed_recipes(MIXED)), len(features()), "encoder").executable()
    save_executable(executable, tmp_path / "am.hwx")
    first, second = (each.run({FEATURES: features()}) for each in (executable, load_executable(tmp_path / "am.hwx")))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_scores_without_a_grid_are_reals() -> None:
    network = calibrated(replace(mixed_recipes(MIXED), scores=None))
    x = features(seed=4)
    executable = convert(network, len(x), "encoder").executable()
    found = executable.run({FEATURES: x})[SCORES]
    assert SCORES not in executable.quantizers
    assert mismatches(network, x)[0] == 0
    with torch.no_grad():
        np.testing.assert_allclose(found, network(torch.as_tensor(x)).numpy(), rtol=0, atol=1e-9)


def test_an_encoder_without_a_head_stands_in_a_network() -> None:
    network = torch.nn.Sequential()
    network.add_module("encoder", QuantTdnnf(SPEC, None, mixed_recipes((4,) * 7)))
    network.add_module("top", QuantLinear(16, 5, output=MinMax(8)))
    x = features()
    network(torch.as_tensor(x).float())
    network.double().eval()
    executable = convert(network, len(x)).executable()
    assert np.array_equal(executable.run({FEATURES: x})["top.out"], record(network, {FEATURES: x}).codes["top.out"])


def test_a_batch_is_its_utterances() -> None:
    network = QuantTdnnf(SPEC, 30, REALS).double().eval()
    x = torch.as_tensor(np.stack([features(20, seed) for seed in range(3)], axis=1))
    with torch.no_grad():
        together = network(x)
        for at in range(3):
            assert torch.allclose(together[:, at], network(x[:, at]), atol=1e-12)


def with_norms(network: QuantTdnnf, norms: list[BatchNorm], x: Any) -> Any:
    """The network's reals with a norm after each ReLU, and after the last small layer."""
    first, *middle, last, small = norms
    x = first.scale * torch.relu(network.affine(x)) + first.offset
    frames = factored_layers(SPEC, (len(x) - 19) // 3 + 1)
    for layer, norm, at in zip(network.layers, middle, frames, strict=True):
        s, times = at.stride, range(at.after.first, at.after.last + 1, at.after.step)
        row = {t: i for i, t in enumerate(range(at.before.first, at.before.last + 1, at.before.step))}

        def z(t: int, x: Any = x, s: int = s, row: dict[int, int] = row, layer: Any = layer) -> Any:
            return layer.linear(torch.cat([x[row[t - s]], x[row[t]]]) if s else x[row[t]])

        y = torch.stack([layer.affine(torch.cat([z(t), z(t + s)]) if s else z(t)) for t in times])
        x = norm.scale * torch.relu(y) + norm.offset + SPEC.bypass * torch.stack([x[row[t]] for t in times])
    large = torch.relu(network.prefinal_affine(network.prefinal_linear(x)))
    return network.head(small.scale * network.prefinal_small(last.scale * large + last.offset) + small.offset)


def random_norms() -> list[BatchNorm]:
    rng = torch.Generator().manual_seed(0)
    widths = [48] * 7 + [40, 16]
    return [BatchNorm(torch.rand(w, generator=rng, dtype=torch.float64) + 0.5,
                      torch.randn(w, generator=rng, dtype=torch.float64)) for w in widths]  # fmt: skip


def test_batch_norms_leave_no_parameters_when_they_are_folded() -> None:
    torch.manual_seed(1)
    network, norms = QuantTdnnf(SPEC, 30, REALS).double().eval(), random_norms()
    x = torch.as_tensor(features(10))
    with torch.no_grad():
        wanted, plain = with_norms(network, norms, x), network(x)
        count = sum(p.numel() for p in network.parameters())
        fold_batch_norms(network, norms)
        assert torch.allclose(network(x), wanted, rtol=0, atol=1e-10)
    assert not torch.allclose(wanted, plain, atol=0.1)
    assert sum(p.numel() for p in network.parameters()) == count


def test_norms_that_do_not_fit() -> None:
    network, norms = QuantTdnnf(SPEC, 30, REALS).double(), random_norms()
    with pytest.raises(HwsimError, match="norms must be 9, got 8"):
        fold_batch_norms(network, norms[1:])
    with pytest.raises(HwsimError, match="scales of batch norms must be positive"):
        fold_batch_norms(network, [BatchNorm(-norms[0].scale, norms[0].offset), *norms[1:]])
    with pytest.raises(HwsimError, match="must have a head, which takes the last offset"):
        fold_batch_norms(QuantTdnnf(SPEC, None, REALS).double(), norms)


def test_training_lowers_the_loss_and_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    network = QuantTdnnf(SPEC, 3, mixed_recipes((4, 4, 2, 1, 4, 4, 4), first=4))
    x = torch.as_tensor(np.stack([features(40, seed) for seed in range(8)], axis=1)).float()
    target = x[10::3, :, 8:11][:14]  # of the middle frame, 10 rows after the first
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    losses = []
    for _ in range(15):
        loss = (network(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert not [name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]


def test_what_cannot_be_built_or_run() -> None:
    with pytest.raises(HwsimError, match="layers must have 6 recipes, got 5"):
        QuantTdnnf(SPEC, 30, mixed_recipes((4,) * 6))
    with pytest.raises(HwsimError, match="bits of a symmetric table must be 1 to 16, got 32"):
        mixed_recipes((32,))
    network = calibrated(mixed_recipes(MIXED))
    with pytest.raises(HwsimError, match="frames of the input must be 19 and a multiple of 3 more, got 20"):
        network(torch.zeros(20, 30, dtype=torch.float64))
    with pytest.raises(HwsimError, match="frames of the input must be 19 and a multiple of 3 more, got 7"):
        convert(network, 7, "encoder")
    with pytest.raises(HwsimError, match="must be seen in training"):
        convert(QuantTdnnf(SPEC, 30), 19, "encoder")
    narrow = torch.nn.Sequential(QuantLinear(4, 29), QuantTdnnf(SPEC, 30, REALS))
    with pytest.raises(HwsimError, match="network1: must read 30 channels, got 29 of the module before"):
        convert(narrow, 19)
