"""Decoding on chips: the work of a study of drift, in this process or in workers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from hwsim.arch import load_arch
from hwsim.decode.settings import DecodeSettings
from hwsim.errors import HwsimError
from hwsim.extract import load_network
from hwsim.recognize import Recognizer
from hwsim.recognize.analog import AnalogRecognizer, analog_recognizer
from hwsim.recognize.errors import word_errors
from hwsim.recognize.policy import policy_of
from hwsim.recognize.recognizer import PARTS, Transcript
from hwsim.simulation import Result, simulate
from hwsim.study.drift.request import Condition, DriftRequest
from hwsim.study.work import CHUNK, recognizer_of, split_of

Row = dict[str, Any]
Key = tuple[str, int | None, float, bool, int]
GREEDY = DecodeSettings("greedy", 1, lm="none")


@dataclass(frozen=True)
class Chunk:
    """Some utterances of one condition."""

    request: DriftRequest
    condition: Condition
    utterances: tuple[int, ...]


def key_of(row: Row) -> Key:
    """What a row is about."""
    return row["precision"], row["chip"], row["t_s"], row["compensated"], row["utterance"]


def key(condition: Condition, utterance: int) -> Key:
    """The key of its row."""
    return condition.precision, condition.chip, condition.t_s, condition.compensated, utterance


def run_chunk(chunk: Chunk) -> list[Row]:
    """Decode each utterance, count its word errors, and take the energy of the decode on its machine.

    An utterance has noise of its own on a chip, so that a row does not depend on what was decoded before it.
    """
    request, condition = chunk.request, chunk.condition
    split, workload = split_of(request), load_network(request.workload)
    recognizer = _reader(request, condition)
    rows = []
    for index in chunk.utterances:
        if isinstance(recognizer, AnalogRecognizer):
            recognizer.restart(index)
        features = np.asarray(split[index][0], np.float64)
        found = recognizer.transcribe(features, GREEDY)
        errors = word_errors([split.transcripts[index]], [found.words])
        timed = _timed(request, condition, found)
        rows.append({
            "precision": condition.precision, "chip": condition.chip, "t_s": condition.t_s,
            "compensated": condition.compensated, "utterance": index, "errors": int(errors.errors[0]),
            "words": int(errors.words[0]), "hypothesis": found.words, "audio_s": workload.audio_seconds(len(features)),
            "energy_j": timed.energy_j, "host_j": timed.energy_by_part_j["host"],
        })  # fmt: skip
    return rows


def chunks_of(request: DriftRequest, done: Iterable[Key]) -> list[Chunk]:
    """What is left to do, a few utterances of one condition at a time, the conditions of a chip side by side."""
    found, there = [], set(done)
    for condition in request.conditions:
        left = [index for index in range(request.utterances) if key(condition, index) not in there]
        found += [Chunk(request, condition, tuple(left[at : at + CHUNK])) for at in range(0, len(left), CHUNK)]
    return found


def tile_layers(arch: str, workload: str) -> frozenset[str]:
    """Layers of a workload whose matrices a machine holds on analog tiles. Raises HwsimError for one without any."""
    mapping = simulate(load_arch(arch), load_network(workload), "fp16", settings=GREEDY, frames=10).run.mapping
    if mapping is None or not mapping.matrices:
        raise HwsimError(f"arch must be a machine with analog tiles that hold layers of {workload}, got {arch}")
    return frozenset(matrix.layer for matrix in mapping.matrices)


def _timed(request: DriftRequest, condition: Condition, found: Transcript) -> Result:
    """The decode on the machine of the condition."""
    arch = request.digital_arch if condition.chip is None else request.arch
    policy = policy_of(recognizer_of(request, condition.precision), condition.precision)
    return simulate(load_arch(arch), load_network(request.workload), policy, frames=found.frames, settings=GREEDY,
                    plan=found.schedule(GREEDY))  # fmt: skip


def _reader(request: DriftRequest, condition: Condition) -> Recognizer:
    """The recognizer of a condition."""
    recognizer = recognizer_of(request, condition.precision)
    if condition.chip is None:
        return recognizer
    return _read(recognizer, request, replace(condition, t_s=0.0), condition.t_s)


# By the recognizer itself, so that a file that changed is programmed anew.
@lru_cache(maxsize=4)
def _read(recognizer: Recognizer, request: DriftRequest, condition: Condition, t_s: float) -> AnalogRecognizer:
    return programmed(recognizer, request, condition).at(t_s)


@lru_cache(maxsize=2)
def programmed(recognizer: Recognizer, request: DriftRequest, condition: Condition) -> AnalogRecognizer:
    """A chip right after programming, without language models; what its machine has not on tiles stays digital."""
    networks = {name: recognizer.networks[name] for name in PARTS}
    layers = {each.network.tensors[weight].layer for each in networks.values() for weight in each.projections}
    digital = layers - tile_layers(request.arch, request.workload)
    settings = replace(request.settings(condition.compensated), digital=tuple(sorted(digital)))
    assert condition.chip is not None
    return analog_recognizer(replace(recognizer, networks=networks), settings, (request.seed, condition.chip))
