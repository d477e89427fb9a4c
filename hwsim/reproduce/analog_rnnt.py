"""The MLPerf RNN-T on five analog chips (Ambrogio et al., Nature 620, 2023), and products on HERMES.

One set of constants for all chips. Three of them are calibrated, and no figure of time is: `docs/analog.md` has the
arithmetic. Powers of chips 3 and 5 are predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hwsim.arch import load_arch
from hwsim.cost.analog import TileBlock, tile_energy_pj, tile_s
from hwsim.reproduce.analog_conditions import (
    SET_AUDIO_S,
    UTTERANCES,
    Chip,
    DevSet,
    chips,
    dev_set,
    expanded,
    headline,
    machine,
    matrices,
    products,
    run,
    sensitivity,
)
from hwsim.reproduce.record import Listing, Reproduction, Row, reached
from hwsim.simulation import Result

PAPER = "Ambrogio et al., Nature 620, 2023"
HERMES = "Le Gallo et al., Nature Electronics 2023, products on all 64 cores"
HERMES_FITTED = f"{HERMES}; constants of hermes_64core are derived from it"
POWER_TOLERANCE, TOLERANCE, TIME_TOLERANCE, EXACT = 0.08, 0.10, 0.05, 0.0

PUBLISHED_CHIPS = {1: (5_177_344, 1.23, 4.02), 2: (8_388_608, 1.20, 6.68), 4: (17_301_504, 1.33, 12.40)}
"""Chip to weights, W and TOPS/W."""
PUBLISHED_STEPS = {1: 7, 2: 7, 4: 7, 5: 5}
HERMES_PRODUCTS = {"one_phase": (63.1, 9.76, 133.0, 0.86), "four_phase": (16.1, 2.48, 520.0, 3.38)}
"""Mode to TOPS, TOPS/W, ns and µJ."""

ASSUMED = (
    "precision.fp16: formats of the digital part are not published",
    f"set.utterances = {UTTERANCES}: all as long as their mean, 6.2 s; the search is counted beside the encoder",
)
"""Beside those of the machine and the network."""

Step = Callable[[int, int], None]


def reproduce(on_step: Step | None = None) -> Reproduction:
    """Chips, the whole set with and without weight expansion, and HERMES; `on_step(done, total)` counts."""
    total, done = 4, 0

    def step() -> None:
        nonlocal done
        done += 1
        if on_step:
            on_step(done, total)

    arch = machine()
    result = run(arch)
    step()
    wider = run(expanded(arch))
    step()
    rows = (*mapping_rows(result, wider), *chip_rows(chips(result)), *set_rows(dev_set(result)),
            *expansion_rows(dev_set(wider)), *hermes_rows())  # fmt: skip
    step()
    changes = tuple(sensitivity(arch, headline(result)))
    step()
    return Reproduction(
        name="analog-rnnt",
        title="The RNN-T of MLPerf on five analog chips of 34 tiles, and products on HERMES",
        rows=rows,
        assumptions=(*result.assumptions, *ASSUMED),
        sensitivity=changes,
        notes=(reached(rows), *_notes(result, dev_set(result), wider)),
        listings=(chip_listing(result), time_listing(result)),
    )


def mapping_rows(result: Result, wider: Result) -> list[Row]:
    """Tiles, weights and devices, which follow from shapes and modes alone."""
    mapping, more = result.run.mapping, wider.run.mapping
    assert mapping is not None
    assert more is not None
    source = f"{PAPER}, mapping of the RNN-T"
    return [
        Row("tiles", 142, mapping.tiles, "", source, EXACT),
        Row("weights", 45_261_568, mapping.weights, "", source, EXACT),
        Row("devices", 141_078_528, mapping.devices, "", source, EXACT),
        Row("expansion.devices", 142_127_104, more.devices, "", source, EXACT),
    ]


def chip_rows(found: Sequence[Chip]) -> list[Row]:
    """Weights, steps, power and efficiency of each chip."""
    source = f"{PAPER}, table of chips"
    unpublished = "not published in what this package cites; a prediction with the constants of all chips"
    rows = []
    for chip in found:
        name, published = f"chip{chip.number}", PUBLISHED_CHIPS.get(chip.number)
        if published:
            rows.append(Row(f"{name}.weights", published[0], chip.weights, "", source, EXACT))
        if chip.number in PUBLISHED_STEPS:
            rows.append(Row(f"{name}.steps", PUBLISHED_STEPS[chip.number], chip.steps, "", source, EXACT))
        power, efficiency = (published[1], published[2]) if published else (None, None)
        where = f"{source}; two constants of all chips are calibrated on its powers" if published else unpublished
        rows.append(Row(f"{name}.power_w", power, chip.power_w, "W", where, POWER_TOLERANCE))
        rows.append(Row(f"{name}.tops_per_w", efficiency, chip.ops_per_j / 1e12, "TOPS/W", where, TOLERANCE))
    return rows


def set_rows(found: DevSet) -> list[Row]:
    """The whole development set."""
    source = f"{PAPER}, whole development set of LibriSpeech"
    calibrated = f"{source}; analog.column_energy_pj is calibrated on it"
    return [
        Row("set.time_s", 1.2877, found.time_s, "s", source, TIME_TOLERANCE),
        Row("set.rtf", 8e-5, found.time_s / SET_AUDIO_S, "", source, TIME_TOLERANCE),
        Row("set.energy_j", 4.44, found.energy_j, "J", source, TOLERANCE),
        Row("set.digital_energy_j", 0.11, found.digital_j, "J", source, TOLERANCE),
        Row("set.tops_per_w", 6.94, found.ops / found.energy_j / 1e12, "TOPS/W", source, TOLERANCE),
        Row("set.chips.tops_per_w", 7.09, found.tile_ops / found.analog_j / 1e12, "TOPS/W", source, TOLERANCE),
        Row("set.tiles.tops_per_w", 20.0, found.tile_ops / found.tile_j / 1e12, "TOPS/W", calibrated, TOLERANCE),
    ]


def expansion_rows(found: DevSet) -> list[Row]:
    """The set with weight expansion of layer 0."""
    source = f"{PAPER}, whole development set with weight expansion"
    return [
        Row("expansion.set.energy_j", 4.60, found.energy_j, "J", source, TOLERANCE),
        Row("expansion.set.digital_energy_j", 0.26, found.digital_j, "J", source),
        Row("expansion.set.tops_per_w", 6.704, found.ops / found.energy_j / 1e12, "TOPS/W", source, TOLERANCE),
        Row("expansion.set.samples_per_s_per_w", 546.6, UTTERANCES / found.energy_j, "1/J", source, TOLERANCE),
    ]


def hermes_rows() -> list[Row]:
    """A product on every core at once."""
    analog = load_arch("hermes_64core").analog
    assert analog is not None
    rows = []
    for mode, published in HERMES_PRODUCTS.items():
        shape = analog.modes[mode]
        block = TileBlock(shape.rows.value, shape.columns.value, shape)
        time_s, energy_j = tile_s(analog, block), analog.tiles * tile_energy_pj(analog, block) * 1e-12
        ops = 2 * analog.tiles * block.rows * block.columns
        found = (ops / time_s / 1e12, ops / energy_j / 1e12, time_s * 1e9, energy_j * 1e6)
        units = {"tops": "TOPS", "tops_per_w": "TOPS/W", "time_ns": "ns", "energy_uj": "µJ"}
        for (name, unit), there, here in zip(units.items(), published, found, strict=True):
            derived = name in ("tops", "time_ns") or mode == "one_phase"
            source = HERMES_FITTED if derived else HERMES
            rows.append(Row(f"hermes.{mode}.{name}", there, here, unit, source, TIME_TOLERANCE))
    return rows


def chip_listing(result: Result) -> Listing:
    """What each chip holds, and where its power goes."""
    found = []
    for chip in chips(result):
        names = ", ".join(m.name.removesuffix(".weight") for m in matrices(result) if chip.number - 1 in dict(m.chips))
        found.append((str(chip.number), names, chip.tiles, chip.weights, chip.steps, chip.power_w))
    return Listing("Chips", ("chip", "matrices", "tiles", "weights", "steps", "power W"), tuple(found))


def time_listing(result: Result) -> Listing:
    """Other readings of the time of the set, from step counts alone."""
    frames = result.frames
    analog = result.arch.analog
    assert analog is not None
    by_chip, gates_s = chips(result), analog.periphery.step_s.value
    step_s, label_s = by_chip[0].time_s, by_chip[4].time_s
    layers = sum(matrix.name.endswith(".wh") and matrix.layer.startswith("encoder.") for matrix in matrices(result))
    encoder_s = (frames + layers - 1) * (step_s + gates_s)
    decoder_s = _labels(result) * (label_s + gates_s)
    readings = {
        "encoder steps without digital time, layers side by side": frames * step_s,
        "and 300 ns of gates a step": frames * (step_s + gates_s),
        "and the last frame through the other layers": encoder_s,
        "simulated: the search beside the encoder, its layers one after another": result.latency_s,
        "a decoder step of 5 time steps and gates, after the encoder": encoder_s + decoder_s,
    }
    title = f"Time of the set, {UTTERANCES:,} utterances of {frames} frames, by what is counted; published: 1.2877 s"
    return Listing(title, ("reading", "s"), tuple((name, UTTERANCES * each_s) for name, each_s in readings.items()))


def _labels(result: Result) -> int:
    """Steps of the decoder in the utterance."""
    return next(products(result)[m.tensor] for m in matrices(result) if m.name == "prediction.layer0.wh")


def energy_by_published_power_j(result: Result) -> float:
    """Energy of the set with the power of each chip as published, J; of chips 3 and 5 as predicted."""
    counts, total_j = products(result), 0.0
    for chip in chips(result):
        power_w = PUBLISHED_CHIPS[chip.number][1] if chip.number in PUBLISHED_CHIPS else chip.power_w
        steps = max(counts[m.tensor] for m in matrices(result) if chip.number - 1 in dict(m.chips))
        total_j += power_w * chip.time_s * steps * UTTERANCES
    return total_j


def _notes(result: Result, found: DevSet, wider: Result) -> tuple[str, ...]:
    decoder = sum(m.weights for m in matrices(result) if 4 in dict(m.chips))
    folded = sum(m.inputs * m.block.columns for m in matrices(result) if 4 in dict(m.chips))
    extra = dev_set(wider).digital_j - found.digital_j
    return (
        f"The published total counts the decoder as the network has it, {decoder:,} weights: the embedding of 28 x 320"
        f" and Wx of 320 x 1280. The chip holds their product of 28 x 1280, so its listed matrices sum to {folded:,}."
        " Nine copies of it give the published number of devices.",
        "Time has no fitted constant: the step of 300 ns, 7 steps of an encoder layer and 5 of a decoder layer, 300 ns"
        " of gates, layers and search side by side. Labels per second are assumed: more than about 15 make the decoder,"
        " whose layers follow each other, slower than the encoder; the paper does not say that it counts this.",
        "The published sum of energy counts a chip only while it works: with a power for each chip in place of the"
        f" constants of all, as published for chips 1, 2 and 4, chips take {energy_by_published_power_j(result):.2f} J"
        " and 4.44 - 0.11 = 4.33 J are published.",
        "Calibrated, each one number for all chips: the energy of a column on the published 20.0 TOPS/W of tiles alone;"
        " the power of a chip and the energy of a value on the mesh on the three published powers, by least squares."
        f" Two constants for three powers leave {_worst(result):.1%} at most.",
        f"The digital energy is a prediction of component models; so are the {extra:.2f} J of weight expansion, 0.15 J"
        " published: its product takes FP16 MACs here and nothing else.",
        "HERMES has four constants: two of time from two published times, the energy of a column and of a conversion"
        " from one-phase energy and the published share of converters. Four-phase energy is a prediction.",
    )


def _worst(result: Result) -> float:
    by_number = {chip.number: chip.power_w for chip in chips(result)}
    return max(abs(by_number[number] / power - 1) for number, (_, power, _) in PUBLISHED_CHIPS.items())
