"""One utterance of `rnnt_swb300` with beam 16 and density-ratio fusion on `rapid_4core`, on both engines."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.measure import Measurement, median_s
from hwsim import load_arch, load_policy, load_workload, simulate
from hwsim.decode.search import default_settings, utterance_trace
from hwsim.engine.run import Engine, run_trace

FAST_TARGET_S, EVENT_TARGET_S = 0.05, 5.0
REPEATS = 11
PRECISIONS = ("int4", "fp16")


def measurements() -> Iterator[Measurement]:
    """Whole simulations first, then the engines on a trace that is there already."""
    yield from _simulations()
    for precision in PRECISIONS:
        yield from _rates(precision)


def _simulations() -> Iterator[Measurement]:
    arch, workload = load_arch("rapid_4core"), load_workload("rnnt_swb300")
    for precision in PRECISIONS:

        def run(engine: Engine = "fast", precision: str = precision) -> None:
            simulate(arch, workload, precision, beam=16, lm="density-ratio", engine=engine)

        run()
        yield Measurement(f"simulate {precision}, fast, cached trace", median_s(run, REPEATS), FAST_TARGET_S)
        fresh = median_s(run, REPEATS, before=utterance_trace.cache_clear)
        yield Measurement(f"simulate {precision}, fast, fresh trace", fresh, FAST_TARGET_S)
        event = median_s(partial(run, "event"), 1)
        yield Measurement(f"simulate {precision}, event (SimPy)", event, EVENT_TARGET_S)


def _rates(precision: str) -> Iterator[Measurement]:
    arch, workload = load_arch("rapid_4core"), load_workload("rnnt_swb300")
    settings = default_settings(workload, beam=16, lm="density-ratio")
    trace = utterance_trace(workload, settings, workload.spec.decode.frames).with_precision(load_policy(precision))
    tasks = len(run_trace(arch, trace).lowered.graph)
    taken_s = {
        "fast": median_s(lambda: run_trace(arch, trace), REPEATS),
        "event": median_s(lambda: run_trace(arch, trace, "event"), 1),
    }
    for engine, seconds in taken_s.items():
        rates = f"{len(trace) / seconds:,.0f} ops/s, {tasks / seconds:,.0f} tasks/s"
        yield Measurement(f"{engine} engine, {precision}: {len(trace):,} ops, {tasks:,} tasks", text=rates)
    ratio = f"{taken_s['event'] / taken_s['fast']:,.0f} ×"
    yield Measurement(f"fast over the SimPy reference, {precision}, same run", text=ratio)
