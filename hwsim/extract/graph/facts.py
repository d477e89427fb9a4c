"""What was understood of a network, node by node: for reports, and for whoever checks them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod

from hwsim.extract.graph.model import ExtractedModel
from hwsim.extract.graph.nodes import Graph, Node, NodeKind
from hwsim.extract.gru import GATES as GRU_GATES
from hwsim.extract.lstm import GATES as LSTM_GATES

UNLISTED = (NodeKind.ELEMENTWISE, NodeKind.VIEW, NodeKind.REDUCE)


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node as a row of a table."""

    component: str
    layer: str
    operation: str
    output: tuple[int, ...]
    parameters: int
    """Of its weights; one that several nodes share counts for the first."""
    macs: int
    weight_format: str
    """Of its largest weight; empty without one."""
    input_format: str
    output_format: str


def node_facts(model: ExtractedModel) -> list[NodeFacts]:
    """A row for every node but views and element-wise work, which `elementwise_counts` sums up."""
    return [row for component, graph in model.graphs.items() for row in _graph_facts(component, graph)]


def elementwise_counts(graph: Graph) -> Counter[str]:
    """Elements that each element-wise function writes."""
    found: Counter[str] = Counter()
    for node in graph.nodes:
        if node.kind == NodeKind.ELEMENTWISE:
            found[node["function"]] += graph.values[node.outputs[0]].elements
        elif node.kind == NodeKind.REDUCE:
            found[f"reduce {node['function']}"] += graph.values[node.inputs[0]].elements
    return found


def node_macs(graph: Graph, node: Node) -> int:
    """Multiply-accumulates of a node over the graph's inputs; 0 for kinds that do not multiply and accumulate."""
    match node.kind:
        case NodeKind.LINEAR:
            depth = graph.weights[node.weights["weight"]].shape[-2]
            first, last = node.attributes.get("weight_rows", (0, depth))
            return int(graph.values[node.outputs[0]].elements * (last - first))
        case NodeKind.MATMUL:
            return int(prod(node[name] for name in ("m", "k", "n", "batch")))
        case NodeKind.CONV:
            return int(node["positions"] * node["taps"] * node["inputs"] // node["groups"] * node["outputs"])
        case NodeKind.LSTM | NodeKind.GRU:
            gates, cells = LSTM_GATES if node.kind == NodeKind.LSTM else GRU_GATES, node["cells"]
            hidden = node["projection"] or cells
            per_step = (node["inputs"] + hidden) * gates * cells + cells * node["projection"]
            return int(node["steps"] * node["batch"] * node["directions"] * per_step)
    return 0


def graph_macs(graph: Graph) -> int:
    """Multiply-accumulates of a network over its inputs."""
    return sum(node_macs(graph, node) for node in graph.nodes)


def _graph_facts(component: str, graph: Graph) -> list[NodeFacts]:
    rows, seen = [], set[str]()
    for node in graph.nodes:
        held = [graph.weights[name] for name in dict.fromkeys(node.weights.values()) if name not in seen]
        seen.update(node.weights.values())
        if node.kind in UNLISTED and not held:
            continue
        shown = node["function"] if node.kind in (NodeKind.ELEMENTWISE, NodeKind.REDUCE) else _operation(node)
        all_held = [graph.weights[name] for name in node.weights.values()]
        largest = max(all_held, key=lambda weight: weight.elements).format if all_held else ""
        out = graph.values[next(name for name in node.outputs if name)]
        parameters = sum(weight.elements for weight in held if weight.counted)
        rows.append(NodeFacts(component, node.layer, shown, out.shape, parameters, node_macs(graph, node), largest,
                              node.input_format, out.format))  # fmt: skip
    return rows


def _operation(node: Node) -> str:
    if node.kind == NodeKind.CONV:
        depthwise = node["groups"] == node["inputs"] == node["outputs"] and node["groups"] > 1
        return f"{'depthwise ' if depthwise else ''}conv{node['dimensions']}d {'×'.join(map(str, node['kernel']))}"
    if node.kind in (NodeKind.LSTM, NodeKind.GRU):
        return f"{node.kind.value} {node['cells']}{' bidirectional' if node['directions'] == 2 else ''}"
    if node.kind == NodeKind.SOFTMAX and node["log"]:
        return "log-softmax"
    return node.kind.value
