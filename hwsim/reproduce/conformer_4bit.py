"""The 4-bit Conformer (Ding et al., Interspeech 2022): sizes of its model files in float32, INT8, INT4 and mixed.

One rule gives every size: linear layers of the encoders as integer codes with one float32 scale for each channel;
everything else in float32, that is the decoder, convolution kernels, norms and biases. The matrices of the production
model's decoders are counted in INT8, which its published sizes need. Nothing is fitted to sizes; the widths of the
production model follow from its printed counts of parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from hwsim.extract import load_network
from hwsim.extract.encoder_spec import CascadedEncoderSpec
from hwsim.numerics import NumberFormat, PrecisionPolicy, load_policy
from hwsim.reproduce.record import SIZE_TOLERANCE, Listing, Reproduction, Row, reached
from hwsim.reproduce.sizes import FLOAT_BITS, MEGABYTE, file_megabytes, float_remainder, parameters
from hwsim.trace import Role, Trace
from hwsim.trace.table import Tensor

PAPER = "Ding et al., Interspeech 2022, arXiv 2203.15952"
NETWORKS = {"L": "conformer_l", "S": "conformer_s"}
PRODUCTION = "conformer_production"
POLICIES = {"float32": "fp32", "int8": "conformer-int8", "int4": "conformer-int4"}
LIBRISPEECH: Mapping[str, tuple[float, float, float]] = {"L": (475, 139, 82), "S": (42, 17, 13)}
"""Published MB in float32, INT8 and INT4."""
MIXED = {1: 108, 2: 101, 3: 94, 4: 84, 5: 75, 6: 66}
"""First layers of both production encoders in INT4, the rest in INT8, to published MB."""
PRODUCTION_SIZES: Mapping[str, float] = {"float32": 460, "int8": 115, "int4": 61}
RATIOS = (
    ("L, float32 over int4", "L, float32", "L, int4", 5.8),
    ("production, float32 over int4 in the first 3", "production, float32", "production, int4 in the first 3", 4.9),
)

Step = Callable[[int, int], None]


def reproduce(on_step: Step | None = None) -> Reproduction:
    """All sizes and the two printed compressions; `on_step(done, total)` is told of progress."""
    traces = {letter: load_network(name).networks for letter, name in NETWORKS.items()}
    production = load_network(PRODUCTION).networks
    rows = [*_librispeech_rows(traces), *production_rows(production)]
    rows += _ratios(rows)
    if on_step:
        on_step(1, 1)
    return Reproduction(
        name="conformer-4bit",
        title="4-bit Conformer: sizes of model files",
        rows=tuple(rows),
        assumptions=_assumptions(),
        sensitivity=(),
        notes=(reached(rows), _decoder_note(production, rows), _step_note(production), _small_note(traces, rows)),
        listings=(_remainders({**traces, "production": production}),),
    )


def _librispeech_rows(traces: Mapping[str, Trace]) -> list[Row]:
    source = f"{PAPER}, sizes of the LibriSpeech models"
    return [
        Row(f"{letter}, {name}", published, file_megabytes(traces[letter], load_policy(policy)), "MB", source,
            SIZE_TOLERANCE)
        for letter, sizes in LIBRISPEECH.items()
        for (name, policy), published in zip(POLICIES.items(), sizes, strict=True)
    ]  # fmt: skip


def mixed_policy(first: int) -> PrecisionPolicy:
    """INT4 in the first blocks of both production encoders, INT8 in the rest: `conformer-mixed-k3` for other numbers.

    Of no block it is `conformer-production-int8`. Raises HwsimError for a policy file that has changed.
    """
    if first == 0:
        return load_policy("conformer-production-int8")
    shipped = load_policy("conformer-mixed-k3")
    rules = tuple((glob.replace("[0-2]", f"[0-{first - 1}]"), rule) for glob, rule in shipped.rules)
    return replace(shipped, name=f"conformer-mixed-k{first}", rules=rules)


def with_decoders(policy: PrecisionPolicy, weights: str) -> PrecisionPolicy:
    """A policy of the production model with other weights in its decoders."""
    rules = tuple(
        (glob, replace(rule, weights=NumberFormat.parse(weights)) if glob in ("prediction*", "joint*") else rule)
        for glob, rule in policy.rules
    )
    return replace(policy, name=f"{policy.name}, decoders {weights}", rules=rules)


def production_rows(trace: Trace) -> list[Row]:
    """Sizes of the production model."""
    policies = {
        "float32": load_policy("fp32"),
        "int8": mixed_policy(0),
        "int4": load_policy("conformer-production-int4"),
        **{f"int4 in the first {first}": mixed_policy(first) for first in MIXED},
    }
    sizes = {**PRODUCTION_SIZES, **{f"int4 in the first {first}": size for first, size in MIXED.items()}}
    source = f"{PAPER}, sizes of the production model; int4 in the first layers of both encoders, the rest int8"
    return [
        Row(f"production, {name}", size, file_megabytes(trace, policies[name]), "MB", source, SIZE_TOLERANCE)
        for name, size in sizes.items()
    ]


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
        f"precision.conformer-mixed-k3: {load_policy('conformer-mixed-k3').assumption}",
        f"precision.conformer-production-int8: {load_policy('conformer-production-int8').assumption}",
        *(f"workload.{PRODUCTION}.{part}: {source}" for part, source in _production_sources().items()),
    )


def _production_sources() -> Mapping[str, str]:
    spec = load_network(PRODUCTION).spec
    encoder = spec.encoder
    assert isinstance(encoder, CascadedEncoderSpec)
    return {
        "encoder.first": encoder.first.source, "encoder.second": encoder.second.source,
        "prediction": spec.prediction.source, "joint": spec.joint.source,
    }  # fmt: skip


def _remainders(traces: Mapping[str, Trace]) -> Listing:
    """What stays float in the networks of the catalogue."""
    rows: list[tuple[float | str, ...]] = []
    for trace in traces.values():
        policy = "conformer-production-int4" if trace.name == PRODUCTION else "conformer-int4"
        remainder = float_remainder(trace, load_policy(policy))
        total = sum(tensor.elements for tensor in parameters(trace))
        mb = 4 * remainder / MEGABYTE
        rows.append((trace.name, total / 1e6, (total - remainder) / 1e6, remainder / 1e6, mb))
    title = "What the rule leaves in float32: convolution kernels, norms, biases, and the decoder but in production"
    return Listing(title, ("network", "parameters M", "quantized M", "float M", "float MB"), tuple(rows))


def _decoder_note(trace: Trace, rows: Sequence[Row]) -> str:
    found = {row.figure: row.simulated for row in rows}
    eight, four = load_policy("conformer-production-int8"), load_policy("conformer-production-int4")
    floats = [file_megabytes(trace, with_decoders(policy, "fp32")) for policy in (eight, four)]
    low = file_megabytes(trace, with_decoders(four, "int4/channel"))
    return (
        f"Production with decoders in float32, as the paper's text has it, would be {floats[0]:.0f} MB in INT8 and"
        f" {floats[1]:.0f} MB in INT4. With decoders in INT4 too the INT4 file would be {low:.1f} MB and not"
        f" {found['production, int4']:.1f}; the rule keeps them in INT8 in every row, so that row misses."
    )


def _step_note(trace: Trace) -> str:
    """What the published steps ask of the blocks: half a byte for each weight that goes from INT8 to INT4."""
    second, bare, attending = (
        sum(t.elements for t in parameters(trace) if _is_matrix(t) and t.layer.startswith(f"encoder_{block}.")) / 1e6
        for block in ("second.layer0", "first.layer0", "first.layer3")
    )
    early, late = 2 * (PRODUCTION_SIZES["int8"] - MIXED[3]) / 3, 2 * (MIXED[3] - MIXED[6]) / 3
    return (
        f"Each of the first three steps of the mixed series is {early:.1f} M weights on average, each of the next three"
        f" {late:.1f} M (to the rounding of the print, ±0.7 M). A block of the second encoder has {second:.1f} M here,"
        f" which leaves {early - second:.1f} M for a causal block without attention and {late - second:.1f} M for one"
        f" with; blocks of one width have {bare:.1f} M and {attending:.1f} M. So the causal blocks with attention seem"
        " to be wider than the others. By how much is not printed, and the rows from 4 on are too large for it."
    )


def _is_matrix(tensor: Tensor) -> bool:
    return tensor.role == Role.WEIGHT and not tensor.layer.endswith("depthwise")


def _small_note(traces: Mapping[str, Trace], rows: Sequence[Row]) -> str:
    found = {row.figure: row.simulated for row in rows}
    float32, int8, _ = LIBRISPEECH["S"]
    asked = (4 * int8 - float32) / 12
    have = float_remainder(traces["S"], load_policy("conformer-int4")) / 1e6
    return (
        f"S is printed as 10.3 M parameters and as 42 MB, which are 10.5 M: the file has {42 - found['S, float32']:.1f}"
        f" MB that the network has not. Its float32 and INT8 sizes ask for {asked:.2f} M parameters in float32,"
        f" {NETWORKS['S']} leaves {have:.2f} M, {4 * (asked - have):.1f} MB less in each row: both low-bit rows miss."
        f" No other choice of encoder matrices to leave in float32 helps: S would need {_room(found, 'S', -1):.2f} M at"
        f" least to come within 3 % in INT4, and as matrices are {_matrix_ratio():.1f} times larger in L, that is"
        f" {_room(found, 'S', -1) * _matrix_ratio():.1f} M there, where {_room(found, 'L', 1):.1f} M is too much."
    )


def _room(found: Mapping[str, float], letter: str, side: int) -> float:
    """Millions of weights in float32, not INT4, that bring a size to the goal: from below with `side` -1, or above."""
    goal_mb = (1 + side * SIZE_TOLERANCE) * LIBRISPEECH[letter][2]
    return (goal_mb - found[f"{letter}, int4"]) / (FLOAT_BITS / 8 - 4 / 8)


def _matrix_ratio() -> float:
    """How much larger a matrix of the encoder of L is than that of S, at least: the square of the widths."""
    large, small = (load_network(NETWORKS[letter]).spec.encoder.outputs for letter in ("L", "S"))
    return (large / small) ** 2
