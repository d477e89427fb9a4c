"""Green ASR (Xu et al., Interspeech 2022): bits of each layer of a TDNN-F model and of a Transformer language model.

Weights are one table {0, ±a, ...} with one float32 scale for each matrix, in 1 to 16 bits. One rule gives every low-bit
size: factored layers and what follows them in the bits of their block; the first affine layer and biases in float32;
without the branch that only training has. Float sizes count that branch, as the published 74.4 and 49.6 MB do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hwsim.numerics.formats import SCALE_BITS
from hwsim.reproduce.green_asr_shapes import STRIDES, LanguageModel, Matrix, tdnnf
from hwsim.reproduce.record import SIZE_TOLERANCE, Listing, Reproduction, Row, reached
from hwsim.reproduce.sizes import FLOAT_BITS, MEGABYTE

PAPER = "Xu et al., Interspeech 2022, arXiv 2206.11643"
BOTTLENECKS = (80, 100, 80, 25, 80, 80, 80, 50, 80, 50, 25, 100, 160, 160)
"""Searched, by factored layer."""
EIGHT_BIT_BUDGET = (16, 8, 8, 1, 4, 4, 4, 2, 4, 2, 1, 4, 8, 8, 16)
"""Bits of the 14 factored layers and of what follows them, of the system whose budget is 8 bits."""
LM_BITS = 1.9

Step = Callable[[int, int], None]


def reproduce(on_step: Step | None = None) -> Reproduction:
    """All sizes and the compression of the whole; `on_step(done, total)` is told of progress."""
    rows = size_rows()
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


def float_mb(matrices: Sequence[Matrix]) -> float:
    """Weights and biases in float32, 10^6 bytes."""
    return FLOAT_BITS * sum(matrix.weights + matrix.biases for matrix in matrices) / 8 / MEGABYTE


def bits_of_blocks(bits: Sequence[int]) -> Mapping[str, int]:
    """Bits by block: those of the factored layers, then one number for what follows them. The first layer has none."""
    layers = {f"layer{index}": value for index, value in enumerate(bits[:-1])}
    return {**layers, "prefinal": bits[-1], "output": bits[-1]}


def mixed_mb(matrices: Sequence[Matrix], bits: Mapping[str, int]) -> float:
    """Codes, one scale for each matrix, and the rest in float32, 10^6 bytes."""
    return sum(_stored_bits(matrix, bits.get(matrix.block)) for matrix in matrices) / 8 / MEGABYTE


def _stored_bits(matrix: Matrix, bits: int | None) -> int:
    codes = FLOAT_BITS * matrix.weights if bits is None else bits * matrix.weights + SCALE_BITS
    return codes + FLOAT_BITS * matrix.biases


def language_model_mb(model: LanguageModel, bits: float) -> float:
    """Matrices at a mean number of bits, vectors in float32, 10^6 bytes."""
    return (bits * model.weights + FLOAT_BITS * model.vectors) / 8 / MEGABYTE


def size_rows() -> list[Row]:
    """The published sizes beside those that follow from shapes and bits."""
    searched, model = tdnnf(BOTTLENECKS), LanguageModel()
    uniform = mixed_mb(searched, bits_of_blocks([4] * (len(STRIDES) + 1)))
    budget = f"{PAPER}; the bits of its layers are not printed: 4 on average, as uniform"
    sizes = (
        ("TDNN-F, float32", 74.4, float_mb(tdnnf(training=True)), f"{PAPER}, table of systems; with training branch"),
        ("TDNN-F, searched bottlenecks, float32", 49.6, float_mb(tdnnf(BOTTLENECKS, training=True)),
         f"{PAPER}, table of systems; with training branch"),
        ("TDNN-F, uniform 4 bit", 6.4, uniform, f"{PAPER}, table of systems"),
        ("TDNN-F, mixed, budget of 4 bits", 6.3, uniform, budget),
        ("TDNN-F, mixed, budget of 8 bits", 12.5, mixed_mb(searched, bits_of_blocks(EIGHT_BIT_BUDGET)),
         f"{PAPER}, table of systems; bits of each block as printed"),
        ("Transformer LM, float32", 106.0, language_model_mb(model, FLOAT_BITS), f"{PAPER}; arXiv 2112.11438"),
        ("Transformer LM, mixed 1.9 bit", 7.0, language_model_mb(model, LM_BITS), f"{PAPER}; arXiv 2112.11438"),
    )  # fmt: skip
    rows = [Row(name, published, found, "MB", source, SIZE_TOLERANCE) for name, published, found, source in sizes]
    found = {row.figure: row.simulated for row in rows}
    ours = (found["TDNN-F, float32"] + found["Transformer LM, float32"]) / (
        found["TDNN-F, mixed, budget of 4 bits"] + found["Transformer LM, mixed 1.9 bit"]
    )
    source = f"{PAPER}, abstract: (74.4 + 106) / (6.3 + 7.0)"
    return [*rows, Row("compression of both models", 13.6, ours, "×", source, SIZE_TOLERANCE)]


def bit_listing() -> Listing:
    """Bottleneck, bits and size of each block under the budget of 8 bits."""
    matrices, bits = tdnnf(BOTTLENECKS), bits_of_blocks(EIGHT_BIT_BUDGET)
    rows: list[tuple[float | str, ...]] = []
    for block in dict.fromkeys(matrix.block for matrix in matrices):
        own = [matrix for matrix in matrices if matrix.block == block]
        weights = sum(matrix.weights for matrix in own)
        bottleneck = str(own[0].outputs) if block.startswith("layer") else ""
        megabytes = mixed_mb(own, bits)
        rows.append((block, bottleneck, str(bits.get(block, FLOAT_BITS)), weights / 1e6, float_mb(own), megabytes))
    title = "Bits of each block, searched bottlenecks and a budget of 8 bits"
    return Listing(title, ("block", "bottleneck", "bits", "weights M", "float MB", "MB"), tuple(rows))


def _assumptions() -> tuple[str, ...]:
    model = LanguageModel()
    return (
        "sizes.input = float32: the first affine layer is not among the 15 printed bits; in float32 it meets 6.4 and"
        " 12.5 MB, in the bits of its neighbours neither; chosen with both in view",
        "sizes.training_branch = false: a low-bit system holds what inference needs; the float sizes that are printed"
        " need the branch",
        f"lm.feed_forward = {model.feed_forward}: not printed; with a tied embedding it gives about the published size",
        f"lm.vocabulary = {model.vocabulary}: printed as 30 thousand words, which would be"
        f" {language_model_mb(LanguageModel(vocabulary=30_000), FLOAT_BITS):.0f} MB",
        "lm.mixed = 1.9 bits for every matrix on average: the bits of its layers are not printed",
    )


def _notes(rows: Sequence[Row]) -> tuple[str, ...]:
    row = next(row for row in rows if row.figure == "Transformer LM, mixed 1.9 bit")
    whole, words = LanguageModel(), LanguageModel(vocabulary=30_000)
    uniform = next(row.simulated for row in rows if row.figure == "TDNN-F, uniform 4 bit")
    return (
        f"7.0 MB over the language model's matrices is {8 * MEGABYTE * 7.0 / whole.weights:.2f} bits a weight, more"
        f" than the 1.9 that its name says; what the paper counts beside codes is not known. The row stays"
        f" at {row.simulated:.2f} MB, and with it the compression of both above the published one. With 30,000 words it"
        f" would be {language_model_mb(words, LM_BITS):.2f} MB, and {language_model_mb(words, FLOAT_BITS):.0f} MB in"
        " float32, published 106.",
        f"In float32 the first affine layer is {float_mb(tdnnf()[:1]):.2f} of {uniform:.2f} MB at 4 bits. Decoding with"
        " HCLG is outside. What chooses bits by sensitivity is `hwsim.train.sensitivity`.",
    )
