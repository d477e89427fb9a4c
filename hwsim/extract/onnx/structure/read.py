"""From an ONNX file of any kind to a graph of few kinds of nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from hwsim.errors import HwsimError
from hwsim.extract.graph.nodes import Graph, Node, Value, check_parameters
from hwsim.extract.onnx import graph as onnx_graph
from hwsim.extract.onnx.constants import DEQUANTIZE, QUANTIZE
from hwsim.extract.onnx.structure import (
    attention,
    convolution,
    grids,
    integer,
    microsoft,
    movement,
    norms,
    pointwise,
    products,
    qonnx,
    recurrent,
)
from hwsim.extract.onnx.structure.accounts import held_parameters
from hwsim.extract.onnx.structure.draft import Draft
from hwsim.extract.onnx.structure.names import layers
from hwsim.extract.onnx.structure.patterns import find_patterns
from hwsim.extract.onnx.structure.resolve import Resolver
from hwsim.extract.onnx.structure.stored import open_model

VALUES = "it selects by values that are computed"
MS = "com.microsoft"
HANDLERS: dict[str, Callable[[Draft, onnx_graph.Node], None]] = {
    **dict.fromkeys(QUANTIZE, grids.quantize_linear),
    **dict.fromkeys(DEQUANTIZE, grids.dequantize_linear),
    **dict.fromkeys(qonnx.QUANTIZERS, grids.qonnx_quant),
    **dict.fromkeys((f"{domain}.Trunc" for domain in qonnx.DOMAINS), grids.trunc),
    **dict.fromkeys((f"{domain}.QuantLSTMCell" for domain in qonnx.DOMAINS), microsoft.quant_lstm_cell),
    "DynamicQuantizeLinear": grids.dynamic_quantize,
    **dict.fromkeys(("MatMul", f"{MS}.FusedMatMul"), products.matmul),
    "Gemm": products.gemm,
    "Einsum": products.einsum,
    "Conv": convolution.conv,
    "LSTM": recurrent.lstm,
    "GRU": recurrent.gru,
    **dict.fromkeys(("LayerNormalization", "RMSNormalization", f"{MS}.SimplifiedLayerNormalization"), norms.layer_norm),
    **dict.fromkeys((f"{MS}.SkipLayerNormalization", f"{MS}.SkipSimplifiedLayerNormalization"), norms.skip_norm),
    "BatchNormalization": norms.batch_norm,
    "InstanceNormalization": norms.instance_norm,
    "GroupNormalization": norms.group_norm,
    **dict.fromkeys(("Softmax", "LogSoftmax"), pointwise.softmax),
    **dict.fromkeys(pointwise.FUNCTION_OF, pointwise.elementwise),
    "Pow": pointwise.power,
    **dict.fromkeys(pointwise.REDUCTION_OF, pointwise.reduce),
    **dict.fromkeys(("MaxPool", "AveragePool"), pointwise.pool),
    "Attention": attention.attention,
    f"{MS}.MultiHeadAttention": attention.multi_head,
    **dict.fromkeys((f"{MS}.Attention", f"{MS}.QAttention"), attention.packed_attention),
    **dict.fromkeys(("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split", "Concat", "Expand",
                     "Tile", "Pad", "Identity", "Dropout", "Cast", "CastLike", "Trilu", "DepthToSpace", "SpaceToDepth",
                     "ReverseSequence"), movement.view),
    **dict.fromkeys(("GatherElements", "GatherND", "ScatterElements", "ScatterND"), movement.noted_view(VALUES)),
    "Gather": movement.gather,
    "Resize": movement.resize,
    "QLinearMatMul": integer.qlinear_matmul,
    "QLinearConv": integer.qlinear_conv,
    "MatMulInteger": integer.matmul_integer,
    "ConvInteger": integer.conv_integer,
    f"{MS}.QGemm": integer.qgemm,
    f"{MS}.QLinearAdd": integer.qlinear_pointwise("add", ((0, 1, 2), (3, 4, 5)), (6, 7)),
    f"{MS}.QLinearMul": integer.qlinear_pointwise("multiply", ((0, 1, 2), (3, 4, 5)), (6, 7)),
    f"{MS}.QLinearSigmoid": integer.qlinear_pointwise("sigmoid", ((0, 1, 2),), (3, 4)),
    f"{MS}.QLinearLeakyRelu": integer.qlinear_pointwise("relu", ((0, 1, 2),), (3, 4)),
    f"{MS}.QLinearSoftmax": integer.qlinear_pointwise("softmax", ((0, 1, 2),), (3, 4)),
    f"{MS}.QLinearGlobalAveragePool": integer.qlinear_pointwise("mean", ((0, 1, 2),), (3, 4)),
    f"{MS}.QLinearConcat": integer.qlinear_concat,
    f"{MS}.DynamicQuantizeMatMul": microsoft.dynamic_product,
    f"{MS}.MatMulIntegerToFloat": microsoft.product_to_float,
    f"{MS}.DynamicQuantizeLSTM": microsoft.dynamic_lstm,
    f"{MS}.MatMulNBits": microsoft.packed_product,
    f"{MS}.GatherBlockQuantized": microsoft.packed_gather,
}  # fmt: skip
"""How each operator is read, by its domain and name."""
SHOWN = 3


def read_structure(path: str | Path, bind: Mapping[str, int] | None = None, name: str | None = None, *,
                   allow_float: bool = False) -> Graph:  # fmt: skip
    """Read an ONNX model, float or quantized, as a graph of fixed sizes with the file's own formats.

    `bind`: sizes of symbolic dimensions by name. `name`: of the graph, else the file's. `allow_float`: take products
    with float weights in a quantized model, with a note. Weights stay in the file until their `load` is called.
    Raises HwsimError, naming the node, for operators that are not read, sizes that stay symbolic or depend on values,
    lengths that the export froze, products left in floats, parameters that are not accounted for, and for files that
    `load_model` refuses.
    """
    path, bound = Path(path), dict(bind or {})
    model, stored = open_model(path)
    try:
        resolved, unknown = Resolver(path, model, stored, bound, HANDLERS.__contains__).run()
        _check_operators(unknown)
        draft = Draft(resolved)
        draft.spent |= resolved.spent
        _write(draft)
        grids.check_floats(draft, allow_float)
        held = held_parameters(draft)
        found = _finished(draft, name or path.stem)
        check_parameters(found, held)
    except HwsimError as error:
        text = str(error)
        raise error if text.startswith(str(path)) else HwsimError(f"{path}: {text}") from None
    return found


def _write(draft: Draft) -> None:
    find_patterns(draft)
    integer.find_tails(draft)
    for node in draft.resolved.nodes:
        key = node.outputs[0] or next(name for name in node.outputs if name)
        if key in draft.patterns:
            draft.patterns[key]()
        elif key not in draft.absorbed:
            HANDLERS[node.op](draft, node)


def _finished(draft: Draft, name: str) -> Graph:
    resolved = draft.resolved
    notes = [
        *draft.notes,
        *_shared(draft),
        *(f"folded {count} {op} of constants" for op, count in resolved.folded.items()),
    ]
    outputs = []
    for output in resolved.outputs:
        if output in draft.refs:
            outputs.append(draft.refs[output].value)
        else:
            notes.append(f"the output '{output}' is a constant at these sizes")
    unread = sorted(set(resolved.stored) - resolved.read)
    if unread:
        more = f" and {len(unread) - SHOWN} more" if len(unread) > SHOWN else ""
        notes.append(f"no node reads {', '.join(unread[:SHOWN])}{more}")
    if not outputs:
        raise HwsimError("a network must compute something from its inputs, got constants only")
    named = layers(draft.emitted, resolved.scopes)
    nodes = tuple(
        Node(each.kind, layer, each.inputs, each.outputs, each.weights, each.attributes, each.input_format)
        for each, layer in zip(draft.emitted, named, strict=True)
    )
    return Graph(name, _used(draft), nodes, draft.weights, resolved.inputs, tuple(outputs), draft.folded, tuple(notes))


def _shared(draft: Draft) -> list[str]:
    """What is said of weights that several nodes hold."""
    found = []
    for name, holders in draft.holders.items():
        if len(holders) > 1:
            more = f" and {len(holders) - SHOWN} more" if len(holders) > SHOWN else ""
            found.append(f"weight '{name}' is shared by {len(holders)} nodes: {', '.join(holders[:SHOWN])}{more}")
    return found


def _used(draft: Draft) -> dict[str, Value]:
    """Values that nodes read or write, and the inputs."""
    names = {name for each in draft.emitted for name in (*each.inputs, *each.outputs) if name}
    return {name: value for name, value in draft.values.items() if name in names or name in draft.resolved.inputs}


def _check_operators(unknown: list[onnx_graph.Node]) -> None:
    """Raises HwsimError for nodes of operators that are not read."""
    if not unknown:
        return
    counts = Counter(node.op for node in unknown)
    first = {node.op: node.name for node in reversed(unknown)}
    shown = [f"{op} ({count} node{'s' * (count > 1)}, first '{first[op]}')" for op, count in counts.most_common(SHOWN)]
    more = f" and {len(counts) - SHOWN} more" if len(counts) > SHOWN else ""
    raise HwsimError(f"operators must be ones that are read, got {', '.join(shown)}{more}")
