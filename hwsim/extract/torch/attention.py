"""Attention that arrives as one operator becomes its products, its mask and its softmax."""

from __future__ import annotations

from math import prod

import torch

from hwsim.extract.torch.calls import Call, Meta
from hwsim.extract.torch.draft import Draft
from hwsim.extract.torch.entries import Computed, Constant, Entry
from hwsim.extract.torch.pointwise import rows_of_softmax
from hwsim.extract.torch.products import matmul


def attention(draft: Draft, call: Call) -> Entry:
    """softmax(q k^T scale + mask) v: q (..., L, E), k (..., S, E), v (..., S, V). The scale is part of the product."""
    query, key, value = (draft.entry(call[name]) for name in ("query", "key", "value"))
    *lead, rows, depth = query.shape
    keys = key.shape[-2]
    meta = Meta((*lead, rows, keys), query.dtype)
    turned = draft.view(call, [draft.lifted(key, call)], Meta((*key.shape[:-2], depth, keys), key.dtype),
                        f"{call.name}.keys")  # fmt: skip
    scores: Computed = matmul(draft, call, query, turned, meta, f"{call.name}.scores")
    scores = _masked(draft, call, scores, meta)
    probabilities = rows_of_softmax(draft, call, scores, meta, f"{call.name}.probabilities")
    return matmul(draft, call, probabilities, draft.lifted(value, call), call.meta, call.name)


def _masked(draft: Draft, call: Call, scores: Computed, meta: Meta) -> Computed:
    mask = draft.operand(call.arguments.get("attn_mask"))
    if call.arguments.get("is_causal"):
        mask = Constant(torch.ones(meta.shape[-2:], dtype=torch.bool).tril(), f"{call.name}.causal")
    if mask is None:
        return scores
    keeps = mask.dtype == torch.bool
    if isinstance(mask, Constant) and bool((mask.tensor == (True if keeps else 0)).all()):
        draft.counts["masks that keep everything were dropped: {}"] += 1
        return scores
    assert prod(mask.shape) >= 1
    return draft.pointwise(call, "select" if keeps else "add", [scores, mask], meta, f"{call.name}.masked")


HANDLERS = {"scaled_dot_product_attention": attention}
