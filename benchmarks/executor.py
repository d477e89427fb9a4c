"""The INT4 encoder of `rnnt_swb300` run on codes, beside its bare matrix products: `python -m benchmarks.executor`.

One thread, 152 frames, 6 bidirectional layers of 640 cells, random weights. Both take turns; the ratio is the median
over the rounds. The bare products are the input projections and, in one compiled loop, the recurrent ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numba import njit

from benchmarks.measure import Measurement
from hwsim.execute import matmul
from hwsim.execute.executor import Executable
from hwsim.execute.kernels.product import product
from hwsim.execute.kernels.target import isa_of
from hwsim.execute.operations.product import Product
from hwsim.extract import load_workload
from hwsim.extract.rnnt import emit_encoder
from hwsim.numerics.calibration import BoundAware, Sawb
from hwsim.trace import Role, TraceBuilder

FEATURES = "encoder.input.features"
ROUNDS, TARGET = 25, 1 / 1.5


def encoder(frames: int) -> Executable:
    """The encoder with random INT4 weights (SAWB) and INT4 activations (BAC)."""
    builder = TraceBuilder("encoder")
    emit_encoder(builder, load_workload("rnnt_swb300").spec.encoder, frames)
    trace = builder.build()
    random = np.random.default_rng(0)
    codes: dict[str, Any] = {}
    quantizers: dict[str, Any] = {}
    for tensor in trace.tensors:
        values = random.uniform(-0.04, 0.04, tensor.shape)
        if tensor.role == Role.WEIGHT:
            quantizers[tensor.name] = Sawb().calibrate(values)
            codes[tensor.name] = quantizers[tensor.name].quantize(values)
        elif tensor.role == Role.BIAS:
            codes[tensor.name] = values
        elif tensor.role == Role.ACTIVATION:
            quantizers[tensor.name] = BoundAware(1.25 if tensor.name == FEATURES else 1.0).calibrate()
    return Executable(trace, codes, quantizers)


def bare_products(executable: Executable, frames: int) -> Callable[[], None]:
    """The products of the encoder with the same kernels and nothing else."""
    kernel = product(isa_of(None), "int4")

    @njit(nogil=True)
    def repeat(inputs, weights, offsets, table, out, count):  # type: ignore[no-untyped-def]
        for _ in range(count):
            kernel(inputs, weights, offsets, table, out)

    def run() -> None:
        for operation in executable.operations:
            for projection in operation.projections().values():
                packed = projection.packed  # type: ignore[union-attr]
                if isinstance(operation, Product):
                    matmul(np.ones((frames, packed.shape[0]), np.int8), packed)
                    continue
                out = np.empty((1, 1, packed.shape[1]), np.int32)
                one = np.ones((1, packed.shape[0]), np.int8)
                repeat(one, packed.data, packed.offsets, packed.table, out, frames)

    return run


def measurements() -> Iterator[Measurement]:
    """Time of the encoder, of its products, and their ratio."""
    frames = load_workload("rnnt_swb300").spec.decode.frames
    executable = encoder(frames)
    grid = executable.quantizers[FEATURES]
    x = grid.quantize(np.random.default_rng(1).standard_normal((frames, 340))).astype(np.int8)
    products = bare_products(executable, frames)
    whole, bare = [], []
    for _ in range(ROUNDS + 1):
        start = time.thread_time()
        executable.run({FEATURES: x})
        middle = time.thread_time()
        products()
        whole.append(middle - start)
        bare.append(time.thread_time() - middle)
    ratio = float(np.median(np.array(bare[1:]) / np.array(whole[1:])))
    yield Measurement("INT4 encoder of rnnt_swb300, 152 frames, on codes", min(whole[1:]))
    yield Measurement("its bare products", min(bare[1:]))
    yield Measurement("bare products over the encoder", ratio=ratio, target_ratio=TARGET)


if __name__ == "__main__":
    for found in measurements():
        print(f"{found.name:52} {found.shown:>10}  {found.verdict}")
