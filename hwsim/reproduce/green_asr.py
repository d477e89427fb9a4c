"""Green ASR (Xu et al., Interspeech 2022): bits of each layer of a TDNN-F model and of a Transformer language model.

Shapes are those of the networks `tdnnf_swbd`, `tdnnf_searched` and `transformer_lm_30k`, bits those of the policies
`green-4bit` and `green-mixed-8`. One rule gives every low-bit size: codes and a float32 scale for each matrix that a
policy quantizes, everything else in float32; without the branch that only training has. Float sizes count that branch,
as the published 74.4 and 49.6 MB do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from hwsim.extract import Workload, load_network, parameter_counts
from hwsim.extract.encoder_spec import TdnnfEncoderSpec
from hwsim.extract.spec import HybridSpec, LanguageModelSpec
from hwsim.extract.tdnnf import factored_layers
from hwsim.numerics import load_policy
from hwsim.numerics.formats import NumberFormat
from hwsim.reproduce.record import SIZE_TOLERANCE, Listing, Reproduction, Row, reached
from hwsim.reproduce.sizes import FLOAT_BITS, MEGABYTE, float_bits, parameters, tensor_bits
from hwsim.trace import TraceBuilder
from hwsim.trace.table import Tensor

PAPER = "Xu et al., Interspeech 2022, arXiv 2206.11643"
RECIPE, SEARCHED, LANGUAGE_MODEL = "tdnnf_swbd", "tdnnf_searched", "transformer_lm_30k"
UNIFORM, BUDGET = "green-4bit", "green-mixed-8"
ACOUSTIC = ("encoder", "head")
LM_BITS = 1.9
OTHER = {"vocabulary": 28_300, "feed_forward": 1024}

Step = Callable[[int, int], None]


def reproduce(on_step: Step | None = None) -> Reproduction:
    """All sizes and the compression of the whole; `on_step(done, total)` is told of progress."""
    rows = [*network_rows(), *size_rows()]
    if on_step:
        on_step(1, 1)
    return Reproduction(
        name="green-asr",
        title="Green ASR: 4-bit TDNN-F and 2-bit Transformer language model",
        rows=tuple(rows),
        assumptions=_assumptions(),
        sensitivity=(),
        notes=(reached(rows), *_notes(rows)),
        listings=(bit_listing(),),
    )


@dataclass(frozen=True, slots=True)
class LanguageModelSize:
    """Elements of the matrices of a language model, and of its vectors."""

    weights: int
    vectors: int

    def megabytes(self, bits: float) -> float:
        """Matrices at a mean number of bits, vectors in float32, 10^6 bytes."""
        return (bits * self.weights + FLOAT_BITS * self.vectors) / 8 / MEGABYTE


def acoustic(name: str, policy: str | None = None) -> list[Tensor]:
    """Parameters of the acoustic model of a workload at inference, with the formats of a policy."""
    trace = load_network(name).networks
    trace = trace if policy is None else trace.with_precision(load_policy(policy))
    return [tensor for tensor in parameters(trace) if tensor.component in ACOUSTIC]


def megabytes(tensors: Iterable[Tensor]) -> float:
    """Integer weights as they are stored, everything else in float32, 10^6 bytes."""
    return sum(tensor_bits(tensor) for tensor in tensors) / 8 / MEGABYTE


def language_model(**sizes: int) -> LanguageModelSize:
    """The workload's language model, or one of other `vocabulary` or `feed_forward`."""
    definition = load_network(LANGUAGE_MODEL).definition
    assert isinstance(definition, LanguageModelSpec)
    model = definition.model.model_copy(update=sizes)
    return LanguageModelSize(model.weights, model.vectors)


def _training_mb(name: str) -> float:
    return FLOAT_BITS * parameter_counts(load_network(name))["acoustic_training"] / 8 / MEGABYTE


def _encoder(workload: Workload) -> TdnnfEncoderSpec:
    definition = workload.definition
    assert isinstance(definition, HybridSpec)
    assert isinstance(definition.encoder, TdnnfEncoderSpec)
    return definition.encoder


def macs_per_audio_second(workload: Workload, seconds: int = 30) -> float:
    """MACs of a second of a long utterance, without what its ends need beside: between two lengths."""
    frames = round(seconds / workload.frame_period_s)
    counts = []
    for length in (frames, 2 * frames):
        b = TraceBuilder(workload.name)
        workload.emit_encoder(b, length)
        counts.append(int(b.build().macs.sum()))
    return (counts[1] - counts[0]) / seconds


def full_rate_macs(workload: Workload) -> float:
    """The same with the layers that turn the rate at all input frames, as every layer below them."""
    encoder = _encoder(workload)
    every, beside = 1 / workload.frame_period_s, 0.0
    for layer in factored_layers(encoder, 1):
        if layer.turns:
            given = every / layer.after.step
            macs = 2 * layer.width * layer.bottleneck
            beside += macs * (every - 2 * given) + macs * (every - given)
    return macs_per_audio_second(workload) + beside


def network_rows() -> list[Row]:
    """Parameters, work and context of the network with bottlenecks of 160; what no source prints has no goal."""
    workload = load_network(RECIPE)
    encoder, counts = _encoder(workload), parameter_counts(workload)
    derived = "derived from the shapes of the recipe"
    return [
        Row("TDNN-F, parameters with training branch", 18_702_628, counts["acoustic_training"], "",
            "Kaldi, chain recipe tdnn_7q of Switchboard; to the last parameter", 0.0),
        Row("TDNN-F, parameters at inference", None, counts["acoustic"] / 1e6, "M", derived),
        Row("TDNN-F, work", None, macs_per_audio_second(workload) / 1e9, "GMAC/s",
            f"{derived}, per second of audio; {full_rate_macs(workload) / 1e9:.3f} with the layer at the turn of the"
            " rate at all frames"),
        Row("TDNN-F, context on each side", None, encoder.context, "frames", derived),
    ]  # fmt: skip


def size_rows() -> list[Row]:
    """The published sizes beside those that follow from shapes and bits."""
    model = language_model()
    uniform = megabytes(acoustic(SEARCHED, UNIFORM))
    budget = f"{PAPER}; the bits of its layers are not printed: 4 on average, as uniform"
    sizes = (
        ("TDNN-F, float32", 74.4, _training_mb(RECIPE), f"{PAPER}, table of systems; with training branch"),
        ("TDNN-F, searched bottlenecks, float32", 49.6, _training_mb(SEARCHED),
         f"{PAPER}, table of systems; with training branch"),
        ("TDNN-F, uniform 4 bit", 6.4, uniform, f"{PAPER}, table of systems"),
        ("TDNN-F, mixed, budget of 4 bits", 6.3, uniform, budget),
        ("TDNN-F, mixed, budget of 8 bits", 12.5, megabytes(acoustic(SEARCHED, BUDGET)),
         f"{PAPER}, table of systems; bits of each block as printed"),
        ("Transformer LM, float32", 106.0, model.megabytes(FLOAT_BITS), f"{PAPER}; arXiv 2112.11438"),
        ("Transformer LM, mixed 1.9 bit", 7.0, model.megabytes(LM_BITS), f"{PAPER}; arXiv 2112.11438"),
    )  # fmt: skip
    rows = [Row(name, published, found, "MB", source, SIZE_TOLERANCE) for name, published, found, source in sizes]
    found = {row.figure: row.simulated for row in rows}
    ours = (found["TDNN-F, float32"] + found["Transformer LM, float32"]) / (
        found["TDNN-F, mixed, budget of 4 bits"] + found["Transformer LM, mixed 1.9 bit"]
    )
    source = f"{PAPER}, abstract: (74.4 + 106) / (6.3 + 7.0)"
    return [*rows, Row("compression of both models", 13.6, ours, "×", source, SIZE_TOLERANCE)]


def block_of(tensor: Tensor) -> str:
    """The block of the paper that a parameter belongs to: a factored layer, what is before them, or what follows."""
    first, _, rest = tensor.layer.partition(".")
    return "output" if first == "head" else rest.partition(".")[0]


def bit_listing() -> Listing:
    """Bottleneck, bits and size of each block under the budget of 8 bits."""
    tensors = acoustic(SEARCHED, BUDGET)
    bottlenecks = _encoder(load_network(SEARCHED)).layer_bottlenecks
    sizes = {f"layer{index}": str(size) for index, size in enumerate(bottlenecks)}
    rows: list[tuple[float | str, ...]] = []
    for block in dict.fromkeys(map(block_of, tensors)):
        own = [tensor for tensor in tensors if block_of(tensor) == block]
        matrices = [tensor for tensor in own if len(tensor.shape) > 1]
        fmt = NumberFormat.parse(matrices[0].format)
        bits = FLOAT_BITS if fmt.is_float else fmt.code_bits
        weights, floats = sum(tensor.elements for tensor in matrices), float_bits(own) / 8 / MEGABYTE
        rows.append((block, sizes.get(block, ""), str(bits), weights / 1e6, floats, megabytes(own)))
    title = "Bits of each block, searched bottlenecks and a budget of 8 bits"
    return Listing(title, ("block", "bottleneck", "bits", "weights M", "float MB", "MB"), tuple(rows))


def _assumptions() -> tuple[str, ...]:
    definition = load_network(LANGUAGE_MODEL).definition
    assert isinstance(definition, LanguageModelSpec)
    other = language_model(**OTHER).megabytes(FLOAT_BITS)
    return (
        "sizes.input = float32: the first affine layer is not among the 15 printed bits; in float32 it meets 6.4 and"
        " 12.5 MB, in the bits of its neighbours neither; chosen with both in view",
        "sizes.training_branch = false: a low-bit system holds what inference needs; the float sizes that are printed"
        " need the branch",
        "sizes.batch_norm = none: norms have no trained parameters and are folded into matrices and biases",
        f"lm.feed_forward = {definition.model.feed_forward}: not printed; chosen so that 30,000 words with a"
        f" tied embedding make the printed size; {OTHER['feed_forward']} with {OTHER['vocabulary']:,} words would be"
        f" {other:.0f} MB",
        f"lm.vocabulary = {definition.model.vocabulary}: printed as 30 thousand words",
        "lm.mixed = 1.9 bits for every matrix on average: the bits of its layers are not printed",
    )


def _notes(rows: Sequence[Row]) -> tuple[str, ...]:
    found = {row.figure: row.simulated for row in rows}
    whole, other, recipe = language_model(), language_model(**OTHER), load_network(RECIPE)
    first = float_bits(tensor for tensor in acoustic(SEARCHED) if block_of(tensor) == "affine") / 8 / MEGABYTE
    mixed, uniform = found["Transformer LM, mixed 1.9 bit"], found["TDNN-F, uniform 4 bit"]
    return (
        f"7.0 MB over the language model's matrices is {8 * MEGABYTE * 7.0 / whole.weights:.2f} bits a weight, more"
        f" than the 1.9 that its name says; what the paper counts beside codes is not known. The row stays"
        f" at {mixed:.2f} MB, and with it the compression of both above the published one. With {OTHER['vocabulary']:,}"
        f" words and a feed-forward size of {OTHER['feed_forward']} it would be {other.megabytes(LM_BITS):.2f} MB, and"
        f" {other.megabytes(FLOAT_BITS):.0f} MB in float32, published 106.",
        f"Frames are computed where a later layer needs them, {found['TDNN-F, work']:.3f} GMAC for a second of audio."
        f" {full_rate_macs(recipe) / 1e9:.3f} are what the three layers below the turn of the rate need"
        " at every frame: the third gives one frame of three, and its bottleneck two of three. An utterance is longer"
        f" by its context, {2 * _encoder(recipe).context} frames at the full rate, fewer in later layers.",
        f"In float32 the first affine layer is {first:.2f} of {uniform:.2f} MB at 4 bits. Decoding with HCLG is"
        " outside. What chooses bits by sensitivity is `hwsim.train.sensitivity`.",
    )
