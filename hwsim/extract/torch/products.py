"""Products of matrices: by parameters, or of two computed operands."""

from __future__ import annotations

from math import prod

from hwsim.extract.graph.nodes import NodeKind
from hwsim.extract.torch.calls import Call, Meta
from hwsim.extract.torch.draft import Draft
from hwsim.extract.torch.entries import Computed, Constant, Entry, Held


def linear(draft: Draft, call: Call) -> Entry:
    """x W^T + b."""
    x, weight = draft.operand(call["input"]), draft.operand(call["weight"])
    bias = draft.operand(call["bias"])
    assert x is not None
    assert weight is not None
    if isinstance(weight, Computed):
        turned = draft.view(call, [weight], Meta(weight.shape[::-1], weight.dtype), f"{call.name}.transposed")
        product = matmul(draft, call, x, turned, call.meta, call.name if bias is None else f"{call.name}.product")
        return product if bias is None else draft.pointwise(call, "add", [product, bias], call.meta)
    outputs, inputs = weight.shape if len(weight.shape) == 2 else (1, *weight.shape)
    return project(draft, call, draft.lifted(x, call), weight, (inputs, outputs), call.meta, call.name, bias)


def project(draft: Draft, call: Call, x: Computed, weight: Held | Constant, shape: tuple[int, ...], meta: Meta,
            name: str, bias: Entry | None = None) -> Computed:  # fmt: skip
    """x (..., K) by a weight that is (K, N) when it is seen as `shape`."""
    direct = bias is None or (not isinstance(bias, Computed) and prod(bias.shape) == shape[1])
    layer = draft.layer(call, weight, operation="linear" if call.kind in ("addmm", "baddbmm") else None)
    weights = {"weight": draft.weights.add(weight, shape, f"{layer}.weight")}
    if bias is not None and direct:
        assert not isinstance(bias, Computed)
        weights["bias"] = draft.weights.add(bias, (shape[1],), f"{layer}.bias")
    out = draft.value(name if direct else f"{name}.product", meta)
    draft.node(NodeKind.LINEAR, call, [x], [out], layer=layer, weights=weights)
    return out if direct else draft.pointwise(call, "add", [out, bias], meta, name)


def matmul(draft: Draft, call: Call, a: Entry, b: Entry, meta: Meta, name: str, bias: Entry | None = None) -> Computed:
    """a (..., m, k) by b (..., k, n), either of them parameters or a constant."""
    if not isinstance(b, Computed) and _is_matrix(b) and not (isinstance(a, Held) and isinstance(b, Constant)):
        shape = (prod(b.shape[-2:-1]) if len(b.shape) == 1 else b.shape[-2], 1 if len(b.shape) == 1 else b.shape[-1])
        shape = (b.shape[0], 1) if len(b.shape) == 1 else shape
        return project(draft, call, draft.lifted(a, call), b, shape, meta, name, bias)
    if bias is not None:
        product = matmul(draft, call, a, b, meta, f"{name}.product")
        return draft.pointwise(call, "add", [product, bias], meta, name)
    if not isinstance(a, Computed) and _is_matrix(a):
        return _by_left(draft, call, a, draft.lifted(b, call), meta, name)
    if isinstance(b, Held):
        return _by_batches(draft, call, draft.lifted(a, call), b, meta, name)
    left, right = draft.lifted(a, call), draft.lifted(b, call)
    m, k = (1, left.shape[0]) if len(left.shape) == 1 else left.shape[-2:]
    n = 1 if len(right.shape) == 1 else right.shape[-1]
    out = draft.value(name, meta)
    draft.node(NodeKind.MATMUL, call, [left, right], [out], layer=draft.layer(call, operation="matmul"),
               m=m, k=k, n=n, batch=max(prod(meta.shape) // (m * n), 1))  # fmt: skip
    return out


def _is_matrix(entry: Entry) -> bool:
    return prod(entry.shape[:-2]) == 1


def _by_left(draft: Draft, call: Call, a: Held | Constant, b: Computed, meta: Meta, name: str) -> Computed:
    """A matrix (m, k) of parameters by columns: rows by its transposition."""
    k, m = (a.shape[-1], 1 if len(a.shape) == 1 else a.shape[-2])
    vector = len(b.shape) == 1
    before = b.shape if vector else (*b.shape[:-2], b.shape[-1], k)
    after = (m,) if vector else (*b.shape[:-2], b.shape[-1], m)
    turned = draft.view(call, [b], Meta(before, b.dtype), f"{name}.columns")
    out = project(draft, call, turned, a, (k, m), Meta(after, meta.dtype), f"{name}.rows")
    return draft.view(call, [out], meta, name)


def _by_batches(draft: Draft, call: Call, a: Computed, b: Held, meta: Meta, name: str) -> Computed:
    """A matrix of parameters for each of a batch: as many products."""
    *lead, k, n = b.shape
    count = prod(lead)
    rows = prod(meta.shape) // (count * n)
    parts = []
    for at in range(count):
        matrix = b.moved(lambda x, at=at: x.reshape(-1, k, n)[at], Meta((k, n), b.dtype), selects=True)  # type: ignore[misc]
        x = draft.view(call, [a], Meta((rows, k), a.dtype), f"{name}.in{at}")
        parts.append(project(draft, call, x, matrix, (k, n), Meta((rows, n), meta.dtype), f"{name}.out{at}"))
    return draft.view(call, parts, meta, name)


def plain(draft: Draft, call: Call) -> Entry:
    """matmul, mm, bmm, mv, dot."""
    a, b = (draft.entry(ref) for ref in call.refs)
    return matmul(draft, call, a, b, call.meta, call.name)


def added(draft: Draft, call: Call) -> Entry:
    """addmm, baddbmm, addmv: a bias and a product."""
    bias, a, b = (draft.entry(ref) for ref in call.refs)
    scaled = any(call.arguments.get(name, 1) != 1 for name in ("alpha", "beta"))
    if call.arguments.get("beta", 1) == 0:
        return matmul(draft, call, a, b, call.meta, call.name)
    if scaled and isinstance(bias, Held):
        raise call.refuse("must have alpha and beta of one with a bias of parameters")
    return matmul(draft, call, a, b, call.meta, call.name, bias)


HANDLERS = {
    "linear": linear, **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot"), plain),
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), added),
}  # fmt: skip
