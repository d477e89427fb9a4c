"""The step networks of an extracted transducer, as a beam search calls them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hwsim.errors import HwsimError
from hwsim.extract.graph.emit import Formats, GraphEmitter
from hwsim.extract.graph.nodes import Graph, Node, NodeKind
from hwsim.extract.lstm import LstmLayer
from hwsim.trace import Kind, Role, TraceBuilder
from hwsim.trace.builder import Operand, Rows


class ExtractedStep:
    """A prediction network or a language model of `graph`, evaluated for hypotheses: labels and states in, one step.

    States are the cells of recurrent layers, and real inputs that are no other's. `labels`: outputs of a language
    model, whose scores become a log-softmax; None for a prediction network.
    """

    def __init__(self, b: TraceBuilder, graph: Graph, component: str, rows: int, formats: Formats,
                 labels: int | None = None) -> None:  # fmt: skip
        self.name, self.graph = component, _without_softmax(graph) if labels else graph
        main = main_output(self.graph)
        self._emitter = GraphEmitter(b, self.graph, component, rows=rows, formats=formats,
                                     state_values=[main] if labels else [])  # fmt: skip
        self.out: Sequence[int] = self._emitter.sources[main]
        self.scores = None if labels is None else (self.out[0], labels)
        """Tensor of a language model's scores, and how many of them a row has."""
        self._states = self._state_operands()
        self._cache = b.tensor(f"{component}.state.cache", Role.STATE, (1,)) if self._states else None

    def step(self, b: TraceBuilder, m: Rows, choice: int | None = None) -> None:
        """Fetch the states of m hypotheses, advance them by one label, and put the new states back."""
        chosen = [] if choice is None else [Operand(choice)]
        width = sum(operand.per_row for operand in self._states)
        if self._cache is not None:
            cache = Operand(self._cache)
            b.op(Kind.STATE_IN, f"{self.name}.state", [*chosen, cache], self._states, m=m, n=width)
        self._emitter.emit(m, needs=[] if choice is None else [choice])
        if self.scores is not None:
            scores = [Operand(*self.scores)]
            b.op(Kind.SOFTMAX, f"{self.name}.output", scores, scores, m=m, n=self.scores[1])
        if self._cache is not None:
            b.op(Kind.STATE_OUT, f"{self.name}.state", self._states, [Operand(self._cache)], m=m, n=width)

    def _state_operands(self) -> list[Operand]:
        found = []
        for made in self._emitter.cells.values():
            for cells in made:
                found.append(Operand(cells.h, cells.cells))
                if isinstance(cells, LstmLayer):
                    found.append(Operand(cells.c, cells.cells))
        inside = _recurrent_inputs(self.graph)
        for name in self.graph.inputs:
            value = self.graph.values[name]
            if not value.integer and name not in inside and name != label_input(self.graph):
                found.append(Operand(self._emitter.sources[name][0], value.elements))
        return found


class ExtractedSearch:
    """Joint, prediction network and language models of an extracted recognizer.

    What the joint computes of one side only is hoisted: run once per encoder frame, or once per label prefix.
    """

    def __init__(self, b: TraceBuilder, joint: Graph, prediction: ExtractedStep, models: Sequence[ExtractedStep],
                 encoder_out: Sequence[int], frames: int, rows: int, formats: Formats) -> None:  # fmt: skip
        joint = _without_softmax(joint)
        self.prediction, self.language_models = prediction, tuple(models)
        sides = joint_sides(joint)
        self._encoder, self._prediction, self._both = sided_nodes(joint, sides)
        logits = main_output(joint)
        of_frames = {name for at in self._encoder for name in joint.nodes[at].outputs}
        border = {name for at in self._both for name in joint.nodes[at].inputs}
        self._emitter = GraphEmitter(
            b, joint, "joint", rows=rows, formats=formats, frames=frames, of_frames=of_frames,
            state_values={*border, logits} - {name for at in self._both for name in joint.nodes[at].outputs} | {logits},
            given={sides[0]: encoder_out, sides[1]: prediction.out},
        )  # fmt: skip
        self.labels = joint.values[logits].elements
        self.logits = self._emitter.sources[logits][0]

    def project_encoder(self, b: TraceBuilder, m: Rows, hoisted: bool, needs: Sequence[int] = ()) -> None:
        """What the joint computes of encoder frames alone."""
        self._emitter.emit(m, self._encoder, needs, "encoder" if hoisted else "joint")

    def project_prediction(self, b: TraceBuilder, m: Rows, hoisted: bool) -> None:
        """What the joint computes of the prediction network alone."""
        self._emitter.emit(m, self._prediction, (), "prediction" if hoisted else "joint")

    def join(self, b: TraceBuilder, m: Rows, needs: Sequence[int] = ()) -> None:
        """The rest of the joint for m pairs of frame and hypothesis, and the log-softmax."""
        self._emitter.emit(m, self._both, needs)
        scores = [Operand(self.logits, self.labels)]
        b.op(Kind.SOFTMAX, "joint.output", scores, scores, m=m, n=self.labels)


def label_input(graph: Graph) -> str:
    """The input that names labels: an integer one, or the first."""
    integers = [name for name in graph.inputs if graph.values[name].integer]
    looked_up = [node.inputs[0] for node in graph.nodes if node.kind == NodeKind.LOOKUP]
    return next((name for name in integers if name in looked_up), (integers or list(graph.inputs))[0])


def main_output(graph: Graph) -> str:
    """The first output that is real, computed, and no state of a recurrent layer. Raises HwsimError without one."""
    states = _recurrent_states(graph)
    for name in graph.outputs:
        if name in graph.values and not graph.values[name].integer and name not in states:
            return name
    raise HwsimError(f"{graph.name}: must have an output that is no state, got {', '.join(graph.outputs) or 'none'}")


def joint_sides(joint: Graph) -> tuple[str, str]:
    """The inputs of a joint: encoder's and prediction network's, by their names or in this order.

    Raises HwsimError when it has not two.
    """
    given = [name for name in joint.inputs if not joint.values[name].integer]
    if len(given) != 2:
        raise HwsimError(f"{joint.name}: a joint must have 2 real inputs, got {len(given)}: {', '.join(given)}")
    first, second = given
    if "enc" not in first.lower() and ("enc" in second.lower() or _is_label_side(first)) and not _is_label_side(second):
        return second, first
    return first, second


def _is_label_side(name: str) -> bool:
    return any(part in name.lower() for part in ("dec", "pred"))


def sided_nodes(joint: Graph, sides: tuple[str, str]) -> tuple[list[int], list[int], list[int]]:
    """Positions of the nodes that depend on the first side only, on the second only, and on both."""
    depends: dict[str, frozenset[int]] = {name: frozenset() for name in (*joint.inputs, *joint.folded)}
    depends |= {side: frozenset([at]) for at, side in enumerate(sides)}
    found: tuple[list[int], list[int], list[int]] = ([], [], [])
    for at, node in enumerate(joint.nodes):
        needs = frozenset().union(*(depends[name] for name in node.inputs))
        depends |= dict.fromkeys(node.outputs, needs)
        found[2 if len(needs) != 1 else min(needs)].append(at)
    return found


def _without_softmax(graph: Graph) -> Graph:
    """The graph without a softmax behind its scores, which the search adds itself."""
    last = graph.producers.get(main_output(graph))
    views = []
    while last is not None and last.kind == NodeKind.VIEW and len(last.inputs) == 1:
        views.append(last)
        last = graph.producers.get(last.inputs[0])
    if last is None or last.kind != NodeKind.SOFTMAX or len(graph.readers.get(last.outputs[0], ())) > 1:
        return graph
    plain = replace(last, kind=NodeKind.VIEW, attributes={}, weights={})
    return replace(graph, nodes=tuple(plain if node is last else node for node in graph.nodes))


def _recurrent_inputs(graph: Graph) -> set[str]:
    """Inputs that are nothing but initial states of recurrent layers."""
    found = set(graph.inputs)
    for name in graph.inputs:
        if not _reaches_states_only(graph, name):
            found.discard(name)
    return found


def _reaches_states_only(graph: Graph, name: str) -> bool:
    readers = graph.readers.get(name, ())
    return bool(readers) and all(
        (node.kind in (NodeKind.LSTM, NodeKind.GRU) and node.inputs[0] != name)
        or (node.kind == NodeKind.VIEW and all(_reaches_states_only(graph, out) for out in node.outputs if out))
        for node in readers
    )


def _recurrent_states(graph: Graph) -> set[str]:
    """Values that are final states of recurrent layers, or views of those alone."""
    found: set[str] = set()
    for node in graph.nodes:
        if node.kind in (NodeKind.LSTM, NodeKind.GRU):
            found.update(name for name in node.outputs[1:] if name)
        elif _shows(node, found):
            found.update(node.outputs)
    return found


def _shows(node: Node, names: set[str]) -> bool:
    return node.kind == NodeKind.VIEW and bool(node.inputs) and names.issuperset(node.inputs)
