"""From a checked model to nodes that compute something, the sizes of every value, and constants."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.extract.onnx.graph import Node, bound_inputs, needed_nodes, plain_nodes
from hwsim.extract.onnx.structure.constant import Constant
from hwsim.extract.onnx.structure.folding import Folder
from hwsim.extract.onnx.structure.qonnx import QUANTIZERS
from hwsim.extract.onnx.structure.stored import Stored
from hwsim.extract.onnx.structure.types import Inference, Known, Type

Array = npt.NDArray[Any]
RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial")
WEIGHTED = {
    "MatMul": 1, "Gemm": 1, "Conv": 1, "LSTM": 1, "GRU": 1, "LayerNormalization": 1, "MatMulInteger": 1,
    "QLinearMatMul": 3, "QLinearConv": 3, "ConvInteger": 1, "FusedMatMul": 1,
}  # fmt: skip
"""Which input is the parameter of operators that stay although all they read is constant."""
KNOWN_CODES = ("QuantizeLinear", "DequantizeLinear")
SCOPES = "pkg.torch.onnx.name_scopes"


@dataclass(slots=True)
class Resolved:
    """What is left of a model: nodes that compute, types of all values, constants by name, and the graph's ends."""

    path: Path
    bind: Mapping[str, int]
    nodes: list[Node]
    types: dict[str, Type]
    constants: dict[str, Constant]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    stored: dict[str, Stored]
    opset: int = 1
    folded: dict[str, int] = field(default_factory=dict)
    """Nodes of constants that were computed, by operator."""
    scopes: dict[str, list[str]] = field(default_factory=dict)
    """Scopes of a node that its exporter has written down, by its first output."""
    read: set[str] = field(default_factory=set)
    """Initializers that a needed node reads."""
    spent: set[str] = field(default_factory=set)
    """Initializers that say how codes of constants become reals."""


class Resolver:
    """Walks a graph in its order and knows each node's outputs before the next."""

    def __init__(self, path: Path, model: Any, stored: dict[str, Stored], bind: Mapping[str, int],
                 known: Callable[[str], bool]) -> None:  # fmt: skip
        self.path, self.model, self.stored, self.known_operator = path, model, stored, known
        opsets = {opset.domain: opset.version for opset in model.opset_import}
        self.inference = Inference(opsets, bind)
        self.folder = Folder(self.inference.opsets.get("", 1))
        self.unknown: list[Node] = []
        self.found = Resolved(path, bind, [], {}, {}, (), (), stored, self.folder.opset)

    def run(self) -> tuple[Resolved, list[Node]]:
        """Everything that is known, and the nodes of operators that nobody reads. Raises HwsimError."""
        graph, found = self.model.graph, self.found
        for name, each in self.stored.items():
            self._hold(_initializer(each), name)
        given = [value for value in graph.input if value.name not in self.stored]
        inputs = bound_inputs(self.path, given, found.bind)
        for name, value in inputs.items():
            found.types[name] = Type(value.shape, np.dtype(_numpy_type(value.dtype)))
        found.inputs, found.outputs = tuple(inputs), tuple(value.name for value in graph.output)
        try:
            self._walk(list(graph.node), found.outputs)
        except HwsimError:
            if not self.unknown:
                raise
        else:
            self._check_declared()
        return found, self.unknown

    def _check_declared(self) -> None:
        """Raises HwsimError for a value whose size in the file is a number that does not follow from what is bound.

        Runtimes believe such a number: they compute other Reshapes from it.
        """
        if not self.found.bind:
            return
        for value in (*self.model.graph.value_info, *self.model.graph.output):
            known, kind = self.found.types.get(value.name), value.type.tensor_type
            if known is None or not kind.HasField("shape") or len(kind.shape.dim) != len(known.shape):
                continue
            sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
            if any(size not in (None, now) for size, now in zip(sizes, known.shape, strict=True)):
                bound = ", ".join(f"{name}={size}" for name, size in self.found.bind.items())
                shown = ", ".join(str(dim.dim_param or dim.dim_value or "?") for dim in kind.shape.dim)
                raise HwsimError(f"value '{value.name}' must have the sizes {known.shape} of what is bound: length "
                                 f"frozen by the export: got {bound}, the file holds ({shown})")  # fmt: skip

    def _walk(self, protos: list[Any], outputs: tuple[str, ...]) -> None:
        by_output = {next((name for name in proto.output if name), ""): proto for proto in protos}
        nodes = [replace(node, inputs=(*node.inputs, *_captured(node))) for node in plain_nodes(protos)]
        for node in needed_nodes(nodes, outputs):
            proto = by_output[next(name for name in node.outputs if name)]
            read = node.inputs[:1] if node.op == "If" else node.inputs
            self.found.read.update(name for name in read if name in self.stored)
            self._scopes(node, proto)
            self._visit(node, proto)

    def _visit(self, node: Node, proto: Any) -> None:
        inputs = [self.found.constants.get(name) if name else None for name in node.inputs]
        missing = [name for name in node.inputs if name and name not in self.found.types]
        if missing and not self.unknown:
            raise node.refuse(f"must read values that are there, got '{missing[0]}'")
        constant = all(each is not None for each, name in zip(inputs, node.inputs, strict=True) if name)
        if node.op == "If":
            self._branch(node, inputs[0])
            return
        if node.op in ("Shape", "Size"):
            self._shape(node)
            return
        if node.op == "Constant":
            self._hold(_number(node), node.outputs[0])
            return
        folds = constant and self._folds(node, inputs)
        if not folds and not self.known_operator(node.op):
            self.unknown.append(node)
        types = self.inference.outputs(node, proto, self._known(node, inputs))
        self.inference.check_length(node, self._known(node, inputs), types)
        if folds:
            self.found.folded[node.op] = self.found.folded.get(node.op, 0) + 1
            if node.op in QUANTIZERS or node.op.endswith(KNOWN_CODES):
                for scale in inputs[1:]:
                    self.found.spent.update(() if scale is None else scale.sources)
            for each in self.folder.fold(node, proto, inputs, types):
                self._hold(each, each.name)
        self.found.types.update((name, each) for name, each in zip(node.outputs, types, strict=True) if each)
        if not folds:
            self.found.nodes.append(node)

    def _folds(self, node: Node, inputs: list[Constant | None]) -> bool:
        """Whether a node of constants is computed now: not if it is a layer with parameters on fixed data."""
        domain, _, op = node.op.rpartition(".")
        if node.op in QUANTIZERS:
            return True
        if op in RANDOM or (domain and op not in KNOWN_CODES) or (self.inference.schema(node) is None and not domain):
            return False
        at = WEIGHTED.get(op)
        weight, data = (inputs[i] if i is not None and i < len(inputs) else None for i in (at, 0))
        if at is not None and weight is not None and data is not None:
            return not (bool(weight.sources) and not parameter_like(data))
        if op == "Gather" and data is not None and len(data.shape) > 1 and data.is_real:
            return not any(name.endswith("weight") for name in data.sources)
        return True

    def _known(self, node: Node, inputs: list[Constant | None]) -> Known:
        types = tuple(self.found.types.get(name) if name else None for name in node.inputs)
        arrays = tuple(None if each is None or each.elements > 1024 or each.grid is not None else each.read()
                       for each in inputs)  # fmt: skip
        return Known(types, arrays)

    def _shape(self, node: Node) -> None:
        shape = self.found.types[node.inputs[0]].shape if node.inputs[0] in self.found.types else None
        if shape is None:
            raise node.refuse(f"must read a value of known sizes, got '{node.inputs[0]}'")
        if node.op == "Size":
            array = np.asarray(int(np.prod(shape, dtype=np.int64)), np.int64)
        else:
            array = np.asarray(shape[node.attributes.get("start", 0) : node.attributes.get("end")], np.int64)
        self.found.folded[node.op] = self.found.folded.get(node.op, 0) + 1
        self._hold(_plain(node.outputs[0], array), node.outputs[0])

    def _branch(self, node: Node, condition: Constant | None) -> None:
        """Read the branch that a constant condition takes. Raises HwsimError for a computed one."""
        if condition is None:
            raise node.refuse(f"must have a condition that depends on sizes only, got '{node.inputs[0]}'")
        graph = node.attributes["then_branch" if bool(condition.read()) else "else_branch"]
        from onnx import helper, numpy_helper

        for tensor in graph.initializer:
            array = numpy_helper.to_array(tensor)
            self._hold(_plain(tensor.name, array), tensor.name)
        inner = [value.name for value in graph.output]
        joins = [helper.make_node("Identity", [name], [outer], f"{node.name}/{at}")
                 for at, (name, outer) in enumerate(zip(inner, node.outputs, strict=True)) if outer]  # fmt: skip
        self._walk([*graph.node, *joins], tuple(name for name in node.outputs if name))

    def _hold(self, constant: Constant, name: str) -> None:
        self.found.constants[name] = constant
        self.found.types[name] = Type(constant.shape, constant.dtype)

    def _scopes(self, node: Node, proto: Any) -> None:
        for entry in proto.metadata_props:
            if entry.key == SCOPES:
                try:
                    scopes = ast.literal_eval(entry.value)
                except (ValueError, SyntaxError):
                    continue
                if isinstance(scopes, list) and all(isinstance(each, str) for each in scopes):
                    self.found.scopes[node.outputs[0]] = scopes


def _captured(node: Node) -> list[str]:
    """Values of the outer graph that the branches of an If read."""
    if node.op != "If":
        return []
    found: dict[str, None] = {}
    for graph in (node.attributes["then_branch"], node.attributes["else_branch"]):
        inner = {tensor.name for tensor in graph.initializer} | {name for each in graph.node for name in each.output}
        for each in plain_nodes(graph.node):
            found.update(dict.fromkeys(name for name in (*each.inputs, *_captured(each)) if name not in inner))
        found.update(dict.fromkeys(value.name for value in graph.output if value.name not in inner))
    return [name for name in found if name]


def parameter_like(constant: Constant) -> bool:
    """Whether a constant is made of the file's parameters, not of numbers that the exporter wrote down."""
    return any(name.endswith(("weight", "bias")) for name in constant.sources)


def _initializer(each: Stored) -> Constant:
    sources = frozenset[str]() if each.dtype == np.int64 else frozenset((each.name,))
    return Constant(each.name, each.shape, each.dtype, each.read, sources, axes=tuple(range(len(each.shape))))


def _plain(name: str, array: Array) -> Constant:
    return Constant(name, array.shape, array.dtype, lambda: array, axes=tuple(range(array.ndim)))


def _number(node: Node) -> Constant:
    for key, kind in (("value", None), ("value_float", np.float32), ("value_int", np.int64),
                      ("value_floats", np.float32), ("value_ints", np.int64)):  # fmt: skip
        if key in node.attributes:
            return _plain(node.outputs[0], np.asarray(node.attributes[key], kind))
    raise node.refuse(f"must hold numbers, got {', '.join(node.attributes) or 'nothing'}")


def _numpy_type(name: str) -> Any:
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))
