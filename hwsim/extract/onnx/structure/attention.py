"""Attention as one operator: its products, mask and softmax as nodes of their own."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from hwsim.extract.graph.nodes import NodeKind
from hwsim.extract.onnx.graph import Node
from hwsim.extract.onnx.structure.draft import Draft
from hwsim.extract.onnx.structure.grids import float_format
from hwsim.extract.onnx.structure.products import linear


@dataclass(frozen=True, slots=True)
class Heads:
    """Sizes of an attention: keys and values may have fewer heads than queries."""

    batch: int
    heads: int
    queries: int
    keys: int
    depth: int
    width: int


def attention(draft: Draft, node: Node) -> None:
    """ONNX's Attention, of three or four axes."""
    for at, what in ((4, "past keys"), (5, "past values")):
        if node.input(at):
            raise node.refuse(f"must have no {what}, got '{node.input(at)}'")
    q, k, v = (draft.type(node, at).shape for at in range(3))
    if len(q) == 4:
        sizes = Heads(q[0], q[1], q[2], k[2], q[3], v[3])
    else:
        heads, kv_heads = int(node.attributes["q_num_heads"]), int(node.attributes["kv_num_heads"])
        sizes = Heads(q[0], heads, q[1], k[1], q[2] // heads, v[2] // kv_heads)
    if any(node.output(at) in draft.consumers for at in (1, 2, 3) if node.output(at)):
        raise node.refuse("must have no output that is read but the first")
    inputs = [draft.reference(node, at).value for at in range(3)]
    attend(draft, node, inputs, sizes, masks=(3,), text=float_format(draft, node, 0))


def multi_head(draft: Draft, node: Node) -> None:
    """onnxruntime's MultiHeadAttention of three separate inputs."""
    for at in (6, 7):
        if node.input(at):
            raise node.refuse(f"must have no past, got '{node.input(at)}'")
    q, k, v = (draft.type(node, at).shape if node.input(at) else () for at in range(3))
    if len(q) != 3 or len(k) not in (3, 4) or not v:
        raise node.refuse(f"must have queries, keys and values apart, got {q}, {k} and {v}")
    heads = int(node.attributes["num_heads"])
    keys, width = (k[1], v[2] // heads) if len(k) == 3 else (k[2], v[3])
    inputs = [draft.reference(node, at).value for at in range(3)]
    bias = draft.constant(node, 3)
    if bias is not None:
        inputs = _biased(draft, node, inputs, bias.elements)
    attend(draft, node, inputs, Heads(q[0], heads, q[1], keys, q[2] // heads, width), masks=(4, 5),
           text=float_format(draft, node, 0))  # fmt: skip


def packed_attention(draft: Draft, node: Node) -> None:
    """onnxruntime's Attention and QAttention: one product for queries, keys and values, then attention."""
    quantized = node.op.endswith("QAttention")
    mask, past = (5, 8) if quantized else (3, 4)
    if node.input(past):
        raise node.refuse(f"must have no past, got '{node.input(past)}'")
    x, heads = draft.type(node, 0).shape, int(node.attributes["num_heads"])
    matrix, bias = draft.need_constant(node, 1, "weight"), draft.constant(node, 2)
    text = float_format(draft, node, 0)
    if quantized:
        from hwsim.extract.onnx.structure.integer import code_grid, weight_grid

        matrix = weight_grid(draft, node, matrix, 4, 7, axis=1)
        text = code_grid(draft, node, 0, 3, 6)
    hidden = matrix.shape[1] // 3
    dtype = draft.out_type(node).dtype
    packed = draft.temporary(node, "packed", (*x[:2], 3 * hidden), dtype)
    held = None if bias is None else draft.weight(node, bias, bias.shape)
    linear(draft, node, draft.reference(node, 0).value, text, matrix, packed, bias=held)
    parts = [draft.temporary(node, part, (*x[:2], hidden), dtype) for part in ("query", "key", "value")]
    draft.emit(NodeKind.VIEW, node, [packed], parts, suffix="split")
    attend(draft, node, parts, Heads(x[0], heads, x[1], x[1], hidden // heads, hidden // heads), masks=(mask,),
           text="fp32")  # fmt: skip


def attend(draft: Draft, node: Node, inputs: list[str], sizes: Heads, masks: tuple[int, ...], text: str) -> None:
    """Scores, masks, softmax and the weighted sum of values."""
    batch, rows = sizes.batch * sizes.heads, sizes.batch * sizes.heads * sizes.queries
    shape, dtype = (sizes.batch, sizes.heads, sizes.queries, sizes.keys), draft.out_type(node).dtype
    scores = draft.temporary(node, "scores", shape, dtype)
    draft.emit(NodeKind.MATMUL, node, inputs[:2], [scores], suffix="scores", input_format=text, m=sizes.queries,
               k=sizes.depth, n=sizes.keys, batch=batch)  # fmt: skip
    for at in masks:
        if not node.input(at):
            continue
        constant = draft.constant(node, at)
        draft.fold(constant)
        given = [] if constant is not None else [draft.reference(node, at).value]
        masked = draft.temporary(node, f"masked{at}", shape, dtype)
        draft.emit(NodeKind.ELEMENTWISE, node, [scores, *given], [masked], suffix="mask", function="add",
                   width=sizes.keys)  # fmt: skip
        scores = masked
    weights = draft.temporary(node, "weights", shape, dtype)
    draft.emit(NodeKind.SOFTMAX, node, [scores], [weights], suffix="softmax", rows=rows, width=sizes.keys, log=False)
    draft.emit(NodeKind.MATMUL, node, [weights, inputs[2]], node.outputs[:1], suffix="values", input_format="fp32",
               m=sizes.queries, k=sizes.keys, n=sizes.width, batch=batch)  # fmt: skip
    draft.note(f"{node.name}: attention is its products, softmax and mask; the scale of its scores is not counted")


def _biased(draft: Draft, node: Node, inputs: list[str], total: int) -> list[str]:
    """Queries, keys and values after the bias that the node holds for all three."""
    bias = draft.need_constant(node, 3, "bias")
    found, start = [], 0
    for part, name in zip(("query", "key", "value"), inputs, strict=True):
        value = draft.values[name]
        width = value.shape[-1] if len(value.shape) == 3 else prod((value.shape[1], value.shape[3]))
        stop = min(total, start + width)
        held = draft.weight(node, bias, (stop - start,), part=part, load=lambda a=start, b=stop: bias.read()[a:b])  # type: ignore[misc]
        out = draft.temporary(node, f"biased_{part}", value.shape, draft.out_type(node).dtype)
        draft.emit(NodeKind.ELEMENTWISE, node, [name], [out], {"constant": held}, suffix=f"bias_{part}",
                   function="add", width=width)  # fmt: skip
        found.append(out)
        start = stop
    return found
