"""Every node case on quantization and recurrence in the onnx wheel, by our operations. Needs onnx, an extra."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hwsim.execute.reference.linear import integer_sums, linear
from hwsim.execute.reference.recurrent import (
    FloatProjection,
    GruLayer,
    LstmLayer,
    Pointwise,
    RnnLayer,
    run_layer,
)
from hwsim.execute.semantics import PROFILES
from hwsim.numerics.calibration import MinMax
from hwsim.numerics.minifloat import E2M1, E4M3, E5M2, MiniFloat
from hwsim.numerics.quantizers import Quantizer
from hwsim.numerics.tables import sigmoid, tanh

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, numpy_helper  # noqa: E402

NAMES = re.compile(r"quant|lstm|gru|rnn|integer|qlinear")
INTEGERS = {
    TensorProto.UINT8: (8, False), TensorProto.INT8: (8, True), TensorProto.UINT16: (16, False),
    TensorProto.INT16: (16, True), TensorProto.INT4: (4, True), TensorProto.UINT4: (4, False),
    TensorProto.INT2: (2, True), TensorProto.UINT2: (2, False),
}  # fmt: skip
FLOATS = {TensorProto.FLOAT8E4M3FN: E4M3, TensorProto.FLOAT8E5M2: E5M2, TensorProto.FLOAT4E2M1: E2M1}


def collect() -> dict[str, Any]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {case.name: case for case in collect_testcases(None) if NAMES.search(case.name)}


CASES = collect()


def kind_of(value: Any) -> int:
    if isinstance(value, TensorProto):
        return value.data_type
    return onnx.helper.np_dtype_to_tensor_dtype(np.asarray(value).dtype)


def array(value: Any) -> np.ndarray:
    """Integers as int64, floats as they are; small floats as their values."""
    result = numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)
    if kind_of(value) in INTEGERS or result.dtype.kind in "iu":
        return result.astype(np.int64)
    return result.astype(np.float32) if kind_of(value) in FLOATS else result


def along_axis(parameter: np.ndarray, x: np.ndarray, attributes: dict[str, Any]) -> tuple[np.ndarray, int]:
    """A scale or zero point, of the shape that broadcasts against x moved axis first, and its group size."""
    axis, block = attributes.get("axis", 1), attributes.get("block_size", 0)
    if block:
        return np.moveaxis(parameter, axis, 0), block
    if parameter.size == 1:
        return parameter.reshape(()), 0
    return parameter.reshape(-1, *[1] * (x.ndim - 1)), 0


def quantizer_of(kind: int, scale: Any, zero: Any, x: np.ndarray, attributes: dict[str, Any]) -> Quantizer:
    bits, signed = INTEGERS[kind]
    spread, group = along_axis(np.asarray(scale), x, attributes)
    zeros = 0 if zero is None else along_axis(array(zero), x, attributes)[0]
    return Quantizer(spread, bits, np.asarray(zeros), signed, precision="float32", group_size=group)


def quantize_linear(attributes: dict[str, Any], x: Any, scale: Any, zero: Any = None) -> list[np.ndarray]:
    kind = kind_of(zero) if zero is not None else attributes.get("output_dtype", TensorProto.UINT8)
    axis = attributes.get("axis", 1) if np.asarray(scale).ndim else 0
    moved = np.moveaxis(x, axis, 0)
    if kind in FLOATS:
        spread = along_axis(np.asarray(scale), moved, attributes)[0]
        small: MiniFloat = FLOATS[kind]
        return [np.moveaxis(small.decode(small.encode(moved / spread)).astype(np.float32), 0, axis)]
    return [np.moveaxis(quantizer_of(kind, scale, zero, moved, attributes).quantize(moved), 0, axis)]


def dequantize_linear(attributes: dict[str, Any], x: Any, scale: Any, zero: Any = None) -> list[np.ndarray]:
    axis = attributes.get("axis", 1) if np.asarray(scale).ndim else 0
    if kind_of(x) in FLOATS:
        small = FLOATS[kind_of(x)]
        codes = small.encode(array(x))
        return [(small.decode(codes) * np.asarray(scale)).astype(np.asarray(scale).dtype)]
    moved = np.moveaxis(array(x), axis, 0)
    return [np.moveaxis(quantizer_of(kind_of(x), scale, zero, moved, attributes).dequantize(moved), 0, axis)]


def dynamic_quantize_linear(attributes: dict[str, Any], x: Any) -> list[np.ndarray]:
    quantizer = MinMax(8, symmetric=False, signed=False, precision="float32").calibrate(x)
    return [quantizer.quantize(x), quantizer.scale, quantizer.zero_point]


def tensor_quantizer(codes: Any, scale: Any = 1.0, zero: Any = 0) -> Quantizer:
    bits, signed = INTEGERS[kind_of(codes)]
    squeeze = np.asarray(scale, np.float32).reshape(-1)
    zeros = np.broadcast_to(array(zero).reshape(-1), squeeze.shape)
    shape = () if squeeze.size == 1 else squeeze.shape
    return Quantizer(squeeze.reshape(shape), bits, zeros.reshape(shape), signed, precision="float32")


def matmul_integer(attributes: dict[str, Any], a: Any, b: Any, a_zero: Any = 0, b_zero: Any = 0) -> list[np.ndarray]:
    return [integer_sums(a, b, tensor_quantizer(a, 1, a_zero), tensor_quantizer(b, 1, b_zero))[0]]


def qlinear_matmul(attributes: dict[str, Any], a: Any, a_scale: Any, a_zero: Any, b: Any, b_scale: Any, b_zero: Any,
                   y_scale: Any, y_zero: Any) -> list[np.ndarray]:  # fmt: skip
    parts = (tensor_quantizer(a, a_scale, a_zero), tensor_quantizer(b, b_scale, b_zero),
             tensor_quantizer(y_zero, y_scale, y_zero))  # fmt: skip
    if a.ndim == 2:
        return [linear(a, b, *parts, semantics=PROFILES["onnx"])]
    return [np.stack([linear(x, w, *parts, semantics=PROFILES["onnx"]) for x, w in zip(a, b, strict=True)])]


def windows(x: np.ndarray, kernel: tuple[int, int], pads: list[int], fill: int) -> np.ndarray:
    """(N, C, H, W) as rows of a product: (N, rows, columns, C kh kw)."""
    top, left, bottom, right = pads
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=(2, 3))
    return view.transpose(0, 2, 3, 1, 4, 5).reshape(*view.shape[:1], *view.shape[2:4], -1)


def convolution(attributes: dict[str, Any], x: Any, w: Any, zero: Any) -> tuple[np.ndarray, np.ndarray]:
    rows = windows(x, w.shape[2:], attributes.get("pads", [0, 0, 0, 0]), int(array(zero).reshape(())))
    return rows, w.reshape(w.shape[0], -1).T


def conv_integer(attributes: dict[str, Any], x: Any, w: Any, x_zero: Any = 0, w_zero: Any = 0) -> list[np.ndarray]:
    rows, matrix = convolution(attributes, x, w, x_zero)
    zeros = array(w_zero).reshape(-1)
    weights = tensor_quantizer(w, np.ones(zeros.size), zeros)
    return [np.moveaxis(integer_sums(rows, matrix, tensor_quantizer(x, 1, x_zero), weights)[0], -1, 1)]


def qlinear_conv(attributes: dict[str, Any], x: Any, x_scale: Any, x_zero: Any, w: Any, w_scale: Any, w_zero: Any,
                 y_scale: Any, y_zero: Any) -> list[np.ndarray]:  # fmt: skip
    rows, matrix = convolution(attributes, x, w, x_zero)
    parts = (tensor_quantizer(x, x_scale, x_zero), tensor_quantizer(w, w_scale, w_zero),
             tensor_quantizer(y_zero, y_scale, y_zero))  # fmt: skip
    return [np.moveaxis(linear(rows, matrix, *parts, semantics=PROFILES["onnx"]), -1, 1)]


def recurrent_layer(operator: str, attributes: dict[str, Any], w: Any, r: Any, b: Any, p: Any) -> Any:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[operator]
    bias_w, bias_r = (None, None) if b is None else np.split(b, 2)
    functions = Pointwise(sigmoid, tanh)
    projections = FloatProjection(w.T, bias_w), FloatProjection(r.T, bias_r)
    if operator == "LSTM":
        return LstmLayer(*projections, functions, "iofg", None if p is None else p.reshape(3, -1))
    if operator == "RNN":
        return RnnLayer(*projections, functions)
    if attributes.get("linear_before_reset", 0):
        return GruLayer(*projections, functions, "zrn")
    keep = 2 * (r.shape[0] // gates)
    zr = FloatProjection(r[:keep].T, None if bias_r is None else bias_r[:keep])
    n = FloatProjection(r[keep:].T, None if bias_r is None else bias_r[keep:])
    return GruLayer(projections[0], zr, functions, "zrn", n)


def recurrence(operator: str) -> Callable[..., list[np.ndarray]]:
    def run(attributes: dict[str, Any], x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, *states: Any,
            ) -> list[np.ndarray]:  # fmt: skip
        batch_first = attributes.get("layout", 0)
        x = x.swapaxes(0, 1) if batch_first else x
        assert lengths is None or (lengths == len(x)).all()
        peephole = states[2] if len(states) > 2 else None
        outputs, last = [], []
        for d in range(len(w)):
            parts = (a if a is None else a[d] for a in (w, r, b, peephole))
            layer = recurrent_layer(operator, attributes, *parts)
            reverse = d == 1 or attributes.get("direction", b"") == b"reverse"
            start = tuple(state[d].astype(np.float64) for state in states[:2]) or None
            y, final = run_layer(layer, x, start, reverse)
            outputs.append(y)
            last.append(final)
        y = np.stack(outputs, axis=1)
        finals = [np.stack(parts) for parts in zip(*last, strict=True)]
        if batch_first:
            return [y.transpose(2, 0, 1, 3), *(final.swapaxes(0, 1) for final in finals)]
        return [y, *finals]

    return run


OPERATORS: dict[str, Callable[..., list[np.ndarray]]] = {
    "QuantizeLinear": quantize_linear, "DequantizeLinear": dequantize_linear,
    "DynamicQuantizeLinear": dynamic_quantize_linear, "MatMulInteger": matmul_integer,
    "QLinearMatMul": qlinear_matmul, "ConvInteger": conv_integer, "QLinearConv": qlinear_conv,
    "LSTM": recurrence("LSTM"), "GRU": recurrence("GRU"), "RNN": recurrence("RNN"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_node_case(name: str) -> None:
    """Integers are equal; float results of recurrence are within the case's own tolerance (float32 against float64)."""
    case = CASES[name]
    node = case.model.graph.node[0]
    operator = "DynamicQuantizeLinear" if "dynamicquantize" in name else node.op_type
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    for inputs, expected in case.data_sets:
        results = OPERATORS[operator](attributes, *inputs)
        recurrent = operator in ("LSTM", "GRU", "RNN")
        kept = [y for y, output in zip(results, node.output, strict=False) if output] if recurrent else results
        for ours, theirs in zip(kept, expected, strict=True):
            wanted = array(theirs)
            assert np.shape(ours) == wanted.shape
            if recurrent:
                np.testing.assert_allclose(ours, wanted, rtol=case.rtol, atol=case.atol)
            else:
                np.testing.assert_array_equal(ours, wanted)


def test_all_cases_are_covered() -> None:
    assert len(CASES) >= 62
