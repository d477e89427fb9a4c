"""What the figures of the INT4 RNN-T say when they are put side by side; every number is taken from the runs."""

from __future__ import annotations

from collections.abc import Sequence

from hwsim.reproduce.conditions import Headline
from hwsim.reproduce.record import Row, Sensitivity
from hwsim.simulation import Result

CONTROL = "search"
"""Component whose time no number format shortens."""


def notes(rows: Sequence[Row], headline: Headline, sensitivity: Sequence[Sensitivity]) -> tuple[str, ...]:
    """Which figures are reached, which is worst and what keeps it there, and what decides most."""
    return (_reached(rows), _fusion(rows, headline), _encoder(headline), _decisive(sensitivity, headline))


def _reached(rows: Sequence[Row]) -> str:
    missed = [row.figure for row in rows if not row.within_15_percent]
    worst = max(rows, key=lambda row: abs(row.relative_difference))
    reached = f"{len(rows) - len(missed)} of {len(rows)} figures are within 15 %"
    if missed:
        reached += f"; not: {', '.join(missed)}"
    return (
        f"{reached}. The farthest is {worst.figure}: {worst.simulated:.3g} simulated, {worst.published:.3g} published"
        f" ({worst.relative_difference:+.1%})."
    )


def _fusion(rows: Sequence[Row], headline: Headline) -> str:
    """How much time without precision the 2022 ratio would need, and what that would do to 2021."""
    published = next(row.published for row in rows if row.figure == "2022 end to end speed-up")
    fp16, int4 = headline.fp16_2022, headline.int4_2022
    steps = _steps(int4)
    control_s = int4.components[CONTROL].latency_s
    rest = (fp16.latency_s - fp16.components[CONTROL].latency_s) / (int4.latency_s - control_s)
    dram = sum(part.cycles_by_cause["dram"] for part in int4.components.values()) / int4.cycles
    # (fp16 + x) / (int4 + x) = published
    extra_s = (fp16.latency_s - published * int4.latency_s) / (published - 1)
    share = (control_s + extra_s) / (int4.latency_s + extra_s)
    without_lm = (headline.fp16_2021.latency_s + extra_s) / (headline.int4_2021.latency_s + extra_s)
    control_us, extra_us = 1e6 * control_s / steps, 1e6 * extra_s / steps
    return (
        f"2022 end to end is {headline.figures['2022 end to end']:.2f}, published {published:g}. FP16 weights are four"
        f" times the bytes of INT4, the language models are read from DRAM at each of {steps} steps, and {dram:.0%} of"
        f" the INT4 time waits for it: everything but host control gains {rest:.2f}. A ratio of {published:g} needs"
        f" {share:.0%} of the INT4 time in work that no format shortens, {extra_us:.0f} µs a step beside the"
        f" {control_us:.0f} µs here. The same host without fusion would bring the 2021 end-to-end speed-up from"
        f" {headline.figures['2021 end to end']:.2f} to {without_lm:.2f}, published 2.6."
    )


def _encoder(headline: Headline) -> str:
    fp16, int4 = (result.components["encoder"] for result in (headline.fp16_2021, headline.int4_2021))
    layers = headline.int4_2021.workload.spec.encoder.layers
    recurrent = layers / (1 + (layers - 1) / 4)
    return (
        f"2021 encoder is {headline.figures['2021 encoder']:.2f}, bound by {int4.bound} in INT4. With its first layer"
        f" in FP16 it would be {recurrent:.2f} if the time were that of the recurrent weights alone, equal in each"
        f" layer, and {fp16.weight_bits / int4.weight_bits:.2f} if it were that of all weights."
    )


def _decisive(sensitivity: Sequence[Sensitivity], headline: Headline) -> str:
    """The single change that moves each headline figure most."""
    feasible = [entry for entry in sensitivity if entry.figures]
    moves = []
    for name in headline.figures:
        most = max(feasible, key=lambda entry: abs(entry.relative_change(name) or 0.0))
        moves.append(f"{name} {most.relative_change(name):+.0%} ({most.assumption} {most.change})")
    return f"What moves each figure most: {', '.join(moves)}."


def _steps(result: Result) -> int:
    trace = result.run.trace
    return int(trace.iteration[trace.component == trace.components.index(CONTROL)].max()) + 1
