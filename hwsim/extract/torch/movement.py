"""Operators without arithmetic: other shapes, orders and selections."""

from __future__ import annotations

from hwsim.extract.torch.calls import Call, Ref
from hwsim.extract.torch.draft import Draft
from hwsim.extract.torch.entries import Computed, Entry

SAME = (
    "contiguous", "clone", "detach", "alias", "dropout", "dropout1d", "alpha_dropout", "feature_dropout",
    "lift_fresh_copy", "lift_fresh", "requires_grad", "positive", "real", "conj", "resolve_conj", "resolve_neg",
)  # fmt: skip
"""What gives its input as it is."""
ORDERS = (
    "view", "reshape", "permute", "transpose", "t", "unsqueeze", "squeeze", "flatten", "unflatten", "movedim", "to",
    "type_as", "_to_copy", "swapaxes", "swapdims", "numpy_T", "adjoint", "mT", "view_as", "reshape_as", "moveaxis",
    "_reshape_alias", "_unsafe_view", "ravel", "float", "half", "double",
)  # fmt: skip
"""What keeps every element once."""
SELECTIONS = ("slice", "select", "narrow", "split", "split_with_sizes", "chunk", "unbind", "tensor_split",
              "unsafe_split", "unsafe_chunk", "index_select", "split_copy", "diagonal")  # fmt: skip
"""What keeps some elements once."""
OTHERS = (
    "cat", "concat", "concatenate", "stack", "hstack", "vstack", "expand", "expand_as", "repeat", "repeat_interleave",
    "tile", "pad", "constant_pad_nd", "reflection_pad1d", "replication_pad1d", "flip", "roll", "unfold", "im2col",
    "as_strided", "index", "gather", "take_along_dim", "broadcast_to", "scatter", "index_put", "index_copy",
    "index_fill", "slice_scatter", "select_scatter", "copy", "fill", "zero", "tril", "triu", "broadcast_tensors",
    "meshgrid", "masked_scatter", "pixel_shuffle", "upsample_nearest1d", "upsample_nearest2d", "rot90", "fliplr",
    "flipud", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "new_empty", "empty_like",
    "block_diag", "atleast_1d", "atleast_2d", "column_stack", "take", "nonzero_static",
)  # fmt: skip
"""What repeats, joins or drops elements."""
LIKE = ("type_as", "expand_as", "view_as", "reshape_as", "to")
"""What reads no element of its second input, which only shows a shape or a type."""
SHAPE_ONLY = ("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "new_empty", "empty_like")
"""What reads no element of its input: computed at once, from the shape alone."""


def same(draft: Draft, call: Call) -> Entry:
    """The input."""
    return draft.entry(call.refs[0])


def moved(draft: Draft, call: Call) -> Entry | tuple[Entry, ...]:
    """Inputs as a view; an input of the same shape and type is itself."""
    entries = [draft.entry(ref) for ref in call.refs]
    first = entries[0]
    if call.kind in ORDERS and isinstance(first, Computed) and call.single:
        meta = call.meta
        if (first.shape, first.dtype) == (meta.shape, meta.dtype) and call.kind not in ("transpose", "permute", "t"):
            return first
        entries = [first]
    if call.kind in LIKE:
        entries = [first]
    if call.kind in ("copy", "fill"):
        source = call.arguments.get("src", call.arguments.get("value"))
        entries = [draft.entry(source)] if isinstance(source, Ref) else []
    if call.kind == "zero":
        entries = []
    if call.single:
        return draft.view(call, entries, call.meta)
    metas = [meta for meta in call.outputs if meta is not None]
    return tuple(draft.view(call, entries, meta, f"{call.name}.{at}") for at, meta in enumerate(metas))


HANDLERS = {**dict.fromkeys(SAME, same), **dict.fromkeys((*ORDERS, *SELECTIONS, *OTHERS), moved)}
