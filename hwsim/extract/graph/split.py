"""A prediction network and a joint that were exported as one graph, taken apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from hwsim.errors import HwsimError
from hwsim.extract.graph.nodes import Graph, Node


def split_decoder_joint(graph: Graph) -> tuple[Graph, Graph]:
    """(prediction network, joint) of a graph that reads encoder rows, labels and states.

    The joint is what depends on the encoder: a real input whose name says `enc`, or the first real one. Raises
    HwsimError when the two meet in several values, or never.
    """
    real = [name for name in graph.inputs if not graph.values[name].integer]
    if not real:
        raise HwsimError(f"{graph.name}: must read rows of the encoder, got {', '.join(graph.inputs)}")
    encoder = next((name for name in real if "enc" in name.lower()), real[0])
    depends = {encoder}
    after: list[Node] = []
    before: list[Node] = []
    for node in graph.nodes:
        if depends.isdisjoint(node.inputs):
            before.append(node)
        else:
            after.append(node)
            depends.update(node.outputs)
    border = list(dict.fromkeys(
        name for node in after for name in node.inputs if name not in depends and name not in graph.folded
    ))  # fmt: skip
    if len(border) != 1:
        raise HwsimError(f"{graph.name}: prediction network and joint must meet in one value, got {len(border)}"
                         f"{': ' if border else ''}{', '.join(border)}")  # fmt: skip
    states = [name for name in graph.outputs if name not in depends]
    prediction = _part(graph, "prediction", before, [name for name in graph.inputs if name != encoder],
                       [*border, *(name for name in states if name != border[0])])  # fmt: skip
    joint = _part(graph, "joint", after, [encoder, *border], [name for name in graph.outputs if name in depends])
    return prediction, joint


def _part(graph: Graph, name: str, nodes: Sequence[Node], inputs: Iterable[str], outputs: Iterable[str]) -> Graph:
    held = {weight for node in nodes for weight in node.weights.values()}
    read = {value for node in nodes for value in (*node.inputs, *node.outputs)}
    given = tuple(inputs)
    return replace(
        graph, name=name, nodes=tuple(nodes), inputs=given, outputs=tuple(outputs),
        values={key: value for key, value in graph.values.items() if key in read or key in given},
        weights={key: weight for key, weight in graph.weights.items() if key in held},
        folded={key: count for key, count in graph.folded.items() if key in read},
    )  # fmt: skip
