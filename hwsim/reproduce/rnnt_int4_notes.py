"""What the figures of the INT4 RNN-T say when they are put side by side; every number is taken from the runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwsim.extract.encoder_spec import EncoderSpec
from hwsim.reproduce.conditions import Headline
from hwsim.reproduce.record import Row, Sensitivity, reached
from hwsim.simulation import Result

CONTROL = "search"
"""Component whose time no number format shortens."""


def notes(rows: Sequence[Row], headline: Headline, sensitivity: Sequence[Sensitivity]) -> tuple[str, ...]:
    """Which figures are reached, which is worst and what keeps it there, and what decides most."""
    chosen = (_chosen(), _prediction(rows, headline))
    return (reached(rows), *chosen, _fusion(rows, headline), _encoder(headline), _decisive(sensitivity, headline))


def _chosen() -> str:
    """How the assumptions came about, so that nobody takes agreement for prediction."""
    return (
        "The assumptions were chosen with these figures in view: more than 120 combinations of DRAM bandwidth, host"
        " times, place of the states and residency were run, and one launch for each network of a step, language model"
        " states without a cache, and the projection counted with the prediction network were settled after seeing what"
        " they do here. The rows of time show that one plausible set fits them all, not that the model predicts them;"
        " several are the same ratio at other beams. INT4 at 1 GHz is calibrated: the energy of a MAC was derived from"
        " it, and HFP8 at 1.6 GHz was not used."
    )


def _prediction(rows: Sequence[Row], headline: Headline) -> str:
    """What the row would be if the projection that runs with the prediction network were not counted with it."""
    published = _published(rows, "2021 prediction network speed-up")
    fp16, int4 = (_without_projection(result) for result in (headline.fp16_2021, headline.int4_2021))
    return (
        f"2021 prediction network is {headline.figures['2021 prediction network']:.2f} with its hoisted projection,"
        f" which stays in FP16; the LSTM alone gains {fp16 / int4:.2f}, {fp16 / int4 / published - 1:+.0%} against the"
        f" published {published:g}. What is known here of the paper does not say which of the two it counts."
    )


def _published(rows: Sequence[Row], figure: str) -> float:
    return next(row.published for row in rows if row.figure == figure and row.published is not None)


def _without_projection(result: Result) -> float:
    trace = result.run.trace
    layers = [
        i for i, name in enumerate(trace.layers) if name.startswith("prediction.") and name != "prediction.projection"
    ]
    return float(result.run.critical_cycles[np.isin(trace.columns["layer"], layers)].sum())


def _fusion(rows: Sequence[Row], headline: Headline) -> str:
    """How much time without precision the 2022 ratio would need, and what that would do to 2021."""
    published = _published(rows, "2022 end to end speed-up")
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
    encoder = headline.int4_2021.workload.spec.encoder
    assert isinstance(encoder, EncoderSpec)
    layers = encoder.layers
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
