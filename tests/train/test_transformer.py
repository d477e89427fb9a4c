"""A Transformer language model as a module: against torch.nn, its executable code for code, and what it learns."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)
from torch.nn.utils.rnn import pad_sequence  # noqa: E402

from hwsim.errors import HwsimError  # noqa: E402
from hwsim.execute.store import load_executable, save_executable  # noqa: E402
from hwsim.extract import load_workload  # noqa: E402
from hwsim.extract.transformer import emit_transformer  # noqa: E402
from hwsim.extract.transformer_spec import TransformerSpec  # noqa: E402
from hwsim.numerics import LayerPrecision, NumberFormat  # noqa: E402
from hwsim.speech.grammar import sample_sentences  # noqa: E402
from hwsim.trace import Role, TraceBuilder  # noqa: E402
from hwsim.train import FitSettings, QuantTransformer, allocate, convert_transformer, fit, kl_sensitivity  # noqa: E402
from hwsim.train.digits import (  # noqa: E402
    Stage,
    perplexity,
    sentence_batches,
)
from hwsim.train.modules import Recording  # noqa: E402
from hwsim.train.transformer import FULL, place_encoding  # noqa: E402
from hwsim.validate import compare  # noqa: E402
from hwsim.validate.oracles import against  # noqa: E402

SPEC = TransformerSpec(vocabulary=60, width=32, layers=2, heads=4, feed_forward=48, tied=True, source="test")
WORDS, LABELS, LOGITS = 20, "lm.embedding.labels", "lm.output.logits"
MIXED = {
    "embedding": 1, "layer0.attention.query": 2, "layer0.attention.key": 8, "layer0.feed_forward.up": 4,
    "layer1.feed_forward.up": 16, "layer1.feed_forward.down": 2,
}  # fmt: skip
"""Layers that are not named stay in floating point."""


def model(spec: TransformerSpec = SPEC, bits: Any = 2, seed: int = 0) -> Any:
    """A model whose grids were measured, with attention that is not flat, in float64."""
    torch.manual_seed(seed)
    network = QuantTransformer(spec, bits)
    with torch.no_grad():
        for layer in network.layers:
            layer.attention.query.weight *= 6.0
            layer.attention.key.weight *= 6.0
        for _ in range(2):
            network(torch.randint(1, spec.vocabulary, (WORDS - 1, 8)), torch.full((8,), WORDS - 1))
    return network.double().eval()


def recorded(network: Any, words: Any) -> Any:
    found = Recording()
    with torch.no_grad():
        network.evaluate(torch.as_tensor(words), "lm", found)
    return found.codes


def sentence(spec: TransformerSpec = SPEC, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, spec.vocabulary, WORDS)


def test_without_grids_it_is_the_transformer_of_torch() -> None:
    spec = SPEC.model_copy(update={"tied": False})
    ours = QuantTransformer(spec, None, FULL).double().eval()
    layer = torch.nn.TransformerEncoderLayer(32, 4, 48, 0.0, norm_first=True, dtype=torch.float64)
    theirs = torch.nn.TransformerEncoder(layer, 2, torch.nn.LayerNorm(32, dtype=torch.float64),
                                         enable_nested_tensor=False).eval()  # fmt: skip
    for mine, other in zip(ours.layers, theirs.layers, strict=True):
        attention = mine.attention
        stacked = (attention.query, attention.key, attention.value)
        other.self_attn.in_proj_weight.data = torch.cat([part.weight for part in stacked])
        other.self_attn.in_proj_bias.data = torch.cat([part.bias for part in stacked])
        pairs = ((other.self_attn.out_proj, attention.output), (other.norm1, mine.attention_norm),
                 (other.norm2, mine.feed_forward.norm), (other.linear1, mine.feed_forward.up),
                 (other.linear2, mine.feed_forward.down))  # fmt: skip
        for target, source in pairs:
            target.load_state_dict(source.state_dict())
    words = torch.randint(0, 60, (WORDS, 3))
    x = ours.embedding.weight[words] + torch.as_tensor(place_encoding(WORDS, 32))[:, None]
    mask = torch.nn.Transformer.generate_square_subsequent_mask(WORDS, dtype=torch.float64)
    with torch.no_grad():
        wanted = ours.output(theirs(x, mask=mask)).log_softmax(-1)
        assert torch.allclose(ours.evaluate(words), wanted, atol=1e-12)


def test_encodings_of_places_follow_their_definition() -> None:
    encoding = place_encoding(7, 6)
    for place in range(7):
        for pair in range(3):
            angle = place / 10000 ** (2 * pair / 6)
            assert np.allclose(encoding[place, 2 * pair : 2 * pair + 2] * 6**0.5, [np.sin(angle), np.cos(angle)])


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16, MIXED, None], ids=str)
def test_the_executable_equals_the_float64_graph(bits: Any, tied: bool) -> None:
    spec = SPEC.model_copy(update={"tied": tied})
    network = model(spec, bits)
    executable = convert_transformer(network, WORDS, "lm").executable()
    assert executable.inputs == (LABELS,)
    for seed in range(2):
        words = sentence(seed=seed)
        codes, out = recorded(network, words), executable.run({LABELS: words})
        assert set(codes) == set(executable.outputs)
        for name in executable.outputs:
            if name in executable.quantizers:
                assert np.array_equal(out[name], codes[name]), name
                assert len(np.unique(out[name])) > (1 if name.endswith(".row") else 20), name
        # Sums of the output layer are reals; only their last bits differ.
        assert np.abs(out[LOGITS] - codes[LOGITS]).max() < 1e-12
        assert np.allclose(np.exp(out[LOGITS]).sum(-1), 1.0)


@pytest.mark.parametrize("change", [{"positions": "none"}, {"heads": 1}, {"width": 60}, {"layers": 1}], ids=str)
def test_other_shapes_and_fewer_words(change: dict[str, Any]) -> None:
    """A width of 60 is a table whose rows could be taken for its columns."""
    spec = SPEC.model_copy(update=change)
    network = model(spec)
    executable, words = convert_transformer(network, WORDS, "lm").executable(), sentence()
    assert compare(executable, recorded(network, words), {LABELS: words}, mode="both").mismatches == 0
    assert executable.rows == (WORDS if spec.positions == "none" else None)


def test_codes_of_bits_and_what_they_take() -> None:
    converted = convert_transformer(model(bits=MIXED), WORDS, "lm")
    for layer, bits in MIXED.items():
        name = f"lm.{layer}.table" if layer == "embedding" else f"lm.{layer}.weight"
        codes, grid = converted.codes[name], converted.quantizers[name]
        values, most = np.unique(grid.dequantize(codes)), 2 ** (bits - 1) - 1
        wanted = np.array([-0.5, 0.5]) if bits == 1 else np.arange(-most, most + 1)
        assert np.isin(values, wanted * float(grid.scale)).all(), layer
        assert len(values) == {1: 2, 2: 3, 4: 15}.get(bits, len(values))
        assert np.array_equal(values, -values[::-1]) or bits > 4
        shape = next(t.shape for t in converted.trace.tensors if t.name == name)
        assert grid.number_format.stored_bits(shape).total == bits * codes.size + 32
    weights = {t.name.rpartition(".")[0] for t in converted.trace.tensors if t.role == Role.WEIGHT}
    on_grids = {layer for layer in weights if {f"{layer}.weight", f"{layer}.table"} & set(converted.quantizers)}
    assert on_grids == {f"lm.{layer}" for layer in MIXED}


def test_the_trace_is_that_of_the_builder() -> None:
    converted = convert_transformer(model(), WORDS, "lm")
    b = TraceBuilder("t")
    emit_transformer(b, "lm", SPEC, WORDS)
    built = b.build()
    assert converted.trace.tensors == built.tensors
    assert converted.trace.attributes == built.attributes
    parameters = {t.name for t in built.tensors if t.role in (Role.WEIGHT, Role.BIAS)}
    assert set(converted.codes) == parameters | {"lm.position.encoding"}


def test_a_word_depends_on_none_after_it() -> None:
    network = model()
    executable, words = convert_transformer(network, WORDS, "lm").executable(), sentence()
    other = words.copy()
    other[9:] = (other[9:] + 1) % SPEC.vocabulary
    first, second = (executable.run({LABELS: given})[LOGITS] for given in (words, other))
    assert np.array_equal(first[:9], second[:9])
    assert not np.allclose(first[9:], second[9:])
    with torch.no_grad():
        both = network.evaluate(torch.as_tensor(np.stack([words, other], axis=1)))
    assert np.allclose(both[:, 0], first)
    assert np.allclose(both[:, 1], second)


@pytest.mark.parametrize("bits", [1, 2])
def test_pytorch_computes_the_same_codes_from_the_rows_of_the_trace(bits: int) -> None:
    executable = convert_transformer(model(bits=bits), WORDS, "lm").executable()
    report = compare(executable, against("torch"), {LABELS: sentence()}, "T1")
    assert report.mismatches == 0, str(report)
    assert report.elements > 20_000


def test_an_executable_survives_its_file(tmp_path: Any) -> None:
    executable = convert_transformer(model(bits=MIXED), WORDS, "lm").executable()
    save_executable(executable, tmp_path / "lm.hwx")
    again = load_executable(tmp_path / "lm.hwx")
    first, second = (each.run({LABELS: sentence()}) for each in (executable, again))
    assert all(np.array_equal(first[name], second[name]) for name in executable.outputs)


def test_halves_are_executed_with_a_tied_table() -> None:
    """FP16: the table is rounded to halves where it is looked up and where it is multiplied."""
    from dataclasses import replace

    from hwsim.numerics import PrecisionPolicy

    converted = convert_transformer(model(bits=None), WORDS, "lm")
    policy = PrecisionPolicy("fp16", (), LayerPrecision.same(NumberFormat("fp16")))
    reals, words = converted.codes, sentence()
    trace = converted.trace.with_precision(policy)
    half = replace(converted, trace=trace, codes=reals, quantizers={}).executable().run({LABELS: words})
    exact = replace(converted, codes=reals, quantizers={}).executable().run({LABELS: words})
    assert half["lm.embedding.row"].dtype == np.float16
    # Attention of these models is steep: a product's error of 2^-11 is some hundredths of a score.
    assert 0 < np.abs(half[LOGITS] - exact[LOGITS]).max() < 0.3


@cache
def sentences() -> tuple[Any, Any, int]:
    """Sentences to learn from and others, of the digits grammar, and the number of labels."""
    speech = load_workload("digits").spec.speech
    words = list(speech.words)
    drawn = sample_sentences(speech.grammars["target"], 1200, np.random.default_rng(1))
    labels = [np.array([words.index(word) + 1 for word in text.split()]) for text in drawn]
    return labels[:1000], labels[1000:], len(words) + 1


def trained(network: Any, epochs: int, rate: float) -> float:
    """Perplexity on other sentences after training."""
    train, other, _ = sentences()
    stage = Stage(FitSettings(epochs, rate, warm_up=0.1), 32)
    fit(network, lambda epoch: sentence_batches(train, stage, 1, epoch), stage.fit)
    return perplexity(network.eval(), other)


def calibrated(network: Any, state: dict[str, Any]) -> Any:
    """Trained parameters on other grids, which have seen some sentences."""
    network.load_state_dict(state, strict=False)
    some = [torch.as_tensor(labels) for labels in sentences()[0][:100]]
    with torch.no_grad():
        network.train()(pad_sequence(some), torch.tensor([len(labels) for labels in some]))
    return network.eval()


def test_a_small_one_learns_the_digits_grammar_and_ternary_weights_keep_most_of_it() -> None:
    """Perplexity over words and ends. A uniform model has 24; words alone, by how often they are, 16.9."""
    _, other, labels = sentences()
    spec = TransformerSpec(vocabulary=labels, width=32, layers=2, heads=2, feed_forward=64, tied=True, source="test")
    torch.manual_seed(0)
    network = QuantTransformer(spec, None, FULL)
    full = trained(network, 5, 1e-2)
    assert full < 6.5 < labels / 3
    state = network.state_dict()
    cut = perplexity(calibrated(QuantTransformer(spec, 2), state), other)
    ternary = calibrated(QuantTransformer(spec, 2), state)
    kept = trained(ternary, 2, 5e-3)
    assert full < cut
    assert kept < cut - 0.5 * (cut - full)
    # What bits are worth is measured on the same names, and a model is made of what was chosen.
    some = pad_sequence([torch.as_tensor(words) for words in other[:20]])
    found = kl_sensitivity(calibrated(network, {}), lambda each: each.evaluate(some), (1, 2, 4))
    bits = allocate(found, 1.9)
    assert set(bits) == set(network.weighted)
    assert len(set(bits.values())) > 1
    assert calibrated(QuantTransformer(spec, bits), state).weighted.keys() == bits.keys()
    # The trained ternary model is executed to its own codes.
    exact = ternary.double().eval()
    executable, words = convert_transformer(exact, 12, "lm").executable(), np.r_[0, other[0], [0] * 11][:12]
    assert compare(executable, recorded(exact, words), {LABELS: words}).mismatches == 0


def test_refusals() -> None:
    for bits, message in (
        (3, "bits of embedding must be one of 1, 2, 4, 8, 16, got 3"),
        ({"layer0.attention.quer": 2}, "unknown layer 'layer0.attention.quer'; nearest: layer0.attention.query"),
        ({"output": 2}, "unknown layer 'output'"),
    ):
        with pytest.raises(HwsimError, match=message):
            QuantTransformer(SPEC, bits)
    with pytest.raises(HwsimError, match="activation of a model to be trained must be relu, got gelu"):
        QuantTransformer(SPEC.model_copy(update={"activation": "gelu"}))
    with pytest.raises(HwsimError, match="must be seen in training before it is used, got none"):
        convert_transformer(QuantTransformer(SPEC), WORDS)
    with pytest.raises(HwsimError, match="words must be at least 1, got 0"):
        convert_transformer(model(), 0)
    with pytest.raises(HwsimError, match=r"a quantizer must be given for lm.layer0.attention.norm.out or "):
        convert_transformer(QuantTransformer(SPEC, 2, FULL).double().eval(), WORDS, "lm").executable()
