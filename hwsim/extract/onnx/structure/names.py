"""Layers of a graph, named after the scopes that an exporter has written into names of nodes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache

from hwsim.extract.graph.nodes import NodeKind
from hwsim.extract.onnx.graph import safe_name, unique
from hwsim.extract.onnx.structure.draft import Emitted


def layers(emitted: Sequence[Emitted], scopes: Mapping[str, list[str]]) -> list[str]:
    """A unique layer for each node: its scope if it is the only layer there or alone, else scope and operator."""
    found = [_scoped(each, scopes) for each in emitted]
    all_of = Counter(scope for scope, _ in found)
    layered = Counter(scope for each, (scope, _) in zip(emitted, found, strict=True) if _is_layer(each))
    chosen: dict[int, str] = {}
    taken: set[str] = set()
    for at, (each, (scope, _)) in enumerate(zip(emitted, found, strict=True)):
        alone = all_of[scope] == 1 or (_is_layer(each) and layered[scope] == 1)
        if scope and alone and scope not in taken:
            chosen[at] = scope
            taken.add(scope)
    for holds in (True, False):
        for at, (each, (scope, own)) in enumerate(zip(emitted, found, strict=True)):
            if at not in chosen and bool(each.weights) is holds:
                chosen[at] = unique(f"{scope}.{own}" if scope else own, taken)
    return [chosen[at] for at in range(len(emitted))]


def _is_layer(each: Emitted) -> bool:
    """Whether a node is what a module is there for: it holds weights and is no sum or product with a constant."""
    return bool(each.weights) and each.kind != NodeKind.ELEMENTWISE


def _scoped(each: Emitted, scopes: Mapping[str, list[str]]) -> tuple[str, str]:
    """The scope of a node and its own name in it."""
    written = scopes.get(each.node.outputs[0])
    if written:
        named = [scope for scope in written[:-1] if scope]
        scope, own = named[-1] if named else "", written[-1] or each.node.name
    else:
        scope, own = _split(each.node.name, each.node.op)
    own = f"{own}.{each.suffix}" if each.suffix else own
    return (safe_name(scope) if scope else ""), safe_name(own)


def _split(name: str, op: str) -> tuple[str, str]:
    """`/encoder/linear/MatMul` into scope and operator; a name that ends in no operator is all scope."""
    parts = [part for part in name.split("/") if part]
    if len(parts) == 1:
        return "", parts[0]
    if not parts:
        return "", op.rpartition(".")[2]
    if _is_operator(parts[-1]) or re.split(r"[_:]", parts[-1])[0] == op.rpartition(".")[2]:
        return "/".join(parts[:-1]), parts[-1]
    return "/".join(parts), op.rpartition(".")[2]


def _is_operator(part: str) -> bool:
    """Whether a part of a name is an operator, with what tools write behind it."""
    return re.split(r"[_:]", part)[0] in _operators()


@cache
def _operators() -> frozenset[str]:
    from onnx import defs

    return frozenset(schema.name for schema in defs.get_all_schemas())
