"""Small networks of reals, and of codes, to put on tiles."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwsim.execute.executor import Executable
from hwsim.extract.gru import GruLayer
from hwsim.extract.lstm import LstmLayer
from hwsim.numerics.calibration import BoundAware, MinMax
from hwsim.numerics.quantizers import Quantizer
from hwsim.trace import Role, TraceBuilder

X, H = "encoder.input.features", "encoder.layer0.h"
FRAMES, INPUTS, CELLS = 24, 20, 16


def encoder(fmt: str = "fp32", bits: int = 0, kind: type[LstmLayer] | type[GruLayer] = LstmLayer, layers: int = 1,
            reverse: bool = False) -> Executable:  # fmt: skip
    """LSTM or GRU layers and a projection. `fmt` of all tensors; `bits`: codes for weights and activations, else reals.

    `reverse`: a second direction in each layer.
    """
    b = TraceBuilder("encoder")
    x, width = [b.tensor(X, Role.ACTIVATION, (FRAMES, INPUTS), "encoder.layer0")], INPUTS
    for index in range(layers):
        parts = ["forward_", "backward_"] if reverse else [""]
        name = f"encoder.layer{index}"
        found = [kind.declare(b, name, width, CELLS, FRAMES, prefix=part, steps=True) for part in parts]
        for branch, layer in enumerate(found):
            layer.project_input(b, x, FRAMES, branch)
        with b.loop(FRAMES):
            for branch, layer in enumerate(found):
                layer.step(b, 1, branch)
        x, width = [layer.h for layer in found], CELLS * len(found)
    weight = b.tensor("encoder.out.weight", Role.WEIGHT, (width, 8), "encoder.out")
    bias = b.tensor("encoder.out.bias", Role.BIAS, (8,), "encoder.out")
    out = b.tensor("encoder.out.y", Role.STATE, (FRAMES, 8), "encoder.out")
    b.matmul("encoder.out", x, weight, out, m=FRAMES, bias=bias)
    return filled(b, fmt, bits)


def filled(b: TraceBuilder, fmt: str, bits: int) -> Executable:
    from dataclasses import replace

    trace, rng = b.build(), np.random.default_rng(0)
    trace = replace(trace, tensors=tuple(replace(t, format=fmt) for t in trace.tensors))
    codes: dict[str, Any] = {}
    grids: dict[str, Quantizer] = {}
    for tensor in trace.tensors:
        values = rng.uniform(-2, 2, tensor.shape) / np.sqrt(CELLS)
        if tensor.role == Role.BIAS:
            codes[tensor.name] = values
        elif tensor.role == Role.WEIGHT:
            codes[tensor.name] = values
            if bits:
                grids[tensor.name] = MinMax(bits).calibrate(values)
                codes[tensor.name] = grids[tensor.name].quantize(values)
        elif tensor.role == Role.ACTIVATION and bits:
            grids[tensor.name] = BoundAware(3.0 if tensor.name == X else 1.0, bits).calibrate()
    return Executable(trace, codes, grids)


def features(frames: int = FRAMES, seed: int = 0) -> dict[str, Any]:
    return {X: np.random.default_rng(seed).standard_normal((frames, INPUTS))}
