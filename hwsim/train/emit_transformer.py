"""Trained Transformer language models as executable traces."""

from __future__ import annotations

from hwsim.execute.recurrence import LstmRules
from hwsim.extract.transformer import emit_transformer
from hwsim.trace import TraceBuilder
from hwsim.train.draft import Draft
from hwsim.train.emit_conformer import fill_attention
from hwsim.train.emit_layers import fill_linear, fill_norm
from hwsim.train.export import Converted
from hwsim.train.transformer import QuantTransformer, TransformerBlock, place_encoding


def convert_transformer(network: QuantTransformer, words: int, name: str = "external_lm") -> Converted:
    """The trace, codes and grids for a sentence of `words` words, its end among them; convert `network.double()`.

    Reads `<name>.embedding.labels` (words,), the end first, and writes log probabilities `<name>.output.logits`
    (words, V) of the next word. Raises HwsimError for fewer than one word, and for grids that were never calibrated.
    """
    draft, spec = Draft(TraceBuilder(name, {"words": words}), words), network.spec
    emit_transformer(draft.builder, name, spec, words)
    table, embedding = f"{name}.embedding.table", network.embedding
    draft.weight(table, embedding.weight.T, embedding.weight_grid)
    if not spec.tied:
        draft.codes[table] = draft.codes[table].T
    draft.activation(f"{name}.embedding.row", draft.quantizers.get(table))
    if spec.positions == "sinusoidal":
        draft.codes[f"{name}.position.encoding"] = place_encoding(words, spec.width)
        draft.activation(f"{name}.position.encoding", network.encoding_grid)
        draft.activation(f"{name}.embedding.sum", network.stream_grid)
    for index, block in enumerate(network.layers):
        _fill_block(draft, f"{name}.layer{index}", block)
    fill_norm(draft, f"{name}.norm", network.norm)
    if network.output is not None:
        fill_linear(draft, f"{name}.output", network.output)
    return Converted(draft.builder.build(), draft.codes, draft.quantizers, LstmRules())


def _fill_block(draft: Draft, name: str, block: TransformerBlock) -> None:
    fill_norm(draft, f"{name}.attention.norm", block.attention_norm)
    fill_attention(draft, f"{name}.attention", block.attention)
    draft.activation(f"{name}.attention.sum", block.stream_grid)
    part, inner = block.feed_forward, f"{name}.feed_forward"
    fill_norm(draft, f"{inner}.norm", part.norm)
    fill_linear(draft, f"{inner}.up", part.up)
    draft.activation(f"{inner}.relu.out", part.relu.output_grid)
    fill_linear(draft, f"{inner}.down", part.down)
    draft.activation(f"{inner}.sum", part.stream_grid)
