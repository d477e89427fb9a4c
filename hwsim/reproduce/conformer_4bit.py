"""The 4-bit Conformer (Ding et al., Interspeech 2022): sizes of its model files in float32, INT8, INT4 and mixed.

One rule gives every size: linear layers of the encoders as integer codes with one float32 scale for each channel;
everything else in float32, that is the decoder, convolution kernels, norms and biases. The production model is
counted with its decoders in INT8, which its published sizes need. Nothing is fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hwsim.extract import load_network
from hwsim.numerics import load_policy
from hwsim.reproduce.conformer_production import production_mb
from hwsim.reproduce.record import SIZE_TOLERANCE, Listing, Reproduction, Row, reached
from hwsim.reproduce.sizes import FLOAT_BITS, MEGABYTE, file_megabytes, float_remainder, parameters
from hwsim.trace import Trace

PAPER = "Ding et al., Interspeech 2022, arXiv 2203.15952"
NETWORKS = {"L": "conformer_l", "S": "conformer_s"}
POLICIES = {"float32": "fp32", "int8": "conformer-int8", "int4": "conformer-int4"}
LIBRISPEECH: Mapping[str, tuple[float, float, float]] = {"L": (475, 139, 82), "S": (42, 17, 13)}
"""Published MB in float32, INT8 and INT4."""
MIXED = {1: 108, 2: 101, 3: 94, 4: 84, 5: 75, 6: 66}
"""First layers of both production encoders in INT4, the rest in INT8, to published MB."""
RATIOS = (
    ("L, float32 over int4", "L, float32", "L, int4", 5.8),
    ("production, float32 over int4 in the first 3", "production, float32", "production, int4 in the first 3", 4.9),
)

Step = Callable[[int, int], None]


def reproduce(on_step: Step | None = None) -> Reproduction:
    """All sizes and the two printed compressions; `on_step(done, total)` is told of progress."""
    traces = {letter: load_network(name).networks for letter, name in NETWORKS.items()}
    rows = [*_librispeech_rows(traces), *production_rows()]
    rows += _ratios(rows)
    if on_step:
        on_step(1, 1)
    return Reproduction(
        name="conformer-4bit",
        title="4-bit Conformer: sizes of model files",
        rows=tuple(rows),
        assumptions=_assumptions(),
        sensitivity=(),
        notes=(reached(rows), *_notes(traces, rows)),
        listings=(_remainders(traces),),
    )


def _librispeech_rows(traces: Mapping[str, Trace]) -> list[Row]:
    source = f"{PAPER}, sizes of the LibriSpeech models"
    return [
        Row(f"{letter}, {name}", published, file_megabytes(traces[letter], load_policy(policy)), "MB", source,
            SIZE_TOLERANCE)
        for letter, sizes in LIBRISPEECH.items()
        for (name, policy), published in zip(POLICIES.items(), sizes, strict=True)
    ]  # fmt: skip


def production_rows() -> list[Row]:
    """Sizes of the production model, from its printed counts of parameters."""
    sizes: list[tuple[str, float, float]] = [
        ("float32", 460, production_mb(0, FLOAT_BITS, FLOAT_BITS)),
        ("int8", 115, production_mb(0)),
        ("int4", 61, production_mb(None)),
        *((f"int4 in the first {first}", size, production_mb(first)) for first, size in MIXED.items()),
    ]
    source = f"{PAPER}, sizes of the production model; int4 in the first layers of both encoders, the rest int8"
    return [Row(f"production, {name}", size, found, "MB", source, SIZE_TOLERANCE) for name, size, found in sizes]


def _ratios(rows: Sequence[Row]) -> list[Row]:
    found = {row.figure: row.simulated for row in rows}
    source = f"{PAPER}, ratio of two of its sizes"
    return [
        Row(name, published, found[over] / found[under], "×", source, SIZE_TOLERANCE)
        for name, over, under, published in RATIOS
    ]


def _assumptions() -> tuple[str, ...]:
    return (
        f"precision.conformer-int4: {load_policy('conformer-int4').assumption}",
        f"sizes.float_bits = {FLOAT_BITS}: what stays float is 32 bits in the file, whatever a machine computes it in;"
        " 1 MB is 10^6 bytes",
        "production.decoder_bits = 8: the paper says that only encoders are quantized, but 460 MB over 115 MB is 4.0,"
        " which leaves no room for decoders in float32",
        "production.width: blocks of one width in each encoder, which follows from the printed counts; layers without"
        " attention have 19 of 24 parts of the weights of the others",
    )


def _remainders(traces: Mapping[str, Trace]) -> Listing:
    """What stays float in the networks of the catalogue."""
    rows: list[tuple[float | str, ...]] = []
    for letter, trace in traces.items():
        remainder = float_remainder(trace, load_policy("conformer-int4"))
        total = sum(tensor.elements for tensor in parameters(trace))
        mb = 4 * remainder / MEGABYTE
        rows.append((NETWORKS[letter], total / 1e6, (total - remainder) / 1e6, remainder / 1e6, mb))
    title = "What the rule leaves in float32: decoder, convolution kernels, norms and biases"
    return Listing(title, ("network", "parameters M", "quantized M", "float M", "float MB"), tuple(rows))


def _notes(traces: Mapping[str, Trace], rows: Sequence[Row]) -> tuple[str, ...]:
    found = {row.figure: row.simulated for row in rows}
    floats, fours = (production_mb(None, decoder_bits=bits) for bits in (FLOAT_BITS, 4))
    float32, int8, _ = LIBRISPEECH["S"]
    asked = (4 * int8 - float32) / 12
    have = float_remainder(traces["S"], load_policy("conformer-int4")) / 1e6
    return (
        "Production with decoders in float32, as the paper's text has it, would be"
        f" {production_mb(0, decoder_bits=FLOAT_BITS):.0f} MB in INT8 and {floats:.0f} MB in INT4. The last step of the"
        " published series, 66 to 61 MB, is 10 M weights in one causal layer, here"
        f" {2 * (production_mb(6) - production_mb(7)):.1f} M; with decoders in INT4 too the file would be"
        f" {fours:.1f} MB. The rule keeps them in INT8 in every row, so that row misses.",
        f"S is printed as 10.3 M parameters and as 42 MB, which are 10.5 M: the file has {42 - found['S, float32']:.1f}"
        f" MB that the network has not. Its float32 and INT8 sizes ask for {asked:.2f} M parameters in float32,"
        f" {NETWORKS['S']} leaves {have:.2f} M, {4 * (asked - have):.1f} MB less in each row: both low-bit rows miss.",
    )
