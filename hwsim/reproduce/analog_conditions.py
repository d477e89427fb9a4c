"""The analog RNN-T under one set of constants: chips by themselves, and the whole development set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hwsim.arch import Architecture, load_arch
from hwsim.cost.analog import mvm_s, mvm_steps, tile_energy_pj
from hwsim.cost.classes import first_operands
from hwsim.cost.mapping import AnalogMapping, MappedMatrix
from hwsim.cost.tiles import mvm_energy_pj
from hwsim.decode.settings import SpeechStatistics
from hwsim.extract import load_network
from hwsim.reproduce.record import Sensitivity
from hwsim.simulation import Result, simulate

MACHINE, NETWORK, POLICY = "analog_14nm_5chip", "rnnt_mlperf", "fp16"
UTTERANCES = 2513
SET_AUDIO_S = 4 * 3600 + 20 * 60
LAYER0 = "analog.placement.rules.encoder_layer0_wx"
EXPANDED_ROWS = 1024
DIGITAL_PARTS = ("mac", "vector", "scratchpad")
"""Energy of the digital part of the system; features from memory, links and host are not in the published sum."""


@dataclass(frozen=True)
class Chip:
    """One chip with the matrices on it, each of which does one product in a frame, side by side."""

    number: int
    weights: int
    """Of the network, copies counted once."""
    tiles: int
    steps: int
    time_s: float
    energy_j: float

    @property
    def power_w(self) -> float:
        """Energy of the products of a frame over their time."""
        return self.energy_j / self.time_s

    @property
    def ops_per_j(self) -> float:
        """2 operations a weight over the energy."""
        return 2 * self.weights / self.energy_j


def chips(result: Result) -> list[Chip]:
    """Every chip of a run."""
    mapping, analog = _mapping(result), result.arch.analog
    assert analog is not None
    found = []
    for chip, tiles in enumerate(mapping.used):
        matrices = mapping.on_chip(chip)
        energy_pj = sum(mvm_energy_pj(result.arch, mapping, matrix) for matrix in matrices)
        found.append(Chip(
            chip + 1, sum(matrix.weights for matrix in matrices), tiles,
            max(mvm_steps(analog, matrix.block) for matrix in matrices),
            max(mvm_s(analog, matrix.block) for matrix in matrices), energy_pj * 1e-12,
        ))  # fmt: skip
    return found


@dataclass(frozen=True)
class DevSet:
    """The development set: `UTTERANCES` of mean length one after another."""

    result: Result
    time_s: float
    analog_j: float
    digital_j: float
    ops: float
    """2 for each MAC of the network."""
    tile_ops: float
    """Those on tiles, a folded table with its matrix as in the network."""
    tile_j: float
    """What the columns of the tiles take of `analog_j`."""

    @property
    def energy_j(self) -> float:
        """Of chips and digital part."""
        return self.analog_j + self.digital_j


def dev_set(result: Result) -> DevSet:
    """Sums over the set from one utterance of mean length."""
    parts, analog, counts = result.energy_by_part_j, result.arch.analog, products(result)
    assert analog is not None
    held, tensors = _mapping(result).matrices, result.run.trace.tensors
    tile_ops = sum(2 * counts[matrix.tensor] * matrix.weights for matrix in held)
    digital_ops = 2 * sum(c.macs for c in result.components.values())
    digital_ops -= sum(2 * counts[matrix.tensor] * tensors[matrix.tensor].elements for matrix in held)
    tile_pj = sum(counts[matrix.tensor] * tile_energy_pj(analog, matrix.block) for matrix in held)
    return DevSet(
        result, UTTERANCES * result.latency_s, UTTERANCES * parts["analog"],
        UTTERANCES * sum(parts[name] for name in DIGITAL_PARTS),
        float(UTTERANCES * (tile_ops + digital_ops)), float(UTTERANCES * tile_ops), UTTERANCES * tile_pj * 1e-12,
    )  # fmt: skip


def products(result: Result) -> Mapping[int, int]:
    """Products with each matrix on tiles in the utterance, by its tensor."""
    trace = result.run.trace
    weight, _ = first_operands(trace)
    rows = np.bincount(weight[weight >= 0], trace.columns["m"][weight >= 0], len(trace.tensors))
    return {matrix.tensor: int(rows[matrix.tensor]) for matrix in _mapping(result).matrices}


def run(arch: Architecture, labels_per_second: float | None = None) -> Result:
    """The mean utterance of the set; `labels_per_second` in place of the workload's."""
    network = load_network(NETWORK)
    statistics = None
    if labels_per_second is not None:
        frames = network.decode.frames
        labels = labels_per_second * network.audio_seconds(frames)
        statistics = SpeechStatistics(network.encoder_frames(frames), labels, vocabulary=network.labels - 1)
    return simulate(arch, network, POLICY, statistics=statistics)


def machine(settings: Mapping[str, str] | None = None) -> Architecture:
    """The five chips, with settings of the user."""
    return load_arch(MACHINE, settings)


def expanded(arch: Architecture) -> Architecture:
    """Weight expansion of layer 0: a fixed digital product spreads 240 features over 1024 rows, in place of copies."""
    content = arch.model_dump()
    rule = content["analog"]["placement"]["rules"]["encoder_layer0_wx"]
    rule["copies"] = None
    rule["expanded_rows"] = {"value": EXPANDED_ROWS, "source": "Ambrogio et al., Nature 620, 2023, weight expansion"}
    return Architecture.model_validate(content)


CHANGES = (
    "analog.column_energy_pj", "analog.mesh.energy_pj_per_value", "analog.chip_power_w", "analog.periphery.step_s",
    "analog.converter.outputs_per_step",
)  # fmt: skip
"""Numbers of the machine that are halved and doubled."""
LABELS = "workload.decode.labels_per_second"


def headline(result: Result) -> dict[str, float]:
    """The figures whose sensitivity is shown."""
    found, by_chip = dev_set(result), chips(result)
    return {
        "set time, s": found.time_s, "set energy, J": found.energy_j, "set digital energy, J": found.digital_j,
        "chip1 power, W": by_chip[0].power_w, "chip4 power, W": by_chip[3].power_w,
    }  # fmt: skip


def sensitivity(arch: Architecture, baseline: Mapping[str, float]) -> list[Sensitivity]:
    """The headline figures with each number of `CHANGES`, and the labels of a second, halved and doubled."""
    found = []
    for path in CHANGES:
        before = _number(arch, path)
        for name, factor in (("halved", 0.5), ("doubled", 2.0)):
            after = before * factor
            after = int(after) if path.endswith("outputs_per_step") else after
            changed = headline(run(machine({path: repr(after)})))
            found.append(Sensitivity(f"arch.{path}", name, before, after, baseline, changed))
    labels = load_network(NETWORK).decode.labels_per_second
    for name, factor in (("halved", 0.5), ("doubled", 2.0)):
        changed = headline(run(arch, labels * factor))
        found.append(Sensitivity(LABELS, name, labels, labels * factor, baseline, changed))
    return found


def _number(arch: Architecture, path: str) -> float:
    node: object = arch
    for key in path.split("."):
        node = getattr(node, key)
    value: float = node.value  # type: ignore[attr-defined]
    return value


def _mapping(result: Result) -> AnalogMapping:
    assert result.run.mapping is not None
    return result.run.mapping


def matrices(result: Result) -> tuple[MappedMatrix, ...]:
    """Every matrix on tiles."""
    return _mapping(result).matrices
