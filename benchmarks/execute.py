"""Integer products on one thread, beside the core's measured peak and onnxruntime: `python -m benchmarks.execute`.

GOPS = 2 * M * K * N / time, the processor time of the one thread: what else the machine runs should not count.
The contenders take turns within each round, so that what they share with others slows all: a rate
is the best of its rounds, a ratio the median of the ratios of the rounds.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from benchmarks.measure import Measurement
from hwsim.errors import HwsimError
from hwsim.execute import matmul, pack

SHAPES = ((1, 640, 2560), (8, 640, 2560), (16, 1024, 4096), (250, 1280, 2560), (1024, 1024, 1024))
PACKED = ("int4", "int3", "int2", "int1", "codebook4", "codebook5")
PEAK_TARGET, PEER_TARGET, GEMV_TARGET, PORTABLE_TARGET = 0.9, 1.05, 2.0, 0.45
FIRST_TARGET_S, CACHED_TARGET_S = 3.0, 1.0
ROUNDS, ROUND_S = 15, 2e-3
PEAK_TURNS, PEAK_SUMS = 20_000, 24

Run = Callable[[], object]
Shape = tuple[int, int, int]


def measurements() -> Iterator[Measurement]:
    """Every shape, then compiling."""
    for shape in SHAPES:
        yield from _of_shape(shape)
    if _onnxruntime(np.ones((1, 4), np.int8), np.ones((4, 1), np.int8)) is None:
        yield Measurement("onnxruntime", text="not installed, not compared")
    yield from _starts()


def _of_shape(shape: Shape) -> Iterator[Measurement]:
    """Rates of all contenders, and the ratios that have a target."""
    rounds = rates_gops(_contenders(shape), shape)
    label = "×".join(map(str, shape))
    rates = ", ".join(f"{name} {rates.max():,.0f}" for name, rates in rounds.items())
    yield Measurement(f"{label}, GOPS", text=rates)
    targets = {("int8", "onnxruntime"): PEER_TARGET, ("portable", "int8"): PORTABLE_TARGET}
    if shape[0] == 1:
        targets["int4", "int8"] = GEMV_TARGET
    if shape[0] >= 16:
        targets["int8", "peak"] = PEAK_TARGET
    for (one, other), target in targets.items():
        if other in rounds:
            ratio = float(np.median(rounds[one] / rounds[other]))
            yield Measurement(f"{label}, {one} over {other}", ratio=ratio, target_ratio=target)


def rates_gops(contenders: dict[str, Run], shape: Shape) -> dict[str, np.ndarray[Any, Any]]:
    """The rate of each in each round; the peak counts its own operations and is recognized by its name."""
    operations = {name: 2 * int(np.prod(shape)) for name in contenders}
    operations["peak"] = 2 * PEAK_TURNS * PEAK_SUMS * 64
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        run()
    for _ in range(ROUNDS):
        for name, run in contenders.items():
            calls = max(1, int(ROUND_S * 0.7e12 / operations[name]))
            run()
            start = time.thread_time()
            for _ in range(calls):
                run()
            rates[name].append(operations[name] * calls / (time.thread_time() - start) / 1e9)
    return {name: np.array(found) for name, found in rates.items()}


def _contenders(shape: Shape) -> dict[str, Run]:
    """By name: the peak and onnxruntime where they are there, int8 by path, every packed format."""
    rows, depth, columns = shape
    rng = np.random.default_rng(0)
    activations = rng.integers(-128, 128, (rows, depth)).astype(np.int8)
    codes = rng.integers(-128, 128, (depth, columns)).astype(np.int8)
    out = np.empty((rows, columns), np.int32)
    runs: dict[str, Run] = {}
    packed = pack(codes, "int8")
    with contextlib.suppress(HwsimError):
        runs["peak"] = _peak()
    runs["int8"] = partial(matmul, activations, packed, out=out)
    peer = _onnxruntime(activations, codes)
    if peer:
        runs["onnxruntime"] = peer
    runs["portable"] = partial(matmul, activations, packed, path="portable", out=out)
    for base in PACKED:
        bits, table = int(base[-1]), None
        if base.startswith("codebook"):
            table = rng.integers(-128, 128, 1 << bits)
            small = rng.integers(0, 1 << bits, (depth, columns))
        else:
            small = rng.choice([-1, 1], (depth, columns))
        runs[base] = partial(matmul, activations, pack(small, base, table=table), out=out)
    return runs


def _peak() -> Run:
    """A loop of dot-4 instructions that touches registers only. Raises HwsimError where the target has none."""
    from llvmlite import ir
    from numba import njit, types
    from numba.extending import intrinsic

    from hwsim.execute.kernels import emit, target

    isa = target.isa_of("vnni")

    def _spin(typingctx: Any, turns: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            vectors = emit.Vectors(builder, isa)
            seed = builder.trunc(args[0], emit.I32)
            operand = vectors.splat(seed)
            starts = [vectors.splat(builder.add(seed, ir.Constant(emit.I32, index))) for index in range(PEAK_SUMS)]
            sums = emit.loop(
                builder, args[0], starts, lambda _, sums: [vectors.dot(one, [operand], [operand]) for one in sums]
            )
            return builder.zext(vectors.total(emit.summed(builder, sums)), emit.I64)

        return types.int64(turns), codegen

    spin = intrinsic(_spin)

    @njit(nogil=True)
    def run(turns: Any) -> Any:
        return spin(turns)

    return partial(run, PEAK_TURNS * 64 // isa.vector_bytes)


def _onnxruntime(activations: np.ndarray[Any, Any], codes: np.ndarray[Any, Any]) -> Run | None:
    """MatMulInteger of u8 with s8, its fast combination, bound to its memory, on one thread."""
    try:
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        return None
    shapes = {"a": list(activations.shape), "y": [len(activations), codes.shape[1]]}
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "w", "zero"], ["y"])],
        "product",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, shapes["a"])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, shapes["y"])],
        [numpy_helper.from_array(codes, "w"), numpy_helper.from_array(np.array(128, np.uint8), "zero")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    wrap = onnxruntime.OrtValue.ortvalue_from_numpy
    binding.bind_ortvalue_input("a", wrap(activations.view(np.uint8) ^ np.uint8(128)))
    binding.bind_ortvalue_output("y", wrap(np.zeros(shapes["y"], np.int32)))
    return partial(session.run_with_iobinding, binding)


START = """
import time
import numpy as np
from hwsim.execute import matmul, pack
packed, activations = pack(np.ones((640, 2560), np.int8), "int4"), np.ones((1, 640), np.int8)
start = time.perf_counter()
matmul(activations, packed)
print(time.perf_counter() - start)
"""


def _starts() -> Iterator[Measurement]:
    """The first product of a new process, without and with the compiled code on disk; Numba's import included."""
    with tempfile.TemporaryDirectory() as cache:
        for name, target_s in (("compiled", FIRST_TARGET_S), ("cached", CACHED_TARGET_S)):
            done = subprocess.run(
                [sys.executable, "-c", START],
                env={**os.environ, "NUMBA_CACHE_DIR": cache},
                capture_output=True,
                text=True,
                check=True,
            )
            yield Measurement(f"first int4 product, {name}", float(done.stdout), target_s)


def main() -> None:
    for one in measurements():
        print(f"{one.name:45} {one.shown:>10}  {one.target:8} {one.verdict}")


if __name__ == "__main__":
    main()
