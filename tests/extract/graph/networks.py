"""Graphs written by hand: the MLPerf RNN-T as a reader would give it, and its parts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hwsim.extract import ExtractedModel, load_network
from hwsim.extract.graph.nodes import Graph, Node, NodeKind, Value, Weight
from hwsim.extract.spec import DecodeDefaults

FRAMES = 208


class Draft:
    """A graph that grows by one node at a time."""

    def __init__(self, **inputs: tuple[int, ...]) -> None:
        self.values = {name: Value(name, shape) for name, shape in inputs.items()}
        self.inputs = tuple(inputs)
        self.nodes: list[Node] = []
        self.weights: dict[str, Weight] = {}

    def weight(self, name: str, *shape: int, format: str = "fp32") -> str:
        """A weight whose content counts up."""
        self.weights.setdefault(
            name,
            Weight(name, shape, format, load=lambda: np.arange(np.prod(shape), dtype=np.float32).reshape(shape)),
        )
        return name

    def add(self, kind: NodeKind, name: str, reads: tuple[str, ...], shape: tuple[int, ...],
            weights: Mapping[str, str] | None = None, **attributes: object) -> str:  # fmt: skip
        """A node of one output that has its name."""
        self.values[name] = Value(name, shape)
        self.nodes.append(Node(kind, name, reads, (name,), dict(weights or {}), attributes))
        return name

    def linear(self, name: str, x: str, outputs: int, bias: bool = True) -> str:
        """A product by a weight."""
        *rows, depth = self.values[x].shape
        held = {"weight": self.weight(f"{name}.weight", depth, outputs)}
        if bias:
            held["bias"] = self.weight(f"{name}.bias", outputs)
        return self.add(NodeKind.LINEAR, name, (x,), (*rows, outputs), held)

    def function(self, name: str, function: str, *inputs: str) -> str:
        """An element-wise function of values of one shape."""
        shape = self.values[inputs[0]].shape
        return self.add(NodeKind.ELEMENTWISE, name, inputs, shape, function=function, width=shape[-1])

    def view(self, name: str, inputs: tuple[str, ...], *shape: int) -> str:
        """Another shape of the same elements."""
        return self.add(NodeKind.VIEW, name, inputs, shape)

    def lstm(self, name: str, x: str, cells: int, steps: int, states: tuple[str, ...] = ()) -> str:
        """A recurrent layer over `steps`; its output has its name, its states `<name>.h` and `<name>.c`."""
        width = self.values[x].shape[-1]
        held = {"wx": self.weight(f"{name}.wx", width, 4 * cells), "wh": self.weight(f"{name}.wh", cells, 4 * cells),
                "bias_x": self.weight(f"{name}.bias_x", 4 * cells),
                "bias_h": self.weight(f"{name}.bias_h", 4 * cells)}  # fmt: skip
        shapes = {name: (steps, 1, cells), f"{name}.h": (1, 1, cells), f"{name}.c": (1, 1, cells)}
        self.values.update({key: Value(key, shape) for key, shape in shapes.items()})
        sizes = {"steps": steps, "batch": 1, "inputs": width, "cells": cells, "directions": 1, "projection": 0}
        self.nodes.append(Node(NodeKind.LSTM, name, (x, *states), tuple(shapes), held, sizes))
        return name

    def graph(self, name: str, *outputs: str) -> Graph:
        """The finished graph."""
        return Graph(name, self.values, tuple(self.nodes), self.weights, self.inputs, outputs)


def encoder(frames: int = FRAMES) -> Graph:
    """Two layers of 1024 cells, two frames stacked, three layers."""
    d = Draft(features=(frames, 1, 240))
    x = d.lstm("lstm1", d.lstm("lstm0", "features", 1024, frames), 1024, frames)
    x = d.view("stacked", (x,), frames // 2, 1, 2048)
    for index in range(2, 5):
        x = d.lstm(f"lstm{index}", x, 1024, frames // 2)
    return d.graph("encoder", x)


def prediction() -> Graph:
    """An embedding and two layers of 320 cells, whose states are stacked as torch has them."""
    d = Draft(labels=(1, 1), h=(2, 1, 320), c=(2, 1, 320))
    d.values["labels"] = Value("labels", (1, 1), integer=True)
    x = d.add(NodeKind.LOOKUP, "embedding", ("labels",), (1, 1, 320), {"table": d.weight("table", 28, 320)})
    for index in range(2):
        states = tuple(d.view(f"{part}{index}", (part,), 1, 1, 320) for part in ("h", "c"))
        x = d.lstm(f"lstm{index}", x, 320, 1, states)
    for part in ("h", "c"):
        d.view(f"{part}_out", (f"lstm0.{part}", f"lstm1.{part}"), 2, 1, 320)
    return d.graph("prediction", "h_out", x, "c_out")


def joint(log_softmax: bool = False) -> Graph:
    """Both sides beside each other, 512 with ReLU, 29 labels."""
    d = Draft(encoder_side=(1, 1, 1024), prediction_side=(1, 1, 320))
    x = d.view("both", ("encoder_side", "prediction_side"), 1, 1, 1344)
    x = d.linear("output", d.function("relu", "relu", d.linear("hidden", x, 512)), 29)
    if log_softmax:
        x = d.add(NodeKind.SOFTMAX, "log_softmax", (x,), (1, 1, 29), rows=1, width=29, log=True)
    return d.graph("joint", x)


def language_model() -> Graph:
    """An embedding, one layer of 64 cells and a product to 29 labels."""
    d = Draft(labels=(1, 1), h=(1, 1, 64), c=(1, 1, 64))
    d.values["labels"] = Value("labels", (1, 1), integer=True)
    x = d.add(NodeKind.LOOKUP, "embedding", ("labels",), (1, 1, 32), {"table": d.weight("table", 29, 32)})
    return d.graph("lm", d.linear("output", d.lstm("lstm", x, 64, 1, ("h", "c")), 29), "lstm.h", "lstm.c")


def decoding(frames: int = FRAMES) -> DecodeDefaults:
    """How `rnnt_mlperf` is decoded, for another number of frames."""
    return load_network("rnnt_mlperf").decode.model_copy(update={"frames": frames})


def mlperf(**others: Graph) -> ExtractedModel:
    """The MLPerf RNN-T, with language models or other parts."""
    graphs = {"encoder": encoder(), "prediction": prediction(), "joint": joint(), **others}
    return ExtractedModel("mlperf", graphs, FRAMES, 0.03, decoding())
