"""Small ONNX models, made by hand, and what onnxruntime computes of every value in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hwsim.execute.executor import Executable
from hwsim.execute.recurrence import LstmRules
from hwsim.execute.semantics import profile
from hwsim.extract.onnx import ImportedNetwork, with_all_outputs

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

Array = NDArray[Any]
FLOAT, UINT8, INT8, INT64 = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT8, TensorProto.INT64
F32, U8, I8 = np.float32, np.uint8, np.int8


class Model:
    """A graph that grows: `add` a node, `constant` an initializer."""

    def __init__(self, inputs: Mapping[str, tuple[int, Sequence[int | str]]], opset: int = 21) -> None:
        self.inputs = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.opset = opset

    def constant(self, name: str, array: Any, kind: int | None = None) -> str:
        """An initializer; `kind` for the types that NumPy has not."""
        values = np.asarray(array)
        narrow = helper.make_tensor(name, kind, values.shape, values.reshape(-1).tolist()) if kind else None
        self.constants.append(narrow or numpy_helper.from_array(values, name))
        return name

    def add(self, op: str, inputs: Sequence[str], name: str = "", *, outputs: Sequence[str] = (), **more: Any) -> str:
        """A node; its output is named after it."""
        name = name or f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), list(outputs) or [f"{name}:0"], name, **more))
        return str(self.nodes[-1].output[0])

    def grid(self, name: str, scale: Any, zero: Any, kind: int | None = None) -> list[str]:
        """Names of a scale and a zero point."""
        return [self.constant(f"{name}_scale", F32(scale)), self.constant(f"{name}_zero", zero, kind)]

    def pair(self, x: str, name: str, scale: float, zero: Any) -> str:
        """QuantizeLinear and DequantizeLinear."""
        grid = self.grid(name, scale, zero)
        return self.add("DequantizeLinear", [self.add("QuantizeLinear", [x, *grid], f"{name}/q"), *grid], f"{name}/dq")

    def proto(self, outputs: Iterable[str]) -> Any:
        """The model with these values as outputs."""
        shown = [onnx.ValueInfoProto(name=name) for name in outputs]
        graph = helper.make_graph(self.nodes, "g", self.inputs, shown, self.constants)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return typed(helper.make_model(graph, opset_imports=opsets, ir_version=12 if self.opset > 23 else 10))

    def save(self, folder: Path, *outputs: str, name: str = "model.onnx") -> Path:
        """The file of the model with these values as outputs."""
        path = folder / name
        path.write_bytes(self.proto(outputs).SerializeToString())
        return path


def typed(model: Any) -> Any:
    """A type for each output, which ONNX's checker wants: inferred, else codes of the first input's rank."""
    inferred = onnx.shape_inference.infer_shapes(model)
    known = {value.name: value for value in (*inferred.graph.value_info, *inferred.graph.output)}
    for output in model.graph.output:
        found = known.get(output.name)
        if found is not None and found.type.tensor_type.elem_type:
            output.CopyFrom(found)
        else:
            rank = len(model.graph.input[0].type.tensor_type.shape.dim)
            output.CopyFrom(helper.make_tensor_value_info(output.name, UINT8, [None] * rank))
    return model


def computed(path: Path, network: ImportedNetwork, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Every tensor of the trace as onnxruntime computes it, unoptimised."""
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    names = list(dict.fromkeys(network.outputs.values()))
    session = runtime.InferenceSession(with_all_outputs(path, names), options, providers=["CPUExecutionProvider"])
    return network.readings(dict(zip(names, session.run(names, network.feeds(inputs)), strict=True)))


def executed(network: ImportedNetwork, inputs: Mapping[str, Array], forced: Any = None) -> dict[str, Array]:
    """Every tensor of the trace as the executor computes it."""
    rules = LstmRules(gate_order=network.gate_order)
    executable = Executable(
        network.trace, network.codes, network.quantizers, rules=rules, semantics=profile(network.profile)
    )
    return executable.run(inputs, forced)
