"""An LSTM layer on analog tiles beside one in integers, and programming a chip: `python -m benchmarks.analog`.

One layer of 1024 cells, 1024 inputs and 4096 gate sums over 64 steps, one thread; all take turns within a round and a
ratio is the median over the rounds. A chip of 45,261,568 weights, those of the transducer of MLPerf, is programmed and
read in a process of its own, so that its greatest memory is its own.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.measure import Measurement
from hwsim.execute.analog import AnalogExecutable, AnalogSettings, analog_settings
from hwsim.execute.analog.tile import Tiles
from hwsim.execute.executor import Executable
from hwsim.extract.lstm import LstmLayer
from hwsim.numerics.calibration import BoundAware, MinMax
from hwsim.trace import Role, TraceBuilder

FEATURES = "encoder.input.features"
STEPS, INPUTS, CELLS = 64, 1024, 1024
ROUNDS = 11
SLOWER = 8.0
HOUR_S = 3600.0
MATRICES = ((240, 4096), *(((1024, 4096),) * 8), (2048, 4096), (1024, 512), (28, 320), *(((320, 1280),) * 4),
            (320, 512))  # fmt: skip
PROGRAM_TARGET_S, MEMORY_TARGET_GB = 60.0, 4.0


def layer(bits: int) -> Executable:
    """An LSTM layer with random weights and activations of so many bits."""
    builder = TraceBuilder("lstm")
    x = builder.tensor(FEATURES, Role.ACTIVATION, (STEPS, INPUTS), "encoder.layer0")
    lstm = LstmLayer.declare(builder, "encoder.layer0", INPUTS, CELLS, STEPS, steps=True)
    lstm.project_input(builder, [x], STEPS)
    with builder.loop(STEPS):
        lstm.step(builder, 1)
    trace, random = builder.build(), np.random.default_rng(0)
    codes: dict[str, Any] = {}
    grids: dict[str, Any] = {}
    for tensor in trace.tensors:
        values = random.uniform(-0.04, 0.04, tensor.shape)
        if tensor.role == Role.WEIGHT:
            grids[tensor.name] = MinMax(bits).calibrate(values)
            codes[tensor.name] = grids[tensor.name].quantize(values)
        elif tensor.role == Role.BIAS:
            codes[tensor.name] = values
        elif tensor.role == Role.ACTIVATION:
            grids[tensor.name] = BoundAware(1.25 if tensor.name == FEATURES else 1.0, bits).calibrate()
    return Executable(trace, codes, grids)


def contenders() -> dict[str, Executable]:
    """The layer in integers, and its INT8 weights on tiles an hour after programming."""
    integers = {f"INT{bits}": layer(bits) for bits in (4, 8)}
    kinds: dict[str, AnalogSettings] = {
        "ideal": analog_settings("ideal"),
        "per-MVM noise and converters": analog_settings("rasch2023", ir_drop=0.0),
        "rasch2023": analog_settings("rasch2023"),
        "pcm": analog_settings("pcm"),
    }
    return {**integers, **{name: AnalogExecutable(integers["INT8"], each, 1, HOUR_S) for name, each in kinds.items()}}


def layers() -> Iterator[Measurement]:
    """Time of a step of each, and the integer layer's time over that of tiles."""
    running = contenders()
    x = np.random.default_rng(1).standard_normal((STEPS, INPUTS))
    codes = {name: each.quantizers[FEATURES].quantize(x).astype(np.int8) for name, each in running.items()}
    times: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(ROUNDS + 1):
        for name, each in running.items():
            start = time.thread_time()
            each.run({FEATURES: codes[name]})
            times[name].append(time.thread_time() - start)
    for name in running:
        label = name if name.startswith("INT") else f"on tiles, {name}"
        yield Measurement(f"LSTM of 1024 x 4096, {STEPS} steps, {label}", min(times[name][1:]))
    for name in list(running)[2:]:
        for integer in ("INT8", "INT4"):
            ratio = float(np.median(np.array(times[integer][1:]) / np.array(times[name][1:])))
            target = 1 / SLOWER if integer == "INT8" else None
            yield Measurement(f"{integer} over {name}", ratio=ratio, target_ratio=target)


def program() -> None:
    """Program and read the chip, and print processor seconds and the greatest memory in GB."""
    import resource

    random, total, seconds = np.random.default_rng(0), 0, 0.0
    chip = []
    for number, shape in enumerate(MATRICES):
        weights = random.standard_normal(shape) * 0.03
        start = time.process_time()
        chip.append(Tiles(f"w{number}", weights, np.zeros(shape[1]), analog_settings("pcm"), (1,), HOUR_S))
        seconds += time.process_time() - start
        total += weights.size
    start = time.process_time()
    for tiles in chip:
        tiles.at(24 * HOUR_S)
    again = time.process_time() - start
    print(total, seconds, again, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def programming() -> Iterator[Measurement]:
    """The figures of `program`, in a process of its own."""
    words = [sys.executable, "-c", "from benchmarks.analog import program; program()"]
    found = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    weights, (seconds, again, memory) = int(found[0]), (float(word) for word in found[1:])
    yield Measurement(f"programming and reading {weights:,} weights", seconds, PROGRAM_TARGET_S)
    yield Measurement("reading them at another time", again)
    reached = "within" if memory < MEMORY_TARGET_GB else "beyond"
    yield Measurement("greatest memory", text=f"{memory:.2f} GB, {reached} {MEMORY_TARGET_GB:g}")


def measurements() -> Iterator[Measurement]:
    """Layers, then programming."""
    yield from layers()
    yield from programming()


if __name__ == "__main__":
    for one in measurements():
        print(f"{one.name:64} {one.shown:>18}  {one.verdict}")
