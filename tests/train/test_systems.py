"""Five published systems on the codes of their own number formats: a small network of each family, in float64 as a
graph and in integers as an executable. Every tensor is compared, codes and scales by array_equal.

| system | family | formats | here |
|---|---|---|---|
| INT4 RNN-T | bidirectional LSTM, LSTM language models | SAWB, BAC, PACT, 4 bits | all in INT4 |
| GQ | LSTM transducer | codebooks of 1 to 8 bits, expanded to INT8 | each; 1/5/5 and 5/5/8 by part |
| 4-bit Conformer | Conformer | native QAT, INT4 in the first k blocks, else INT8; run-time grids | k = 0 to 3 |
| USM-Lite | CTC Conformer, limited context | INT8, INT4, 2:4, INT2 with sub-channels | each, rows in INT8 |
| Green ASR | TDNN-F, Transformer language model | 1 to 16 bits by layer, 2 are ternary | the published 15 |

Elsewhere: first layer and joint in FP16 (`tests/execute/test_half.py`: no float64 graph is those halves); a language
model with dense inputs (`test_execution.py`); TDNN-F and Transformers of other bits (`test_tdnnf.py`,
`test_transformer.py`, ternary among them). USM-Lite quantizes weights alone: what meets them must be codes here.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from hwsim.errors import HwsimError  # noqa: E402
from hwsim.execute.analog import analog_settings  # noqa: E402
from hwsim.execute.projection import PackedProjection  # noqa: E402
from hwsim.extract.conformer import AttentionSpec, ConformerSpec  # noqa: E402
from hwsim.numerics import NumberFormat, Sparsity  # noqa: E402
from hwsim.numerics.calibration import MinMax, NativeQat, Sawb  # noqa: E402
from hwsim.numerics.codebook import Codebook, MuLaw  # noqa: E402
from hwsim.train import (  # noqa: E402
    DynamicQuantizer,
    LearnedBounds,
    QuantConformerBlock,
    QuantLinear,
    QuantLSTM,
    Recipes,
    export,
    mixed_recipes,
    network_recipe,
    record,
)
from hwsim.train.emit_transducer import convert_transducer  # noqa: E402
from hwsim.train.modules import Recording  # noqa: E402
from hwsim.train.transducer import QuantTransducer, matrices  # noqa: E402
from hwsim.train.weights import CodebookQuantizer, SparseWeights  # noqa: E402
from hwsim.validate import against, compare  # noqa: E402
from hwsim.validate.analog import compare_analog  # noqa: E402
from hwsim.validate.compare import MODES  # noqa: E402
from tests.train.test_encoders import network_of  # noqa: E402
from tests.train.test_tdnnf import SPEC as TDNNF  # noqa: E402
from tests.train.test_tdnnf import calibrated, features, mismatches  # noqa: E402
from tests.train.test_transducer import FRAMES, LABELS, batch, small, trained  # noqa: E402

T = 40
RNG = np.random.default_rng(0)


def compared(network: Any, width: int, name: str = "encoder") -> tuple[Any, int]:
    """The executable of a network that has seen one utterance, and how many codes of another equal the graph's."""
    torch.manual_seed(1)
    for part in network.modules():
        if hasattr(getattr(part, "weight_grid", None), "prepare"):
            part.weight_grid.prepare(part.weight.T)
    network(torch.randn(T, width))
    network = network.double().eval()
    executable = export(network, T, name)
    inputs = {executable.inputs[0]: RNG.standard_normal((T, width))}
    codes, out = record(network, inputs, name).codes, executable.run(inputs)
    assert set(codes) == set(out)
    count = 0
    for each in out:
        if each in executable.quantizers:
            assert np.array_equal(out[each], codes[each]), each
            count += codes[each].size
        elif each not in executable.cells:  # reals of sums of other orders
            np.testing.assert_allclose(out[each], codes[each], rtol=1e-12, atol=1e-12, err_msg=each)
        if each.endswith(".scale"):
            assert np.array_equal(out[each], codes[each]), each
            assert len(np.unique(out[each])) > T // 2
    return executable, count


def test_int4_rnn_t() -> None:
    """SAWB weights, features within learned bounds, hidden states within 1: 4 bits from the first layer to the last."""
    network = torch.nn.Sequential(OrderedDict(
        encoder=QuantLSTM(20, 12, 3, bidirectional=True, weight=Sawb(), input=LearnedBounds(-2.0, 2.5, 4)),
        output=QuantLinear(24, 9, weight=Sawb(), output=MinMax(8)),
    ))  # fmt: skip
    executable, count = compared(network, 20)
    assert count == T * (3 * 24 + 9)
    formats = {coding.bits for name, coding in executable.quantizers.items() if name != "output.out"}
    assert formats == {4}


def transducer_codes(network: Any) -> int:
    """Codes of every hidden state and of the joint that equal the graph's."""
    parts = {name: part.executable() for name, part in convert_transducer(network, FRAMES, rows=3).items()}
    x = RNG.standard_normal((FRAMES, 8))
    out, count = parts["encoder"].run({"encoder.input.features": x}), 0
    with torch.no_grad():
        h = network.encoder.input_grid(torch.as_tensor(x))[:, None]
        for index, layer in enumerate(network.encoder.layers):
            if index == network.encoder.spec.stack_before_layer:
                h = torch.nn.functional.pad(h, (0, 0, 0, 0, 0, 1)).reshape(-1, 1, 32)
            h = layer(h)
            codes = layer.hidden_grid.quantizer().quantize(h[:, 0].numpy())
            assert np.array_equal(out[f"encoder.layer{index}.h"], codes)
            count += codes.size
        kept = {name: np.zeros((3, 16)) for name in ("prediction.layer0.h", "prediction.layer0.c")}
        states, frames = network.prediction.start(3), network.joint.encoder_projection(h)[0]
        for _ in range(4):
            labels, recording = RNG.integers(0, LABELS + 1, 3), Recording()
            h, states = network.prediction.step(torch.as_tensor(labels), states, "prediction", recording)
            network.joint.evaluate(frames, network.joint.prediction_projection(h), recording)
            written = parts["prediction"].run({"prediction.embedding.labels": labels, **kept})
            kept = {name: written[name] for name in kept}
            sides = {"joint.encoder_projection.out": frames.numpy().repeat(3, axis=0),
                     "joint.prediction_projection.out": written["joint.prediction_projection.out"]}  # fmt: skip
            written |= parts["joint"].run(sides)
            for name in ("prediction.embedding.row", "prediction.layer0.h", "joint.output.hidden"):
                assert np.array_equal(written[name], recording.codes[name]), name
                count += written[name].size
    return count


def gq(encoder: int, prediction: int, joint: int) -> Any:
    """A transducer with codebooks of so many bits in each part, INT8 elsewhere."""
    torch.manual_seed(5)
    network = QuantTransducer(small(), network_recipe("gq5"))
    for part, bits in ((network.encoder, encoder), (network.prediction, prediction), (network.joint, joint)):
        for module in part.modules():
            for name, grid in list(module.named_children()):
                if isinstance(grid, CodebookQuantizer):
                    setattr(module, name, CodebookQuantizer(MuLaw(bits)))
    return trained(network, *batch())


@pytest.mark.parametrize("bits", [(1, 2, 3), (4, 5, 6), (7, 8, 8), (1, 5, 5), (5, 5, 8)], ids=str)
def test_gq(bits: tuple[int, int, int]) -> None:
    """Centroids are k / 128 of the clip, so that what is multiplied is INT8; bits of encoder, prediction and joint."""
    network = gq(*bits)
    assert transducer_codes(network) == (FRAMES + 7) * 16 + 4 * 3 * (8 + 16 + 12)
    for name, matrix, grid in matrices(network):
        codes, book = grid.codes(matrix)
        assert isinstance(book, Codebook)
        assert book.bits == bits[("encoder", "prediction", "joint").index(name.split(".")[0])], name
        assert book.table.dtype == np.int8
        assert codes.max() < 1 << book.bits


def rows(bits: int) -> DynamicQuantizer:
    return DynamicQuantizer(NativeQat(bits), "row")


def native(bits: int, **more: Any) -> Recipes:
    return Recipes(NativeQat(bits, axis=1), normal=rows(bits), context=rows(bits), active=rows(bits), **more)


@pytest.mark.parametrize("kept", [0, 1, 2, 3])
def test_4_bit_conformer(kept: int) -> None:
    """Weights and rows of INT4 in the first k of three blocks, of INT8 in the others, each row on a grid of its own."""
    spec = ConformerSpec(AttentionSpec(24, 3), kernel=8)
    network = torch.nn.Sequential(OrderedDict(
        (f"layer{at}", QuantConformerBlock(spec, native(4 if at < kept else 8), input=None if at else MinMax(16)))
        for at in range(3)
    ))  # fmt: skip
    executable, count = compared(network, 24)
    assert count > 100_000
    products = {name: found for name, found in executable.projections.items() if isinstance(found, PackedProjection)}
    found = [name for name, part in products.items() if part.dynamic is not None]
    assert len(found) == 3 * 10
    for name in found:
        bits = 4 if int(name[5]) < kept else 8
        assert (products[name].weights.bits, products[name].dynamic.bits) == (bits, bits), name  # type: ignore[union-attr]


def test_4_bit_conformer_in_pieces_of_a_stream() -> None:
    """Rows find the same grids in pieces of an utterance: the same codes, and the reals of the joint's side."""
    encoder = convert_transducer(network_of("int4-dynamic"), 24, rows=2)["encoder"].executable()
    assert encoder.streams
    assert encoder.exact
    x = RNG.standard_normal((24, 8))
    whole, states, parts = encoder.run({"encoder.input.features": x}), None, []
    for at in range(0, 24, 6):
        parts.append(encoder.run({"encoder.input.features": x[at : at + 6]}, states=states))
        states = encoder.states_after(parts[-1], states)
    names = [name for name in encoder.outputs if whole[name].ndim == 2 and name.endswith((".out", ".scale", ".sum"))]
    assert len(names) > 40
    for name in names:
        assert np.array_equal(np.concatenate([part[name] for part in parts]), whole[name]), name


def test_rows_with_grids_of_their_own_are_compared() -> None:
    """Free and teacher-forced, where codes come with their scales; on analog tiles; not by another runtime."""
    spec = ConformerSpec(AttentionSpec(24, 3), kernel=8)
    network: Any = QuantConformerBlock(spec, native(4), input=MinMax(16))
    executable, _ = compared(network, 24, "block")
    inputs = {executable.inputs[0]: RNG.standard_normal((T, 24))}
    for mode in MODES:
        report = compare(executable, network, inputs, mode=mode)  # type: ignore[arg-type]
        assert report.mismatches == 0, str(report)
        scales = [layer for layer in report.layers if layer.tensor.endswith(".scale")]
        assert [layer.max_delta for layer in scales] == [0.0] * 8
    said = "must have a grid that is fixed to be compared with another runtime, got one of run time"
    with pytest.raises(HwsimError, match=said):
        compare(executable, against("torch"), inputs)
    for name, least, most in (("ideal", 0.0, 1e-9), ("rasch2023", 0.01, 1.0)):
        chip = compare_analog(executable, inputs, analog_settings(name), 0.0)
        found = {layer.tensor: layer.mean for layer in chip.layers}
        assert least <= found["block.feed_forward1.sum"] <= most
        assert not any(each.endswith(".scale") for each in found)


USM: dict[str, Any] = {
    "int8/channel": NativeQat(8, axis=1), "int4/channel": NativeQat(4, axis=1),
    "int4/channel/2:4": SparseWeights(NativeQat(4, axis=1), Sparsity(2, 4)),
    "int2/channel/zp": MinMax(2, symmetric=False, axis=1),
    "int2/group8/zp": MinMax(2, symmetric=False, group_size=8),
}  # fmt: skip


@pytest.mark.parametrize("fmt", USM)
def test_usm_lite(fmt: str) -> None:
    """Blocks that see some frames on each side, in the formats of weights; a head in floating point."""
    spec = ConformerSpec(AttentionSpec(32, 4, left=8, right=8), kernel=5)
    recipes = replace(native(8), weight=USM[fmt])
    network = torch.nn.Sequential(OrderedDict(
        layer0=QuantConformerBlock(spec, recipes, input=MinMax(16)), layer1=QuantConformerBlock(spec, recipes),
        head=QuantLinear(32, 11),
    ))  # fmt: skip
    executable, count = compared(network, 32)
    assert count > 100_000
    wanted = NumberFormat.parse(fmt)
    name = "layer1.feed_forward2.up.weight"
    codes, coding = executable.parameters()[name], executable.quantizers[name]
    assert (coding.number_format, codes.dtype) == (replace(wanted, sparsity=None), np.int8)
    kept = (codes.reshape(-1, 4, codes.shape[1]) != 0).sum(axis=1)
    assert kept.max() == (2 if wanted.sparsity else 4)


def test_green_asr() -> None:
    """A TDNN-F of 14 layers in the published bits of each; the first matrix in 8, as the source has none for it."""
    bits = (16, 8, 8, 1, 4, 4, 4, 2, 4, 2, 1, 4, 8, 8, 16)
    spec = TDNNF.model_copy(update={
        "bottlenecks": (6, 8, 6, 4, 6, 6, 6, 5, 6, 5, 4, 8, 8, 8), "strides": (1, 1, 1, 0, *[3] * 10),
    })  # fmt: skip
    network = calibrated(mixed_recipes(bits, first=8), spec)
    wrong, count = mismatches(network, features(seed=1, spec=spec))
    assert (wrong, count > 20_000) == (0, True)
