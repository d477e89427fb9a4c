"""Products in LiteRT, as fully connected models of one operation, by the kernels of a profile."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np

from hwsim.execute.litert_lstm import PROFILE as LSTM_PROFILE
from hwsim.execute.litert_lstm import LitertLstm
from hwsim.execute.operations.base import Operation, Run
from hwsim.execute.operations.recurrent import Recurrence
from hwsim.execute.reference.linear import bias_codes
from hwsim.execute.reference.lstm_8x8_16 import Int8Tensor, Lstm8x8x16
from hwsim.execute.semantics import PROFILES
from hwsim.numerics.quantizers import Quantizer
from hwsim.numerics.rounding import Integers
from hwsim.validate.oracles.base import Array, fitting_profile
from hwsim.validate.oracles.litert_models import RESOLVERS, fully_connected, import_litert, lstm
from hwsim.validate.oracles.litert_models import run as run_model
from hwsim.validate.oracles.products import (
    ProductOracle,
    RuntimeParameters,
    RuntimeProjection,
    RuntimeSums,
    fits_bytes,
    signed,
)

LARGEST_OF = {"int2": 1, "int4": 7, "int8": 127}
PROFILE_ORDER = ("tflite-xnnpack", "tflite-ruy", "tflite-reference", LSTM_PROFILE)


class LiteRt(ProductOracle):
    """Products with an output of 8 bits or fewer. Raises HwsimError for other profiles, and without the package."""

    name = "litert"

    def __init__(self, profile: str | None = None) -> None:
        super().__init__()
        self.profile = fitting_profile(self.name, profile, {name: PROFILES[name] for name in PROFILE_ORDER})
        import_litert()
        self.version = version("ai-edge-litert")
        kernels = RESOLVERS[self.profile.name]
        self.text = f"LiteRT {self.version}, kernels {kernels}: one model for each product or LSTM layer"

    def codes(self, product: RuntimeProjection, x: Array, output: Quantizer) -> Integers | None:
        """FULLY_CONNECTED with weights in the narrowest of int2, int4 and int8 that holds their codes."""
        reason = _unfit(product, output)
        if self.profile.name == LSTM_PROFILE:
            reason = f"{product.name}: {LSTM_PROFILE} is the profile of LSTM layers"
        if reason:
            self.why[reason] = None
            return None
        assert product.codes is not None
        kind = weight_kind(product.codes, product.weights.scale.size, self.profile.name)
        rows, zero = signed(x, product.input)
        shift = 0 if output.code_range[0] < 0 else 128
        content = fully_connected(
            len(rows), product.codes, kind, product.input.scale.reshape(()), zero, product.weights.scale.reshape(-1),
            bias_codes(product.bias, np.broadcast_to(product.scale[0], product.bias.shape)),
            output.scale.reshape(()), int(output.zero_point.reshape(())) - shift,
        )  # fmt: skip
        self.used[f"FULLY_CONNECTED {kind}"] = None
        return run_model(content, rows, self.profile.name).astype(np.int64) + shift

    def run(self, operation: Operation, run: Run, parameters: RuntimeParameters) -> None:
        """LSTM loops as UNIDIRECTIONAL_SEQUENCE_LSTM under the profile tflite-lstm; otherwise as the readable path."""
        if not isinstance(operation, Recurrence):
            operation.run(run)
            return
        for d in operation.directions:
            if d.litert is None:
                self.why["recurrent layers are compared with --profile tflite-lstm"] = None
                operation.run(run)
                return
            sums, wx = run.values[d.gates.x], parameters.products[d.gates.x]
            assert isinstance(sums, RuntimeSums)
            assert isinstance(wx, RuntimeProjection)
            layer = lstm_layer(d.litert, wx)
            order = slice(None, None, -1 if d.reverse else 1)
            content = lstm(len(sums.activations), 1, layer)
            found = run_model(content, sums.activations[order, None].astype(np.int8), self.profile.name)
            run.keep(d.h, found[order, 0].astype(np.int8))
        self.used["UNIDIRECTIONAL_SEQUENCE_LSTM"] = None


def lstm_layer(layer: LitertLstm, wx: RuntimeProjection) -> Lstm8x8x16:
    """A layer by gates in the order i, f, g, o, as LiteRT has them, of sums in any order."""
    assert wx.codes is not None
    wh = layer.recurrent
    cells = wh.outputs // 4

    def by_gate(array: Array) -> Array:
        parts = np.split(array, 4, axis=-1)
        return np.stack([parts[at] for at in layer.positions])

    scale_x, scale_h = (by_gate(np.broadcast_to(p.weights.scale.reshape(-1), p.outputs))[:, 0] for p in (wx, wh))
    input = Int8Tensor(float(wx.input.scale.reshape(())), int(wx.input.zero_point.reshape(())))
    return Lstm8x8x16(
        by_gate(wx.codes), by_gate(wh.codes_of_weight().astype(np.int64)), scale_x, scale_h,
        by_gate(layer.bias).reshape(4, cells), input, layer.hidden, layer.cell_shift,
    )  # fmt: skip


def weight_kind(codes: Integers, scales: int, profile: str) -> str:
    """The narrowest type of the weights. XNNPACK leaves int2 weights of one scale to ruy, so there they are int4."""
    largest = int(np.abs(codes).max(initial=0))
    kind = next(name for name, limit in LARGEST_OF.items() if largest <= limit)
    return "int4" if kind == "int2" and profile == "tflite-xnnpack" and scales == 1 else kind


def _unfit(product: RuntimeProjection, output: Quantizer) -> str:
    assert product.codes is not None
    if not fits_bytes(product.input):
        return f"{product.name}: activations of {product.input.bits} bits have no product there"
    if not fits_bytes(output):
        return f"{product.name}: an output of {output.bits} bits has no product there"
    if product.groups > 1:
        return f"{product.name}: weights with group scales have no product there"
    if product.weights.zero_point.any():
        return f"{product.name}: weights with zero points have no product there"
    if np.abs(product.codes).max(initial=0) > LARGEST_OF["int8"]:
        return f"{product.name}: weight codes beyond 127 have no product there"
    return ""
