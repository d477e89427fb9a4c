"""Short sentences about machines and searches."""

from __future__ import annotations

from collections.abc import Iterable

from hwsim.arch import Architecture
from hwsim.extract.encoder_spec import (
    AnyEncoderSpec,
    BifocalEncoderSpec,
    CascadedEncoderSpec,
    ConformerEncoderSpec,
    ConvolvedFrames,
    EncoderSpec,
    TdnnfEncoderSpec,
)
from hwsim.extract.transformer_spec import TransformerSpec
from hwsim.report.units import binary_bytes, plural, rate, si

SEARCHES = {
    "alsd": "alignment-length synchronous beam search (alsd)",
    "tsd": "time-synchronous beam search (tsd)",
    "maes": "modified adaptive expansion search (maes)",
    "greedy": "greedy search",
}
FUSIONS = {
    "none": "no language model",
    "shallow": "shallow fusion of the external LM",
    "density-ratio": "density-ratio fusion of source and external LM",
}


def geometry(arch: Architecture) -> str:
    """`4 cores at 1.60 GHz, 2 weight-stationary arrays each`."""
    arrays = plural(arch.array.arrays_per_core.value, f"{arch.array.dataflow.replace('_', '-')} array")
    each = " each" if arch.cores.value > 1 else ""
    point = f" ({arch.operating_point})" if len(arch.operating_points) > 1 else ""
    return f"{plural(arch.cores.value, 'core')} at {si(arch.clock_hz, 'Hz')}{point}, {arrays}{each}"


def peaks(arch: Architecture, formats: Iterable[str]) -> str:
    """Peak rates of some formats."""
    return ", ".join(rate(arch.peak_ops_per_s(fmt), fmt) for fmt in formats)


def memory_text(arch: Architecture) -> str:
    """Scratchpad and DRAM."""
    scratchpad, dram = arch.memory.scratchpad, arch.dram
    each = f", {binary_bytes(scratchpad.capacity_bytes.value)} a core" if scratchpad.scope == "core" else ", shared"
    reached = f"{100 * dram.efficiency.value:.0f} % reached"
    bandwidth = si(dram.bandwidth_bytes_per_s.value, "B/s")
    size = binary_bytes(arch.scratchpad_bytes)
    return f"scratchpad {size}{each if arch.cores.value > 1 else ''}; DRAM {bandwidth}, {reached}"


def encoder_texts(spec: AnyEncoderSpec) -> list[tuple[str, str, str]]:
    """Name, text and source of each encoder of a network: of one, or of two."""
    if isinstance(spec, CascadedEncoderSpec):
        both = (("encoder_first", spec.first), ("encoder_second", spec.second))
        texts = [(name, encoder_text(part), part.source) for name, part in both]
        return [*texts, ("encoders", "cascaded", spec.source)]
    if isinstance(spec, BifocalEncoderSpec):
        left, right = encoder_text(spec.left), encoder_text(spec.right)
        return [
            ("encoder_left", f"{left}, for the first {plural(spec.left_frames, 'frame')} of an utterance", spec.source),
            ("encoder_right", f"{right}, for the other frames", "as encoder_left"),
        ]
    return [("encoder", encoder_text(spec), spec.source)]


def encoder_text(spec: EncoderSpec | ConformerEncoderSpec | TdnnfEncoderSpec) -> str:
    """`6 bidirectional LSTM layers of 640 cells on 340 features`, `4 Conformer blocks of width 64, ...`."""
    if isinstance(spec, ConformerEncoderSpec):
        return _conformer_text(spec)
    if isinstance(spec, TdnnfEncoderSpec):
        return _tdnnf_text(spec)
    direction = "bidirectional" if spec.bidirectional else "unidirectional"
    text = f"{plural(spec.layers, f'{direction} LSTM layer')} of {spec.cells} cells on {spec.input} features"
    if spec.stack_before_layer is not None:
        text += f", {spec.stack_factor} frames stacked before layer {spec.stack_before_layer}"
    return text


def _channels(way: ConvolvedFrames) -> str:
    last = f" and {way.last_channels}" if way.last_channels else ""
    return f"{way.channels}{last} channels" if last else plural(way.channels, "channel")


def _tdnnf_text(spec: TdnnfEncoderSpec) -> str:
    sizes = dict.fromkeys(spec.layer_bottlenecks)
    bottlenecks = "a bottleneck of" if len(sizes) == 1 else "bottlenecks of"
    listed = sizes if len(sizes) == 1 else spec.layer_bottlenecks
    spliced = f"{plural(2 * spec.splice + 1, 'frame')} of {spec.input} features"
    parts = [
        f"{plural(len(spec.strides), 'factored layer')} of width {spec.width} on {spliced}"
        + (f" and an i-vector of {spec.ivector}" if spec.ivector else ""),
        f"{bottlenecks} {' '.join(map(str, listed))}",
        f"strides {' '.join(map(str, spec.strides))}",
        f"bypass {spec.bypass:g}",
        f"then {spec.small}, {spec.large}, {spec.small}",
        f"{plural(spec.subsampling, 'frame')} to one",
        f"{plural(spec.context, 'frame')} of context on each side",
    ]
    return ", ".join(parts)


def transformer_text(spec: TransformerSpec) -> str:
    """`6 Transformer blocks of width 512, 8 heads, feed-forward 768, 30000 words, output layer tied to embedding`."""
    return ", ".join([
        f"{plural(spec.layers, 'Transformer block')} of width {spec.width}",
        plural(spec.heads, "head"),
        f"feed-forward {spec.feed_forward}",
        f"{spec.vocabulary} words",
        "output layer tied to the embedding" if spec.tied else "an output layer of its own",
    ])  # fmt: skip


def _conformer_text(spec: ConformerEncoderSpec) -> str:
    causal = "causal " if spec.causal else ""
    way = spec.subsampling
    kind = "depthwise separable convolutions" if way.kind == "conv2d" and way.separable else "convolutions"
    subsampled = "stacked" if way.kind == "stack" else f"subsampled by {kind} of {_channels(way)}"
    parts = [
        f"{plural(spec.layers, 'Conformer block')} of width {spec.width} on {spec.input} features",
        f"{plural(way.reduction, 'frame')} {subsampled} to one" if way.reduction > 1 else "no subsampling",
        f"{plural(spec.heads, 'head')}, {'relative' if spec.positions == 'relative' else 'no'} positions",
        f"{causal}kernel {spec.kernel}",
        f"feed-forward {spec.feed_forward} × {spec.width}",
    ]
    if spec.attention_from:
        parts.append(f"no attention in the first {plural(spec.attention_from, 'block')}")
    if spec.left is not None:
        parts.append(f"{plural(spec.left, 'frame')} of left context")
    if spec.right is not None:
        parts.append(f"{plural(spec.right, 'frame')} of right context")
    if spec.chunk is not None:
        parts.append(f"chunks of {plural(spec.chunk, 'frame')}")
    return ", ".join(parts)
