"""Groups of nodes that are one standard operator: layer norms, root mean square norms and GELU, decomposed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod

import numpy as np

from hwsim.extract.graph.nodes import NodeKind
from hwsim.extract.onnx.graph import Node
from hwsim.extract.onnx.structure.constant import Constant
from hwsim.extract.onnx.structure.draft import Draft
from hwsim.extract.onnx.structure.norms import normalized


@dataclass(slots=True)
class Match:
    """Nodes of a pattern in their order, its input, and the parameters behind it."""

    x: tuple[Node, int]
    width: int
    nodes: list[Node] = field(default_factory=list)
    gamma: Constant | None = None
    beta: Constant | None = None


def find_patterns(draft: Draft) -> None:
    """Mark the nodes of each pattern as absorbed, and say what stands at its last one."""
    for node in draft.resolved.nodes:
        if node.outputs[0] in draft.absorbed:
            continue
        if node.op == "ReduceMean":
            match = _layer_norm(draft, node) or _rms_norm(draft, node)
            if match is not None and _closed(draft, match):
                _affine(draft, match)
                _replace(draft, match, _norm_of(draft, match))
        elif node.op == "Erf":
            match = _gelu(draft, node)
            if match is not None and _closed(draft, match):
                _replace(draft, match, _gelu_of(draft, match))


def _closed(draft: Draft, match: Match) -> bool:
    """Whether nothing outside reads what is computed on the way."""
    own = {node.outputs[0] for node in match.nodes}
    inner = own - {match.nodes[-1].outputs[0]}
    readers = (reader.outputs[0] for name in inner for reader in draft.consumers.get(name, []))
    return inner.isdisjoint(draft.resolved.outputs) and own.issuperset(readers)


def _replace(draft: Draft, match: Match, emit: Callable[[], None]) -> None:
    *others, last = match.nodes
    draft.absorbed.update(node.outputs[0] for node in others)
    draft.patterns[last.outputs[0]] = emit


def _norm_of(draft: Draft, match: Match) -> Callable[[], None]:
    def emit() -> None:
        last = match.nodes[-1]
        x = draft.reference(*match.x).value
        normalized(draft, last, x, match.width, match.gamma, match.beta, last.outputs[0])

    return emit


def _gelu_of(draft: Draft, match: Match) -> Callable[[], None]:
    def emit() -> None:
        last, x = match.nodes[-1], draft.reference(*match.x).value
        draft.emit(NodeKind.ELEMENTWISE, last, [x], [last.outputs[0]], function="gelu", width=match.width)

    return emit


def _layer_norm(draft: Draft, mean: Node) -> Match | None:
    """(x - mean) / sqrt(mean((x - mean)^2) + eps)."""
    width = _last_axes(draft, mean)
    subtractions = [node for node in draft.consumers.get(mean.outputs[0], []) if node.op == "Sub"
                    and node.inputs == (mean.inputs[0], mean.outputs[0])]  # fmt: skip
    if not width or len(subtractions) != len(draft.consumers.get(mean.outputs[0], [])):
        return None
    for node in subtractions:
        readers = draft.consumers.get(node.outputs[0], [])
        square = next((reader for reader in readers if _is_square(draft, reader)), None)
        rest = [reader for each in subtractions for reader in draft.consumers.get(each.outputs[0], [])
                if reader is not square]  # fmt: skip
        if square is None or len(rest) != 1:
            continue
        tail = _deviation(draft, square, width)
        numerator = next((each for each in subtractions if rest[0].input(0) == each.outputs[0]), None)
        if tail and numerator is not None and _divides(draft, rest[0], numerator.outputs[0], tail):
            return Match((mean, 0), width, [mean, *subtractions, square, *tail, rest[0]])
    return None


def _rms_norm(draft: Draft, mean: Node) -> Match | None:
    """x / sqrt(mean(x^2) + eps), anchored at the mean."""
    square = draft.producers.get(mean.inputs[0])
    if square is None or not _is_square(draft, square):
        return None
    width, tail = _last_axes(draft, mean), _deviation(draft, square, _last_axes(draft, mean))
    if not width or not tail:
        return None
    last = draft.sole_reader(tail[-1].outputs[0])
    if last is None or not _divides(draft, last, square.inputs[0], tail):
        return None
    return Match((square, 0), width, [square, *tail, last])


def _deviation(draft: Draft, square: Node, width: int) -> list[Node]:
    """What follows a square to its root mean: mean, the sum with a small number, root, and perhaps its reciprocal."""
    found: list[Node] = []
    at = square
    for ops in (("ReduceMean",), ("Add",), ("Sqrt",)):
        reader = draft.sole_reader(at.outputs[0])
        if reader is None or reader.op not in ops:
            return []
        found.append(reader)
        at = reader
    epsilon = next((c for i in range(2) if (c := draft.constant(found[1], i)) is not None), None)
    if epsilon is None or epsilon.elements != 1 or _last_axes(draft, found[0]) != width:
        return []
    reader = draft.sole_reader(at.outputs[0])
    if reader is not None and (reader.op == "Reciprocal" or (reader.op == "Div" and _is_number(draft, reader, 0, 1.0))):
        found.append(reader)
    return found


def _divides(draft: Draft, node: Node, numerator: str, tail: list[Node]) -> bool:
    root, last = tail[2].outputs[0], tail[-1].outputs[0]
    if draft.sole_reader(last) is not node:
        return False
    if len(tail) == 3:
        return node.op == "Div" and node.inputs == (numerator, root)
    return node.op == "Mul" and set(node.inputs) == {numerator, last}


def _affine(draft: Draft, match: Match) -> None:
    """Take the scale and the offset that follow a norm."""
    for op in ("Mul", "Add"):
        reader = draft.sole_reader(match.nodes[-1].outputs[0])
        if reader is None or reader.op != op:
            continue
        found = next((c for at in range(2) if (c := draft.constant(reader, at)) is not None), None)
        if found is None or not found.sources or found.elements != match.width or found.shape[-1] != match.width:
            return
        match.nodes.append(reader)
        if op == "Mul":
            match.gamma = found
        else:
            match.beta = found


def _gelu(draft: Draft, erf: Node) -> Match | None:
    """x (1 + erf(x / sqrt 2)) / 2, its factors in any order."""
    scale = draft.producers.get(erf.inputs[0])
    plus = draft.sole_reader(erf.outputs[0])
    if scale is None or draft.sole_reader(scale.outputs[0]) is not erf or plus is None:
        return None
    x = scale.inputs[0]
    by = 2**0.5 if scale.op == "Div" else 0.5**0.5 if scale.op == "Mul" else 0.0
    if not (_is_number(draft, scale, 1, by) and plus.op == "Add" and _number_beside(draft, plus, 1.0)):
        return None
    nodes, at, halved, times = [scale, erf, plus], plus, False, False
    for _ in range(2):
        reader = draft.sole_reader(at.outputs[0])
        if reader is None or reader.op != "Mul":
            break
        other = next((name for name in reader.inputs if name != at.outputs[0]), "")
        half = draft.producers.get(other)
        if other == x and not times:
            times = True
        elif _number_beside(draft, reader, 0.5) and not halved:
            halved = True
        elif half is not None and half.op == "Mul" and x in half.inputs and _number_beside(draft, half, 0.5):
            nodes.append(half)
            halved = times = True
        else:
            break
        nodes.append(reader)
        at = reader
    if not (halved and times):
        return None
    return Match((scale, 0), (draft.out_type(scale).shape or (1,))[-1], nodes)


def _is_square(draft: Draft, node: Node) -> bool:
    if node.op == "Pow":
        return _is_number(draft, node, 1, 2.0)
    return node.op == "Mul" and node.inputs[0] == node.inputs[1]


def _is_number(draft: Draft, node: Node, at: int, value: float) -> bool:
    constant = draft.constant(node, at)
    return constant is not None and constant.elements == 1 and bool(np.isclose(float(constant.reals().reshape(-1)[0]),
                                                                               value, rtol=1e-3))  # fmt: skip


def _number_beside(draft: Draft, node: Node, value: float) -> bool:
    return any(_is_number(draft, node, at, value) for at in range(2))


def _last_axes(draft: Draft, node: Node) -> int:
    """Elements of the last axes that a reduction runs over, 0 when it runs over others."""
    shape = draft.type(node, 0).shape
    axes = node.attributes.get("axes")
    if axes is None and node.input(1):
        stored = draft.number(node, 1)
        axes = None if stored is None else stored.reshape(-1).tolist()
    if axes is None:
        return 0
    places = sorted(int(axis) % len(shape) for axis in axes)
    return prod(shape[places[0] :]) if places == list(range(len(shape)))[-len(places) :] else 0
