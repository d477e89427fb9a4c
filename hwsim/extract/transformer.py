"""A Transformer language model as operations: all words of one or several sentences at once, as rescoring reads them.

Matrices are multiplied with the words of all sentences in one product. Attention is between the words of a sentence:
its two products have a batch of heads x sentences, since sentences depend on each other no more than heads do. A loop
over sentences would do the same work one after the other, and wait for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hwsim.errors import HwsimError
from hwsim.extract.layers import linear, norm, pointwise
from hwsim.extract.transformer_spec import TransformerSpec
from hwsim.trace import Function, Kind, Role, TraceBuilder
from hwsim.trace.builder import Operand


@dataclass(frozen=True, slots=True)
class Sentences:
    """So many sentences of as many words each; row i of a tensor is word i % words of sentence i // words."""

    count: int
    words: int

    @property
    def rows(self) -> int:
        """Words of all sentences."""
        return self.count * self.words


def emit_transformer(b: TraceBuilder, name: str, spec: TransformerSpec, words: int, sentences: int = 1,
                     needs: Sequence[int] = ()) -> int:  # fmt: skip
    """Add a language model over `sentences` sentences of `words` words; return its scores (sentences words, V).

    Reads `<name>.embedding.labels` (rows,), the word before each, and writes log probabilities of the next one,
    `<name>.output.logits` (rows, V). Layers: `<name>.embedding`, `<name>.layer0.attention`, `.query` and so on below
    it, `<name>.layer0.feed_forward`, `<name>.norm`, `<name>.output`; the tensor `sum` of a layer is the residual
    stream after it, in the policy's state format. The first operation waits for the tensors of `needs` without reading
    them. More than one sentence is timed and not executed. Raises HwsimError for fewer than one word or sentence.
    """
    for what, value in (("words", words), ("sentences", sentences)):
        if value < 1:
            raise HwsimError(f"{what} must be at least 1, got {value}")
    of = Sentences(sentences, words)
    table, x = _embedding(b, f"{name}.embedding", spec, of, needs)
    if spec.positions == "sinusoidal":
        x = _with_positions(b, name, spec, x, of)
    for index in range(spec.layers):
        x = transformer_block(b, f"{name}.layer{index}", spec, x, of)
    x = norm(b, f"{name}.norm", x, spec.width, of.rows)
    return _output(b, f"{name}.output", spec, x, of.rows, table)


def transformer_block(b: TraceBuilder, name: str, spec: TransformerSpec, x: int, of: Sentences) -> int:
    """x + output(attention(norm(x))), then x + down(activation(up(norm(x)))): `<name>.feed_forward.sum` (rows, d)."""
    width, rows, part = spec.width, of.rows, f"{name}.attention"
    normal = norm(b, f"{part}.norm", x, width, rows)
    attended = causal_attention(b, part, spec, normal, of)
    x = pointwise(b, part, Function.ADD, [x, attended], width, rows, part="sum", role=Role.STATE)
    part, inner = f"{name}.feed_forward", spec.feed_forward
    normal = norm(b, f"{part}.norm", x, width, rows)
    up = linear(b, f"{part}.up", [normal], width, inner, rows)
    active = pointwise(b, f"{part}.{spec.activation}", Function[spec.activation.upper()], [up], inner, rows)
    down = linear(b, f"{part}.down", [active], inner, width, rows)
    return pointwise(b, part, Function.ADD, [x, down], width, rows, part="sum", role=Role.STATE)


def causal_attention(b: TraceBuilder, layer: str, spec: TransformerSpec, x: int, of: Sentences) -> int:
    """Self-attention on x (rows, d) to a word and those before it in its sentence: `<layer>.output.out`.

    Scores (heads sentences, words, words) are computed for all pairs of words of a sentence. Queries, keys and values
    have the precision of `layer`, as in a Conformer.
    """
    width, words, batch = spec.width, of.words, spec.heads * of.count
    b.attributes(layer, left=None, right=0)
    query, key, value = (linear(b, f"{layer}.{part}", [x], width, width, of.rows, owner=layer)
                         for part in ("query", "key", "value"))  # fmt: skip
    pairs = (batch, words, words)
    scores, probabilities = (
        b.tensor(f"{layer}.{part}", Role.ACTIVATION, pairs) for part in ("scores", "probabilities")
    )
    # A row of a product is a word of every sentence.
    whole, row, row_pairs = of.rows * width, of.count * width, batch * words
    b.op(Kind.MATMUL, layer, [Operand(query, row), Operand(key, fixed=whole)], [Operand(scores, row_pairs)], m=words,
         k=spec.head_width, n=words, batch=batch, function=Function.SCORES)  # fmt: skip
    b.op(Kind.SOFTMAX, layer, [Operand(scores, words)], [Operand(probabilities, words)], m=batch * words, n=words,
         function=Function.PROBABILITIES)  # fmt: skip
    context = b.tensor(f"{layer}.context", Role.ACTIVATION, (of.rows, width))
    b.op(Kind.MATMUL, layer, [Operand(probabilities, row_pairs), Operand(value, fixed=whole)], [Operand(context, row)],
         m=words, k=words, n=spec.head_width, batch=batch, function=Function.CONTEXT)  # fmt: skip
    return linear(b, f"{layer}.output", [context], width, width, of.rows)


def _embedding(b: TraceBuilder, layer: str, spec: TransformerSpec, of: Sentences,
               needs: Sequence[int]) -> tuple[int, int]:  # fmt: skip
    """The table and `<layer>.row` (rows, d). A tied table is the output layer's matrix (d, V), a column for a word.

    A policy finds it there, so that what it keeps of look-ups in high precision does not make the product slow.
    """
    width, rows = spec.width, of.rows
    labels = b.tensor(f"{layer}.labels", Role.STATE, (rows,))
    shape = (width, spec.vocabulary) if spec.tied else (spec.vocabulary, width)
    owner = f"{layer.rpartition('.')[0]}.output" if spec.tied else layer
    table = b.tensor(f"{layer}.table", Role.WEIGHT, shape, owner)
    row = b.tensor(f"{layer}.row", Role.ACTIVATION, (rows, width))
    if spec.tied:
        b.attributes(layer, columns=True)
    reads = [Operand(table, width), Operand(labels, 1), *map(Operand, needs)]
    b.op(Kind.LOOKUP, layer, reads, [Operand(row, width)], m=rows, n=width)
    return table, row


def _with_positions(b: TraceBuilder, name: str, spec: TransformerSpec, x: int, of: Sentences) -> int:
    """`<name>.embedding.sum`: x and the encodings (words, d) of places, constants that no operation writes."""
    width, layer = spec.width, f"{name}.embedding"
    encoding = b.tensor(f"{name}.position.encoding", Role.ACTIVATION, (of.words, width))
    out = b.tensor(f"{layer}.sum", Role.STATE, (of.rows, width))
    reads = [Operand(x, width), Operand(encoding, fixed=of.words * width)]
    b.op(Kind.ELEMENTWISE, layer, reads, [Operand(out, width)], m=of.rows, n=width, function=Function.ADD)
    return out


def _output(b: TraceBuilder, layer: str, spec: TransformerSpec, x: int, rows: int, table: int) -> int:
    """Log probabilities `<layer>.logits` (rows, V) of x (rows, d), by the embedding's table when it is tied."""
    words = spec.vocabulary
    weight, bias = table, None
    if not spec.tied:
        weight = b.tensor(f"{layer}.weight", Role.WEIGHT, (spec.width, words))
        bias = b.tensor(f"{layer}.bias", Role.BIAS, (words,))
    logits = b.tensor(f"{layer}.logits", Role.STATE, (rows, words))
    b.matmul(layer, [x], weight, logits, m=rows, bias=bias)
    b.op(Kind.SOFTMAX, layer, [Operand(logits, words)], [Operand(logits, words)], m=rows, n=words)
    return logits
