"""The INT4 RNN-T on RaPiD (Fasoli et al., Interspeech 2021 and 2022): its figures, published and simulated.

All rows rest on the files `rapid_4core` and `rnnt_swb300` as they are. 2021 decodes without language models, with
joint, FC and the first encoder layer in FP16 (`int4-2021`); 2022 with density-ratio fusion and every network in INT4.
A speed-up is the latency in FP16 over the latency in INT4; the prediction network includes its projection to the
joint network, which is computed once with each of its outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hwsim.arch import Architecture, load_arch
from hwsim.cost.peak import peak_efficiency_ops_per_j
from hwsim.extract import Workload, load_network
from hwsim.extract.workload import parameter_counts
from hwsim.numerics.formats import NumberFormat
from hwsim.reproduce.conditions import RTF, Conditions, Headline, measure, speedups
from hwsim.reproduce.record import Reproduction, Row
from hwsim.reproduce.rnnt_int4_changes import CHANGES, apply
from hwsim.reproduce.rnnt_int4_notes import notes
from hwsim.simulation import Result
from hwsim.trace import Role

ARCH, WORKLOAD = "rapid_4core", "rnnt_swb300"
BEAMS = (1, 2, 4, 8, 16, 32)

P2021 = "Fasoli et al., Interspeech 2021, arXiv 2108.12074"
P2022 = "Fasoli et al., Interspeech 2022, arXiv 2206.07882"
RAPID = "RaPiD, ISSCC 2021 paper 9.1; JSSC 57(1), 2022"

Step = Callable[[int, int], None]


def reproduce(on_step: Step | None = None) -> Reproduction:
    """Simulate every figure of the paper; `on_step(done, total)` is told of progress."""
    total, done = len(BEAMS) + 1 + len(CHANGES), 0

    def step() -> None:
        nonlocal done
        done += 1
        if on_step:
            on_step(done, total)

    as_is = Conditions(load_arch(ARCH), load_network(WORKLOAD))
    headline = measure(as_is)
    step()
    over_beams = {}
    for beam in BEAMS:
        over_beams[beam] = speedups(as_is.with_beam(beam), "none", "int4-2021")["total"]
        step()
    rows = (
        *_rows_2021(headline, over_beams),
        *_rows_2022(headline),
        *_rows_of_sizes(as_is.workload, headline.int4_2021),
        *_rows_of_the_chip(as_is.arch),
    )
    sensitivity = []
    for change in CHANGES:
        sensitivity.append(apply(change, as_is, headline.figures))
        step()
    return Reproduction(
        name="rnnt-int4",
        title="INT4 RNN-T with language model fusion on RaPiD",
        rows=rows,
        assumptions=_assumptions(headline),
        sensitivity=tuple(sensitivity),
        notes=notes(rows, headline, sensitivity),
    )


def _rows_2021(headline: Headline, over_beams: Mapping[int, float]) -> list[Row]:
    where = f"{P2021}, runtime with beam search, no language model"
    published = {"end to end": 2.6, "encoder": 2.6, "prediction network": 3.3}
    rows = [
        Row(f"2021 {name} speed-up", value, headline.figures[f"2021 {name}"], "×", where)
        for name, value in published.items()
    ]
    flat = f"{P2021}: the end-to-end speed-up is nearly independent of the beam, so 2.6 for each"
    rows += [Row(f"2021 end to end, beam {beam}", 2.6, speedup, "×", flat) for beam, speedup in over_beams.items()]
    reference = over_beams[headline.beam]
    largest = max(over_beams.values(), key=lambda speedup: abs(speedup / reference - 1))
    figure = f"2021 end to end, farthest beam over beam {headline.beam}"
    source = f"{P2021}: nearly independent of the beam, read as a ratio of 1"
    return [*rows, Row(figure, 1.0, largest / reference, "×", source)]


def _rows_2022(headline: Headline) -> list[Row]:
    where = f"{P2022}, abstract and runtime, density-ratio fusion"
    return [
        Row("2022 end to end speed-up", 3.4, headline.figures["2022 end to end"], "×", where),
        Row("2022 real-time factor, INT4", 0.06, headline.figures[RTF], "s per s of audio", where),
        Row("2022 real-time factor, FP16", 0.204, headline.fp16_2022.rtf, "s per s of audio",
            f"{P2022}: derived, 3.4 x 0.06"),
        Row("2022 compression over FP32", 7.6, headline.int4_2022.compression, "×", where),
    ]  # fmt: skip


def _rows_of_sizes(workload: Workload, without_lm: Result) -> list[Row]:
    counts = parameter_counts(workload)
    tensors = [t for t in without_lm.run.trace.tensors if t.role in (Role.WEIGHT, Role.BIAS)]
    low = sum(t.elements for t in tensors if NumberFormat.parse(t.format).base == "int4")
    share = 100 * low / sum(t.elements for t in tensors)
    names = {
        "acoustic model": ("acoustic", 57.0),
        "source LM": ("source_lm", 5.0),
        "external LM": ("external_lm", 84.0),
    }
    rows = [Row("2021 parameters in INT4", 90.2, share, "%", f"{P2021}, share of the RNN-T's parameters")]
    return rows + [
        Row(f"parameters, {name}", published, counts[key] / 1e6, "M", f"{P2022}, whole millions")
        for name, (key, published) in names.items()
    ]


def _rows_of_the_chip(arch: Architecture) -> list[Row]:
    published = {"int4": (104.9, "TOPS"), "hfp8": (26.2, "TFLOPS"), "fp16": (13.1, "TFLOPS")}
    ghz = arch.clock_hz / 1e9
    rows = [
        Row(f"RaPiD peak, {fmt.upper()} at {ghz:g} GHz", value, arch.peak_ops_per_s(fmt) / 1e12, unit, RAPID)
        for fmt, (value, unit) in published.items()
    ]
    efficient = load_arch(ARCH, {"operating_point": "efficient"})
    efficiency = peak_efficiency_ops_per_j(efficient, "int4") / 1e12
    check = peak_efficiency_ops_per_j(arch, "hfp8") / 1e12
    return [
        *rows,
        Row("RaPiD efficiency, INT4 at 1 GHz", 16.5, efficiency, "TOPS/W", "RaPiD, ISCA 2021, abstract; calibrated"),
        Row("RaPiD efficiency, HFP8 at 1.6 GHz", 1.9, check, "TFLOPS/W", "RaPiD, ISSCC 2021 paper 9.1; not used"),
    ]


def _assumptions(headline: Headline) -> tuple[str, ...]:
    listed = [text for result in headline.results for text in result.assumptions]
    listed.append(f"decode.beam = {headline.beam}: the papers name 16 among several widths, and none for 2022")
    listed.append("decode.batch = 1: one utterance at a time; the papers print no batch")
    return tuple(dict.fromkeys(listed))
