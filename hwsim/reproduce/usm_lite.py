"""USM-Lite (Ding et al., ICASSP 2024): sizes by the paper's rule and bit by bit, and the speed of its formats.

The paper prints sizes as a share of float32. Its column counts codes, masks and the scales of sub-channels, not the
scale of each channel nor zero points; here both stand side by side, on the GEMM weights of `usm_2b`. It prints no
speed: `edge_npu_sparse` skips the zeros of 2:4, `edge_npu` only reads fewer bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hwsim.extract import Workload, load_network
from hwsim.numerics.formats import NumberFormat, StoredBits
from hwsim.reproduce.record import SIZE_TOLERANCE, Listing, Reproduction, Row, reached
from hwsim.reproduce.sizes import FLOAT_BITS, float_bits
from hwsim.simulation import Result, simulate
from hwsim.trace import Role, Trace
from hwsim.trace.table import Tensor

WORKLOAD = "usm_2b"
SKIPS_ZEROS, ONLY_STORES = "edge_npu_sparse", "edge_npu"
AUDIO_S = 30.0
PAPER = "Ding et al., ICASSP 2024, arXiv 2312.08553"

SIZES = (
    ("int8", "int8/channel", 25.0),
    ("int4", "int4/channel", 12.5),
    ("int2", "int2/channel/zp", 6.3),
    ("int2, 16 sub-channels", "int2/group96/zp", 7.3),
    ("int2, 32 sub-channels", "int2/group48/zp", 8.3),
    ("int2, 64 sub-channels", "int2/group24/zp", 10.4),
    ("float32, 2:4", "fp32/2:4", 53.1),
    ("float32, 1:4", "fp32/1:4", 28.1),
    ("int4, 2:4", "int4/channel/2:4", 9.4),
)
"""Name, format and published size in percent; S sub-channels of 1536 weights are groups of 1536 / S."""
POLICIES = ("usm-int8", "usm-int4", "usm-int2-sub32", "usm-int4-2of4")

Step = Callable[[int, int], None]


def reproduce(on_step: Step | None = None) -> Reproduction:
    """The size column, and the speed of each policy on both machines; `on_step(done, total)` is told of progress."""
    workload = load_network(WORKLOAD)
    weights = gemm_weights(workload.networks)
    total, results = len(POLICIES) * 2 + 1, []
    for machine in (ONLY_STORES, SKIPS_ZEROS):
        for policy in POLICIES:
            results.append(_run(machine, workload, policy))
            if on_step:
                on_step(len(results), total)
    rows = (*size_rows(weights), *_speed_rows(results))
    if on_step:
        on_step(total, total)
    return Reproduction(
        name="usm-lite",
        title="USM-Lite: a Conformer of 2 B parameters in few bits and 2:4 sparse",
        rows=rows,
        assumptions=_assumptions(results),
        sensitivity=(),
        notes=(reached(rows), *_notes(workload, weights, results)),
        listings=(size_listing(weights), storage_listing(weights), _speed_listing(results)),
    )


def gemm_weights(trace: Trace) -> list[Tensor]:
    """Weights of the linear layers of Conformer blocks: no convolution, no subsampling, no softmax."""
    return [
        tensor
        for tensor in trace.tensors
        if tensor.role == Role.WEIGHT and tensor.layer.startswith("encoder.layer") and len(tensor.shape) == 2
        and not tensor.layer.endswith(".depthwise")
    ]  # fmt: skip


def share_by_rule(fmt: NumberFormat, weights: Sequence[Tensor]) -> float:
    """Size in percent of float32 as the paper counts: codes, masks, and scales of sub-channels only."""
    bits = [fmt.stored_bits(tensor.shape) for tensor in weights]
    scales = sum(part.scales for part in bits) if fmt.granularity == "group" else 0
    return 100 * (sum(part.codes + part.sparsity for part in bits) + scales) / float_bits(weights)


def share_stored(fmt: NumberFormat, weights: Sequence[Tensor]) -> float:
    """Size in percent of float32 with every stored bit: scales of channels and zero points too."""
    return 100 * sum(fmt.stored_bits(tensor.shape).total for tensor in weights) / float_bits(weights)


def size_rows(weights: Sequence[Tensor]) -> list[Row]:
    """The published column by the paper's rule."""
    source = f"{PAPER}, table of sizes, share of float32"
    return [
        Row(f"size, {name}", published, share_by_rule(NumberFormat.parse(text), weights), "%", source, SIZE_TOLERANCE)
        for name, text, published in SIZES
    ]


def size_listing(weights: Sequence[Tensor]) -> Listing:
    """The same column beside sizes with every stored bit, in percent with three decimals."""
    rows = []
    for name, text, published in SIZES:
        fmt = NumberFormat.parse(text)
        found = (share_by_rule(fmt, weights), share_stored(fmt, weights))
        rows.append((name, text, f"{published:g}", *(f"{share:.3f}" for share in found)))
    title = "Share of float32 in %: published, by the paper's rule, and with scales of channels and zero points too"
    return Listing(title, ("size", "format", "published", "by rule", "every bit"), tuple(rows))


def storage_listing(weights: Sequence[Tensor]) -> Listing:
    """Mask against index storage of the kept positions, in stored bits of a dense weight."""
    count = sum(tensor.elements for tensor in weights)
    rows: list[tuple[float | str, ...]] = []
    for pattern in ("2:4", "1:4"):
        for base in ("fp32", "int8/channel", "int4/channel"):
            found = []
            for storage in ("", "-index"):
                fmt = NumberFormat.parse(f"{base}/{pattern}{storage}")
                bits = [fmt.stored_bits(tensor.shape) for tensor in weights]
                found += [sum(part.sparsity for part in bits) / count, sum(part.total for part in bits) / count]
            rows.append((f"{base}/{pattern}", *found))
    return Listing(
        "Positions of kept weights as a mask or as indices, bits for each dense weight",
        ("format", "mask", "with it", "index", "with it"),
        tuple(rows),
    )


def _run(machine: str, workload: Workload, policy: str) -> Result:
    return simulate(machine, workload, policy, frames=round(AUDIO_S / workload.frame_period_s))


def _speed_rows(results: Sequence[Result]) -> list[Row]:
    found = {(result.arch.name, result.policy.name): result for result in results}
    rows = []
    for machine, what in ((SKIPS_ZEROS, "zeros skipped"), (ONLY_STORES, "zeros only not stored")):
        dense, sparse = found[machine, "usm-int4"], found[machine, "usm-int4-2of4"]
        where = f"not published; latency of usm-int4 over usm-int4-2of4 on {machine}, {AUDIO_S:g} s of audio"
        rows.append(Row(f"speed-up of 2:4, {what}", None, dense.latency_s / sparse.latency_s, "×", where))
    return rows


def _speed_listing(results: Sequence[Result]) -> Listing:
    rows = [
        (result.arch.name, result.policy.name, result.latency_s, result.rtf, result.energy_j,
         _weight_bytes(result) / 1e6, result.components["encoder"].bound)
        for result in results
    ]  # fmt: skip
    title = f"{WORKLOAD} over {AUDIO_S:g} s of audio"
    return Listing(
        title, ("machine", "precision", "latency s", "RTF", "energy J", "weights MB", "bound by"), tuple(rows)
    )


def _weight_bytes(result: Result) -> float:
    return sum(part.weight_bits for part in result.components.values()) / 8


def _assumptions(results: Sequence[Result]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for result in results for text in result.assumptions))


def _notes(workload: Workload, weights: Sequence[Tensor], results: Sequence[Result]) -> tuple[str, ...]:
    gemm = sum(tensor.elements for tensor in weights)
    whole = workload.networks.totals().parameters
    int4 = NumberFormat.parse("int4/channel")
    parts = [int4.stored_bits(tensor.shape) for tensor in weights]
    return (
        f"Sizes are of the {gemm / 1e9:.3f} billion weights in linear layers of Conformer blocks, {gemm / whole:.1%} of"
        f" {workload.name}. The paper's rule leaves out one scale for each channel"
        f" ({_percent(parts, 'scales', gemm):.2f} % of float32) and zero points.",
        "Mask and index cost the same at 2:4, 1 bit a weight; at 1:4 the index costs half.",
        _speed_note(results),
    )


def _percent(parts: Sequence[StoredBits], field: str, count: int) -> float:
    bits: int = sum(getattr(part, field) for part in parts)
    return 100 * bits / (FLOAT_BITS * count)


def _speed_note(results: Sequence[Result]) -> str:
    found = {(result.arch.name, result.policy.name): result for result in results}
    sparse, dense = found[SKIPS_ZEROS, "usm-int4-2of4"], found[SKIPS_ZEROS, "usm-int4"]
    stored = found[ONLY_STORES, "usm-int4-2of4"]
    return (
        f"Skipping zeros shortens {AUDIO_S:g} s of audio {dense.latency_s / sparse.latency_s:.2f} times and not twice:"
        f" products of activations, convolutions and the vector unit gain nothing. Where 2:4 is only stored, latency is"
        f" {stored.latency_s / dense.latency_s:.3f} of dense INT4, as so long an utterance is bound by"
        f" {stored.components['encoder'].bound}."
    )
