"""Rewriting of graphs: patterns of several nodes that are one operation of a machine, and what nobody needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import prod

from hwsim.extract.graph.nodes import Graph, Node, NodeKind

FUSED = {("add", "tanh"): "add_tanh", ("multiply", "tanh"): "multiply_tanh", ("add", "relu"): "add_relu",
         ("multiply", "relu"): "multiply_relu"}  # fmt: skip
SCALING = ("multiply", "divide")


def simplified(graph: Graph) -> Graph:
    """The same network with fewer nodes: gates of x sigmoid(y), activations behind sums, factors of products.

    A factor that is a number is part of the scale of the product beside it, as every quantized machine has it.
    What no output needs is dropped. `notes` of the result say what was merged.
    """
    for change in (_without_dead, _biases, _gates, _behind_sums, _factors, _without_dead):
        graph = change(graph)
    return graph


def split_by_side(joint: Graph, sides: tuple[str, str]) -> Graph:
    """A joint whose product of both sides beside each other is the sum of a product of each, the bias with the last.

    The sum is the same, and the product of an encoder frame can then be computed once for all hypotheses.
    """
    nodes: list[Node] = []
    values = dict(joint.values)
    producers, split = joint.producers, 0
    for node in joint.nodes:
        parts = _concatenated(producers, node.inputs[0]) if node.kind == NodeKind.LINEAR else ()
        widths = [joint.values[part].shape[-1] for part in parts]
        depth = joint.weights[node.weights["weight"]].shape[0] if node.kind == NodeKind.LINEAR else 0
        if len(parts) != 2 or sum(widths) != depth or [_side(producers, part) for part in parts] != list(sides):
            nodes.append(node)
            continue
        out, start = joint.values[node.outputs[0]], 0
        names = (f"{out.name}.encoder", f"{out.name}.prediction")
        for name, part, width in zip(names, parts, widths, strict=True):
            weights = {key: held for key, held in node.weights.items() if key == "weight" or name == names[1]}
            rows = {**node.attributes, "weight_rows": [start, start + width]}
            layer = f"{node.layer}.{name.rpartition('.')[2]}"
            nodes.append(replace(node, layer=layer, inputs=(part,), outputs=(name,), weights=weights, attributes=rows))
            values[name] = replace(out, name=name)
            start += width
        nodes.append(Node(NodeKind.ELEMENTWISE, f"{node.layer}.add", names, (out.name,),
                          attributes={"function": "add", "width": out.shape[-1]}))  # fmt: skip
        split += 1
    if not split:
        return joint
    note = f"{split} product{'s' * (split > 1)} of concatenated sides became a sum of two"
    return replace(joint, nodes=tuple(nodes), values=values, notes=(*joint.notes, note))


def _concatenated(producers: Mapping[str, Node], name: str) -> tuple[str, ...]:
    """The values that stand beside each other in one, through views."""
    node = producers.get(name)
    while node is not None and node.kind == NodeKind.VIEW and len(node.inputs) == 1:
        node = producers.get(node.inputs[0])
    return node.inputs if node is not None and node.kind == NodeKind.VIEW else ()


def _side(producers: Mapping[str, Node], name: str) -> str:
    """The input that a value depends on; several are joined by a comma."""
    node = producers.get(name)
    if node is None:
        return name
    return ",".join(dict.fromkeys(_side(producers, given) for given in node.inputs))


def _without_dead(graph: Graph) -> Graph:
    wanted, kept = set(graph.outputs), []
    for node in reversed(graph.nodes):
        if wanted.intersection(name for name in node.outputs if name):
            wanted.update(node.inputs)
            kept.append(node)
    return _with_nodes(graph, reversed(kept))


def _biases(graph: Graph) -> Graph:
    """A vector that is added to a product by a weight is its bias."""
    nodes = {node.outputs[0]: node for node in graph.nodes}
    gone: set[str] = set()
    found: dict[str, Node] = {}
    for node in graph.nodes:
        if node.kind != NodeKind.ELEMENTWISE or node["function"] != "add" or set(node.weights) != {"constant"}:
            continue
        product = nodes.get(node.inputs[0]) if len(node.inputs) == 1 else None
        if product is None or product.kind != NodeKind.LINEAR or "bias" in product.weights:
            continue
        width = graph.weights[product.weights["weight"]].shape[-1]
        held = graph.weights[node.weights["constant"]].shape
        if held[-1:] == (width,) and prod(held) == width and _read_once(graph, node.inputs[0]):
            gone.add(node.inputs[0])
            weights = {**product.weights, "bias": node.weights["constant"]}
            found[node.outputs[0]] = replace(product, outputs=node.outputs, weights=weights)
    return _replaced(graph, found, gone, "{} sums with a vector became the bias of a product")


def _gates(graph: Graph) -> Graph:
    """x sigmoid(x) is swish, a sigmoid(b) of two halves of one value is a gated linear unit."""
    nodes = {node.outputs[0]: node for node in graph.nodes}
    gone: set[str] = set()
    found: dict[str, Node] = {}
    for node in graph.nodes:
        gate = _sole(graph, nodes, node, "multiply", "sigmoid")
        if gate is None:
            continue
        other = next(name for name in node.inputs if name != gate.outputs[0])
        if other == gate.inputs[0]:
            fused, reads = "swish", (other,)
        else:
            whole = _whole(nodes, other), _whole(nodes, gate.inputs[0])
            if whole[0] is None or whole[0] != whole[1]:
                continue
            fused, reads = "glu", (whole[0],)
        gone.add(gate.outputs[0])
        found[node.outputs[0]] = replace(node, inputs=reads, attributes={**node.attributes, "function": fused})
    return _replaced(graph, found, gone, "{} gates became swish or GLU")


def _whole(nodes: Mapping[str, Node], name: str) -> str | None:
    """The value that a view shows a part of."""
    node = nodes.get(name)
    while node is not None and node.kind == NodeKind.VIEW and len(node.inputs) == 1:
        name = node.inputs[0]
        node = nodes.get(name)
    return name


def _behind_sums(graph: Graph) -> Graph:
    """tanh or ReLU of a sum or a product of two values is one pass."""
    nodes = {node.outputs[0]: node for node in graph.nodes}
    gone: set[str] = set()
    found: dict[str, Node] = {}
    for node in graph.nodes:
        if node.kind != NodeKind.ELEMENTWISE or len(node.inputs) != 1 or node.weights:
            continue
        before = nodes.get(node.inputs[0])
        if before is None or before.kind != NodeKind.ELEMENTWISE or len(before.inputs) != 2 or before.weights:
            continue
        fused = FUSED.get((before["function"], node["function"]))
        if fused and _read_once(graph, before.outputs[0]):
            gone.add(before.outputs[0])
            attributes = {**node.attributes, "function": fused}
            found[node.outputs[0]] = replace(node, inputs=before.inputs, attributes=attributes)
    return _replaced(graph, found, gone, "{} activations merged with the sum or product in front")


def _factors(graph: Graph) -> Graph:
    """A number times the operand or the result of a product is part of its scale."""
    nodes = {node.outputs[0]: node for node in graph.nodes}
    found: dict[str, Node] = {}
    for node in graph.nodes:
        if (
            node.kind != NodeKind.ELEMENTWISE
            or node["function"] not in SCALING
            or len(node.inputs) != 1
            or node.weights
        ):
            continue
        source = nodes.get(node.inputs[0])
        makes = source is not None and source.kind in (NodeKind.LINEAR, NodeKind.MATMUL) and _read_once(
            graph, node.inputs[0]
        )  # fmt: skip
        if makes or _only_products(graph, node.outputs[0]):
            found[node.outputs[0]] = replace(node, kind=NodeKind.VIEW, attributes={}, weights={})
    return _replaced(graph, found, set(), "{} constant factors became part of the scale of a product")


def _only_products(graph: Graph, name: str) -> bool:
    """Whether all that reads a value, through views, are products."""
    readers = graph.readers.get(name, ())
    if not readers or name in graph.outputs:
        return False
    return all(
        node.kind in (NodeKind.LINEAR, NodeKind.MATMUL)
        or (node.kind == NodeKind.VIEW and all(_only_products(graph, out) for out in node.outputs if out))
        for node in readers
    )


def _sole(graph: Graph, nodes: Mapping[str, Node], node: Node, function: str, operand: str) -> Node | None:
    """The `operand` function that a binary `function` node alone reads."""
    if node.kind != NodeKind.ELEMENTWISE or node["function"] != function or len(node.inputs) != 2:
        return None
    for name in node.inputs:
        found = nodes.get(name)
        if (found is not None and found.kind == NodeKind.ELEMENTWISE and found["function"] == operand
                and len(found.inputs) == 1 and _read_once(graph, name)):  # fmt: skip
            return found
    return None


def _read_once(graph: Graph, name: str) -> bool:
    return len(graph.readers.get(name, ())) == 1 and name not in graph.outputs


def _replaced(graph: Graph, found: Mapping[str, Node], gone: set[str], note: str) -> Graph:
    if not found:
        return graph
    kept = [found.get(node.outputs[0], node) for node in graph.nodes if node.outputs[0] not in gone]
    return replace(_with_nodes(graph, kept), notes=(*graph.notes, note.format(len(found))))


def _with_nodes(graph: Graph, nodes: Iterable[Node]) -> Graph:
    return replace(graph, nodes=tuple(nodes))
