"""Rows of tables by computed integers."""

from __future__ import annotations

from math import prod

from hwsim.extract.graph.nodes import NodeKind
from hwsim.extract.torch import movement
from hwsim.extract.torch.calls import Call, Meta
from hwsim.extract.torch.draft import Draft
from hwsim.extract.torch.entries import Computed, Constant, Entry, Held
from hwsim.extract.torch.pointwise import reduced


def embedding(draft: Draft, call: Call) -> Entry:
    """nn.Embedding."""
    table, labels = draft.entry(call["weight"]), draft.entry(call["indices"])
    return rows(draft, call, table, labels, call.meta, call.name)


def embedding_bag(draft: Draft, call: Call) -> tuple[Entry, ...]:
    """nn.EmbeddingBag: rows and their sum or mean."""
    table, labels = draft.entry(call["weight"]), draft.entry(call["indices"])
    meta = Meta((*labels.shape, *table.shape[1:]), table.dtype)
    found = rows(draft, call, table, labels, meta, f"{call.name}.rows")
    return (reduced(draft, call, draft.lifted(found, call), call.meta, f"{call.name}.0"),)


def index(draft: Draft, call: Call) -> Entry | tuple[Entry, ...]:
    """x[i, ...]: rows of a table, else a selection of what is computed."""
    table = draft.entry(call["self"])
    indices = call["indices"] if isinstance(call["indices"], list | tuple) else [call["indices"]]
    given = [draft.entry(ref) for ref in indices if ref is not None]
    if isinstance(table, Computed) or not any(isinstance(one, Computed) for one in given):
        return movement.moved(draft, call)
    if len(given) != 1 or indices[0] is None:
        raise call.refuse("of parameters must be by one computed index along the first axis")
    return rows(draft, call, table, given[0], call.meta, call.name)


def rows(draft: Draft, call: Call, table: Entry, labels: Entry, meta: Meta, name: str) -> Entry:
    """Rows of a table of parameters or a constant."""
    if isinstance(table, Computed):
        return draft.view(call, [table, labels], meta, name)
    assert isinstance(table, Held | Constant)
    layer = draft.layer(call, table, operation="lookup" if call.kind == "index" else None)
    shape = (table.shape[0], prod(table.shape[1:]))
    weights = {"table": draft.weights.add(table, shape, f"{layer}.table")}
    out = draft.value(name, meta)
    draft.node(NodeKind.LOOKUP, call, [draft.lifted(labels, call)], [out], layer=layer, weights=weights)
    return out


HANDLERS = {"embedding": embedding, "embedding_bag": embedding_bag, "index": index}
