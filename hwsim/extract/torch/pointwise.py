"""Element-wise operators and reductions."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from hwsim.extract.graph.nodes import NodeKind
from hwsim.extract.torch.calls import Call, Meta
from hwsim.extract.torch.draft import Draft
from hwsim.extract.torch.entries import Computed, Constant, Entry

FUNCTIONS: dict[str, tuple[str, ...]] = {
    "add": ("add", "sub", "rsub", "subtract", "cumsum", "__add__", "__sub__", "scatter_add", "index_add"),
    "multiply": ("mul", "multiply", "neg", "negative", "cumprod"),
    "divide": ("div", "divide", "true_divide", "reciprocal", "floor_divide", "remainder", "fmod"),
    "tanh": ("tanh",),
    "sigmoid": ("sigmoid",),
    "relu": ("relu",),
    "swish": ("silu", "hardswish"),
    "glu": ("glu",),
    "gelu": ("gelu",),
    "exp": ("exp", "exp2", "expm1", "log", "log1p", "log2", "log10", "logaddexp", "logaddexp2", "sin", "cos", "erf",
            "softplus", "log_sigmoid", "mish", "elu", "selu", "celu", "atan", "atan2"),
    "sqrt": ("sqrt", "rsqrt"),
    "select": ("where", "masked_fill", "clamp", "clip", "clamp_min", "clamp_max", "maximum", "minimum", "hardtanh",
               "relu6", "leaky_relu", "hardsigmoid", "threshold", "eq", "ne", "lt", "le", "gt", "ge", "logical_and",
               "logical_or", "logical_not", "logical_xor", "bitwise_and", "bitwise_or", "bitwise_not", "bitwise_xor",
               "__and__", "__or__", "__xor__", "__invert__", "abs", "sign", "sgn", "floor", "ceil", "round", "trunc",
               "isnan", "isinf", "isfinite", "nan_to_num", "fmax", "fmin", "cummax", "sort", "argsort"),
}  # fmt: skip
"""Operators by the function that stands for them."""
REDUCTIONS: dict[str, tuple[str, ...]] = {
    "add": ("sum", "mean", "nansum", "avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d"),
    "multiply": ("prod",),
    "select": ("amax", "amin", "max", "min", "aminmax", "argmax", "argmin", "topk", "any", "all", "max_pool1d",
               "max_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d", "max_pool1d_with_indices",
               "max_pool2d_with_indices", "count_nonzero"),
    "exp": ("logsumexp",),
}  # fmt: skip
Handler = Callable[[Draft, Call], "Entry | tuple[Entry, ...]"]


def elementwise(function: str) -> Handler:
    """Operators that become one pass over their operands."""

    def handle(draft: Draft, call: Call) -> Entry | tuple[Entry, ...]:
        operands = [draft.entry(ref) for ref in call.refs]
        unchanged = without_effect(draft, call, operands)
        if unchanged is not None:
            return unchanged
        made = draft.pointwise(call, function, operands, next(meta for meta in call.outputs if meta is not None))
        others = tuple(draft.view(call, [made], meta, f"{call.name}.{at}")
                       for at, meta in enumerate(call.outputs[1:], 1) if meta is not None)  # fmt: skip
        return made if call.single else (made, *others)

    return handle


def without_effect(draft: Draft, call: Call, operands: list[Entry]) -> Entry | None:
    """The operand that a constant mask leaves as it is: all of it kept, or zeros added."""
    meta = call.outputs[0]
    found: Entry | None = None
    if call.kind == "masked_fill" and _is_all(operands[1], False):
        found = operands[0]
    elif call.kind == "where" and len(operands) == 3 and isinstance(operands[0], Constant):
        found = operands[1] if _is_all(operands[0], True) else operands[2] if _is_all(operands[0], False) else None
    elif call.kind in ("add", "sub") and len(operands) == 2 and _is_all(operands[1], 0):
        found = operands[0]
    elif call.kind == "add" and len(operands) == 2 and _is_all(operands[0], 0):
        found = operands[1]
    if found is None or meta is None or found.shape != meta.shape or found.dtype != meta.dtype:
        return None
    draft.counts["masks that keep everything were dropped: {}"] += 1
    return found


def _is_all(entry: Entry, value: float) -> bool:
    return isinstance(entry, Constant) and entry.tensor.numel() > 0 and bool((entry.tensor == value).all())


def power(draft: Draft, call: Call) -> Entry:
    """Powers: of small integers by multiplying, of halves by roots, else by logarithms."""
    exponent, x = call["exponent"], draft.operand(call["self"])
    if isinstance(exponent, int | float) and float(exponent).is_integer() and exponent > 0:
        return draft.pointwise(call, "multiply", [x, x], call.meta)
    if isinstance(exponent, int | float) and abs(exponent) == 0.5:
        return draft.pointwise(call, "sqrt", [x], call.meta)
    if exponent == -1:
        return draft.pointwise(call, "divide", [x], call.meta)
    return draft.pointwise(call, "exp", [x, draft.operand(exponent)], call.meta)


def square(draft: Draft, call: Call) -> Entry:
    """x x."""
    x = draft.operand(call["self"])
    return draft.pointwise(call, "multiply", [x, x], call.meta)


def prelu(draft: Draft, call: Call) -> Entry:
    """x, or a slope times x below zero."""
    x = draft.operand(call["self"])
    scaled = draft.pointwise(call, "multiply", [x, draft.operand(call["weight"])], call.meta, f"{call.name}.scaled")
    return draft.pointwise(call, "select", [x, scaled], call.meta)


def multiply_add(draft: Draft, call: Call) -> Entry:
    """x + a b, or x + a / b."""
    function = "multiply" if call.kind == "addcmul" else "divide"
    factors = [draft.operand(call["tensor1"]), draft.operand(call["tensor2"])]
    product = draft.pointwise(call, function, factors, call.meta, f"{call.name}.product")
    return draft.pointwise(call, "add", [draft.operand(call["self"]), product], call.meta)


def softmax(draft: Draft, call: Call) -> Entry:
    """Along any axis."""
    x = draft.lifted(draft.entry(call.refs[0]), call)
    return rows_of_softmax(draft, call, x, call.meta, call.name, call["dim"], call.kind.endswith("log_softmax"))


def rows_of_softmax(draft: Draft, call: Call, x: Computed, meta: Meta, name: str, dim: int = -1,
                    log: bool = False) -> Computed:  # fmt: skip
    """A softmax of rows along `dim`."""
    out = draft.value(name, meta)
    width = meta.shape[dim] if meta.shape else 1
    draft.node(NodeKind.SOFTMAX, call, [x], [out], layer=draft.layer(call, operation="softmax"),
               rows=prod(meta.shape) // max(width, 1), width=width, log=log)  # fmt: skip
    return out


def reduction(function: str) -> Handler:
    """Operators that become one pass over their input; values and indices are one pass too."""

    def handle(draft: Draft, call: Call) -> Entry | tuple[Entry, ...]:
        operands = [draft.entry(ref) for ref in call.refs]
        if call.kind in ("max", "min") and len(operands) == 2:
            return draft.pointwise(call, function, operands, call.meta)
        x = draft.lifted(operands[0], call)
        metas = [meta for meta in call.outputs if meta is not None]
        if function == "exp":
            x = draft.pointwise(call, "exp", [x], Meta(x.shape, x.dtype), f"{call.name}.exp")
        names = [call.name] if call.single else [f"{call.name}.{at}" for at in range(len(metas))]
        outs = [draft.value(name, meta) for name, meta in zip(names, metas, strict=True)]
        draft.node(NodeKind.REDUCE, call, [x], outs, function="add" if function == "exp" else function)
        return outs[0] if call.single else tuple(outs)

    return handle


def variance(draft: Draft, call: Call) -> Entry | tuple[Entry, ...]:
    """var, std, var_mean, std_mean: a mean, differences, their squares and another mean."""
    x = draft.lifted(draft.entry(call.refs[0]), call)
    metas = [meta for meta in call.outputs if meta is not None]
    mean = reduced(draft, call, x, metas[-1], f"{call.name}.mean")
    whole = Meta(x.shape, x.dtype)
    difference = draft.pointwise(call, "add", [x, mean], whole, f"{call.name}.difference")
    squares = draft.pointwise(call, "multiply", [difference, difference], whole, f"{call.name}.squares")
    result = reduced(draft, call, squares, metas[0], call.name)
    if call.kind.startswith("std"):
        result = draft.pointwise(call, "sqrt", [result], metas[0], f"{call.name}.root")
    return result if call.single else (result, mean)


def vector_norm(draft: Draft, call: Call) -> Entry:
    """The root of a sum of squares, or another norm by as many passes."""
    x = draft.lifted(draft.entry(call.refs[0]), call)
    squares = draft.pointwise(call, "multiply", [x, x], Meta(x.shape, x.dtype), f"{call.name}.squares")
    total = reduced(draft, call, squares, call.meta, f"{call.name}.sum")
    return draft.pointwise(call, "sqrt", [total], call.meta)


def reduced(draft: Draft, call: Call, x: Computed, meta: Meta, name: str, function: str = "add") -> Computed:
    """A sum of x with the shape of `meta`."""
    out = draft.value(name, meta)
    draft.node(NodeKind.REDUCE, call, [x], [out], function=function)
    return out


def _table() -> dict[str, Any]:
    handlers: dict[str, Any] = {}
    for function, kinds in FUNCTIONS.items():
        handlers |= dict.fromkeys(kinds, elementwise(function))
    for function, kinds in REDUCTIONS.items():
        handlers |= dict.fromkeys(kinds, reduction(function))
    handlers |= dict.fromkeys(("softmax", "_softmax", "log_softmax", "_log_softmax"), softmax)
    handlers |= dict.fromkeys(("var", "std", "var_mean", "std_mean"), variance)
    handlers |= dict.fromkeys(("linalg_vector_norm", "norm"), vector_norm)
    return handlers | {"pow": power, "square": square, "prelu": prelu, "addcmul": multiply_add, "addcdiv": multiply_add}


HANDLERS = _table()
