"""Products in onnxruntime with its optimisations off: QLinearMatMul, QLinearConv with a bias, MatMulInteger."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwsim.errors import HwsimError
from hwsim.execute.operations.attention import Context, Scores
from hwsim.execute.operations.base import Operation, Run
from hwsim.execute.operations.convolution import Depthwise
from hwsim.execute.projection import storage
from hwsim.execute.reference.attention import score_scale
from hwsim.execute.reference.linear import bias_codes
from hwsim.execute.semantics import PROFILES
from hwsim.numerics.quantizers import Quantizer
from hwsim.numerics.rounding import Integers
from hwsim.validate.oracles.base import Array, fitting_profile
from hwsim.validate.oracles.products import ProductOracle, RuntimeParameters, RuntimeProjection, fits_bytes, signed

OPSET, IR_VERSION = 21, 10
MATMUL_ORDER = ("x", "x_scale", "x_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero")


class OnnxRuntime(ProductOracle):
    """Every product as a model of one node. Raises HwsimError for another profile than onnx, and without packages."""

    name = "onnxruntime"

    def __init__(self, profile: str | None = None) -> None:
        super().__init__()
        self.profile = fitting_profile(self.name, profile, {"onnx": PROFILES["onnx"]})
        self.version = import_runtime().__version__
        self.text = f"onnxruntime {self.version}, optimisation off: one node for each product"
        self._sessions: dict[tuple[Any, ...], Any] = {}

    def codes(self, product: RuntimeProjection, x: Array, output: Quantizer) -> Integers | None:
        """QLinearMatMul; with a bias QLinearConv of kernel 1, because QLinearMatMul has none."""
        reason = self._unfit(product) or _unfit_output(product, output)
        if reason:
            self.why[reason] = None
            return None
        biased = bool(product.bias.any())
        rows, _ = signed(x, product.input)
        key = (product.name, "codes", float(output.scale.reshape(())), output.code_range, int(output.zero_point))
        if key not in self._sessions:
            self._sessions[key] = session(_convolution(product, output) if biased else _matmul(product, output))
        self.used["QLinearConv" if biased else "QLinearMatMul"] = None
        found = self._run(key, rows.T[None, :, :, None] if biased else rows)
        codes: Integers = (found[0, :, :, 0].T if biased else found).astype(np.int64)
        return codes + (0 if output.code_range[0] < 0 else 128)

    def sums(self, product: RuntimeProjection, x: Array) -> Integers | None:
        """MatMulInteger of each group of K."""
        reason = self._unfit(product)
        if reason:
            self.why[reason] = None
            return None
        rows, zero = signed(x, product.input)
        size = rows.shape[1] // product.groups
        parts = []
        for group in range(product.groups):
            part = slice(group * size, (group + 1) * size)
            key = (product.name, "sums", group)
            if key not in self._sessions:
                self._sessions[key] = session(_integer(product, part, group, zero))
            parts.append(self._run(key, np.ascontiguousarray(rows[:, part])))
        self.used["MatMulInteger sums"] = None
        return np.stack(parts)

    def run(self, operation: Operation, run: Run, parameters: RuntimeParameters) -> None:
        """Depthwise convolutions as QLinearConv, attention's products as QLinearMatMul, where the result has a grid."""
        output = run.network.grid(operation.writes[0])
        if isinstance(operation, Depthwise | Scores | Context) and operation.grids is not None and output is not None:
            if isinstance(operation, Depthwise):
                found = self._depthwise(operation, run, output)
            else:
                found = self._attention(operation, run, output)
            if found is not None:
                steps = self._steps(operation, run)
                codes = np.clip(found, *output.code_range).astype(storage(output))
                run.keep(operation.writes[0], codes, steps)
                return
        operation.run(run)

    def _steps(self, operation: Operation, run: Run) -> Any:
        """The reals before rounding, by the readable reference, for distances to a tie."""
        name = operation.writes[0]
        operation.run(run)
        grid = run.network.grid(name)
        if run.steps is None or grid is None or name not in run.steps:
            return None
        return (run.steps[name] - grid.zero_point) * grid.scale

    def _depthwise(self, operation: Depthwise, run: Run, output: Quantizer) -> Integers | None:
        """x as (1, C, T, 1), a kernel (C, 1, K, 1), C groups."""
        assert operation.grids is not None
        input, weights = operation.grids
        if not fits_bytes(input) or not fits_bytes(output) or weights.code_range[1] > 127:
            self.why[f"{operation.layer}: grids of more than 8 bits have no convolution there"] = None
            return None
        x, zero = signed(run.codes(operation.reads[0], input), input)
        kernel = operation.kernel.astype(np.int8).T[:, None, :, None]
        shift = 0 if output.code_range[0] < 0 else 128
        scale = weights.scale.astype(np.float32).reshape(-1)
        bias = bias_codes(operation.offsets, operation.scale[0]).astype(np.int32)
        parts: dict[str, Array] = {
            "x_scale": input.scale.astype(np.float32).reshape(()), "x_zero": np.asarray(zero, np.int8),
            "w": np.ascontiguousarray(kernel), "w_scale": scale if scale.size > 1 else scale.reshape(()),
            "w_zero": np.zeros(scale.shape if scale.size > 1 else (), np.int8),
            "y_scale": output.scale.astype(np.float32).reshape(()),
            "y_zero": np.asarray(int(output.zero_point.reshape(())) - shift, np.int8), "b": bias,
        }  # fmt: skip
        before, after = operation.padding
        model = _model("QLinearConv", (*MATMUL_ORDER, "b"), parts, np.int8, (1, x.shape[1], len(x), 1),
                       group=x.shape[1], pads=[before, 0, after, 0], strides=[operation.stride, 1])  # fmt: skip
        self.used["QLinearConv"] = None
        (found,) = session(model).run(None, {"x": np.ascontiguousarray(x.T[None, :, :, None])})
        codes: Integers = found[0, :, :, 0].T.astype(np.int64) + shift
        return codes

    def _attention(self, operation: Scores | Context, run: Run, output: Quantizer) -> Integers | None:
        """One multiplier, as the profile has it: the scale of a, with scales of one for b and y."""
        assert operation.grids is not None
        if not all(map(fits_bytes, (*operation.grids, output))):
            self.why[f"{operation.layer}: grids of more than 8 bits have no product there"] = None
            return None
        values = [run.codes(name, grid) for name, grid in zip(operation.reads, operation.grids, strict=True)]
        first, second = operation.grids
        heads = operation.heads
        if isinstance(operation, Scores):
            values, scale = [_heads(v, heads) for v in values], score_scale(first, second, operation.depth)
            values[1] = values[1].swapaxes(1, 2)
        else:
            values[1], scale = (
                _heads(values[1], heads),
                float(first.scale.reshape(())) * float(second.scale.reshape(())),
            )
        (a, zero_a), (b, zero_b) = (signed(v, grid) for v, grid in zip(values, operation.grids, strict=True))
        shift, one = 0 if output.code_range[0] < 0 else 128, np.asarray(1, np.float32)
        parts: dict[str, Array] = {
            "x_scale": np.asarray(scale / float(output.scale.reshape(())), np.float32), "w_scale": one, "y_scale": one,
            "x_zero": np.asarray(zero_a, np.int8), "w": np.ascontiguousarray(b), "w_zero": np.asarray(zero_b, np.int8),
            "y_zero": np.asarray(int(output.zero_point.reshape(())) - shift, np.int8),
        }  # fmt: skip
        self.used["QLinearMatMul"] = None
        (found,) = session(_model("QLinearMatMul", MATMUL_ORDER, parts, np.int8, a.shape)).run(
            None, {"x": np.ascontiguousarray(a)}
        )
        codes: Integers = found.astype(np.int64) + shift
        return codes if isinstance(operation, Scores) else codes.swapaxes(0, 1).reshape(codes.shape[1], -1)

    def _run(self, key: tuple[Any, ...], x: Array) -> Any:
        (found,) = self._sessions[key].run(None, {"x": x})
        return found

    def _unfit(self, product: RuntimeProjection) -> str:
        if not fits_bytes(product.input):
            return f"{product.name}: activations of {product.input.bits} bits have no product there"
        if product.weights.code_range[1] > 127:
            return f"{product.name}: weights of {product.weights.bits} bits have no product there"
        return ""


def import_runtime() -> Any:
    """onnxruntime with onnx beside it. Raises HwsimError naming the extra."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError:
        raise HwsimError("--against onnxruntime needs onnx and onnxruntime: install hwsim[onnx]") from None
    return onnxruntime


def _heads(x: Array, heads: int) -> Array:
    """(T, H d) -> (H, T, d)."""
    return x.reshape(len(x), heads, -1).swapaxes(0, 1)


def _unfit_output(product: RuntimeProjection, output: Quantizer) -> str:
    if not fits_bytes(output):
        return f"{product.name}: an output of {output.bits} bits has no product there"
    if product.groups > 1:
        return f"{product.name}: weights with group scales have no product there"
    if product.bias.any() and product.weights.zero_point.any():
        return f"{product.name}: a bias beside zero points of weights has no product there"
    return ""


def _parts(product: RuntimeProjection, output: Quantizer) -> dict[str, Array]:
    """Scales and zero points as constants, float32 and int8."""
    weights, shift = product.weights, 0 if output.code_range[0] < 0 else 128
    assert product.codes is not None
    columns = product.codes.shape[1]
    scale = weights.scale.astype(np.float32).reshape(-1)
    zero = np.broadcast_to(weights.zero_point.reshape(-1).astype(np.int8), scale.shape)
    single = scale.size != columns or columns == 1
    return {
        "x_scale": product.input.scale.astype(np.float32).reshape(()),
        "x_zero": np.asarray(signed(np.zeros(0), product.input)[1], np.int8),
        "w_scale": scale.reshape(()) if single else scale, "w_zero": zero.reshape(()) if single else zero.copy(),
        "y_scale": output.scale.astype(np.float32).reshape(()),
        "y_zero": np.asarray(int(output.zero_point.reshape(())) - shift, np.int8),
    }  # fmt: skip


def _matmul(product: RuntimeProjection, output: Quantizer) -> Any:
    assert product.codes is not None
    parts = {**_parts(product, output), "w": product.codes.astype(np.int8)}
    return _model("QLinearMatMul", MATMUL_ORDER, parts, np.int8, ("M", product.codes.shape[0]))


def _convolution(product: RuntimeProjection, output: Quantizer) -> Any:
    """x (1, K, M, 1), weights (N, K, 1, 1): the product with an int32 bias in steps of sx sw."""
    assert product.codes is not None
    weights = np.ascontiguousarray(product.codes.T.astype(np.int8))[:, :, None, None]
    bias = bias_codes(product.bias, product.scale[0]).astype(np.int32)
    parts = {**_parts(product, output), "w": weights, "b": bias}
    return _model("QLinearConv", (*MATMUL_ORDER, "b"), parts, np.int8, (1, product.codes.shape[0], "M", 1))


def _integer(product: RuntimeProjection, part: slice, group: int, zero: int) -> Any:
    assert product.codes is not None
    weights = product.codes[part].astype(np.int8)
    zeros = product.weights.zero_point.astype(np.int8)
    if zeros.size > 1:
        zeros = zeros.reshape(product.groups, -1)[group] if product.groups > 1 else zeros.reshape(-1)
    zeros = zeros.reshape(()) if zeros.size == 1 else zeros
    parts = {"w": weights, "x_zero": np.asarray(zero, np.int8), "w_zero": np.ascontiguousarray(zeros)}
    return _model("MatMulInteger", ("x", "w", "x_zero", "w_zero"), parts, np.int32, ("M", len(weights)))


def _model(operator: str, order: tuple[str, ...], parts: dict[str, Array], kind: Any, shape: tuple[Any, ...],
           **attributes: Any) -> bytes:  # fmt: skip
    """A graph of one node whose only input is int8 `x`."""
    from onnx import TensorProto, helper, numpy_helper

    outputs = {np.int8: TensorProto.INT8, np.int32: TensorProto.INT32}
    graph = helper.make_graph(
        [helper.make_node(operator, list(order), ["y"], **attributes)], "product",
        [helper.make_tensor_value_info("x", TensorProto.INT8, shape)],
        [helper.make_tensor_value_info("y", outputs[kind], None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in parts.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    content: bytes = model.SerializeToString()
    return content


def session(content: bytes) -> Any:
    """A session of a model on one core with all optimisation off."""
    runtime = import_runtime()
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
