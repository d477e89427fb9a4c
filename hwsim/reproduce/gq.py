"""The general quantizer (Zhen et al., SLT 2022): sizes of 5-bit codebooks, and latency on a device that streams them.

`rnnt_bifocal_gq` on `edge_npu_stream` gives the table of user-perceived latency, whose rows differ in nothing but the
bits. The machine reads the weights of a call's networks from DRAM, expands codes to INT8 on their way to the array, and
shares the DRAM; `hwsim.reproduce.gq_serving` has the distributions. The first calls of an utterance are of the small
left encoder, the others of the right one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields

from hwsim.arch import load_arch
from hwsim.extract import load_network
from hwsim.extract.encoder_spec import BifocalEncoderSpec
from hwsim.numerics.formats import NumberFormat
from hwsim.reproduce.gq_conditions import (
    BASELINE,
    CHANGES,
    CONFIGURATIONS,
    HEADLINE,
    ONE_BIT,
    SLOWDOWNS,
    CallTimes,
    Conditions,
    absolute_s,
    apply,
    headline,
    normalized,
)
from hwsim.reproduce.gq_footprint import Contradiction, Footprint
from hwsim.reproduce.gq_serving import PERCENTILES, WHY, Serving
from hwsim.reproduce.record import SIZE_TOLERANCE, Listing, Reproduction, Row, Sensitivity, reached
from hwsim.reproduce.sizes import float_bits
from hwsim.simulation import Result
from hwsim.trace import Role, Trace

ARCH, NETWORK = "edge_npu_stream", "rnnt_bifocal_gq"
PAPER = "Zhen et al., SLT 2022, arXiv 2210.09188"
LATENCY: Mapping[str, tuple[float, float, float]] = {
    "8/8/8/8": (1.00, 1.55, 2.58),
    "5 but first layers and joint 8": (0.87, 1.22, 2.04),
    "5/5/5/5": (0.80, 1.07, 1.76),
    "1/5/5/5": (0.80, 1.05, 1.70),
}
"""P50, P90 and P99 over the P50 of INT8."""
REDUCTIONS = {50: 19.75, 90: 31.30, 99: 31.75}

Step = Callable[[int, int], None]


def reproduce(on_step: Step | None = None) -> Reproduction:
    """Sizes, the table of latencies, and what each assumption does to it; `on_step(done, total)` counts."""
    total, done = 1 + len(CHANGES), 0

    def step() -> None:
        nonlocal done
        done += 1
        if on_step:
            on_step(done, total)

    as_is = Conditions(load_arch(ARCH), load_network(NETWORK))
    times = as_is.call_times()
    table = normalized(as_is.serving, times)
    figures = headline(table)
    footprint = Footprint.of(as_is.workload.networks)
    step()
    rows = (*_ratio_rows(as_is.workload.networks), *footprint.rows(), *_latency_rows(table))
    sensitivity = []
    for change in CHANGES:
        sensitivity.append(apply(change, as_is, times, figures))
        step()
    results = [as_is.run(policy) for policy in CONFIGURATIONS.values()]
    return Reproduction(
        name="gq",
        title="General quantizer: 5-bit codebooks on an edge device",
        rows=rows,
        assumptions=_assumptions(as_is, results),
        sensitivity=tuple(sensitivity),
        notes=(
            reached(rows),
            *Contradiction.of(as_is.workload.networks).notes(),
            *_notes(as_is, times, table, sensitivity),
        ),
        listings=(_call_listing(as_is, times, results),),
    )


def _ratio_rows(trace: Trace) -> list[Row]:
    weights = [tensor for tensor in trace.tensors if tensor.role == Role.WEIGHT]
    rows = []
    for bits, published in ((6, 5.3), (5, 6.4)):
        fmt = NumberFormat(f"codebook{bits}")
        stored = sum(fmt.stored_bits(tensor.shape).total for tensor in weights)
        source = f"{PAPER}, weights only; with the table and the scale of each matrix"
        name = f"weights, float32 over {bits} bits"
        rows.append(Row(name, published, float_bits(weights) / stored, "×", source, SIZE_TOLERANCE))
    return rows


def _latency_rows(table: Mapping[str, Mapping[int, float]]) -> list[Row]:
    source = f"{PAPER}, bifocal model on a device, over P50 at 8/8/8/8 (bits of left/right encoder/decoder/joint)"
    rows = [
        Row(f"latency P{at}, {name}", published, table[name][at], "× P50", source)
        for name, row in LATENCY.items()
        for at, published in zip(PERCENTILES, row, strict=True)
        if (name, at) != (BASELINE, 50)
    ]
    where = f"{PAPER}, abstract and table: 5/5/5/5 against 8/8/8/8"
    for at, published in REDUCTIONS.items():
        shorter = 100 * (1 - table[HEADLINE][at] / table[BASELINE][at])
        rows.append(Row(f"latency P{at} is shorter by", published, shorter, "%", where))
    return rows


def _call_listing(as_is: Conditions, times: CallTimes, results: Sequence[Result]) -> Listing:
    call_s = as_is.call_frames * as_is.workload.frame_period_s
    rows: list[tuple[float | str, ...]] = []
    for name, result in zip(CONFIGURATIONS, results, strict=True):
        megabytes = sum(part.dram_bytes for part in result.components.values()) / 1e6
        bound = result.components["encoder_right"].bound
        time = times[name]
        milliseconds = [1e3 * time_s for time_s in (*time.right_s.tolist(), float(time.left_s[0]))]
        rows.append((name, megabytes, *milliseconds, float(time.right_s[0]) / call_s, bound))
    slow = [f"at {slowdown:g}x" for slowdown in SLOWDOWNS[1:]]
    what = f"A call of {as_is.call_frames} frames, {call_s:g} s of audio"
    columns = ("bits", "MB read", "ms", *slow, "left, ms", "RTF", "bound by")
    return Listing(
        f"{what}: in the right encoder, while others slow the DRAM down, and in the left one", columns, tuple(rows)
    )


def _assumptions(as_is: Conditions, results: Sequence[Result]) -> tuple[str, ...]:
    listed = [text for result in results for text in result.assumptions]
    values = {entry.name: getattr(as_is.serving, entry.name) for entry in fields(Serving)}
    listed += [f"serving.{name} = {value:g}: {WHY[name]}" for name, value in values.items()]
    why = "outputs stay in the array and weights stream, without a gap between tiles; edge_npu fills it for each tile"
    encoder = as_is.workload.spec.encoder
    assert isinstance(encoder, BifocalEncoderSpec)
    listed.append(f"workload.encoder.left_frames = {encoder.left_frames}: {encoder.source}")
    listed.append(f"arch.name = {as_is.arch.name}: {why}")
    return tuple(dict.fromkeys(listed))


def _notes(as_is: Conditions, times: CallTimes, table: Mapping[str, Mapping[int, float]],
           sensitivity: Sequence[Sensitivity]) -> tuple[str, ...]:  # fmt: skip
    fixed = as_is.serving.fixed_s / absolute_s(as_is.serving, times[BASELINE])[50]
    feasible = [entry for entry in sensitivity if entry.figures]
    moves = []
    for name in headline(table):
        most = max(feasible, key=lambda entry: abs(entry.relative_change(name) or 0.0))
        moves.append(f"{name} {most.relative_change(name):+.0%} ({most.assumption} {most.change})")
    eight, five, one = (times[name] for name in (BASELINE, HEADLINE, ONE_BIT))
    gain = eight.right_s[0] / five.right_s[0]
    return (
        "Chip, clock, bandwidth, load and the definition of the start of latency are not published. Three numbers of"
        " the serving model (the median slow-down of the DRAM, its spread, the fixed part) were chosen among 27"
        " combinations with the table in view, before the rows of mixed bits were run; clock, DRAM and host were not."
        " The array was made to keep up with the DRAM, without which bits matter less. The rows show that one"
        " plausible set gives the shape of the table, not that the model predicts it.",
        f"A call gains {gain:.2f} from 5 bits, 8/5 = 1.60 at most. P50 gains less, as {fixed:.0%} of it"
        " is the fixed part; under load the DRAM decides and P90 and P99 gain nearly all of it.",
        f"The left encoder has the first {eight.left_calls} calls of an utterance. There a call takes"
        f" {five.left_s[0] / five.right_s[0]:.2f} of one in the right encoder at 5 bits, and 1 bit saves"
        f" {1 - one.left_s[0] / five.left_s[0]:.0%} of it. Utterances end in the right encoder, so this reaches the"
        " latency only through calls that are late from the beginning: 1/5/5/5 is as 5/5/5/5 in all three percentiles,"
        " where the paper has 2 and 3 % less at P90 and P99.",
        f"What moves each figure most: {', '.join(moves)}.",
    )
