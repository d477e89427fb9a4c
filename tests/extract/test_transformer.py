"""A Transformer language model as operations: parameters, work by hand, the one table of a tied output, sentences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hwsim.arch import load_arch
from hwsim.engine.plan import make_plan
from hwsim.errors import HwsimError
from hwsim.extract.transformer import emit_transformer
from hwsim.extract.transformer_spec import TransformerSpec
from hwsim.numerics import LayerPrecision, NumberFormat, PartialPrecision, PrecisionPolicy
from hwsim.trace import Function, Kind, Role, Trace, TraceBuilder

PUBLISHED = TransformerSpec(
    vocabulary=28_300, width=512, layers=6, heads=8, feed_forward=1024, tied=True, source="test"
)
SMALL = PUBLISHED.model_copy(update={"vocabulary": 11, "width": 8, "layers": 2, "heads": 2, "feed_forward": 12})


def trace_of(spec: TransformerSpec, words: int = 5, sentences: int = 1) -> Trace:
    b = TraceBuilder("t")
    emit_transformer(b, "lm", spec, words, sentences)
    return b.build()


def macs_of(trace: Trace) -> dict[str, int]:
    found = dict.fromkeys(trace.layers, 0)
    for layer, macs in zip(trace.layer, trace.macs, strict=True):
        found[trace.layers[layer]] += int(macs)
    return found


def test_the_published_shape_counts_as_the_size_arithmetic_does() -> None:
    """By hand: V d, 4 d^2 + 2 d f a block; 4 d, f and d of biases and 4 d of norms a block, 2 d at the end."""
    trace, d, f = trace_of(PUBLISHED, 20), 512, 1024
    count = {role: sum(t.elements for t in trace.tensors if t.role == role) for role in (Role.WEIGHT, Role.BIAS)}
    by_hand = (28_300 * d + 6 * (4 * d * d + 2 * d * f), 6 * (4 * d + f + d + 4 * d) + 2 * d)
    assert (PUBLISHED.weights, PUBLISHED.vectors) == by_hand == (27_072_512, 34_816)
    assert (count[Role.WEIGHT], count[Role.BIAS]) == by_hand
    assert trace.totals("lm").parameters == PUBLISHED.parameters == 27_107_328
    assert trace.totals().weight_bits == 32 * 27_107_328


@given(st.integers(1, 9), st.integers(1, 3), st.integers(1, 4), st.integers(0, 3), st.booleans(), st.integers(1, 3))
def test_the_formulas_count_the_tensors(
    vocabulary: int, heads: int, depth: int, layers: int, tied: bool, sentences: int
) -> None:
    spec = TransformerSpec(vocabulary=vocabulary, width=heads * depth, layers=max(layers, 1), heads=heads,
                           feed_forward=depth + 1, tied=tied, source="test")  # fmt: skip
    totals = trace_of(spec, 3, sentences).totals()
    assert totals.parameters == spec.parameters
    matrices = spec.layers * (4 * spec.width**2 + 2 * spec.width * spec.feed_forward) + spec.width * vocabulary
    pairs = 2 * spec.layers * spec.width * 3
    assert totals.macs == 3 * sentences * (matrices + pairs)


def test_a_tied_table_is_one_tensor_that_is_looked_up_and_multiplied() -> None:
    trace = trace_of(SMALL)
    table = next(i for i, t in enumerate(trace.tensors) if t.name == "lm.embedding.table")
    owner = np.repeat(np.arange(len(trace)), np.diff(trace.operand_ptr))
    readers = owner[trace.operand_tensor == table]
    assert trace.tensors[table].shape == (8, 11)
    assert [Kind(trace.kind[at]) for at in readers] == [Kind.LOOKUP, Kind.MATMUL]
    assert (trace.m[readers[1]], trace.k[readers[1]], trace.n[readers[1]]) == (5, 8, 11)
    assert trace.operand_elements[trace.operand_tensor == table].tolist() == [5 * 8, 8 * 11]
    assert dict(trace.attributes["lm.embedding"]) == {"columns": True}
    untied = trace_of(SMALL.model_copy(update={"tied": False}))
    shapes = {t.name: t.shape for t in untied.tensors}
    assert (shapes["lm.embedding.table"], shapes["lm.output.weight"]) == ((11, 8), (8, 11))
    assert shapes["lm.output.bias"] == (11,)
    assert "lm.embedding" not in untied.attributes


def test_the_operations_of_a_block() -> None:
    words, d, f = 5, 8, 12
    trace = trace_of(SMALL, words)
    macs = macs_of(trace)
    for part in ("query", "key", "value", "output"):
        assert macs[f"lm.layer1.attention.{part}"] == words * d * d
    assert macs["lm.layer1.attention"] == 2 * words * words * d
    assert macs["lm.layer0.feed_forward.up"] == macs["lm.layer0.feed_forward.down"] == words * d * f
    assert macs["lm.output"] == words * d * 11
    assert dict(trace.attributes["lm.layer0.attention"]) == {"left": None, "right": 0}
    kinds = [Kind(kind).name for kind in trace.kind]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "LOOKUP": 1, "NORM": 5, "MATMUL": 17, "SOFTMAX": 3, "ELEMENTWISE": 7,
    }  # fmt: skip
    functions = [Function(function) for function in trace.function]
    assert [functions.count(f) for f in (Function.RELU, Function.ADD, Function.SCORES, Function.CONTEXT)] == [
        2,
        5,
        2,
        2,
    ]
    with_gelu = trace_of(SMALL.model_copy(update={"activation": "gelu"}))
    assert np.count_nonzero(with_gelu.function == Function.GELU) == 2
    assert "lm.layer0.feed_forward.gelu" in with_gelu.layers


def test_without_positions_the_first_norm_reads_the_table_rows() -> None:
    trace = trace_of(SMALL.model_copy(update={"positions": "none"}))
    assert not any("position" in t.name or t.name == "lm.embedding.sum" for t in trace.tensors)
    assert [Kind(kind) for kind in trace.kind[:2]] == [Kind.LOOKUP, Kind.NORM]
    assert trace.dep[trace.dep_ptr[1] : trace.dep_ptr[2]].tolist() == [0]


def test_more_sentences_are_wider_products_and_more_heads_and_not_more_operations() -> None:
    one, four = trace_of(SMALL, 5), trace_of(SMALL, 5, 4)
    assert len(one) == len(four)
    assert {name: 4 * macs for name, macs in macs_of(one).items()} == macs_of(four)
    assert one.totals().parameters == four.totals().parameters
    attention = np.isin(four.function, (Function.SCORES, Function.CONTEXT))
    assert four.batch[attention].tolist() == [4 * batch for batch in one.batch[attention]]
    assert four.m[attention].tolist() == one.m[attention].tolist()
    # All activations of the four are read and written once; the encodings of places are the same for each.
    names = [t.name for t in one.tensors]
    for trace, factor in ((one, 1), (four, 4)):
        for tensor, elements in zip(trace.operand_tensor, trace.operand_elements, strict=True):
            role, name = trace.tensors[tensor].role, trace.tensors[tensor].name
            if role in (Role.ACTIVATION, Role.STATE):
                same = 1 if name == "lm.position.encoding" else factor
                assert elements == same * one.tensors[names.index(name)].elements, name


def test_it_waits_for_what_it_needs_and_reads_nothing_of_it() -> None:
    b = TraceBuilder("t")
    x, y = (b.tensor(f"search.{name}", Role.STATE, (3,)) for name in "xy")
    from hwsim.trace.builder import Operand

    b.op(Kind.HOST, "search", [Operand(x, fixed=3)], [Operand(y, fixed=3)], m=1)
    scores = emit_transformer(b, "lm", SMALL, 5, needs=[y])
    trace = b.build()
    assert trace.dep[trace.dep_ptr[1] : trace.dep_ptr[2]].tolist() == [0]
    assert trace.operand_elements[trace.operand_tensor == y].tolist() == [3, 0]
    assert trace.tensors[scores].name == "lm.output.logits"
    assert trace.tensors[scores].shape == (5, 11)


@pytest.mark.parametrize("tied", [True, False])
def test_bytes_of_the_table_are_those_of_its_codes(tied: bool) -> None:
    """The product streams the whole table, 2 bits a weight and one scale; the look-up the rows of the words."""
    spec = PUBLISHED.model_copy(update={"tied": tied, "layers": 1})
    rule = LayerPrecision(*(NumberFormat(name) for name in ("int2", "int8", "fp16", "fp32")))
    trace = trace_of(spec, 20).with_precision(PrecisionPolicy("p", (), rule))
    plan = make_plan(load_arch("edge_npu"), trace)
    readers = {
        trace.layers[layer]: at for at, layer in enumerate(trace.layer) if trace.kind[at] in (Kind.LOOKUP, Kind.MATMUL)
    }
    assert plan.stream_bytes[readers["lm.embedding"]] == 20 * 512 * 2 / 8
    assert plan.stream_bytes[readers["lm.output"]] == math.ceil((28_300 * 512 * 2 + 32) / 8)
    more = make_plan(load_arch("edge_npu"), trace_of(spec, 20, 3).with_precision(PrecisionPolicy("p", (), rule)))
    others = np.arange(len(trace)) != readers["lm.embedding"]
    assert np.array_equal(more.stream_bytes[others], plan.stream_bytes[others])  # each matrix once for all sentences
    assert more.stream_bytes[readers["lm.embedding"]] == 3 * plan.stream_bytes[readers["lm.embedding"]]
    table = next(t for t in trace.tensors if t.name == "lm.embedding.table")
    assert NumberFormat.parse(table.format).stored_bits(table.shape).total == 28_300 * 512 * 2 + 32


def test_mixed_bits_by_layer_are_exact() -> None:
    """Xu et al.: 1, 2, 4, 8 or 16 bits a layer, one float32 scale for each matrix, vectors in float32."""
    rules = (("lm.output", 1), ("lm.layer0.*", 2), ("lm.layer1.attention.*", 4), ("lm.layer1.feed_forward.*", 16))
    partial = tuple((glob, PartialPrecision(weights=NumberFormat(f"int{bits}"))) for glob, bits in rules)
    policy = PrecisionPolicy("mixed", partial, LayerPrecision(*(NumberFormat("fp32"),) * 4))
    totals = trace_of(SMALL).with_precision(policy).totals()
    d, f = 8, 12
    attention, inner = 4 * d * d, 2 * d * f
    codes = d * 11 + 2 * (attention + inner) + 4 * attention + 16 * inner
    assert totals.weight_bits == codes + 32 * (1 + 6 + 6) + 32 * SMALL.vectors


@pytest.mark.parametrize(
    ("change", "message"),
    [({"heads": 3}, r"such that heads divide width \(8\)"), ({"layers": 0}, "greater than or equal to 1"),
     ({"activation": "tanh"}, "'relu' or 'gelu'"), ({"norm": "post"}, "'pre'"), ({"depth": 1}, "depth")],
)  # fmt: skip
def test_a_file_that_does_not_fit(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TransformerSpec.model_validate(SMALL.model_dump() | change)


@pytest.mark.parametrize(("words", "sentences", "message"), [
    (0, 1, "words must be at least 1, got 0"), (1, 0, "sentences must be at least 1, got 0"),
])  # fmt: skip
def test_sizes_that_are_none(words: int, sentences: int, message: str) -> None:
    with pytest.raises(HwsimError, match=message):
        trace_of(SMALL, words, sentences)
