"""Models of one operation for LiteRT, written with its own schema."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError

Array = npt.NDArray[Any]
RESOLVERS = {
    "tflite-reference": "BUILTIN_REF",
    "tflite-xnnpack": "AUTO",
    "tflite-ruy": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "tflite-lstm": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
}
"""The set of kernels that each profile describes."""
PACKED = {"int4": 4, "int2": 2}
FULLY_CONNECTED_VERSIONS = {"int8": 5, "int4": 12, "int2": 12}


def import_litert() -> Any:
    """The package. Raises HwsimError naming the extra."""
    try:
        import ai_edge_litert
        import flatbuffers  # noqa: F401
    except ImportError:
        raise HwsimError("--against litert needs ai-edge-litert: install hwsim[litert]") from None
    return ai_edge_litert


def pack(codes: Array, bits: int) -> Array:
    """Codes of 2 or 4 bits in bytes, the first in the low bits."""
    per_byte = 8 // bits
    flat = np.pad(codes.reshape(-1), (0, -codes.size % per_byte)).astype(np.int64) & ((1 << bits) - 1)
    packed: Array = (flat.reshape(-1, per_byte) << (bits * np.arange(per_byte))).sum(axis=1).astype(np.uint8)
    return packed


class Model:
    """A model under construction."""

    def __init__(self) -> None:
        import_litert()
        from ai_edge_litert import schema_py_generated as schema

        self.schema = schema
        self.buffers = [schema.BufferT()]
        self.tensors: list[Any] = []

    def tensor(self, kind: str, shape: tuple[int, ...], scale: Any, zero_point: int = 0,
               data: Array | None = None, variable: bool = False) -> int:  # fmt: skip
        """Declare a tensor, with its content when it is a constant; returns its index."""
        schema = self.schema
        kinds = {name: getattr(schema.TensorType, name.upper()) for name in ("int8", "int16", "int32", "int4", "int2")}
        tensor = schema.TensorT(shape=list(shape), type=kinds[kind], name=f"t{len(self.tensors)}".encode())
        scales = np.atleast_1d(np.asarray(scale, np.float32))
        tensor.quantization = schema.QuantizationParametersT(
            scale=scales.tolist(), zeroPoint=[zero_point] * len(scales), quantizedDimension=0
        )
        tensor.isVariable = variable
        if data is not None:
            packed = pack(data, PACKED[kind]) if kind in PACKED else data.astype(kind)
            tensor.buffer = len(self.buffers)
            self.buffers.append(schema.BufferT(data=np.frombuffer(packed.tobytes(), np.uint8)))
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def build(self, code: int, version: int, operator: Any, inputs: list[int], outputs: list[int]) -> bytes:
        """The file of a model of one operation."""
        import flatbuffers

        schema = self.schema
        model = schema.ModelT(version=3, buffers=self.buffers)
        model.operatorCodes = [
            schema.OperatorCodeT(deprecatedBuiltinCode=min(code, 127), builtinCode=code, version=version)
        ]
        model.subgraphs = [
            schema.SubGraphT(tensors=self.tensors, inputs=inputs, outputs=outputs, operators=[operator], name=b"main")
        ]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def run(content: bytes, x: Array, profile: str) -> Array:
    """The output of a model for one input, by the kernels of a profile."""
    import_litert()
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = getattr(OpResolverType, RESOLVERS[profile])
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=resolver, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return np.array(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))


def fully_connected(rows: int, w: Array, kind: str, x_scale: Any, x_zero: int, w_scale: Any, bias: Array,
                    y_scale: Any, y_zero: int) -> bytes:  # fmt: skip
    """int8 activations times `w` (K, N) of `kind` plus int32 bias, to int8."""
    depth, channels = w.shape
    model = Model()
    product = np.float32(x_scale) * np.asarray(w_scale, np.float32)
    ids = [
        model.tensor("int8", (rows, depth), x_scale, x_zero),
        model.tensor(kind, (channels, depth), w_scale, data=np.ascontiguousarray(w.T)),
        model.tensor("int32", (channels,), product, data=bias),
        model.tensor("int8", (rows, channels), y_scale, y_zero),
    ]
    schema = model.schema
    operator = schema.OperatorT(inputs=ids[:3], outputs=ids[3:], builtinOptions=schema.FullyConnectedOptionsT(),
                                builtinOptionsType=schema.BuiltinOptions.FullyConnectedOptions)  # fmt: skip
    version = FULLY_CONNECTED_VERSIONS[kind]
    return model.build(schema.BuiltinOperator.FULLY_CONNECTED, version, operator, ids[:1], ids[3:])


def lstm(steps: int, rows: int, layer: Any) -> bytes:
    """The unidirectional 8x8_16 LSTM of an `Lstm8x8x16`, time first."""
    depth, cells = layer.wx.shape[1:]
    model = Model()
    x = model.tensor("int8", (steps, rows, depth), layer.input.scale, layer.input.zero_point)
    y = model.tensor("int8", (steps, rows, cells), layer.hidden.scale, layer.hidden.zero_point)
    order = (0, 1, 2, 3)
    wx = [model.tensor("int8", (cells, depth), layer.wx_scale[g], data=layer.wx[g].T.copy()) for g in order]
    wh = [model.tensor("int8", (cells, cells), layer.wh_scale[g], data=layer.wh[g].T.copy()) for g in order]
    b = [model.tensor("int32", (cells,), layer.input.scale * layer.wx_scale[g], data=layer.bias[g]) for g in order]
    h = model.tensor("int8", (rows, cells), layer.hidden.scale, layer.hidden.zero_point, variable=True)
    c = model.tensor("int16", (rows, cells), 2.0**-layer.cell_shift, variable=True)
    between = [model.tensor("int16", (1,), 2.0**-12) for _ in order]
    between.append(model.tensor("int8", (1,), layer.hidden.scale, layer.hidden.zero_point))
    schema = model.schema
    options = schema.UnidirectionalSequenceLSTMOptionsT(fusedActivationFunction=4, timeMajor=True)
    operator = schema.OperatorT(
        inputs=[x, *wx, *wh, -1, -1, -1, *b, -1, -1, h, c, -1, -1, -1, -1], outputs=[y], intermediates=between,
        builtinOptions=options, builtinOptionsType=schema.BuiltinOptions.UnidirectionalSequenceLSTMOptions,
    )  # fmt: skip
    return model.build(schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_LSTM, 1, operator, [x], [y])
