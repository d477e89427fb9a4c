"""From an ONNX file to a trace, its codes and its grids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.extract.onnx import convolution, grids, linear, movement, pointwise, recurrent
from hwsim.extract.onnx.constants import DEQUANTIZE, FOLDED, QUANTIZE, Constants
from hwsim.extract.onnx.draft import Draft
from hwsim.extract.onnx.files import load_model
from hwsim.extract.onnx.graph import Graph, Node, read_graph
from hwsim.extract.onnx.inputs import declare_inputs
from hwsim.extract.onnx.layout import View
from hwsim.numerics.quantizers import Quantizer
from hwsim.trace import Function, Role, Trace, TraceBuilder

Array = npt.NDArray[Any]

HANDLERS: dict[str, Callable[[Draft, Node], None]] = {
    **dict.fromkeys(QUANTIZE, grids.quantize_linear),
    **dict.fromkeys(DEQUANTIZE, grids.dequantize_linear),
    "DynamicQuantizeLinear": grids.dynamic_quantize,
    "MatMul": linear.matmul,
    "Gemm": linear.gemm,
    "QLinearMatMul": linear.qlinear_matmul,
    "com.microsoft.QGemm": linear.qgemm,
    "MatMulInteger": linear.matmul_integer,
    "Conv": convolution.conv,
    "QLinearConv": convolution.qlinear_conv,
    "ConvInteger": convolution.conv_integer,
    "LSTM": recurrent.lstm,
    "GRU": recurrent.gru,
    "Add": pointwise.binary(Function.ADD),
    "Mul": pointwise.binary(Function.MULTIPLY),
    "Relu": pointwise.unary(Function.RELU),
    "Sigmoid": pointwise.unary(Function.SIGMOID),
    "Tanh": pointwise.unary(Function.TANH),
    "com.microsoft.QLinearAdd": pointwise.qlinear_binary(Function.ADD),
    "com.microsoft.QLinearMul": pointwise.qlinear_binary(Function.MULTIPLY),
    "com.microsoft.QLinearSigmoid": pointwise.qlinear_sigmoid,
    "Softmax": pointwise.softmax(Function.PROBABILITIES),
    "LogSoftmax": pointwise.softmax(Function.NONE),
    "LayerNormalization": pointwise.layer_norm,
    "Gather": pointwise.gather,
    "Identity": movement.identity,
    "Dropout": movement.identity,
    "Cast": movement.cast,
    "Transpose": movement.transpose,
    "Reshape": movement.reshape,
    "Squeeze": movement.squeeze,
    "Unsqueeze": movement.unsqueeze,
    "Flatten": movement.flatten,
    "Concat": movement.concat,
    "Shape": movement.shape,
}
"""How each operator is read, by its domain and name."""
SHOWN = 3


@dataclass(frozen=True, slots=True, eq=False)
class ImportedNetwork:
    """A network of an ONNX file: what an `Executable` is made of, and where its tensors are seen in the file.

    `codes`, `quantizers`: by tensor name, as `Executable` takes them. `profile`: the semantics by which a runtime
    computes it, `onnx` when it has QLinear operators, else `training`: reals between grids. `gate_order`: of its
    LSTMs, `iofg`, for the executor's rules. `inputs`: tensor by name of a graph input. `outputs`: by tensor that an
    operation writes, the value of the file that shows it: codes if the tensor has a grid. `views`, `input_views`: how
    they lie there, for `readings` and `feeds`. `notes`: what was folded or assumed, in sentences.
    """

    trace: Trace
    codes: Mapping[str, Array]
    quantizers: Mapping[str, Quantizer]
    profile: str
    gate_order: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    views: Mapping[str, View]
    input_views: Mapping[str, View]
    input_types: Mapping[str, str]
    notes: tuple[str, ...]

    def feeds(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """What a runtime is given for arrays by tensor name: of the file's shapes and types.

        Codes become reals where the file takes reals, and reals codes where it takes codes.
        """
        found = {}
        for name, tensor in self.inputs.items():
            if tensor not in arrays:
                raise HwsimError(f"inputs must hold {', '.join(self.inputs.values())}, got no {tensor}")
            array, grid, kind = (
                np.asarray(arrays[tensor]),
                self.quantizers.get(tensor),
                np.dtype(self.input_types[name]),
            )
            if grid is not None and (array.dtype.kind in "iu") != (kind.kind in "iu"):
                array = grid.dequantize(array) if array.dtype.kind in "iu" else grid.quantize(array)
            found[name] = self.input_views[name].give(array).astype(kind)
        return found

    def readings(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """Tensors of the trace out of the file's values by name, those that are there."""
        return {tensor: self.views[tensor].take(np.asarray(values[name]))
                for tensor, name in self.outputs.items() if name in values}  # fmt: skip


def read_onnx(path: str | Path, bind: Mapping[str, int] | None = None) -> ImportedNetwork:
    """Read a quantized ONNX model of batch one as a trace with its codes and grids.

    `bind`: sizes of symbolic dimensions by name. Layers are named after nodes, `/encoder/0/MatMul` becomes
    `encoder.0.MatMul`; tensors `<layer>.<part>`, inputs `input.<name>`. Weights are (K, N), output channel last.
    Raises HwsimError, naming the node, for operators that are not read, products of two activations, grids that are
    computed when the network runs, batches above one, sizes that stay symbolic, and for files `load_model` refuses.
    """
    path = Path(path)
    graph = read_graph(path, load_model(path), dict(bind or {}))
    try:
        return _read(graph, dict(bind or {}))
    except HwsimError as error:
        text = str(error)
        raise error if text.startswith(str(path)) else HwsimError(f"{path}: {text}") from None


def _read(graph: Graph, bind: dict[str, int]) -> ImportedNetwork:
    constants = Constants(graph)
    exact_sums = any(_is_qlinear(node) for node in graph.nodes)
    draft = Draft(
        TraceBuilder(graph.path.stem, {"source": graph.path.name, "bind": bind}), graph, constants, exact_sums
    )
    for node in graph.nodes:
        constants.find(node.outputs[0])
    todo = [node for node in graph.nodes if constants.find(node.outputs[0]) is None]
    _check_operators(todo, {*HANDLERS, *FOLDED})
    inputs = declare_inputs(draft)
    for node in todo:
        if node.layer not in draft.absorbed and constants.find(node.outputs[0]) is None:
            _check_operators([other for other in todo if other.op == node.op], HANDLERS)
            HANDLERS[node.op](draft, node)
    for op, count in constants.folded.items():
        draft.note(f"folded {count} {op} of constants")
    trace = _formatted(draft)
    written = {trace.tensors[at].name for at in trace.operand_tensor[trace.operand_write == 1]}
    outputs = {name: view.value for name, view in draft.views.items() if name in written}
    return ImportedNetwork(
        trace, draft.codes, draft.quantizers, "onnx" if exact_sums else "training", draft.gate_order or "ifgo", inputs,
        outputs, draft.views, draft.entries, {name: graph.inputs[name].dtype for name in inputs}, tuple(draft.notes),
    )  # fmt: skip


def _is_qlinear(node: Node) -> bool:
    return node.op.rpartition(".")[2].startswith(("QLinear", "QGemm"))


def _check_operators(nodes: list[Node], known: Collection[str]) -> None:
    """Raises HwsimError for nodes of other operators; what is folded is known only when sizes are."""
    unknown = Counter(node.op for node in nodes if node.op not in known)
    if not unknown:
        return
    first = {node.op: node.name for node in reversed(nodes)}
    shown = [f"{op} ({count} node{'s' * (count > 1)}, first '{first[op]}')" for op, count in unknown.most_common(SHOWN)]
    more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
    raise HwsimError(f"operators must be ones that are read, got {', '.join(shown)}{more}")


def _formatted(draft: Draft) -> Trace:
    """The trace, with the number formats that the file has."""
    trace = draft.builder.build()
    tensors = []
    for tensor in trace.tensors:
        grid = draft.quantizers.get(tensor.name)
        text = draft.formats.get(tensor.name, "fp32")
        if grid is not None and tensor.role == Role.ACTIVATION:
            text = f"int{grid.bits}{'/zp' if grid.zero_point.any() else ''}"
        tensors.append(replace(tensor, format=text))
    formats = tuple(draft.input_formats.get(layer, "fp32") for layer in trace.layers)
    return replace(trace, tensors=tuple(tensors), input_formats=formats)
